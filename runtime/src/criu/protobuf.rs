// SPDX-License-Identifier: Apache-2.0
//! Protocol buffers, as far as CRIU's messages need them (protobuf.dev, "Encoding"): varints and length-prefixed bytes.

#![forbid(unsafe_code)]

/// Wire types.
const VARINT: u64 = 0;
const FIXED64: u64 = 1;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

/// A message that is being written: fields in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct MessageWriter(Vec<u8>);

impl MessageWriter {
    pub(super) fn number(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3 | VARINT);
        self.varint(value);
    }

    /// int32: a negative one takes ten bytes.
    pub(super) fn int(&mut self, field: u32, value: i32) {
        self.number(field, i64::from(value) as u64);
    }

    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.varint(u64::from(field) << 3 | BYTES);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    pub(super) fn message(&mut self, field: u32, message: &MessageWriter) {
        self.bytes(field, &message.0);
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// A field's value. Fixed-size ones, which none of CRIU's answers has, are passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldValue<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> FieldValue<'a> {
    pub(super) fn number(self) -> Option<u64> {
        match self {
            FieldValue::Number(number) => Some(number),
            FieldValue::Bytes(_) => None,
        }
    }

    pub(super) fn bytes(self) -> Option<&'a [u8]> {
        match self {
            FieldValue::Bytes(bytes) => Some(bytes),
            FieldValue::Number(_) => None,
        }
    }
}

/// Reads a message field by field; `None` in place of what does not read, and then nothing more.
pub(super) struct MessageReader<'a>(&'a [u8]);

impl<'a> MessageReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        MessageReader(bytes)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn split(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u32, FieldValue<'a>)> {
        loop {
            let key = self.varint()?;
            let field = u32::try_from(key >> 3).ok()?;
            match key & 7 {
                VARINT => return Some((field, FieldValue::Number(self.varint()?))),
                BYTES => {
                    let length = self.varint()?;
                    return Some((field, FieldValue::Bytes(self.split(length)?)));
                }
                FIXED64 => _ = self.split(8)?,
                FIXED32 => _ = self.split(4)?,
                _ => return None,
            }
            if self.0.is_empty() {
                return None;
            }
        }
    }
}

impl<'a> Iterator for MessageReader<'a> {
    type Item = Option<(u32, FieldValue<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Vec<Option<(u32, FieldValue<'_>)>> {
        MessageReader::new(bytes).collect()
    }

    /// The examples of protobuf.dev, "Encoding", and what `protoc` makes of -1.
    #[test]
    fn bytes_are_those_of_the_format() {
        let mut message = MessageWriter::default();
        message.number(1, 150);
        message.bytes(2, b"testing");
        message.int(1, -1);
        let expected = [
            &[0x08, 0x96, 0x01, 0x12, 0x07][..],
            b"testing",
            &[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        ]
        .concat();
        assert_eq!(message.as_bytes(), expected);
        let fields = read(&expected);
        let number = |value| Some((1, FieldValue::Number(value)));
        assert_eq!(fields, [number(150), Some((2, FieldValue::Bytes(b"testing"))), number(u64::MAX)]);
        let mut outer = MessageWriter::default();
        outer.message(64, &message);
        assert_eq!(read(outer.as_bytes()), [Some((64, FieldValue::Bytes(&expected)))]);
    }

    #[test]
    fn what_does_not_read_ends_it() {
        for wrong in [
            &[0x08][..],
            &[0x08, 0x80],
            &[0x12, 0x05, 1, 2],
            &[0x0b],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
        ] {
            assert_eq!(read(wrong), [None], "{wrong:x?}");
        }
        // A fixed-size field is passed over.
        assert_eq!(read(&[0x0d, 1, 2, 3, 4, 0x10, 7]), [Some((2, FieldValue::Number(7)))]);
    }
}
