// SPDX-License-Identifier: Apache-2.0
//! Launching: walks a program from its top, does what is the host's, and meets the stage at barriers.
//!
//! Every change of the host is entered in the undo journal first; an error undoes them all, so that a failed create
//! leaves nothing. The stage's operations are passed over here: it performs them between two barriers on its own.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::log::StageTrace;
use super::restore::{Restoration, RestoreUnderWay};
use super::undo::{Journal, Undo};
use super::{Channel, advice, gate, sockets, sources};
use crate::ask::{Home, Stdio};
use crate::cgroup::{Group, Made, Placement, WayIn};
use crate::error::{Context, Error, Kind, Result};
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
pub(crate) enum LaunchPurpose<'a> {
    /// `create` and `run`.
    Create {
        plan: &'a Plan,
        /// The container's directory, taken and locked.
        dir: &'a Dir,
        /// Its state, to be written as it comes to be.
        state: Box<State>,
        /// The bytes of its configuration.
        config: &'a [u8],
    },
    Exec {
        /// Init's pidfd.
        init: OwnedFd,
        /// Init's pid.
        pid: i32,
        /// Where the process goes.
        placement: Box<Placement>,
        /// The container's groups in resctrl.
        rdt: Option<ResctrlGroups>,
        /// What is to be mounted, if that is what the process is for.
        mounts: Option<&'a Plan>,
    },
}

/// Who it is about, for both tasks.
pub(crate) struct Subject<'a> {
    /// The container's id.
    pub id: &'a str,
    pub bundle: &'a Path,
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

/// What a launch is given.
pub(crate) struct Launch<'a> {
    /// Where containers are, and who is warned.
    pub home: &'a Home<'a>,
    /// What is to be done.
    pub program: &'a Program,
    /// For a container, or in one.
    pub purpose: LaunchPurpose<'a>,
    /// Who it is about.
    pub subject: Subject<'a>,
    /// What is restored, if something is.
    pub restoration: Option<&'a Restoration>,
}

/// What it returns: a process that was launched.
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

/// What it holds meanwhile, step by step.
pub(super) struct Walk<'a> {
    pub(super) given: Launch<'a>,
    /// The step of the host's that is under way.
    pub(super) step: usize,
    pub(super) journal: Journal<'a>,
    /// Mappings of a user namespace that is joined.
    pub(super) joined: Option<IdMaps>,
    /// The container's group, when it was made here.
    pub(super) group: Option<MadeGroup>,
    /// Where the process goes.
    pub(super) placement: Option<Placement>,
    /// What the stage inherits, until it has.
    pub(super) sources: Vec<OwnedFd>,
    /// Trees that were copied all at once, by source.
    pub(super) trees: Vec<Option<Result<OwnedFd>>>,
    /// The caller's limit of descriptors, if it was too low for the sources.
    pub(super) descriptors: Option<Rlimit>,
    /// The socket that asked for the terminal.
    pub(super) console_socket: Option<OwnedFd>,
    /// The process, from the clone on.
    pub(super) child: Option<Child>,
    /// CRIU, while it restores.
    pub(super) restore: Option<RestoreUnderWay>,
    /// The listener of its filter, until its agent has it.
    pub(super) listener: Option<OwnedFd>,
    /// The other end of its terminal, if nobody else gets it.
    pub(super) console: Option<OwnedFd>,
    /// Whether the stage has ended, or executed, and that is told.
    pub(super) end_heard: Cell<bool>,
    /// What is known of its times, where they are asked for.
    pub(super) trace: Option<StageTrace>,
}

/// The container's group, and how many it had lost for want of memory before the process was made.
pub(super) struct MadeGroup {
    pub(super) group: Rc<Group>,
    pub(super) oom_kills: u64,
}

/// The process that is the stage.
pub(super) struct Child {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    /// Its socket; none to a process that CRIU has made.
    pub(super) channel: Option<Channel>,
    /// How it gets, or got, into its control groups.
    pub(super) way_in: WayIn,
    /// The process that only cloned it: waited for when there is time.
    pub(super) cloner: Option<OwnedFd>,
}

impl Child {
    pub(super) fn channel(&self) -> Result<&Channel> {
        self.channel.as_ref().ok_or_else(no_stage)
    }
}

/// What the stage brought to a meeting, for the steps that follow.
#[derive(Default)]
pub(super) struct Met {
    pub(super) fd: Option<OwnedFd>,
    /// `Message::aux`: the hard limits that it was refused, a bit each.
    pub(super) aux: u32,
}

