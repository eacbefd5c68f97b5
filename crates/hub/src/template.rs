//! Owns a named event whose data has gaps, and how they are filled. Does not know who publishes it.
//!
//! In any text of the data, `{{user.name}}` stands for a value: the path names keys, and positions in arrays, separated
//! by dots; spaces around it do not matter. A text that is nothing but one placeholder becomes the value itself, of
//! whatever type; inside a longer text, texts are put in as they are and everything else as JSON. `\{{` writes `{{`.
//! Keys of objects and the event's name are taken as written. Values are never searched for placeholders.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::bound;
use crate::fault::{Fault, Refusal};
use crate::record::{State, Step};
use crate::store::RecordKind;
use crate::time::Timestamp;

/// Bounds of templates and of what is made from them. What exceeds one is refused.
#[derive(Clone, Debug)]
pub struct TemplateLimits {
    /// Bytes of a template's name. Default 100.
    pub name_bytes_max: usize,
    /// Bytes of the event's name. Default 200.
    pub event_bytes_max: usize,
    /// Bytes of the data as JSON. Default 64 KiB.
    pub data_bytes_max: usize,
    /// Levels of arrays and objects in the data. Default 32.
    pub depth_max: usize,
    /// Placeholders of one template. Default 256.
    pub placeholders_max: usize,
    /// Bytes of a placeholder's path. Default 200.
    pub path_bytes_max: usize,
    /// Bytes that one rendering puts into its placeholders. Default 256 KiB: a value may be used many times.
    pub rendered_bytes_max: usize,
}

impl Default for TemplateLimits {
    fn default() -> Self {
        Self {
            name_bytes_max: 100,
            event_bytes_max: 200,
            data_bytes_max: 64 << 10,
            depth_max: 32,
            placeholders_max: 256,
            path_bytes_max: 200,
            rendered_bytes_max: 256 << 10,
        }
    }
}

/// A template as it is written: the body of `PUT /api/v1/templates/{name}`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTemplate {
    /// The event's name.
    pub event: Box<str>,
    /// The event's data, with placeholders.
    #[serde(default)]
    pub data: Value,
}

/// A template that is well-formed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Template {
    name: Box<str>,
    event: Box<str>,
    data: Value,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// A template as `GET` shows it. Moments in RFC 3339.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct TemplateView<'a> {
    /// Its name.
    pub name: &'a str,
    /// The event's name.
    pub event: &'a str,
    /// The event's data, with placeholders.
    pub data: &'a Value,
    /// What must be given to render it, each once, in the order of the data.
    pub placeholders: Vec<&'a str>,
    /// When it was made.
    pub created_at: String,
    /// When it last changed.
    pub updated_at: String,
}

/// What a template became.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// The event's name.
    pub event: Box<str>,
    /// Its data.
    pub data: Value,
}

impl State for Template {
    const KIND: RecordKind = RecordKind::Template;

    fn id(&self) -> &str {
        &self.name
    }

    fn group(&self) -> &'static str {
        ""
    }

    fn status(&self) -> &'static str {
        ""
    }

    fn created_at(&self) -> Timestamp {
        self.created_at
    }

    fn due_at(&self) -> Option<Timestamp> {
        None
    }
}

impl Template {
    /// Fills the gaps.
    ///
    /// # Errors
    /// The peer's fault: [`Refusal::BadPayload`] naming the first placeholder that `values` has nothing for;
    /// [`Refusal::TooMany`] if the values make it larger than it may be.
    pub fn render(&self, values: &Value, limits: &TemplateLimits) -> Result<Rendered, Fault> {
        let mut rendering = Rendering { values, bytes_left: limits.rendered_bytes_max, limits };
        Ok(Rendered { event: self.event.clone(), data: rendering.fill(&self.data)? })
    }

    /// What `GET` shows.
    #[must_use]
    pub fn view(&self) -> TemplateView<'_> {
        let mut placeholders = Vec::new();
        each_text(&self.data, &mut |text| {
            for piece in Pieces(text).filter_map(Result::ok) {
                if let Piece::Gap(path) = piece
                    && !placeholders.contains(&path)
                {
                    placeholders.push(path);
                }
            }
        });
        TemplateView {
            name: &self.name,
            event: &self.event,
            data: &self.data,
            placeholders,
            created_at: self.created_at.to_string(),
            updated_at: self.updated_at.to_string(),
        }
    }
}

