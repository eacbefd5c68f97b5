//! Owns the reading of answers: bytes in whatever pieces, and what the tool says by them. Does not know connections or
//! time. Invariant: no more than the answer's bound is held, and no bytes make it panic.

use serde_json::Value;
use serde_json::value::RawValue;

use crate::lines::{Characters, Ends, LineFault, Lines};
use crate::sse::{Sse, SseEvent};
use crate::step::{Again, Code, Failure, Message, Progress, Trouble, Usage};

/// Characters of a tool's own error text that are passed on.
const ERROR_CHARS_MAX: usize = 300;

/// What a tool says.
#[derive(Debug)]
pub(crate) enum Said {
    Delta(String),
    Progress(Progress),
    Message(Message),
    Usage(Usage),
    /// Why it stopped. What it has cost may still follow.
    Stopped(String),
    /// Nothing more is to come.
    End,
}

/// Whose words an answer is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Ours: objects with `delta`, `message`, `progress`, `error`, `usage` and `done`.
    Plain,
    /// OpenAI's chat completions.
    Chat,
}

/// Reads one answer: any `handle_bytes`, until one says [`Said::End`], else `handle_end`. What was said before a
/// fault counts.
#[derive(Debug)]
pub(crate) struct Answer {
    style: Style,
    bytes_max: usize,
    form: Form,
    /// Whether there was text, or word that there is none.
    has_content: bool,
}

#[derive(Debug)]
enum Form {
    /// One JSON value.
    Json(Vec<u8>),
    /// Text whose length was told: it comes at once.
    Text(Vec<u8>),
    /// Text that comes as it is made.
    TextStream(Characters),
    /// A JSON value on each line.
    Lines(Lines),
    /// A JSON value in each event.
    Events(Sse),
}

impl Answer {
    /// Begins an answer of this content type. `is_length_known`: the header told how long it is.
    pub(crate) fn new(
        style: Style,
        content_type: Option<&str>,
        is_length_known: bool,
        bytes_max: usize,
    ) -> Result<Self, Trouble> {
        let unsaid = match style {
            Style::Plain => "text/plain",
            Style::Chat => "text/event-stream",
        };
        let essence = content_type.unwrap_or(unsaid).split(';').next().unwrap_or_default();
        let essence = essence.trim().to_ascii_lowercase();
        let form = match &*essence {
            "text/event-stream" => Form::Events(Sse::new(bytes_max)),
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonlines" => Form::Lines(Lines::new(Ends::Newline, bytes_max)),
            json if json == "application/json" || json.ends_with("+json") => Form::Json(Vec::new()),
            text if text.starts_with("text/") && style == Style::Plain => {
                if is_length_known {
                    Form::Text(Vec::new())
                } else {
                    Form::TextStream(Characters::default())
                }
            }
            other => {
                let other: String = other.chars().take(60).collect();
                return Err(Trouble::nonsense("the tool answers in a form that is not understood")
                    .with_detail(format!("content type {other:?}")));
            }
        };
        Ok(Self { style, bytes_max, form, has_content: false })
    }

    /// Takes bytes.
    pub(crate) fn handle_bytes(&mut self, bytes: &[u8], said: &mut Vec<Said>) -> Result<(), Trouble> {
        let too_large = || Trouble::too_large(self.bytes_max);
        match &mut self.form {
            Form::Json(held) | Form::Text(held) => {
                if held.len() + bytes.len() > self.bytes_max {
                    return Err(too_large());
                }
                held.extend_from_slice(bytes);
                Ok(())
            }
            Form::TextStream(characters) => {
                let text = characters.handle_bytes(bytes).map_err(unreadable)?;
                said.push(Said::Delta(text));
                Ok(())
            }
            Form::Lines(lines) => {
                let mut whole = Vec::new();
                let cut = lines.handle_bytes(bytes, &mut whole);
                self.handle_lines(&whole, said)?;
                cut.map_err(unreadable)
            }
            Form::Events(sse) => {
                let mut events = Vec::new();
                let cut = sse.handle_bytes(bytes, &mut events);
                self.handle_events(&events, said)?;
                cut.map_err(unreadable)
            }
        }
    }

