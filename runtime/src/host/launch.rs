// SPDX-License-Identifier: Apache-2.0
//! Launching: walks a program from its top, does what is the host's, and meets the stage at barriers.
//!
//! Every change of the host is entered in the undo journal first; an error undoes them all, so that a failed create
//! leaves nothing. The stage's operations are passed over here: it performs them between two barriers on its own.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::undo::{Journal, Undo};
use super::{Channel, channel, hooks, idmap, image, sockets, sources};
use crate::ask::{Home, Launched, Stdio};
use crate::cgroup::{Group, Placement};
use crate::error::{Context, Error, Kind, Result, Step};
use crate::plan::Plan;
use crate::plan::namespaces::NsKind;
use crate::plan::process::Process;
use crate::program::encode::encode;
use crate::program::{HostOp, Op, Program, Source, explain};
use crate::seccomp::Listener;
use crate::stage::wire::kind;
use crate::state::{Dir, Identity, State};
use crate::sys::clone::{Stage, Window, launch};

/// What every error of the way to the user's program begins with (reference E4).
const STARTING: &str = "unable to start container process";

/// What is launched: a container, or one more process in one.
pub enum Task<'a> {
    /// `create` and `run`.
    Create {
        /// The plan.
        plan: &'a Plan,
        /// The container's directory, taken and locked.
        dir: &'a Dir,
        /// Its state, to be written as it comes to be.
        state: State,
    },
    /// `exec`.
    Exec {
        /// Init's pidfd.
        init: OwnedFd,
        /// Init's pid.
        pid: i32,
        /// Where the process goes.
        placement: Placement,
    },
}

/// Who it is about, for both tasks.
pub struct Subject<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The bundle.
    pub bundle: &'a Path,
    /// The process.
    pub process: Option<&'a Process>,
    /// The seccomp agent.
    pub listener: Option<&'a Listener>,
    /// Standard descriptors.
    pub stdio: Stdio,
    /// Where the pid is written.
    pub pid_file: Option<PathBuf>,
    /// Who receives the pidfd.
    pub pidfd_socket: Option<PathBuf>,
}

/// A launch under way.
pub struct Launch<'a> {
    home: &'a Home<'a>,
    program: &'a Program,
    task: Task<'a>,
    subject: Subject<'a>,
    journal: Journal<'a>,
    sources: Vec<OwnedFd>,
    /// Trees that were copied all at once, by source.
    trees: Vec<Option<Result<OwnedFd>>>,
    placement: Option<Placement>,
    console: Option<OwnedFd>,
    channel: Option<Channel>,
    records: Vec<usize>,
    child: Option<(i32, OwnedFd)>,
    received: Option<OwnedFd>,
    /// Resource limits that the stage could not raise, a bit each.
    deferred: u32,
    kept_console: Option<OwnedFd>,
    /// The caller's limit of descriptors, if it was too low for the sources.
    descriptors: Option<Rlimit>,
}

impl<'a> Launch<'a> {
    /// Runs `program` to its end.
    ///
    /// # Errors
    /// After an error everything is undone.
    pub fn run(
        home: &'a Home<'a>,
        program: &'a Program,
        task: Task<'a>,
        subject: Subject<'a>,
    ) -> Result<Launched> {
        let mut launch = Launch {
            home,
            program,
            task,
            subject,
            journal: Journal::default(),
            sources: Vec::new(),
            trees: Vec::new(),
            placement: None,
            console: None,
            channel: None,
            records: Vec::new(),
            child: None,
            received: None,
            deferred: 0,
            kept_console: None,
            descriptors: make_room(program.sources.len())?,
        };
        if let Task::Create { dir, .. } = &launch.task {
            launch.journal.push(Undo::Dir(dir));
        }
        let walked = launch.walk();
        launch.give_room_back();
        match walked {
            Ok(launched) => {
                launch.journal.keep();
                Ok(launched)
            }
            Err(error) => {
                // The stage goes first: it may hold what is to be removed.
                launch.channel = None;
                launch.sources.clear();
                launch.journal.undo(home);
                Err(error)
            }
        }
    }

    fn walk(&mut self) -> Result<Launched> {
        for (index, step) in self.program.steps.iter().enumerate() {
            if let Op::Host(op) = &step.op {
                self.one(op).map_err(|error| self.place(error, index, op))?;
            }
        }
        let (pid, pidfd) =
            self.child.take().ok_or_else(|| Error::new(Kind::Invalid, "nothing was launched"))?;
        Ok(Launched { pid, pidfd, console: self.kept_console.take() })
    }

