// SPDX-License-Identifier: Apache-2.0
//! The log of a traced stage, from outside: memory that it fills with readings of the processor's counter, and what they become.
//! Counterpart: `stage/trace.rs`.
//!
//! What comes from inside is numbers. They are read once, from a file of our own making, within its bounds; what is no time between
//! the clone and now makes all of it worth nothing, and a call's number is a number.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, OFlags, SealFlags, fcntl_add_seals, fstat, memfd_create};

use super::channel::call_name;
use super::launch::{LaunchPurpose, Launched, Walk};
use crate::ask::Home;
use crate::error::{Context, Error, Result};
use crate::program::{HostOp, Op, Program, Source, StageOp, explain};
use crate::stage::wire::log;
use crate::state::Dir;
use crate::sys::ticks::{Scale, moment, nanos};
use crate::trace::{Begin, LoggedCall, Recorder, Side, Span};

/// Its name in the directory of a container that was created with `--trace`: `start` reads what the stage does after the gate.
const NAME: &str = "trace";
/// Room for so many system calls for each operation, and so many in all at most. The default bundle has some three.
const CALLS_OF_STEP: usize = 12;
const MOST_CALLS: usize = 1 << 16;
/// By so much a reading may lie outside of the time in which it was made: pairs of readings of two clocks are not exact.
const INEXACT: u64 = 20_000;

/// The memory.
pub(super) struct StageLog {
    memory: OwnedFd,
    words: u32,
}

impl StageLog {
    /// Memory for a program of `ops` operations; in `dir` for whoever comes later. All of it is written to at once: it is ours, and not
    /// the container's, to pay for.
    pub(super) fn make(ops: usize, dir: Option<&Dir>) -> Result<StageLog> {
        let calls = (ops * CALLS_OF_STEP + 64).min(MOST_CALLS);
        let words = log::ENDS + ops + calls * log::CALL;
        let mut bytes = vec![0; words * 8];
        if let Some(first) = bytes.get_mut(..8) {
            first.copy_from_slice(&(ops as u64).to_ne_bytes());
        }
        let memory = match dir {
            Some(dir) => dir.write_shared(NAME, &bytes)?,
            None => {
                let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
                let memfd = memfd_create("corten-trace", flags).call(|| "memfd_create(corten-trace)")?;
                crate::state::write_all(memfd.as_fd(), &bytes).call(|| "write(corten-trace)")?;
                let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW;
                fcntl_add_seals(&memfd, seals).call(|| "fcntl(memfd, F_ADD_SEALS)")?;
                memfd
            }
        };
        Ok(StageLog { memory, words: words as u32 })
    }

    /// That of a container which was created with `--trace`.
    pub(super) fn open(dir: &Dir) -> Result<Option<StageLog>> {
        if !dir.has(NAME)? {
            return Ok(None);
        }
        let memory = dir.open_file(NAME, OFlags::RDONLY)?;
        let length = fstat(&memory).call(|| "fstat(trace)")?.st_size;
        Ok(Some(StageLog { memory, words: (length / 8) as u32 }))
    }

    /// How many 64-bit words it has.
    pub(super) fn words(&self) -> u32 {
        self.words
    }

    fn read(&self) -> Result<Readings> {
        let mut bytes = vec![0; self.words as usize * 8];
        let mut length = 0;
        while length < bytes.len() {
            match rustix::io::pread(&self.memory, &mut bytes[length..], length as u64)
                .call(|| "pread(trace)")?
            {
                0 => break,
                count => length += count,
            }
        }
        bytes.truncate(length);
        Ok(Readings::of(&bytes))
    }
}

impl AsFd for StageLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

/// What a launch knows of its stage's times.
#[derive(Default)]
pub(super) struct StageTrace {
    /// Where the stage writes, once it is there.
    pub(super) log: Option<StageLog>,
    /// When its process was about to be cloned.
    cloned: u64,
    /// When its exec was heard of.
    executed: Option<u64>,
}

impl StageTrace {
    /// Its process is cloned now.
    pub(super) fn is_cloned(&mut self) {
        self.cloned = nanos();
    }
}

