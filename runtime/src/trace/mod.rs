// SPDX-License-Identifier: Apache-2.0
//! Where the time of a verb goes: what `--trace` records, and what `corten trace` makes of it.
//!
//! A verb that is asked to (`Home::trace`) tells a [`Recorder`] what it has done from when to when; without one it reads no
//! clock. The host's half is timed by `host/launch.rs`, the stage's comes out of its log (`host/log.rs`). What is recorded is
//! data; it becomes a file in the format of Chrome's trace viewer and of Perfetto in `json`, which `chart` reads and
//! `picture` draws. Nothing here acts on the host.

#![forbid(unsafe_code)]

pub mod chart;
mod json;
pub mod picture;

use std::cell::RefCell;

use crate::error::Error;
use crate::sys::ticks::{self, Moment};

/// Who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The runtime's own process.
    Host,
    /// The process that becomes the container's, up to the exec of the user's program.
    Stage,
}

impl Side {
    /// As `corten plan` says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::Host => "host",
            Side::Stage => "stage",
        }
    }
}

/// Something that took time. Times are nanoseconds of CLOCK_MONOTONIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) side: Side,
    /// In words; of a step those of `corten plan`.
    pub(crate) name: String,
    /// JSON pointer into config.json; empty when no field asked for it.
    pub(crate) field: String,
    /// Which step of the program, from 1; `None`: none of it.
    pub(crate) step: Option<usize>,
    pub(crate) begin: u64,
    pub(crate) end: u64,
    /// Of a step of the host's: how long its thread computed, in the kernel or out of it. The rest it waited.
    pub(crate) cpu: Option<u64>,
    /// It is there to wait for the other side.
    pub(crate) waits: bool,
    /// Of a step of the stage's: its system calls.
    pub(crate) calls: Vec<LoggedCall>,
    /// Why it failed.
    pub(crate) error: Option<String>,
}

/// A system call of the stage's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoggedCall {
    pub(crate) name: String,
    pub(crate) begin: u64,
    /// `None`: it has not returned.
    pub(crate) end: Option<u64>,
    /// 0: it succeeded.
    pub(crate) errno: i32,
}

/// A moment at which a step begins: by the clock, and by what its thread has computed so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begin {
    nanos: u64,
    cpu: u64,
}

/// Records one verb. Not to be shared between threads.
pub struct Recorder {
    verb: String,
    id: String,
    begun: u64,
    /// The same by both clocks, where both can be read.
    moment: Option<Moment>,
    recorded: RefCell<Recorded>,
}

#[derive(Debug, Default)]
struct Recorded {
    spans: Vec<Span>,
    /// What has been told so far ends here.
    told: u64,
    /// The pid of the container's process.
    stage: Option<i32>,
    /// Why there is nothing of the stage's, or not all.
    missing: Option<String>,
}

impl Recorder {
    /// Begins to record `verb` on the container `id`, now.
    #[must_use]
    pub fn new(verb: &str, id: &str) -> Recorder {
        let begun = ticks::nanos();
        Recorder {
            verb: verb.to_owned(),
            id: id.to_owned(),
            begun,
            moment: ticks::moment(),
            recorded: RefCell::new(Recorded { told: begun, ..Recorded::default() }),
        }
    }

    /// What was recorded, as a file for Chrome's trace viewer and Perfetto. `failure` is what the verb failed with: what it was about
    /// then is the last that is told of the host.
    #[must_use]
    pub fn finish(self, failure: Option<&Error>) -> String {
        if let Some(error) = failure {
            self.fail(error);
        }
        json::file(&self)
    }

    /// When the first moment by both clocks was; `None` where the counter must not be read.
    pub(crate) fn first_moment(&self) -> Option<Moment> {
        self.moment
    }

    /// The host has done this since what was told last. It is no step.
    pub(crate) fn mark(&self, name: &str) {
        let now = ticks::nanos();
        let mut recorded = self.recorded.borrow_mut();
        let span = Span::new(Side::Host, name, (recorded.told, now));
        recorded.spans.push(span);
        recorded.told = now;
    }

    /// A step of the host's begins.
    pub(crate) fn begin() -> Begin {
        Begin { nanos: ticks::nanos(), cpu: ticks::nanos_of_thread() }
    }

    /// It has ended: `step`, which has no times yet.
    pub(crate) fn end(&self, began: Begin, step: Span) {
        let (cpu, now) = (ticks::nanos_of_thread(), ticks::nanos());
        let mut recorded = self.recorded.borrow_mut();
        recorded.told = now;
        let cpu = Some(cpu.saturating_sub(began.cpu));
        recorded.spans.push(Span { begin: began.nanos, end: now, cpu, ..step });
    }

    /// What is known of the process with this pid.
    pub(crate) fn stage(&self, pid: i32, spans: Vec<Span>, missing: Option<String>) {
        let mut recorded = self.recorded.borrow_mut();
        // Who waited for what has failed has not failed itself.
        if spans.iter().any(|span| span.error.is_some()) {
            recorded.spans.iter_mut().filter(|span| span.waits).for_each(|span| span.error = None);
        }
        recorded.stage = Some(pid);
        recorded.spans.extend(spans);
        recorded.missing = missing;
    }

    /// What the verb was about fails, unless that has been told of a step.
    fn fail(&self, error: &Error) {
        let told = self.recorded.borrow().spans.iter().any(|span| span.error.is_some());
        if !told {
            self.mark("what failed");
            if let Some(last) = self.recorded.borrow_mut().spans.last_mut() {
                last.error = Some(error.to_string());
            }
        }
    }
}

impl Span {
    /// Something of `side` that is called `name`, from when to when.
    pub(crate) fn new(side: Side, name: &str, (begin, end): (u64, u64)) -> Span {
        Span {
            side,
            name: name.to_owned(),
            field: String::new(),
            step: None,
            begin,
            end,
            cpu: None,
            waits: false,
            calls: Vec::new(),
            error: None,
        }
    }
}
