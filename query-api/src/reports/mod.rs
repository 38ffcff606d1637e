//! Sums over sales, for staff.

pub(crate) mod sales;
