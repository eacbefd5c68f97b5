//! Owns the way to the server: a bounded buffer, and a thread that empties it in batches over HTTP.
//! Does not know what events mean. Invariant: handing something over never waits, whatever the server does.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use ureq::Agent;

/// How long the first event of a batch waits for others.
const BATCH_WAIT: Duration = Duration::from_millis(50);
/// Events of one batch. The server takes 1,000 by default.
const BATCH_EVENTS_MAX: usize = 500;
/// Bytes of one batch. The server takes 1,000,000 by default.
const BATCH_BYTES_MAX: usize = 500_000;
/// Bytes that wait for a server that is away or slow, 16 MiB: about 80,000 lines. When full the oldest lines are
/// dropped.
const BUFFER_BYTES_MAX: usize = 16 << 20;
/// Least time between two updates of progress; the newest one that waits is always sent.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// Time that one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// First wait after a failure; doubled each time up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// What may be lost when the buffer is full.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    /// A line among many.
    Droppable,
    /// What a job has become.
    Keep,
}

/// A handle on the thread.
pub(super) struct Publisher {
    shared: Arc<Shared>,
}

struct Shared {
    buffer: Mutex<Buffer>,
    changed: Condvar,
}

#[derive(Default)]
struct Buffer {
    events: VecDeque<(Worth, String)>,
    bytes: usize,
    /// The newest progress, if it has not been sent.
    progress: Option<String>,
    progress_sent: Option<Instant>,
    /// Events that will never arrive.
    lost: u64,
    state: State,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// Nothing more will come; what is there is sent until then.
    Closing { until: Instant },
    /// The thread has ended.
    Closed,
}

impl Buffer {
    fn push(&mut self, worth: Worth, event: String) {
        self.bytes += event.len();
        self.events.push_back((worth, event));
        self.make_room();
    }

    fn make_room(&mut self) {
        while self.bytes > BUFFER_BYTES_MAX {
            let Some(oldest) = self.events.iter().position(|(worth, _)| *worth == Worth::Droppable) else {
                return;
            };
            if let Some((_, event)) = self.events.remove(oldest) {
                self.bytes -= event.len();
                self.lost += 1;
            }
        }
    }

    /// Moves the newest progress among the events, so that it comes before what is pushed next.
    fn settle_progress(&mut self) {
        if let Some(progress) = self.progress.take() {
            self.progress_sent = Some(Instant::now());
            self.push(Worth::Keep, progress);
        }
    }

    /// When the newest progress may be sent.
    fn progress_due(&self, now: Instant) -> Option<Instant> {
        self.progress.as_ref()?;
        Some(self.progress_sent.map_or(now, |sent| sent + PROGRESS_INTERVAL))
    }

    fn take_batch(&mut self) -> Vec<(Worth, String)> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some((_, event)) = self.events.front() {
            bytes += event.len();
            if !batch.is_empty() && (batch.len() == BATCH_EVENTS_MAX || bytes > BATCH_BYTES_MAX) {
                break;
            }
            if let Some((worth, event)) = self.events.pop_front() {
                self.bytes -= event.len();
                batch.push((worth, event));
            }
        }
        batch
    }

    fn put_back(&mut self, batch: Vec<(Worth, String)>) {
        for (worth, event) in batch.into_iter().rev() {
            self.bytes += event.len();
            self.events.push_front((worth, event));
        }
        self.make_room();
    }
}

impl Publisher {
    /// Begins to publish to a server, which need not be there yet.
    ///
    /// # Errors
    /// The URL is not one of a server.
    pub(super) fn start(url: &str) -> anyhow::Result<Self> {
        let url = format!("{}/api/v1/events/batch", url.trim_end_matches('/'));
        let parsed: ureq::http::Uri = url.parse().with_context(|| format!("`{url}` is no URL"))?;
        let host = parsed
            .host()
            .with_context(|| format!("`{url}` names no host; write it as http://127.0.0.1:8000"))?;
        anyhow::ensure!(
            matches!(parsed.scheme_str(), Some("http" | "https")),
            "`{url}` is neither http nor https"
        );
        let is_here = host == "localhost" || host.starts_with("127.") || host == "[::1]";
        let mut config =
            Agent::config_builder().timeout_global(Some(REQUEST_TIMEOUT)).http_status_as_error(false);
        if is_here {
            // A proxy of the environment leads elsewhere.
            config = config.proxy(None);
        }
        let agent = config.build().new_agent();
        let shared = Arc::new(Shared { buffer: Mutex::default(), changed: Condvar::new() });
        let thread_shared = shared.clone();
        std::thread::Builder::new()
            .name("publisher".into())
            .spawn(move || thread_shared.publish(&agent, &url))?;
        Ok(Self { shared })
    }

    /// Hands an event over.
    pub(super) fn push(&self, worth: Worth, event: String) {
        let mut buffer = self.shared.lock();
        if worth == Worth::Keep {
            buffer.settle_progress();
        }
        buffer.push(worth, event);
        drop(buffer);
        self.shared.changed.notify_all();
    }

    /// Hands progress over; of several that come at once the newest is sent.
    pub(super) fn push_progress(&self, event: String) {
        self.shared.lock().progress = Some(event);
        self.shared.changed.notify_all();
    }

