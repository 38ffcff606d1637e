//! Accounts as rows.

use std::collections::HashMap;
use std::str::FromStr;

use database::{Database, DatabaseError, KeptTable, Row, Session, params};
use event_schemas::{AccountId, Timestamp};

use crate::permissions::Role;
use crate::sessions;
use crate::tokens::Subject;
use crate::values::Email;

/// The tables of this crate, step by step; steps are only ever appended.
pub(crate) const MIGRATIONS: &[&str] = &["
    CREATE TABLE accounts (
        id TEXT NOT NULL PRIMARY KEY,
        email TEXT UNIQUE,
        password_hash TEXT,
        role TEXT NOT NULL CHECK (role IN ('guest', 'customer', 'staff', 'admin')),
        status TEXT NOT NULL CHECK (status IN ('active', 'disabled')),
        epoch INTEGER NOT NULL,
        created_at INTEGER NOT NULL -- microseconds since the epoch
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX accounts_privileged ON accounts (role, status) WHERE role IN ('staff', 'admin');

    CREATE TABLE refresh_families (
        family TEXT NOT NULL PRIMARY KEY,
        account_id TEXT NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
        generation INTEGER NOT NULL,
        token_hash BLOB NOT NULL,
        key_id TEXT NOT NULL,
        rotated_at INTEGER NOT NULL, -- these three: microseconds since the epoch
        expires_at INTEGER NOT NULL,
        ends_at INTEGER NOT NULL,
        revoked INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX refresh_families_account ON refresh_families (account_id, rotated_at);
    CREATE INDEX refresh_families_expiry ON refresh_families (expires_at);
"];

/// What a backup keeps of this crate. Not the sessions: one that was ended after the backup would be open again.
pub const KEPT: [KeptTable; 1] = [KeptTable {
    name: "accounts",
    columns: &[
        "id",
        "email",
        "password_hash",
        "role",
        "status",
        "epoch",
        "created_at",
    ],
    key: 1,
    filter: None,
}];

/// Makes the tables of accounts and sessions in `database`, or brings them up to date.
pub async fn migrate(database: &Database) -> Result<(), DatabaseError> {
    database.migrate("identity", MIGRATIONS).await
}

/// Whether an account may sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Active,
    Disabled,
}

impl Status {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
        }
    }
}

