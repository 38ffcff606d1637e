use rusqlite::{Connection, OptionalExtension as _};

use crate::SqliteError;

/// Runs the steps beyond the component's recorded version. The caller's savepoint makes it all or nothing.
pub(crate) fn run(conn: &Connection, component: &'static str, steps: &[String]) -> Result<(), SqliteError> {
    conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_versions (
             component TEXT NOT NULL PRIMARY KEY,
             version INTEGER NOT NULL
         ) STRICT, WITHOUT ROWID",
    )?;
    let found: usize = conn
        .query_row(
            "SELECT version FROM schema_versions WHERE component = ?1",
            [component],
            |row| row.get(0),
        )
        .optional()?
        .unwrap_or(0);
    if found > steps.len() {
        return Err(SqliteError::Newer {
            component,
            found,
            known: steps.len(),
        });
    }
    if found == steps.len() {
        return Ok(());
    }
    for step in &steps[found..] {
        conn.execute_batch(step)?;
    }
    conn.execute(
        "INSERT INTO schema_versions (component, version) VALUES (?1, ?2)
         ON CONFLICT (component) DO UPDATE SET version = excluded.version",
        (component, steps.len()),
    )?;
    Ok(())
}