    /// Takes the end of the body. Says [`Said::End`] unless it is a fault.
    pub(crate) fn handle_end(&mut self, said: &mut Vec<Said>) -> Result<(), Trouble> {
        match &mut self.form {
            Form::Json(held) => {
                let held = std::mem::take(held);
                self.handle_whole(&held, said)?;
            }
            Form::Text(held) => {
                let text =
                    String::from_utf8(std::mem::take(held)).map_err(|_| unreadable(LineFault::NotUtf8))?;
                said.push(Said::Message(Message { text, data: None }));
            }
            Form::TextStream(characters) => characters.handle_end().map_err(unreadable)?,
            Form::Lines(lines) => {
                let mut whole = Vec::new();
                lines.handle_end(&mut whole).map_err(unreadable)?;
                self.handle_lines(&whole, said)?;
                self.expect_content()?;
            }
            Form::Events(sse) => {
                let mut events = Vec::new();
                sse.handle_end(&mut events).map_err(unreadable)?;
                self.handle_events(&events, said)?;
                self.expect_content()?;
            }
        }
        said.push(Said::End);
        Ok(())
    }

    /// A stream that ends must have said something; a model's must have said why it stopped.
    fn expect_content(&self) -> Result<(), Trouble> {
        if self.has_content {
            return Ok(());
        }
        let failure = Failure::passing(Code::ToolFailed, "the tool's answer ended early");
        Err(Trouble::new(failure, Again::IfHarmless)
            .with_detail("the body ended before the stream had said its end"))
    }

    fn handle_lines(&mut self, lines: &[String], said: &mut Vec<Said>) -> Result<(), Trouble> {
        for line in lines.iter().filter(|line| !line.trim().is_empty()) {
            let value = serde_json::from_str(line).map_err(|fault| {
                Trouble::nonsense("the tool answered a line that is not JSON").with_detail(fault.to_string())
            })?;
            self.handle_value(&value, said)?;
        }
        Ok(())
    }

    fn handle_events(&mut self, events: &[SseEvent], said: &mut Vec<Said>) -> Result<(), Trouble> {
        for event in events {
            let value = match event.data.trim() {
                "[DONE]" => {
                    self.has_content = true;
                    said.push(Said::End);
                    continue;
                }
                "" if self.style == Style::Chat => continue,
                data => match serde_json::from_str(data) {
                    Ok(value @ (Value::Object(_) | Value::String(_))) => value,
                    Err(fault) if self.style == Style::Chat => {
                        return Err(Trouble::nonsense("the model's endpoint sent a chunk that is not JSON")
                            .with_detail(fault.to_string()));
                    }
                    // Text as it is: a number that a model writes is text, too.
                    Ok(_) | Err(_) => Value::String(event.data.clone()),
                },
            };
            if event.name == "error" && value.get("error").is_none() {
                return Err(self.told_error(&value));
            }
            self.handle_value(&value, said)?;
        }
        Ok(())
    }

    fn handle_value(&mut self, value: &Value, said: &mut Vec<Said>) -> Result<(), Trouble> {
        match self.style {
            Style::Plain => self.handle_plain(value, said),
            Style::Chat => self.handle_chunk(value, said),
        }
    }

