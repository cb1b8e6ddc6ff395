// SPDX-License-Identifier: Apache-2.0
//! Is a history of operations that overlap linearizable: can what each answered be explained by all of them having taken effect one
//! after the other, each between its call and its answer?
//!
//! It is Wing and Gong's search with a memo: at each answer, everything that could have happened so far (a configuration: the
//! state, and how far each operation under way has come) is kept once, and those in which the operation that answers cannot have
//! done what it says are dropped. An operation may take more than one step. Nothing here knows what the operations are.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;

/// What operations do.
pub trait Model {
    type State: Clone + Eq + Hash + Default;
    /// What is asked, and what was answered. Equal ones that have come equally far are interchangeable: who of them goes first
    /// makes no difference but to themselves, and one whose object is gone can be done at any time.
    type Call: PartialEq;
    /// How far one has come.
    type Progress: Clone + Eq + Hash + Default;

    /// What the operation of this number may do next, given what it answered in the end: the state and its progress after it.
    fn steps(
        call: &Self::Call,
        number: usize,
        state: &Self::State,
        progress: &Self::Progress,
    ) -> Vec<(Self::State, Self::Progress)>;

    /// All of it is done.
    fn is_done(progress: &Self::Progress) -> bool;

    /// Takes out what makes no difference any more, so that configurations that differ in nothing else are one.
    fn forget(_: &mut Self::State, _: &mut BTreeMap<usize, Self::Progress>) {}

    /// Of one that has come so far: if its next step leaves the state as it is, it can do that at any later time as well, or need
    /// not do it later, and the sooner it is done, the better.
    fn only_looks(call: &Self::Call, progress: &Self::Progress) -> bool;
}

/// One operation: what, and when it was begun and answered, by one clock.
#[derive(Debug, Clone)]
pub struct Operation<C> {
    pub call: C,
    pub begin: u64,
    pub end: u64,
}

type Configuration<M> = (<M as Model>::State, BTreeMap<usize, <M as Model>::Progress>);

/// Looks for an explanation. If there is none, the number of the first operation whose answer has none.
pub fn explain<M: Model>(history: &[Operation<M::Call>]) -> Result<(), usize> {
    let begins = history.iter().enumerate().map(|(number, operation)| (operation.begin, true, number));
    let ends = history.iter().enumerate().map(|(number, operation)| (operation.end, false, number));
    let mut events: Vec<_> = begins.chain(ends).collect();
    // Of two at the same time the call comes first: they may have overlapped.
    events.sort_by_key(|(time, is_begin, number)| (*time, !is_begin, *number));
    let mut possible: HashSet<Configuration<M>> = HashSet::from([Default::default()]);
    for (_, is_begin, number) in events {
        possible = if is_begin {
            possible.into_iter().map(|configuration| begun::<M>(configuration, number)).collect()
        } else {
            answered::<M>(history, possible, number)
        };
        if possible.is_empty() {
            return Err(number);
        }
    }
    Ok(())
}

fn begun<M: Model>(mut configuration: Configuration<M>, number: usize) -> Configuration<M> {
    configuration.1.insert(number, M::Progress::default());
    configuration
}

/// All that may be once this one is done, whoever goes before it.
fn answered<M: Model>(
    history: &[Operation<M::Call>],
    possible: HashSet<Configuration<M>>,
    number: usize,
) -> HashSet<Configuration<M>> {
    let mut after = HashSet::new();
    let mut seen = possible.clone();
    let mut todo: Vec<_> = possible.into_iter().collect();
    while let Some((state, pending)) = todo.pop() {
        if pending.get(&number).is_none_or(M::is_done) {
            let mut rest = pending;
            rest.remove(&number);
            after.insert((state, rest));
            continue;
        }
        for next in followers::<M>(history, &state, &pending) {
            if seen.insert(next.clone()) {
                todo.push(next);
            }
        }
    }
    after
}

/// What one more step of anybody leads to. Where one that only looks can be done, that alone; of interchangeable ones, the one
/// that answers first (of twenty that wait for the same, it would otherwise matter which subset has gone before: a million).
fn followers<M: Model>(
    history: &[Operation<M::Call>],
    state: &M::State,
    pending: &BTreeMap<usize, M::Progress>,
) -> Vec<Configuration<M>> {
    let mut all = Vec::new();
    let mut waiting: Vec<_> = pending.iter().filter(|(_, progress)| !M::is_done(progress)).collect();
    waiting.sort_by_key(|(number, _)| history[**number].end);
    for (place, (number, progress)) in waiting.iter().enumerate() {
        let call = &history[**number].call;
        if waiting[..place].iter().any(|(other, theirs)| theirs == progress && history[**other].call == *call)
        {
            continue;
        }
        for (mut next, come) in M::steps(call, **number, state, progress) {
            let mut after = pending.clone();
            after.insert(**number, come);
            M::forget(&mut next, &mut after);
            if next == *state && M::only_looks(call, progress) {
                return vec![(next, after)];
            }
            all.push((next, after));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cell: `Ok(n)` writes, `Err(n)` reads n.
    struct Cell;

    impl Model for Cell {
        type State = u8;
        type Call = Result<u8, u8>;
        type Progress = bool;

        fn steps(call: &Self::Call, _: usize, state: &u8, _: &bool) -> Vec<(u8, bool)> {
            match call {
                Ok(written) => vec![(*written, true)],
                Err(read) if read == state => vec![(*state, true)],
                Err(_) => Vec::new(),
            }
        }

        fn is_done(progress: &bool) -> bool {
            *progress
        }

        fn only_looks(call: &Self::Call, _: &bool) -> bool {
            call.is_err()
        }
    }

    fn judged(history: &[(Result<u8, u8>, u64, u64)]) -> Result<(), usize> {
        let operation = |(call, begin, end): &(Result<u8, u8>, u64, u64)| Operation {
            call: *call,
            begin: *begin,
            end: *end,
        };
        explain::<Cell>(&history.iter().map(operation).collect::<Vec<_>>())
    }

    #[test]
    fn what_overlaps_may_come_in_any_order() {
        // Two writes at once, and two reads after each other that saw both, in the order that is not that of the calls.
        let history = [(Ok(1), 0, 9), (Ok(2), 1, 9), (Err(2), 2, 3), (Err(1), 4, 5), (Err(1), 10, 11)];
        assert_eq!(judged(&history), Ok(()));
    }

    /// Which of forty have written when the first answers is a matter of their number, not of a trillion subsets.
    #[test]
    fn of_many_that_do_the_same_at_once_only_the_number_counts() {
        let mut history: Vec<_> = (0..40).map(|one| (Ok(1), one, 200 - one)).collect();
        history.extend((0..40).map(|one| (Ok(2), one, 300 - one)));
        history.push((Err(2), 400, 401));
        assert_eq!(judged(&history), Ok(()));
        history.push((Err(1), 402, 403));
        assert_eq!(judged(&history), Err(81));
    }

    #[test]
    fn a_planted_violation_is_found() {
        // Back to what was there before.
        let again = [(Ok(1), 0, 9), (Ok(2), 1, 9), (Err(2), 2, 3), (Err(1), 4, 5), (Err(2), 10, 11)];
        assert_eq!(judged(&again), Err(4));
        // A read of what was not written yet, and one of what was overwritten before it began.
        assert_eq!(judged(&[(Err(1), 0, 1), (Ok(1), 2, 3)]), Err(0));
        assert_eq!(judged(&[(Ok(1), 0, 1), (Ok(2), 2, 3), (Err(1), 4, 5)]), Err(2));
    }
}
