// SPDX-License-Identifier: Apache-2.0
//! What a container's states and operations are: runtime.md of the OCI runtime specification, and for `pause`, `resume`, `exec`, `list`
//! and `delete --force`, which it does not know, what runc's command line does.
//!
//! Where the specification lets things happen by and by (a container is being created; it was sent SIGKILL, and ends when the
//! kernel gets round to it; it is being deleted), so does this: that is a state of its own, in which both answers are right.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use crate::harness::linear::Model;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    Created,
    Running,
    /// Each of them frozen.
    CreatedPaused,
    Paused,
}

impl Phase {
    fn frozen(self) -> Self {
        match self {
            Self::Created | Self::CreatedPaused => Self::CreatedPaused,
            Self::Running | Self::Paused => Self::Paused,
        }
    }

    fn thawed(self) -> Self {
        match self {
            Self::Created | Self::CreatedPaused => Self::Created,
            Self::Running | Self::Paused => Self::Running,
        }
    }

    /// As `state` tells it.
    fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::CreatedPaused | Self::Paused => "paused",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum State {
    #[default]
    Absent,
    /// Each container is named after the operation that makes it, until that has taken effect: then it is `HERE`, and later `GONE`.
    Creating(usize),
    Alive(usize, Phase),
    /// SIGKILL is on its way.
    Dying(usize, Phase),
    Stopped(usize),
    /// With what it was, as long as nobody has seen it dead; and whether it is by force, which kills before it keeps others away.
    Deleting(usize, Option<Phase>, bool),
}

/// The container that is there, whoever made it, and all that were there before: nobody can tell more of them.
const HERE: usize = 0;
const GONE: usize = usize::MAX;

use State::{Absent, Alive, Creating, Deleting, Dying, Stopped};

impl State {
    /// The same of this container.
    fn of(self, it: usize) -> Self {
        match self {
            Absent => Absent,
            Creating(_) => Creating(it),
            Alive(_, phase) => Alive(it, phase),
            Dying(_, phase) => Dying(it, phase),
            Stopped(_) => Stopped(it),
            Deleting(_, phase, force) => Deleting(it, phase, force),
        }
    }

    /// The container that is there.
    fn container(self) -> Option<usize> {
        match self {
            Absent => None,
            Creating(it) | Alive(it, _) | Dying(it, _) | Stopped(it) | Deleting(it, ..) => Some(it),
        }
    }