impl Launch<'_> {
    /// Runs the program to its end.
    ///
    /// # Errors
    /// After an error everything is undone.
    pub(crate) fn run(mut self) -> Result<Launched> {
        let home = self.home;
        let placement = match &mut self.purpose {
            LaunchPurpose::Create { .. } => None,
            LaunchPurpose::Exec { placement, .. } => Some(*std::mem::take(placement)),
        };
        let mut walk = Walk {
            descriptors: None,
            given: self,
            step: 0,
            journal: Journal::default(),
            joined: None,
            group: None,
            placement,
            sources: Vec::new(),
            trees: Vec::new(),
            console_socket: None,
            child: None,
            restore: None,
            listener: None,
            console: None,
            end_heard: Cell::new(false),
            trace: home.trace.map(|_| StageTrace::default()),
        };
        if let LaunchPurpose::Create { dir, .. } = &walk.given.purpose {
            walk.journal.push(Undo::Dir(dir));
        }
        // Once the journal holds what was made before.
        let walked = make_room(walk.given.program.sources.len()).and_then(|before| {
            walk.descriptors = before;
            walk.perform_all()
        });
        walk.tell_stage(&walked);
        walk.give_room_back();
        match walked {
            Ok(launched) => {
                walk.journal.keep();
                Ok(launched)
            }
            Err(error) => {
                // The stage goes first: it may hold what is to be removed.
                if let Err(error) = walk.give_restore_up() {
                    (home.warn)(&format!("while undoing: {error}"));
                }
                walk.child = None;
                walk.sources.clear();
                walk.journal.undo(home);
                Err(error)
            }
        }
    }
}

