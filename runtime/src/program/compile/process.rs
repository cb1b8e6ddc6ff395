// SPDX-License-Identifier: Apache-2.0
//! The process's part of THE ORDER, the same for `create` and `exec`: who it becomes, and the exec.

#![forbid(unsafe_code)]

use super::{Builder, Entry, slots};
use crate::plan::Plan;
use crate::plan::process::Process;
use crate::program::op::{HostOp, Ref, StageOp};
use crate::seccomp::{Filter, Insn};
use crate::stage::wire::barrier;

/// What `become_anybody` must know beside the process.
struct Around<'a> {
    seccomp: Option<&'a Filter>,
    last_cap: u32,
    keep_fds: u32,
    gate: Ref,
    /// The procfs for labels.
    proc: Ref,
    /// This process has no privilege: what it had to do to the process is done.
    unprivileged: bool,
    /// The caller's groups stay.
    keep_groups: bool,
    /// It enters a container that exists (`exec`).
    enters: Option<Enters>,
}

/// How the process gets into the container's pid namespace.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Enters {
    /// It is there: the container has none of its own.
    There,
    /// By a hop at the very end.
    Last,
    /// By a hop before the filter: the agent at its listener is told a pid.
    BeforeFilter,
}

impl Builder {
    /// From the container's root to the user, up to the barrier Ready.
    pub(super) fn become_user(&mut self, plan: &Plan, process: &Process, last_cap: u32, gate: Ref) {
        if process.terminal.is_some() {
            self.stage("/process/terminal", StageOp::ConsoleStdio(slots::TERMINAL));
            self.stage("/process/terminal", StageOp::ConsoleControl);
        }
        let (seccomp, keep_fds) = (plan.seccomp.as_ref(), plan.ask.keep_fds);
        let proc = Ref::Slot(slots::PROC);
        let around = Around {
            seccomp,
            last_cap,
            keep_fds,
            gate,
            proc,
            unprivileged: false,
            keep_groups: plan.obeyed.keep_groups,
            enters: None,
        };
        self.become_anybody(process, &around);
    }

    /// The same for a process that enters a container.
    pub(super) fn enter_as(&mut self, entry: &Entry, process: &Process, proc: Ref) {
        if let Some(size) = process.terminal {
            let (master, terminal) = (slots::MASTER, slots::TERMINAL);
            self.stage("/terminal", StageOp::Console { master, terminal, size });
            self.stage("/terminal", StageOp::ConsoleStdio(terminal));
        }
        let listener = entry.seccomp.as_ref().is_some_and(|filter| filter.listener.is_some());
        let enters = match (entry.pid, listener) {
            (false, _) => Enters::There,
            (true, false) => Enters::Last,
            (true, true) => Enters::BeforeFilter,
        };
        let around = Around {
            seccomp: entry.seccomp.as_ref(),
            last_cap: entry.last_cap,
            keep_fds: entry.keep_fds,
            gate: Ref::Nothing,
            proc,
            unprivileged: entry.unprivileged,
            keep_groups: entry.keep_groups,
            enters: Some(enters),
        };
        self.become_anybody(process, &around);
    }

    fn become_anybody(&mut self, process: &Process, around: &Around<'_>) {
        let field = |name: &str| format!("{}/{name}", process.at);
        let user = field("user");
        self.stage(&user, StageOp::ChownStdio(process.uid));
        if process.needs_home {
            self.stage(&user, StageOp::Home(process.uid));
        }
        // Root first: the user may not be allowed to.
        self.stage(&field("cwd"), StageOp::Chdir { path: process.cwd.clone(), again: false });
        self.labels(process, around.proc);
        if let Some(persona) = &process.personality {
            self.stage(&persona.at, StageOp::Personality(persona.value));
        }
        if let Some(policy) = &process.mempolicy {
            self.stage(&policy.at, StageOp::MemPolicy(policy.value.clone()));
        }
        if process.no_new_privileges {
            self.stage(&field("noNewPrivileges"), StageOp::NoNewPrivs);
        }
        // Without no_new_privs the filter needs CAP_SYS_ADMIN; a listener's agent must be ready before Ready.
        if around.enters == Some(Enters::BeforeFilter) {
            self.hop();
        }
        if let Some(filter) = around.seccomp.filter(|filter| early(process, filter)) {
            self.filter(filter);
        }
        if !process.rlimits.is_empty() {
            let op = StageOp::Rlimits { limits: process.rlimits.clone(), set: false };
            self.stage(&field("rlimits"), op);
        }
        let caps = &process.caps;
        self.stage(&field("capabilities"), StageOp::Bound { keep: caps.bounding, last: around.last_cap });
        // Always, also when there are none: the caller's groups must not leak in.
        let groups = match around.keep_groups {
            true => StageOp::KeepGroups,
            false => StageOp::Groups { gids: process.gids.clone(), may_keep: process.keeps_groups },
        };
        self.stage(&user, groups);
        self.stage(&user, StageOp::SetIds { uid: process.uid, gid: process.gid });
        self.stage(&field("cwd"), StageOp::Chdir { path: process.cwd.clone(), again: true });
        let (effective, permitted, inheritable) = (caps.effective, caps.permitted, caps.inheritable);
        self.stage(&field("capabilities"), StageOp::Capset { effective, permitted, inheritable });
        // Without both there can be none; else the caller's must go.
        if permitted & inheritable != 0 {
            self.stage(&field("capabilities/ambient"), StageOp::Ambient(caps.ambient));
        }
        self.stage(&field("args"), StageOp::Lookup(process.candidates.clone()));
        self.stage(&user, StageOp::Umask(process.umask));
        let terminal = process.terminal.is_some();
        let slot = terminal.then_some(slots::MASTER);
        // Nothing of the host's stays open while it waits, or in the user's program.
        self.stage("", StageOp::Close { from: 3 + around.keep_fds, gate: around.gate, slot });
        if let Some(enters) = around.enters {
            self.enter(process, enters, around.unprivileged);
            if enters == Enters::Last && !terminal {
                return;
            }
        }
        let fd = slot.map_or(Ref::Nothing, Ref::Slot);
        self.meet("", barrier::READY, fd, &Self::ready(&field("terminal"), terminal));
        if terminal {
            self.stage("", StageOp::CloseFd(fd));
        }
    }