impl Walk<'_> {
    /// Memory for the stage's log, if a trace is asked for and the processor's counter can be read.
    pub(super) fn make_stage_log(&self) -> Result<Option<StageLog>> {
        if self.given.home.trace.and_then(Recorder::first_moment).is_none() {
            return Ok(None);
        }
        let program = self.given.program;
        // What the stage does after the gate, `start` reads.
        let waits = program.sources.iter().any(|source| matches!(source, Source::Gate | Source::GateFifo));
        let dir = match &self.given.purpose {
            LaunchPurpose::Create { dir, .. } if waits => Some(*dir),
            _ => None,
        };
        StageLog::make(program.records().len(), dir).map(Some)
    }

    /// A step begins, and somebody asks how long it takes.
    pub(super) fn begin_step(&self) -> Option<Begin> {
        self.given.home.trace.map(|_| Recorder::begin())
    }

    /// It has ended.
    pub(super) fn tell_step(&mut self, began: Option<Begin>, index: usize, error: Option<&Error>) {
        let program = self.given.program;
        let (Some(recorder), Some(began), Some(step)) =
            (self.given.home.trace, began, program.steps.get(index))
        else {
            return;
        };
        let span = Span {
            step: Some(index + 1),
            field: step.at.clone(),
            waits: waits(&step.op),
            error: error.map(ToString::to_string),
            ..Span::new(Side::Host, &explain::sentence(program, step), (0, 0))
        };
        recorder.end(began, span);
        if let (Op::Host(HostOp::Outcome), Some(trace)) = (&step.op, &mut self.trace) {
            trace.executed = Some(nanos());
        }
    }

    /// All is done, or has failed: what the stage has done meanwhile.
    pub(super) fn tell_stage(&self, walked: &Result<Launched>) {
        let (Some(recorder), Some(trace)) = (self.given.home.trace, &self.trace) else { return };
        let pid = walked.as_ref().map_or_else(|_| self.pid(), |launched| launched.pid);
        if pid == 0 || self.given.restoration.is_some() {
            return;
        }
        let failure = walked.as_ref().err().filter(|_| self.end_heard.get()).map(ToString::to_string);
        let until = trace.executed.unwrap_or_else(nanos);
        let program = self.given.program;
        let telling = Telling { program, recorder, from: 0, since: trace.cloned, until, failure };
        telling.tell(trace.log.as_ref(), pid);
    }
}

/// `start`: what the stage of a container does after the gate.
pub(crate) struct StartTrace<'a> {
    recorder: &'a Recorder,
    /// When the word was given.
    since: u64,
}

impl<'a> StartTrace<'a> {
    /// The word is given now.
    pub(crate) fn begin(home: &Home<'a>) -> Option<StartTrace<'a>> {
        home.trace.map(|recorder| StartTrace { recorder, since: nanos() })
    }

    /// It has been heard what became of it.
    pub(crate) fn tell(&self, dir: &Dir, pid: i32, program: &Result<Program>, failure: Option<&Error>) {
        let told = match program {
            Ok(program) => self.tell_of(dir, pid, program, failure),
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = told {
            self.recorder.stage(pid, Vec::new(), Some(format!("the stage's half: {why}")));
        }
    }

    fn tell_of(&self, dir: &Dir, pid: i32, program: &Program, failure: Option<&Error>) -> Result<(), String> {
        let log = StageLog::open(dir).map_err(|error| error.to_string())?;
        let log = log.ok_or("the container was created without --trace")?;
        let gate =
            |index: &usize| program.steps.get(*index).is_some_and(|step| step.op == Op::Stage(StageOp::Gate));
        let from = program.records().iter().position(gate).unwrap_or(0);
        let failure = failure.map(ToString::to_string);
        let (recorder, since) = (self.recorder, self.since);
        let telling = Telling { program, recorder, from, since, until: nanos(), failure };
        telling.tell(Some(&log), pid);
        Ok(())
    }
}

/// What it says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Readings {
    begun: u64,
    /// By operation, 0 if it has not ended.
    ends: Vec<u64>,
    /// Begin, end, number and errno.
    calls: Vec<[u64; 3]>,
    /// There was no room for all of them.
    full: bool,
}

impl Readings {
    fn of(bytes: &[u8]) -> Readings {
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|word| u64::from_ne_bytes(word.try_into().unwrap_or_default()))
            .collect();
        let word = |at: usize| words.get(at).copied().unwrap_or(0);
        // A program is smaller than this in bytes, let alone in operations.
        let ops = usize::try_from(word(log::OPS)).unwrap_or(0).min(words.len());
        let (ends, calls) =
            words.get(log::ENDS..).unwrap_or_default().split_at_checked(ops).unwrap_or_default();
        let (calls, _) = calls.as_chunks::<{ log::CALL }>();
        let made = calls.iter().take_while(|call| call[0] != 0).count();
        Readings {
            begun: word(log::BEGUN),
            ends: ends.to_vec(),
            full: !calls.is_empty() && made == calls.len(),
            calls: calls[..made].to_vec(),
        }
    }

