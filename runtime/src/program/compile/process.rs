// SPDX-License-Identifier: Apache-2.0
//! The process's part of THE ORDER, the same for `create` and `exec`: who it becomes, and the exec.

#![forbid(unsafe_code)]

use super::filter::{Entrance, entrance, is_loaded_early};
use super::{Builder, Entry, Gate, slots};
use crate::plan::Plan;
use crate::plan::process::Process;
use crate::program::op::{HostOp, Ref, StageOp};
use crate::seccomp::Filter;
use crate::stage::wire::barrier;

/// What `become_anybody` must know beside the process.
struct Around<'a> {
    seccomp: Option<&'a Filter>,
    last_cap: u32,
    keep_fds: u32,
    gate: Gate,
    /// The procfs for labels.
    proc: Ref,
    /// This process has no privilege: what it had to do to the process is done.
    unprivileged: bool,
    /// The caller's groups stay.
    keep_groups: bool,
    /// It enters a container that exists (`exec`).
    enters: Option<Entrance>,
}

impl Builder {
    /// From the container's root to the user, up to the barrier Ready.
    pub(super) fn become_user(
        &mut self,
        plan: &Plan,
        process: &Process,
        last_cap: u32,
        gate: Gate,
        host_proc: Ref,
    ) {
        let joins = self.inside.joins.is_some();
        if process.terminal.is_some() {
            self.stage("/process/terminal", StageOp::ConsoleStdio(slots::TERMINAL));
            if !joins {
                self.stage("/process/terminal", StageOp::ConsoleControl);
            }
        }
        let (seccomp, keep_fds) = (plan.seccomp.as_ref(), plan.ask.keep_fds);
        let proc = if joins { host_proc } else { Ref::Slot(slots::PROC) };
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
        let around = Around {
            seccomp: entry.seccomp.as_ref(),
            last_cap: entry.last_cap,
            keep_fds: entry.keep_fds,
            gate: Gate::default(),
            proc,
            unprivileged: entry.unprivileged,
            keep_groups: entry.keep_groups,
            enters: Some(entrance(entry.pid, entry.seccomp.as_ref(), process)),
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
        self.capabilities(process, around.seccomp);
        self.stage(&field("args"), StageOp::Lookup(process.candidates.clone()));
        self.stage(&user, StageOp::Umask(process.umask));
        let slot = process.terminal.map(|_| slots::MASTER);
        // Nothing of the host's stays open while it waits, or in the user's program.
        let Gate { gate, outcome } = around.gate;
        self.stage("", StageOp::Close { from: 3 + around.keep_fds, gate, outcome, slot });
        match around.enters {
            Some(entrance) => self.enter(process, entrance, around),
            None if self.inside.joins.is_some() => self.hop_in(process, around.seccomp),
            None => self.wait(process, around.seccomp),
        }
    }

    /// A new container's process comes to Ready: all that is left of it can be done under any filter.
    pub(super) fn wait(&mut self, process: &Process, filter: Option<&Filter>) {
        let Some(filter) = filter.filter(|filter| is_loaded_early(process, filter)) else {
            self.ready_with_terminal(process, &format!("{}/terminal", process.at));
            return;
        };
        self.hand_over_terminal(process, &format!("{}/terminal", process.at));
        self.limits(process);
        self.early_filter(process, filter, &[("", HostOp::Listener)]);
        self.meet("", barrier::READY, Ref::Nothing, &Self::ready("", false));
    }

    /// The master goes with the message of Ready.
    pub(super) fn ready_with_terminal(&mut self, process: &Process, at: &str) {
        let terminal = process.terminal.is_some();
        let fd = if terminal { Ref::Slot(slots::MASTER) } else { Ref::Nothing };
        self.meet("", barrier::READY, fd, &Self::ready(at, terminal));
        if terminal {
            self.stage("", StageOp::CloseFd(fd));
        }
    }

    /// The master goes before a filter that may refuse sendmsg(2).
    fn hand_over_terminal(&mut self, process: &Process, at: &str) {
        if process.terminal.is_some() {
            let fd = Ref::Slot(slots::MASTER);
            self.meet(at, barrier::CONSOLE, fd, &[(at, HostOp::Console)]);
            self.stage("", StageOp::CloseFd(fd));
        }
    }

    /// Into the pid namespace, with a session there, and a filter that does not come last. The last hop is Ready, too, where
    /// nothing but the exec may fail after it for another reason than the profile: that, the outcome tells.
    fn enter(&mut self, process: &Process, entrance: Entrance, around: &Around<'_>) {
        let filter = around.seccomp.filter(|filter| is_loaded_early(process, filter));
        let listener = filter.is_some_and(|filter| filter.listener.is_some());
        let terminal_at = format!("{}/terminal", process.at);
        let under = filter.filter(|_| entrance == Entrance::HopUnderFilter);
        if let Some(filter) = under {
            self.early_filter(process, filter, &[]);
        }
        let inside = filter.filter(|_| under.is_none());
        let hops = entrance != Entrance::There;
        let ready_by_hop = hops && process.terminal.is_none() && !(listener && inside.is_some());
        if hops {
            self.stage("", StageOp::Hop(0));
            self.host("", HostOp::Adopt);
            if under.is_some() && listener {
                self.host("/linux/seccomp/listenerPath", HostOp::Listener);
            }
            if !ready_by_hop {
                self.host("", HostOp::Release);
            }
        }
        if let Some(score) = process.oom_score_adj.filter(|_| !around.unprivileged) {
            self.host(&format!("{}/oomScoreAdj", process.at), HostOp::OomScoreAdj(score));
        }
        if ready_by_hop {
            Self::ready("", false).into_iter().for_each(|(at, op)| self.host(at, op));
            self.host("", HostOp::Release);
        }
        self.stage("", StageOp::Setsid);
        if process.terminal.is_some() {
            self.stage("/terminal", StageOp::ConsoleControl);
        }
        let Some(filter) = inside else {
            if !ready_by_hop {
                self.ready_with_terminal(process, &terminal_at);
            }
            return if under.is_some() {
                self.limits(process)
            };
        };
        let mut agent = vec![("", HostOp::Listener)];
        if listener {
            self.hand_over_terminal(process, &terminal_at);
            agent.extend(Self::ready("", false));
        } else if !ready_by_hop {
            self.ready_with_terminal(process, &terminal_at);
        }
        self.limits(process);
        self.early_filter(process, filter, &agent);
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

    /// The end of every program.
    pub(super) fn exec(&mut self, process: &Process) {
        let (args, env, home) = (process.args.clone(), process.env.clone(), process.needs_home);
        self.stage(&format!("{}/args", process.at), StageOp::Exec { args, env, home });
    }
}