    /// Into the pid namespace, with a session there. The last hop without a terminal is Ready, too: what fails after it, the outcome
    /// tells.
    fn enter(&mut self, process: &Process, enters: Enters, unprivileged: bool) {
        let terminal = process.terminal.is_some();
        if enters == Enters::Last {
            self.stage("", StageOp::Hop(0));
            self.host("", HostOp::Adopt);
            if terminal {
                self.host("", HostOp::Release);
            }
        }
        if let Some(score) = process.oom_score_adj.filter(|_| !unprivileged) {
            self.host(&format!("{}/oomScoreAdj", process.at), HostOp::OomScoreAdj(score));
        }
        if enters == Enters::Last && !terminal {
            Self::ready("", false).into_iter().for_each(|(at, op)| self.host(at, op));
            self.host("", HostOp::Release);
        }
        self.stage("", StageOp::Setsid);
        if terminal {
            self.stage("/terminal", StageOp::ConsoleControl);
        }
    }

    fn hop(&mut self) {
        self.stage("", StageOp::Hop(0));
        self.host("", HostOp::Adopt);
        self.host("", HostOp::Release);
    }

    /// LSM labels for the exec, through the procfs that nobody can mount over (CVE-2019-16884, CVE-2025-52881).
    fn labels(&mut self, process: &Process, dir: Ref) {
        if let Some(label) = &process.apparmor {
            let (path, data) = ("thread-self/attr/apparmor/exec".to_owned(), format!("exec {}", label.value));
            self.stage(&label.at, StageOp::Write { dir, path, data });
        }
        if let Some(label) = &process.selinux {
            let (path, data) = ("thread-self/attr/exec".to_owned(), label.value.clone());
            self.stage(&label.at, StageOp::Write { dir, path, data });
        }
    }

    fn filter(&mut self, filter: &Filter) {
        let listener = filter.listener.as_ref().map(|_| slots::LISTENER);
        let insns = filter.insns.iter().map(word).collect();
        self.stage(
            "/linux/seccomp",
            StageOp::Seccomp { filter: insns, flags: filter.flags.into(), listener },
        );
        if listener.is_some() {
            let fd = Ref::Slot(slots::LISTENER);
            self.meet("/linux/seccomp/listenerPath", barrier::LISTENER, fd, &[("", HostOp::Listener)]);
        }
    }

    /// The end of every program.
    pub(super) fn exec(&mut self, process: &Process, seccomp: Option<&Filter>) {
        if !process.rlimits.is_empty() {
            let op = StageOp::Rlimits { limits: process.rlimits.clone(), set: true };
            self.stage(&format!("{}/rlimits", process.at), op);
        }
        if let Some(filter) = seccomp.filter(|filter| !early(process, filter)) {
            self.filter(filter);
        }
        let (args, env, home) = (process.args.clone(), process.env.clone(), process.needs_home);
        self.stage(&format!("{}/args", process.at), StageOp::Exec { args, env, home });
    }
}

/// An instruction as the kernel's 8 bytes (struct sock_filter).
fn word(insn: &Insn) -> u64 {
    let [c0, c1] = insn.code.to_ne_bytes();
    let [k0, k1, k2, k3] = insn.k.to_ne_bytes();
    u64::from_ne_bytes([c0, c1, insn.jt, insn.jf, k0, k1, k2, k3])
}

/// Whether the filter is loaded before Ready instead of last.
fn early(process: &Process, filter: &Filter) -> bool {
    !process.no_new_privileges || filter.listener.is_some()
}
