// SPDX-License-Identifier: Apache-2.0
//! What is under way and must not be cut off: requests, ends that are being told. And the gate that lets nothing new begin
//! while the server waits for a moment without any (`upgrade/`).
//!
//! Of the first thread alone. What merely waits is not work: it can be waited for again.

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use tokio::sync::Notify;

#[derive(Default)]
struct Works {
    /// By the order of their beginning, as people would name them.
    under_way: RefCell<BTreeMap<u64, String>>,
    next: Cell<u64>,
    fewer: Notify,
    held: Cell<bool>,
    opened: Notify,
}

thread_local! {
    static WORKS: &'static Works = Box::leak(Box::default());
}

fn works() -> &'static Works {
    WORKS.with(|works| *works)
}

/// Something under way, until it is dropped.
pub struct PieceOfWork(u64);

impl Drop for PieceOfWork {
    fn drop(&mut self) {
        let works = works();
        works.under_way.borrow_mut().remove(&self.0);
        works.fewer.notify_waiters();
    }
}

/// It begins.
pub fn begin(what: impl Into<String>) -> PieceOfWork {
    let works = works();
    let number = works.next.get();
    works.next.set(number + 1);
    works.under_way.borrow_mut().insert(number, what.into());
    PieceOfWork(number)
}

/// All that is under way, the oldest first.
pub fn list() -> Vec<String> {
    works().under_way.borrow().values().cloned().collect()
}

/// Waits until nothing is under way.
pub async fn none() {
    let works = works();
    loop {
        // Registered before the look, so that an end in between is not missed.
        let fewer = works.fewer.notified();
        if works.under_way.borrow().is_empty() {
            return;
        }
        fewer.await;
    }
}

/// The gate, closed until this is dropped.
pub struct Held(());

impl Drop for Held {
    fn drop(&mut self) {
        works().held.set(false);
        works().opened.notify_waiters();
    }
}

/// Closes the gate. There is one who does.
pub fn hold() -> Held {
    works().held.set(true);
    Held(())
}

/// Waits until the gate is open.
pub async fn may_begin() {
    let works = works();
    loop {
        let opened = works.opened.notified();
        if !works.held.get() {
            return;
        }
        opened.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_under_way_is_named_until_it_ends() {
        let [first, second] = ["Create of c", "Start of c"].map(begin);
        assert_eq!(list(), ["Create of c", "Start of c"]);
        drop(first);
        assert_eq!(list(), ["Start of c"]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let waits = tokio::task::spawn_local(none());
            tokio::task::yield_now().await;
            assert!(!waits.is_finished());
            drop(second);
            waits.await.unwrap();
            let held = hold();
            let waits = tokio::task::spawn_local(may_begin());
            tokio::task::yield_now().await;
            assert!(!waits.is_finished());
            drop(held);
            waits.await.unwrap();
        });
    }
}
