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
//! | [`record`] | what the states of all kinds of records have in common |
//! | [`outgoing`] | an event as a rule decides it |
//! | [`job`] | a job, its progress and heartbeats |
//! | [`run`] | a run, its approvals and the commands that wait for its runner |
//! | [`log_line`] | a line of a log, and who wants to see which |
//! | [`schedule`] | an event that is to be published later |
//! | [`admin`] | what operators are told of connections and the server |
//! | [`made_room`] | a room that was made by hand |
//! | [`notification`] | what waits for a user, and announcements |
//! | [`template`] | a named event whose data has gaps |
//! | [`filter`] | which events of a subscription somebody wants |
//! | [`presence`] | who is there |
//! | [`agent`] | whether an agent is there |
//! | [`percent`] | how far something has come |
//! | [`seconds`] | a span of time as peers write it |
//! | [`json`] | JSON that is passed on as it came |
//! | [`fault`] | why something was refused |
//! | [`payload`] | what payloads are made of |
//! | [`commands`], [`dashboard`], [`workspace`], [`jobs`], [`runs`], [`gateway`] | the vocabularies: their events, and where they go |
//! | [`vocabulary`] | the events that only rules make |
//! | [`schema`] | the registry of all events, and their schemas |
//! | [`asyncapi`] | what travels over Socket.IO, as a document |
//! | [`routes`], [`rest`] | the HTTP interface: its routes as data, and their bodies |
//! | [`openapi`] | the HTTP interface, as a document |
//! | [`github`] | what webhooks of GitHub mean |

pub mod access;
pub mod admin;
pub mod agent;
pub mod asyncapi;
mod bound;
pub mod commands;
pub mod dashboard;
pub mod deltas;
pub mod event;
pub mod fault;
pub mod filter;
pub mod gateway;
pub mod github;
pub mod job;
pub mod jobs;
pub mod json;
pub mod log_line;
pub mod made_room;
pub mod notification;
pub mod openapi;
pub mod outgoing;
pub mod payload;
pub mod percent;
pub mod policy;
pub mod presence;
pub mod principal;
pub mod record;
pub mod rest;
pub mod room;
pub mod routes;
pub mod run;
pub mod runs;
pub mod schedule;
pub mod schema;
pub mod seconds;
pub mod store;
pub mod template;
pub mod time;
pub mod vocabulary;
pub mod workspace;
