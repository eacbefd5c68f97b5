//! Buses with real Redis servers: alone, behind Sentinels, in a Cluster; cuts, restarts, silence and death.

mod asking;
mod events;
mod faults;
mod interest;
mod node;
mod nodes;
mod places;
