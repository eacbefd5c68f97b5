//! Owns which events of a subscription somebody wants, by what their data says. Does not know rooms or subscriptions.
//!
//! A filter is an **object**, all of whose fields must be equal (`{"status": "error", "meta.region": "eu"}`; an array
//! means one of its values), or an **expression**:
//!
//! ```text
//! any        = all *( "||" all )
//! all        = one *( "&&" one )
//! one        = "!" one / "(" any ")" / comparison
//! comparison = path [ ( "==" / "!=" / "<" / "<=" / ">" / ">=" ) literal
//!                   / "in" "[" [ literal *( "," literal ) ] "]" ]
//! path       = step *( "." step )            ; keys, and positions in arrays
//! step       = 1*( letter / digit / "_" / "-" )
//! literal    = text / number / "true" / "false" / "null"
//! text       = as in JSON (RFC 8259 §7), or the same between single quotes
//! number     = as in JSON (RFC 8259 §6)
//! ```
//!
//! Words `in`, `true`, `false` and `null` are no paths. White space separates, and is needed nowhere else.
//!
//! What is not there is `null`. A path by itself holds unless it is `null` or `false`. `==` compares numbers by value;
//! `!=` is its opposite, and holds between different types. `<` and its like compare two numbers, or two texts by their
//! code points, and never hold between anything else.

use std::cmp::Ordering;

use serde_json::{Number, Value};

use crate::bound;
use crate::fault::{Fault, Refusal};

/// Bounds of a filter. What exceeds one is refused.
#[derive(Clone, Debug)]
pub struct FilterLimits {
    /// Bytes of an expression, or of an object as JSON. Default 2,000.
    pub bytes_max: usize,
    /// Levels of parentheses and `!`. Default 16.
    pub depth_max: usize,
    /// Comparisons, and values in lists. Default 64: each event in the room is compared as often.
    pub terms_max: usize,
    /// Steps of one path. Default 16.
    pub steps_max: usize,
}

impl Default for FilterLimits {
    fn default() -> Self {
        Self { bytes_max: 2_000, depth_max: 16, terms_max: 64, steps_max: 16 }
    }
}

/// A filter that is well-formed.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(Node);

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Any(Vec<Node>),
    All(Vec<Node>),
    Not(Box<Node>),
    /// Neither `null` nor `false`.
    Holds(Path),
    /// Equal to one of these.
    In(Path, Vec<Literal>),
    Differs(Path, Literal),
    Ordered(Path, Order, Literal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug, PartialEq)]
struct Path(Box<[Box<str>]>);

/// A value without parts.
#[derive(Clone, Debug, PartialEq)]
enum Literal {
    Null,
    Bool(bool),
    Number(Number),
    Text(Box<str>),
}

impl Filter {
    /// Reads an object or an expression.
    ///
    /// # Errors
    /// The peer's fault: [`Refusal::BadPayload`] with the byte at which it stops to make sense, [`Refusal::TooMany`] for
    /// what is beyond `limits`.
    pub fn parse(filter: &Value, limits: &FilterLimits) -> Result<Self, Fault> {
        let node = match filter {
            Value::String(text) => parse_expression(text, limits)?,
            Value::Object(fields) => {
                bound::json("a filter", fields, limits.bytes_max)?;
                let mut terms = Terms { left: limits.terms_max };
                let fields = fields.iter().map(|(path, value)| parse_field(path, value, &mut terms, limits));
                Node::All(fields.collect::<Result<_, _>>()?)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                return Err(Fault::new(Refusal::BadPayload, "a filter is an object or an expression"));
            }
        };
        Ok(Self(node))
    }

    /// Whether an event with this data is wanted.
    #[must_use]
    pub fn lets_pass(&self, data: &Value) -> bool {
        self.0.holds(data)
    }
}

impl Node {
    /// Goes as deep as the filter is nested, which is bounded.
    fn holds(&self, data: &Value) -> bool {
        match self {
            Node::Any(nodes) => nodes.iter().any(|node| node.holds(data)),
            Node::All(nodes) => nodes.iter().all(|node| node.holds(data)),
            Node::Not(node) => !node.holds(data),
            Node::Holds(path) => !matches!(path.find(data), Value::Null | Value::Bool(false)),
            Node::In(path, literals) => {
                let found = path.find(data);
                literals.iter().any(|literal| literal.equals(found))
            }
            Node::Differs(path, literal) => !literal.equals(path.find(data)),
            Node::Ordered(path, order, literal) => {
                literal.order_of(path.find(data)).is_some_and(|found| order.holds(found))
            }
        }
    }
}

