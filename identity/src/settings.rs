//! What can be configured about identity.

use serde::Deserialize;

use crate::permissions::RolePermissions;
use crate::throttle::Rate;

/// The section `identity` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// `iss` of our tokens, and the only one accepted.
    pub issuer: String,
    /// `aud` of our tokens.
    pub audience: String,
    /// Role → permission names, where they differ from the defaults.
    pub permissions: RolePermissions,
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            issuer: "omisys".to_owned(),
            audience: "omisys".to_owned(),
            permissions: RolePermissions::default(),
            limits: Limits::default(),
        }
    }
}

/// How often somebody may try; addresses are counted by IPv4 address or IPv6 /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Passwords tried on one e-mail address, whether or not it has an account. A success starts over.
    pub passwords_per_account: Rate,
    /// Passwords tried from one address.
    pub passwords_per_address: Rate,
    /// Accounts registered from one address.
    pub registrations_per_address: Rate,
    /// Guests from one address.
    pub guests_per_address: Rate,
    /// Refresh tokens shown from one address.
    pub refreshes_per_address: Rate,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            passwords_per_account: Rate {
                burst: 10,
                per_minute: 2,
            },
            passwords_per_address: Rate {
                burst: 30,
                per_minute: 20,
            },
            registrations_per_address: Rate {
                burst: 20,
                per_minute: 10,
            },
            guests_per_address: Rate {
                burst: 100,
                per_minute: 60,
            },
            refreshes_per_address: Rate {
                burst: 100,
                per_minute: 120,
            },
        }
    }
}
