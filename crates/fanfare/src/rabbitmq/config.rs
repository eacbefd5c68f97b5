//! Owns what is taken from RabbitMQ, as the program uses it, made from the section `[rabbitmq]` once.
//! Does not connect to anything.

use hub::policy::Pattern as RoomPattern;
use hub::room::{RoomKind, RoomName};
use queues::{Address, Exchange, Pattern, Source};

use super::events::Mode;
use crate::config::duration;
use crate::settings::{Rabbitmq, RawCelery};

/// Where Celery's workers tell of their tasks, unless another exchange is configured.
const CELERY_EXCHANGE: &str = "celeryev";

/// The queue of ours that hears of them.
const CELERY_QUEUE: &str = "fanfare.celery";

/// A broker, and what is taken from it.
#[derive(Clone, Debug)]
pub(crate) struct RabbitmqConfig {
    /// Where it is.
    pub(crate) address: Address,
    /// The queue of events, and what its bodies are.
    pub(crate) events: Option<(Source, Mode)>,
    /// Authorities that are trusted beside the public ones, also for the brokers of tools, as PEM.
    pub(crate) authorities: Option<String>,
    /// Rooms that events may name.
    pub(crate) rooms: Vec<RoomPattern>,
    /// The queue of Celery's news, and the project whose jobs tasks become.
    pub(crate) celery: Option<(Source, String)>,
}

impl RabbitmqConfig {
    /// Converts the section; `None` if it names no broker.
    ///
    /// # Errors
    /// Whoever wrote the settings is at fault.
    pub(crate) fn convert(raw: Rabbitmq) -> Result<Option<Self>, String> {
        if raw.url.is_empty() {
            return match &raw.celery {
                RawCelery { project: None, exchange: None, queue: None } => Ok(None),
                _ => Err("rabbitmq.celery is configured, but rabbitmq.url is not set".to_owned()),
            };
        }
        let authorities = match raw.ca_file.as_str() {
            "" => None,
            path => {
                let text = std::fs::read_to_string(path);
                Some(text.map_err(|error| format!("rabbitmq.ca_file: {path} cannot be read: {error}"))?)
            }
        };
        let address = Address::parse(raw.url.expose())
            .map_err(|complaint| format!("rabbitmq.url {complaint}"))?
            .trusting(authorities.clone());
        let mode = mode(&raw)?;
        let canary = duration("rabbitmq.canary_interval", &raw.canary_interval)?;
        let dead_letter = Some(raw.dead_letter).filter(|queue| !queue.is_empty());
        let source = |queue: String, exchange: Option<Exchange>, routing_keys: Vec<String>| Source {
            queue,
            exchange,
            routing_keys,
            prefetch: raw.prefetch,
            declares: raw.declare,
            dead_letter: dead_letter.clone(),
            canary_interval: Some(canary).filter(|interval| !interval.is_zero()),
        };
        let events = (!raw.queue.is_empty()).then(|| {
            let exchange = (!raw.exchange.is_empty())
                .then(|| Exchange { name: raw.exchange.clone(), kind: raw.exchange_kind.clone() });
            (source(raw.queue.clone(), exchange, raw.routing_keys.clone()), mode)
        });
        let celery = match raw.celery {
            RawCelery { project: None, exchange: None, queue: None } => None,
            RawCelery { project: None, .. } => {
                return Err("rabbitmq.celery.project is missing: say whose jobs the tasks become".to_owned());
            }
            RawCelery { project: Some(project), exchange, queue } => {
                RoomName::of(RoomKind::Project, &project)
                    .map_err(|fault| format!("rabbitmq.celery.project: {fault}"))?;
                let name = exchange.unwrap_or_else(|| CELERY_EXCHANGE.to_owned());
                let exchange = Some(Exchange { name, kind: "topic".to_owned() });
                let queue = queue.unwrap_or_else(|| CELERY_QUEUE.to_owned());
                Some((source(queue, exchange, vec!["task.#".to_owned()]), project))
            }
        };
        for (section, source) in [
            ("rabbitmq", events.as_ref().map(|(source, _)| source)),
            ("rabbitmq.celery", celery.as_ref().map(|(source, _)| source)),
        ] {
            let Some(source) = source else { continue };
            source.check().map_err(|fault| format!("{section}.{} {}", fault.key, fault.complaint))?;
        }
        let rooms = raw.rooms.into_iter().map(RoomPattern::new).collect();
        Ok(Some(Self { address, authorities, events, rooms, celery }))
    }
}