impl Order {
    fn holds(self, found: Ordering) -> bool {
        match self {
            Order::Less => found.is_lt(),
            Order::LessOrEqual => found.is_le(),
            Order::Greater => found.is_gt(),
            Order::GreaterOrEqual => found.is_ge(),
        }
    }
}

impl Path {
    fn parse(text: &str, limits: &FilterLimits) -> Result<Self, Fault> {
        let steps: Box<[Box<str>]> = text.split('.').map(Into::into).collect();
        bound::count("a path", steps.len(), limits.steps_max)?;
        if steps.iter().any(|step| step.is_empty()) {
            return Err(Fault::new(Refusal::BadPayload, format!("`{text}` is no path")));
        }
        Ok(Self(steps))
    }

    fn find<'a>(&self, data: &'a Value) -> &'a Value {
        let found = self.0.iter().try_fold(data, |value, step| match value {
            Value::Object(fields) => fields.get(&**step),
            Value::Array(items) => items.get(step.parse::<usize>().ok()?),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        });
        found.unwrap_or(&Value::Null)
    }
}

impl Literal {
    fn of(value: &Value) -> Result<Self, Fault> {
        Ok(match value {
            Value::Null => Literal::Null,
            Value::Bool(value) => Literal::Bool(*value),
            Value::Number(number) => Literal::Number(number.clone()),
            Value::String(text) => Literal::Text(text.as_str().into()),
            Value::Array(_) | Value::Object(_) => {
                let complaint = "a filter compares with texts, numbers, true, false and null";
                return Err(Fault::new(Refusal::BadPayload, complaint));
            }
        })
    }

    fn equals(&self, found: &Value) -> bool {
        match (self, found) {
            (Literal::Null, Value::Null) => true,
            (Literal::Bool(wanted), Value::Bool(found)) => wanted == found,
            (Literal::Number(_), Value::Number(_)) | (Literal::Text(_), Value::String(_)) => {
                self.order_of(found) == Some(Ordering::Equal)
            }
            _ => false,
        }
    }

    /// How what was found stands to it, if they can be compared.
    fn order_of(&self, found: &Value) -> Option<Ordering> {
        match (self, found) {
            (Literal::Number(wanted), Value::Number(found)) => compare(found, wanted),
            (Literal::Text(wanted), Value::String(found)) => Some((**found).cmp(wanted)),
            _ => None,
        }
    }
}

/// Integers are compared exactly; with a fraction on either side, as floating point.
fn compare(a: &Number, b: &Number) -> Option<Ordering> {
    let integer = |n: &Number| n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from));
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

/// How many more comparisons and values there may be.
struct Terms {
    left: usize,
}

impl Terms {
    fn take(&mut self, limits: &FilterLimits) -> Result<(), Fault> {
        let complaint = || {
            let terms_max = limits.terms_max;
            Fault::new(Refusal::TooMany, format!("a filter has more than {terms_max} comparisons and values"))
        };
        self.left = self.left.checked_sub(1).ok_or_else(complaint)?;
        Ok(())
    }
}

fn parse_field(path: &str, value: &Value, terms: &mut Terms, limits: &FilterLimits) -> Result<Node, Fault> {
    let path = Path::parse(path, limits)?;
    let mut literal = |value| {
        terms.take(limits)?;
        Literal::of(value)
    };
    let literals = match value {
        Value::Array(items) => items.iter().map(literal).collect::<Result<_, _>>()?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
            vec![literal(value)?]
        }
    };
    Ok(Node::In(path, literals))
}

fn parse_expression(text: &str, limits: &FilterLimits) -> Result<Node, Fault> {
    bound::text("a filter", text, limits.bytes_max)?;
    let mut parser = Parser { text, at: 0, depth: 0, terms: Terms { left: limits.terms_max }, limits };
    let node = parser.any()?;
    parser.skip_space();
    if parser.at < text.len() {
        return Err(parser.fault("`&&`, `||` or the end"));
    }
    Ok(node)
}

/// Descends into the grammar: a method for each of its rules.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    terms: Terms,
    limits: &'a FilterLimits,
}

impl<'a> Parser<'a> {
    fn any(&mut self) -> Result<Node, Fault> {
        let mut nodes = vec![self.all()?];
        while self.accepts("||") {
            nodes.push(self.all()?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::Any(nodes) })
    }

    fn all(&mut self) -> Result<Node, Fault> {
        let mut nodes = vec![self.one()?];
        while self.accepts("&&") {
            nodes.push(self.one()?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::All(nodes) })
    }