    /// What the stage reports is worded already; the host's own errors get the place of their step.
    fn place(&self, error: Error, index: usize, op: &HostOp) -> Error {
        let at = explain::place(self.program, index);
        match op {
            HostOp::Await(_) | HostOp::Outcome | HostOp::Adopt => error,
            HostOp::Hooks | HostOp::Poststart | HostOp::Reserve | HostOp::Record => error,
            _ if at.is_empty() => error,
            _ => error.at(at),
        }
    }

    fn one(&mut self, op: &HostOp) -> Result<()> {
        match op {
            HostOp::Reserve => self.reserve(),
            HostOp::Cgroup => self.cgroup(),
            HostOp::Open(index) => self.open(*index),
            HostOp::ConsoleSocket => self.console_socket(),
            HostOp::Clone { flags, wait } => self.clone(*flags, *wait),
            HostOp::Adopt => self.adopt(),
            HostOp::IdMaps => self.id_maps(),
            HostOp::Place => self.place_process(),
            HostOp::OomScoreAdj(score) => self.oom_score_adj(*score),
            HostOp::Release => self.channel()?.go().step(|| STARTING),
            HostOp::Await(barrier) => self.wait_for(*barrier),
            HostOp::Hooks => self.hooks(),
            HostOp::Listener => self.send_listener(),
            HostOp::Rlimits => self.rlimits(),
            HostOp::Schedule => self.schedule(),
            HostOp::Console => self.hand_over_console(),
            HostOp::Record => self.record(),
            HostOp::Outcome => self.outcome(),
            HostOp::Poststart => self.poststart(),
        }
    }

    fn reserve(&mut self) -> Result<()> {
        let Task::Create { dir, state, .. } = &self.task else { return Ok(()) };
        dir.write(state)
    }

    fn cgroup(&mut self) -> Result<()> {
        let Task::Create { plan, state, .. } = &mut self.task else { return Ok(()) };
        self.journal.push(Undo::Cgroup(state.cgroup.clone()));
        let (group, placement) = Group::create(&plan.cgroup)?;
        state.cgroup = group.record().clone();
        self.journal.push(Undo::Cgroup(state.cgroup.clone()));
        group.apply(&plan.cgroup)?;
        self.placement = Some(placement);
        Ok(())
    }

    fn open(&mut self, index: usize) -> Result<()> {
        let Some(source) = self.program.sources.get(index) else { return Ok(()) };
        let opened = match (source, &self.task) {
            (Source::Tree(tree), Task::Create { plan, .. }) => {
                let ids = plan.ids.as_ref().or(plan.expected_ids.as_ref());
                if self.trees.is_empty() && plan.namespaces.has(NsKind::User) {
                    self.trees = sources::locked_trees(&self.program.sources, ids)?;
                }
                match self.trees.get_mut(index).and_then(Option::take) {
                    Some(copied) => copied,
                    None => sources::tree(tree, ids),
                }
            }
            (Source::Namespace { path, kind, foreign }, _) => {
                sources::namespace(path, *kind, foreign.as_deref())
            }
            (Source::Proc, _) => sources::directory("/proc"),
            (Source::Gate, Task::Create { dir, .. }) => sources::gate(dir),
            (Source::Init, Task::Exec { init, .. }) => init.try_clone().call(|| "dup(pidfd)"),
            (Source::InitRoot, Task::Exec { pid, .. }) => sources::directory(&format!("/proc/{pid}/root")),
            _ => Err(Error::new(Kind::Invalid, "internal error: a source of another task")),
        }?;
        self.sources.push(opened);
        Ok(())
    }

    fn console_socket(&mut self) -> Result<()> {
        if let Stdio::ConsoleSocket(path) = &self.subject.stdio {
            self.console = Some(sockets::connect(path, "console socket")?);
        }
        Ok(())
    }

