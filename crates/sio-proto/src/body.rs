//! Arguments, encoded once: what every recipient of an event gets alike, apart from the packet's header.

use crate::binary::{self, Scope};
use crate::json::Elements;
use crate::placeholder::placeholders;
use crate::sequence::Items;
use crate::text::checked_elements;
use crate::{ATTACHMENTS_MAX, Fault, Limits, Parser, is_reserved_event};
use bytes::Bytes;
use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter};
use std::{fmt, io};

/// The encoded arguments of an event (its name first) or of an ack, without any header.
///
/// Made by [`Parser::encode_event_args`] and [`Parser::encode_ack_args`], or from a packet that came in by [`relay_event`] and
/// [`relay_ack`]. Given to [`encode_event`](crate::encode_event) and [`encode_ack`](crate::encode_ack) as often as there are headers.
///
/// [`relay_event`]: Body::relay_event
/// [`relay_ack`]: Body::relay_ack
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// Text parser: JSON texts with commas between them and no brackets. Msgpack: values one after the other.
    pub elements: Vec<u8>,
    /// How many elements, an event's name counted.
    pub count: u32,
    /// What follows the header as binary messages, in order. Always empty under msgpack; at most [`ATTACHMENTS_MAX`].
    pub attachments: Vec<Bytes>,
}

/// Why arguments cannot be sent. The caller's fault.
#[derive(Debug)]
pub enum EncodeFault {
    /// The protocol keeps this event name for itself.
    ReservedEvent(String),
    /// More binary values than current peers accept in one packet.
    TooManyAttachments {
        /// How many there are.
        count: usize,
    },
    /// Arguments that mix binary values with objects that look like placeholders; the peer could not tell them apart.
    ForeignPlaceholder,
    /// What was given as several arguments is no sequence.
    NotASequence,
    /// What the value's own `Serialize` said.
    Custom(String),
    /// The value could not be serialised.
    Json(serde_json::Error),
    /// The value could not be serialised.
    Msgpack(rmp_serde::encode::Error),
}

impl fmt::Display for EncodeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EncodeFault::ReservedEvent(name) => write!(f, "event name {name:?} is reserved"),
            EncodeFault::TooManyAttachments { count } => {
                write!(f, "{count} binary values exceed the {ATTACHMENTS_MAX} that a packet may carry")
            }
            EncodeFault::ForeignPlaceholder => {
                f.write_str("an object that looks like a placeholder beside binary values")
            }
            EncodeFault::NotASequence => f.write_str("several arguments must serialise as a sequence"),
            EncodeFault::Custom(message) => write!(f, "arguments cannot be written: {message}"),
            EncodeFault::Json(error) => write!(f, "argument cannot be written as json: {error}"),
            EncodeFault::Msgpack(error) => write!(f, "argument cannot be written as msgpack: {error}"),
        }
    }
}

impl std::error::Error for EncodeFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            EncodeFault::Json(error) => Some(error),
            EncodeFault::Msgpack(error) => Some(error),
            EncodeFault::ReservedEvent(_)
            | EncodeFault::TooManyAttachments { .. }
            | EncodeFault::ForeignPlaceholder
            | EncodeFault::NotASequence
            | EncodeFault::Custom(_) => None,
        }
    }
}

/// Something that stands for the arguments of an event or an ack: [`NoArgs`], [`One`], [`Many`] or [`RawArgs`].
pub trait Args {
    /// Writes the arguments.
    ///
    /// # Errors
    /// What the writer answers.
    fn write(&self, writer: &mut ArgsWriter<'_>) -> Result<(), EncodeFault>;
}

/// No argument.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoArgs;

/// One argument, whatever its shape: a tuple or a `Vec` arrives as one array.
#[derive(Clone, Copy, Debug)]
pub struct One<T>(pub T);

/// As many arguments as the value has items: a tuple, an array, a slice, a `Vec`; none for `()` and `None`.
#[derive(Clone, Copy, Debug)]
pub struct Many<T>(pub T);

/// Arguments that are JSON text already, checked when this was made. Under msgpack they are converted.
#[derive(Clone, Copy, Debug)]
pub struct RawArgs<'a> {
    elements: &'a str,
    count: u32,
}