impl FromStr for Status {
    type Err = std::io::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "active" => Ok(Self::Active),
            "disabled" => Ok(Self::Disabled),
            _ => Err(std::io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Somebody who can be named as a caller. A customer's account id is its customer id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub id: AccountId,
    pub email: Option<Email>,
    pub role: Role,
    pub status: Status,
    pub created_at: Timestamp,
    /// Without one nobody can log in to it.
    pub has_password: bool,
    pub(crate) epoch: u64,
}

impl Account {
    pub(crate) fn subject(&self) -> Subject {
        Subject {
            account_id: self.id,
            role: self.role,
            epoch: self.epoch,
        }
    }
}

/// An account to be.
#[derive(Clone, Debug)]
pub(crate) struct NewAccount {
    pub id: AccountId,
    pub email: Option<Email>,
    pub password_hash: Option<String>,
    pub role: Role,
}

/// Why an account is not created or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    #[error("there is no such account")]
    NotFound,
    #[error("another account has this e-mail address")]
    EmailTaken,
    #[error("this is the last active admin")]
    LastAdmin,
    #[error("a guest has no role to give or take: it signs up")]
    Guest,
    #[error("too many passwords are being hashed")]
    Busy,
    #[error(transparent)]
    Store(#[from] DatabaseError),
}

/// A column that does not hold what it should.
fn unexpected(column: &str, error: impl std::fmt::Display) -> DatabaseError {
    DatabaseError::Unexpected {
        column: column.to_owned(),
        message: error.to_string(),
    }
}

/// Reads a column of microseconds since the epoch.
pub(crate) fn time(row: &Row<'_>, column: &str) -> Result<Timestamp, DatabaseError> {
    Timestamp::from_microsecond(row.get(column)?).map_err(|error| unexpected(column, error))
}

const COLUMNS: &str = "id, email, password_hash IS NOT NULL AS has_password, role, status, epoch, created_at";

fn account(row: &Row<'_>) -> Result<Account, DatabaseError> {
    let email: Option<String> = row.get("email")?;
    let email = email.map(|text| Email::new(&text)).transpose();
    Ok(Account {
        id: row.parse("id")?,
        email: email.map_err(|error| unexpected("email", error))?,
        role: row.parse("role")?,
        status: row.parse("status")?,
        created_at: time(row, "created_at")?,
        has_password: row.get("has_password")?,
        epoch: row.get("epoch")?,
    })
}

/// Held while an account is changed, and while a session begins on what was read of it.
fn lock_account(session: &Session<'_>, id: AccountId) -> Result<(), DatabaseError> {
    session.lock(&format!("identity/account/{id}"))
}

pub(crate) fn insert(
    session: &Session<'_>,
    new: &NewAccount,
    now: Timestamp,
) -> Result<Account, AccountError> {
    let inserted = session.execute(
        "INSERT INTO accounts (id, email, password_hash, role, status, epoch, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6)",
        &params![
            new.id.to_string(),
            new.email.as_ref().map(Email::as_str),
            &new.password_hash,
            new.role.as_str(),
            Status::Active.as_str(),
            now.as_microsecond(),
        ],
    );
    match inserted {
        // Ids are ours and new: it is the address.
        Err(error) if error.is_unique_violation() => Err(AccountError::EmailTaken),
        Err(error) => Err(error.into()),
        Ok(_) => Ok(Account {
            id: new.id,
            email: new.email.clone(),
            role: new.role,
            status: Status::Active,
            created_at: now,
            has_password: new.password_hash.is_some(),
            epoch: 1,
        }),
    }
}

/// Inserts what is not there yet, by id; how many were new.
pub(crate) fn insert_missing(
    session: &Session<'_>,
    new: &[(AccountId, Role)],
    now: Timestamp,
) -> Result<usize, DatabaseError> {
    // Two imports of the same customers in another order would wait for each other.
    session.lock("identity/import")?;
    let mut created = 0;
    for (id, role) in new {
        created += session.execute(
            "INSERT INTO accounts (id, role, status, epoch, created_at) VALUES (?1, ?2, 'active', 1, ?3)
             ON CONFLICT (id) DO NOTHING",
            &params![id.to_string(), role.as_str(), now.as_microsecond()],
        )?;
    }
    Ok(created)
}

pub(crate) fn get(session: &Session<'_>, id: AccountId) -> Result<Option<Account>, DatabaseError> {
    let sql = format!("SELECT {COLUMNS} FROM accounts WHERE id = ?1");
    session.query_opt(&sql, &params![id.to_string()], account)
}

pub(crate) fn find(session: &Session<'_>, email: &Email) -> Result<Option<Account>, DatabaseError> {
    let sql = format!("SELECT {COLUMNS} FROM accounts WHERE email = ?1");
    session.query_opt(&sql, &params![email.as_str()], account)
}

/// The account as it is now, which nobody changes before this transaction ends.
pub(crate) fn get_locked(session: &Session<'_>, id: AccountId) -> Result<Option<Account>, DatabaseError> {
    lock_account(session, id)?;
    get(session, id)
}

/// Up to `max` accounts by id, after `after`.
pub(crate) fn list(
    session: &Session<'_>,
    after: Option<AccountId>,
    max: usize,
) -> Result<Vec<Account>, DatabaseError> {
    let sql = format!("SELECT {COLUMNS} FROM accounts WHERE id > ?1 ORDER BY id LIMIT ?2");
    let after = after.map_or_else(String::new, |id| id.to_string());
    session.query(&sql, &params![after, max], account)
}

pub(crate) fn password_hash(session: &Session<'_>, id: AccountId) -> Result<Option<String>, DatabaseError> {
    let sql = "SELECT password_hash FROM accounts WHERE id = ?1";
    let found = session.query_opt(sql, &params![id.to_string()], |row| row.get(0));
    found.map(Option::flatten)
}

/// What of an account is changed. Each ends every session and, for staff and admins, every access token.
pub(crate) enum Change {
    Role(Role),
    Status(Status),
    PasswordHash(String),
}

pub(crate) fn change(session: &Session<'_>, id: AccountId, change: &Change) -> Result<Account, AccountError> {
    // Whether an admin is the last depends on all others: two must not go at once.
    session.lock("identity/accounts")?;
    let before = get_locked(session, id)?.ok_or(AccountError::NotFound)?;
    let (column, value) = match change {
        Change::Role(_) if before.role == Role::Guest => return Err(AccountError::Guest),
        Change::Role(Role::Guest) => return Err(AccountError::Guest),
        Change::Role(role) if before.role == *role => return Ok(before),
        Change::Status(status) if before.status == *status => return Ok(before),
        Change::Role(role) => ("role", role.as_str()),
        Change::Status(status) => ("status", status.as_str()),
        Change::PasswordHash(hash) => ("password_hash", hash.as_str()),
    };
    if matches!(change, Change::Role(_) | Change::Status(Status::Disabled))
        && is_last_admin(session, &before)?
    {
        return Err(AccountError::LastAdmin);
    }
    session.execute(
        &format!("UPDATE accounts SET {column} = ?2, epoch = epoch + 1 WHERE id = ?1"),
        &params![id.to_string(), value],
    )?;
    sessions::revoke_all(session, id)?;
    get(session, id)?.ok_or(AccountError::NotFound)
}

fn is_last_admin(session: &Session<'_>, account: &Account) -> Result<bool, DatabaseError> {
    if (account.role, account.status) != (Role::Admin, Status::Active) {
        return Ok(false);
    }
    let count = "SELECT count(*) FROM accounts WHERE role = 'admin' AND status = 'active'";
    session.query_one(count, &[], |row| Ok(row.get::<i64>(0)? <= 1))
}

/// Active staff and admins with their epochs.
pub(crate) fn privileged_epochs(session: &Session<'_>) -> Result<HashMap<AccountId, u64>, DatabaseError> {
    let sql = "SELECT id, epoch FROM accounts WHERE role IN ('staff', 'admin') AND status = 'active'";
    let rows = session.query(sql, &[], |row| {
        Ok::<_, DatabaseError>((row.parse("id")?, row.get("epoch")?))
    })?;
    Ok(rows.into_iter().collect())
}
