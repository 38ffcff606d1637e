//! The log in a SQLite file.

mod append;
mod read;
mod schema;
mod writer;

pub(crate) use read::{
    read_head, read_page, read_raw_page, read_raw_stream, read_receipts, read_stream, reason,
};
pub(crate) use schema::{STREAM_EVENTS, begin_epoch, create_head, migrate};
pub(crate) use writer::SqliteWriter;
