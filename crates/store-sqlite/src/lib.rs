//! Keeps logs and records in SQLite. Does not know the rules; that is `hub`.