    fn handle_plain(&mut self, value: &Value, said: &mut Vec<Said>) -> Result<(), Trouble> {
        if let Value::String(text) = value {
            self.has_content = true;
            said.push(Said::Delta(text.clone()));
            return Ok(());
        }
        if let Some(error) = value.get("error").filter(|error| !error.is_null()) {
            return Err(self.told_error(error));
        }
        let message = value.get("message").and_then(Value::as_str);
        if let Some(percent) = value.get("progress").and_then(Value::as_f64) {
            let message = message.map(str::to_owned);
            // The cast keeps within bounds; a fraction is no matter to a bar.
            let percent = percent.clamp(0.0, 100.0).round() as u8;
            said.push(Said::Progress(Progress { percent, message }));
        } else if let Some(text) = message {
            self.has_content = true;
            said.push(Said::Message(Message { text: text.to_owned(), data: None }));
        }
        if let Some(delta) = value.get("delta").and_then(Value::as_str) {
            self.has_content = true;
            said.push(Said::Delta(delta.to_owned()));
        }
        said.extend(usage(value).map(Said::Usage));
        if value.get("done").and_then(Value::as_bool) == Some(true) {
            self.has_content = true;
            said.push(Said::End);
        }
        Ok(())
    }

    /// One chunk of a streamed chat completion. What is not the first choice's text is read over: calls of functions,
    /// reasoning, and whatever else endpoints add.
    fn handle_chunk(&mut self, value: &Value, said: &mut Vec<Said>) -> Result<(), Trouble> {
        if let Some(error) = value.get("error").filter(|error| !error.is_null()) {
            return Err(self.told_error(error));
        }
        let choices = value.get("choices").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let is_first = |choice: &&Value| choice.get("index").and_then(Value::as_u64).unwrap_or(0) == 0;
        for choice in choices.iter().filter(is_first) {
            for key in ["content", "refusal"] {
                let text = choice.get("delta").and_then(|delta| delta.get(key)).and_then(Value::as_str);
                said.extend(text.filter(|text| !text.is_empty()).map(|text| Said::Delta(text.to_owned())));
            }
            if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
                self.has_content = true;
                said.push(Said::Stopped(reason.to_owned()));
            }
        }
        said.extend(usage(value).map(Said::Usage));
        Ok(())
    }

    /// An answer in one JSON value.
    fn handle_whole(&self, bytes: &[u8], said: &mut Vec<Said>) -> Result<(), Trouble> {
        let not_json = |fault: serde_json::Error| {
            Trouble::nonsense("the tool's answer is not JSON").with_detail(fault.to_string())
        };
        let data: Box<RawValue> = serde_json::from_slice(bytes).map_err(not_json)?;
        let value: Value = serde_json::from_str(data.get()).map_err(not_json)?;
        if let Some(error) = value.get("error").filter(|error| !error.is_null()) {
            return Err(self.told_error(error));
        }
        match self.style {
            Style::Plain => {
                let text = match &value {
                    Value::String(text) => text.clone(),
                    other => match other.get("message").and_then(Value::as_str) {
                        Some(text) => text.to_owned(),
                        None => data.get().to_owned(),
                    },
                };
                said.push(Said::Message(Message { text, data: Some(data) }));
            }
            // The endpoint does not stream although it was asked to.
            Style::Chat => {
                let choice = value.get("choices").and_then(|choices| choices.get(0));
                let message = choice.and_then(|choice| choice.get("message"));
                let Some(message) = message.filter(|message| message.is_object()) else {
                    return Err(Trouble::nonsense("the model's endpoint answered without a message"));
                };
                let text = |key| message.get(key).and_then(Value::as_str);
                let text = text("content").or_else(|| text("refusal")).unwrap_or_default().to_owned();
                said.push(Said::Message(Message { text, data: None }));
                let reason = choice.and_then(|choice| choice.get("finish_reason")).and_then(Value::as_str);
                said.extend(reason.map(|reason| Said::Stopped(reason.to_owned())));
            }
        }
        said.extend(usage(&value).map(Said::Usage));
        Ok(())
    }

    fn told_error(&self, error: &Value) -> Trouble {
        match self.style {
            Style::Plain => {
                let text = error_text(error).unwrap_or_else(|| "the tool reported an error".to_owned());
                let may_retry = error.get("may_retry").and_then(Value::as_bool).unwrap_or(false);
                let failure = Failure { may_retry, ..Failure::lasting(Code::ToolFailed, text) };
                // What the tool calls passing is for the asker to decide: it has begun, and may have done half.
                Trouble::new(failure, Again::Never)
            }
            Style::Chat => chat_error(error),
        }
    }
}

