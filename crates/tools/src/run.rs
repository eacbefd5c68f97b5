//! Owns the course of one request: its turn, its attempts, its time-outs and its end. Does not know formats; those are
//! in `answer.rs`. Invariant: the steps keep the order that [`Step`] states, and text is never overtaken.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http_body_util::BodyExt;
use hub::deltas::Deltas;
use hub::time::Timestamp;
use hyper::body::Incoming;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use crate::answer::{self, Answer, Said, Style};
use crate::gate::{Entry, Gate};
use crate::health::{Ending, Tally};
use crate::line::{self, Line};
use crate::settings::Limits;
use crate::step::{Again, Code, Done, Failure, Message, Progress, Step, Trouble};
use crate::upstream::{self, Upstream};

/// Bytes of a refusal's body that are read for its reason.
const REFUSAL_BYTES_MAX: usize = 16_384;

/// Time that a refusal's body may take: it is a courtesy.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Time that the rest of a body may take after the answer has ended: then its connection can serve the next request.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(100);

/// Bytes of text that go out as one delta: small against what may wait for a session.
const PIECE_BYTES_MAX: usize = 16_384;

/// Shortest time from one progress to the next: a bar that moves five times a second moves smoothly. Of those in
/// between, the newest comes when the time is over, or before the end.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// One tool at work.
#[derive(Debug)]
pub(crate) struct Tool {
    pub(crate) id: String,
    pub(crate) kind: &'static str,
    pub(crate) limits: Limits,
    pub(crate) reach: Reach,
    pub(crate) gate: Arc<Gate>,
    pub(crate) tally: Tally,
}

/// How a tool is reached.
#[derive(Debug)]
pub(crate) enum Reach {
    /// It is right here.
    Echo { word_delay: Option<Duration> },
    /// Over HTTP, in our words.
    Http(Upstream),
    /// Over HTTP, in those of chat completions.
    Openai { upstream: Upstream, chat: crate::settings::Chat },
    /// By messages, in our words.
    Line(Arc<dyn Line>),
}

/// What is sent to a tool.
#[derive(Debug)]
pub(crate) enum Sent {
    Echo(String),
    Post(Bytes),
}

/// Carries a request out, step by step. Cancelled by `cancelled` becoming true; dropped at any time, it leaves nothing
/// behind.
pub(crate) async fn run(
    tool: Arc<Tool>,
    sent: Sent,
    entry: Entry,
    steps: mpsc::Sender<Step>,
    mut cancelled: watch::Receiver<bool>,
) {
    let mut end = End { tool: &tool, is_told: false };
    let mut voice = Voice::new(&tool.limits, steps);
    let outcome = tokio::select! {
        biased;
        Ok(_) = cancelled.wait_for(|is_cancelled| *is_cancelled) => {
            Err(Trouble::new(Failure::lasting(Code::ToolCancelled, "the request was cancelled"), Again::Never))
        }
        outcome = work(&tool, sent, entry, &mut voice) => outcome,
    };
    match outcome {
        Ok(done) => {
            end.tell(Ending::Completed);
            voice.finish(done).await;
        }
        Err(Trouble { failure, detail, .. }) => {
            let code = failure.code.as_str();
            tracing::debug!(
                tool = tool.id,
                code,
                message = failure.message,
                detail,
                "a request to a tool has failed"
            );
            end.tell(match failure.code {
                Code::ToolCancelled => Ending::Cancelled,
                _ if !voice.has_started => Ending::Unserved,
                _ => Ending::Failed(failure.clone()),
            });
            voice.say(Step::Failed(failure)).await;
        }
    }
}

/// Counts the request's end, also if it is dropped before it has one.
struct End<'a> {
    tool: &'a Tool,
    is_told: bool,
}

impl End<'_> {
    fn tell(&mut self, ending: Ending) {
        if !std::mem::replace(&mut self.is_told, true) {
            let is_failing = self.tool.tally.end(ending, Timestamp::of(SystemTime::now()));
            if is_failing {
                tracing::warn!(
                    tool = self.tool.id,
                    "several requests in a row have failed; see the tool's last_failure"
                );
            }
        }
    }
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.tell(Ending::Cancelled);
    }
}

