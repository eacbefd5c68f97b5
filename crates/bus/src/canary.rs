//! Owns the watch over whether this node hears: it sends itself a mark every now and then, and has another connection made
//! when one does not come back. Does not know connections.

use std::time::{Duration, Instant};

use crate::fences::Progress;
use crate::health::DeafCause;
use crate::shared::Shared;

/// Between two marks.
const PERIOD: Duration = Duration::from_secs(2);

/// How long a mark may take. Three periods: a busy machine or a fork of Redis takes less.
const PATIENCE: Duration = Duration::from_secs(6);

/// Runs for as long as the bus does.
pub(crate) async fn run(shared: &Shared) {
    let mut failing_since = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(PERIOD) => {}
            () = shared.canary.notified() => {}
        }
        // Without a connection that is known already, and another one is being made.
        if !shared.status.is_connected() {
            failing_since = None;
            continue;
        }
        let generation = shared.inbox.generation();
        let since = *failing_since.get_or_insert_with(Instant::now);
        let why = match tokio::time::timeout(PATIENCE, shared.fences.pass()).await {
            Ok(Ok(())) => {
                failing_since = None;
                continue;
            }
            Ok(Err(_)) if since.elapsed() < PATIENCE => continue,
            Ok(Err(fault)) => DeafCause::NotConnected(fault.to_string()),
            Err(_) => match shared.fences.progress() {
                Progress::Publishing => DeafCause::NotConnected("nothing can be published".to_owned()),
                Progress::Published => DeafCause::NothingComes,
                Progress::Arrived => DeafCause::SlowConsumer,
            },
        };
        failing_since = None;
        shared.status.deafen(why.clone());
        match why {
            DeafCause::NotConnected(_) | DeafCause::NothingComes => {
                shared.cut.cut(generation, &why.to_string());
            }
            // Another connection would bring the same, later.
            DeafCause::SlowConsumer => {}
        }
    }
}
