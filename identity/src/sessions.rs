//! Refresh tokens. A family begins with a sign-in; each use of its token makes the next generation.

use std::time::Duration;

use database::{DatabaseError, Session as Transaction, params};
use event_schemas::{AccountId, Timestamp};
use uuid::Uuid;

use crate::accounts::{self, Account, Status, time};
use crate::keys::{Key, Keys, Purpose};
use crate::random;
use crate::tokens::{RefreshToken, same};

/// How long a refresh token lives unused.
pub const REFRESH_TOKEN_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// How long a family lives, however often it is used.
pub const FAMILY_LIFE: Duration = Duration::from_secs(90 * 86_400);

/// Within this, a repeat of the last rotation gets the same successor: a lost answer is not theft.
pub const ROTATION_GRACE: Duration = Duration::from_secs(10);

/// Families that one account may have; the least recently used ends first.
const MAX_FAMILIES: usize = 20;

/// Expired families removed at a time.
const PURGE_ROWS: usize = 1_000;

/// A refresh token with when it ends.
pub(crate) struct Session {
    pub token: RefreshToken,
    pub expires_at: Timestamp,
}

/// What became of a refresh token that was shown.
pub(crate) enum Refreshed {
    Next(Session, Account),
    /// An old one, used again: somebody else has it. The family has ended.
    Reused,
    Invalid,
}

/// Starts a family, unless the account has changed since `account` was read.
pub(crate) fn begin(
    transaction: &Transaction<'_>,
    keys: &Keys,
    account: &Account,
    now: Timestamp,
) -> Result<Option<Session>, DatabaseError> {
    let unchanged = accounts::get_locked(transaction, account.id)?
        .is_some_and(|found| found.status == Status::Active && found.epoch == account.epoch);
    let Some(key) = keys.current(Purpose::Refresh, now).filter(|_| unchanged) else {
        return Ok(None);
    };
    let account_id = account.id.to_string();
    transaction.execute(
        "DELETE FROM refresh_families WHERE account_id = ?1 AND family NOT IN (
             SELECT family FROM refresh_families WHERE account_id = ?1 ORDER BY rotated_at DESC, family LIMIT ?2)",
        &params![&account_id, MAX_FAMILIES - 1],
    )?;
    let family = uuid::Builder::from_random_bytes(random::bytes()).into_uuid();
    let token = RefreshToken::derive(key, family, 0);
    let (expires_at, ends_at) = (now + REFRESH_TOKEN_LIFE, now + FAMILY_LIFE);
    transaction.execute(
        "INSERT INTO refresh_families
             (family, account_id, generation, token_hash, key_id, rotated_at, expires_at, ends_at, revoked)
         VALUES (?1, ?2, 0, ?3, ?4, ?5, ?6, ?7, 0)",
        &params![
            family.to_string(),
            account_id,
            token.digest(),
            &key.id,
            now.as_microsecond(),
            expires_at.as_microsecond(),
            ends_at.as_microsecond(),
        ],
    )?;
    Ok(Some(Session { token, expires_at }))
}

struct Family {
    account_id: AccountId,
    generation: u32,
    token_hash: [u8; 32],
    key_id: String,
    rotated_at: Timestamp,
    expires_at: Timestamp,
    ends_at: Timestamp,
    revoked: bool,
}

fn load(transaction: &Transaction<'_>, family: Uuid) -> Result<Option<Family>, DatabaseError> {
    let sql = "SELECT account_id, generation, token_hash, key_id, rotated_at, expires_at, ends_at, revoked
         FROM refresh_families WHERE family = ?1";
    transaction.query_opt(sql, &params![family.to_string()], |row| {
        Ok(Family {
            account_id: row.parse("account_id")?,
            generation: row.get("generation")?,
            token_hash: row.get("token_hash")?,
            key_id: row.get("key_id")?,
            rotated_at: time(row, "rotated_at")?,
            expires_at: time(row, "expires_at")?,
            ends_at: time(row, "ends_at")?,
            revoked: row.get("revoked")?,
        })
    })
}

