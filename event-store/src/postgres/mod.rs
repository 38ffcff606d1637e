//! The log in PostgreSQL, for any number of processes.

mod append;
mod read;
mod schema;
mod trouble;
mod writer;

pub(crate) use read::{
    read_head, read_page, read_raw_page, read_raw_stream, read_receipts, read_slice, read_stream,
};
#[cfg(any(test, feature = "conformance"))]
pub(crate) use schema::begin_epoch;
pub(crate) use schema::{STEPS, identity};
pub(crate) use writer::PostgresWriter;
