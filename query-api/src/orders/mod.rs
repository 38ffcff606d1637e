//! Orders and what happened to them: one's own, or everybody's for those with `order.read_all`.

mod as_of;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod stream;
pub(crate) mod timeline;
