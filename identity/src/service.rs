//! The service: accounts, sessions and keys over the database.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use database::{Database, DatabaseError};
use event_schemas::{AccountId, Clock, Timestamp};
use http_conventions::ClientAddress;
use limits::Limits;

use crate::accounts::{self, Account, AccountError, Change, NewAccount, Status};
use crate::keys::{Fingerprinter, KeyError, KeyInfo, KeyRing, KeySource, Purpose, Start};
use crate::passwords::{HashError, Passwords};
use crate::permissions::{PermissionSet, Role};
use crate::random;
use crate::sessions::{self, Refreshed, Session};
use crate::settings::Settings;
use crate::throttle::Throttle;
use crate::tokens::{self, AccessToken, RefreshToken, Subject};
use crate::values::{Email, NewPassword, Password};
use crate::verifier::{Caller, Epochs, Standing, Verifier};

/// How often [`Identity::run`] looks for keys that another process changed, and removes what has expired.
const MAINTENANCE_INTERVAL: Duration = Duration::from_secs(5);

/// Accounts written in one job, so that an import does not hold up everybody else's commit.
const BATCH_ACCOUNTS: usize = 1_000;

/// Accounts, sessions and keys. Cloning is cheap and shares them.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    clock: Clock,
    keys: KeyRing,
    verifier: Verifier,
    settings: Settings,
    passwords: Passwords,
    password_tries: Throttle<String>,
    password_tries_by_address: Throttle<IpAddr>,
    registrations: Throttle<IpAddr>,
    guests: Throttle<IpAddr>,
    refreshes: Throttle<IpAddr>,
}

/// Why identity cannot start or change its keys.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Store(#[from] DatabaseError),
    #[error(transparent)]
    Keys(#[from] KeyError),
}

/// Why no session was begun or continued.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// No such account, no or another password, or disabled: never told apart.
    #[error("the e-mail address or the password is wrong")]
    BadCredentials,
    #[error("the refresh token is not valid")]
    InvalidRefreshToken,
    #[error("another account has this e-mail address")]
    EmailTaken,
    #[error("too many attempts")]
    Throttled(Duration),
    #[error("too many passwords are being hashed")]
    Busy,
    #[error(transparent)]
    Store(#[from] DatabaseError),
    #[error(transparent)]
    Keys(#[from] KeyError),
}

impl From<AccountError> for SessionError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::EmailTaken => Self::EmailTaken,
            AccountError::Busy => Self::Busy,
            AccountError::Store(error) => Self::Store(error),
            AccountError::NotFound | AccountError::LastAdmin | AccountError::Guest => Self::BadCredentials,
        }
    }
}

impl From<HashError> for SessionError {
    fn from(_: HashError) -> Self {
        // A hash that cannot be made for want of memory is want of capacity, too.
        Self::Busy
    }
}

impl From<HashError> for AccountError {
    fn from(_: HashError) -> Self {
        Self::Busy
    }
}

/// A session that has begun or gone on.
#[derive(Debug)]
pub struct SignedIn {
    pub account: Account,
    pub access: AccessToken,
    /// Permission names, separated by spaces.
    pub scope: String,
    pub(crate) refresh_token: String,
    pub refresh_expires_at: Timestamp,
}

impl SignedIn {
    /// The token that continues the session, once.
    pub fn refresh_token(&self) -> &str {
        &self.refresh_token
    }
}

impl Identity {
    /// Opens the accounts in `database` and the keys of `source`; counts attempts in this process.
    pub async fn open(
        database: impl Into<Database>,
        source: KeySource,
        settings: Settings,
        clock: Clock,
    ) -> Result<Self, IdentityError> {
        Self::open_counting(database, source, settings, clock, &Limits::InProcess).await
    }