    /// Whether all of it lies between two moments, and in order.
    fn is_within(&self, scale: &Scale, first: u64, last: u64) -> bool {
        let (mut before, last) = (first.saturating_sub(INEXACT), last + INEXACT);
        let mut follows = |ticks: u64| {
            let at = scale.nanos(ticks);
            let follows = before <= at && at <= last;
            before = at;
            follows
        };
        let steps = std::iter::once(self.begun).chain(self.ends.iter().copied().filter(|end| *end != 0));
        let steps = steps.into_iter().all(&mut follows);
        let (begun, mut latest) = (self.begun, self.begun);
        let calls = self.calls.iter().all(|[begin, end, _]| {
            let in_order = latest <= *begin && (*end == 0 || begin <= end);
            latest = (*begin).max(*end);
            in_order
        });
        steps && calls && scale.nanos(latest.max(begun)) <= last
    }
}

/// What is told of the stage's half.
struct Telling<'a> {
    program: &'a Program,
    recorder: &'a Recorder,
    /// The operation that is the first to be told of.
    from: usize,
    /// When what is told began, by the host's clock: the clone, or the word of `start`.
    since: u64,
    /// When it was heard that it has ended, by the exec of the user's program or by failing, or when it was let go to the gate.
    until: u64,
    /// Why it failed.
    failure: Option<String>,
}

impl Telling<'_> {
    /// Reads the log and tells the recorder.
    fn tell(&self, log: Option<&StageLog>, pid: i32) {
        let (spans, missing) = match self.spans(log) {
            Ok(told) => told,
            Err(why) => (Vec::new(), Some(why)),
        };
        self.recorder.stage(pid, spans, missing);
    }

    fn spans(&self, log: Option<&StageLog>) -> Result<(Vec<Span>, Option<String>), String> {
        let log = log.ok_or("the stage's half: memfds may not be executed here, and the interpreter that is linked in keeps no log")?;
        let readings = log.read().map_err(|error| format!("the stage's half: {error}"))?;
        let scale = self.recorder.first_moment().zip(moment());
        let scale = scale.and_then(|(first, last)| Scale::between(first, last));
        let scale = scale.ok_or(
            "the stage's half: the processor's counter cannot be read (PR_SET_TSC), or stands still",
        )?;
        if readings.begun == 0 {
            return Err("the stage's half: it had not begun".to_owned());
        }
        let whole = Readings { ends: self.known(&readings.ends), ..readings };
        // What `start` is told of began with `create`, before the first moment of this process.
        let first = if self.from == 0 { self.since } else { 0 };
        if !whole.is_within(&scale, first, nanos()) {
            return Err(
                "the stage's half: the processor's counter and the kernel's clock disagree".to_owned()
            );
        }
        let missing = whole
            .full
            .then(|| "some of the stage's system calls: there were more than there is room for".to_owned());
        Ok((self.of_readings(&whole, &scale), missing))
    }

    /// No more operations than the program has.
    fn known(&self, ends: &[u64]) -> Vec<u64> {
        ends.iter().copied().take(self.program.records().len()).collect()
    }

    fn of_readings(&self, readings: &Readings, scale: &Scale) -> Vec<Span> {
        let mut spans = Vec::new();
        let mut calls = readings.calls.iter().peekable();
        let begun = scale.nanos(readings.begun);
        if self.from == 0 {
            let name = "from the clone to the stage's first instruction";
            spans.push(Span::new(Side::Stage, name, (self.since.min(begun), begun)));
        }
        let mut begin = readings.begun;
        for (record, (index, end)) in self.program.records().into_iter().zip(&readings.ends).enumerate() {
            let Some(step) = self.program.steps.get(index) else { continue };
            let is_last = *end == 0;
            // It waits there, as it should.
            if is_last && step.op == Op::Stage(StageOp::Gate) {
                break;
            }
            let until = if is_last { self.until } else { scale.nanos(*end) };
            let mut own = Vec::new();
            while let Some(call) = calls.next_if(|call| is_last || call[0] <= *end) {
                own.push(of_call(call, scale));
            }
            if record >= self.from {
                // What it waits for at the gate began long before `start`.
                let since = if self.from == 0 { 0 } else { self.since };
                own.retain(|call| call.end.is_none_or(|end| end > since));
                own.iter_mut().for_each(|call| call.begin = call.begin.max(since));
                let from = scale.nanos(begin).max(since);
                let waits = waits(&step.op);
                spans.push(Span {
                    step: Some(index + 1),
                    field: step.at.clone(),
                    waits,
                    calls: own,
                    // One that waits is not what has failed.
                    error: self.failure.clone().filter(|_| is_last && !waits),
                    ..Span::new(Side::Stage, &explain::sentence(self.program, step), (from.min(until), until))
                });
            }
            if is_last {
                break;
            }
            begin = *end;
        }
        spans
    }
}

fn of_call([begin, end, what]: &[u64; 3], scale: &Scale) -> LoggedCall {
    LoggedCall {
        name: call_name((what >> 32) as u32),
        begin: scale.nanos(*begin),
        end: (*end != 0).then(|| scale.nanos(*end)),
        errno: (*what & 0xffff) as i32,
    }
}

