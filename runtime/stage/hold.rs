// SPDX-License-Identifier: Apache-2.0
//! The end of a `hold`: a process that waits, so that the namespaces it is in stay.

use super::Stage;
use super::sys::{self, Result};
use super::wire::Rec;

impl Stage {
    /// Waits for ever: what it is in stays for as long. Nobody is there to hear of a failure.
    pub(super) fn hold(&mut self, rec: &Rec) -> Result<()> {
        const PR_SET_NAME: u32 = 15;
        sys::close(self.host);
        sys::prctl(PR_SET_NAME, self.text(rec.s)?.as_ptr() as u64, 0)?;
        loop {
            let _ = sys::poll(&mut [], None);
        }
    }

    /// Children that end, and orphans that come to the first process of a pid namespace, leave no zombies (wait(2), "NOTES").
    pub(super) fn disown(&self) -> Result<()> {
        const SIGCHLD: u32 = 17;
        sys::ignore_signal(SIGCHLD);
        Ok(())
    }
}
