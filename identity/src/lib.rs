//! Who is calling: accounts, passwords, tokens and keys, and the [`verifier`] that every other service embeds.
//!
//! [`Identity`] is the service over the database, [`router`] its HTTP routes. Roles map to named permissions; a role never
//! comes from a sign-up. E-mail addresses live in the accounts table and nowhere else.

mod accounts;
mod claims;
mod jws;
mod keys;
mod passwords;
mod permissions;
mod random;
mod routes;
mod service;
mod sessions;
mod settings;
mod throttle;
mod tokens;
mod values;
pub mod verifier;

pub use accounts::{Account, AccountError, KEPT, Status, migrate};
pub use keys::{
    Fingerprinter, JWKS_MAX_AGE, KeyError, KeyInfo, KeyRing, KeySource, KeyedMac, Purpose, Start,
};
pub use routes::{BEARER_SCHEME, bearer_scheme, openapi, router};
pub use service::{Identity, IdentityError, SessionError, SignedIn};
pub use sessions::{FAMILY_LIFE, REFRESH_TOKEN_LIFE, ROTATION_GRACE};
pub use settings::{Limits, Settings};
pub use throttle::Rate;
pub use tokens::{ACCESS_TOKEN_LIFE, AccessToken};
pub use values::{Email, NewPassword, Password, ValueError};
