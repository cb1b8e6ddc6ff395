// SPDX-License-Identifier: Apache-2.0
//! Reads a profile: checks every value (the only place that refuses one by its pointer) and turns names into what
//! the compiler works with. Knows nothing of BPF and nothing of ABIs.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fmt::Display;

use super::Listener;
use super::arch;
use super::names;
use crate::error::{Error, Result};
use crate::spec;

/// A checked profile.
#[derive(Debug)]
pub(super) struct Profile {
    /// `SECCOMP_RET_*` with its data for a call without a rule.
    pub default: u32,
    /// Calls that the profile's author cannot have known fail with ENOSYS instead of `default`.
    pub enosys: bool,
    /// The blocks of `syscalls`, in order.
    pub blocks: Vec<Block>,
    /// Every name of every block that some table knows, in order.
    pub uses: Vec<Use>,
    /// The names that no table knows, once each.
    pub unknown: Vec<String>,
    /// Architectures wanted beside the native one.
    pub architectures: Vec<String>,
    /// For seccomp(2).
    pub flags: u32,
    /// Set when a rule notifies.
    pub listener: Option<Listener>,
}

/// One entry of `syscalls`.
#[derive(Debug)]
pub(super) struct Block {
    /// `SECCOMP_RET_*` with its data.
    pub action: u32,
    /// Its rules: OR of ANDs. One empty AND when there are no conditions.
    pub alternatives: Vec<Vec<Test>>,
    /// Same action as the default: says nothing, but its names count as known to the author.
    pub redundant: bool,
}

/// A name in a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Use {
    /// Row of the table of names.
    pub row: usize,
    /// Index into `Profile::blocks` and, being the same, into `/linux/seccomp/syscalls`.
    pub block: usize,
}

/// A condition on one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Test {
    /// 0 … 5.
    pub arg: u8,
    /// How to compare.
    pub op: Operator,
    /// What of the argument counts; all of it but for `Operator::Masked`.
    pub mask: u64,
    /// What to compare with, already masked.
    pub value: u64,
}

/// How to compare an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub(super) enum Operator {
    Ne,
    Lt,
    Le,
    Eq,
    Ge,
    Gt,
    Masked,
}

/// Names of the actions with their SECCOMP_RET_* (linux/seccomp.h), sorted.
const ACTIONS: [(&str, u32); 9] = [
    ("SCMP_ACT_ALLOW", ALLOW),
    ("SCMP_ACT_ERRNO", ERRNO),
    ("SCMP_ACT_KILL", KILL_THREAD),
    ("SCMP_ACT_KILL_PROCESS", 0x8000_0000),
    ("SCMP_ACT_KILL_THREAD", KILL_THREAD),
    ("SCMP_ACT_LOG", LOG),
    ("SCMP_ACT_NOTIFY", NOTIFY),
    ("SCMP_ACT_TRACE", TRACE),
    ("SCMP_ACT_TRAP", 0x0003_0000),
];
const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;
const TRACE: u32 = 0x7ff0_0000;
const NOTIFY: u32 = 0x7fc0_0000;
const ERRNO: u32 = 0x0005_0000;
/// SECCOMP_RET_KILL_THREAD.
pub(super) const KILL_THREAD: u32 = 0;
/// Fails the call with ENOSYS.
pub(super) const ENOSYS: u32 = ERRNO | libc::ENOSYS as u32;

const OPERATORS: [(&str, Operator); 7] = [
    ("SCMP_CMP_EQ", Operator::Eq),
    ("SCMP_CMP_GE", Operator::Ge),
    ("SCMP_CMP_GT", Operator::Gt),
    ("SCMP_CMP_LE", Operator::Le),
    ("SCMP_CMP_LT", Operator::Lt),
    ("SCMP_CMP_MASKED_EQ", Operator::Masked),
    ("SCMP_CMP_NE", Operator::Ne),
];

