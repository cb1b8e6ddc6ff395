// SPDX-License-Identifier: Apache-2.0
//! Whether the pages that a dump speaks of are there. CRIU 4.2 reads past the end of a file that is cut short for ever, and
//! writes a line of its log each time.
//!
//! An image is two magic numbers and then messages with their lengths (criu.org/Images): in a pagemap the head, which names
//! the file of pages, and an entry for each range.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Mode, OFlags, fstat, openat};

use super::protobuf::{FieldValue, MessageReader};
use crate::error::{Context, Error, Kind, Result};
use crate::state::read_all;

const MAGIC: usize = 8;
/// Of an entry's flags: its pages are in this dump's file, and in no earlier one's.
const PRESENT: u64 = 1 << 2;

/// Bytes that the files of pages must have, by their numbers.
#[derive(Default)]
pub(super) struct PagesNeeded(BTreeMap<u64, u64>);

impl PagesNeeded {
    /// Adds what a pagemap asks for.
    ///
    /// # Errors
    /// `Kind::Invalid` for one that does not read.
    pub(super) fn add(&mut self, dir: BorrowedFd<'_>, name: &str) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(dir, name, flags, Mode::empty()).call(|| format!("open({name})"))?;
        let bytes = read_all(file.as_fd()).call(|| format!("read({name})"))?;
        let (pages, count) = sum(&bytes)
            .ok_or_else(|| Error::new(Kind::Invalid, "is no whole pagemap").at(name.to_owned()))?;
        let size = rustix::param::page_size() as u64;
        *self.0.entry(pages).or_default() += count.saturating_mul(size);
        Ok(())
    }

    /// Compares the files with it.
    ///
    /// # Errors
    /// `Kind::Invalid` for one that is cut short.
    pub(super) fn check(self, dir: BorrowedFd<'_>) -> Result<()> {
        for (number, needed) in self.0.into_iter().filter(|(_, needed)| *needed > 0) {
            let name = format!("pages-{number}.img");
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(dir, &*name, flags, Mode::empty()).call(|| format!("open({name})"))?;
            let size = fstat(&file).call(|| format!("stat({name})"))?.st_size as u64;
            if size < needed {
                let text = format!("is cut short: {size} bytes of {needed}");
                return Err(Error::new(Kind::Invalid, text).at(name));
            }
        }
        Ok(())
    }
}

/// The number of the file of pages, and how many pages of it are spoken of; `None` for what is no pagemap.
fn sum(image: &[u8]) -> Option<(u64, u64)> {
    let mut rest = image.get(MAGIC..)?;
    let mut messages = std::iter::from_fn(|| {
        if rest.is_empty() {
            return None;
        }
        let message = rest.split_at_checked(4).and_then(|(length, tail)| {
            let length = u32::from_le_bytes(length.try_into().ok()?);
            tail.split_at_checked(usize::try_from(length).ok()?)
        });
        rest = message.map_or(&[][..], |(_, tail)| tail);
        Some(message.map(|(message, _)| message))
    });
    let pages = number(messages.next()??, 1)?;
    let mut count: u64 = 0;
    for message in messages {
        let message = message?;
        if number(message, 4)? & PRESENT != 0 {
            // Before CRIU 4.0 the number was a field of 32 bits.
            count = count.checked_add(number(message, 2)?.max(number(message, 5)?))?;
        }
    }
    Some((pages, count))
}

/// A field's number, 0 where it is absent; `None` when the message does not read.
fn number(message: &[u8], field: u32) -> Option<u64> {
    let mut found = 0;
    for entry in MessageReader::new(message) {
        let (name, value) = entry?;
        if name == field {
            found = FieldValue::number(value)?;
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::sum;

    /// The beginning of a dump's pagemap: a head and three ranges, one of which an earlier dump has.
    const IMAGE: &[u8] = &[
        0x19, 0x43, 0x56, 0x54, 0x25, 0x40, 0x08, 0x56, 2, 0, 0, 0, 0x08, 1, 0x0b, 0, 0, 0, 0x08, 0x80, 0xa0,
        0x80, 2, 0x10, 0, 0x20, 4, 0x28, 1, 0x0b, 0, 0, 0, 0x08, 0x80, 0xa0, 0xfc, 2, 0x10, 0, 0x20, 6, 0x28,
        5, 0x0b, 0, 0, 0, 0x08, 0x80, 0xc0, 0xfd, 2, 0x10, 0, 0x20, 1, 0x28, 9,
    ];

    #[test]
    fn pages_are_counted_that_this_dump_has() {
        assert_eq!(sum(IMAGE), Some((1, 6)));
        assert_eq!(sum(&IMAGE[..14]), Some((1, 0)));
        for end in [0, 7, 8, 11, 13, 20, IMAGE.len() - 1] {
            assert_eq!(sum(&IMAGE[..end]), None, "{end}");
        }
    }
}
