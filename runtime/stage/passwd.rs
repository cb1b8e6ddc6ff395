// SPDX-License-Identifier: Apache-2.0
//! HOME from the container's /etc/passwd (passwd(5)): untrusted, so it is a regular file, is read to a bound and
//! may be anything.

use super::sys::{self, Result};
use super::wire::Rec;
use super::{MALFORMED, Stage};

/// PATH_MAX: longer homes are cut.
const HOME: usize = 4096;

/// Longer files are read this far: an entry beyond is not found, and HOME is `/`.
const BOUND: usize = 1 << 20;

impl Stage {
    /// Puts `HOME=…` into the buffer t (b bytes) and its offset at index a of the array s.
    #[inline(never)]
    pub(super) fn home(&self, rec: &Rec) -> Result<()> {
        let room = rec.b as usize;
        let buffer = self.program.array::<u8>(rec.t, room)?;
        let index = u32::try_from(rec.a).map_err(|_| MALFORMED)?;
        let entry = self.program.array::<u64>(rec.s + 8 * index, 1)?;
        let mut home = Home { text: [0; HOME], length: 0 };
        if self.search(rec.x, &mut home).is_err() || home.length == 0 {
            home.text[0] = b'/';
            home.length = 1;
        }
        let text = b"HOME=";
        if text.len() + home.length >= room {
            return Err(MALFORMED);
        }
        // SAFETY: the buffer is in bounds (checked above), belongs to this operation alone, and its last byte, a
        // NUL, is not reached; the entry is in bounds and aligned.
        unsafe {
            core::ptr::copy_nonoverlapping(text.as_ptr(), buffer, text.len());
            core::ptr::copy_nonoverlapping(home.text.as_ptr(), buffer.add(text.len()), home.length);
            *entry = u64::from(rec.t);
        }
        Ok(())
    }

    #[inline(never)]
    fn search(&self, uid: u32, home: &mut Home) -> Result<()> {
        let resolve = sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_MAGICLINKS;
        // Looked at before it is opened: opening a device can have effects.
        let found = self.find(c"/etc/passwd", 0, 0)?;
        let kind = sys::fstat(found)?.kind();
        sys::close(found);
        if kind != sys::S_IFREG {
            return Ok(());
        }
        // Non-blocking: it may be a FIFO by now.
        let flags = sys::O_RDONLY | sys::O_NONBLOCK | sys::O_NOCTTY;
        let file = sys::openat2(self.root, c"/etc/passwd", flags, 0, resolve)?;
        let mut line = Line::default();
        let mut chunk = [0; 512];
        let mut total = 0;
        let regular = sys::fstat(file)?.kind() == sys::S_IFREG;
        'file: while regular && total < BOUND {
            let length = sys::read(file, &mut chunk)?;
            if length == 0 {
                break;
            }
            total += length;
            for &byte in &chunk[..length] {
                if line.take(byte, uid, home) {
                    break 'file;
                }
            }
        }
        sys::close(file);
        Ok(())
    }
}

struct Home {
    text: [u8; HOME],
    length: usize,
}

/// One line as far as it was read: which field, and the number in the third.
#[derive(Default)]
struct Line {
    field: u8,
    number: Option<u64>,
    broken: bool,
}

impl Line {
    /// Takes the next byte; true when the home directory of `uid` is complete.
    fn take(&mut self, byte: u8, uid: u32, home: &mut Home) -> bool {
        const UID: u8 = 2;
        const HOME_FIELD: u8 = 5;
        match byte {
            // The shell may be missing, as for glibc and runc.
            b'\n' if self.field == HOME_FIELD && self.is(uid) => return true,
            b'\n' => {
                *self = Line::default();
                home.length = 0;
            }
            b':' if self.field == HOME_FIELD => {
                if self.is(uid) {
                    return true;
                }
                self.field += 1;
            }
            b':' => self.field = self.field.saturating_add(1),
            _ if self.field == UID => {
                let digit = u64::from(byte.wrapping_sub(b'0'));
                self.broken |= digit > 9;
                self.number = Some(self.number.unwrap_or(0).saturating_mul(10).saturating_add(digit));
            }
            _ if self.field == HOME_FIELD
                && self.is(uid)
                && byte != 0
                && home.length < home.text.len() - 16 =>
            {
                home.text[home.length] = byte;
                home.length += 1;
            }
            _ => {}
        }
        false
    }

    fn is(&self, uid: u32) -> bool {
        !self.broken && self.number == Some(u64::from(uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home_of(uid: u32, text: &str) -> Option<String> {
        let mut home = Home { text: [0; HOME], length: 0 };
        let mut line = Line::default();
        let found = text.bytes().any(|byte| line.take(byte, uid, &mut home));
        found.then(|| String::from_utf8_lossy(&home.text[..home.length]).into_owned())
    }

    #[test]
    fn finds_the_home_of_a_uid() {
        let text =
            "root:x:0:0:root:/root:/bin/sh\n\nbad\nx:x:1x:1::/wrong:/bin/sh\nme:x:1:1::/home/me:/bin/sh\n";
        assert_eq!(home_of(0, text).as_deref(), Some("/root"));
        assert_eq!(home_of(1, text).as_deref(), Some("/home/me"));
        assert_eq!(home_of(2, text), None);
        assert_eq!(home_of(3, "a:x:3:3::/short\nb:x:4:4::/next:/bin/sh\n").as_deref(), Some("/short"));
    }

    #[test]
    fn an_overlong_home_is_cut_not_overrun() {
        let text = format!("a:x:7:7::/{}:/bin/sh\n", "h".repeat(9000));
        assert_eq!(home_of(7, &text).map(|home| home.len()), Some(HOME - 16));
    }
}