/// The trouble that a status other than 2xx tells of. `body` is the beginning of what came with it.
pub(crate) fn refused(
    style: Style,
    status: http::StatusCode,
    retry_after: Option<std::time::Duration>,
    body: &[u8],
) -> Trouble {
    let is_passing = match (style, status.as_u16()) {
        (_, 408 | 425 | 429 | 502 | 503 | 504) | (Style::Chat, 500 | 529) => true,
        (Style::Plain | Style::Chat, _) => false,
    };
    let code = match status.as_u16() {
        429 | 503 | 529 => Code::ToolBusy,
        408 | 504 => Code::ToolTimeout,
        _ => Code::ToolFailed,
    };
    let mut message = format!("the tool answered {}", status.as_u16());
    if status.is_redirection() {
        message.push_str("; redirects are not followed");
    }
    let told: Option<Value> = serde_json::from_slice(body).ok();
    // What the operator's own backend says is meant for the asker; an endpoint's may speak of keys and accounts.
    let own = told.as_ref().filter(|_| style == Style::Plain && status.is_client_error());
    let own = own.and_then(|told| told.get("error").and_then(error_text).or_else(|| error_text(told)));
    if let Some(own) = own {
        message.push_str(": ");
        message.push_str(&own);
    }
    let failure =
        Failure { code, message, may_retry: is_passing, retry_after: retry_after.filter(|_| is_passing) };
    let again = if is_passing { Again::Always } else { Again::Never };
    let detail: String = String::from_utf8_lossy(body).chars().take(ERROR_CHARS_MAX).collect();
    Trouble::new(failure, again).with_detail(detail)
}

/// The words of an error: itself, its `message` or its `detail`.
fn error_text(error: &Value) -> Option<String> {
    let text = [Some(error), error.get("message"), error.get("detail")];
    let text = text.into_iter().flatten().find_map(Value::as_str)?;
    Some(text.chars().filter(|c| !c.is_control()).take(ERROR_CHARS_MAX).collect())
}

/// An error object of an OpenAI-compatible endpoint. Its words are for the log: they name accounts and parts of keys.
fn chat_error(error: &Value) -> Trouble {
    let names = [error.get("code"), error.get("type")];
    let names: Vec<String> = names
        .into_iter()
        .flatten()
        .filter_map(|name| {
            name.as_str().map(str::to_owned).or_else(|| name.as_u64().map(|code| code.to_string()))
        })
        .filter(|name| !name.is_empty() && name.len() <= 60)
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)))
        .collect();
    let is = |known: &[&str]| names.iter().any(|name| known.contains(&name.as_str()));
    let is_busy = is(&["rate_limit_exceeded", "overloaded_error", "429", "503", "529"]);
    let is_passing = is_busy || is(&["server_error", "internal_server_error", "500", "502", "504"]);
    let mut message = "the model's endpoint reported an error".to_owned();
    if let Some(name) = names.first() {
        message.push_str(": ");
        message.push_str(name);
    }
    let code = if is_busy { Code::ToolBusy } else { Code::ToolFailed };
    let failure = Failure { code, message, may_retry: is_passing, retry_after: None };
    let again = if is_passing { Again::Always } else { Again::Never };
    Trouble::new(failure, again).with_detail(error_text(error).unwrap_or_default())
}

fn unreadable(fault: LineFault) -> Trouble {
    match fault {
        LineFault::TooLong(bytes_max) => Trouble::too_large(bytes_max),
        LineFault::NotUtf8 => Trouble::nonsense("the tool's answer is not UTF-8"),
    }
}