    /// Waits until all is sent, for at most `within`. Answers how many events were lost, and never will arrive.
    pub(super) fn finish(&self, within: Duration) -> u64 {
        let mut buffer = self.shared.lock();
        buffer.settle_progress();
        buffer.state = State::Closing { until: Instant::now() + within };
        self.shared.changed.notify_all();
        let until = Instant::now() + within + REQUEST_TIMEOUT;
        while buffer.state != State::Closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            buffer = match self.shared.changed.wait_timeout(buffer, left) {
                Ok((buffer, _)) => buffer,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        buffer.lost + buffer.events.len() as u64
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        // Whoever panicked left the buffer whole: nothing in between can fail.
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, agent: &Agent, url: &str) {
        let mut retry = RETRY_FIRST;
        let mut is_away = false;
        while let Some(batch) = self.next_batch() {
            match send(agent, url, &batch) {
                Sent::Yes => {
                    retry = RETRY_FIRST;
                    is_away = false;
                }
                Sent::Refused => self.lock().lost += batch.len() as u64,
                Sent::Away => {
                    let mut buffer = self.lock();
                    buffer.put_back(batch);
                    if let State::Closing { until } = buffer.state {
                        // A server that was away before the end gets one more chance; whoever waits for the command
                        // is not kept waiting for the server.
                        if is_away || Instant::now() + retry > until {
                            break;
                        }
                    }
                    is_away = true;
                    // Closing cuts the wait short.
                    drop(
                        self.changed.wait_timeout_while(buffer, retry, |buffer| buffer.state == State::Open),
                    );
                    retry = (retry * 2).min(RETRY_MAX);
                }
            }
        }
        self.lock().state = State::Closed;
        self.changed.notify_all();
    }

    /// Waits for events, and a little longer for others. `None`: there will be no more.
    fn next_batch(&self) -> Option<Vec<(Worth, String)>> {
        let mut buffer = self.lock();
        let mut filling_until = None;
        loop {
            let now = Instant::now();
            let due = buffer.progress_due(now);
            if due.is_some_and(|due| due <= now) {
                buffer.settle_progress();
                continue;
            }
            let is_closing = match buffer.state {
                State::Open => false,
                State::Closing { until } if now > until => return None,
                State::Closing { .. } | State::Closed => true,
            };
            if buffer.events.is_empty() {
                if is_closing {
                    return None;
                }
            } else {
                let until = *filling_until.get_or_insert(now + BATCH_WAIT);
                if is_closing || until <= now || buffer.events.len() >= BATCH_EVENTS_MAX {
                    return Some(buffer.take_batch());
                }
            }
            // A minute: it is woken long before, or there is nothing to do.
            let wake =
                [due, filling_until].into_iter().flatten().min().unwrap_or(now + Duration::from_secs(60));
            buffer = match self.changed.wait_timeout(buffer, wake.saturating_duration_since(now)) {
                Ok((buffer, _)) => buffer,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

enum Sent {
    Yes,
    /// The server is there and does not want it; it would not want it again either.
    Refused,
    /// The server is away or busy.
    Away,
}

fn send(agent: &Agent, url: &str, batch: &[(Worth, String)]) -> Sent {
    let mut body = String::with_capacity(batch.iter().map(|(_, event)| event.len() + 1).sum());
    for (_, event) in batch {
        body.push_str(event);
        body.push('\n');
    }
    match agent.post(url).header("content-type", "application/x-ndjson").send(body) {
        Ok(response) => match response.status().as_u16() {
            200..=299 => Sent::Yes,
            408 | 429 | 500..=599 => Sent::Away,
            _ => Sent::Refused,
        },
        Err(_) => Sent::Away,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_buffer_drops_the_oldest_lines_and_keeps_what_a_job_has_become() {
        let mut buffer = Buffer::default();
        buffer.push(Worth::Keep, "status".into());
        let line = "x".repeat(1 << 20);
        for nth in 0..18 {
            buffer.push(Worth::Droppable, format!("{nth:02}{line}"));
        }
        assert!(buffer.bytes <= BUFFER_BYTES_MAX);
        assert_eq!(buffer.lost, 3);
        assert_eq!(buffer.events[0].1, "status");
        assert!(buffer.events[1].1.starts_with("03"));
        assert_eq!(buffer.bytes, buffer.events.iter().map(|(_, event)| event.len()).sum::<usize>());
    }

    #[test]
    fn batches_are_bounded_and_come_back_in_order() {
        let mut buffer = Buffer::default();
        for nth in 0..=BATCH_EVENTS_MAX {
            buffer.push(Worth::Droppable, nth.to_string());
        }
        let batch = buffer.take_batch();
        assert_eq!(batch.len(), BATCH_EVENTS_MAX);
        buffer.put_back(batch);
        assert_eq!(buffer.events.len(), BATCH_EVENTS_MAX + 1);
        assert!(buffer.events.iter().enumerate().all(|(nth, (_, event))| *event == nth.to_string()));
    }

    #[test]
    fn the_first_progress_is_due_at_once_and_others_after_the_interval() {
        let now = Instant::now();
        let mut buffer = Buffer { progress: Some("1%".into()), ..Buffer::default() };
        assert_eq!(buffer.progress_due(now), Some(now));
        buffer.progress_sent = Some(now);
        assert_eq!(buffer.progress_due(now), Some(now + PROGRESS_INTERVAL));
        buffer.progress = None;
        assert_eq!(buffer.progress_due(now), None);
    }

    #[test]
    fn the_newest_progress_comes_before_the_status_that_follows_it() {
        let mut buffer = Buffer { progress: Some("90%".into()), ..Buffer::default() };
        buffer.progress = Some("95%".into());
        buffer.settle_progress();
        buffer.push(Worth::Keep, "success".into());
        let texts: Vec<_> = buffer.take_batch().into_iter().map(|(_, event)| event).collect();
        assert_eq!(texts, ["95%", "success"]);
    }
}
