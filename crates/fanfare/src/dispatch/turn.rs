//! Owns the loop: takes what has come, decides, commits, sends out, answers.
//! Does not know what rules mean. Invariant: one batch is through before the next begins.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hub::event::{EventId, Position};
use hub::store::{Change, Commit, IdempotencyKey, Outcome, Placed, Record, RecordKey, Repeated, StoreFault};
use hub::time::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::draft::{Drafts, Prepared};
use super::fanout::Delivery;
use super::mirroring;
use super::outlet::Outlet;
use super::{Attachment, Committed, Decision, DueRule, Next, Operation, Rule, Shared};
use crate::codes::{Code, Fault};
use crate::event::now;

/// Operations taken at once. 2,048: a transaction of that many events takes some 20 ms; more would only wait longer.
const BATCH_MAX: usize = 2_048;

/// Records whose time has come that are taken up at once.
const DUE_MAX: usize = 256;

/// Time until a store that failed is asked again for what is due.
const DUE_RETRY: Duration = Duration::from_secs(1);

/// How often it is looked for what is due where others make records as well.
const DUE_LOOK: Duration = Duration::from_secs(5);

/// Conflicts after which an operation is given up. In one process nobody else writes, so one repetition is enough; a
/// store that others write to needs a few.
const CONFLICTS_MAX: u32 = 20;

type Reply = Option<oneshot::Sender<Result<Committed, Fault>>>;

/// An operation on a record, or on nothing.
struct Changing {
    key: Option<RecordKey>,
    idempotency: Option<IdempotencyKey>,
    rule: Rule,
    reply: Reply,
    conflicts: u32,
}

/// An operation in its place in a batch.
enum Step {
    /// It is committed, as this one of the batch; `None` if it has nothing to keep.
    Commit {
        changing: Changing,
        index: Option<usize>,
        events: Vec<Prepared>,
        answer: Value,
    },
    /// Its answer is known.
    Answer {
        reply: Reply,
        outcome: Result<Committed, Fault>,
    },
    Attach(Attachment),
}

/// What a repetition is answered.
#[derive(serde::Serialize, serde::Deserialize)]
struct KeptAnswer {
    ids: Vec<String>,
    /// For each event, its index among the appends.
    appends: Vec<Option<usize>>,
    answer: Value,
}

/// `exit`: where what was kept leaves, unless it comes back from other nodes.
pub(super) async fn run(shared: Arc<Shared>, exit: Option<Outlet>, mut waiting: mpsc::Receiver<Operation>) {
    let mut dispatch = Dispatch {
        drafts: Drafts::new(shared.clone()),
        outlet: exit,
        shared,
        next_due: None,
        again: Vec::new(),
    };
    // What an earlier process committed is sent out, as far as anybody can still be told.
    if let Ok(health) = dispatch.shared.store.health().await {
        dispatch.shared.sent_order.fetch_max(health.order, Ordering::AcqRel);
    }
    dispatch.learn_next_due().await;
    let mut batch = Vec::new();
    loop {
        let due_in = dispatch.due_in();
        tokio::select! {
            count = waiting.recv_many(&mut batch, BATCH_MAX) => {
                if count == 0 {
                    return;
                }
            }
            () = tokio::time::sleep(due_in.unwrap_or(Duration::MAX)), if due_in.is_some() => {
                dispatch.take_due(&mut batch).await;
            }
        }
        dispatch.turn(&mut batch).await;
        while !dispatch.again.is_empty() {
            // Conflicts come first, and are through before anything newer is looked at.
            dispatch.turn(&mut batch).await;
        }
    }
}

struct Dispatch {
    shared: Arc<Shared>,
    /// Where what was kept leaves; `None` if it leaves as it is heard from the other nodes.
    outlet: Option<Outlet>,
    drafts: Drafts,
    /// When the next record wants attention.
    next_due: Option<Timestamp>,
    /// Operations that met a conflict.
    again: Vec<Changing>,
}

