//! The SDK against a real HTTP server that keeps the contract, and breaks down when it is told to.

mod jobs;
mod layer;
mod publishing;
mod server;
mod vocabulary;
