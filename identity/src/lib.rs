//! Who is calling: accounts, passwords, tokens and keys, and the [`verifier`] that every other service embeds.

mod accounts;
mod claims;
mod jws;
mod permissions;
pub mod verifier;