impl<'a> RawArgs<'a> {
    /// Takes the text of a JSON array whose items are the arguments.
    ///
    /// # Errors
    /// [`Fault::Json`], [`Fault::TooDeep`], or [`Fault::Shape`] when it is no array. The fault of who wrote the text.
    pub fn parse(array: &'a str, limits: &Limits) -> Result<Self, Fault> {
        let (range, count) = checked_elements(array, limits)?;
        Ok(RawArgs { elements: &array[range], count })
    }

    /// How many arguments.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }
}

impl Args for NoArgs {
    fn write(&self, _: &mut ArgsWriter<'_>) -> Result<(), EncodeFault> {
        Ok(())
    }
}

impl<T: Serialize> Args for One<T> {
    fn write(&self, writer: &mut ArgsWriter<'_>) -> Result<(), EncodeFault> {
        writer.one(&self.0)
    }
}

impl<T: Serialize> Args for Many<T> {
    fn write(&self, writer: &mut ArgsWriter<'_>) -> Result<(), EncodeFault> {
        writer.many(&self.0)
    }
}

impl Args for RawArgs<'_> {
    fn write(&self, writer: &mut ArgsWriter<'_>) -> Result<(), EncodeFault> {
        writer.raw(self)
    }
}

impl<A: Args + ?Sized> Args for &A {
    fn write(&self, writer: &mut ArgsWriter<'_>) -> Result<(), EncodeFault> {
        (**self).write(writer)
    }
}

/// Where [`Args`] write themselves to.
#[derive(Debug)]
pub struct ArgsWriter<'a> {
    parser: Parser,
    elements: &'a mut Vec<u8>,
    count: u32,
}

impl ArgsWriter<'_> {
    /// Adds one argument.
    ///
    /// # Errors
    /// When the value's own `Serialize` fails, or it has map keys that JSON cannot have.
    pub fn one<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeFault> {
        self.separate();
        self.value(value)?;
        self.count += 1;
        Ok(())
    }

    /// Adds every item of a value that serialises as a sequence.
    ///
    /// # Errors
    /// As [`one`](Self::one), and [`EncodeFault::NotASequence`].
    pub fn many<T: Serialize + ?Sized>(&mut self, values: &T) -> Result<(), EncodeFault> {
        values.serialize(Items(self))
    }

    /// Adds arguments that are JSON text.
    ///
    /// # Errors
    /// Only under msgpack: [`EncodeFault::Json`] for a number beyond the range of a double.
    pub fn raw(&mut self, args: &RawArgs<'_>) -> Result<(), EncodeFault> {
        match self.parser {
            Parser::Json if args.count == 0 => {}
            Parser::Json => {
                self.separate();
                self.elements.extend_from_slice(args.elements.as_bytes());
            }
            Parser::Msgpack => {
                for element in Elements::new(args.elements.as_bytes()) {
                    let value: serde_json::Value =
                        serde_json::from_slice(element).map_err(EncodeFault::Json)?;
                    self.value(&value)?;
                }
            }
        }
        self.count += args.count;
        Ok(())
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeFault> {
        match self.parser {
            Parser::Json => write_json(self.elements, value).map_err(EncodeFault::Json),
            Parser::Msgpack => write_msgpack(self.elements, value).map_err(EncodeFault::Msgpack),
        }
    }

    fn separate(&mut self) {
        if self.parser == Parser::Json && self.count > 0 {
            self.elements.push(b',');
        }
    }
}

impl Parser {
    /// Encodes an event's name and arguments.
    ///
    /// # Errors
    /// An [`EncodeFault`]; the caller's fault.
    pub fn encode_event_args<A: Args + ?Sized>(self, name: &str, args: &A) -> Result<Body, EncodeFault> {
        if is_reserved_event(name) {
            return Err(EncodeFault::ReservedEvent(name.to_owned()));
        }
        self.encode(Some(name), args)
    }

    /// Encodes the arguments of an answer.
    ///
    /// # Errors
    /// An [`EncodeFault`]; the caller's fault.
    pub fn encode_ack_args<A: Args + ?Sized>(self, args: &A) -> Result<Body, EncodeFault> {
        self.encode(None, args)
    }

