//! Payments: those of one's own orders, or everybody's for those with `payment.read_all`.

pub(crate) mod get;
