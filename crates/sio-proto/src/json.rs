//! A JSON checker that walks text once, builds nothing and never recurses.
//!
//! It knows RFC 8259's grammar and how deep it may go. It does not know packets, and does not look at what strings say beyond their
//! escapes being well formed: a lone surrogate passes here, as it does in JavaScript. Its input is valid UTF-8 already.

/// Why the walk ended early: the offset at which the text is not JSON, or [`Stop::TOO_DEEP`].
///
/// One word, so that results come back in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stop(pub(crate) usize);

impl Stop {
    /// No text is long enough for this to be an offset.
    pub(crate) const TOO_DEEP: Stop = Stop(usize::MAX);
}

/// Offset of the first byte at or after `i` that is not white space.
#[inline(always)]
pub(crate) fn skip_space(b: &[u8], mut i: usize) -> usize {
    while let Some(&byte) = b.get(i) {
        // One comparison decides for nearly every byte of compact JSON.
        if byte > b' ' || !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            break;
        }
        i += 1;
    }
    i
}

/// Walks over one value that starts at `i` or after white space; answers the offset after it.
///
/// `depth_max` is how many containers may be open at once within the value, at most 127.
#[inline]
pub(crate) fn skip_value(b: &[u8], mut i: usize, depth_max: u32) -> Result<usize, Stop> {
    debug_assert!(depth_max < 128, "the kinds of open containers are kept in 128 bits");
    // One bit per open container, the innermost lowest: 1 for an object, 0 for an array.
    let mut kinds: u128 = 0;
    let mut depth: u32 = 0;
    loop {
        // White space is one more kind of byte in each place, so that compact JSON pays nothing for it.
        match b.get(i) {
            Some(b'"') => i = skip_string(b, i + 1)?,
            Some(b'-' | b'0'..=b'9') => i = skip_number(b, i)?,
            Some(b'{') => {
                depth += 1;
                if depth > depth_max {
                    return Err(Stop::TOO_DEEP);
                }
                kinds = kinds << 1 | 1;
                i = skip_space(b, i + 1);
                if b.get(i) != Some(&b'}') {
                    i = skip_key(b, i)?;
                    continue;
                }
                // The closing brace is left for the loop below.
            }
            Some(b'[') => {
                depth += 1;
                if depth > depth_max {
                    return Err(Stop::TOO_DEEP);
                }
                kinds <<= 1;
                i = skip_space(b, i + 1);
                if b.get(i) != Some(&b']') {
                    continue;
                }
            }
            Some(b't') => i = skip_word(b, i, b"true")?,
            Some(b'f') => i = skip_word(b, i, b"false")?,
            Some(b'n') => i = skip_word(b, i, b"null")?,
            Some(b' ' | b'\t' | b'\n' | b'\r') => {
                i += 1;
                continue;
            }
            _ => return Err(Stop(i)),
        }
        // A value has ended at `i`, or an empty container stands before its closing byte.
        loop {
            if depth == 0 {
                return Ok(i);
            }
            let is_object = kinds & 1 == 1;
            match b.get(i) {
                Some(b',') => {
                    i += 1;
                    if is_object {
                        i = skip_key(b, i)?;
                    }
                    break;
                }
                Some(b'}') if is_object => i += 1,
                Some(b']') if !is_object => i += 1,
                Some(b' ' | b'\t' | b'\n' | b'\r') => {
                    i += 1;
                    continue;
                }
                _ => return Err(Stop(i)),
            }
            depth -= 1;
            kinds >>= 1;
        }
    }
}

/// Walks over `"key" :`, starting at the quote or at white space before it.
#[inline(always)]
fn skip_key(b: &[u8], mut i: usize) -> Result<usize, Stop> {
    if b.get(i) != Some(&b'"') {
        i = skip_space(b, i);
        if b.get(i) != Some(&b'"') {
            return Err(Stop(i));
        }
    }
    i = skip_string(b, i + 1)?;
    if b.get(i) != Some(&b':') {
        i = skip_space(b, i);
        if b.get(i) != Some(&b':') {
            return Err(Stop(i));
        }
    }
    Ok(i + 1)
}

/// Walks over a string whose opening quote is just before `i`; answers the offset after its closing quote.
#[inline(always)]
pub(crate) fn skip_string(b: &[u8], i: usize) -> Result<usize, Stop> {
    let end = plain_run_end(b, i);
    if b.get(end) == Some(&b'"') { Ok(end + 1) } else { skip_string_from_escape(b, end) }
}

/// As [`skip_string`] for names, which are short; also answers whether there is an escape in it.
#[inline(always)]
pub(crate) fn skip_name(b: &[u8], i: usize) -> Result<(usize, bool), Stop> {
    let mut end = i;
    while let Some(&byte) = b.get(end) {
        if byte == b'"' {
            return Ok((end + 1, false));
        }
        if byte == b'\\' || byte < 0x20 {
            break;
        }
        end += 1;
    }
    Ok((skip_string_from_escape(b, end)?, true))
}

/// The rest of a string, from a byte that needs a closer look.
#[inline(never)]
fn skip_string_from_escape(b: &[u8], mut i: usize) -> Result<usize, Stop> {
    loop {
        match b.get(i) {
            Some(b'"') => return Ok(i + 1),
            Some(b'\\') => {
                i = match b.get(i + 1) {
                    Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => i + 2,
                    Some(b'u') => match b.get(i + 2..i + 6) {
                        Some(hex) if hex.iter().all(u8::is_ascii_hexdigit) => i + 6,
                        _ => return Err(Stop(i)),
                    },
                    _ => return Err(Stop(i)),
                };
            }
            // A control character, or the end of the text.
            _ => return Err(Stop(i)),
        }
        i = plain_run_end(b, i);
    }
}