impl Dispatch {
    async fn turn(&mut self, batch: &mut Vec<Operation>) {
        let now = now();
        let mut changings: Vec<Changing> = std::mem::take(&mut self.again);
        // Attachments keep their place among the changes: (number of changes before it, it).
        let mut attachments = Vec::new();
        for operation in batch.drain(..) {
            match operation {
                Operation::Change { key, idempotency, rule, reply } => {
                    changings.push(Changing { key, idempotency, rule, reply, conflicts: 0 });
                }
                Operation::Attach(attachment) => attachments.push((changings.len(), attachment)),
            }
        }
        let (keys, names) = needs(&changings);
        let (mut records, repeated) = match self.look(keys, names).await {
            Ok(found) => found,
            Err(fault) => {
                self.fail(changings, &fault);
                self.attach_all(attachments.into_iter().map(|(_, attach)| attach).collect()).await;
                return;
            }
        };
        let mut commits = Vec::new();
        let mut steps = Vec::new();
        let mut attachments = attachments.into_iter().peekable();
        for (nth, changing) in changings.into_iter().enumerate() {
            while let Some((_, attach)) = attachments.next_if(|(before, _)| *before <= nth) {
                steps.push(Step::Attach(attach));
            }
            steps.push(self.decide(now, changing, &mut records, &repeated, &mut commits));
        }
        steps.extend(attachments.map(|(_, attach)| Step::Attach(attach)));

        if self.outlet.is_none() {
            // What is kept comes back by way of Redis: what is not shall not come after it because of that.
            self.send_ahead(&mut steps).await;
        }
        let outcomes = if commits.is_empty() {
            Ok(Vec::new())
        } else {
            for due in commits.iter().flat_map(|commit: &Commit| &commit.changes).filter_map(due_of) {
                self.next_due = Some(self.next_due.map_or(due, |next| next.min(due)));
            }
            // Only what is to be kept says how the store is.
            self.note_health(self.shared.store.commit(now, commits).await)
        };
        self.finish(steps, outcomes).await;
    }

    /// Time until records are to be looked for that want attention.
    fn due_in(&self) -> Option<Duration> {
        let own = self.next_due.map(|due| due.since(now()));
        match self.shared.cluster {
            // Other nodes make records, too, and may die before those are due.
            Some(_) => Some(own.map_or(DUE_LOOK, |own| own.min(DUE_LOOK))),
            None => own,
        }
    }

    /// Sends and answers what nothing has to be kept for.
    async fn send_ahead(&mut self, steps: &mut Vec<Step>) {
        for step in std::mem::take(steps) {
            match step {
                Step::Commit { changing, index: None, events, answer: said } => {
                    let committed = self.send_out(events, Vec::new(), said).await;
                    answer(changing.reply, Ok(committed));
                }
                step => steps.push(step),
            }
        }
    }

    fn note_health<T>(&self, outcome: Result<T, StoreFault>) -> Result<T, StoreFault> {
        let was_failing = self.shared.is_failing.swap(outcome.is_err(), Ordering::Relaxed);
        match &outcome {
            Err(fault) if !was_failing => {
                tracing::error!(%fault, "nothing can be kept; publishing is refused")
            }
            Ok(_) if was_failing => tracing::info!("the store takes commits again"),
            _ => {}
        }
        outcome
    }

    /// Reads the records and earlier answers that a batch needs.
    async fn look(
        &self,
        keys: Vec<RecordKey>,
        names: Vec<IdempotencyKey>,
    ) -> Result<(HashMap<RecordKey, Option<Record>>, HashMap<IdempotencyKey, Repeated>), StoreFault> {
        if keys.is_empty() && names.is_empty() {
            return Ok((HashMap::new(), HashMap::new()));
        }
        let found = self.note_health(self.shared.store.look(keys.clone(), names.clone()).await)?;
        let records = keys.into_iter().zip(found.records).collect();
        let repeated =
            names.into_iter().zip(found.repeated).filter_map(|(key, answer)| Some((key, answer?))).collect();
        Ok((records, repeated))
    }

