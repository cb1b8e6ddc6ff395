// SPDX-License-Identifier: Apache-2.0
//! The first half of a launch: the process comes to be, is mapped and placed.
//!
//! What the child does before it is the stage is `sys/clone.rs`; `launch.rs` calls this room step by step.

#![forbid(unsafe_code)]

use std::cell::OnceCell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::process::{Resource, setrlimit};

use super::launch::{Child, LaunchPurpose, Met, STARTING, Walk};
use super::undo::Undo;
use super::{Channel, idmap, image, sources};
use crate::ask::Stdio;
use crate::cgroup::{Placement, WayIn};
use crate::error::{Context, Error, Kind, Result, WithStep};
use crate::plan::Plan;
use crate::plan::ids::Writers;
use crate::plan::namespaces::NsKind;
use crate::procfs;
use crate::program::encode::encode;
use crate::program::{Op, StageOp};
use crate::stage::wire::barrier;
use crate::sys::clone::{Stage, Window, launch};
use crate::sys::ns::unprivileged;

impl Walk<'_> {
    /// Launches the first process and lets it have what it inherits. `way_in` is what the program has planned.
    pub(super) fn clone(&mut self, flags: u64, wait: bool, way_in: WayIn) -> Result<()> {
        let (channel, sync) = Channel::pair()?;
        let keep: Vec<i32> = (3..3 + self.kept_descriptors()).collect();
        let fds: Vec<i32> = self.sources.iter().map(AsRawFd::as_raw_fd).collect();
        let mut encoded = encode(self.given.program, &fds, &keep, sync.as_raw_fd());
        let log = self.make_stage_log()?;
        let image = image::stage(log.is_some())?;
        // The interpreter that is linked in keeps none.
        let log = log.filter(|_| image.is_some());
        if let Some(log) = &log {
            encoded.log_to(log.as_fd().as_raw_fd(), log.words());
        }
        let program = image.as_ref().map(|_| image::program(&encoded.bytes)).transpose()?;
        let mut words = if program.is_some() { Vec::new() } else { encoded.words() };
        let mut inherit: Vec<BorrowedFd<'_>> = self.sources.iter().map(AsFd::as_fd).collect();
        inherit.push(sync.as_fd());
        inherit.extend(program.as_ref().map(AsFd::as_fd));
        inherit.extend(log.as_ref().map(AsFd::as_fd));
        let (first_way, joins) = first_way(way_in, self.placement.as_ref());
        let window = Window {
            flags,
            way_in: first_way,
            cgroup: self.placement.as_ref().and_then(Placement::at_birth),
            joins: &joins,
            wait,
            become_root: flags & NsKind::User.flag() != 0,
            lock: match &self.given.purpose {
                LaunchPurpose::Create { dir, .. } => Some(dir.fd()),
                LaunchPurpose::Exec { .. } => None,
            },
            sync: sync.as_fd(),
            host: Some(channel.as_fd()),
            stdio: match &self.given.subject.stdio {
                Stdio::Fds(fds) => Some([fds[0].as_fd(), fds[1].as_fd(), fds[2].as_fd()]),
                _ => None,
            },
            inherit: &inherit,
        };
        let stage = match (&image, &program) {
            (Some(image), Some(program)) => Stage::Sealed { image: image.as_fd(), program: program.as_fd() },
            _ => Stage::Linked(&mut words),
        };
        let beside = OnceCell::new();
        if let Some(trace) = &mut self.trace {
            trace.is_cloned();
        }
        let born = bear(window, stage, self.placement.as_ref(), &beside);
        let (pid, pidfd, got) = born.map_err(|error| clone_failure(error, flags))?;
        drop(inherit);
        if let Some(trace) = &mut self.trace {
            trace.log = log;
        }
        if let Some(beside) = beside.into_inner() {
            self.placement = Some(beside);
        }
        self.born(Child { pid, pidfd, channel: Some(channel), way_in: got, cloner: None }, way_in)
    }

    /// The process exists: its undo comes first.
    fn born(&mut self, child: Child, planned: WayIn) -> Result<()> {
        let way_in = child.way_in;
        // The hooks are for a container that is gone: undone after the child.
        if let LaunchPurpose::Create { plan, .. } = &self.given.purpose {
            self.journal.push(Undo::Poststop(plan));
        }
        self.journal.push_child(&child.pidfd)?;
        self.child = Some(child);
        let affinity = self.given.subject.process.and_then(|process| process.affinity.as_ref());
        self.run_on(affinity.and_then(|affinity| affinity.value.initial.as_ref()), "initial")?;
        match (planned, way_in) {
            // The program has a step of its own for this.
            (WayIn::JoinsItself, _) => {}
            (_, WayIn::Born) => self.release_holder()?,
            _ => self.move_in()?,
        }
        // The stage has its own copies now.
        self.sources.clear();
        self.give_room_back();
        Ok(())
    }

    fn kept_descriptors(&self) -> i32 {
        let closes = self.given.program.steps.iter().find_map(|step| match step.op {
            Op::Stage(StageOp::Close { from, .. }) => Some(from),
            _ => None,
        });
        closes.map_or(0, |from| from.saturating_sub(3) as i32)
    }

    /// The first process cloned the final one beside itself: that is the child from now on.
    pub(super) fn adopt(&mut self) -> Result<Met> {
        let Met { fd, aux } = self.await_at(barrier::HOP)?;
        let pidfd = fd.ok_or_else(|| Error::new(Kind::Os, "no pidfd came").at(STARTING))?;
        let pid = sources::pid_of(&pidfd).step(|| STARTING)?;
        self.journal.push_child(&pidfd)?;
        let child = self.child_mut()?;
        child.pid = pid;
        child.cloner = Some(std::mem::replace(&mut child.pidfd, pidfd));
        Ok(Met { fd: None, aux })
    }

    pub(super) fn id_maps(&mut self, writers: Writers) -> Result<()> {
        match &self.given.purpose {
            LaunchPurpose::Create { plan: Plan { ids: Some(ids), .. }, .. } => {
                idmap::write_maps(self.pid(), ids, writers)
            }
            _ => Ok(()),
        }
    }

    /// Hears that the process has joined its groups, or moves it there.
    pub(super) fn see_joined(&mut self) -> Result<()> {
        if self.child()?.way_in == WayIn::JoinsItself && self.await_at(barrier::JOINED)?.aux == 0 {
            return self.release_holder();
        }
        // Where it could not, the reason comes again, by a call that names the file.
        self.move_in()
    }

    /// Puts the process, which waits for it, into its groups.
    fn move_in(&mut self) -> Result<()> {
        let placed = self.placement.as_ref().map(|placement| placement.place(self.pid())).transpose();
        match (&self.given.purpose, placed) {
            // A user whose own group is not delegated may not move a process into one that is. runc says nothing of it.
            (LaunchPurpose::Exec { .. }, Err(error))
                if error.errno() == Some(libc::EACCES)
                    && unprivileged()
                    && self.given.home.rootless != Some(false) =>
            {
                (self.given.home.warn)(&format!(
                    "the process is not in the container's control group: {error}"
                ));
            }
            (_, placed) => self.child_mut()?.way_in = placed?.unwrap_or(WayIn::MovedByPid),
        }
        self.release_holder()?;
        self.release()
    }

    fn release_holder(&mut self) -> Result<()> {
        self.placement.as_mut().map_or(Ok(()), Placement::release_holder)
    }

    pub(super) fn oom_score_adj(&mut self, score: i32) -> Result<()> {
        let path = format!("/proc/{}/oom_score_adj", self.pid());
        let written = std::fs::write(&path, score.to_string()).call(|| format!("write({path}, {score})"));
        // Lowering it takes CAP_SYS_RESOURCE in the initial user namespace (fs/proc/base.c). Engines ask for it without
        // thinking of that, and a process that is killed earlier than wished still runs.
        match written {
            Err(error) if error.errno() == Some(libc::EACCES) && unprivileged() => {
                let kept = procfs::read(&path).ok().and_then(|text| text.trim().parse::<i32>().ok());
                match kept {
                    Some(kept) if kept > score => {
                        (self.given.home.warn)(&format!(
                            "oom_score_adj stays {kept}: {score} takes CAP_SYS_RESOURCE"
                        ));
                        Ok(())
                    }
                    Some(kept) if kept == score => Ok(()),
                    _ => Err(error),
                }
            }
            other => other,
        }
    }

    /// Hooks must not get the raised limit.
    pub(super) fn give_room_back(&self) {
        if let Some(limit) = &self.descriptors {
            let _ = setrlimit(Resource::Nofile, *limit);
        }
    }
}

