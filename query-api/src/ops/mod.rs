//! How the system is doing, for those with `ops.read`.

pub(crate) mod projections;
