//! The log in a SQLite file.

mod append;
mod read;
mod schema;
mod writer;

pub(crate) use read::{
    read_head, read_page, read_raw_page, read_raw_stream, read_receipts, read_slice, read_stream,
};
pub(crate) use schema::{STEPS, begin_epoch, create_head};
pub(crate) use writer::SqliteWriter;
