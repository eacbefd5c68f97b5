//! Owns names that are made from a message: of rooms and events, for bodies that are not written for us.
//! Does not know what a name is for.

use crate::message::Message;

/// A name with placeholders, such as `project:{header.project}` or `{routing_key.1}`.
///
/// | placeholder | is replaced by |
/// |---|---|
/// | `{routing_key}` | the routing key |
/// | `{routing_key.N}` | its Nth word, counted from 0; words are separated by dots |
/// | `{exchange}` | the exchange |
/// | `{header.NAME}` | a header whose value is a text, number or boolean |
/// | `{type}`, `{app_id}`, `{message_id}` | the property |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Exchange,
    RoutingKey,
    Word(usize),
    Header(String),
    Type,
    AppId,
    MessageId,
}

impl Pattern {
    /// Reads it.
    ///
    /// # Errors
    /// Whoever wrote it is at fault: a placeholder that is not known, or a brace that is alone.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            if before.contains('}') {
                return Err(format!("`{text}` has a `}}` without a `{{`"));
            }
            let Some((name, after)) = after.split_once('}') else {
                return Err(format!("`{text}` has a `{{` without a `}}`"));
            };
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::parse(name)?);
            rest = after;
        }
        if rest.contains('}') {
            return Err(format!("`{text}` has a `}}` without a `{{`"));
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// The name for a message.
    ///
    /// # Errors
    /// The sender's fault: the message lacks what a placeholder stands for.
    pub fn render(&self, message: &Message) -> Result<String, String> {
        let mut name = String::new();
        for part in &self.parts {
            let value = match part {
                Part::Text(text) => Some(text.as_str()),
                Part::Exchange => Some(message.exchange.as_str()),
                Part::RoutingKey => Some(message.routing_key.as_str()),
                Part::Word(nth) => message.routing_key.split('.').nth(*nth),
                Part::Header(name) => message.headers.get(name).map(String::as_str),
                Part::Type => message.kind.as_deref(),
                Part::AppId => message.app_id.as_deref(),
                Part::MessageId => message.message_id.as_deref(),
            };
            match value.filter(|value| !value.is_empty()) {
                Some(value) => name.push_str(value),
                None => return Err(format!("the message has nothing for {part} of `{}`", self.text)),
            }
        }
        Ok(name)
    }
}

impl Part {
    fn parse(name: &str) -> Result<Self, String> {
        Ok(match name {
            "exchange" => Part::Exchange,
            "routing_key" => Part::RoutingKey,
            "type" => Part::Type,
            "app_id" => Part::AppId,
            "message_id" => Part::MessageId,
            other => match (other.strip_prefix("header."), other.strip_prefix("routing_key.")) {
                (Some(header), _) if !header.is_empty() => Part::Header(header.to_owned()),
                (_, Some(nth)) if nth.parse::<usize>().is_ok() => Part::Word(nth.parse().unwrap_or_default()),
                _ => {
                    return Err(format!(
                        "`{{{other}}}` is no placeholder; there are {{routing_key}}, {{routing_key.N}}, {{exchange}}, \
                         {{header.NAME}}, {{type}}, {{app_id}} and {{message_id}}"
                    ));
                }
            },
        })
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Part::Text(text) => f.write_str(text),
            Part::Exchange => f.write_str("{exchange}"),
            Part::RoutingKey => f.write_str("{routing_key}"),
            Part::Word(nth) => write!(f, "{{routing_key.{nth}}}"),
            Part::Header(name) => write!(f, "{{header.{name}}}"),
            Part::Type => f.write_str("{type}"),
            Part::AppId => f.write_str("{app_id}"),
            Part::MessageId => f.write_str("{message_id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        Message {
            exchange: "ci".into(),
            routing_key: "build.web.done".into(),
            headers: [("project".to_owned(), "p1".to_owned())].into(),
            kind: Some("build".into()),
            ..Message::default()
        }
    }

    #[test]
    fn placeholders_are_filled_from_the_message() {
        for (pattern, expected) in [
            ("project:{header.project}", "project:p1"),
            ("{routing_key}", "build.web.done"),
            ("{routing_key.1}-{routing_key.2}", "web-done"),
            ("{exchange}/{type}!", "ci/build!"),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().render(&message()).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_a_message_lacks_is_named() {
        for pattern in ["{header.user}", "{routing_key.3}", "{app_id}", "{message_id}"] {
            let complaint = Pattern::parse(pattern).unwrap().render(&message()).unwrap_err();
            assert!(complaint.contains(pattern), "{complaint}");
        }
    }

    #[test]
    fn patterns_that_make_no_sense_are_refused() {
        for bad in ["{", "}", "a{b}c", "{header.}", "{routing_key.x}", "{type", "x}{type}"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
