//! Finds the placeholders in JSON arguments: objects with a `_placeholder` that is true, and a `num` that names an attachment.

use crate::binary::placeholder_number;
use crate::json;

/// A placeholder whose `num` is missing or is no index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadPlaceholder;

/// What is known of an object that is still open.
#[derive(Clone, Copy, Default)]
struct Object {
    is_placeholder: bool,
    num: Option<usize>,
}

/// The numbers of all placeholders in `elements`, which is well-formed JSON with commas between the values, in the order in which
/// their objects close.
pub(crate) fn placeholders(elements: &[u8]) -> Result<Vec<usize>, BadPlaceholder> {
    let mut found = Vec::new();
    // None stands for an array.
    let mut open: Vec<Option<Object>> = Vec::new();
    let mut i = 0;
    while let Some(&byte) = elements.get(i) {
        match byte {
            b'{' => open.push(Some(Object::default())),
            b'[' => open.push(None),
            b'}' | b']' => {
                if let Some(Some(Object { is_placeholder: true, num })) = open.pop() {
                    found.push(num.ok_or(BadPlaceholder)?);
                }
            }
            b'"' => {
                let Ok(end) = json::skip_string(elements, i + 1) else { break };
                let key = &elements[i..end];
                i = json::skip_space(elements, end);
                // A string before a colon is a key, and the innermost container an object.
                if let (Some(Some(object)), Some(b':')) = (open.last_mut(), elements.get(i)) {
                    i = json::skip_space(elements, i + 1);
                    let value = scalar_at(elements, i);
                    if is_key(key, "_placeholder") {
                        object.is_placeholder = value == b"true";
                    } else if is_key(key, "num") {
                        object.num = number(value);
                    }
                }
                // What stands at `i` has not been looked at yet.
                continue;
            }
            _ => {}
        }
        i += 1;
    }
    Ok(found)
}

/// The text from `i` up to what can follow a number or a word.
fn scalar_at(b: &[u8], i: usize) -> &[u8] {
    let rest = b.get(i..).unwrap_or_default();
    let end = rest.iter().position(|b| matches!(b, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r'));
    &rest[..end.unwrap_or(rest.len())]
}

fn number(text: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(text).ok()?;
    // A string's quote does not parse as a number, so `"0"` is none.
    placeholder_number(text.parse().ok()?)
}

/// Whether a key with its quotes says `name`, written out or with escapes.
fn is_key(quoted: &[u8], name: &str) -> bool {
    let Some(inner) = quoted.get(1..quoted.len().saturating_sub(1)) else { return false };
    if inner == name.as_bytes() {
        return true;
    }
    inner.contains(&b'\\') && std::str::from_utf8(inner).is_ok_and(|text| json::unescape(text) == name)
}