    fn one(&mut self) -> Result<Node, Fault> {
        let is_negated = self.accepts("!");
        if !is_negated && !self.accepts("(") {
            return self.comparison();
        }
        self.depth += 1;
        if self.depth > self.limits.depth_max {
            let depth_max = self.limits.depth_max;
            let complaint = format!("a filter is nested deeper than {depth_max} levels");
            return Err(Fault::new(Refusal::TooMany, complaint));
        }
        let node = if is_negated {
            Node::Not(Box::new(self.one()?))
        } else {
            let node = self.any()?;
            self.expect(")")?;
            node
        };
        self.depth -= 1;
        Ok(node)
    }

    fn comparison(&mut self) -> Result<Node, Fault> {
        self.terms.take(self.limits)?;
        let path = self.path()?;
        // The longer ones first: `<` begins `<=`.
        if self.accepts("==") {
            return Ok(Node::In(path, vec![self.literal()?]));
        }
        if self.accepts("!=") {
            return Ok(Node::Differs(path, self.literal()?));
        }
        let orders = [
            ("<=", Order::LessOrEqual),
            (">=", Order::GreaterOrEqual),
            ("<", Order::Less),
            (">", Order::Greater),
        ];
        for (sign, order) in orders {
            if self.accepts(sign) {
                return Ok(Node::Ordered(path, order, self.literal()?));
            }
        }
        if self.word() == "in" {
            self.at += "in".len();
            return Ok(Node::In(path, self.list()?));
        }
        Ok(Node::Holds(path))
    }

    fn path(&mut self) -> Result<Path, Fault> {
        self.skip_space();
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !is_of_word(c) && c != '.').unwrap_or(rest.len());
        let path = &rest[..end];
        if path.is_empty() || matches!(path, "in" | "true" | "false" | "null") {
            return Err(self.fault("a path"));
        }
        self.at += end;
        Path::parse(path, self.limits)
    }

    fn list(&mut self) -> Result<Vec<Literal>, Fault> {
        self.expect("[")?;
        let mut literals = Vec::new();
        if self.accepts("]") {
            return Ok(literals);
        }
        loop {
            self.terms.take(self.limits)?;
            literals.push(self.literal()?);
            if self.accepts("]") {
                return Ok(literals);
            }
            self.expect(",")?;
        }
    }

    fn literal(&mut self) -> Result<Literal, Fault> {
        self.skip_space();
        let rest = &self.text[self.at..];
        if let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            return self.quoted(quote);
        }
        let end = rest.find(|c: char| !is_of_word(c) && !matches!(c, '.' | '+')).unwrap_or(rest.len());
        let literal = match &rest[..end] {
            "true" => Literal::Bool(true),
            "false" => Literal::Bool(false),
            "null" => Literal::Null,
            number => match serde_json::from_str(number) {
                Ok(number) => Literal::Number(number),
                Err(_) => return Err(self.fault("a text in quotes, a number, true, false or null")),
            },
        };
        self.at += end;
        Ok(literal)
    }

    fn quoted(&mut self, quote: char) -> Result<Literal, Fault> {
        let inside = &self.text[self.at + 1..];
        let mut is_escaped = false;
        let end = inside.find(|c: char| {
            let is_end = c == quote && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            is_end
        });
        let Some(end) = end else { return Err(self.fault("a text whose quotes are closed")) };
        let text =
            if quote == '\'' { as_double_quoted(&inside[..end]) } else { format!("\"{}\"", &inside[..end]) };
        let Ok(text) = serde_json::from_str(&text) else {
            return Err(self.fault("a text as in JSON"));
        };
        self.at += end + 2;
        Ok(Literal::Text(text))
    }

    fn expect(&mut self, sign: &str) -> Result<(), Fault> {
        if self.accepts(sign) { Ok(()) } else { Err(self.fault(&format!("`{sign}`"))) }
    }

    fn accepts(&mut self, sign: &str) -> bool {
        self.skip_space();
        let is_next = self.text[self.at..].starts_with(sign);
        if is_next {
            self.at += sign.len();
        }
        is_next
    }

    fn word(&mut self) -> &'a str {
        self.skip_space();
        let rest = &self.text[self.at..];
        &rest[..rest.find(|c: char| !is_of_word(c)).unwrap_or(rest.len())]
    }

    fn skip_space(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
    }

    fn fault(&self, wanted: &str) -> Fault {
        let complaint = format!("the filter has no {wanted} at byte {}", self.at);
        Fault::new(Refusal::BadPayload, complaint)
    }
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-')
}