/// What goes out: text joined per window, and every other step after the text that came before it.
pub(crate) struct Voice {
    steps: mpsc::Sender<Step>,
    /// Whether the request's turn has come.
    has_started: bool,
    deltas: Deltas,
    /// The newest progress that was not passed on, and when the next may be.
    progress: Option<Progress>,
    progress_opens_at: Option<Instant>,
    /// All deltas so far.
    text: String,
    text_bytes_max: usize,
    /// What the tool said in one piece.
    message: Option<Message>,
    done: Done,
}

impl Voice {
    fn new(limits: &Limits, steps: mpsc::Sender<Step>) -> Self {
        Self {
            steps,
            has_started: false,
            deltas: Deltas::new(limits.delta_window, PIECE_BYTES_MAX),
            progress: None,
            progress_opens_at: None,
            text: String::new(),
            text_bytes_max: limits.answer_bytes_max,
            message: None,
            done: Done::default(),
        }
    }

    fn has_spoken(&self) -> bool {
        !self.text.is_empty()
    }

    /// Passes on what a tool said; whether that was the end.
    pub(crate) async fn handle(&mut self, said: Said) -> Result<bool, Trouble> {
        match said {
            Said::Delta(text) => {
                if self.text.len() + text.len() > self.text_bytes_max {
                    return Err(Trouble::too_large(self.text_bytes_max));
                }
                self.text.push_str(&text);
                self.deltas.handle_delta(Instant::now().into_std(), &text);
                self.drain().await;
            }
            Said::Progress(progress) => {
                self.progress = Some(progress);
                if self.progress_opens_at.is_none_or(|at| Instant::now() >= at) {
                    self.tell_progress().await;
                }
            }
            Said::Message(message) => self.message = Some(message),
            Said::Usage(usage) => self.done.usage = Some(usage),
            Said::Stopped(reason) => self.done.finish_reason = Some(reason),
            Said::End => return Ok(true),
        }
        Ok(false)
    }

