//! RabbitMQ at work in the server: its settings, and who keeps what its queues bring.
//!
//! Connections, acknowledgements and the dead are the crate `queues`'; here is what it cannot have: what events may be, the
//! dispatcher, jobs. Invariant: what a queue brings is checked, kept and sent as what comes over HTTP is.

mod celery;
mod config;
mod events;
mod lane;

use std::sync::Arc;

use hub::store::IdempotencyKey;
use queues::{Answer, Consumer, Health, QueueLine, Report, Running, Verdict};
use serde_json::{Value, json};
use tools::{Line, Place};

use crate::codes::{Code, Fault};
use crate::dispatch::{Committed, Underway};
use crate::rest::App;
use lane::Pass;

pub(crate) use config::RabbitmqConfig;
pub(crate) use events::{Events, Mode, Rooms};

/// The consumers at work.
#[derive(Default)]
pub(crate) struct Queues(Vec<Running>);

impl Queues {
    /// Begins to take what is configured, if anything is.
    pub(crate) fn start(config: Option<&RabbitmqConfig>, app: &App) -> Self {
        let Some(config) = config else { return Self::default() };
        let mut running = Vec::new();
        if let Some((source, mode)) = &config.events {
            let rooms = Rooms { setting: "rabbitmq.rooms", patterns: config.rooms.clone() };
            let scope = format!("rabbitmq:{}", source.queue);
            let intake = Events::new(app.clone(), scope, mode.clone(), rooms);
            running.push(Consumer::new(config.address.clone(), source.clone(), Arc::new(intake)).start());
        }
        if let Some((source, project)) = &config.celery {
            let intake = celery::Celery::new(app.clone(), &source.queue, project);
            running.push(Consumer::new(config.address.clone(), source.clone(), Arc::new(intake)).start());
        }
        Self(running)
    }

    /// How they are doing.
    pub(crate) fn watch(&self) -> Watch {
        Watch::of(self.0.iter().map(|running| running.health().clone()))
    }

    /// Takes nothing new, and ends once what is under way is kept.
    pub(crate) async fn stop(self) {
        futures_util::future::join_all(self.0.into_iter().map(Running::stop)).await;
    }
}

/// How the consumers are doing, for whoever shows it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch(Arc<[Arc<Health>]>);

impl Watch {
    /// Over these.
    pub(crate) fn of(all: impl Iterator<Item = Arc<Health>>) -> Self {
        Self(all.collect())
    }

    /// One report for each queue.
    pub(crate) fn reports(&self) -> Vec<Report> {
        self.0.iter().map(|health| health.report()).collect()
    }

    /// Why a queue is not heard, if one is not.
    pub(crate) fn deaf(&self) -> Option<String> {
        self.0.iter().find_map(|health| health.deaf())
    }

    /// What `/health` shows, all of them under the name `all`; nothing if there are none.
    pub(crate) fn check(&self, all: &str) -> Option<Value> {
        let reports = self.reports();
        let first = reports.first()?;
        // The worst of them: one that is not well is what people look for.
        let bad = reports.iter().find(|report| report.status != "ok").unwrap_or(first);
        Some(json!({ "status": bad.status, "complaint": bad.complaint, all: reports }))
    }
}

/// The way to a tool that waits at a queue.
///
/// # Errors
/// Whoever wrote the settings is at fault: there is no broker, or the names are none.
pub(crate) fn line_to(config: Option<&RabbitmqConfig>, place: &Place) -> Result<Arc<dyn Line>, String> {
    let address = match (&place.broker, config) {
        (Some(broker), _) => queues::Address::parse(broker.reveal())
            .map_err(|complaint| format!("broker {complaint}"))?
            .trusting(config.and_then(|config| config.authorities.clone())),
        (None, Some(config)) => config.address.clone(),
        (None, None) => return Err("has no `broker`, and rabbitmq.url is not set".to_owned()),
    };
    queues::check_name(&place.request_queue).map_err(|complaint| format!("request_queue {complaint}"))?;
    if !place.exchange.is_empty() {
        queues::check_name(&place.exchange).map_err(|complaint| format!("exchange {complaint}"))?;
    }
    Ok(Arc::new(QueueLine::new(address, &place.exchange, &place.request_queue)))
}

/// What a refusal means for a message.
fn verdict(fault: Fault) -> Verdict {
    let Fault { code, message, retry_after } = fault;
    let after = retry_after.map(std::time::Duration::from_secs);
    match code {
        Code::Internal => Verdict::Failed { code: code.as_str(), message },
        _ if code.may_retry() => Verdict::Later { code: code.as_str(), message, after },
        _ => Verdict::Never { code: code.as_str(), message },
    }
}

/// What becomes of a message whose operations have their places.
fn settled(pass: Pass, underway: Vec<Underway>) -> Answer<'static, Verdict> {
    Box::pin(async move {
        let mut is_new = underway.is_empty();
        let mut refusal = None;
        for one in underway {
            match one.done().await {
                Ok(Committed { is_repetition, .. }) => is_new |= !is_repetition,
                // The first one tells what is done; those that were kept are known when it comes again.
                Err(fault) => refusal = refusal.or(Some(fault)),
            }
        }
        match refusal {
            Some(fault) => verdict(pass.explain(fault)),
            None if is_new => Verdict::Kept,
            None => Verdict::Repeated,
        }
    })
}

/// What a message is known by to the store.
fn key(scope: &str, key: &str) -> IdempotencyKey {
    IdempotencyKey { scope: scope.into(), key: key.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_that_pass_are_tried_again_and_others_are_final() {
        let of = |code| verdict(Fault::new(code, "why"));
        assert!(matches!(of(Code::StoreUnavailable), Verdict::Later { after: Some(_), .. }));
        assert!(matches!(of(Code::Busy), Verdict::Later { .. }));
        assert!(matches!(of(Code::BadPayload), Verdict::Never { .. }));
        assert!(matches!(of(Code::Forbidden), Verdict::Never { .. }));
        assert!(matches!(of(Code::Internal), Verdict::Failed { .. }));
    }

    #[test]
    fn a_tool_needs_a_broker_and_a_queue() {
        let place = |broker: Option<&str>, queue: &str| Place {
            broker: broker.map(tools::Secret::new),
            exchange: String::new(),
            request_queue: queue.to_owned(),
        };
        assert!(line_to(None, &place(Some("amqp://h"), "q")).is_ok());
        let complaint = line_to(None, &place(None, "q")).unwrap_err();
        assert!(complaint.contains("rabbitmq.url"), "{complaint}");
        let complaint = line_to(None, &place(Some("http://u:hunter2@h"), "q")).unwrap_err();
        assert!(
            complaint.starts_with("broker is no address") && !complaint.contains("hunter2"),
            "{complaint}"
        );
        assert!(line_to(None, &place(Some("amqp://h"), &"q".repeat(256))).is_err());
    }
}
