//! The rules of the hub: what is kept, who may see it, and how it changes.
//!
//! Everything that is kept is a **log** (one for each room, ordered by epoch and seq) or a **record** (a job, a run, a
//! notification, …: its state and version). A record and the events that tell of its change are committed at once
//! through the [`store::Store`] port, so whoever folds the log gets the record.
//!
//! Pure: no thread, clock, randomness, lock or I/O. Time, ids and limits are arguments; decisions are values.
//!
//! | module | noun |
//! |---|---|
//! | [`time`] | a moment of the calendar, in milliseconds |
//! | [`room`] | a room's name, and what kind it is |
//! | [`policy`] | what holds for the rooms of a kind |
//! | [`principal`] | who somebody is, and what they were granted |
//! | [`access`] | whether they may |
//! | [`event`] | an event on its way to rooms, and how it is written for those who watch |
//! | [`deltas`] | text that comes in small pieces, joined into few events |
//! | [`store`] | the port to whatever keeps logs and records |
//! | [`fault`] | why something was refused |

pub mod access;
pub mod deltas;
pub mod event;
pub mod fault;
pub mod policy;
pub mod principal;
pub mod room;
pub mod store;
pub mod time;
