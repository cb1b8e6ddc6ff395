// SPDX-License-Identifier: Apache-2.0
//! Where the seccomp filter stands in THE ORDER.
//!
//! With no_new_privs it comes last: before the startContainer hooks, if there are any, else right before the exec. Without
//! (loading it takes CAP_SYS_ADMIN then), or with an agent (which is to be ready before "created"), it comes before Ready.
//! In either case everything is done before it that can be; what is left after it is capset, read, write and execve,
//! which no profile can refuse a container that is to start (decisions/0065). The profile's own answers say
//! whether the way that needs more calls after it can be taken.

#![forbid(unsafe_code)]

use super::{Builder, slots};
use crate::plan::process::Process;
use crate::program::op::{HostOp, Ref, StageOp};
use crate::seccomp::{Filter, SeccompData, SockFilter};
use crate::stage::wire::{AVOID_PPOLL, AVOID_SETSID, barrier};

/// CAP_SYS_ADMIN's bit.
pub(crate) const ADMIN: u64 = 1 << 21;
/// CAP_SYS_PTRACE's bit.
pub(crate) const PTRACE: u64 = 1 << 19;

/// How a process that enters a container's pid namespace gets there with its filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entrance {
    /// The container has none of its own: it is there.
    There,
    /// By a hop at the very end; a filter, if any, is loaded after it.
    Hop,
    /// By a hop under the filter: what was needed to load it is gone by then.
    HopUnderFilter,
}

/// Whether the filter is loaded before Ready instead of last.
pub(super) fn is_loaded_early(process: &Process, filter: &Filter) -> bool {
    !process.no_new_privileges || filter.listener.is_some()
}

/// Whether the process must be lent CAP_SYS_ADMIN until the filter is loaded.
fn is_lent_admin(process: &Process, filter: &Filter) -> bool {
    is_loaded_early(process, filter) && !process.no_new_privileges && process.caps.effective & ADMIN == 0
}

/// The calls that a hop makes, and what comes after it.
fn hop_calls(process: &Process) -> Vec<SeccompData> {
    const PARENT_AND_PIDFD: u64 = 0x8000 | 0x1000;
    let clone = SeccompData { number: libc::SYS_clone, arguments: [PARENT_AND_PIDFD, 0, 0, 0, 0, 0] };
    let plain = [libc::SYS_capset, libc::SYS_sendmsg, libc::SYS_read, libc::SYS_write, libc::SYS_setsid];
    let mut calls = vec![clone];
    calls.extend(plain.map(SeccompData::plain));
    if !process.rlimits.is_empty() {
        calls.push(SeccompData::plain(libc::SYS_prlimit64));
    }
    if process.terminal.is_some() {
        calls.extend([libc::SYS_ioctl, libc::SYS_close].map(SeccompData::plain));
    }
    calls
}

/// How `process` enters a container that has a pid namespace of its own (`pid`), or shares one that exists.
pub(super) fn entrance(pid: bool, filter: Option<&Filter>, process: &Process) -> Entrance {
    let filter = filter.filter(|filter| is_lent_admin(process, filter));
    match (pid, filter) {
        (false, _) => Entrance::There,
        (true, Some(filter)) if filter.lets(&hop_calls(process)) => Entrance::HopUnderFilter,
        (true, _) => Entrance::Hop,
    }
}

/// Whether the process would be in the pid namespace that it enters with a CAP_SYS_ADMIN that is only lent: the profile refuses
/// the hop that would come after the filter.
pub(crate) fn enters_with_admin(filter: Option<&Filter>, process: &Process) -> bool {
    let lent = filter.is_some_and(|filter| is_lent_admin(process, filter));
    lent && process.caps.permitted & ADMIN == 0 && entrance(true, filter, process) == Entrance::Hop
}

