// SPDX-License-Identifier: Apache-2.0
//! The second half of a launch: meeting the stage at its barriers, and what the host owes the process at each.
//!
//! `launch.rs` calls this room step by step.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::process::Rlimit;

use super::channel::Incoming;
use super::fate::{Fate, Next, is_ending, stage_fate};
use super::launch::{Child, LaunchPurpose, Met, STARTING, Walk};
use super::undo::Undo;
use super::{advice, hooks, sockets};
use crate::ask::Stdio;
use crate::error::{Context, Error, Kind, Result, WithStep};
use crate::plan::sched::CpuSet;
use crate::program::{HostOp, Op};
use crate::stage::wire::{barrier, kind};
use crate::sys::tty;
use crate::sys::wait::Exit;

impl Walk<'_> {
    /// Waits until the stage is at `barrier`, and returns what it brings; anything else that it says is a fault. A listener is
    /// kept for its agent, which may have to wait for more.
    pub(super) fn await_at(&mut self, barrier: u8) -> Result<Met> {
        loop {
            let heard = if barrier == barrier::HOP { self.hear_cloner() } else { self.hear(Next::Barrier) };
            match heard? {
                Fate::Working(said)
                    if said.message.kind == kind::REACHED && said.message.barrier == barrier =>
                {
                    let mut met = Met { fd: said.fd, aux: said.message.aux };
                    match barrier {
                        barrier::LISTENER => self.listener = met.fd.take(),
                        barrier::LISTENER_NUMBER => self.take_listener(said.message.errno)?,
                        _ => {}
                    }
                    return Ok(met);
                }
                Fate::Working(said) if said.message.kind == kind::WARNING => self.warn(&said),
                Fate::Working(_) => {
                    return Err(Error::new(Kind::Peer, "unexpected message from the stage").at(STARTING));
                }
                ended => self.ended(ended)?,
            }
        }
    }

    /// The socket's end is the exec's success, which closes it, unless the stage has died.
    pub(super) fn outcome(&mut self) -> Result<()> {
        loop {
            match self.hear(Next::Exec)? {
                Fate::Working(said) if said.message.kind == kind::WARNING => self.warn(&said),
                ended => return self.ended(ended),
            }
        }
    }

    /// Lets the stage go on. One that has ended has said why, or its end tells.
    pub(super) fn release(&self) -> Result<()> {
        match self.child()?.channel()?.go().step(|| STARTING) {
            Err(error) if matches!(error.errno(), Some(libc::EPIPE | libc::ECONNRESET)) => {
                match self.hear(Next::Barrier)? {
                    Fate::Working(_) | Fate::Executed => Err(error),
                    ended => self.ended(ended),
                }
            }
            other => other,
        }
    }

    /// What has become of the stage when it is heard, or heard no more.
    fn hear(&self, next: Next) -> Result<Fate> {
        let child = self.child()?;
        let Child { pid, pidfd, .. } = child;
        stage_fate(child.channel()?.receive().step(|| STARTING)?, *pid, pidfd.as_fd(), next).step(|| STARTING)
    }

    /// The same of the first process of two: the second holds its socket, too.
    fn hear_cloner(&self) -> Result<Fate> {
        let Child { pid, pidfd, .. } = self.child()?;
        let heard = self.child()?.channel()?.receive_from(pidfd.as_fd()).step(|| STARTING)?;
        stage_fate(heard, *pid, pidfd.as_fd(), Next::Barrier).step(|| STARTING)
    }

    /// After a step of ours has failed: the stage's reason, if it has ended meanwhile. What we do to a process that is gone fails in
    /// many words, and none of them says why it is.
    pub(super) fn own_reason(&self) -> Option<Error> {
        let Child { pid, pidfd, channel, .. } = self.child.as_ref()?;
        if channel.is_none() || self.end_heard.get() || !is_ending(*pid, pidfd.as_fd()) {
            return None;
        }
        loop {
            match self.hear_cloner() {
                // What it said before.
                Ok(Fate::Working(_)) => {}
                // So ends the first process of two when it has made the second, and nothing else before the exec.
                Ok(Fate::Died(Exit::Code(0))) => return None,
                Ok(ended) => return self.ended(ended).err(),
                Err(_) => return None,
            }
        }
    }

    fn ended(&self, fate: Fate) -> Result<()> {
        self.end_heard.set(true);
        let says_why = matches!(fate, Fate::Working(_) | Fate::Failed(_));
        let group = self.group.as_ref().map(|made| (&*made.group, made.oom_kills));
        match fate.error(self.given.program, self.met()..self.step, group) {
            Some(error) if says_why => Err(error.at("error during container init").at(STARTING)),
            Some(error) => Err(error.at(STARTING)),
            None => Ok(()),
        }
    }

    fn warn(&self, incoming: &Incoming) {
        let name = crate::plan::caps::names(1 << incoming.message.aux.min(63)).join("");
        let errno = crate::error::Words(incoming.message.errno);
        (self.given.home.warn)(&format!("can't raise ambient capability {name}: {errno}"));
    }

    /// The step at which the stage was last told to go on.
    fn met(&self) -> usize {
        let before = self.given.program.steps.get(..self.step).unwrap_or_default();
        before.iter().rposition(|step| step.op == Op::Host(HostOp::Release)).unwrap_or_default()
    }

    /// Under a filter that refuses sendmsg(2) the stage says which descriptor it is.
    fn take_listener(&mut self, number: i32) -> Result<()> {
        let pidfd = &self.child()?.pidfd;
        let taken = rustix::process::pidfd_getfd(pidfd, number, rustix::process::PidfdGetfdFlags::empty());
        self.listener = Some(taken.call(|| format!("pidfd_getfd({number})")).step(|| STARTING)?);
        Ok(())
    }

    pub(super) fn hooks(&mut self) -> Result<()> {
        let LaunchPurpose::Create { plan, dir, .. } = &self.given.purpose else { return Ok(()) };
        let state = |status| hooks::state_of(&plan.id, status, self.pid(), &plan.bundle, &plan.annotations);
        // prestart is from a time when it ran at `start`: "created" is what its users were promised, and crun says.
        hooks::run("prestart", &plan.hooks.prestart, &state("created"), &plan.bundle, dir)
            .and_then(|()| {
                hooks::run("createRuntime", &plan.hooks.create_runtime, &state("creating"), &plan.bundle, dir)
            })
            .step(|| STARTING)
    }

    pub(super) fn send_listener(&mut self) -> Result<()> {
        let (Some(listener), Some(fd)) = (self.given.subject.listener, self.listener.take()) else {
            return Err(Error::new(Kind::Os, "no seccomp listener came"));
        };
        let refused = |error: Error| error.at("failed to connect with seccomp agent");
        let socket = sockets::connect(Path::new(&listener.path), "seccomp agent").map_err(refused)?;
        let (status, annotations) = match &self.given.purpose {
            LaunchPurpose::Create { plan, .. } => ("creating", &plan.annotations),
            LaunchPurpose::Exec { .. } => ("running", &EMPTY),
        };
        let state = hooks::state_of(
            self.given.subject.id,
            status,
            self.pid(),
            self.given.subject.bundle,
            annotations,
        );
        let quoted = serde_json::Value::from(listener.metadata.as_str());
        let version = crate::state::OCI_VERSION;
        let pid = self.pid();
        let payload = format!(
            "{{\"ociVersion\":\"{version}\",\"fds\":[\"seccompFd\"],\"pid\":{pid},\"metadata\":{quoted},\"state\":{state}}}"
        );
        sockets::send_descriptor(socket.as_fd(), payload.as_bytes(), fd.as_fd())
    }

    /// Raises the limits that the stage, at Ready, said it could not: a bit each.
    pub(super) fn rlimits(&self, refused: u32) -> Result<()> {
        let pid = self.pid();
        // A limit of the process's own may be set by now.
        let given = |resource| {
            self.given
                .subject
                .process
                .is_some_and(|process| process.rlimits.iter().any(|limit| limit.resource == resource))
        };
        if let Some(Rlimit { current, maximum }) =
            self.descriptors.filter(|_| !given(libc::RLIMIT_NOFILE as u32))
        {
            let (soft, hard) = (current.unwrap_or(u64::MAX), maximum.unwrap_or(u64::MAX));
            crate::sys::sched::prlimit(pid, libc::RLIMIT_NOFILE as u32, soft, hard)
                .call(|| format!("prlimit(RLIMIT_NOFILE, {soft}:{hard})"))?;
        }
        let limits = self.given.subject.process.iter().flat_map(|process| &process.rlimits).enumerate();
        for (_, limit) in limits.filter(|(index, _)| refused >> index & 1 == 1) {
            let call = || format!("prlimit({}, {}:{})", limit.name, limit.soft, limit.hard);
            crate::sys::sched::prlimit(pid, limit.resource, limit.soft, limit.hard)
                .call(call)
                .map_err(advice::of_rlimit)
                .step(|| format!("config.json {}", limit.at))?;
        }
        Ok(())
    }

    pub(super) fn schedule(&mut self) -> Result<()> {
        let (pid, Some(process)) = (self.pid(), self.given.subject.process) else { return Ok(()) };
        self.run_anywhere(pid);
        if let Some(scheduler) = &process.scheduler {
            crate::sys::sched::set_attr(pid, &scheduler.value.attr)
                .call(|| format!("sched_setattr(policy {})", scheduler.value.attr.policy))
                .map_err(|error| match error.errno() {
                    Some(libc::EPERM) if scheduler.value.confined => error.at(
                        "process scheduler can't be used together with AllowedCPUs, nor without CAP_SYS_NICE",
                    ),
                    _ => error,
                })
                .step(|| format!("config.json {}", scheduler.at))?;
        }
        if let Some(priority) = &process.io_priority {
            crate::sys::sched::ioprio_set(pid, priority.value)
                .call(|| format!("ioprio_set({:#x})", priority.value))
                .step(|| format!("config.json {}", priority.at))?;
        }
        self.run_on(process.affinity.as_ref().and_then(|affinity| affinity.value.last.as_ref()), "final")
    }

    /// Gives the process all CPUs of its control group, whatever the caller is confined to, as runc and crun do. Linux 6.2 and
    /// newer keep what was asked for: a cpuset that grows later gives it more. Before the policy is set: SCHED_DEADLINE
    /// takes no process that is confined.
    fn run_anywhere(&self, pid: i32) {
        const ALL: [u64; 128] = [u64::MAX; 128];
        if let Err(error) = crate::sys::sched::set_affinity(pid, &ALL) {
            let errno = crate::error::Words(error.0);
            (self.given.home.warn)(&format!(
                "the process keeps the runtime's CPU affinity: sched_setaffinity: {errno}"
            ));
        }
    }

    /// CPU affinity is for `exec` alone (config.md: execCPUAffinity).
    pub(super) fn run_on(&self, cpus: Option<&CpuSet>, field: &str) -> Result<()> {
        let (LaunchPurpose::Exec { .. }, Some(cpus)) = (&self.given.purpose, cpus) else { return Ok(()) };
        crate::sys::sched::set_affinity(self.pid(), &cpus.0)
            .call(|| "sched_setaffinity")
            .step(|| format!("config.json /process/execCPUAffinity/{field}"))
    }

    pub(super) fn hand_over_console(&mut self, master: Option<OwnedFd>) -> Result<()> {
        let master = master.ok_or_else(|| Error::new(Kind::Os, "no terminal came"))?;
        // Now: what the process writes must not depend on how soon it does.
        if matches!(self.given.subject.stdio, Stdio::Inherit) && !tty::is_relayed_unchanged() {
            tty::plain_newlines(&master).call(|| "tcsetattr(console)")?;
        }
        match &self.console_socket {
            Some(socket) => {
                let name = rustix::pty::ptsname(&master, Vec::new()).call(|| "ioctl(TIOCGPTN)")?;
                sockets::send_descriptor(socket.as_fd(), name.as_bytes(), master.as_fd())
                    .map_err(|error| error.at("console socket").with_kind(Kind::Peer))
            }
            None => {
                self.console = Some(master);
                Ok(())
            }
        }
    }

    /// The process is complete: tell whoever asked to be told.
    pub(super) fn record(&mut self) -> Result<()> {
        let child = self.child.as_ref().ok_or_else(super::launch::no_stage)?;
        let payload = match &mut self.given.purpose {
            LaunchPurpose::Create { dir, state, .. } => {
                dir.write(state)?;
                "standard"
            }
            LaunchPurpose::Exec { .. } => "setns",
        };
        if let Some(path) = &self.given.subject.pidfd_socket {
            let socket = sockets::connect(path, "pidfd socket")?;
            sockets::send_descriptor(socket.as_fd(), payload.as_bytes(), child.pidfd.as_fd())
                .map_err(|error| error.at("pidfd socket").with_kind(Kind::Peer))?;
        }
        if let Some(path) = self.given.subject.pid_file.clone() {
            // If that fails, there is no new file, and perhaps an older one that is not ours.
            sockets::write_whole(&path, child.pid.to_string().as_bytes()).map_err(advice::of_pid_file)?;
            self.journal.push(Undo::File(path));
        }
        Ok(())
    }

    pub(super) fn poststart(&mut self) -> Result<()> {
        let LaunchPurpose::Create { plan, dir, .. } = &self.given.purpose else { return Ok(()) };
        let state = hooks::state_of(&plan.id, "running", self.pid(), &plan.bundle, &plan.annotations);
        hooks::run("poststart", &plan.hooks.poststart, &state, &plan.bundle, dir)
    }
}

static EMPTY: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new();
