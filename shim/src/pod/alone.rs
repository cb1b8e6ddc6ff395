// SPDX-License-Identifier: Apache-2.0
//! A server that nobody knows ends: its containerd failed right after `start`, or went away before the first create and
//! did not come back.

#![forbid(unsafe_code)]

use std::rc::Rc;
use std::time::Duration;

use tokio::time::timeout;

use super::Pod;
use crate::log;

/// How long a server stays that has neither a container nor a client. containerd connects as soon as it is told where.
const ALONE: Duration = Duration::from_secs(30);

/// A client's connection, while it is read from.
pub struct Visit(Rc<Pod>);

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.clients.set(self.0.clients.get() - 1);
        self.0.changed.notify_one();
    }
}

impl Pod {
    /// A client has connected.
    pub fn visit(self: &Rc<Self>) -> Visit {
        self.clients.set(self.clients.get() + 1);
        self.changed.notify_one();
        Visit(self.clone())
    }

    /// Watches for it until the server's end.
    pub async fn end_when_alone(&self) {
        loop {
            let changed = self.changed.notified();
            if self.clients.get() != 0 || !self.is_empty() {
                changed.await;
            } else if timeout(ALONE, changed).await.is_err() {
                log::warn("there is neither a container nor a client: ends");
                return self.end.notify_one();
            }
        }
    }
}
