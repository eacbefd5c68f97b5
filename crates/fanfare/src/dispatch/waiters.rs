//! Owns who waits for records to change. Does not know records, or who changes them. Invariant: a record that nobody waits
//! for takes no room, whoever has asked for it, and whether or not there is such a record.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hub::store::RecordKey;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// All who wait.
#[derive(Debug, Default)]
pub(super) struct Waiters(Mutex<HashMap<RecordKey, Vec<oneshot::Sender<()>>>>);

/// One who waits. Dropped, it waits no longer.
#[derive(Debug)]
pub(crate) struct Changed {
    key: RecordKey,
    told: oneshot::Receiver<()>,
    all: Arc<Waiters>,
}

impl Waiters {
    /// Waits from now on for a record to change.
    pub(super) fn wait(self: &Arc<Self>, key: &RecordKey) -> Changed {
        let (teller, told) = oneshot::channel();
        self.lock().entry(key.clone()).or_default().push(teller);
        Changed { key: key.clone(), told, all: self.clone() }
    }

    /// A record has changed: whoever waits for that may look.
    pub(super) fn tell(&self, key: &RecordKey) {
        for teller in self.lock().remove(key).unwrap_or_default() {
            // Whoever no longer waits need not be told.
            let _ = teller.send(());
        }
    }

    /// A panic of another thread has left nothing half done: each change is one call.
    fn lock(&self) -> MutexGuard<'_, HashMap<RecordKey, Vec<oneshot::Sender<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Changed {
    /// Waits for the change, at most until then.
    pub(super) async fn wait(mut self, until: Instant) {
        // Either way whoever asked looks.
        let _ = tokio::time::timeout_at(until, &mut self.told).await;
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        self.told.close();
        let mut all = self.all.lock();
        if let Some(tellers) = all.get_mut(&self.key) {
            tellers.retain(|teller| !teller.is_closed());
            if tellers.is_empty() {
                all.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hub::record::State as _;
    use hub::run::Run;

    use super::*;

    #[tokio::test]
    async fn who_waits_is_told_and_who_goes_is_forgotten() {
        let all = Arc::new(Waiters::default());
        let (one, two) = (Run::key_of("one"), Run::key_of("two"));
        let waiting = all.wait(&one);
        let (gone, patient) = (all.wait(&two), all.wait(&two));
        drop(gone);
        assert_eq!(all.lock().values().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
        all.tell(&one);
        waiting.wait(Instant::now() + Duration::from_secs(60)).await;
        patient.wait(Instant::now()).await;
        assert!(all.lock().is_empty());
    }
}
