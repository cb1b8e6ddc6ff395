// SPDX-License-Identifier: Apache-2.0
//! HOME from the container's /etc/passwd (passwd(5)): untrusted, so it is a file that a file system keeps, is read to a
//! bound and may be anything.

use super::files;
use super::line::{PasswdHome, PasswdLine};
use super::sys::{self, Result};
use super::wire::Rec;
use super::{MALFORMED, Stage};

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
        let mut home = PasswdHome::default();
        if self.search(rec.x, &mut home) != Ok(true) || home.bytes().is_empty() {
            home.root();
        }
        let home = home.bytes();
        let text = b"HOME=";
        if text.len() + home.len() >= room {
            return Err(MALFORMED);
        }
        // SAFETY: the buffer is in bounds (checked above), belongs to this operation alone, and its last byte, a
        // NUL, is not reached; the entry is in bounds and aligned.
        unsafe {
            core::ptr::copy_nonoverlapping(text.as_ptr(), buffer, text.len());
            core::ptr::copy_nonoverlapping(home.as_ptr(), buffer.add(text.len()), home.len());
            *entry = u64::from(rec.t);
        }
        Ok(())
    }

    /// Whether the home was found, whole.
    #[inline(never)]
    fn search(&self, uid: u32, home: &mut PasswdHome) -> Result<bool> {
        let resolve = sys::RESOLVE_IN_ROOT | sys::RESOLVE_NO_MAGICLINKS;
        // Looked at before it is opened: opening a device can have effects.
        let found = self.find(c"/etc/passwd", 0, 0)?;
        let stored = files::is_stored(found);
        sys::close(found);
        if !stored? {
            return Ok(false);
        }
        // Non-blocking: it may be a FIFO by now.
        let flags = sys::O_RDONLY | sys::O_NONBLOCK | sys::O_NOCTTY;
        let file = sys::openat2(self.root, c"/etc/passwd", flags, 0, resolve)?;
        let mut line = PasswdLine::default();
        let mut chunk = [0; 512];
        let mut total = 0;
        let mut whole = false;
        // Once more: it may be another one by now.
        let stored = files::is_stored(file)?;
        while stored && !whole && total < BOUND {
            let length = sys::read(file, &mut chunk)?;
            if length == 0 {
                whole = line.end(uid);
                break;
            }
            total += length;
            whole = chunk[..length].iter().any(|byte| line.push(*byte, uid, home));
        }
        sys::close(file);
        Ok(whole)
    }
}