/// Whether the filter lets a process wait at the gate: without, the gate is a FIFO, which read(2) is enough for.
pub(super) fn lets_accept(process: &Process, filter: Option<&Filter>) -> bool {
    filter
        .filter(|filter| is_loaded_early(process, filter))
        .is_none_or(|filter| filter.lets(&[libc::SYS_accept4, libc::SYS_close].map(SeccompData::plain)))
}

/// What running a hook must do without, as far as it can (wire::AVOID_*).
pub(super) fn avoided_by_hooks(filter: &Filter) -> u32 {
    [(libc::SYS_setsid, AVOID_SETSID), (libc::SYS_ppoll, AVOID_PPOLL)]
        .iter()
        .filter(|(number, _)| !filter.lets(&[SeccompData::plain(*number)]))
        .fold(0, |avoid, (_, flag)| avoid | flag)
}

impl Builder {
    /// The capabilities of the process, or the same with what loading the filter takes.
    pub(super) fn capabilities(&mut self, process: &Process, filter: Option<&Filter>) {
        let (at, caps) = (format!("{}/capabilities", process.at), &process.caps);
        let (effective, permitted, inheritable) = (caps.effective, caps.permitted, caps.inheritable);
        let op = match filter.is_some_and(|filter| is_lent_admin(process, filter)) {
            true => StageOp::LendAdmin { effective, permitted, inheritable },
            false => StageOp::Capset { effective, permitted, inheritable },
        };
        self.stage(&at, op);
        // Without both there can be none; else the caller's must go.
        if permitted & inheritable != 0 {
            self.stage(&format!("{at}/ambient"), StageOp::Ambient(caps.ambient));
        }
    }

    /// The filter before Ready, and what was lent for it goes. `agent`: what the host does once it has the listener.
    pub(super) fn early_filter(&mut self, process: &Process, filter: &Filter, agent: &[(&str, HostOp)]) {
        self.filter(filter);
        if filter.listener.is_some() {
            let which = match filter.lets(&[SeccompData::plain(libc::SYS_sendmsg)]) {
                true => barrier::LISTENER,
                false => barrier::LISTENER_NUMBER,
            };
            self.meet("/linux/seccomp/listenerPath", which, Ref::Slot(slots::LISTENER), agent);
        }
        if is_lent_admin(process, filter) {
            let (effective, permitted, inheritable) =
                (process.caps.effective, process.caps.permitted, process.caps.inheritable);
            let op = StageOp::Capset { effective, permitted, inheritable };
            self.stage(&format!("{}/capabilities", process.at), op);
        }
    }

    pub(super) fn filter(&mut self, filter: &Filter) {
        let listener = filter.listener.as_ref().map(|_| slots::LISTENER);
        let insns = filter.insns.iter().map(insn_word).collect();
        self.stage(
            "/linux/seccomp",
            StageOp::Seccomp { filter: insns, flags: filter.flags.into(), listener },
        );
    }

    /// The limits themselves, after all that a tiny one would hamper.
    pub(super) fn limits(&mut self, process: &Process) {
        if !process.rlimits.is_empty() {
            let op = StageOp::Rlimits { limits: process.rlimits.clone(), set: true };
            self.stage(&format!("{}/rlimits", process.at), op);
        }
    }

    /// What comes between Ready (or the gate) and the startContainer hooks, unless it is done: limits and filter.
    pub(super) fn last_filter(&mut self, process: &Process, filter: Option<&Filter>) {
        match filter {
            Some(filter) if is_loaded_early(process, filter) => {}
            filter => {
                self.limits(process);
                if let Some(filter) = filter {
                    self.filter(filter);
                }
            }
        }
    }
}

/// An instruction as the kernel's 8 bytes (struct sock_filter).
fn insn_word(insn: &SockFilter) -> u64 {
    let [c0, c1] = insn.code.to_ne_bytes();
    let [k0, k1, k2, k3] = insn.k.to_ne_bytes();
    u64::from_ne_bytes([c0, c1, insn.jt, insn.jf, k0, k1, k2, k3])
}
