//! The caller's one cart.

pub(crate) mod mine;
