//! Several sagas at once on one log.
