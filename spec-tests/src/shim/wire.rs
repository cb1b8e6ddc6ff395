// SPDX-License-Identifier: Apache-2.0
//! Protobuf by hand: messages are written and read by field number, as the .proto files of containerd's api/ number
//! them. Deliberately not the shim's own message types: two readers of one specification check each other, and a
//! message can be malformed on purpose.

#![forbid(unsafe_code)]

use crate::harness::case::Trouble;

/// A message under construction. Zero values are left out, as proto3 has it.
#[derive(Debug, Default, Clone)]
pub struct Message(pub Vec<u8>);

impl Message {
    pub fn new() -> Self {
        Self::default()
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A `uint32`, `uint64`, `int64` (as two's complement) or enum.
    pub fn number(mut self, field: u64, value: u64) -> Self {
        if value != 0 {
            self.varint(field << 3);
            self.varint(value);
        }
        self
    }

    pub fn flag(self, field: u64, value: bool) -> Self {
        self.number(field, value.into())
    }

    /// `bytes` or a message, written even when empty.
    pub fn bytes(mut self, field: u64, value: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    pub fn text(self, field: u64, value: &str) -> Self {
        if value.is_empty() { self } else { self.bytes(field, value.as_bytes()) }
    }

    pub fn message(self, field: u64, value: &Message) -> Self {
        self.bytes(field, &value.0)
    }

    /// A `google.protobuf.Any`.
    pub fn any(self, field: u64, url: &str, value: &[u8]) -> Self {
        let any = Message::new().text(1, url).bytes(2, value);
        self.message(field, &any)
    }
}

/// The value of one field.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

/// A message that was read.
#[derive(Debug, Default, Clone)]
pub struct Fields(Vec<(u64, Value)>);

impl Fields {
    /// Reads all fields; fails on what is no protobuf.
    pub fn read(bytes: &[u8]) -> Result<Self, Trouble> {
        let mut rest = bytes;
        let mut fields = Vec::new();
        while !rest.is_empty() {
            fields.push(field(&mut rest).ok_or_else(|| format!("not protobuf: {bytes:?}"))?);
        }
        Ok(Self(fields))
    }

    pub fn number(&self, field: u64) -> u64 {
        let found = self.0.iter().rev().find(|(number, _)| *number == field);
        found.map_or(0, |(_, value)| if let Value::Number(n) = value { *n } else { 0 })
    }

    /// Every value of a repeated `bytes`, text or message field.
    pub fn all(&self, field: u64) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter_map(move |(number, value)| match value {
            Value::Bytes(bytes) if *number == field => Some(bytes.as_slice()),
            _ => None,
        })
    }

    pub fn bytes(&self, field: u64) -> &[u8] {
        self.all(field).last().unwrap_or_default()
    }

    pub fn text(&self, field: u64) -> String {
        String::from_utf8_lossy(self.bytes(field)).into_owned()
    }

    /// An embedded message; an empty one when it is absent.
    pub fn message(&self, field: u64) -> Result<Fields, Trouble> {
        Fields::read(self.bytes(field))
    }

    pub fn has(&self, field: u64) -> bool {
        self.0.iter().any(|(number, _)| *number == field)
    }

    /// A `google.protobuf.Timestamp` in seconds.
    pub fn time(&self, field: u64) -> Result<f64, Trouble> {
        let time = self.message(field)?;
        Ok(time.number(1) as i64 as f64 + time.number(2) as i64 as f64 / 1e9)
    }
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn field(rest: &mut &[u8]) -> Option<(u64, Value)> {
    let tag = varint(rest)?;
    let len = match tag & 7 {
        0 => return Some((tag >> 3, Value::Number(varint(rest)?))),
        1 => 8,
        2 => usize::try_from(varint(rest)?).ok()?,
        5 => 4,
        _ => return None,
    };
    let (value, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some((tag >> 3, Value::Bytes(value.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let inner = Message::new().number(1, 7).number(2, -8i64 as u64);
        let all = Message::new().text(1, "id").number(2, 300).flag(3, true).message(4, &inner).text(5, "");
        let read = Fields::read(&all.0).unwrap();
        assert_eq!((read.text(1).as_str(), read.number(2), read.number(3)), ("id", 300, 1));
        assert_eq!(read.message(4).unwrap().number(2) as i64, -8);
        assert!(!read.has(5));
        assert_eq!(all.0[..6], [0x0a, 2, b'i', b'd', 0x10, 0xac]);
    }

    #[test]
    fn what_is_no_protobuf_is_refused() {
        for bytes in [&[0x0a, 5, 1][..], &[0x0f], &[0x80], &[0xff; 11]] {
            assert!(Fields::read(bytes).is_err(), "{bytes:?}");
        }
    }
}
