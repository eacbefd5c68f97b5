//! The shard: Engine.IO sessions, sockets, rooms, acks and outboxes as one pure state machine.
