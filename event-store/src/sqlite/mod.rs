//! The log in a SQLite file.

mod append;
mod read;
mod schema;
mod writer;

pub(crate) use read::{
    read_head, read_page, read_raw_page, read_raw_stream, read_receipts, read_slice, read_stream,
};
#[cfg(any(test, feature = "conformance"))]
pub(crate) use schema::begin_epoch;
pub(crate) use schema::{STEPS, create_head};
pub(crate) use writer::SqliteWriter;