/// The costs in an object's `usage`, by OpenAI's names or ours.
fn usage(value: &Value) -> Option<Usage> {
    let usage = value.get("usage").filter(|usage| usage.is_object())?;
    let count = |names: [&str; 2]| names.iter().find_map(|name| usage.get(name)).and_then(Value::as_u64);
    let input_tokens = count(["input_tokens", "prompt_tokens"]).unwrap_or(0);
    let output_tokens = count(["output_tokens", "completion_tokens"]).unwrap_or(0);
    let total_tokens = count(["total_tokens", "total"]).unwrap_or(input_tokens.saturating_add(output_tokens));
    Some(Usage { input_tokens, output_tokens, total_tokens })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    /// What an answer says, a line each; deltas that follow each other are joined, since their cuts are the network's.
    fn read(style: Style, content_type: &str, chunks: &[&[u8]]) -> String {
        let mut said = Vec::new();
        let run = |said: &mut Vec<Said>| {
            let mut answer = Answer::new(style, Some(content_type), false, 300)?;
            for chunk in chunks {
                answer.handle_bytes(chunk, said)?;
                if said.iter().any(|said| matches!(said, Said::End)) {
                    return Ok(());
                }
            }
            answer.handle_end(said)
        };
        let outcome: Result<(), Trouble> = run(&mut said);
        let mut text = String::new();
        let mut delta = String::new();
        for said in said {
            if let Said::Delta(more) = &said {
                delta.push_str(more);
                continue;
            }
            tell_delta(&mut text, &mut delta);
            let is_end = matches!(said, Said::End);
            let line = match said {
                Said::Delta(_) => unreachable!("handled above"),
                Said::Progress(progress) => format!("progress {} {:?}", progress.percent, progress.message),
                Said::Message(message) => {
                    format!("message {:?} {:?}", message.text, message.data.map(|d| d.to_string()))
                }
                Said::Usage(usage) => {
                    format!("usage {}+{}={}", usage.input_tokens, usage.output_tokens, usage.total_tokens)
                }
                Said::Stopped(reason) => format!("stopped {reason}"),
                Said::End => "end".to_owned(),
            };
            writeln!(text, "{line}").unwrap();
            if is_end {
                return text;
            }
        }
        tell_delta(&mut text, &mut delta);
        if let Err(trouble) = outcome {
            let Trouble { failure, again, .. } = trouble;
            writeln!(text, "{failure} (again: {again:?}, may retry: {})", failure.may_retry).unwrap();
        }
        text
    }

    fn tell_delta(text: &mut String, delta: &mut String) {
        if !delta.is_empty() {
            writeln!(text, "delta {:?}", std::mem::take(delta)).unwrap();
        }
    }

    /// Reads it whole, and cut at every place, and compares.
    fn check(style: Style, content_type: &str, body: &str, expected: &str) {
        let body = body.as_bytes();
        assert_eq!(read(style, content_type, &[body]), expected);
        for at in 0..=body.len() {
            assert_eq!(read(style, content_type, &[&body[..at], &body[at..]]), expected, "cut at {at}");
        }
        let single: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(read(style, content_type, &single), expected);
    }

    #[test]
    fn lines_of_json_are_read_as_they_are_written() {
        check(
            Style::Plain,
            "application/x-ndjson; charset=utf-8",
            "{\"progress\":12.6,\"message\":\"thinking\"}\n\n{\"delta\":\"Grü\"}\r\n{\"delta\":\"ße 🎺\"}\n\"!\"\n{\"other\":1}\n\
             {\"done\":true,\"usage\":{\"input_tokens\":3,\"output_tokens\":4}}\nnot read",
            "progress 13 Some(\"thinking\")\ndelta \"Grüße 🎺!\"\nusage 3+4=7\nend\n",
        );
        check(
            Style::Plain,
            "application/jsonl",
            "{\"delta\":\"a\"}\n{\"message\":\"A.\"}",
            "delta \"a\"\nmessage \"A.\" None\nend\n",
        );
    }

    #[test]
    fn a_stream_that_says_nothing_or_nonsense_fails() {
        let early = "tool_failed: the tool's answer ended early (again: IfHarmless, may retry: true)\n";
        check(Style::Plain, "application/x-ndjson", "", early);
        check(
            Style::Plain,
            "application/x-ndjson",
            "{\"progress\":-5}\n",
            &format!("progress 0 None\n{early}"),
        );
        check(
            Style::Plain,
            "application/x-ndjson",
            "{\"delta\":\"a\"}\n{\"delta",
            "delta \"a\"\ntool_failed: the tool answered a line that is not JSON (again: Never, may retry: false)\n",
        );
        check(
            Style::Plain,
            "application/x-ndjson",
            "{\"delta\":\"a\"}\n{\"error\":{\"message\":\"no\\nway\",\"may_retry\":true}}\n",
            "delta \"a\"\ntool_failed: noway (again: Never, may retry: true)\n",
        );
    }

    #[test]
    fn event_streams_carry_objects_or_text() {
        check(
            Style::Plain,
            "text/event-stream",
            ": hi\n\ndata: {\"delta\":\"a \"}\n\ndata: b \n\ndata: 42\n\ndata: \"\\n\"\n\ndata: [DONE]\n\ndata: c\n\n",
            "delta \"a b 42\\n\"\nend\n",
        );
        check(
            Style::Plain,
            "text/event-stream",
            "data: a\n\nevent: error\ndata: out of luck\n\n",
            "delta \"a\"\ntool_failed: out of luck (again: Never, may retry: false)\n",
        );
    }

    #[test]
    fn chat_completions_are_read_to_their_end() {
        let stream = "\
            : PROCESSING\n\n\
            data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n\
            data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hé\"}},{\"index\":1,\"delta\":{\"content\":\"no\"}}]}\n\n\
            data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":null,\"reasoning\":\"hm\"},\"finish_reason\":\"stop\"}]}\n\n\
            data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2,\"total_tokens\":11}}\n\n";
        let expected = "delta \"Hé\"\nstopped stop\nusage 9+2=11\nend\n";
        check(Style::Chat, "text/event-stream", &format!("{stream}data: [DONE]\n\n"), expected);
        check(Style::Chat, "text/event-stream", &format!("{stream}data: [DONE]"), expected);
        check(Style::Chat, "text/event-stream", stream, expected);
        check(
            Style::Chat,
            "text/event-stream",
            "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n",
            "delta \"a\"\ntool_failed: the tool's answer ended early (again: IfHarmless, may retry: true)\n",
        );
    }

    #[test]
    fn errors_in_a_chat_are_told_without_their_words() {
        check(
            Style::Chat,
            "text/event-stream",
            "data: {\"error\":{\"message\":\"org-7 is over its limit\",\"type\":\"tokens\",\"code\":\"rate_limit_exceeded\"}}\n\n",
            "tool_busy: the model's endpoint reported an error: rate_limit_exceeded (again: Always, may retry: true)\n",
        );
        check(
            Style::Chat,
            "application/json",
            "{\"error\":{\"message\":\"bad key sk-12\",\"code\":\"has words\"}}",
            "tool_failed: the model's endpoint reported an error (again: Never, may retry: false)\n",
        );
        check(
            Style::Chat,
            "text/event-stream",
            "data: <html>\n\n",
            "tool_failed: the model's endpoint sent a chunk that is not JSON (again: Never, may retry: false)\n",
        );
    }

    #[test]
    fn whole_answers_are_messages() {
        let json = "application/problem+json";
        check(
            Style::Plain,
            json,
            "{\"message\":\"m\",\"n\": 1}",
            "message \"m\" Some(\"{\\\"message\\\":\\\"m\\\",\\\"n\\\": 1}\")\nend\n",
        );
        check(Style::Plain, json, "[1, 2]", "message \"[1, 2]\" Some(\"[1, 2]\")\nend\n");
        check(Style::Plain, json, "\"s\"", "message \"s\" Some(\"\\\"s\\\"\")\nend\n");
        check(
            Style::Plain,
            json,
            "{",
            "tool_failed: the tool's answer is not JSON (again: Never, may retry: false)\n",
        );
        check(
            Style::Chat,
            "application/json",
            "{\"choices\":[{\"message\":{\"content\":\"m\"},\"finish_reason\":\"length\"}],\"usage\":null}",
            "message \"m\" None\nstopped length\nend\n",
        );
        check(
            Style::Chat,
            "application/json",
            "{}",
            "tool_failed: the model's endpoint answered without a message (again: Never, may retry: false)\n",
        );
        check(Style::Plain, "text/plain", "grün", "delta \"grün\"\nend\n");
        let mut answer = Answer::new(Style::Plain, None, true, 10).unwrap();
        let mut said = Vec::new();
        answer.handle_bytes(b"whole", &mut said).unwrap();
        answer.handle_end(&mut said).unwrap();
        assert!(matches!(&said[..], [Said::Message(message), Said::End] if message.text == "whole"));
    }

    #[test]
    fn what_is_too_long_or_in_another_form_fails() {
        let long = format!("{{\"delta\":\"{}\"}}", "a".repeat(300));
        let expected = "tool_answer_too_large: the tool's answer exceeds answer_bytes_max of 300 (again: Never, may retry: false)\n";
        for content_type in ["application/json", "application/x-ndjson"] {
            check(Style::Plain, content_type, &long, expected);
        }
        let unknown = "tool_failed: the tool answers in a form that is not understood (again: Never, may retry: false)\n";
        assert_eq!(read(Style::Plain, "image/png", &[]), unknown);
        assert_eq!(read(Style::Chat, "text/html", &[]), unknown);
    }

    #[test]
    fn statuses_tell_whether_to_come_back() {
        let ask = |style, status: u16, body: &str| {
            let status = http::StatusCode::from_u16(status).unwrap();
            let trouble = refused(style, status, Some(std::time::Duration::from_secs(7)), body.as_bytes());
            let retry_after = trouble.failure.retry_after.map(|after| after.as_secs());
            (trouble.failure.to_string(), trouble.again, retry_after)
        };
        let told = r#"{"error":{"message":"no such sk-1"}}"#;
        for (style, status, body, text, again) in [
            (Style::Plain, 404, told, "tool_failed: the tool answered 404: no such sk-1", Again::Never),
            (
                Style::Plain,
                422,
                r#"{"detail":"too short"}"#,
                "tool_failed: the tool answered 422: too short",
                Again::Never,
            ),
            (Style::Plain, 500, told, "tool_failed: the tool answered 500", Again::Never),
            (Style::Chat, 401, told, "tool_failed: the tool answered 401", Again::Never),
            (Style::Chat, 500, "<html>", "tool_failed: the tool answered 500", Again::Always),
            (Style::Chat, 529, "", "tool_busy: the tool answered 529", Again::Always),
            (Style::Plain, 429, "", "tool_busy: the tool answered 429", Again::Always),
            (Style::Plain, 504, "", "tool_timeout: the tool answered 504", Again::Always),
            (
                Style::Plain,
                307,
                "",
                "tool_failed: the tool answered 307; redirects are not followed",
                Again::Never,
            ),
        ] {
            let retry_after = (again == Again::Always).then_some(7);
            assert_eq!(ask(style, status, body), (text.to_owned(), again, retry_after));
        }
    }

    /// What streams are made of, right and wrong.
    const PIECES: &[&[u8]] = &[
        b"data: ",
        b"\n\n",
        b"{\"delta\":\"a\"}",
        b"{\"choices\":[{\"delta\":{\"content\":\"b\"}}]}",
        b"{\"error\":",
        b"[DONE]",
        b"\xff",
        b"\xc3",
        b"\r",
    ];

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_say_the_same(
            bytes in prop::collection::vec(prop::sample::select(PIECES), 0..20),
            style in prop_oneof![Just(Style::Plain), Just(Style::Chat)],
            content_type in prop_oneof![Just("application/json"), Just("application/x-ndjson"), Just("text/event-stream")],
        ) {
            let body = bytes.concat();
            let single: Vec<&[u8]> = body.chunks(1).collect();
            prop_assert_eq!(read(style, content_type, &[&body]), read(style, content_type, &single));
        }
    }
}
