// SPDX-License-Identifier: Apache-2.0
//! Messages as bytes (D-Bus specification, "Marshaling" and "Message Protocol"). Pure.
//!
//! What comes from the other side is read with every length checked: nothing is allocated by a number that it says, and
//! what does not read is an error, never a panic.

#![forbid(unsafe_code)]

use crate::Value;

/// The longest message that is read. The specification allows 128 MiB; systemd's are a few hundred bytes.
pub(crate) const LONGEST: usize = 1 << 20;
/// The part of a message that tells how long it is.
pub(crate) const FIXED: usize = 16;
/// Flag: no reply is wanted.
const NO_REPLY: u8 = 1;

/// A method to be called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub destination: &'a str,
    pub path: &'a str,
    pub interface: &'a str,
    pub member: &'a str,
    pub arguments: &'a [Argument<'a>],
    /// An answer is awaited.
    pub answered: bool,
}

/// One argument of a method.
#[derive(Debug, Clone, Copy)]
pub enum Argument<'a> {
    /// A value.
    Value(&'a Value),
    /// `s`
    Text(&'a str),
    /// `a(sv)`
    Properties(&'a [(&'a str, &'a Value)]),
    /// `a(sa(sv))`, empty.
    NoUnits,
}

/// What kind of message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageType {
    Return,
    Error,
    Signal,
    Other,
}

/// A message that came, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BusMessage {
    pub kind: MessageType,
    /// Serial of the call that it answers; 0 for none.
    pub answers: u32,
    /// Name of the error, or of the signal.
    pub name: String,
    /// The numbers (`u`) and texts (`s`, `o`) of the body, in order; what comes after anything else is left out.
    pub body: Vec<Part>,
}

/// A part of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Number(u32),
    Text(String),
}

impl BusMessage {
    /// The text at `index` of the body.
    pub(crate) fn text(&self, index: usize) -> Option<&str> {
        match self.body.get(index) {
            Some(Part::Text(text)) => Some(text),
            _ => None,
        }
    }
}

/// The bytes of a call.
pub(crate) fn call(serial: u32, call: &Call<'_>) -> Vec<u8> {
    let mut body = Writer::default();
    let mut signature = String::new();
    for argument in call.arguments {
        body.argument(*argument);
        signature += &argument_signature(*argument);
    }
    let mut writer = Writer::default();
    let endian = if cfg!(target_endian = "little") { b'l' } else { b'B' };
    writer.bytes.extend([endian, 1, if call.answered { 0 } else { NO_REPLY }, 1]);
    writer.u32(body.bytes.len() as u32);
    writer.u32(serial);
    writer.array(8, |fields| {
        for (code, kind, text) in [
            (1u8, "o", call.path),
            (2, "s", call.interface),
            (3, "s", call.member),
            (6, "s", call.destination),
            (8, "g", signature.as_str()),
        ] {
            if text.is_empty() {
                continue;
            }
            fields.align(8);
            fields.bytes.push(code);
            fields.signature(kind);
            if kind == "g" { fields.signature(text) } else { fields.text(text) }
        }
    });
    writer.align(8);
    writer.bytes.extend(body.bytes);
    writer.bytes
}