/// Makes or replaces a template.
///
/// # Errors
/// The peer's fault: [`Refusal::BadPayload`] for a placeholder that is not well-formed, [`Refusal::TooMany`] for what is
/// beyond `limits`.
pub fn put(
    present: Option<&Template>,
    now: Timestamp,
    name: &str,
    new: NewTemplate,
    limits: &TemplateLimits,
) -> Result<Step<Template>, Fault> {
    bound::name("a template's name", name, limits.name_bytes_max)?;
    bound::name("`event`", &new.event, limits.event_bytes_max)?;
    // Before everything that goes down into the data.
    check_depth(&new.data, limits.depth_max)?;
    bound::json("`data`", &new.data, limits.data_bytes_max)?;
    let mut count = 0;
    let mut outcome = Ok(());
    each_text(&new.data, &mut |text| {
        for piece in Pieces(text) {
            let checked = piece.and_then(|piece| match piece {
                Piece::Text(_) => Ok(()),
                Piece::Gap(path) => {
                    count += 1;
                    bound::text("a placeholder", path, limits.path_bytes_max)
                }
            });
            if outcome.is_ok() {
                outcome = checked;
            }
        }
    });
    outcome?;
    bound::count("the list of placeholders", count, limits.placeholders_max)?;
    Ok(Step::quiet(Template {
        name: name.into(),
        event: new.event,
        data: new.data,
        created_at: present.map_or(now, |template| template.created_at),
        updated_at: now,
    }))
}

/// Takes a template away.
///
/// # Errors
/// The peer's fault: [`Refusal::NotFound`].
pub fn remove(present: Option<&Template>) -> Result<Step<Template>, Fault> {
    match present {
        Some(_) => Ok(Step { next: None, events: Vec::new() }),
        None => Err(Fault::new(Refusal::NotFound, "there is no such template")),
    }
}

struct Rendering<'a> {
    values: &'a Value,
    bytes_left: usize,
    limits: &'a TemplateLimits,
}

impl Rendering<'_> {
    fn fill(&mut self, data: &Value) -> Result<Value, Fault> {
        Ok(match data {
            Value::Null | Value::Bool(_) | Value::Number(_) => data.clone(),
            Value::String(text) => self.fill_text(text)?,
            Value::Array(items) => {
                Value::Array(items.iter().map(|item| self.fill(item)).collect::<Result<_, _>>()?)
            }
            Value::Object(fields) => {
                let filled = fields.iter().map(|(key, value)| Ok((key.clone(), self.fill(value)?)));
                Value::Object(filled.collect::<Result<Map<_, _>, Fault>>()?)
            }
        })
    }

    fn fill_text(&mut self, text: &str) -> Result<Value, Fault> {
        let mut pieces = Pieces(text);
        let mut filled = String::new();
        let mut is_first = true;
        while let Some(piece) = pieces.next() {
            match piece? {
                Piece::Text(text) => filled.push_str(text),
                Piece::Gap(path) => match self.value(path)? {
                    whole if is_first && pieces.0.is_empty() => return Ok(whole.clone()),
                    Value::String(text) => filled.push_str(text),
                    other => filled.push_str(&other.to_string()),
                },
            }
            is_first = false;
        }
        Ok(Value::String(filled))
    }

    fn value(&mut self, path: &str) -> Result<&Value, Fault> {
        let value = find(self.values, path)
            .ok_or_else(|| Fault::new(Refusal::BadPayload, format!("there is no value for `{path}`")))?;
        let too_large = |_| {
            let bytes_max = self.limits.rendered_bytes_max;
            Fault::new(Refusal::TooMany, format!("the values exceed {bytes_max} bytes of JSON"))
        };
        self.bytes_left -= bound::json("a value", value, self.bytes_left).map_err(too_large)?;
        Ok(value)
    }
}

fn find<'a>(values: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(values, |value, step| match value {
        Value::Object(fields) => fields.get(step),
        Value::Array(items) => items.get(step.parse::<usize>().ok()?),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    })
}

