//! Owns how the hub's rules on records become the dispatcher's: the state is read before and written after.
//! Does not know any kind of record.

use hub::fault::Fault;
use hub::record::{State, Step};
use hub::store::Record;
use hub::time::Timestamp;
use serde_json::Value;

use super::{Decision, Next, Rule};

/// A rule on a record of one kind. `view` makes the answer from what the record becomes.
pub(crate) fn record_rule<S, D, V>(mut decide: D, view: V) -> Rule
where
    S: State + PartialEq,
    D: FnMut(Option<&S>, Timestamp) -> Result<Step<S>, Fault> + Send + Sync + 'static,
    V: Fn(&S) -> Value + Send + Sync + 'static,
{
    Box::new(move |record, now| {
        let present: Option<S> = record.map(read);
        let step = decide(present.as_ref(), now)?;
        Ok(decision(present.as_ref(), step, &view))
    })
}

/// What is done when a record's time has come.
pub(crate) fn due_rule<S>(record: &Record, now: Timestamp, due: fn(&S, Timestamp) -> Step<S>) -> Decision
where
    S: State + PartialEq,
{
    let present: S = read(record);
    let step = due(&present, now);
    decision(Some(&present), step, &|_| Value::Null)
}

fn decision<S: State + PartialEq>(
    present: Option<&S>,
    step: Step<S>,
    view: &dyn Fn(&S) -> Value,
) -> Decision {
    let answer = step.next.as_ref().or(present).map_or(Value::Null, view);
    let next = match &step.next {
        Some(next) if present == Some(next) => Next::Same,
        Some(next) => Next::Become(next.to_record()),
        None if present.is_some() => Next::Gone,
        None => Next::Same,
    };
    Decision { next, events: step.events, answer }
}

fn read<S: State>(record: &Record) -> S {
    // What this store was given came from `to_record` of the same type; a file of a newer version is refused when it
    // is opened.
    S::from_record(&record.state).expect("invariant: a record's state is what its kind wrote")
}