/// Whether a step is there to wait for the other side, whose steps are told beside it.
fn waits(op: &Op) -> bool {
    matches!(
        op,
        Op::Host(HostOp::Await(_) | HostOp::Adopt | HostOp::Outcome)
            | Op::Stage(StageOp::Barrier { .. } | StageOp::Gate | StageOp::JoinSent(_))
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Step;
    use crate::sys::ticks::Moment;

    fn bytes(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn program() -> Program {
        let step = |at: &str, op| Step { at: at.into(), op };
        let steps = vec![
            step("", Op::Host(HostOp::Keep)),
            step("/hostname", Op::Stage(StageOp::Hostname("h".into()))),
            step("", Op::Stage(StageOp::Setsid)),
            step("", Op::Stage(StageOp::Gate)),
        ];
        Program { sources: Vec::new(), steps }
    }

    /// One tick is ten nanoseconds.
    fn scale() -> Scale {
        let moment = |ticks, nanos| Moment { ticks, nanos };
        Scale::between(moment(0, 0), moment(1_000_000, 10_000_000)).unwrap()
    }

    #[test]
    fn readings_become_steps_with_their_calls() {
        // Sethostname in 10, one call of it; setsid under way.
        let words = [3, 100, 110, 0, 0, 102, 108, 170 << 32, 111, 0, 112 << 32, 0, 0, 0];
        let readings = Readings::of(&bytes(&words));
        assert!(!readings.full && readings.is_within(&scale(), 900, 2_000), "{readings:?}");
        let (program, recorder) = (program(), Recorder::new("create", "x"));
        let failure = Some("no".to_owned());
        let telling =
            Telling { program: &program, recorder: &recorder, from: 0, since: 900, until: 1_500, failure };
        let spans = telling.of_readings(&readings, &scale());
        let told: Vec<_> =
            spans.iter().map(|span| (span.step, span.begin, span.end, span.calls.len())).collect();
        assert_eq!(told, [(None, 900, 1_000, 0), (Some(2), 1_000, 1_100, 1), (Some(3), 1_100, 1_500, 1)]);
        assert_eq!((spans[1].field.as_str(), spans[1].error.as_deref()), ("/hostname", None));
        assert_eq!((spans[2].error.as_deref(), spans[2].calls[0].end), (Some("no"), None));
        // At the gate nothing more is told, and has not failed.
        let readings = Readings::of(&bytes(&[3, 100, 110, 120, 0]));
        assert_eq!(telling.of_readings(&readings, &scale()).len(), 3);
    }

    #[test]
    fn what_is_no_time_is_not_believed() {
        let within = |words: &[u64]| Readings::of(&bytes(words)).is_within(&scale(), 900, 2_000_000);
        assert!(within(&[3, 100, 110, 120, 130, 100, 130, 0]));
        for words in [
            &[3, 1, 110, 120, 130][..],
            &[3, 100, 110, 109, 130],
            &[3, 100, 110, 120, u64::MAX],
            &[3, 100, 110, 120, 130, 99, 130, 0],
            &[3, 100, 110, 120, 130, 110, 109, 0],
            &[3, 100, 110, 120, 130, 110, u64::MAX, 0],
        ] {
            assert!(words[1] == 1 || !within(words), "{words:?}");
        }
        // The first of them begins before its clone, by more than the clocks' inexactness.
        assert!(!Readings::of(&bytes(&[3, 1, 110, 120, 130])).is_within(&scale(), 30_000, 2_000_000));
    }

    /// Whatever is in the memory: no panic, no endless list, and no step that ends before it begins.
    #[test]
    fn any_bytes_are_numbers() {
        let (program, recorder) = (program(), Recorder::new("create", "x"));
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for round in 0..20_000 {
            let length = (next() % 40) as usize;
            let mask = if round % 2 == 0 { u64::MAX } else { 0xff };
            let words: Vec<u64> = (0..length).map(|_| next() & mask).collect();
            let mut bytes = bytes(&words);
            bytes.truncate(bytes.len() - (next() % 8) as usize % (bytes.len() + 1));
            let readings = Readings::of(&bytes);
            assert!(readings.ends.len() + readings.calls.len() * 3 <= length);
            let telling = Telling {
                program: &program,
                recorder: &recorder,
                from: (next() % 4) as usize,
                since: next() & mask,
                until: next() & mask,
                failure: None,
            };
            if readings.is_within(&scale(), 0, 1 << 40) {
                for span in telling.of_readings(&readings, &scale()) {
                    assert!(span.begin <= span.end, "{words:?}");
                }
            }
        }
    }
}