impl Walk<'_> {
    fn perform_all(&mut self) -> Result<Launched> {
        let program = self.given.program;
        let mut met = Met::default();
        for (index, step) in program.steps.iter().enumerate() {
            if let Op::Host(op) = &step.op {
                self.step = index;
                let began = self.begin_step();
                let performed = self.perform(op, &mut met).map_err(|error| match op {
                    // A hook may be what has ended it.
                    HostOp::Hooks | HostOp::Poststart => error,
                    _ => self.own_reason().unwrap_or_else(|| self.place(error, index, op)),
                });
                self.tell_step(began, index, performed.as_ref().err());
                performed?;
            }
        }
        let Child { pid, pidfd, cloner, .. } =
            self.child.take().ok_or_else(|| Error::new(Kind::Invalid, "nothing was launched"))?;
        if let Some(cloner) = cloner {
            crate::sys::wait::reap(cloner.as_fd())?;
        }
        Ok(Launched { pid, pidfd, console: self.console.take(), notify: None })
    }

    /// What the stage reports is worded already; the host's own errors get the place of their step.
    fn place(&self, error: Error, index: usize, op: &HostOp) -> Error {
        let at = explain::step_name(self.given.program, index);
        match op {
            HostOp::Await(_) | HostOp::Outcome | HostOp::Adopt => error,
            HostOp::Reserve | HostOp::Keep | HostOp::Record => error,
            // These name the field themselves.
            HostOp::IdMaps(_) | HostOp::JoinedIds => error,
            HostOp::Rdt | HostOp::RdtPlace | HostOp::NetDevices => error,
            _ if at.is_empty() => error,
            _ => error.at(at),
        }
    }

    /// `met` is the last meeting.
    fn perform(&mut self, op: &HostOp, met: &mut Met) -> Result<()> {
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
            HostOp::Adopt => self.adopt().map(|now| *met = now),
            HostOp::IdMaps(writers) => self.id_maps(*writers),
            HostOp::Place => self.see_joined(),
            HostOp::OomScoreAdj(score) => self.oom_score_adj(*score),
            HostOp::Release => self.release(),
            HostOp::Await(barrier) => self.await_at(*barrier).map(|now| *met = now),
            HostOp::Hooks => self.hooks(),
            HostOp::Listener => self.send_listener(),
            HostOp::Rlimits => self.rlimits(met.aux),
            HostOp::Schedule => self.schedule(),
            HostOp::Console => self.hand_over_console(met.fd.take()),
            HostOp::Record => self.record(),
            HostOp::Outcome => self.outcome(),
            HostOp::Poststart => self.poststart(),
            HostOp::MountPoints(points) => self.mount_points(points),
            HostOp::Restore(sources) => self.restore(sources),
            HostOp::AwaitCriu(point) => self.await_criu(*point),
            HostOp::Loopback => self.loopback(),
            HostOp::HoldPackets => self.hold_packets(),
            HostOp::LetPacketsIn => self.let_packets_in(),
            HostOp::Compare => self.compare(),
            HostOp::Resume => self.resume(),
        }
    }

    fn reserve(&mut self) -> Result<()> {
        let LaunchPurpose::Create { dir, state, .. } = &self.given.purpose else { return Ok(()) };
        dir.write(state)
    }

    fn cgroup(&mut self) -> Result<()> {
        let LaunchPurpose::Create { plan, dir, state, .. } = &mut self.given.purpose else { return Ok(()) };
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
        let oom_kills = group.oom_kills_before()?;
        self.group = Some(MadeGroup { group, oom_kills });
        self.placement = Some(placement);
        Ok(())
    }

    fn network(&self) -> Result<()> {
        let made = crate::sys::ns::new_network()?;
        match self.child()?.channel()?.give(made.as_fd()) {
            // The stage has ended: why, it says at the next barrier.
            Err(error) if matches!(error.errno(), Some(libc::EPIPE | libc::ECONNRESET)) => Ok(()),
            other => other,
        }
    }

    fn device_rules(&mut self) -> Result<()> {
        match (&self.given.purpose, &self.group) {
            (LaunchPurpose::Create { plan, .. }, Some(made)) => {
                made.group.apply_devices(&plan.cgroup.devices)
            }
            _ => Ok(()),
        }
    }

    fn keep(&mut self) -> Result<()> {
        match &self.given.purpose {
            LaunchPurpose::Create { dir, config, .. } => dir.write_file("config.json", config),
            LaunchPurpose::Exec { .. } => Ok(()),
        }
    }

    fn identify(&mut self) -> Result<()> {
        if let (LaunchPurpose::Create { state, .. }, Some(child)) = (&mut self.given.purpose, &self.child) {
            state.init = Some(Identity::of(child.pid, child.pidfd.as_fd())?);
        }
        Ok(())
    }

    fn open(&mut self, index: usize) -> Result<()> {
        let Some(source) = self.given.program.sources.get(index) else { return Ok(()) };
        let opened = match (source, &self.given.purpose) {
            (
                Source::Tree(tree),
                LaunchPurpose::Create { plan, .. } | LaunchPurpose::Exec { mounts: Some(plan), .. },
            ) => {
                let ids = plan.ids.as_ref().or(self.joined.as_ref());
                if self.trees.is_empty() && plan.namespaces.has(NsKind::User) {
                    self.trees = sources::locked_trees(&self.given.program.sources, ids)?;
                }
                match self.trees.get_mut(index).and_then(Option::take) {
                    Some(copied) => copied,
                    None => sources::tree(tree, ids),
                }
            }
            (
                Source::Fs(fs),
                LaunchPurpose::Create { plan, .. } | LaunchPurpose::Exec { mounts: Some(plan), .. },
            ) => sources::file_system(fs, plan.ids.as_ref().or(self.joined.as_ref())),
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
            (Source::Gate, LaunchPurpose::Create { dir, .. }) => gate::socket(dir),
            (Source::GateFifo, LaunchPurpose::Create { dir, .. }) => gate::fifo(dir, gate::GATE),
            (Source::OutcomeFifo, LaunchPurpose::Create { dir, .. }) => gate::fifo(dir, gate::OUTCOME),
            (Source::Init, LaunchPurpose::Exec { init, .. }) => init.try_clone().call(|| "dup(pidfd)"),
            (Source::InitRoot, LaunchPurpose::Exec { pid, .. }) => {
                sources::directory(&format!("/proc/{pid}/root"))
            }
            _ => Err(Error::new(Kind::Invalid, "internal error: a source of another purpose")),
        };
        let opened = opened.map_err(|error| advice::of_source(error, source))?;
        self.sources.push(opened);
        Ok(())
    }

    fn console_socket(&mut self) -> Result<()> {
        if let Stdio::ConsoleSocket(path) = &self.given.subject.stdio {
            self.console_socket = Some(sockets::connect(path, "console socket")?);
        }
        Ok(())
    }

    pub(super) fn child(&self) -> Result<&Child> {
        self.child.as_ref().ok_or_else(no_stage)
    }

    pub(super) fn child_mut(&mut self) -> Result<&mut Child> {
        self.child.as_mut().ok_or_else(no_stage)
    }

    pub(super) fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |child| child.pid)
    }
}

pub(super) fn no_stage() -> Error {
    Error::new(Kind::Invalid, "internal error: no stage")
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
