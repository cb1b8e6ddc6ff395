// SPDX-License-Identifier: Apache-2.0
//! Filters, with and without no_new_privs: calls that the runtime itself makes are denied one at a time, arguments are compared
//! by the real kernel, and an agent is asked.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::super::plan::Plan;
use super::{maybe, one_of, together};

/// What a runtime does around the loading of a filter, and what nobody does.
const CALLS: [&str; 40] = [
    "capget",
    "capset",
    "chdir",
    "clone",
    "clone3",
    "close",
    "close_range",
    "dup3",
    "epoll_ctl",
    "execveat",
    "fchdir",
    "fchown",
    "fcntl",
    "fstat",
    "getdents64",
    "getppid",
    "getuid",
    "ioctl",
    "keyctl",
    "kill",
    "mount",
    "newfstatat",
    "openat2",
    "pidfd_open",
    "prctl",
    "prlimit64",
    "recvfrom",
    "rt_sigaction",
    "rt_sigprocmask",
    "sched_setaffinity",
    "sendmsg",
    "setgid",
    "setgroups",
    "setresgid",
    "setresuid",
    "setsid",
    "sigaltstack",
    "statx",
    "umask",
    "unshare",
];

/// Numbers of x86_64 and arguments that change nothing: getpriority, sched_get_priority_max, prctl of an unknown option,
/// getitimer, socket of an unknown family, kcmp, umount2 of nothing, lseek of nothing.
const TRIED: [&str; 12] = [
    "syscall 140 0 0",
    "syscall 140 1 0",
    "syscall 146 1",
    "syscall 146 0x100000001",
    "syscall 157 4096 7 8 9",
    "syscall 36 1 0",
    "syscall 41 99 1 0",
    "syscall 41 1 99 0",
    "syscall 312 1 1 99 0 0",
    "syscall 8 99 0 1",
    "syscall 8 99 0x8000000000000000 1",
    "mkdir /tmp/new",
];

const COMPARED: [(&str, u32); 7] = [
    ("getpriority", 2),
    ("sched_get_priority_max", 1),
    ("prctl", 2),
    ("getitimer", 1),
    ("socket", 3),
    ("kcmp", 3),
    ("lseek", 3),
];

const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_GT",
    "SCMP_CMP_GE",
    "SCMP_CMP_MASKED_EQ",
];

/// A profile.
pub fn parts() -> BoxedStrategy<Plan> {
    let profile = (
        proptest::option::of(denied()),
        proptest::collection::vec(compared(), 0..4),
        proptest::option::weighted(0.2, Just(())),
        proptest::option::of(select(vec![
            "SECCOMP_FILTER_FLAG_LOG",
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
            "SECCOMP_FILTER_FLAG_TSYNC",
        ])),
    );
    let profile = profile.prop_map(|(denied, compared, asks, flag)| {
        let rules: Vec<Value> = denied.into_iter().chain(compared).collect();
        let mut plan =
            Plan::set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}));
        if let Some(flag) = flag {
            plan = plan.and("/linux/seccomp/flags", json!([flag]));
        }
        if asks.is_some() {
            let rule = json!({"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"});
            plan = plan
                .and("/linux/seccomp/syscalls/-", rule)
                .and("/linux/seccomp/listenerPath", json!("$DIR/agent"))
                .thing("agent agent");
        }
        plan.tries(TRIED)
    });
    together(vec![
        profile.boxed(),
        maybe(0.6, "/process/noNewPrivileges", one_of(vec![json!(false), json!(true)])),
    ])
}

fn denied() -> BoxedStrategy<Value> {
    let names = prop_oneof![3 => subsequence(&CALLS[..], 1..=1), 1 => subsequence(&CALLS[..], 2..=3)];
    let action =
        select(vec![("SCMP_ACT_ERRNO", Some(1)), ("SCMP_ACT_ERRNO", Some(38)), ("SCMP_ACT_ERRNO", None)]);
    (names, action).prop_map(|(names, (action, errno))| rule(json!(names), action, errno)).boxed()
}

fn compared() -> BoxedStrategy<Value> {
    let value = select(vec![0u64, 1, 2, 99, 4096, 0xffff_ffff, 0x1_0000_0001, u64::MAX]);
    let argument = (any::<prop::sample::Index>(), value.clone(), value, select(&OPERATORS[..]));
    let several = (
        select(&COMPARED[..]),
        proptest::collection::vec(argument, 1..3),
        select(vec![Some(5), Some(0), Some(4095)]),
    );
    several
        .prop_map(|((name, count), arguments, errno)| {
            let mut rule = rule(json!([name]), "SCMP_ACT_ERRNO", errno);
            // Each argument once.
            let distinct: BTreeMap<_, _> = arguments
                .into_iter()
                .map(|(index, value, other, operator)| {
                    let index = index.index(count as usize);
                    (index, json!({"index": index, "value": value, "valueTwo": other, "op": operator}))
                })
                .collect();
            rule["args"] = distinct.into_values().collect();
            rule
        })
        .boxed()
}

fn rule(names: Value, action: &str, errno: Option<u32>) -> Value {
    let mut rule = json!({"names": names, "action": action});
    if let Some(errno) = errno {
        rule["errnoRet"] = json!(errno);
    }
    rule
}