    /// Waits until something that is held is due; for ever if nothing is.
    pub(crate) async fn window(&self) {
        let text_at = self.deltas.poll_deadline().map(Instant::from);
        let progress_at = self.progress_opens_at.filter(|_| self.progress.is_some());
        match text_at.into_iter().chain(progress_at).min() {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    pub(crate) async fn handle_timeout(&mut self) {
        self.deltas.handle_timeout(Instant::now().into_std());
        self.drain().await;
        if self.progress_opens_at.is_some_and(|at| Instant::now() >= at) {
            self.tell_progress().await;
        }
    }

    /// Sends the progress that is held, after all text.
    async fn tell_progress(&mut self) {
        if self.progress.is_none() {
            return;
        }
        self.deltas.flush(Instant::now().into_std());
        self.drain().await;
        let place = self.steps.reserve().await.ok();
        let progress = self.progress.take();
        self.progress_opens_at = Some(Instant::now() + PROGRESS_INTERVAL);
        if let (Some(place), Some(progress)) = (place, progress) {
            place.send(Step::Progress(progress));
        }
    }

    /// Sends the pieces that are due. The place in the channel comes first: whoever drops this future in the middle
    /// loses no text.
    async fn drain(&mut self) {
        while self.deltas.has_output() {
            // Nobody listens any more: the text goes nowhere.
            let place = self.steps.reserve().await.ok();
            let piece = self.deltas.poll_output();
            if let (Some(place), Some(piece)) = (place, piece) {
                place.send(Step::Delta(piece));
            }
        }
    }

    /// Sends a step, after all that was held.
    async fn say(&mut self, step: Step) {
        self.tell_progress().await;
        self.deltas.flush(Instant::now().into_std());
        self.drain().await;
        // Nobody listens any more, and the task is about to be ended.
        let _ = self.steps.send(step).await;
    }

    async fn finish(&mut self, done: Done) {
        let text = std::mem::take(&mut self.text);
        let message = self.message.take().unwrap_or(Message { text, data: None });
        self.say(Step::Message(message)).await;
        self.say(Step::Done(done)).await;
    }

    /// Forgets what an attempt said without being heard.
    fn forget(&mut self) {
        self.message = None;
        self.progress = None;
        self.done = Done::default();
    }
}

async fn work(tool: &Tool, sent: Sent, entry: Entry, voice: &mut Voice) -> Result<Done, Trouble> {
    let _place = match entry {
        Entry::Placed(place) => place,
        Entry::Waiting(mut waiting) => {
            timeout(tool.limits.queue_timeout, waiting.place()).await.map_err(|_| {
                let waited = humantime::format_duration(tool.limits.queue_timeout);
                let failure = Failure::passing(
                    Code::ToolBusy,
                    format!("the request's turn did not come within {waited}"),
                );
                Trouble::new(failure, Again::Never)
            })?
        }
    };
    voice.has_started = true;
    voice.say(Step::Started).await;
    let total = tool.limits.total_timeout;
    let ends_at = Instant::now() + total;
    timeout_at(ends_at, attempts(tool, sent, ends_at, voice)).await.unwrap_or_else(|_| {
        let total = humantime::format_duration(total);
        let failure =
            Failure::passing(Code::ToolTimeout, format!("the tool has not finished within {total}"));
        Err(Trouble::new(failure, Again::Never))
    })?;
    Ok(std::mem::take(&mut voice.done))
}

async fn attempts(tool: &Tool, sent: Sent, ends_at: Instant, voice: &mut Voice) -> Result<(), Trouble> {
    if let Reach::Echo { word_delay } = &tool.reach {
        return echo(sent, *word_delay, voice).await;
    }
    let Sent::Post(body) = sent else { unreachable!("invariant: what is sent was made for this tool") };
    // One key for all attempts, and none that anybody could guess or choose: a tool that remembers answers by it must
    // not hand out somebody else's.
    let key = format!("{:016x}{:016x}", random(), random());
    let mut attempt = 0;
    loop {
        let outcome = match &tool.reach {
            Reach::Echo { .. } => unreachable!("invariant: an echo is not asked"),
            Reach::Http(upstream) => ask(tool, upstream, Style::Plain, &body, &key, voice).await,
            Reach::Openai { upstream, .. } => ask(tool, upstream, Style::Chat, &body, &key, voice).await,
            Reach::Line(line) => line::ask(tool, &**line, &body, &key, voice).await,
        };
        let Err(trouble) = outcome else { return Ok(()) };
        let is_worth_it = match trouble.again {
            Again::Never => false,
            Again::Always => true,
            Again::IfHarmless => matches!(tool.reach, Reach::Openai { .. }),
        };
        if !is_worth_it || voice.has_spoken() || attempt >= tool.limits.retries {
            return Err(trouble);
        }
        let pause = pause(&tool.limits, attempt, trouble.failure.retry_after, random());
        let Some(pause) = pause.filter(|pause| Instant::now() + *pause < ends_at) else {
            return Err(trouble);
        };
        tracing::debug!(tool = tool.id, ?pause, failure = %trouble.failure, detail = trouble.detail, "asking a tool again");
        tool.tally.retry();
        voice.forget();
        sleep(pause).await;
        attempt += 1;
    }
}

/// How long to wait before the next attempt; `None` if the tool wants more patience than we have.
fn pause(limits: &Limits, attempt: u32, retry_after: Option<Duration>, random: u64) -> Option<Duration> {
    if retry_after.is_some_and(|after| after > limits.retry_delay_max) {
        return None;
    }
    let longest = limits.retry_delay.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX));
    let longest = longest.min(limits.retry_delay_max);
    // Half is chance, so that requests that failed together do not come back together.
    let share = (random >> 11) as f64 / (1_u64 << 53) as f64;
    let backoff = longest.mul_f64(0.5 + share / 2.0);
    Some(backoff.max(retry_after.unwrap_or_default()))
}

/// A random number; the same one each time if the system has none, which costs the jitter only.
fn random() -> u64 {
    getrandom::u64().unwrap_or_default()
}

async fn echo(sent: Sent, word_delay: Option<Duration>, voice: &mut Voice) -> Result<(), Trouble> {
    let Sent::Echo(text) = sent else { unreachable!("invariant: what is sent was made for this tool") };
    let Some(delay) = word_delay else {
        voice.handle(Said::Message(Message { text, data: None })).await?;
        return Ok(());
    };
    for word in text.split_inclusive(char::is_whitespace) {
        voice.handle(Said::Delta(word.to_owned())).await?;
        let next_at = Instant::now() + delay;
        loop {
            tokio::select! {
                () = sleep_until(next_at) => break,
                () = voice.window() => {}
            }
            voice.handle_timeout().await;
        }
    }
    Ok(())
}