/// What stands between single quotes, as JSON writes it: `\'` loses its backslash, `"` gets one.
fn as_double_quoted(inside: &str) -> String {
    let mut text = String::from('"');
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => match chars.next() {
                Some('\'') => text.push('\''),
                Some(escaped) => text.extend(['\\', escaped]),
                None => text.push('\\'),
            },
            other => text.push(other),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{
        Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
    };
    use serde_json::json;

    use super::*;

    #[test]
    fn expressions_say_what_passes() {
        let data = json!({
            "progress": 50, "status": "running", "level": "ERROR", "meta": {"region": "eu", "tags": ["a", "b"]},
            "ok": true, "off": false, "none": null, "f": 0.5, "big": 9_007_199_254_740_993u64, "zero": 0,
        });
        for yes in [
            "progress >= 50 && status != \"queued\" || level in [\"x\"]",
            "progress >= 51 && status != 'queued' || level in ['ERROR', 'CRITICAL']",
            "meta.region == 'eu'",
            "meta.tags.1=='b'",
            "!(progress < 50)&&!off",
            "ok && zero && meta.tags",
            "missing == null && none == null && !missing",
            "missing != 'x'",
            "progress == 50.0 && f == 5e-1 && progress != '50'",
            "big > 9007199254740992",
            "status < 's' && status >= \"running\"",
            "level in [1, null, \"ERROR\"]",
            "!!ok",
            "status == \"r\\u0075nning\"",
            "progress > -1",
        ] {
            assert!(filter(yes).unwrap().lets_pass(&data), "{yes}");
        }
        for no in [
            "progress > 50",
            "status > 5",
            "ok < true",
            "none < 1",
            "level in []",
            "ok && off || none",
            "meta.region.x",
            "meta.tags.2",
            "missing > 0",
            "big == 9007199254740992",
        ] {
            assert!(!filter(no).unwrap().lets_pass(&data), "{no}");
        }
        assert!(!filter("a.b").unwrap().lets_pass(&json!("text")), "data need not be an object");
    }

    #[test]
    fn and_binds_closer_than_or() {
        let filter = filter("a || b && c").unwrap();
        assert!(filter.lets_pass(&json!({"a": true})));
        assert!(!filter.lets_pass(&json!({"b": true})));
    }

    #[test]
    fn quotes_may_be_escaped() {
        let data = json!({"a": "it's \"so\" \\ \n"});
        for yes in [r#"a == 'it\'s "so" \\ \n'"#, r#"a == "it's \"so\" \\ \n""#] {
            assert!(filter(yes).unwrap().lets_pass(&data), "{yes}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_place() {
        for (bad, at) in [
            ("", 0),
            ("a ==", 4),
            ("a = 1", 2),
            ("a == b", 5),
            ("a == 01", 5),
            ("(a", 2),
            ("a)", 1),
            ("a &&", 4),
            ("a b", 2),
            ("1 == 'x", 5),
            ("a == '\\x'", 5),
            ("a in [1", 7),
            ("a in 1", 5),
            ("true", 0),
            ("a == 'é' ü", 10),
        ] {
            let fault = filter(bad).unwrap_err();
            assert_eq!(fault.refusal, Refusal::BadPayload, "{bad}");
            assert!(fault.message.ends_with(&format!("at byte {at}")), "{bad}: {fault}");
        }
        assert!(filter("a..b").is_err());
        assert!(filter(".a").is_err());
    }

    #[test]
    fn objects_want_equal_fields() {
        let wanted = json!({"status": "error", "meta.region": ["eu", "us"], "gone": null});
        let filter = Filter::parse(&wanted, &FilterLimits::default()).unwrap();
        assert!(filter.lets_pass(&json!({"status": "error", "meta": {"region": "us"}, "more": 1})));
        for no in [
            json!({"status": "ok", "meta": {"region": "us"}}),
            json!({"status": "error", "meta": {"region": "asia"}}),
            json!({"status": "error", "meta": {"region": "eu"}, "gone": 1}),
            json!(null),
        ] {
            assert!(!filter.lets_pass(&no), "{no}");
        }
        for bad in [
            json!([]),
            json!(1),
            json!({"a": {"b": 1}}),
            json!({"a": [[1]]}),
            json!({"": 1}),
            json!({"a.": 1}),
        ] {
            assert!(Filter::parse(&bad, &FilterLimits::default()).is_err(), "{bad}");
        }
        let all = Filter::parse(&json!({}), &FilterLimits::default()).unwrap();
        assert!(all.lets_pass(&Value::Null));
    }

    #[test]
    fn what_is_beyond_the_limits_is_refused() {
        let limits = FilterLimits { bytes_max: 30, depth_max: 3, terms_max: 3, steps_max: 3 };
        for (given, is_taken) in [
            (json!("((!a))"), true),
            (json!("((!(a)))"), false),
            (json!("!!!!a"), false),
            (json!("(a)&&(a)&&((a))"), true),
            (json!("a || a || a || a"), false),
            (json!("a in [1, 2]"), true),
            (json!("a in [1, 2, 3]"), false),
            (json!("a.b.c"), true),
            (json!("a.b.c.d"), false),
            (json!("a".repeat(30)), true),
            (json!("a".repeat(31)), false),
            (json!({"a": [1, 2, 3]}), true),
            (json!({"a": [1, 2, 3, 4]}), false),
            (json!({"a": "x".repeat(23)}), false),
        ] {
            let outcome = Filter::parse(&given, &limits);
            let is_bound = outcome.as_ref().err().is_none_or(|fault| fault.refusal == Refusal::TooMany);
            assert!(outcome.is_ok() == is_taken && is_bound, "{given} {outcome:?}");
        }
        let deep = format!("{}a", "(".repeat(1_999));
        assert_eq!(filter(&deep).unwrap_err().refusal, Refusal::TooMany);
    }

    /// Comparisons and what they mean for `{"n": n}`, put together at random.
    #[derive(Clone, Debug)]
    enum Meant {
        Compared(&'static str, i64),
        Not(Box<Meant>),
        Both(Box<Meant>, Box<Meant>),
        Either(Box<Meant>, Box<Meant>),
    }

    impl Meant {
        fn text(&self) -> String {
            match self {
                Meant::Compared(sign, number) => format!("n{sign}{number}"),
                Meant::Not(a) => format!("! ({})", a.text()),
                Meant::Both(a, b) => format!("({}) &&({} )", a.text(), b.text()),
                Meant::Either(a, b) => format!("( {})||({})", a.text(), b.text()),
            }
        }

        fn holds(&self, n: i64) -> bool {
            match self {
                Meant::Compared("==", number) => n == *number,
                Meant::Compared("!=", number) => n != *number,
                Meant::Compared("<", number) => n < *number,
                Meant::Compared("<=", number) => n <= *number,
                Meant::Compared(">", number) => n > *number,
                Meant::Compared(_, number) => n >= *number,
                Meant::Not(a) => !a.holds(n),
                Meant::Both(a, b) => a.holds(n) && b.holds(n),
                Meant::Either(a, b) => a.holds(n) || b.holds(n),
            }
        }
    }

    fn meant() -> impl Strategy<Value = Meant> {
        let signs = prop_oneof![Just("=="), Just("!="), Just("<"), Just("<="), Just(">"), Just(">=")];
        let leaf = (signs, -3i64..4).prop_map(|(sign, number)| Meant::Compared(sign, number));
        leaf.prop_recursive(4, 24, 2, |inner| {
            let two = (inner.clone(), inner.clone());
            prop_oneof![
                inner.prop_map(|a| Meant::Not(a.into())),
                two.clone().prop_map(|(a, b)| Meant::Both(a.into(), b.into())),
                two.prop_map(|(a, b)| Meant::Either(a.into(), b.into())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn expressions_mean_what_they_say(meant in meant(), n in -4i64..5) {
            let filter = filter(&meant.text()).unwrap();
            prop_assert_eq!(filter.lets_pass(&json!({"n": n})), meant.holds(n));
        }

        #[test]
        fn no_text_makes_it_panic_and_none_is_taken_by_halves(
            text in prop_oneof![any::<String>(), "[a-c01.\\\\\"' ()\\[\\],!=<>&|é-]{0,40}", "(a|in|[(!\\])&|=<1'\"\\[, .]){0,20}"],
        ) {
            if let Ok(taken) = filter(&text) {
                let deeper = FilterLimits { depth_max: 18, ..FilterLimits::default() };
                let opposite = Filter::parse(&json!(format!("!({text})")), &deeper).unwrap();
                let data = json!({"a": 1, "b": {"c": "x"}});
                prop_assert!(taken.lets_pass(&data) != opposite.lets_pass(&data));
            }
        }
    }

    fn filter(text: &str) -> Result<Filter, Fault> {
        Filter::parse(&json!(text), &FilterLimits::default())
    }
}