    /// As [`Identity::open`], with attempts counted where `counting` says.
    pub async fn open_counting(
        database: impl Into<Database>,
        source: KeySource,
        settings: Settings,
        clock: Clock,
        counting: &Limits,
    ) -> Result<Self, IdentityError> {
        let database = database.into();
        database.migrate("identity", accounts::MIGRATIONS).await?;
        let keys = KeyRing::open(source, clock.now())?;
        let epochs = Epochs::in_database(database.clone());
        let verifier = Verifier::new(
            &settings.issuer,
            &settings.audience,
            settings.permissions,
            epochs,
            clock.clone(),
        );
        verifier.set_keys(keys.snapshot().public());
        verifier.epochs().refresh(&clock).await?;
        let limits = settings.limits;
        Ok(Self {
            inner: Arc::new(Inner {
                database,
                clock,
                keys,
                verifier,
                settings,
                passwords: Passwords::new(),
                password_tries: Throttle::new(
                    counting,
                    "identity/passwords_per_account",
                    limits.passwords_per_account,
                ),
                password_tries_by_address: Throttle::new(
                    counting,
                    "identity/passwords_per_address",
                    limits.passwords_per_address,
                ),
                registrations: Throttle::new(
                    counting,
                    "identity/registrations_per_address",
                    limits.registrations_per_address,
                ),
                guests: Throttle::new(counting, "identity/guests_per_address", limits.guests_per_address),
                refreshes: Throttle::new(
                    counting,
                    "identity/refreshes_per_address",
                    limits.refreshes_per_address,
                ),
            }),
        })
    }

    /// Checks the tokens that this service makes.
    pub fn verifier(&self) -> Verifier {
        self.inner.verifier.clone()
    }

    /// Fingerprints request bodies under the server's keys.
    pub fn fingerprinter(&self) -> Fingerprinter {
        Fingerprinter::new(self.inner.keys.clone(), self.inner.clock.clone())
    }