    fn clone(&mut self, flags: u64, wait: bool) -> Result<()> {
        let (channel, sync) = Channel::pair()?;
        let keep: Vec<i32> = (3..3 + self.kept_descriptors()).collect();
        let fds: Vec<i32> = self.sources.iter().map(std::os::fd::AsRawFd::as_raw_fd).collect();
        let encoded = encode(self.program, &fds, &keep, std::os::fd::AsRawFd::as_raw_fd(&sync));
        self.records = encoded.steps;
        let mut words = encoded.words;
        let image = image::stage()?;
        let program = image.as_ref().map(|_| image::program(&words)).transpose()?;
        let mut inherit: Vec<BorrowedFd<'_>> = self.sources.iter().map(AsFd::as_fd).collect();
        inherit.push(sync.as_fd());
        inherit.extend(program.as_ref().map(AsFd::as_fd));
        let placement = match &self.task {
            Task::Create { .. } => self.placement.as_ref(),
            Task::Exec { placement, .. } => Some(placement),
        };
        let stdio = match &self.subject.stdio {
            Stdio::Fds(fds) => Some([fds[0].as_fd(), fds[1].as_fd(), fds[2].as_fd()]),
            _ => None,
        };
        let user = flags & NsKind::User.flag() != 0;
        let mut window = Window {
            flags,
            cgroup: placement.and_then(Placement::at_birth),
            wait,
            become_root: user,
            sync: sync.as_fd(),
            host: Some(channel.as_fd()),
            stdio,
            inherit: &inherit,
        };
        let mut born = launch(&window, entry(image.as_ref(), program.as_ref(), &mut words));
        // A group that takes nobody at birth may still take him by pid (Placement::AtBirth).
        let late = window.cgroup.is_some() && born.as_ref().is_err_and(refused_by_group);
        if late {
            (window.cgroup, window.wait) = (None, true);
            born = launch(&window, entry(image.as_ref(), program.as_ref(), &mut words));
        }
        let (pid, pidfd) = born.step(|| STARTING)?;
        // The hooks are for a container that is gone: undone after the child.
        if let Task::Create { plan, .. } = &self.task {
            self.journal.push(Undo::Poststop(plan));
        }
        self.journal.push(Undo::Child(pidfd.try_clone().call(|| "dup(pidfd)")?));
        if late {
            if let Some(placement) = placement {
                placement.place(pid)?;
            }
            if !wait {
                channel.go()?;
            }
        }
        self.child = Some((pid, pidfd));
        self.channel = Some(channel);
        drop(inherit);
        // The stage has its own copies now.
        self.sources.clear();
        self.give_room_back();
        Ok(())
    }

    fn kept_descriptors(&self) -> i32 {
        let closes = self.program.steps.iter().find_map(|step| match step.op {
            Op::Stage(crate::program::StageOp::Close { from, .. }) => Some(from),
            _ => None,
        });
        closes.map_or(0, |from| from.saturating_sub(3) as i32)
    }

    /// The first process cloned the final one beside itself: that is the child from now on.
    fn adopt(&mut self) -> Result<()> {
        self.wait_for(crate::stage::wire::barrier::HOP)?;
        let pidfd = self.received.take().ok_or_else(|| Error::new(Kind::Os, "no pidfd came").at(STARTING))?;
        let pid = sources::pid_of(&pidfd).step(|| STARTING)?;
        self.journal.push(Undo::Child(pidfd.try_clone().call(|| "dup(pidfd)")?));
        if let Some((_, first)) = self.child.replace((pid, pidfd)) {
            crate::sys::wait::reap(first.as_fd())?;
        }
        Ok(())
    }

    fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |(pid, _)| *pid)
    }

    fn channel(&self) -> Result<&Channel> {
        self.channel.as_ref().ok_or_else(|| Error::new(Kind::Invalid, "internal error: no stage"))
    }

    fn id_maps(&mut self) -> Result<()> {
        match &self.task {
            Task::Create { plan, .. } => match &plan.ids {
                Some(ids) => idmap::write_maps(self.pid(), &ids.uid, &ids.gid),
                None => Ok(()),
            },
            Task::Exec { .. } => Ok(()),
        }
    }

    fn place_process(&mut self) -> Result<()> {
        let placement = match &self.task {
            Task::Create { .. } => self.placement.as_ref(),
            Task::Exec { placement, .. } => Some(placement),
        };
        placement.map_or(Ok(()), |placement| placement.place(self.pid()))
    }

    fn oom_score_adj(&mut self, score: i32) -> Result<()> {
        let path = format!("/proc/{}/oom_score_adj", self.pid());
        std::fs::write(&path, score.to_string()).call(|| format!("write({path}, {score})"))
    }

    /// Waits until the stage is at `barrier`; anything else that it says is a fault.
    fn wait_for(&mut self, barrier: u8) -> Result<()> {
        loop {
            let Some(incoming) = self.channel()?.receive().step(|| STARTING)? else {
                return Err(self.died());
            };
            match incoming.message.kind {
                kind::REACHED if incoming.message.barrier == barrier => {
                    self.received = incoming.fd;
                    self.deferred = incoming.message.aux;
                    return Ok(());
                }
                kind::WARNING => self.warn(&incoming),
                kind::FAULT => return Err(self.fault(&incoming)),
                _ => return Err(Error::new(Kind::Peer, "unexpected message from the stage").at(STARTING)),
            }
        }
    }

    fn fault(&self, incoming: &channel::Incoming) -> Error {
        channel::word(self.program, &self.records, incoming).at("error during container init").at(STARTING)
    }

    fn warn(&self, incoming: &channel::Incoming) {
        let name = crate::plan::caps::names(1 << incoming.message.aux.min(63)).join("");
        let errno = crate::error::Words(incoming.message.errno);
        (self.home.warn)(&format!("can't raise ambient capability {name}: {errno}"));
    }

    /// The stage went away without a word.
    fn died(&mut self) -> Error {
        use crate::sys::wait::{Exit, reap};
        let how = match self.child.as_ref().map(|(_, pidfd)| reap(pidfd.as_fd())) {
            Some(Ok(Exit::Signal(9))) => "killed (SIGKILL; memory limit too low?)".to_owned(),
            Some(Ok(Exit::Signal(signal))) => format!("killed by signal {signal}"),
            Some(Ok(Exit::Code(code))) => format!("exit status {code}"),
            _ => "unknown end".to_owned(),
        };
        Error::new(Kind::Os, format!("container init ended early: {how}")).at(STARTING)
    }

    fn hooks(&mut self) -> Result<()> {
        let Task::Create { plan, .. } = &self.task else { return Ok(()) };
        let state = hooks::state_of(&plan.id, "creating", self.pid(), &plan.bundle, &plan.annotations);
        hooks::run("prestart", &plan.hooks.prestart, &state, &plan.bundle)
            .and_then(|()| hooks::run("createRuntime", &plan.hooks.create_runtime, &state, &plan.bundle))
            .step(|| STARTING)
    }

    fn send_listener(&mut self) -> Result<()> {
        let (Some(listener), Some(fd)) = (self.subject.listener, self.received.take()) else {
            return Err(Error::new(Kind::Os, "no seccomp listener came"));
        };
        let refused = |error: Error| error.at("failed to connect with seccomp agent");
        let socket = sockets::connect(Path::new(&listener.path), "seccomp agent").map_err(refused)?;
        let (status, annotations) = match &self.task {
            Task::Create { plan, .. } => ("creating", &plan.annotations),
            Task::Exec { .. } => ("running", &EMPTY),
        };
        let state = hooks::state_of(self.subject.id, status, self.pid(), self.subject.bundle, annotations);
        let quoted = serde_json::Value::from(listener.metadata.as_str());
        let version = crate::state::OCI_VERSION;
        let pid = self.pid();
        let payload = format!(
            "{{\"ociVersion\":\"{version}\",\"fds\":[\"seccompFd\"],\"pid\":{pid},\"metadata\":{quoted},\"state\":{state}}}"
        );
        sockets::send_descriptor(socket.as_fd(), payload.as_bytes(), fd.as_fd())
    }

    /// Hooks must not get the raised limit.
    fn give_room_back(&self) {
        if let Some(limit) = &self.descriptors {
            let _ = setrlimit(Resource::Nofile, limit.clone());
        }
    }

    fn rlimits(&mut self) -> Result<()> {
        let pid = self.pid();
        if let Some(Rlimit { current, maximum }) = self.descriptors.clone() {
            let (soft, hard) = (current.unwrap_or(u64::MAX), maximum.unwrap_or(u64::MAX));
            crate::sys::sched::prlimit(pid, libc::RLIMIT_NOFILE as u32, soft, hard)
                .call(|| format!("prlimit(RLIMIT_NOFILE, {soft}:{hard})"))?;
        }
        let limits = self.subject.process.iter().flat_map(|process| &process.rlimits).enumerate();
        for (_, limit) in limits.filter(|(index, _)| self.deferred >> index & 1 == 1) {
            let call = || format!("prlimit({}, {}:{})", limit.name, limit.soft, limit.hard);
            crate::sys::sched::prlimit(pid, limit.resource, limit.soft, limit.hard)
                .call(call)
                .step(|| format!("config.json {}", limit.at))?;
        }
        Ok(())
    }

    fn schedule(&mut self) -> Result<()> {
        let (pid, Some(process)) = (self.pid(), self.subject.process) else { return Ok(()) };
        if let Some(scheduler) = &process.scheduler {
            crate::sys::sched::set_attr(pid, &scheduler.value)
                .call(|| format!("sched_setattr(policy {})", scheduler.value.policy))
                .step(|| format!("config.json {}", scheduler.at))?;
        }
        if let Some(priority) = &process.io_priority {
            crate::sys::sched::ioprio_set(pid, priority.value)
                .call(|| format!("ioprio_set({:#x})", priority.value))
                .step(|| format!("config.json {}", priority.at))?;
        }
        Ok(())
    }

    fn hand_over_console(&mut self) -> Result<()> {
        let master = self.received.take().ok_or_else(|| Error::new(Kind::Os, "no terminal came"))?;
        match &self.console {
            Some(socket) => {
                let name = rustix::pty::ptsname(&master, Vec::new()).call(|| "ioctl(TIOCGPTN)")?;
                sockets::send_descriptor(socket.as_fd(), name.as_bytes(), master.as_fd())
                    .map_err(|error| error.at("console socket").with_kind(Kind::Peer))
            }
            None => {
                self.kept_console = Some(master);
                Ok(())
            }
        }
    }

    /// The process is complete: tell whoever asked to be told.
    fn record(&mut self) -> Result<()> {
        let Some((pid, pidfd)) = &self.child else { return Ok(()) };
        let pid = *pid;
        let payload = match &mut self.task {
            Task::Create { dir, state, .. } => {
                state.init = Some(Identity::of(pid, pidfd.as_fd())?);
                dir.write(state)?;
                "standard"
            }
            Task::Exec { .. } => "setns",
        };
        if let Some(path) = &self.subject.pidfd_socket {
            let socket = sockets::connect(path, "pidfd socket")?;
            sockets::send_descriptor(socket.as_fd(), payload.as_bytes(), pidfd.as_fd())
                .map_err(|error| error.at("pidfd socket").with_kind(Kind::Peer))?;
        }
        if let Some(path) = self.subject.pid_file.clone() {
            self.journal.push(Undo::File(path.clone()));
            sockets::write_pid_file(&path, pid)?;
        }
        Ok(())
    }

    /// The socket's end is the exec's success: it is closed by it.
    fn outcome(&mut self) -> Result<()> {
        while let Some(incoming) = self.channel()?.receive().step(|| STARTING)? {
            match incoming.message.kind {
                kind::WARNING => self.warn(&incoming),
                _ => return Err(self.fault(&incoming)),
            }
        }
        Ok(())
    }

    fn poststart(&mut self) -> Result<()> {
        let Task::Create { plan, .. } = &self.task else { return Ok(()) };
        let state = hooks::state_of(&plan.id, "running", self.pid(), &plan.bundle, &plan.annotations);
        hooks::run("poststart", &plan.hooks.poststart, &state, &plan.bundle)
    }
}

