//! Owns one message as it came: its body, where it came by, and what its sender wrote on it.
//! Does not know what it means.

use std::collections::BTreeMap;

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::AMQPValue;

/// One message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What it says.
    pub body: Vec<u8>,
    /// The exchange that it was published to; empty for the default one.
    pub exchange: String,
    /// Its routing key.
    pub routing_key: String,
    /// Whether it may have been delivered before.
    pub is_redelivered: bool,
    /// Headers whose values are texts, numbers or booleans, as texts. Others are left out.
    pub headers: BTreeMap<String, String>,
    /// The property `message_id`.
    pub message_id: Option<String>,
    /// The property `type`.
    pub kind: Option<String>,
    /// The property `app_id`.
    pub app_id: Option<String>,
    /// The property `timestamp`, in seconds since 1970.
    pub timestamp_s: Option<u64>,
}

impl Message {
    /// Takes what was delivered apart; the properties stay as they are for whoever sends it on.
    pub(crate) fn of(delivery: &mut Delivery) -> Self {
        let properties = &delivery.properties;
        Self {
            exchange: delivery.exchange.to_string(),
            routing_key: delivery.routing_key.to_string(),
            is_redelivered: delivery.redelivered,
            headers: headers(properties),
            message_id: properties.message_id().as_ref().map(ToString::to_string),
            kind: properties.kind().as_ref().map(ToString::to_string),
            app_id: properties.app_id().as_ref().map(ToString::to_string),
            timestamp_s: *properties.timestamp(),
            body: std::mem::take(&mut delivery.data),
        }
    }
}

fn headers(properties: &BasicProperties) -> BTreeMap<String, String> {
    let headers = properties.headers().as_ref();
    let values = headers.into_iter().flat_map(|table| table.inner().iter());
    values.filter_map(|(name, value)| Some((name.to_string(), text(value)?))).collect()
}

/// A header's value as text, if it has a plain one.
pub(crate) fn text(value: &AMQPValue) -> Option<String> {
    Some(match value {
        AMQPValue::LongString(text) => String::from_utf8(text.as_bytes().to_vec()).ok()?,
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::Boolean(value) => value.to_string(),
        AMQPValue::ShortShortInt(value) => value.to_string(),
        AMQPValue::ShortShortUInt(value) => value.to_string(),
        AMQPValue::ShortInt(value) => value.to_string(),
        AMQPValue::ShortUInt(value) => value.to_string(),
        AMQPValue::LongInt(value) => value.to_string(),
        AMQPValue::LongUInt(value) => value.to_string(),
        AMQPValue::LongLongInt(value) => value.to_string(),
        AMQPValue::Timestamp(value) => value.to_string(),
        _ => return None,
    })
}