/// The tool said nothing for longer than it may.
pub(crate) fn silent(allowed: Duration) -> Trouble {
    let allowed = humantime::format_duration(allowed);
    let failure = Failure::passing(Code::ToolTimeout, format!("the tool was silent for {allowed}"));
    Trouble::new(failure, Again::IfHarmless)
}

/// Asks once. The connection is closed when this ends, however it ends, unless the answer was read to its end.
async fn ask(
    tool: &Tool,
    upstream: &Upstream,
    style: Style,
    body: &Bytes,
    key: &str,
    voice: &mut Voice,
) -> Result<(), Trouble> {
    let limits = &tool.limits;
    let key = HeaderValue::from_str(key).expect("invariant: hexadecimal digits are a header");
    let mut allowed = limits.first_byte_timeout;
    let mut silence_ends = Instant::now() + allowed;
    let response =
        timeout_at(silence_ends, upstream.post(body.clone(), &key)).await.map_err(|_| silent(allowed))??;
    let (head, mut body) = response.into_parts();
    if !head.status.is_success() {
        let retry_after = upstream::retry_after(&head.headers, SystemTime::now());
        let body = refusal_body(body).await;
        return Err(answer::refused(style, head.status, retry_after, &body));
    }
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_length_known = head.headers.contains_key(CONTENT_LENGTH);
    let mut answer = Answer::new(style, content_type, is_length_known, limits.answer_bytes_max)?;
    let mut said = Vec::new();
    loop {
        let read = tokio::select! {
            frame = body.frame() => match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => answer.handle_bytes(&bytes, &mut said),
                    // Trailers.
                    Err(_) => Ok(()),
                },
                Some(Err(fault)) => Err(upstream::broken().with_detail(upstream::chain(&fault))),
                None => answer.handle_end(&mut said),
            },
            () = sleep_until(silence_ends) => Err(silent(allowed)),
            () = voice.window() => {
                voice.handle_timeout().await;
                continue;
            }
        };
        for said in said.drain(..) {
            if voice.handle(said).await? {
                tokio::spawn(timeout(DRAIN_TIMEOUT, drain(body)));
                return Ok(());
            }
        }
        read?;
        // Counted from here: time that whoever listens took is not the tool's.
        allowed = limits.idle_timeout;
        silence_ends = Instant::now() + allowed;
    }
}

/// Reads what is left of a body whose answer has ended, which lets its connection serve again.
async fn drain(mut body: Incoming) {
    // 16: a well-behaved endpoint sends the end and nothing else.
    for _ in 0..16 {
        if !matches!(body.frame().await, Some(Ok(_))) {
            break;
        }
    }
}

/// The beginning of a refusal's body, as far as it comes in time.
async fn refusal_body(mut body: Incoming) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            let room = REFUSAL_BYTES_MAX - bytes.len();
            let data = frame.into_data().unwrap_or_default();
            bytes.extend_from_slice(&data[..data.len().min(room)]);
            if bytes.len() == REFUSAL_BYTES_MAX {
                break;
            }
        }
    };
    // Whether it was all does not matter.
    let _ = timeout(REFUSAL_TIMEOUT, read).await;
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::ToolConfig;

    #[test]
    fn pauses_double_up_to_their_bound_and_half_is_chance() {
        let limits = ToolConfig::echo().limits;
        let millis = |attempt, random| pause(&limits, attempt, None, random).map(|pause| pause.as_millis());
        assert_eq!((millis(0, 0), millis(1, 0), millis(2, 0)), (Some(250), Some(500), Some(1_000)));
        assert_eq!((millis(0, u64::MAX), millis(1, u64::MAX)), (Some(500), Some(1_000)));
        for attempt in [7, 31, 32, 33, u32::MAX] {
            assert_eq!(millis(attempt, 0), Some(15_000), "{attempt}");
        }
    }

    #[test]
    fn a_tool_that_wants_to_be_left_alone_is() {
        let limits = ToolConfig::echo().limits;
        let wanted = |seconds| pause(&limits, 0, Some(Duration::from_secs(seconds)), 0);
        assert_eq!(wanted(7), Some(Duration::from_secs(7)));
        assert_eq!(wanted(0), Some(Duration::from_millis(250)));
        assert_eq!(wanted(31), None);
    }
}
