//! Stock, for staff.

pub(crate) mod get;
