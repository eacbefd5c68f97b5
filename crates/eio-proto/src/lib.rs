//! Engine.IO packets, payloads and request queries, revisions 3 and 4, without I/O.