fn argument_signature(argument: Argument<'_>) -> String {
    match argument {
        Argument::Value(value) => value.signature(),
        Argument::Text(_) => "s".into(),
        Argument::Properties(_) => "a(sv)".into(),
        Argument::NoUnits => "a(sa(sv))".into(),
    }
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, number: u32) {
        self.align(4);
        self.bytes.extend(number.to_ne_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.bytes.push(text.len() as u8);
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    /// An array whose elements are aligned to `align`; its length is filled in afterwards.
    fn array(&mut self, align: usize, fill: impl FnOnce(&mut Writer)) {
        self.u32(0);
        let at = self.bytes.len() - 4;
        self.align(align);
        let start = self.bytes.len();
        fill(self);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[at..at + 4].copy_from_slice(&length.to_ne_bytes());
    }

    fn argument(&mut self, argument: Argument<'_>) {
        match argument {
            Argument::Value(value) => self.value(value),
            Argument::Text(text) => self.text(text),
            Argument::NoUnits => self.array(8, |_| {}),
            Argument::Properties(properties) => self.array(8, |writer| {
                for (name, value) in properties {
                    writer.align(8);
                    writer.text(name);
                    writer.signature(&value.signature());
                    writer.value(value);
                }
            }),
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Bool(on) => self.u32(u32::from(*on)),
            Value::Byte(number) => self.bytes.push(*number),
            Value::I16(number) => self.aligned(&number.to_ne_bytes()),
            Value::U16(number) => self.aligned(&number.to_ne_bytes()),
            Value::I32(number) => self.aligned(&number.to_ne_bytes()),
            Value::U32(number) => self.aligned(&number.to_ne_bytes()),
            Value::I64(number) => self.aligned(&number.to_ne_bytes()),
            Value::U64(number) | Value::Double(number) => self.aligned(&number.to_ne_bytes()),
            Value::Text(text) | Value::Path(text) => self.text(text),
            Value::Array(of, items) => self.array(alignment(of), |w| items.iter().for_each(|i| w.value(i))),
            Value::Tuple(items) => {
                self.align(8);
                items.iter().for_each(|item| self.value(item));
            }
        }
    }

    /// A number is aligned to its own size.
    fn aligned(&mut self, bytes: &[u8]) {
        self.align(bytes.len());
        self.bytes.extend(bytes);
    }
}

fn alignment(signature: &str) -> usize {
    match signature.bytes().next() {
        Some(b'y') => 1,
        Some(b'n' | b'q') => 2,
        Some(b'x' | b't' | b'd' | b'(') => 8,
        _ => 4,
    }
}

/// How many bytes the message has that begins with these; `None` if it is none that is read here.
pub(crate) fn length(fixed: &[u8; FIXED]) -> Option<usize> {
    let mut reader = Reader::new(fixed)?;
    let body = reader.skip(4)?.u32()? as usize;
    let fields = reader.skip(4)?.u32()? as usize;
    let head = FIXED.checked_add(fields)?.checked_next_multiple_of(8)?;
    let all = head.checked_add(body)?;
    (fixed[3] == 1 && all <= LONGEST).then_some(all)
}

/// Reads a message of the length that [`length`] told; `None` if it does not read.
pub(crate) fn read(bytes: &[u8]) -> Option<BusMessage> {
    let mut reader = Reader::new(bytes)?;
    let kind = match bytes.get(1)? {
        2 => MessageType::Return,
        3 => MessageType::Error,
        4 => MessageType::Signal,
        _ => MessageType::Other,
    };
    let mut incoming = BusMessage { kind, answers: 0, name: String::new(), body: Vec::new() };
    let mut signature = String::new();
    reader.skip(12)?;
    let fields = reader.u32()? as usize;
    let end = reader.at.checked_add(fields)?;
    if end > bytes.len() {
        return None;
    }
    while reader.at < end {
        reader.align(8)?;
        let code = reader.byte()?;
        let kind = reader.signature()?;
        match (code, kind.as_str()) {
            (5, "u") => incoming.answers = reader.u32()?,
            (3, "s") if incoming.kind == MessageType::Signal => incoming.name = reader.text()?,
            (4, "s") if incoming.kind == MessageType::Error => incoming.name = reader.text()?,
            (8, "g") => signature = reader.signature()?,
            (_, "s" | "o") => drop(reader.text()?),
            (_, "g") => drop(reader.signature()?),
            (_, "u") => drop(reader.u32()?),
            _ => return None,
        }
    }
    reader.align(8)?;
    for kind in signature.chars() {
        incoming.body.push(match kind {
            'u' => Part::Number(reader.u32()?),
            's' | 'o' => Part::Text(reader.text()?),
            _ => break,
        });
    }
    Some(incoming)
}

/// Reads what somebody else wrote. Every step answers `None` where the bytes end or do not fit.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    little: bool,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let little = match bytes.first()? {
            b'l' => true,
            b'B' => false,
            _ => return None,
        };
        Some(Reader { bytes, at: 0, little })
    }

    fn skip(&mut self, count: usize) -> Option<&mut Self> {
        self.at = self.at.checked_add(count).filter(|at| *at <= self.bytes.len())?;
        Some(self)
    }

    fn align(&mut self, to: usize) -> Option<()> {
        self.at = self.at.checked_next_multiple_of(to).filter(|at| *at <= self.bytes.len())?;
        Some(())
    }

    fn next_bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.next_bytes(1)?.first().copied()
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4)?;
        let bytes = self.next_bytes(4)?.try_into().ok()?;
        Some(if self.little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) })
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        self.ended(length)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.byte()?.into();
        self.ended(length)
    }

    fn ended(&mut self, length: usize) -> Option<String> {
        let text = String::from_utf8(self.next_bytes(length)?.to_vec()).ok()?;
        (self.byte()? == 0).then_some(text)
    }
}