/// The way in that is tried first, with the files that it takes: the planned one, unless that is known to fail.
fn first_way(planned: WayIn, placement: Option<&Placement>) -> (WayIn, Vec<OwnedFd>) {
    if placement.is_some_and(Placement::forgets_cpuset) {
        return (WayIn::MovedByPid, Vec::new());
    }
    if planned != WayIn::JoinsItself {
        return (planned, Vec::new());
    }
    match placement.map(Placement::tasks_files) {
        Some(Ok(files)) if !files.is_empty() => (planned, files),
        _ => (WayIn::MovedByPid, Vec::new()),
    }
}

/// Clones, into the control group if that takes it at birth; if not, beside init (which `beside` then is); else the process
/// waits to be moved by its pid.
fn bear<'a>(
    mut window: Window<'a>,
    mut stage: Stage<'_>,
    placement: Option<&Placement>,
    beside: &'a OnceCell<Placement>,
) -> Result<(i32, OwnedFd, WayIn)> {
    let mut launched = launch(&window, stage.again());
    let at_birth = window.cgroup.is_some() && window.way_in != WayIn::MovedByPid;
    if at_birth
        && let (Err(error), Some(placement)) = (&launched, placement)
        && let Some(found) = placement.if_nesting(error)?
    {
        window.cgroup = beside.get_or_init(|| found).at_birth();
        launched = launch(&window, stage.again());
    }
    match &launched {
        Err(error) if at_birth && refused_by_group(error) => {
            window.way_in = WayIn::MovedByPid;
            launched = launch(&window, stage);
        }
        _ => {}
    }
    launched.map(|(pid, pidfd)| (pid, pidfd, window.way_in))
}

/// Says what forbids new namespaces: these are settings of the machine, which the errno does not name.
fn clone_failure(error: Error, flags: u64) -> Error {
    let why = match error.errno() {
        Some(libc::ENOSPC) => "a limit of namespaces is reached (/proc/sys/user/max_*_namespaces)",
        Some(libc::EPERM) if flags & NsKind::User.flag() != 0 && unprivileged() => {
            "user namespaces are not allowed to users here (user.max_user_namespaces, an LSM or a filter)"
        }
        _ => return error.at(STARTING),
    };
    error.at(why).at(STARTING)
}

/// Errors of clone3 that CLONE_INTO_CGROUP alone may have caused.
fn refused_by_group(error: &Error) -> bool {
    matches!(error.errno(), Some(libc::EBUSY | libc::EOPNOTSUPP | libc::EACCES | libc::EPERM | libc::ENOSYS))
}
