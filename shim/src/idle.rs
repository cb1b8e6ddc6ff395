// SPDX-License-Identifier: Apache-2.0
//! An idle shim gives back what it can have again (decision 0030). Whoever gives it something to do says so.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::time::Duration;

use corten::sys::{kept, pages};
use tokio::sync::Notify;
use tokio::time::sleep;

/// How long nothing must have happened.
const QUIET: Duration = Duration::from_millis(300);

/// Whether there is something to do.
#[derive(Default)]
pub struct Idle {
    busy: Cell<bool>,
    woken: Notify,
}

impl Idle {
    /// Something happens. A store while the shim is awake.
    pub fn wake(&self) {
        if !self.busy.replace(true) {
            self.woken.notify_one();
        }
    }

    /// Gives pages back whenever nothing has happened for a while. For ever.
    pub async fn give_pages_back(&self) {
        loop {
            self.busy.set(false);
            sleep(QUIET).await;
            if self.busy.get() {
                continue;
            }
            kept::give_back();
            pages::give_back();
            self.woken.notified().await;
        }
    }
}
