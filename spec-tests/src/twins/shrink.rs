// SPDX-License-Identifier: Apache-2.0
//! Makes a finding small: the generators' own way first, then everything that can be left out of the plan is. Each plan that is
//! tried is two performances, which in a guest take seconds: whoever wants all findings of a long run soon bounds their number.

#![forbid(unsafe_code)]

use proptest::strategy::ValueTree;

use super::plan::Plan;

/// How many plans the generators' own way tries at most.
const MOST: usize = 120;

/// The smallest plan found that still `fails`, after `most` tries. The tree's present plan does.
pub fn shrink(
    tree: &mut dyn ValueTree<Value = Plan>,
    most: usize,
    fails: &mut dyn FnMut(&Plan) -> bool,
) -> Plan {
    let mut tried = 0;
    let mut fails = |plan: &Plan| {
        tried += 1;
        tried <= most && fails(plan)
    };
    let mut left = MOST.min(most);
    let mut smallest = tree.current();
    let mut failed = true;
    while left > 0 && if failed { tree.simplify() } else { tree.complicate() } {
        let plan = tree.current();
        if plan == smallest {
            continue;
        }
        left -= 1;
        failed = fails(&plan);
        if failed {
            smallest = plan;
        }
    }
    leave_out(smallest, &mut fails)
}

/// Leaves out one thing after the other.
fn leave_out(mut smallest: Plan, fails: &mut dyn FnMut(&Plan) -> bool) -> Plan {
    for list in [List::Tries, List::Config, List::Things, List::Steps] {
        let mut size = list.length(&smallest);
        while size > 0 {
            let mut at = 0;
            while at < list.length(&smallest) {
                let mut plan = smallest.clone();
                list.remove(&mut plan, at, size);
                if plan != smallest && fails(&plan) {
                    smallest = plan;
                } else {
                    at += size;
                }
            }
            size /= 2;
        }
    }
    let plain = Plan { caller: Default::default(), ..smallest.clone() };
    if plain != smallest && fails(&plain) { plain } else { smallest }
}

#[derive(Clone, Copy)]
enum List {
    Tries,
    Config,
    Things,
    Steps,
}

impl List {
    fn length(self, plan: &Plan) -> usize {
        match self {
            Self::Tries => plan.tries.len(),
            Self::Config => plan.config.len(),
            Self::Things => plan.things.len(),
            Self::Steps => plan.steps.len(),
        }
    }

    fn remove(self, plan: &mut Plan, at: usize, count: usize) {
        let end = (at + count).min(self.length(plan));
        match self {
            Self::Tries => drop(plan.tries.drain(at..end)),
            Self::Config => drop(plan.config.drain(at..end)),
            Self::Things => drop(plan.things.drain(at..end)),
            Self::Steps => drop(plan.steps.drain(at..end)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::strategy::{Just, Strategy};
    use proptest::test_runner::TestRunner;

    use super::*;

    #[test]
    fn what_does_not_matter_is_left_out() {
        let plan = Plan::default().tries((0..20).map(|n| format!("open /{n}")));
        let mut fails = |plan: &Plan| plan.tries.contains(&"open /7".to_owned());
        assert_eq!(leave_out(plan, &mut fails).tries, ["open /7"]);
    }

    #[test]
    fn no_more_plans_are_tried_than_asked() {
        let plan = || Plan::default().tries((0..20).map(|n| format!("open /{n}")));
        for most in [0, 1, 5] {
            let mut tree = Just(plan()).new_tree(&mut TestRunner::deterministic()).unwrap();
            let mut tried = 0;
            shrink(&mut tree, most, &mut |_| {
                tried += 1;
                false
            });
            assert_eq!(tried, most);
        }
    }
}
