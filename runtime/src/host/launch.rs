// SPDX-License-Identifier: Apache-2.0
//! Launching: walks a program from its top, does what is the host's, and meets the stage at barriers.
//!
//! Every change of the host is entered in the undo journal first; an error undoes them all, so that a failed create
//! leaves nothing. The stage's operations are passed over here: it performs them between two barriers on its own.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::undo::{Journal, Undo};
use super::{Channel, gate, sockets, sources};
use crate::ask::{Home, Stdio};
use crate::cgroup::{Group, Made, Placement, WayIn};
use crate::error::{Context, Error, Kind, Result, Step};
use crate::facts::IdMaps;
use crate::plan::Plan;
use crate::plan::namespaces::NsKind;
use crate::plan::process::Process;
use crate::program::{HostOp, Op, Program, Source, explain};
use crate::seccomp::Listener;
use crate::state::{Dir, Identity, ResctrlGroups, State};

/// What every error of the way to the user's program begins with (compatibility E4).
pub(super) const STARTING: &str = "unable to start container process";

/// What is launched: a container, or one more process in one.
pub enum Task<'a> {
    /// `create` and `run`.
    Create {
        /// The plan.
        plan: &'a Plan,
        /// The container's directory, taken and locked.
        dir: &'a Dir,
        /// Its state, to be written as it comes to be.
        state: Box<State>,
        /// The bytes of its configuration.
        config: &'a [u8],
    },
    /// `exec`.
    Exec {
        /// Init's pidfd.
        init: OwnedFd,
        /// Init's pid.
        pid: i32,
        /// Where the process goes.
        placement: Placement,
        /// The container's groups in resctrl.
        rdt: Option<ResctrlGroups>,
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

/// A process that was launched.
#[derive(Debug)]
pub struct Launched {
    /// Its pid in the caller's pid namespace.
    pub pid: i32,
    /// Its pidfd, from birth. The process is a child of the caller.
    pub pidfd: OwnedFd,
    /// The other end of its terminal, when the caller keeps that.
    pub console: Option<OwnedFd>,
    /// The container's notification socket, to be relayed by the caller of `run`.
    pub notify: Option<super::notify::Notify>,
}

/// A launch under way.
pub struct Launch<'a> {
    pub(super) home: &'a Home<'a>,
    pub(super) program: &'a Program,
    pub(super) task: Task<'a>,
    pub(super) subject: Subject<'a>,
    pub(super) journal: Journal<'a>,
    pub(super) sources: Vec<OwnedFd>,
    /// Trees that were copied all at once, by source.
    pub(super) trees: Vec<Option<Result<OwnedFd>>>,
    pub(super) group: Option<Rc<Group>>,
    pub(super) placement: Option<Placement>,
    /// How many the container's group had lost for want of memory before the process was made.
    pub(super) oom_kills: u64,
    /// Mappings of a user namespace that is joined.
    pub(super) joined: Option<IdMaps>,
    pub(super) console: Option<OwnedFd>,
    pub(super) channel: Option<Channel>,
    pub(super) records: Vec<usize>,
    pub(super) child: Option<(i32, OwnedFd)>,
    /// The process that only cloned the child: it is waited for when there is time.
    pub(super) first: Option<OwnedFd>,
    pub(super) received: Option<OwnedFd>,
    /// The listener of the filter, until its agent has it.
    pub(super) listener: Option<OwnedFd>,
    /// The step of the host's that is under way.
    pub(super) step: usize,
    /// What the stage told at the last barrier (`Message::aux`).
    pub(super) aux: u32,
    /// How the process gets, or got, into its control groups.
    pub(super) way_in: WayIn,
    pub(super) kept_console: Option<OwnedFd>,
    /// The caller's limit of descriptors, if it was too low for the sources.
    pub(super) descriptors: Option<Rlimit>,
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
            group: None,
            placement: None,
            oom_kills: 0,
            joined: None,
            console: None,
            channel: None,
            records: Vec::new(),
            child: None,
            first: None,
            received: None,
            listener: None,
            step: 0,
            aux: 0,
            way_in: WayIn::Born,
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
                self.step = index;
                self.one(op).map_err(|error| self.place(error, index, op))?;
            }
        }
        if let Some(first) = self.first.take() {
            crate::sys::wait::reap(first.as_fd())?;
        }
        let (pid, pidfd) =
            self.child.take().ok_or_else(|| Error::new(Kind::Invalid, "nothing was launched"))?;
        Ok(Launched { pid, pidfd, console: self.kept_console.take(), notify: None })
    }

    /// What the stage reports is worded already; the host's own errors get the place of their step.
    fn place(&self, error: Error, index: usize, op: &HostOp) -> Error {
        let at = explain::place(self.program, index);
        match op {
            HostOp::Await(_) | HostOp::Outcome | HostOp::Adopt => error,
            HostOp::Hooks | HostOp::Poststart | HostOp::Reserve | HostOp::Keep | HostOp::Record => error,
            // These name the field themselves.
            HostOp::IdMaps(_) | HostOp::JoinedIds => error,
            HostOp::Rdt | HostOp::RdtPlace | HostOp::NetDevices => error,
            _ if at.is_empty() => error,
            _ => error.at(at),
        }
    }

    fn one(&mut self, op: &HostOp) -> Result<()> {
        match op {
            HostOp::Reserve => self.reserve(),
            HostOp::JoinedIds => self.joined_ids(),
            HostOp::Cgroup => self.cgroup(),
            HostOp::OwnMount(index) => self.own_mount(*index),
            HostOp::CgroupOwner(uid) => self.cgroup_owner(*uid),
            HostOp::Network => self.network(),
            HostOp::DeviceRules => self.device_rules(),
            HostOp::Keep => self.keep(),
            HostOp::Identify => self.identify(),
            HostOp::Rdt => self.rdt(),
            HostOp::RdtPlace => self.rdt_place(),
            HostOp::NetDevices => self.net_devices(),
            HostOp::Open(index) => self.open(*index),
            HostOp::ConsoleSocket => self.console_socket(),
            HostOp::Clone { flags, wait, way_in } => self.clone(*flags, *wait, *way_in),
            HostOp::Adopt => self.adopt(),
            HostOp::IdMaps(writers) => self.id_maps(*writers),
            HostOp::Place => self.see_joined(),
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
        let Task::Create { plan, dir, state, .. } = &mut self.task else { return Ok(()) };
        let mut made = Made::default();
        let created = Group::create(&plan.cgroup, &mut made, &mut |record| {
            state.cgroup = record.clone();
            dir.write(state)
        });
        // What a create that fails has claimed it has given back itself: whose the rest is, is not known.
        self.journal.push(Undo::Directories(made));
        let (group, placement) = created?;
        let group = Rc::new(group);
        self.journal.push(Undo::Cgroup(Rc::clone(&group)));
        state.cgroup = group.record().clone();
        group.apply_limits(&plan.cgroup)?;
        self.oom_kills = group.oom_kills_before()?;
        self.group = Some(group);
        self.placement = Some(placement);
        Ok(())
    }

    fn network(&self) -> Result<()> {
        let made = crate::sys::ns::new_network()?;
        match self.channel()?.give(made.as_fd()) {
            // The stage has ended: why, it says at the next barrier.
            Err(error) if matches!(error.errno(), Some(libc::EPIPE | libc::ECONNRESET)) => Ok(()),
            other => other,
        }
    }

    fn device_rules(&mut self) -> Result<()> {
        match (&self.task, &self.group) {
            (Task::Create { plan, .. }, Some(group)) => group.apply_devices(&plan.cgroup),
            _ => Ok(()),
        }
    }

    fn keep(&mut self) -> Result<()> {
        match &self.task {
            Task::Create { dir, config, .. } => dir.write_file("config.json", config),
            Task::Exec { .. } => Ok(()),
        }
    }

    fn identify(&mut self) -> Result<()> {
        if let (Task::Create { state, .. }, Some((pid, pidfd))) = (&mut self.task, &self.child) {
            state.init = Some(Identity::of(*pid, pidfd.as_fd())?);
        }
        Ok(())
    }

    fn open(&mut self, index: usize) -> Result<()> {
        let Some(source) = self.program.sources.get(index) else { return Ok(()) };
        let opened = match (source, &self.task) {
            (Source::Tree(tree), Task::Create { plan, .. }) => {
                let ids = plan.ids.as_ref().or(self.joined.as_ref());
                if self.trees.is_empty() && plan.namespaces.has(NsKind::User) {
                    self.trees = sources::locked_trees(&self.program.sources, ids)?;
                }
                match self.trees.get_mut(index).and_then(Option::take) {
                    Some(copied) => copied,
                    None => sources::tree(tree, ids),
                }
            }
            (Source::Fs(fs), Task::Create { plan, .. }) => {
                sources::file_system(fs, plan.ids.as_ref().or(self.joined.as_ref()))
            }
            // Only where there is a user namespace: made with its trees, of which the root is the first.
            (Source::Node(_), _) => match self.trees.get_mut(index).and_then(Option::take) {
                Some(made) => made,
                None => Err(Error::new(Kind::Invalid, "internal error: a device node before the rootfs")),
            },
            (Source::Namespace { path, kind, foreign }, _) => {
                sources::namespace(path, *kind, foreign.as_deref())
            }
            (Source::Place, _) => sources::directory("/"),
            (Source::Proc, _) => sources::directory("/proc"),
            (Source::Gate, Task::Create { dir, .. }) => gate::socket(dir),
            (Source::GateFifo, Task::Create { dir, .. }) => gate::fifo(dir, gate::GATE),
            (Source::OutcomeFifo, Task::Create { dir, .. }) => gate::fifo(dir, gate::OUTCOME),
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

    pub(super) fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |(pid, _)| *pid)
    }

    pub(super) fn channel(&self) -> Result<&Channel> {
        self.channel.as_ref().ok_or_else(|| Error::new(Kind::Invalid, "internal error: no stage"))
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