fn mode(raw: &Rabbitmq) -> Result<Mode, String> {
    let pattern = |key: &str, text: &str| {
        Pattern::parse(text).map_err(|complaint| format!("rabbitmq.{key}: {complaint}"))
    };
    match raw.mode.as_str() {
        "events" if raw.room.is_empty() && raw.event.is_empty() => Ok(Mode::Events),
        "events" => Err("rabbitmq.room and rabbitmq.event are for rabbitmq.mode = \"raw\"".to_owned()),
        "raw" if raw.event.is_empty() => {
            Err("rabbitmq.event is missing: say what event a raw body is, such as \"{type}\"".to_owned())
        }
        "raw" => Ok(Mode::Raw {
            event: pattern("event", &raw.event)?,
            room: if raw.room.is_empty() { None } else { Some(pattern("room", &raw.room)?) },
        }),
        other => Err(format!("rabbitmq.mode is \"events\" or \"raw\", not \"{other}\"")),
    }
}

#[cfg(test)]
mod tests {
    use ::auth::secret::Secret;

    use super::*;

    fn raw(edit: impl FnOnce(&mut Rabbitmq)) -> Rabbitmq {
        let mut raw = Rabbitmq { url: Secret::new("amqp://u:hunter2@h"), ..Rabbitmq::default() };
        edit(&mut raw);
        raw
    }

    #[test]
    fn an_address_alone_is_enough() {
        assert!(RabbitmqConfig::convert(Rabbitmq::default()).unwrap().is_none());
        let config = RabbitmqConfig::convert(raw(|_| ())).unwrap().unwrap();
        let (source, mode) = config.events.as_ref().unwrap();
        assert_eq!((source.queue.as_str(), source.prefetch, mode), ("fanfare.events", 500, &Mode::Events));
        assert!(config.celery.is_none());
        assert!(!format!("{config:?}").contains("hunter2"));
        let none = RabbitmqConfig::convert(raw(|raw| raw.queue = String::new())).unwrap().unwrap();
        assert!(none.events.is_none(), "tools may use the broker all the same");
    }

    #[test]
    fn celery_needs_a_project_only() {
        let celery = RawCelery { project: Some("p".into()), ..RawCelery::default() };
        let config = RabbitmqConfig::convert(raw(|raw| raw.celery = celery.clone())).unwrap().unwrap();
        let (source, project) = config.celery.unwrap();
        let exchange = source.exchange.unwrap();
        assert_eq!((source.queue.as_str(), project.as_str()), ("fanfare.celery", "p"));
        assert_eq!((exchange.name.as_str(), exchange.kind.as_str()), ("celeryev", "topic"));
        let nowhere = Rabbitmq { celery, ..Rabbitmq::default() };
        assert!(RabbitmqConfig::convert(nowhere).unwrap_err().contains("rabbitmq.url is not set"));
    }

    #[test]
    fn settings_that_make_no_sense_are_refused_by_their_names() {
        for (bad, complaint) in [
            (raw(|raw| raw.prefetch = 0), "rabbitmq.prefetch is 0"),
            (raw(|raw| raw.mode = "both".into()), "rabbitmq.mode is"),
            (raw(|raw| raw.ca_file = "/nowhere.pem".into()), "rabbitmq.ca_file: /nowhere.pem cannot be read"),
            (raw(|raw| raw.room = "r".into()), "are for rabbitmq.mode"),
            (raw(|raw| raw.mode = "raw".into()), "rabbitmq.event is missing"),
            (raw(|raw| (raw.mode, raw.event) = ("raw".into(), "{typ}".into())), "rabbitmq.event: `{typ}`"),
            (raw(|raw| raw.exchange_kind = "tropic".into()), "rabbitmq.exchange_kind is topic"),
            (
                raw(|raw| raw.dead_letter = "fanfare.events".into()),
                "rabbitmq.dead_letter is the queue itself",
            ),
            (raw(|raw| raw.canary_interval = "soon".into()), "rabbitmq.canary_interval is a duration"),
            (raw(|raw| raw.celery.queue = Some("q".into())), "rabbitmq.celery.project is missing"),
            (raw(|raw| raw.url = Secret::new("rabbit")), "rabbitmq.url is no address"),
        ] {
            let told = RabbitmqConfig::convert(bad).unwrap_err();
            assert!(told.contains(complaint), "{told}");
        }
    }
}
