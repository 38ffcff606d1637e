//! How the system is doing, and what can be done about it: for those with `ops.read` and `ops.write`.

pub(crate) mod dead_letters;
pub(crate) mod projections;
pub(crate) mod rebuild;