    /// Takes over changed keys and removes what has expired, until `shutdown` resolves. Correctness does not need it
    /// while no other process changes the keys.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let mut ticks = tokio::time::interval(MAINTENANCE_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => return,
                _ = ticks.tick() => {
                    if let Err(error) = self.maintain().await {
                        tracing::warn!(%error, "identity maintenance failed");
                    }
                }
            }
        }
    }

    /// One round of [`Identity::run`].
    pub async fn maintain(&self) -> Result<(), IdentityError> {
        if self.inner.keys.reload()? {
            self.inner.verifier.set_keys(self.inner.keys.snapshot().public());
            tracing::info!("the keys have changed");
        }
        let now = self.now();
        self.inner
            .database
            .write(move |session| sessions::purge(session, now))
            .await?;
        Ok(())
    }

    // Accounts.

    /// Creates an account; without a password nobody can log in to it.
    pub async fn create_account(
        &self,
        email: Email,
        password: Option<NewPassword>,
        role: Role,
    ) -> Result<Account, AccountError> {
        let password_hash = match password {
            Some(password) => Some(self.inner.passwords.hash(password.into_inner()).await?),
            None => None,
        };
        let now = self.now();
        let id = AccountId::generate(now, &random::bytes());
        let new = NewAccount {
            id,
            email: Some(email),
            password_hash,
            role,
        };
        let account = self
            .inner
            .database
            .write(move |session| accounts::insert(session, &new, now))
            .await?;
        self.inner.verifier.epochs().refresh(&self.inner.clock).await?;
        Ok(account)
    }

    /// Creates accounts that nobody can log in to, under given ids (an import's customers); those that exist are left
    /// alone. Returns how many were new.
    pub async fn create_bare_accounts(&self, new: &[(AccountId, Role)]) -> Result<usize, DatabaseError> {
        let now = self.now();
        let mut created = 0;
        for batch in new.chunks(BATCH_ACCOUNTS) {
            let batch = batch.to_vec();
            created += self
                .inner
                .database
                .write(move |session| accounts::insert_missing(session, &batch, now))
                .await?;
        }
        self.inner.verifier.epochs().refresh(&self.inner.clock).await?;
        Ok(created)
    }

    /// The account with this id.
    pub async fn account(&self, id: AccountId) -> Result<Option<Account>, DatabaseError> {
        self.inner
            .database
            .read(move |session| accounts::get(session, id))
            .await
    }

    /// The account with this address.
    pub async fn find_account(&self, email: Email) -> Result<Option<Account>, DatabaseError> {
        self.inner
            .database
            .read(move |session| accounts::find(session, &email))
            .await
    }

    /// Up to `max` accounts in the order of their ids, after `after`.
    pub async fn accounts(
        &self,
        after: Option<AccountId>,
        max: usize,
    ) -> Result<Vec<Account>, DatabaseError> {
        self.inner
            .database
            .read(move |session| accounts::list(session, after, max))
            .await
    }

    /// Gives an account another role; its sessions end.
    pub async fn set_role(&self, id: AccountId, role: Role) -> Result<Account, AccountError> {
        self.change(id, Change::Role(role)).await
    }

    /// Disables or enables an account; its sessions end.
    pub async fn set_status(&self, id: AccountId, status: Status) -> Result<Account, AccountError> {
        self.change(id, Change::Status(status)).await
    }

    /// Sets a new password without knowing the old one; the account's sessions end.
    pub async fn reset_password(
        &self,
        id: AccountId,
        password: NewPassword,
    ) -> Result<Account, AccountError> {
        let hash = self.inner.passwords.hash(password.into_inner()).await?;
        self.change(id, Change::PasswordHash(hash)).await
    }

    async fn change(&self, id: AccountId, change: Change) -> Result<Account, AccountError> {
        let account = self
            .inner
            .database
            .write(move |session| accounts::change(session, id, &change))
            .await?;
        self.inner.verifier.epochs().refresh(&self.inner.clock).await?;
        Ok(account)
    }

    // Sessions.

    /// Signs a customer up.
    pub async fn register(
        &self,
        email: Email,
        password: NewPassword,
        address: ClientAddress,
    ) -> Result<SignedIn, SessionError> {
        self.inner
            .registrations
            .take(address.bucket(), self.now())
            .await
            .map_err(SessionError::Throttled)?;
        let account = self.create_account(email, Some(password), Role::Customer).await?;
        self.begin(account).await
    }

    /// Lets somebody shop without signing up.
    pub async fn guest(&self, address: ClientAddress) -> Result<SignedIn, SessionError> {
        let now = self.now();
        self.inner
            .guests
            .take(address.bucket(), now)
            .await
            .map_err(SessionError::Throttled)?;
        let id = AccountId::generate(now, &random::bytes());
        let new = NewAccount {
            id,
            email: None,
            password_hash: None,
            role: Role::Guest,
        };
        let keys = self.inner.keys.snapshot();
        let (account, session) = self
            .inner
            .database
            .write(move |session| {
                let account = accounts::insert(session, &new, now)?;
                let session = sessions::begin(session, &keys, &account, now)?;
                Ok::<_, AccountError>((account, session))
            })
            .await?;
        self.signed_in(account, session.ok_or(SessionError::BadCredentials)?)
            .await
    }

    /// Logs in with a password.
    pub async fn log_in(
        &self,
        email: Email,
        password: Password,
        address: ClientAddress,
    ) -> Result<SignedIn, SessionError> {
        self.throttle_password(&email, address).await?;
        let wanted = email.clone();
        let found = self
            .inner
            .database
            .read(move |session| {
                let Some(account) = accounts::find(session, &wanted)? else {
                    return Ok(None);
                };
                let hash = accounts::password_hash(session, account.id)?;
                Ok::<_, DatabaseError>(Some((account, hash)))
            })
            .await?;
        let (account, hash) = found.unzip();
        let matches = self.inner.passwords.verify(password, hash.flatten()).await?;
        let account = account
            .filter(|account| matches && account.status == Status::Active)
            .ok_or(SessionError::BadCredentials)?;
        let signed_in = self.begin(account).await?;
        self.inner
            .password_tries
            .forgive(&email.as_str().to_owned())
            .await;
        Ok(signed_in)
    }

    /// Uses a refresh token, once; see [`sessions`] for repeats.
    pub async fn refresh(&self, token: &str, address: ClientAddress) -> Result<SignedIn, SessionError> {
        let now = self.now();
        self.inner
            .refreshes
            .take(address.bucket(), now)
            .await
            .map_err(SessionError::Throttled)?;
        let shown = RefreshToken::parse(token).ok_or(SessionError::InvalidRefreshToken)?;
        let keys = self.inner.keys.snapshot();
        match self
            .inner
            .database
            .write(move |session| sessions::refresh(session, &keys, shown, now))
            .await?
        {
            Refreshed::Next(session, account) => self.signed_in(account, session).await,
            Refreshed::Invalid => Err(SessionError::InvalidRefreshToken),
            Refreshed::Reused => {
                tracing::warn!(family = %shown.family, "a refresh token was used twice; its session has ended");
                Err(SessionError::InvalidRefreshToken)
            }
        }
    }

    /// Ends the session of a refresh token, whichever generation it is. One that is none of ours ends nothing.
    pub async fn log_out(&self, token: &str) -> Result<(), DatabaseError> {
        let genuine =
            RefreshToken::parse(token).filter(|t| t.genuine(&self.inner.keys.snapshot(), self.now()));
        match genuine {
            None => Ok(()),
            Some(token) => {
                self.inner
                    .database
                    .write(move |session| sessions::revoke(session, token.family))
                    .await
            }
        }
    }

    /// Changes the caller's own password: every session ends, and a new one begins.
    pub async fn change_password(
        &self,
        caller: &Caller,
        current: Password,
        new: NewPassword,
        address: ClientAddress,
    ) -> Result<SignedIn, SessionError> {
        let id = caller.account_id;
        let found = self
            .inner
            .database
            .read(move |session| {
                Ok::<_, DatabaseError>(accounts::get(session, id)?.zip(accounts::password_hash(session, id)?))
            })
            .await?;
        let (account, hash) = found.ok_or(SessionError::BadCredentials)?;
        let email = account.email.clone().ok_or(SessionError::BadCredentials)?;
        self.throttle_password(&email, address).await?;
        if account.status != Status::Active || !self.inner.passwords.verify(current, Some(hash)).await? {
            return Err(SessionError::BadCredentials);
        }
        let account = self.reset_password(id, new).await?;
        self.inner
            .password_tries
            .forgive(&email.as_str().to_owned())
            .await;
        self.begin(account).await
    }

    /// An access token for an account without a sign-in: for programs that run beside the services (an import), and
    /// for tests. The account must be active.
    pub async fn mint_access_token(&self, id: AccountId) -> Result<AccessToken, SessionError> {
        let account = self
            .account(id)
            .await?
            .filter(|account| account.status == Status::Active);
        self.access_token(account.ok_or(SessionError::BadCredentials)?.subject())
            .await
    }

    async fn throttle_password(&self, email: &Email, address: ClientAddress) -> Result<(), SessionError> {
        let now = self.now();
        self.inner
            .password_tries_by_address
            .take(address.bucket(), now)
            .await
            .map_err(SessionError::Throttled)?;
        self.inner
            .password_tries
            .take(email.as_str().to_owned(), now)
            .await
            .map_err(SessionError::Throttled)
    }

    async fn begin(&self, account: Account) -> Result<SignedIn, SessionError> {
        let (now, keys, subject) = (self.now(), self.inner.keys.snapshot(), account.clone());
        let session = self
            .inner
            .database
            .write(move |session| sessions::begin(session, &keys, &subject, now))
            .await?;
        // Disabled or changed while the password was being checked.
        self.signed_in(account, session.ok_or(SessionError::BadCredentials)?)
            .await
    }

    async fn signed_in(&self, account: Account, session: Session) -> Result<SignedIn, SessionError> {
        let access = self.access_token(account.subject()).await?;
        Ok(SignedIn {
            scope: self.permissions(account.role).to_scope(),
            account,
            access,
            refresh_token: session.token.to_text(),
            refresh_expires_at: session.expires_at,
        })
    }

    async fn access_token(&self, subject: Subject) -> Result<AccessToken, SessionError> {
        let Inner {
            keys,
            settings,
            verifier,
            clock,
            ..
        } = &*self.inner;
        let parties = (settings.issuer.as_str(), settings.audience.as_str());
        let scope = self.permissions(subject.role);
        let token = tokens::access_token(&keys.snapshot(), parties, subject, scope, self.now())?;
        // Another process may have created or promoted the account since the epochs were read.
        let standing = verifier
            .epochs()
            .standing(subject.account_id, subject.epoch, self.now());
        if subject.role.is_privileged() && standing != Standing::Good {
            verifier.epochs().refresh(clock).await?;
        }
        Ok(token)
    }

    pub(crate) fn permissions(&self, role: Role) -> PermissionSet {
        self.inner.settings.permissions.of(role)
    }

    // Keys.

    /// Every key, without secrets.
    pub fn keys(&self) -> Vec<KeyInfo> {
        self.inner.keys.list(self.now())
    }

    /// Adds a key and retires its predecessors when it becomes active. Returns its id. Writes the key file.
    pub fn rotate_key(&self, purpose: Purpose, start: Start) -> Result<Arc<str>, KeyError> {
        let id = self.inner.keys.rotate(purpose, self.now(), start)?;
        self.inner.verifier.set_keys(self.inner.keys.snapshot().public());
        Ok(id)
    }

    /// Takes a key out of use at once; tokens signed with it end. Writes the key file.
    pub fn retire_key(&self, id: &str) -> Result<(), KeyError> {
        self.inner.keys.retire(id, self.now())?;
        self.inner.verifier.set_keys(self.inner.keys.snapshot().public());
        Ok(())
    }

    /// Key ids and Ed25519 points of the JWKS.
    pub(crate) fn published_keys(&self) -> Vec<(String, [u8; 32])> {
        let keys = self.inner.keys.snapshot();
        keys.published(self.now())
            .map(|(id, point)| (id.to_owned(), point))
            .collect()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}
