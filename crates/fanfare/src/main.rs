//! Real-time server for jobs, agents and workflows, for stock Socket.IO clients.

fn main() {}
