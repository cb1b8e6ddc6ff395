// SPDX-License-Identifier: Apache-2.0
//! The caller's attributes: what a runtime inherits and a container must not, or must.

#![forbid(unsafe_code)]

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::super::plan::{Caller, Plan, Stream};

/// Signals that the probe does not wait for, and one it does.
const SIGNALS: [i32; 6] =
    [libc::SIGPIPE, libc::SIGUSR1, libc::SIGCHLD, libc::SIGHUP, libc::SIGALRM, libc::SIGWINCH];
const BLOCKED: [i32; 5] = [libc::SIGTERM, libc::SIGUSR2, libc::SIGPIPE, libc::SIGCHLD, libc::SIGALRM];

/// A caller with some of them.
pub fn parts() -> BoxedStrategy<Plan> {
    let process = (
        any::<bool>(),
        proptest::option::of(select(vec![0, 0o77, 0o777, 0o27])),
        select(vec![0, 0, 5, 19]),
        subsequence(&SIGNALS[..], 0..=3),
        subsequence(&BLOCKED[..], 0..=3),
    );
    let files = (select(vec![0, 0, 3, 40]), select(vec![0, 0, 20]), stream(), stream(), stream());
    let caller =
        |((one_processor, umask, nice, ignored, blocked), (leaks, groups, stdin, stdout, stderr))| Caller {
            one_processor,
            umask,
            nice,
            ignored,
            blocked,
            leaks,
            groups,
            stdin,
            stdout,
            stderr,
        };
    (process, files).prop_map(caller).prop_map(|caller| Plan { caller, ..Plan::default() }).boxed()
}

fn stream() -> impl Strategy<Value = Stream> {
    prop_oneof![4 => Just(Stream::Plain), 2 => Just(Stream::Pipe), 1 => Just(Stream::Terminal), 1 => Just(Stream::Closed)]
}
