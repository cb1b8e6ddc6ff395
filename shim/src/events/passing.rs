// SPDX-License-Identifier: Apache-2.0
//! Events that containerd has not acknowledged, handed over and gone on with.

#![forbid(unsafe_code)]

use std::rc::Rc;

use super::Events;
use crate::handover::state::EventsState;
use crate::handover::{Handed, Outgoing};
use crate::work;

impl Events {
    /// As they are handed over. The connection is not: containerd does not mind another one.
    pub fn pass(&self, to: &mut Outgoing) -> EventsState {
        EventsState {
            address: self.address.clone(),
            queue: self.queue.borrow().iter().map(|event| to.piece(event)).collect(),
            lost: self.lost.get(),
        }
    }

    /// Goes on with those that were handed over.
    pub fn resumed(namespace: &str, state: &EventsState, from: &Handed) -> Rc<Events> {
        let events = Events::new(namespace, &state.address);
        events.queue.borrow_mut().extend(state.queue.iter().map(|event| from.piece(*event).into()));
        events.lost.set(state.lost);
        events
    }

    /// Has an event on its way while `send` lasts. None sets out while the gate is closed.
    pub(super) async fn undisturbed<T>(&self, send: impl Future<Output = T>) -> T {
        work::may_begin().await;
        self.sending.set(true);
        let sent = send.await;
        self.sending.set(false);
        // Who waits looks when what comes of it has been done: nothing is awaited in between.
        self.emptied.notify_waiters();
        sent
    }

    /// Waits until no event is on its way: cut off there, it would come twice.
    pub async fn settled(&self) {
        while self.sending.get() {
            self.emptied.notified().await;
        }
    }
}