    /// Runs an operation's rule on the record as it will be when the operation's turn has come.
    fn decide(
        &mut self,
        now: Timestamp,
        mut changing: Changing,
        records: &mut HashMap<RecordKey, Option<Record>>,
        repeated: &HashMap<IdempotencyKey, Repeated>,
        commits: &mut Vec<Commit>,
    ) -> Step {
        if let Some(earlier) = changing.idempotency.as_ref().and_then(|key| repeated.get(key)) {
            let outcome = repetition(earlier);
            return Step::Answer { reply: changing.reply, outcome };
        }
        let present = changing.key.as_ref().and_then(|key| records.get(key)).and_then(Option::as_ref);
        let decision = match (changing.rule)(present, now) {
            Ok(decision) => decision,
            Err(fault) => return Step::Answer { reply: changing.reply, outcome: Err(fault.into()) },
        };
        let Decision { next, events, answer } = decision;
        let mut change = None;
        if let Some(key) = &changing.key {
            let expected = present.map(|record| record.version);
            let state = match next {
                Next::Same => None,
                Next::Become(state) => Some(Some(state)),
                Next::Gone => expected.map(|_| None),
            };
            if let Some(state) = state {
                let becomes = state.clone().map(|state| Record {
                    key: key.clone(),
                    version: expected.unwrap_or(0) + 1,
                    state,
                });
                records.insert(key.clone(), becomes);
                change = Some(Change { key: key.clone(), expected, state });
            }
        }
        let mut appends = Vec::new();
        let events: Vec<Prepared> =
            events.into_iter().map(|event| self.drafts.prepare(now, event, &mut appends)).collect();
        if change.is_none() && appends.is_empty() && changing.idempotency.is_none() {
            // Nothing is to be kept, but it goes out in its turn.
            return Step::Commit { changing, index: None, events, answer };
        }
        let kept_answer = || KeptAnswer {
            ids: events.iter().map(|prepared| prepared.delivery.event.id.to_string()).collect(),
            appends: events.iter().map(|prepared| prepared.append).collect(),
            answer: answer.clone(),
        };
        let index = commits.len();
        commits.push(Commit {
            answer: match changing.idempotency {
                Some(_) => serde_json::to_string(&kept_answer()).unwrap_or_default().into(),
                None => Box::default(),
            },
            idempotency: changing.idempotency.clone(),
            changes: change.into_iter().collect(),
            appends,
        });
        Step::Commit { changing, index: Some(index), events, answer }
    }

    /// Sends out and answers, in order.
    async fn finish(&mut self, steps: Vec<Step>, outcomes: Result<Vec<Outcome>, StoreFault>) {
        let (mut outcomes, fault) = match outcomes {
            Ok(outcomes) => (outcomes.into_iter().map(Some).collect::<Vec<_>>(), None),
            Err(fault) => (Vec::new(), Some(fault)),
        };
        let mut attaching = Vec::new();
        for step in steps {
            // Those that follow each other wait for the shards together.
            if !matches!(step, Step::Attach(_)) {
                self.attach_all(std::mem::take(&mut attaching)).await;
            }
            match step {
                Step::Attach(attachment) => attaching.push(attachment),
                Step::Answer { reply, outcome } => answer(reply, outcome),
                Step::Commit { mut changing, index, events, answer: said } => {
                    let outcome = match (index, &fault) {
                        (None, _) => Outcome::Done(Vec::new()),
                        (_, Some(fault)) => {
                            answer(changing.reply, Err(fault.clone().into()));
                            continue;
                        }
                        (Some(index), None) => match outcomes.get_mut(index).and_then(Option::take) {
                            Some(outcome) => outcome,
                            None => {
                                let broken = "the store answered fewer outcomes than it was given commits";
                                answer(changing.reply, Err(Fault::new(Code::Internal, broken)));
                                continue;
                            }
                        },
                    };
                    match outcome {
                        Outcome::Done(placed) => {
                            let committed = self.send_out(events, placed, said).await;
                            if let Some(key) = &changing.key {
                                self.shared.waiters.tell(key);
                            }
                            answer(changing.reply, Ok(committed));
                        }
                        Outcome::Repeated(earlier) => answer(changing.reply, repetition(&earlier)),
                        Outcome::Conflict => {
                            changing.conflicts += 1;
                            if changing.conflicts > CONFLICTS_MAX {
                                let message =
                                    format!("the record changed {CONFLICTS_MAX} times meanwhile; try again");
                                answer(changing.reply, Err(Fault::new(Code::Busy, message)));
                            } else {
                                self.again.push(changing);
                            }
                        }
                    }
                }
            }
        }
        self.attach_all(attaching).await;
    }

    async fn send_out(
        &mut self,
        events: Vec<Prepared>,
        mut placed: Vec<(u64, Vec<Placed>)>,
        answer: Value,
    ) -> Committed {
        let mut committed = Committed { ids: Vec::new(), placed: Vec::new(), answer, is_repetition: false };
        for prepared in events {
            let place = prepared.append.and_then(|index| placed.get_mut(index)).map(std::mem::take);
            committed.ids.push(prepared.delivery.event.id);
            committed.placed.push(place.as_ref().map(|(_, placed)| placed.clone()).unwrap_or_default());
            let delivery = prepared.delivery.placed_at(place);
            mirroring::mirror(self.shared.foreign(), &delivery);
            self.send(delivery).await;
        }
        committed
    }