enum Piece<'a> {
    /// As written.
    Text(&'a str),
    /// The path of a value.
    Gap(&'a str),
}

/// The pieces of a text, from what is left of it.
struct Pieces<'a>(&'a str);

impl<'a> Iterator for Pieces<'a> {
    type Item = Result<Piece<'a>, Fault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        if let Some(rest) = self.0.strip_prefix("\\{{") {
            self.0 = rest;
            return Some(Ok(Piece::Text("{{")));
        }
        if let Some(rest) = self.0.strip_prefix("{{") {
            let Some((path, rest)) = rest.split_once("}}") else {
                self.0 = "";
                return Some(Err(Fault::new(Refusal::BadPayload, "a placeholder has no `}}`")));
            };
            self.0 = rest;
            let path = path.trim();
            let is_path = path.split('.').all(|step| !step.is_empty()) && !path.contains(['{', '}']);
            if !is_path {
                let complaint = "a placeholder is no path of names separated by dots";
                return Some(Err(Fault::new(Refusal::BadPayload, complaint)));
            }
            return Some(Ok(Piece::Gap(path)));
        }
        let end = self.0.find("{{").map_or(self.0.len(), |at| match self.0[..at].strip_suffix('\\') {
            Some(before) => before.len(),
            None => at,
        });
        let (text, rest) = self.0.split_at(end);
        self.0 = rest;
        Some(Ok(Piece::Text(text)))
    }
}

fn each_text<'a>(data: &'a Value, look: &mut impl FnMut(&'a str)) {
    match data {
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
        Value::String(text) => look(text),
        Value::Array(items) => items.iter().for_each(|item| each_text(item, look)),
        Value::Object(fields) => fields.values().for_each(|value| each_text(value, look)),
    }
}

