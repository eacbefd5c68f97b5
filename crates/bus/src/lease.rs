//! Owns this node's number: draws it, keeps its lease, and gives it up; and looks who else has one. Does not know what
//! follows from who is there. Invariant: a number belongs to one process at a time, and to the same one while it lives.
//!
//! | key | type | what |
//! |---|---|---|
//! | `{prefix}:lease:<number>` | string | the name of the process that has the number; goes when its lease ends |
//! | `{prefix}:nodes` | hash | registrations by number |

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use redis::Value;
use store_redis::link::Link;
use store_redis::{Failure, Script};

use crate::letter::Letter;
use crate::node::{NodeId, NodeInfo};
use crate::pause::{pause, random};
use crate::shared::Shared;

static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/take.lua")));
static LIST: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/list.lua")));
static LEAVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("lua/leave.lua")));

/// Numbers that are tried before giving up: of 65,535 few are taken.
const DRAWS_MAX: usize = 100;

/// What an attempt to take a number has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// Somebody else has it.
    Others,
    /// It was ours, and is.
    Kept,
    /// It was nobody's, and is ours.
    Anew,
}

/// Draws a number, and takes it. `info` has all but the number.
pub(crate) async fn draw(link: &Link, mut info: NodeInfo, lease: Duration) -> Result<NodeInfo, Failure> {
    for _ in 0..DRAWS_MAX {
        info.id = NodeId((random() as u16).max(1));
        if take(link, &info, lease).await? != Taken::Others {
            return Ok(info);
        }
    }
    Err(Failure::Refused(format!("{DRAWS_MAX} numbers drawn at random are all taken")))
}

/// Keeps the number and looks who is there, for as long as the bus runs; returns when somebody else has the number.
pub(crate) async fn keep(shared: &Shared, lease: Duration) {
    let mut wait = lease / 4;
    let mut failures = 0;
    let mut is_even = false;
    // Until then Redis may not know of all who live: it has forgotten this node, too, so the others register again.
    let mut amnesty = None;
    loop {
        let is_renewal = tokio::select! {
            () = tokio::time::sleep(wait) => true,
            () = shared.look.notified() => false,
        };
        if is_renewal {
            is_even = !is_even;
        }
        // After a new connection both are done at once.
        match take(&shared.link, &shared.me, lease).await {
            Ok(Taken::Others) => return,
            Ok(Taken::Kept) => (wait, failures) = (lease / 4, 0),
            Ok(Taken::Anew) => {
                (wait, failures) = (lease / 4, 0);
                amnesty = Some(Instant::now() + lease);
                tracing::warn!(
                    "the lease of this server had ended; it has its number {} again",
                    shared.me.id
                );
                announce(shared).await;
            }
            Err(failure) => {
                tracing::warn!("the lease of this server cannot be renewed: {}", failure.why());
                failures += 1;
                wait = pause(failures).min(lease / 4);
                continue;
            }
        }
        if !is_even && is_renewal {
            continue;
        }
        let is_whole = amnesty.is_none_or(|until| Instant::now() >= until);
        if let Err(failure) = look(shared, is_whole).await {
            tracing::warn!("which servers are there cannot be looked up: {}", failure.why());
        }
    }
}

/// Looks which nodes live.
pub(crate) async fn look(shared: &Shared, is_whole: bool) -> Result<(), Failure> {
    let list = list(&shared.link).await?;
    // Where even this node is missing, more may be.
    let is_whole = is_whole && list.iter().any(|info| info.id == shared.me.id);
    let others = list.into_iter().filter(|info| info.id != shared.me.id).collect();
    shared.note_nodes(|roster| roster.handle_list(others, is_whole));
    Ok(())
}

/// Tells the others that this node is there. If they cannot be told, they find it in the list.
pub(crate) async fn announce(shared: &Shared) {
    let came = Letter::Came(shared.me.clone());
    if let Err(fault) = shared.publish_letter(shared.common_channel(), &came).await {
        tracing::debug!("that this server is there is not told: {fault}");
    }
}

/// Gives the number up.
pub(crate) async fn leave(link: &Link, me: &NodeInfo) -> Result<(), Failure> {
    let number = me.id.to_string();
    let held = link.hold().await?;
    link.call(&held, &LEAVE, [number.as_bytes(), me.name.as_bytes()]).await?;
    Ok(())
}

async fn take(link: &Link, me: &NodeInfo, lease: Duration) -> Result<Taken, Failure> {
    let (number, milliseconds) = (me.id.to_string(), lease.as_millis().max(1).to_string());
    let registration = me.encode();
    let arguments = [number.as_bytes(), me.name.as_bytes(), milliseconds.as_bytes(), &registration];
    let held = link.hold().await?;
    match link.call(&held, &TAKE, arguments).await? {
        Value::Int(0) => Ok(Taken::Others),
        Value::Int(1) => Ok(Taken::Kept),
        Value::Int(2) => Ok(Taken::Anew),
        other => Err(Failure::Damaged(format!("a lease is {other:?}"))),
    }
}

async fn list(link: &Link) -> Result<Vec<NodeInfo>, Failure> {
    let held = link.hold().await?;
    let Value::Array(parts) = link.call(&held, &LIST, []).await? else {
        return Err(Failure::Damaged("the nodes are no list".to_owned()));
    };
    let mut nodes = Vec::new();
    for pair in parts.chunks(2) {
        if let [Value::BulkString(number), Value::BulkString(registration)] = pair
            && let Some(number) = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok())
            && let Some(info) = NodeInfo::decode(NodeId(number), registration)
        {
            nodes.push(info);
        }
    }
    Ok(nodes)
}