/// A message as the other side sends them: a return (2), an error (3) or a signal (4) of this `name`, which answers the call
/// of serial `answers`. For tests, which are that side: nothing else says such a thing.
#[must_use]
pub fn message(kind: u8, answers: u32, name: &str, signature: &str, body: &[Value]) -> Vec<u8> {
    let mut content = Writer::default();
    body.iter().for_each(|value| content.value(value));
    let mut writer = Writer::default();
    let endian = if cfg!(target_endian = "little") { b'l' } else { b'B' };
    writer.bytes.extend([endian, kind, 0, 1]);
    writer.u32(content.bytes.len() as u32);
    writer.u32(7);
    writer.array(8, |fields| {
        fields.bytes.push(5);
        fields.signature("u");
        fields.u32(answers);
        for (code, kind, text) in [(if kind == 3 { 4 } else { 3 }, "s", name), (8, "g", signature)] {
            fields.align(8);
            fields.bytes.push(code);
            fields.signature(kind);
            if kind == "g" { fields.signature(text) } else { fields.text(text) }
        }
    });
    writer.align(8);
    writer.bytes.extend(content.bytes);
    writer.bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> Option<BusMessage> {
        let fixed = bytes.get(..FIXED)?.try_into().ok()?;
        (length(fixed)? == bytes.len()).then(|| read(bytes)).flatten()
    }

    #[test]
    fn a_call_has_the_bytes_of_the_specification() {
        let properties = [("Delegate", &Value::Bool(true))];
        let bytes = call(
            1,
            &Call {
                destination: "d",
                path: "/p",
                interface: "i",
                member: "M",
                arguments: &[Argument::Text("u"), Argument::Properties(&properties)],
                answered: true,
            },
        );
        #[rustfmt::skip]
        let want: &[u8] = &[
            b'l', 1, 0, 1, 36, 0, 0, 0, 1, 0, 0, 0, 76, 0, 0, 0,
            1, 1, b'o', 0, 2, 0, 0, 0, b'/', b'p', 0, 0, 0, 0, 0, 0,
            2, 1, b's', 0, 1, 0, 0, 0, b'i', 0, 0, 0, 0, 0, 0, 0,
            3, 1, b's', 0, 1, 0, 0, 0, b'M', 0, 0, 0, 0, 0, 0, 0,
            6, 1, b's', 0, 1, 0, 0, 0, b'd', 0, 0, 0, 0, 0, 0, 0,
            8, 1, b'g', 0, 6, b's', b'a', b'(', b's', b'v', b')', 0, 0, 0, 0, 0,
            1, 0, 0, 0, b'u', 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0,
            8, 0, 0, 0, b'D', b'e', b'l', b'e', b'g', b'a', b't', b'e', 0, 1, b'b', 0,
            1, 0, 0, 0,
        ];
        if cfg!(target_endian = "little") {
            assert_eq!(bytes, want);
        }
        let fixed: &[u8; FIXED] = bytes[..FIXED].try_into().unwrap();
        assert_eq!(length(fixed), Some(bytes.len()));
    }

    #[test]
    fn answers_are_read() {
        let job = message(2, 3, "", "o", &[Value::Path("/job/1".into())]);
        let read = whole(&job).unwrap();
        assert_eq!((read.kind, read.answers, read.text(0)), (MessageType::Return, 3, Some("/job/1")));
        let body = [Value::U32(5), Value::Path("/job/1".into()), Value::text("a.scope"), Value::text("done")];
        let read = whole(&message(4, 0, "JobRemoved", "uoss", &body)).unwrap();
        assert_eq!(
            (read.name.as_str(), read.text(1), read.text(3)),
            ("JobRemoved", Some("/job/1"), Some("done"))
        );
        let read = whole(&message(3, 9, "org.Error", "s", &[Value::text("no")])).unwrap();
        assert_eq!(
            (read.kind, read.name.as_str(), read.text(0)),
            (MessageType::Error, "org.Error", Some("no"))
        );
    }

    /// Every prefix, and every message with some bytes changed: an answer or none, and never a panic.
    #[test]
    fn hostile_bytes_do_no_harm() {
        let good = message(
            4,
            0,
            "JobRemoved",
            "uoss",
            &[Value::U32(5), Value::Path("/job/1".into()), Value::text("a.scope"), Value::text("done")],
        );
        for end in 0..good.len() {
            read(&good[..end]);
            assert!(whole(&good[..end]).is_none());
        }
        let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..200_000 {
            let mut bytes = good.clone();
            for _ in 0..=(seed >> 60) {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (seed >> 16) as usize % bytes.len();
                bytes[at] = (seed >> 40) as u8;
            }
            read(&bytes);
            whole(&bytes);
        }
        assert_eq!(length(&[b'l', 2, 0, 1, 255, 255, 255, 255, 1, 0, 0, 0, 255, 255, 255, 255]), None);
    }
}
