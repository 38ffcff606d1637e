//! Roles and the named permissions that configuration maps them to. Routes check permissions, never roles.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What an account is. Every account has exactly one role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Shops without signing up.
    Guest,
    /// Signed up.
    Customer,
    /// Works in the shop.
    Staff,
    /// Runs the shop.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Guest, Self::Customer, Self::Staff, Self::Admin];

    /// The name in tokens, rows and configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Customer => "customer",
            Self::Staff => "staff",
            Self::Admin => "admin",
        }
    }

    /// Whether tokens of this role are checked against the account's epoch, so that losing it takes hold at once.
    pub const fn is_privileged(self) -> bool {
        match self {
            Self::Guest | Self::Customer => false,
            Self::Staff | Self::Admin => true,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no role or permission.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} `{name}`")]
pub struct UnknownName {
    what: &'static str,
    name: String,
}

impl FromStr for Role {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let role = Self::ALL.into_iter().find(|role| role.as_str() == text);
        role.ok_or_else(|| UnknownName {
            what: "role",
            name: text.to_owned(),
        })
    }
}

macro_rules! permissions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// One thing that a caller may be allowed to do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Permission {
            $($(#[$doc])* $variant,)+
        }

        impl Permission {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in configuration, tokens and problems.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

permissions! {
    /// Change the catalogue.
    ProductWrite = "product.write",
    /// See unpublished and archived products.
    ProductReadAll = "product.read_all",
    /// Receive and adjust stock, set back-order limits.
    StockWrite = "stock.write",
    /// See exact stock and reservations.
    StockRead = "stock.read",
    /// Have a cart of one's own.
    CartUse = "cart.use",
    /// Place orders for oneself, and cancel, pay and return one's own.
    OrderPlace = "order.place",
    /// See everybody's orders and timelines.
    OrderReadAll = "order.read_all",
    /// Cancel anybody's order.
    OrderCancelAny = "order.cancel_any",
    /// Dispatch, deliver and complete.
    OrderFulfil = "order.fulfil",
    /// Place an order for a customer at agreed unit prices.
    OrderPriceOverride = "order.price_override",
    /// Say when something happened, if not now.
    OrderBackdate = "order.backdate",
    /// Approve, reject and receive returns.
    ReturnDecide = "return.decide",
    /// Give money back.
    RefundCreate = "refund.create",
    /// See everybody's payments.
    PaymentReadAll = "payment.read_all",
    /// See reports.
    ReportRead = "report.read",
    /// See how the system is doing.
    OpsRead = "ops.read",
    /// Rebuild views, retry and skip dead letters.
    OpsWrite = "ops.write",
    /// Find accounts.
    AccountRead = "account.read",
    /// Give roles.
    AccountWrite = "account.write",
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Permission {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL
            .iter()
            .copied()
            .find(|permission| permission.as_str() == text);
        found.ok_or_else(|| UnknownName {
            what: "permission",
            name: text.to_owned(),
        })
    }
}

/// A set of permissions; cheap to copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PermissionSet(u32);

impl PermissionSet {
    /// Nothing.
    pub const EMPTY: Self = Self(0);

    /// Everything.
    pub fn all() -> Self {
        Permission::ALL.iter().copied().collect()
    }

    /// Whether `permission` is in the set.
    pub const fn contains(self, permission: Permission) -> bool {
        self.0 & (1 << permission as u8) != 0
    }

    /// What both sets hold.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Its members, in declaration order.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL
            .iter()
            .copied()
            .filter(move |permission| self.contains(*permission))
    }

    /// The names, separated by spaces: a `scope` (RFC 6749, section 3.3).
    pub fn to_scope(self) -> String {
        self.iter().map(Permission::as_str).collect::<Vec<_>>().join(" ")
    }

    /// The permissions that a `scope` names; what this version does not know grants nothing.
    pub fn from_scope(scope: &str) -> Self {
        scope
            .split(' ')
            .filter_map(|name| name.parse::<Permission>().ok())
            .collect()
    }
}

impl FromIterator<Permission> for PermissionSet {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(
            permissions
                .into_iter()
                .fold(0, |bits, permission| bits | 1 << permission as u8),
        )
    }
}

/// Which role may do what. In configuration: a table of role → list of permission names; a role that is left out
/// keeps its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "BTreeMap<Role, Vec<String>>")]
pub struct RolePermissions([PermissionSet; Role::ALL.len()]);

impl RolePermissions {
    /// What `role` may do.
    pub const fn of(&self, role: Role) -> PermissionSet {
        self.0[role as usize]
    }
}

impl Default for RolePermissions {
    fn default() -> Self {
        use Permission as P;
        let shopper = PermissionSet::from_iter([P::CartUse, P::OrderPlace]);
        let staff = Permission::ALL
            .iter()
            .copied()
            .filter(|permission| !matches!(permission, P::OpsWrite | P::AccountRead | P::AccountWrite))
            .collect();
        Self([shopper, shopper, staff, PermissionSet::all()])
    }
}

impl TryFrom<BTreeMap<Role, Vec<String>>> for RolePermissions {
    type Error = UnknownName;

    fn try_from(table: BTreeMap<Role, Vec<String>>) -> Result<Self, Self::Error> {
        let mut roles = Self::default();
        for (role, names) in table {
            roles.0[role as usize] = names
                .iter()
                .map(|name| name.parse::<Permission>())
                .collect::<Result<_, _>>()?;
        }
        Ok(roles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_the_set() {
        assert!(Permission::ALL.len() <= 32);
        for permission in Permission::ALL {
            assert_eq!(permission.as_str().parse(), Ok(*permission));
        }
        assert_eq!(
            PermissionSet::from_scope(&PermissionSet::all().to_scope()),
            PermissionSet::all()
        );
    }

    #[test]
    fn configuration_overrides_one_role_and_refuses_unknown_names() {
        let roles: RolePermissions = serde_json::from_str(r#"{"staff":["stock.write"]}"#).unwrap();
        assert_eq!(
            roles.of(Role::Staff),
            PermissionSet::from_iter([Permission::StockWrite])
        );
        assert_eq!(roles.of(Role::Guest), RolePermissions::default().of(Role::Guest));
        let error = serde_json::from_str::<RolePermissions>(r#"{"staff":["stock.eat"]}"#).unwrap_err();
        assert!(error.to_string().contains("stock.eat"));
        assert!(serde_json::from_str::<RolePermissions>(r#"{"root":[]}"#).is_err());
    }

    #[test]
    fn shoppers_cannot_reach_into_the_shop() {
        let roles = RolePermissions::default();
        for role in [Role::Guest, Role::Customer] {
            let may: Vec<_> = roles.of(role).iter().collect();
            assert_eq!(may, [Permission::CartUse, Permission::OrderPlace]);
        }
        assert!(!roles.of(Role::Staff).contains(Permission::AccountWrite));
    }
}
