// SPDX-License-Identifier: Apache-2.0
//! The workers: each calls the runtime's commands one after another, and keeps what was answered and when.

#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::Value;

use super::model::{Answer, Call, Verb};
use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Trouble, Verdict};
use crate::harness::dice::Dice;
use crate::harness::linear::Operation;
use crate::harness::test::{Test, reap_orphans};

/// An operation, and what it said on stderr.
pub type Told = (Operation<Call>, String);

/// What says that the container's state forbids it.
const REFUSALS: [&str; 11] = [
    "does not exist",
    "already exists",
    "not running",
    "that is not stopped",
    "cannot start a",
    "container not paused",
    "container is paused",
    "cannot exec in a",
    "is being created",
    "not created",
    "container has stopped",
];

/// What they share. (The case's own `Test` belongs to one thread.)
pub struct Workers<'t> {
    runtime: &'t Path,
    root: String,
    bundles: &'t [Bundle],
    /// Operations that are yet to be begun.
    left: AtomicUsize,
    /// Workers that are at work.
    busy: AtomicUsize,
    clock: Instant,
    /// Processes that a worker waits for; all others are orphans of the runtime.
    own: Mutex<HashSet<i32>>,
    /// For each id.
    told: Vec<Mutex<Vec<Told>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'t> Workers<'t> {
    pub fn new(t: &'t Test, bundles: &'t [Bundle], count: usize) -> Self {
        Self {
            runtime: &t.host.runtime,
            root: t.place.root.to_string_lossy().into_owned(),
            bundles,
            left: AtomicUsize::new(count),
            busy: AtomicUsize::new(0),
            clock: Instant::now(),
            own: Mutex::default(),
            told: bundles.iter().map(|_| Mutex::default()).collect(),
        }
    }

    /// Lets so many of them work until all is done: what was told, for each id.
    pub fn work(&self, workers: usize) -> Result<Vec<Vec<Told>>, Trouble> {
        self.busy.store(workers, Ordering::SeqCst);
        std::thread::scope(|scope| -> Verdict {
            let one = |seed: usize| scope.spawn(move || self.works(Dice::of(seed as u64)));
            let all: Vec<_> = (0..workers).map(one).collect();
            self.watch()?;
            all.into_iter().try_for_each(|one| one.join().map_err(|_| Trouble::from("a worker panicked"))?)
        })?;
        Ok(self.told.iter().map(|told| std::mem::take(&mut *locked(told))).collect())
    }

    /// Reaps orphans until nobody works any more; an exec in a container that nobody thaws then is helped.
    fn watch(&self) -> Verdict {
        let mut dice = Dice::of(u64::MAX);
        let mut last = Instant::now();
        while self.busy.load(Ordering::SeqCst) > 0 {
            let own = locked(&self.own);
            reap_orphans(|pid| own.contains(&pid));
            drop(own);
            std::thread::sleep(Duration::from_millis(1));
            if self.left.load(Ordering::SeqCst) == 0 && last.elapsed() > Duration::from_millis(50) {
                self.ask(Verb::Resume, dice.below(self.bundles.len() as u64) as usize)?;
                last = Instant::now();
            }
        }
        Ok(())
    }
}

/// How often which verb is asked for.
const VERBS: [Verb; 22] = [
    Verb::Create,
    Verb::Create,
    Verb::Create,
    Verb::Create,
    Verb::Start,
    Verb::Start,
    Verb::Start,
    Verb::Exec,
    Verb::Exec,
    Verb::Exec,
    Verb::Kill,
    Verb::Kill,
    Verb::Pause,
    Verb::Resume,
    Verb::Resume,
    Verb::Delete,
    Verb::Delete,
    Verb::Delete,
    Verb::DeleteForce,
    Verb::Look,
    Verb::Look,
    Verb::Look,
];