const FLAGS: [(&str, u32); 4] = [
    ("SECCOMP_FILTER_FLAG_LOG", 1 << 1),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_TSYNC", TSYNC),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", WAIT_KILLABLE_RECV),
];
const TSYNC: u32 = 1 << 0;
const SPEC_ALLOW: u32 = 1 << 2;
const NEW_LISTENER: u32 = 1 << 3;
const TSYNC_ESRCH: u32 = 1 << 4;
const WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// Every action, sorted.
pub(super) const KNOWN_ACTIONS: &[&str] = &keys(&ACTIONS);
/// Every operator, sorted.
pub(super) const KNOWN_OPERATORS: &[&str] = &keys(&OPERATORS);
/// Every flag, sorted.
pub(super) const KNOWN_FLAGS: &[&str] = &keys(&FLAGS);

const fn keys<T, const N: usize>(table: &[(&'static str, T); N]) -> [&'static str; N] {
    let (mut keys, mut i) = ([""; N], 0);
    while i < N {
        keys[i] = table[i].0;
        i += 1;
    }
    keys
}

fn find<T: Copy>(table: &[(&str, T)], wanted: &str) -> Option<T> {
    table.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value)
}

/// Where in the configuration: `/linux/seccomp` and what follows.
fn at(rest: impl Display) -> String {
    format!("/linux/seccomp/{rest}")
}

impl Profile {
    /// Checks a profile. `None` for one without default action and rules, which runc takes for no profile at all.
    pub(super) fn read(profile: &spec::Seccomp) -> Result<Option<Profile>> {
        if profile.default_action.is_empty() && profile.syscalls.is_empty() {
            return Ok(None);
        }
        let flags = flags(profile)?;
        architectures(profile)?;
        let default = action(
            &profile.default_action,
            profile.default_errno_ret,
            || at("defaultAction"),
            || at("defaultErrnoRet"),
        )?;
        if default == NOTIFY {
            return Err(Error::invalid(
                at("defaultAction"),
                "SCMP_ACT_NOTIFY cannot be used as default action",
            ));
        }
        let mut policy = Profile {
            default,
            enosys: !matches!(default & 0xffff_0000, ALLOW | LOG | TRACE),
            blocks: Vec::with_capacity(profile.syscalls.len()),
            uses: Vec::new(),
            unknown: Vec::new(),
            architectures: profile.architectures.clone(),
            flags,
            listener: None,
        };
        let mut notifies = false;
        for (index, block) in profile.syscalls.iter().enumerate() {
            notifies |= policy.block(index, block)?;
        }
        let mut seen = BTreeSet::new();
        policy.unknown.retain(|name| seen.insert(name.clone()));
        policy.listen(profile, notifies)?;
        Ok(Some(policy))
    }

    /// Adds a block; says whether it notifies.
    fn block(&mut self, index: usize, block: &spec::Syscall) -> Result<bool> {
        let here = |rest: &str| at(format_args!("syscalls/{index}/{rest}"));
        let action = action(&block.action, block.errno_ret, || here("action"), || here("errnoRet"))?;
        let notifies = action == NOTIFY && !block.names.is_empty();
        self.blocks.push(Block {
            action,
            alternatives: alternatives(index, &block.args)?,
            redundant: action == self.default,
        });
        for (i, name) in block.names.iter().enumerate() {
            let here = || at(format_args!("syscalls/{index}/names/{i}"));
            if name.is_empty() {
                return Err(Error::invalid(here(), "empty string is not a valid syscall"));
            }
            if notifies && name == "write" {
                // In runc the process would wait for an agent that it has yet to tell the parent of. Kept for all,
                // so that a profile does not depend on the runtime.
                let text = "SCMP_ACT_NOTIFY cannot be used for the write syscall";
                return Err(Error::invalid(here(), text));
            }
            match names::row(name) {
                Some(row) => self.uses.push(Use { row, block: index }),
                None => self.unknown.push(name.clone()),
            }
        }
        Ok(notifies)
    }

    /// The agent, and the flags that depend on there being one.
    fn listen(&mut self, profile: &spec::Seccomp, notifies: bool) -> Result<()> {
        let path = profile.listener_path.as_deref().unwrap_or_default();
        let metadata = profile.listener_metadata.as_deref().unwrap_or_default();
        if path.is_empty() && !metadata.is_empty() {
            return Err(Error::invalid(at("listenerMetadata"), "set without listenerPath"));
        }
        if !notifies {
            // The kernel refuses it without a listener (EINVAL), where it means nothing.
            self.flags &= !WAIT_KILLABLE_RECV;
            return Ok(());
        }
        if path.is_empty() {
            return Err(Error::invalid(at("listenerPath"), "not set, but a rule has SCMP_ACT_NOTIFY"));
        }
        if self.flags & TSYNC != 0 {
            // Otherwise the one return value would have to carry a descriptor or a thread's id (EINVAL, Linux 5.7).
            self.flags |= TSYNC_ESRCH;
        }
        self.flags |= NEW_LISTENER;
        self.listener = Some(Listener { path: path.to_owned(), metadata: metadata.to_owned() });
        Ok(())
    }
}

fn flags(profile: &spec::Seccomp) -> Result<u32> {
    let Some(names) = &profile.flags else {
        return Ok(SPEC_ALLOW);
    };
    let mut flags = 0;
    for (i, name) in names.iter().enumerate() {
        flags |= find(&FLAGS, name).ok_or_else(|| {
            Error::invalid(at(format_args!("flags/{i}")), format!("seccomp flag {name} is not known"))
        })?;
    }
    Ok(flags)
}

fn architectures(profile: &spec::Seccomp) -> Result<()> {
    for (i, name) in profile.architectures.iter().enumerate() {
        if !arch::KNOWN.contains(&name.as_str()) {
            let text = format!("string {name} is not a valid arch for seccomp");
            let error = Error::invalid(at(format_args!("architectures/{i}")), text);
            return Err(error.advise("SCMP_ARCH_X86_64, SCMP_ARCH_AARCH64 and so on are"));
        }
    }
    Ok(())
}

/// `SECCOMP_RET_*` with its data.
fn action(
    name: &str,
    errno: Option<u32>,
    at_name: impl Fn() -> String,
    at_errno: impl Fn() -> String,
) -> Result<u32> {
    let action = find(&ACTIONS, name).ok_or_else(|| {
        Error::invalid(at_name(), format!("string {name} is not a valid action for seccomp"))
            .advise("SCMP_ACT_ALLOW, SCMP_ACT_ERRNO, SCMP_ACT_KILL_PROCESS and so on are")
    })?;
    let carries = matches!(action, ERRNO | TRACE);
    match errno {
        Some(_) if !carries => Err(Error::invalid(at_errno(), format!("{name} cannot carry an errno"))),
        Some(errno) if errno > 0xffff => {
            Err(Error::invalid(at_errno(), format!("{errno} does not fit into 16 bits")))
        }
        Some(errno) => Ok(action | errno),
        None if carries => Ok(action | libc::EPERM as u32),
        None => Ok(action),
    }
}

/// The conditions as OR of ANDs: all must hold, but when one argument is named twice, any (as in runc, crun and
/// youki, which keep the behaviour of old libseccomp there).
fn alternatives(block: usize, args: &[spec::SyscallArg]) -> Result<Vec<Vec<Test>>> {
    let (mut seen, mut repeated) = (0_u8, false);
    let mut tests = Vec::with_capacity(args.len());
    for (i, arg) in args.iter().enumerate() {
        let here = |rest: &str| at(format_args!("syscalls/{block}/args/{i}/{rest}"));
        let op = find(&OPERATORS, &arg.op).ok_or_else(|| {
            Error::invalid(here("op"), format!("string {} is not a valid operator for seccomp", arg.op))
        })?;
        if arg.index > 5 {
            return Err(Error::invalid(here("index"), "a system call has 6 arguments"));
        }
        repeated |= seen & (1 << arg.index) != 0;
        seen |= 1 << arg.index;
        let (mask, value) = match op {
            Operator::Masked => (arg.value, arg.value_two & arg.value),
            _ => (u64::MAX, arg.value),
        };
        tests.push(Test { arg: arg.index as u8, op, mask, value });
    }
    if repeated {
        return Ok(tests.into_iter().map(|test| vec![test]).collect());
    }
    tests.sort_unstable_by_key(|test| test.arg);
    Ok(vec![tests])
}