    /// Sends an event to the sockets here, and has other nodes do so, unless all of them hear of it from Redis.
    async fn send(&mut self, delivery: Delivery) {
        match &mut self.outlet {
            Some(outlet) => outlet.send(delivery).await,
            None if delivery.order.is_some() => {}
            None => self.shared.send_unkept(&delivery).await,
        }
    }

    async fn attach_all(&mut self, attachments: Vec<Attachment>) {
        match &mut self.outlet {
            Some(outlet) => outlet.attach_all(attachments).await,
            // Among several nodes these never come this way; whoever waits for one is told to try again.
            None => drop(attachments),
        }
    }

    fn fail(&self, changings: Vec<Changing>, fault: &StoreFault) {
        for changing in changings {
            answer(changing.reply, Err(fault.clone().into()));
        }
    }

    /// Makes operations of the records whose time has come.
    async fn take_due(&mut self, batch: &mut Vec<Operation>) {
        let records = match self.note_health(self.shared.store.due(now(), DUE_MAX).await) {
            Ok(records) => records,
            Err(_) => {
                self.next_due = Some(now().plus(DUE_RETRY));
                return;
            }
        };
        for record in records {
            let rule = self.shared.due_rules.iter().find(|(kind, _)| *kind == record.key.kind);
            let Some((_, rule)) = rule else {
                tracing::error!(kind = record.key.kind.as_str(), "a record is due that nothing attends to");
                continue;
            };
            batch.push(due_operation(record.key, rule.clone()));
        }
        self.learn_next_due_after(now()).await;
    }

    async fn learn_next_due(&mut self) {
        match self.shared.store.next_due().await {
            Ok(due) => self.next_due = due,
            Err(_) => self.next_due = Some(now().plus(DUE_RETRY)),
        }
    }

    /// As [`Dispatch::learn_next_due`], when records that are due already are being attended to: asks again soon.
    async fn learn_next_due_after(&mut self, moment: Timestamp) {
        self.learn_next_due().await;
        if let Some(due) = self.next_due
            && due <= moment
        {
            // Those that are in this batch, or more of them than one batch takes. Their rules move them on.
            self.next_due = Some(moment.plus(Duration::from_millis(20)));
        }
    }
}

/// The records and earlier answers that operations need, each once.
fn needs(changings: &[Changing]) -> (Vec<RecordKey>, Vec<IdempotencyKey>) {
    let mut keys: Vec<RecordKey> = changings.iter().filter_map(|changing| changing.key.clone()).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut names: Vec<IdempotencyKey> =
        changings.iter().filter_map(|changing| changing.idempotency.clone()).collect();
    names.sort_unstable();
    names.dedup();
    (keys, names)
}

fn due_operation(key: RecordKey, rule: DueRule) -> Operation {
    let rule: Rule = Box::new(move |record, now| match record {
        // It may have moved on by the time of its turn.
        Some(record) if record.state.due_at.is_some_and(|due| due <= now) => rule(record, now),
        _ => Ok(Decision::default()),
    });
    Operation::Change { key: Some(key), idempotency: None, rule, reply: None }
}

fn due_of(change: &Change) -> Option<Timestamp> {
    change.state.as_ref()?.due_at
}

fn answer(reply: Reply, outcome: Result<Committed, Fault>) {
    match reply {
        // Nobody waits any more: the request was given up.
        Some(reply) => drop(reply.send(outcome)),
        None => {
            if let Err(fault) = outcome {
                tracing::warn!(
                    code = fault.code.as_str(),
                    message = fault.message,
                    "what was due could not be done"
                );
            }
        }
    }
}

fn repetition(earlier: &Repeated) -> Result<Committed, Fault> {
    let kept: KeptAnswer = serde_json::from_str(&earlier.answer).map_err(|error| {
        Fault::new(Code::Internal, format!("the answer that was kept cannot be read: {error}"))
    })?;
    let placed = kept
        .appends
        .iter()
        .map(|index| index.and_then(|index| earlier.placed.get(index)).cloned().unwrap_or_default())
        .collect();
    let ids = kept.ids.iter().filter_map(|id| EventId::parse(id)).collect();
    Ok(Committed { ids, placed, answer: kept.answer, is_repetition: true })
}

/// A position as peers see it.
pub(crate) fn position_json(position: Option<Position>) -> Value {
    match position {
        Some(Position { epoch, seq }) => json!({ "epoch": epoch, "seq": seq }),
        None => json!({}),
    }
}