    /// The program of this container is not dead, as far as anybody knows.
    fn lives(self, it: usize) -> bool {
        matches!(self, Alive(one, _) if one == it)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Create,
    Start,
    /// Of a program that ends at once.
    Exec,
    Kill,
    Pause,
    Resume,
    Delete,
    DeleteForce,
    /// `state`, or this container's line of `list`.
    Look,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Done,
    /// In words that say what the container's state forbids.
    Refused,
    /// In any others: only if the container was taken away, or ended, meanwhile.
    Failed,
    /// `state` or `list` have told this status.
    Status(String),
    /// `list` has not told of it.
    Nothing,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub verb: Verb,
    pub answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Progress {
    #[default]
    Asked,
    /// The first half is done, of this container.
    Half(usize),
    /// A `create` has made this one, and not answered yet.
    Made(usize),
    Done,
}

type Steps = Vec<(State, Progress)>;

/// The container of one id.
pub struct Container;

impl Model for Container {
    type State = State;
    type Call = Call;
    type Progress = Progress;

    fn steps(call: &Call, number: usize, state: &State, progress: &Progress) -> Steps {
        let second = match progress {
            Progress::Asked => None,
            Progress::Half(it) | Progress::Made(it) => Some(*it),
            Progress::Done => return Vec::new(),
        };
        let done = call.answer == Answer::Done;
        match (call.verb, second) {
            (Verb::Create, None) => create(number, *state, &call.answer),
            (Verb::Create, Some(it)) => created(it, *state, *progress == Progress::Made(it), done),
            (Verb::Start, None) => start(*state, &call.answer),
            (Verb::Exec, None) => exec(*state, &call.answer),
            (Verb::Start | Verb::Exec, Some(it)) => executed(it, *state, done),
            (Verb::Delete | Verb::DeleteForce, None) => delete(*state, call),
            (Verb::Delete | Verb::DeleteForce, Some(it)) => deleted(it, *state, done),
            (Verb::Kill, _) => kill(*state, &call.answer),
            (Verb::Pause | Verb::Resume, _) => freeze(*state, call),
            (Verb::Look, _) => look(*state, &call.answer),
        }
    }

    fn is_done(progress: &Progress) -> bool {
        *progress == Progress::Done
    }

    fn forget(state: &mut State, pending: &mut BTreeMap<usize, Progress>) {
        let here = state.container();
        let name = |it: usize| if here == Some(it) { HERE } else { GONE };
        for progress in pending.values_mut() {
            match progress {
                Progress::Half(it) | Progress::Made(it) => *it = name(*it),
                Progress::Asked | Progress::Done => {}
            }
        }
        *state = state.of(HERE);
    }

    fn only_looks(call: &Call, progress: &Progress) -> bool {
        let done = call.answer == Answer::Done;
        match progress {
            // A `create` may have had the id, lost it to a `delete`, and found another one's container there.
            Progress::Asked => {
                call.verb == Verb::Look || (call.answer == Answer::Refused && call.verb != Verb::Create)
            }
            Progress::Half(GONE) | Progress::Made(GONE) => true,
            Progress::Half(_) | Progress::Made(_) => {
                done && matches!(call.verb, Verb::Create | Verb::Start | Verb::Exec)
            }
            Progress::Done => false,
        }
    }
}

/// It changes nothing, and says why.
fn refused(state: State, answer: &Answer) -> Steps {
    if *answer == Answer::Refused { vec![(state, Progress::Done)] } else { Vec::new() }
}

/// It comes too late, in whatever words.
fn too_late(state: State, answer: &Answer) -> Steps {
    match answer {
        Answer::Refused | Answer::Failed => vec![(state, Progress::Done)],
        _ => Vec::new(),
    }
}

fn create(number: usize, state: State, answer: &Answer) -> Steps {
    match state {
        Absent => vec![(Creating(number), Progress::Half(number))],
        other => refused(other, answer),
    }
}

/// It is there for everybody before its `create` has answered; who kills it then makes that fail, and clear it away.
fn created(it: usize, state: State, made: bool, done: bool) -> Steps {
    match state {
        Creating(one) if one == it => vec![(Alive(it, Phase::Created), Progress::Made(it))],
        other if done => {
            if made {
                vec![(other, Progress::Done)]
            } else {
                Vec::new()
            }
        }
        Alive(one, _) if one == it => Vec::new(),
        Dying(one, _) | Stopped(one) if one == it => vec![(Absent, Progress::Done)],
        // Somebody has deleted it in the midst.
        other => vec![(other, Progress::Done)],
    }
}

fn start(state: State, answer: &Answer) -> Steps {
    let mut all = match state {
        Dying(..) | Deleting(..) => too_late(state, answer),
        Alive(_, Phase::Created) => Vec::new(),
        other => refused(other, answer),
    };
    match state {
        Alive(it, Phase::Created) if *answer != Answer::Refused => {
            all.push((Alive(it, Phase::Running), Progress::Half(it)));
        }
        // What was paused is thawed so that it can die.
        Dying(it, phase) if phase.thawed() == Phase::Created && *answer != Answer::Refused => {
            all.push((Dying(it, Phase::Running), Progress::Half(it)));
        }
        _ => {}
    }
    all
}

/// Into what is not paused; runc takes a created container for one that runs.
fn exec(state: State, answer: &Answer) -> Steps {
    match state {
        Alive(it, Phase::Created | Phase::Running) if *answer != Answer::Refused => {
            vec![(state, Progress::Half(it))]
        }
        Alive(_, Phase::Created | Phase::Running) => Vec::new(),
        Dying(it, _) if *answer == Answer::Done => vec![(state, Progress::Half(it))],
        Dying(..) | Deleting(..) => too_late(state, answer),
        other => refused(other, answer),
    }
}

/// The program was executed, or its container has ended before.
fn executed(it: usize, state: State, done: bool) -> Steps {
    if done || !state.lives(it) { vec![(state, Progress::Done)] } else { Vec::new() }
}

fn kill(state: State, answer: &Answer) -> Steps {
    let done = *answer == Answer::Done;
    match state {
        Alive(it, phase) if done => vec![(Dying(it, phase), Progress::Done)],
        Dying(..) if done => vec![(state, Progress::Done)],
        Dying(it, _) => too_late(Stopped(it), answer),
        // It may not be dead yet.
        Deleting(..) if done => vec![(state, Progress::Done)],
        Deleting(..) => too_late(state, answer),
        Alive(..) => Vec::new(),
        other => refused(other, answer),
    }
}

/// runc pauses what was created, too. A container that is dying may still be frozen or thawed.
fn freeze(state: State, call: &Call) -> Steps {
    let pauses = call.verb == Verb::Pause;
    let after = |phase: Phase| if pauses { phase.frozen() } else { phase.thawed() };
    let done = call.answer == Answer::Done;
    match state {
        // There is nothing to do.
        Alive(_, phase) if phase == after(phase) => refused(state, &call.answer),
        Alive(it, phase) if done => vec![(Alive(it, after(phase)), Progress::Done)],
        Alive(..) => Vec::new(),
        Dying(it, phase) if done => vec![(Dying(it, after(phase)), Progress::Done)],
        Deleting(..) if done => vec![(state, Progress::Done)],
        Dying(..) | Deleting(..) => too_late(state, &call.answer),
        other => refused(other, &call.answer),
    }
}

/// What is stopped is deleted, and, as runc has it, what was only created; by force all is, and what is not there as well.
fn delete(state: State, call: &Call) -> Steps {
    let force = call.verb == Verb::DeleteForce;
    let begins = |it, phase| (Deleting(it, phase, force), Progress::Half(it));
    let mut all = match state {
        Alive(..) if force => Vec::new(),
        Alive(_, Phase::Created) | Stopped(_) => Vec::new(),
        Absent if force => vec![(state, Progress::Done)],
        Deleting(it, ..) if force => vec![(state, Progress::Half(it))],
        Deleting(..) => too_late(state, &call.answer),
        other => refused(other, &call.answer),
    };
    match state {
        _ if call.answer != Answer::Done => {}
        // Of one whose `create` has only just taken the id, which nobody can tell from one whose `create` is dead.
        Creating(it) => all.push(begins(it, Some(Phase::Created))),
        Alive(it, phase) if force || phase == Phase::Created => all.push(begins(it, Some(phase))),
        Dying(it, phase) => all.push(begins(it, Some(phase))),
        Stopped(it) => all.push(begins(it, None)),
        // Killed by force it is stopped, and whoever is quicker takes it away; of two without force one alone does.
        Deleting(it, phase, true) if !force => all.push(begins(it, phase)),
        _ => {}
    }
    all
}

fn deleted(it: usize, state: State, done: bool) -> Steps {
    match state {
        _ if !done => Vec::new(),
        Deleting(one, ..) if one == it => vec![(Absent, Progress::Done)],
        // Another deletion was quicker; what has the id now is somebody else's.
        other if other.container() != Some(it) => vec![(other, Progress::Done)],
        _ => Vec::new(),
    }
}

fn look(state: State, answer: &Answer) -> Steps {
    let told = match answer {
        Answer::Status(told) => told.as_str(),
        Answer::Refused | Answer::Nothing => "absent",
        Answer::Done | Answer::Failed => return Vec::new(),
    };
    let after = match (state, told) {
        (Absent, "absent") | (Creating(_), "absent" | "creating") => state,
        (Deleting(it, _, force), "absent" | "stopped") => Deleting(it, None, force),
        // On cgroup v1 what is to be killed is frozen first, so that nothing of it escapes, and thawed to die.
        (Deleting(_, Some(_), _), "paused") => state,
        (Deleting(_, Some(phase), _), told) if told == phase.name() || told == phase.thawed().name() => state,
        (Deleting(_, Some(Phase::Created), _), "creating") => state,
        (Stopped(_), "stopped") => state,
        (Alive(_, phase), told) if told == phase.name() => state,
        (Dying(it, _), "stopped") => Stopped(it),
        // What is frozen may be thawed so that it can die.
        (Dying(_, phase), told) if told == phase.name() || told == phase.thawed().name() => state,
        _ => return Vec::new(),
    };
    vec![(after, Progress::Done)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::linear::{Operation, explain};

    fn judged(history: &[(Verb, Answer, u64, u64)]) -> Result<(), usize> {
        let operation = |(verb, answer, begin, end): &(Verb, Answer, u64, u64)| Operation {
            call: Call { verb: *verb, answer: answer.clone() },
            begin: *begin,
            end: *end,
        };
        explain::<Container>(&history.iter().map(operation).collect::<Vec<_>>())
    }

    fn status(told: &str) -> Answer {
        Answer::Status(told.into())
    }

    #[test]
    fn a_whole_life_and_what_overlaps_is_explained() {
        let life = [
            (Verb::Create, Answer::Done, 0, 9),
            (Verb::Look, Answer::Refused, 1, 2),
            (Verb::Create, Answer::Refused, 3, 4),
            (Verb::Look, status("created"), 5, 12),
            (Verb::Start, Answer::Done, 10, 20),
            (Verb::Start, Answer::Refused, 11, 19),
            (Verb::Pause, Answer::Done, 21, 22),
            (Verb::Exec, Answer::Refused, 23, 24),
            (Verb::Resume, Answer::Done, 25, 26),
            (Verb::Exec, Answer::Done, 27, 28),
            (Verb::Delete, Answer::Refused, 29, 30),
            (Verb::Kill, Answer::Done, 31, 32),
            (Verb::Look, status("running"), 33, 34),
            (Verb::Look, status("stopped"), 35, 36),
            (Verb::Delete, Answer::Done, 37, 50),
            (Verb::Delete, Answer::Refused, 38, 60),
            (Verb::Create, Answer::Done, 39, 55),
            (Verb::DeleteForce, Answer::Done, 56, 58),
        ];
        assert_eq!(judged(&life), Ok(()));
    }

    /// Of five creates and as many deletions none answers before the others are done: whose container was there when
    /// makes no difference, once it is gone.
    #[test]
    fn of_many_containers_that_are_gone_nobody_asks_which_was_which() {
        let mut history: Vec<_> = (0..3).map(|one| (Verb::Create, Answer::Done, one, 100 + one)).collect();
        history.extend((0..5).map(|one| (Verb::DeleteForce, Answer::Done, 10 + one, 110 + one)));
        history.extend((0..2).map(|one| (Verb::Exec, Answer::Failed, 20 + one, 120 + one)));
        history.extend((0..2).map(|one| (Verb::Create, Answer::Failed, 30 + one, 130 + one)));
        history.extend((0..2).map(|one| (Verb::Start, Answer::Done, 40 + one, 140 + one)));
        assert_eq!(judged(&history), Ok(()));
        history.push((Verb::Look, status("paused"), 200, 201));
        assert_eq!(judged(&history), Err(14));
    }

    #[test]
    fn planted_violations_are_refused() {
        use Answer::{Done, Failed, Refused};
        use Verb::{Create, Delete, DeleteForce, Exec, Kill, Look, Pause, Start};
        let created = (Create, Done, 0, 1);
        for (last, history) in [
            // Two that made it, one after the other or at once.
            (1, vec![created.clone(), (Create, Done, 2, 3)]),
            (1, vec![(Create, Done, 0, 9), (Create, Done, 1, 10)]),
            // It was made, and was not there.
            (1, vec![created.clone(), (Look, Refused, 2, 3)]),
            // It was deleted twice, or though it ran.
            (2, vec![created.clone(), (Delete, Done, 2, 9), (Delete, Done, 3, 10)]),
            (2, vec![created.clone(), (Start, Done, 2, 3), (Delete, Done, 4, 5)]),
            // Back from the dead.
            (
                3,
                vec![
                    created.clone(),
                    (Kill, Done, 2, 3),
                    (Look, status("stopped"), 4, 5),
                    (Look, status("created"), 6, 7),
                ],
            ),
            // Nobody did anything to it, and an operation failed.
            (1, vec![created.clone(), (Start, Failed, 2, 3)]),
            (0, vec![(Create, Failed, 0, 1)]),
            // A late deletion took the next one's place away.
            (
                3,
                vec![
                    created.clone(),
                    (DeleteForce, Done, 2, 9),
                    (DeleteForce, Done, 3, 4),
                    (Create, Failed, 10, 20),
                ],
            ),
            // A paused one was given a process.
            (2, vec![created, (Pause, Done, 2, 3), (Exec, Done, 4, 5)]),
        ] {
            assert_eq!(judged(&history), Err(last), "{history:?}");
        }
    }
}