/// Goes no deeper than one level too many.
fn check_depth(data: &Value, levels: usize) -> Result<(), Fault> {
    let inside: Box<dyn Iterator<Item = &Value>> = match data {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return Ok(()),
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(fields) => Box::new(fields.values()),
    };
    let Some(levels) = levels.checked_sub(1) else {
        return Err(Fault::new(Refusal::TooMany, "`data` is nested too deeply"));
    };
    inside.into_iter().try_for_each(|value| check_depth(value, levels))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop_assert_eq, prop_oneof, proptest};
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    #[test]
    fn gaps_are_filled_and_types_are_kept() {
        let values =
            json!({"user": {"name": "Ann", "tags": ["a", {"b": 2}]}, "n": 3, "no": null, "empty": ""});
        for (data, expected) in [
            (json!("{{n}}"), json!(3)),
            (json!("{{ user.tags }}"), json!(["a", {"b": 2}])),
            (json!("{{user.tags.1.b}}"), json!(2)),
            (json!("{{no}}"), json!(null)),
            (
                json!("Hi {{user.name}}, {{n}} of {{user.tags}} {{no}}"),
                json!("Hi Ann, 3 of [\"a\",{\"b\":2}] null"),
            ),
            (json!("{{n}}{{n}}"), json!("33")),
            (json!("{{empty}}{{n}}"), json!("3")),
            (json!(" {{n}}"), json!(" 3")),
            (json!("\\{{n}} and {{n}}"), json!("{{n}} and 3")),
            (json!("\\{{"), json!("{{")),
            (json!("a } b { c }} d \\ {"), json!("a } b { c }} d \\ {")),
            (json!({"{{n}}": [true, 1.5, "{{n}}"]}), json!({"{{n}}": [true, 1.5, 3]})),
        ] {
            assert_eq!(render(&data, &values), Ok(expected), "{data}");
        }
    }

    #[test]
    fn values_are_not_searched_for_placeholders() {
        let values = json!({"a": "{{b}}", "b": "secret"});
        assert_eq!(render(&json!("{{a}}"), &values), Ok(json!("{{b}}")));
        assert_eq!(render(&json!("<{{a}}>"), &values), Ok(json!("<{{b}}>")));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (path, values) in
            [("a", json!({})), ("a.b", json!({"a": 1})), ("a.1", json!({"a": [0]})), ("a", json!(7))]
        {
            let fault = render(&json!(format!("x {{{{{path}}}}}")), &values).unwrap_err();
            assert_eq!(fault.to_string(), format!("bad_payload: there is no value for `{path}`"));
        }
    }

    #[test]
    fn templates_that_cannot_be_rendered_are_refused() {
        for bad in ["{{", "{{a", "{{}}", "{{ }}", "{{a..b}}", "{{{a}}}", "x {{a}} {{"] {
            assert_eq!(put_data(json!([bad])).unwrap_err().refusal, Refusal::BadPayload, "{bad}");
        }
    }

    #[test]
    fn what_is_beyond_the_limits_is_refused() {
        let limits = TemplateLimits {
            name_bytes_max: 3,
            event_bytes_max: 3,
            data_bytes_max: 40,
            depth_max: 2,
            placeholders_max: 2,
            path_bytes_max: 3,
            rendered_bytes_max: 10,
        };
        let put = |name: &str, event: &str, data| {
            put(None, NOW, name, NewTemplate { event: event.into(), data }, &limits)
        };
        let template = put("abc", "abc", json!(["{{abc}}", "{{abc}}"])).unwrap().next.unwrap();
        for (name, event, data) in [
            ("abcd", "abc", json!(1)),
            ("abc", "abcd", json!(1)),
            ("abc", "abc", json!("x".repeat(39))),
            ("abc", "abc", json!([[[]]])),
            ("abc", "abc", json!("{{a}}{{a}}{{a}}")),
            ("abc", "abc", json!("{{abcd}}")),
        ] {
            assert_eq!(
                put(name, event, data.clone()).unwrap_err().refusal,
                Refusal::TooMany,
                "{name} {event} {data}"
            );
        }
        assert!(template.render(&json!({"abc": 12345}), &limits).is_ok());
        let fault = template.render(&json!({"abc": 123_456}), &limits).unwrap_err();
        assert_eq!(fault.refusal, Refusal::TooMany);
    }

    #[test]
    fn a_template_is_replaced_shown_and_removed() {
        let first = put_data(json!("{{a}} {{b.c}} {{a}}")).unwrap().next.unwrap();
        assert_eq!(first.view().placeholders, ["a", "b.c"]);
        let later = Timestamp(NOW.0 + 1);
        let new = NewTemplate { event: "e".into(), data: Value::Null };
        let second = put(Some(&first), later, "t", new, &TemplateLimits::default()).unwrap().next.unwrap();
        assert_eq!((second.created_at, second.updated_at), (NOW, later));
        assert_eq!(Template::from_record(&second.to_record()).unwrap(), second);
        assert_eq!(remove(Some(&second)).unwrap().next, None);
        assert_eq!(remove(None).unwrap_err().refusal, Refusal::NotFound);
    }

    fn json_values() -> impl Strategy<Value = Value> {
        let text = prop_oneof![any::<String>(), "[a{}.\\\\ ]{0,12}"].prop_map(Value::from);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text
        ];
        leaf.prop_recursive(4, 30, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map("[a-c]", inner, 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn a_template_that_is_taken_fails_only_for_what_is_missing(data in json_values(), values in json_values()) {
            let Ok(step) = put_data(data) else { return Ok(()) };
            let template = step.next.unwrap();
            let missing = template.view().placeholders.into_iter().find(|path| find(&values, path).is_none());
            let rendered = template.render(&values, &TemplateLimits::default());
            prop_assert_eq!(rendered.is_err(), missing.is_some());
        }

        #[test]
        fn data_without_placeholders_stays_as_it_is(data in json_values()) {
            if !data.to_string().contains("{{") {
                prop_assert_eq!(render(&data, &Value::Null), Ok(data));
            }
        }
    }

    fn put_data(data: Value) -> Result<Step<Template>, Fault> {
        put(None, NOW, "t", NewTemplate { event: "e".into(), data }, &TemplateLimits::default())
    }

    fn render(data: &Value, values: &Value) -> Result<Value, Fault> {
        let template = put_data(data.clone())?.next.expect("it was put");
        template.render(values, &TemplateLimits::default()).map(|rendered| rendered.data)
    }
}