static EMPTY: std::collections::BTreeMap<String, String> = std::collections::BTreeMap::new();

/// The way into the stage.
fn entry<'a>(image: Option<&'a OwnedFd>, program: Option<&'a OwnedFd>, words: &'a mut [u64]) -> Stage<'a> {
    match (image, program) {
        (Some(image), Some(program)) => Stage::Sealed { image: image.as_fd(), program: program.as_fd() },
        _ => Stage::Linked(words),
    }
}

/// Every source is a descriptor for a while: hundreds of mounts are more than a low soft limit allows. Returns the
/// limit as it was, if it had to be raised.
fn make_room(sources: usize) -> Result<Option<Rlimit>> {
    /// What we and the stage hold besides.
    const OURS: u64 = 64;
    let limit = getrlimit(Resource::Nofile);
    let needed = sources as u64 + OURS;
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(None);
    }
    let soft = limit.maximum.map_or(needed, |hard| hard.min(needed.max(1024)));
    if limit.current < Some(soft) {
        let raised = Rlimit { current: Some(soft), maximum: limit.maximum };
        setrlimit(Resource::Nofile, raised).call(|| format!("setrlimit(RLIMIT_NOFILE, {soft})"))?;
    }
    Ok(Some(limit))
}

/// Errors of clone3 that CLONE_INTO_CGROUP alone may have caused.
fn refused_by_group(error: &Error) -> bool {
    matches!(error.errno(), Some(libc::EBUSY | libc::EOPNOTSUPP | libc::EACCES | libc::EPERM | libc::ENOSYS))
}