    fn encode<A: Args + ?Sized>(self, name: Option<&str>, args: &A) -> Result<Body, EncodeFault> {
        let scope = match self {
            Parser::Json => Scope::EncodeJson(Vec::new()),
            Parser::Msgpack => Scope::EncodeMsgpack,
        };
        let (written, scope) = binary::within(scope, || {
            // 128: most events fit, and the buffer need not grow in steps.
            let mut elements = Vec::with_capacity(128);
            let mut writer = ArgsWriter { parser: self, elements: &mut elements, count: 0 };
            if let Some(name) = name {
                writer.one(name)?;
            }
            args.write(&mut writer)?;
            let count = writer.count;
            Ok((elements, count))
        });
        let (elements, count) = written?;
        let attachments = match scope {
            Scope::EncodeJson(attachments) => attachments,
            Scope::Outside | Scope::EncodeMsgpack | Scope::DecodeJson(_) => Vec::new(),
        };
        if !attachments.is_empty() {
            check_attachments(&elements, attachments.len())?;
        }
        debug_assert!(
            self == Parser::Msgpack || !elements.contains(&0x1e),
            "U+001E parts packets in polling payloads"
        );
        Ok(Body { elements, count, attachments })
    }
}

/// Refuses what would make every recipient drop its connection, over and over if recovery replays it.
fn check_attachments(elements: &[u8], count: usize) -> Result<(), EncodeFault> {
    if count > ATTACHMENTS_MAX as usize {
        return Err(EncodeFault::TooManyAttachments { count });
    }
    // Ours are numbered in the order of writing, each once; anything else came with the caller's data.
    let mut numbers = placeholders(elements).map_err(|_| EncodeFault::ForeignPlaceholder)?;
    numbers.sort_unstable();
    if numbers.into_iter().eq(0..count) { Ok(()) } else { Err(EncodeFault::ForeignPlaceholder) }
}

impl Body {
    /// An event made of arguments that came in, without looking into them.
    ///
    /// `elements` and `count` are those of a [`Payload::Event`](crate::Payload::Event) that this `parser` decoded, `attachments` those
    /// of its [`OwnedIncoming`](crate::OwnedIncoming).
    ///
    /// # Errors
    /// [`EncodeFault::ReservedEvent`], and [`EncodeFault::TooManyAttachments`] if more were let in than may go out.
    pub fn relay_event(
        parser: Parser,
        name: &str,
        elements: &[u8],
        count: u32,
        attachments: &[Bytes],
    ) -> Result<Body, EncodeFault> {
        let mut body = parser.encode_event_args(name, &NoArgs)?;
        if parser == Parser::Json && count > 0 {
            body.elements.push(b',');
        }
        body.elements.extend_from_slice(elements);
        body.count += count;
        body.with_attachments(attachments)
    }

    /// An ack made of arguments that came in, as [`relay_event`](Self::relay_event).
    ///
    /// # Errors
    /// [`EncodeFault::TooManyAttachments`].
    pub fn relay_ack(elements: &[u8], count: u32, attachments: &[Bytes]) -> Result<Body, EncodeFault> {
        Body { elements: elements.to_vec(), count, attachments: Vec::new() }.with_attachments(attachments)
    }

    fn with_attachments(mut self, attachments: &[Bytes]) -> Result<Body, EncodeFault> {
        if attachments.len() > ATTACHMENTS_MAX as usize {
            return Err(EncodeFault::TooManyAttachments { count: attachments.len() });
        }
        self.attachments = attachments.to_vec();
        Ok(self)
    }
}

/// Writes one value as compact JSON, floats as JavaScript would where that is exact: `7`, not `7.0`.
pub(crate) fn write_json<T: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    value: &T,
) -> Result<(), serde_json::Error> {
    value.serialize(&mut serde_json::Serializer::with_formatter(out, Plain))
}

/// Writes one value as msgpack, structs as maps. Types that have a textual form use it, as under the text parser.
pub(crate) fn write_msgpack<T: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    value: &T,
) -> Result<(), rmp_serde::encode::Error> {
    let mut serializer = rmp_serde::Serializer::new(out).with_struct_map().with_human_readable();
    value.serialize(&mut serializer)
}

struct Plain;

impl Formatter for Plain {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        // Up to 2^53 every whole number is one double and has one integer form.
        if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 {
            return self.write_i64(writer, value as i64);
        }
        serde_json::ser::CompactFormatter.write_f64(writer, value)
    }

    fn write_f32<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f32) -> io::Result<()> {
        if value.fract() == 0.0 && value.abs() <= 16_777_216.0 {
            return self.write_i64(writer, value as i64);
        }
        serde_json::ser::CompactFormatter.write_f32(writer, value)
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        serde_json::ser::CompactFormatter.write_char_escape(writer, escape)
    }
}