impl Workers<'_> {
    fn works(&self, dice: Dice) -> Verdict {
        let outcome = self.until_all_is_done(dice);
        self.busy.fetch_sub(1, Ordering::SeqCst);
        outcome
    }

    fn until_all_is_done(&self, mut dice: Dice) -> Verdict {
        let one_less = |left: usize| left.checked_sub(1);
        while self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            let which = dice.below(self.bundles.len() as u64) as usize;
            match *dice.one(&VERBS) {
                Verb::Look if dice.once_in(3) => self.list()?,
                verb => self.ask(verb, which)?,
            }
        }
        Ok(())
    }

    fn now(&self) -> u64 {
        self.clock.elapsed().as_micros() as u64
    }

    /// One operation on one container.
    fn ask(&self, verb: Verb, which: usize) -> Verdict {
        let (id, dir) = (&self.bundles[which].id, self.bundles[which].dir.to_string_lossy());
        let words: Vec<&str> = match verb {
            Verb::Create => vec!["create", "--bundle", &dir, id],
            Verb::Start => vec!["start", id],
            Verb::Exec => vec!["exec", id, "/probe", "exit", "0"],
            Verb::Kill => vec!["kill", id, "KILL"],
            Verb::Pause => vec!["pause", id],
            Verb::Resume => vec!["resume", id],
            Verb::Delete => vec!["delete", id],
            Verb::DeleteForce => vec!["delete", "--force", id],
            Verb::Look => vec!["state", id],
        };
        let begin = self.now();
        let output = self.called(&words)?;
        let end = self.now();
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let answer = if output.status.success() {
            match verb {
                Verb::Look => Answer::Status(status(&output.stdout)?),
                _ => Answer::Done,
            }
        } else if REFUSALS.iter().any(|words| text.contains(words)) {
            Answer::Refused
        } else {
            Answer::Failed
        };
        self.keep(which, Operation { call: Call { verb, answer }, begin, end }, text);
        Ok(())
    }

    /// `list` looks at all of them, at each at some time of its own.
    fn list(&self) -> Verdict {
        let begin = self.now();
        let output = self.called(&["list", "--format", "json"])?;
        let end = self.now();
        let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        check!(output.status.success(), "list: {text}");
        let listed: Value = serde_json::from_slice(&output.stdout)?;
        for (which, bundle) in self.bundles.iter().enumerate() {
            let mut entries = listed.as_array().into_iter().flatten();
            let entry = entries.find(|entry| entry["id"] == bundle.id.as_str());
            let answer = match entry.map(|entry| entry["status"].as_str().unwrap_or_default().to_owned()) {
                Some(status) => Answer::Status(status),
                None => Answer::Nothing,
            };
            let call = Call { verb: Verb::Look, answer };
            self.keep(which, Operation { call, begin, end }, " (list)".into());
        }
        Ok(())
    }

    fn keep(&self, which: usize, operation: Operation<Call>, text: String) {
        let words = if text.is_empty() { text } else { format!(" {text:?}") };
        locked(&self.told[which]).push((operation, words));
    }

    fn called(&self, words: &[&str]) -> Result<Output, Trouble> {
        let mut command = Command::new(self.runtime);
        command.arg("--root").arg(&self.root).args(words).stdin(Stdio::null());
        let (stdout, stderr) = (nameless_file()?, nameless_file()?);
        command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
        let mut own = locked(&self.own);
        let mut child = command.spawn()?;
        own.insert(child.id() as i32);
        drop(own);
        let status = child.wait()?;
        locked(&self.own).remove(&(child.id() as i32));
        Ok(Output { status, stdout: contents(stdout)?, stderr: contents(stderr)? })
    }
}

/// A container keeps what its `create` was given: with a file, nobody waits for the end of that.
fn nameless_file() -> Result<File, Trouble> {
    Ok(File::from(memfd_create("output", MFdFlags::MFD_CLOEXEC)?))
}

fn contents(mut file: File) -> Result<Vec<u8>, Trouble> {
    file.rewind()?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(text)
}

fn status(stdout: &[u8]) -> Result<String, Trouble> {
    let state: Value = serde_json::from_slice(stdout)?;
    Ok(state["status"].as_str().unwrap_or_default().to_owned())
}