/// Offset of the next quote, backslash or control character, or the end of the text.
///
/// Most bytes of most packets lie within strings. Whole blocks are looked at without a branch on each byte, which the compiler turns
/// into vector instructions; the block that has the end in it is looked at in words of eight bytes.
#[inline(always)]
fn plain_run_end(b: &[u8], mut i: usize) -> usize {
    // 32: two registers of the vector instructions that every x86-64 and aarch64 has. Longer blocks make short strings slower.
    while let Some(block) = b.get(i..).and_then(|rest| rest.first_chunk::<32>()) {
        let mut hits = 0;
        for &byte in block {
            hits |= u8::from(byte == b'"') | u8::from(byte == b'\\') | u8::from(byte < 0x20);
        }
        if hits != 0 {
            break;
        }
        i += 32;
    }
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    while let Some(chunk) = b.get(i..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        // The high bit of each byte that is a quote or a backslash (zero after the exclusive or), or below 0x20. A borrow can mark
        // bytes above a true hit, never below it, and only the lowest counts. What has its high bit set is none of the three.
        let quote = (word ^ (ONES * b'"' as u64)).wrapping_sub(ONES);
        let slash = (word ^ (ONES * b'\\' as u64)).wrapping_sub(ONES);
        let control = word.wrapping_sub(ONES * 0x20);
        let hits = (quote | slash | control) & !word & HIGHS;
        if hits != 0 {
            return i + (hits.trailing_zeros() / 8) as usize;
        }
        i += 8;
    }
    while let Some(&byte) = b.get(i) {
        if byte == b'"' || byte == b'\\' || byte < 0x20 {
            break;
        }
        i += 1;
    }
    i
}

#[inline(always)]
fn skip_word(b: &[u8], i: usize, word: &[u8]) -> Result<usize, Stop> {
    match b.get(i..i + word.len()) {
        Some(found) if found == word => Ok(i + word.len()),
        _ => Err(Stop(i)),
    }
}

/// Walks over a number that starts at `i` with a minus or a digit.
#[inline]
pub(crate) fn skip_number(b: &[u8], mut i: usize) -> Result<usize, Stop> {
    if b.get(i) == Some(&b'-') {
        i += 1;
    }
    match b.get(i) {
        Some(b'0') => i += 1,
        Some(b'1'..=b'9') => i = skip_digits(b, i + 1),
        _ => return Err(Stop(i)),
    }
    if b.get(i) == Some(&b'.') {
        let first = i + 1;
        i = skip_digits(b, first);
        if i == first {
            return Err(Stop(i));
        }
    }
    if let Some(b'e' | b'E') = b.get(i) {
        i += 1;
        if let Some(b'+' | b'-') = b.get(i) {
            i += 1;
        }
        let first = i;
        i = skip_digits(b, first);
        if i == first {
            return Err(Stop(i));
        }
    }
    Ok(i)
}

#[inline(always)]
fn skip_digits(b: &[u8], mut i: usize) -> usize {
    while let Some(b'0'..=b'9') = b.get(i) {
        i += 1;
    }
    i
}

/// The texts of a list of values with commas between them and no brackets around them; white space around each is dropped.
///
/// Ends at the first thing that is not JSON, so over a list that was checked before it yields every value.
pub(crate) struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    pub(crate) fn new(elements: &'a [u8]) -> Self {
        Elements { rest: elements }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let start = skip_space(self.rest, 0);
        let end = skip_value(self.rest, start, 127).ok()?;
        let item = &self.rest[start..end];
        let after = skip_space(self.rest, end);
        self.rest = match self.rest.get(after) {
            Some(b',') => &self.rest[after + 1..],
            _ => &[],
        };
        Some(item)
    }
}

/// What a JSON string says, given its text without the quotes. Escapes of lone surrogates become U+FFFD.
pub(crate) fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = &rest[at + 1..];
        let (c, used) = match escape.as_bytes().first() {
            Some(b'b') => ('\u{8}', 1),
            Some(b'f') => ('\u{c}', 1),
            Some(b'n') => ('\n', 1),
            Some(b'r') => ('\r', 1),
            Some(b't') => ('\t', 1),
            Some(b'u') => unescape_unit(escape),
            Some(&other) if other.is_ascii() => (char::from(other), 1),
            // Not reachable on checked text; harmless otherwise.
            _ => (char::REPLACEMENT_CHARACTER, 0),
        };
        out.push(c);
        rest = &escape[used..];
    }
    out.push_str(rest);
    out
}

/// The character written `uXXXX` at the start of `escape`, or `uXXXX\uXXXX` for a pair, and how many bytes that took.
fn unescape_unit(escape: &str) -> (char, usize) {
    let unit = |from: usize| {
        let hex = escape.get(from..from + 4)?;
        u16::from_str_radix(hex, 16).ok()
    };
    let Some(first) = unit(1) else { return (char::REPLACEMENT_CHARACTER, 1) };
    if let Some(c) = char::from_u32(u32::from(first)) {
        return (c, 5);
    }
    if escape.get(5..7) == Some("\\u")
        && let Some(second) = unit(7)
        && let Some(Ok(c)) = char::decode_utf16([first, second]).next()
    {
        return (c, 11);
    }
    (char::REPLACEMENT_CHARACTER, 5)
}
