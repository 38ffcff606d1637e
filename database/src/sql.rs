use std::borrow::Cow;

/// SQLite's dialect, as this workspace uses it, in PostgreSQL's: placeholders, and the types and options of tables.
pub fn postgres_sql(sql: &str) -> Cow<'_, str> {
    let declares = ["CREATE TABLE", "ALTER TABLE"]
        .iter()
        .any(|words| sql.contains(words));
    if declares {
        return Cow::Owned(
            sql.replace(" STRICT, WITHOUT ROWID", "")
                .replace(" STRICT", "")
                .replace(" INTEGER", " BIGINT")
                .replace(" BLOB", " BYTEA"),
        );
    }
    if !sql.contains('?') {
        return Cow::Borrowed(sql);
    }
    let mut translated = String::with_capacity(sql.len());
    let mut quoted = false;
    for character in sql.chars() {
        quoted ^= character == '\'';
        translated.push(if character == '?' && !quoted {
            '$'
        } else {
            character
        });
    }
    Cow::Owned(translated)
}

#[cfg(test)]
mod tests {
    use super::postgres_sql;

    #[test]
    fn placeholders_are_translated_but_not_in_text() {
        let sql = "UPDATE t SET a = ?1, b = 'why?' WHERE c = ?2";
        assert_eq!(postgres_sql(sql), "UPDATE t SET a = $1, b = 'why?' WHERE c = $2");
        assert_eq!(postgres_sql("SELECT 1"), "SELECT 1");
    }

    #[test]
    fn tables_are_translated() {
        let sql = "CREATE TABLE t (a INTEGER NOT NULL, b BLOB, PRIMARY KEY (a)) STRICT, WITHOUT ROWID;
            CREATE TABLE u (c TEXT) STRICT";
        let expected = "CREATE TABLE t (a BIGINT NOT NULL, b BYTEA, PRIMARY KEY (a));
            CREATE TABLE u (c TEXT)";
        assert_eq!(postgres_sql(sql), expected);
    }
}