/// Uses `shown`, once.
pub(crate) fn refresh(
    transaction: &Transaction<'_>,
    keys: &Keys,
    shown: RefreshToken,
    now: Timestamp,
) -> Result<Refreshed, DatabaseError> {
    // Of two that show the same token, the second must see what the first has made of it.
    transaction.lock(&format!("identity/family/{}", shown.family))?;
    let Some(family) =
        load(transaction, shown.family)?.filter(|family| !family.revoked && now < family.expires_at)
    else {
        return Ok(Refreshed::Invalid);
    };
    let account =
        accounts::get(transaction, family.account_id)?.filter(|account| account.status == Status::Active);
    let (Some(account), Some(key)) = (account, keys.current(Purpose::Refresh, now)) else {
        return Ok(Refreshed::Invalid);
    };
    if shown.generation == family.generation {
        if !same(&shown.digest(), &family.token_hash) {
            return Ok(Refreshed::Invalid);
        }
        return rotate(transaction, key, shown, &family, now)
            .map(|session| Refreshed::Next(session, account));
    }
    // Whoever makes up an old token must not be able to end the session.
    if shown.generation > family.generation || !shown.genuine(keys, now) {
        return Ok(Refreshed::Invalid);
    }
    let last = shown.generation + 1 == family.generation;
    if last && now <= family.rotated_at + ROTATION_GRACE {
        let successor = keys
            .find(&family.key_id)
            .map(|key| RefreshToken::derive(key, shown.family, family.generation));
        return Ok(match successor {
            Some(token) => Refreshed::Next(
                Session {
                    token,
                    expires_at: family.expires_at,
                },
                account,
            ),
            None => Refreshed::Invalid,
        });
    }
    revoke(transaction, shown.family)?;
    Ok(Refreshed::Reused)
}

fn rotate(
    transaction: &Transaction<'_>,
    key: &Key,
    shown: RefreshToken,
    family: &Family,
    now: Timestamp,
) -> Result<Session, DatabaseError> {
    let token = RefreshToken::derive(key, shown.family, family.generation + 1);
    let expires_at = (now + REFRESH_TOKEN_LIFE).min(family.ends_at);
    transaction.execute(
        "UPDATE refresh_families
         SET generation = ?2, token_hash = ?3, key_id = ?4, rotated_at = ?5, expires_at = ?6 WHERE family = ?1",
        &params![
            shown.family.to_string(),
            token.generation,
            token.digest(),
            &key.id,
            now.as_microsecond(),
            expires_at.as_microsecond(),
        ],
    )?;
    Ok(Session { token, expires_at })
}

/// Ends one family. The row stays until it would have expired.
pub(crate) fn revoke(transaction: &Transaction<'_>, family: Uuid) -> Result<(), DatabaseError> {
    let sql = "UPDATE refresh_families SET revoked = 1 WHERE family = ?1";
    transaction.execute(sql, &params![family.to_string()])?;
    Ok(())
}

/// Ends every family of an account.
pub(crate) fn revoke_all(transaction: &Transaction<'_>, account: AccountId) -> Result<(), DatabaseError> {
    let sql = "UPDATE refresh_families SET revoked = 1 WHERE account_id = ?1";
    transaction.execute(sql, &params![account.to_string()])?;
    Ok(())
}

/// Removes some of what has expired; how many rows.
pub(crate) fn purge(transaction: &Transaction<'_>, now: Timestamp) -> Result<usize, DatabaseError> {
    transaction.execute(
        "DELETE FROM refresh_families WHERE family IN (
             SELECT family FROM refresh_families WHERE expires_at < ?1 ORDER BY expires_at LIMIT ?2)",
        &params![now.as_microsecond(), PURGE_ROWS],
    )
}

#[cfg(test)]
mod tests {
    use database::testing::TestDatabase;

    use super::*;
    use crate::accounts::{AccountError, Change, MIGRATIONS, NewAccount};
    use crate::permissions::Role;

    /// Between the check of a password and the begin of a session, somebody may have disabled the account.
    #[tokio::test]
    async fn no_session_begins_on_what_was_read_before_a_change() {
        let test = TestDatabase::sqlite();
        let database = test.database();
        database.migrate("identity", MIGRATIONS).await.unwrap();
        let now = Timestamp::from_second(1_750_000_000).unwrap();
        let keys = Keys::fresh(now);
        let outcome = database.write(move |transaction| {
            let id = AccountId::generate(now, &[1; 10]);
            let new = NewAccount {
                id,
                email: None,
                password_hash: None,
                role: Role::Customer,
            };
            let read = accounts::insert(transaction, &new, now)?;
            let before = begin(transaction, &keys, &read, now)?.is_some();
            accounts::change(transaction, id, &Change::PasswordHash("new".into()))?;
            let after = begin(transaction, &keys, &read, now)?.is_some();
            let disabled = accounts::change(transaction, id, &Change::Status(Status::Disabled))?;
            let never = begin(transaction, &keys, &disabled, now)?.is_some();
            Ok::<_, AccountError>((before, after, never))
        });
        assert_eq!(outcome.await, Ok((true, false, false)));
    }
}
