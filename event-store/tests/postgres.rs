//! The log in PostgreSQL passes the suite. Needs the servers of `scripts/infra`.
#![cfg(feature = "cluster")]

mod support;

use support::PostgresLog;

event_store::conformance_suite!(match PostgresLog::new().await {
    Some(log) => log,
    None => return,
});
