//! Owns one queue as it is configured: what is declared, taken, and done with the dead. Does not connect.

use std::time::Duration;

use lapin::options::{BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, ExchangeKind};

/// Bytes of a name on the wire: AMQP 0-9-1 §4.2.5.3, short strings.
const NAME_BYTES_MAX: usize = 255;

/// An exchange that a queue is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// What it is: `topic`, `direct`, `fanout` or `headers`.
    pub kind: String,
}

/// One queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub queue: String,
    /// What it is bound to; without one only the default exchange reaches it, by the queue's name.
    pub exchange: Option<Exchange>,
    /// By which keys it is bound.
    pub routing_keys: Vec<String>,
    /// Messages that are taken before the first of them is acknowledged. Lower: less is delivered again after a kill.
    /// Higher: more is kept by one flush of the disk.
    pub prefetch: u16,
    /// Whether exchange, queue and bindings are made. Otherwise they must be there.
    pub declares: bool,
    /// The queue that takes what can never be kept. Without one such messages are rejected: the broker drops them, or
    /// does with them what the queue's own policy says.
    pub dead_letter: Option<String>,
    /// How often a message of our own goes through the queue to see whether it brings any. `None`: never.
    pub canary_interval: Option<Duration>,
}

/// Settings of a queue that cannot be used. Whoever wrote them is at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFault {
    /// Which setting.
    pub key: &'static str,
    /// What is wrong with it.
    pub complaint: String,
}

impl Source {
    /// Refuses what no broker takes.
    ///
    /// # Errors
    /// A name that is empty or too long, a kind of exchange that there is not, or a prefetch of 0.
    pub fn check(&self) -> Result<(), SourceFault> {
        let fault = |key| move |complaint| SourceFault { key, complaint };
        check_name(&self.queue).map_err(fault("queue"))?;
        if let Some(exchange) = &self.exchange {
            check_name(&exchange.name).map_err(fault("exchange"))?;
            if !["topic", "direct", "fanout", "headers"].contains(&exchange.kind.as_str()) {
                let complaint = format!("is topic, direct, fanout or headers, not `{}`", exchange.kind);
                return Err(SourceFault { key: "exchange_kind", complaint });
            }
        }
        for key in self.routing_keys.iter().filter(|key| !key.is_empty()) {
            check_name(key).map_err(fault("routing_keys"))?;
        }
        if let Some(queue) = &self.dead_letter {
            check_name(queue).map_err(fault("dead_letter"))?;
            if *queue == self.queue {
                let complaint =
                    "is the queue itself: what cannot be kept would come back for ever".to_owned();
                return Err(SourceFault { key: "dead_letter", complaint });
            }
        }
        if self.prefetch == 0 {
            // To a broker it means that there is no bound.
            return Err(SourceFault { key: "prefetch", complaint: "is 0; it is 1 to 65535".to_owned() });
        }
        Ok(())
    }

    /// Makes or finds what is needed, and says how much may be under way.
    ///
    /// # Errors
    /// What is there is not as it should be, or not there.
    pub(crate) async fn declare(&self, channel: &Channel) -> Result<(), lapin::Error> {
        let none = FieldTable::default;
        let queue =
            QueueDeclareOptions { passive: !self.declares, durable: true, ..QueueDeclareOptions::default() };
        if let Some(exchange) = &self.exchange {
            let options = ExchangeDeclareOptions {
                passive: !self.declares,
                durable: true,
                ..ExchangeDeclareOptions::default()
            };
            let kind = match exchange.kind.as_str() {
                "direct" => ExchangeKind::Direct,
                "fanout" => ExchangeKind::Fanout,
                "headers" => ExchangeKind::Headers,
                _ => ExchangeKind::Topic,
            };
            channel.exchange_declare(exchange.name.as_str().into(), kind, options, none()).await?;
        }
        channel.queue_declare(self.queue.as_str().into(), queue, none()).await?;
        if let Some(dead_letter) = &self.dead_letter {
            channel.queue_declare(dead_letter.as_str().into(), queue, none()).await?;
        }
        if let Some(exchange) = self.exchange.as_ref().filter(|_| self.declares) {
            for key in &self.routing_keys {
                let (queue, name) = (self.queue.as_str().into(), exchange.name.as_str().into());
                let options = QueueBindOptions::default();
                channel.queue_bind(queue, name, key.as_str().into(), options, none()).await?;
            }
        }
        channel.basic_qos(self.prefetch, BasicQosOptions::default()).await
    }
}

/// Refuses what is no name of a queue, an exchange or a routing key.
///
/// # Errors
/// It is empty, or longer than 255 bytes.
pub fn check_name(name: &str) -> Result<(), String> {
    match name.len() {
        0 => Err("is empty".to_owned()),
        1..=NAME_BYTES_MAX => Ok(()),
        bytes => Err(format!("of {bytes} bytes exceeds {NAME_BYTES_MAX}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_broker_takes_is_refused_by_the_name_of_its_setting() {
        let good = Source {
            queue: "q".into(),
            exchange: Some(Exchange { name: "x".into(), kind: "topic".into() }),
            routing_keys: vec!["#".into(), String::new()],
            prefetch: 1,
            declares: true,
            dead_letter: Some("d".into()),
            canary_interval: None,
        };
        assert_eq!(good.check(), Ok(()));
        let exchange = |name: &str, kind: &str| Some(Exchange { name: name.into(), kind: kind.into() });
        for (bad, key) in [
            (Source { queue: String::new(), ..good.clone() }, "queue"),
            (Source { queue: "q".repeat(256), ..good.clone() }, "queue"),
            (Source { exchange: exchange("", "topic"), ..good.clone() }, "exchange"),
            (Source { exchange: exchange("x", "tropic"), ..good.clone() }, "exchange_kind"),
            (Source { routing_keys: vec!["k".repeat(256)], ..good.clone() }, "routing_keys"),
            (Source { dead_letter: Some("q".into()), ..good.clone() }, "dead_letter"),
            (Source { prefetch: 0, ..good.clone() }, "prefetch"),
        ] {
            assert_eq!(bad.check().unwrap_err().key, key);
        }
    }
}
