// SPDX-License-Identifier: Apache-2.0
//! Out of memory: who was killed for it, and being told when it happens.
//!
//! v2 counts kills in memory.events, whose changes inotify(7) tells. v1 counts them in memory.oom_control and tells, by an
//! eventfd, that memory has run out: before the kill, which is why a watch there may want to be asked again.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;
use rustix::io::Errno;

use super::dir::{CgroupDir, gone};
use super::group::Group;
use super::probe::Version;
use crate::error::{Context, Error, Kind, Result};

/// How long v1 may take from the notice to the kill before the notice counts by itself: the victim was in a group
/// below, whose kills are not counted here, or nobody is killed because the container has switched that off.
const SETTLING: Duration = Duration::from_millis(500);
/// When to ask a watch again that has news to come.
pub const AGAIN: Duration = Duration::from_millis(10);

/// Tells when processes of a container are killed for want of memory. Readable (poll, epoll) when there is news; then
/// [`OomWatch::news`] must be called.
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
    memory: CgroupDir,
    version: Version,
    /// Kills that were told already.
    told: u64,
    /// v1: since when a notice waits for its kill.
    notice: Option<Instant>,
}

/// What a watch has to tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct News {
    /// Kills since the last news. v1: where no kill can be counted, 1 for a notice.
    pub kills: u64,
    /// Ask again after [`AGAIN`], whether or not the descriptor is readable.
    pub again: bool,
    /// The group is gone; there will be no more news.
    pub gone: bool,
}

/// How far a watch has told, for whoever goes on with its descriptor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OomMark {
    /// Kills that were told already.
    pub told: u64,
    /// v1: a notice waits for its kill.
    pub noticed: bool,
}

impl Group {
    /// How many processes of the container have been killed for want of memory since its group was made; 0 without the
    /// memory controller or when the group is gone.
    ///
    /// # Errors
    /// `Kind::Os` when the file cannot be read.
    pub fn oom_kills(&self) -> Result<u64> {
        match self.group_of("memory") {
            Ok(Some((_, dir))) => Ok(kills(dir, self.record().version)?.unwrap_or(0)),
            Ok(None) => Ok(0),
            Err(error) if gone(&error) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// The same for a group that has just been made or found: one of our own making has lost nobody, and is not asked.
    ///
    /// # Errors
    /// As [`Group::oom_kills`].
    pub(crate) fn oom_kills_before(&self) -> Result<u64> {
        match self.group_of("memory") {
            Ok(Some((false, _))) => self.oom_kills(),
            _ => Ok(0),
        }
    }

    /// Starts to watch; kills so far are not news.
    ///
    /// # Errors
    /// `Kind::Unsupported` without the memory controller.
    pub fn oom_watch(&self) -> Result<OomWatch> {
        let lacking = || Error::new(Kind::Unsupported, "the container's group has no memory controller");
        let version = self.record().version;
        let (_, dir) = self.group_of("memory")?.ok_or_else(lacking)?;
        let memory = dir.share();
        let fd = match version {
            Version::V2 => watch_events(&memory),
            _ => watch_control(&memory),
        };
        let fd = fd.map_err(|error| if gone(&error) { lacking() } else { error })?;
        // After the watch stands: what happens in between is counted, and told at the next news.
        let told = kills(&memory, version)?.ok_or_else(lacking)?;
        Ok(OomWatch { fd, memory, version, told, notice: None })
    }
}

impl Group {
    /// Goes on with a watch of this group: with its descriptor, from its mark.
    ///
    /// # Errors
    /// `Kind::Unsupported` when the group is gone.
    pub fn oom_watch_from(&self, fd: OwnedFd, mark: OomMark) -> Result<OomWatch> {
        let lacking = || Error::new(Kind::Unsupported, "the container's group is gone");
        let (_, dir) = self.group_of("memory")?.ok_or_else(lacking)?;
        let notice = mark.noticed.then(Instant::now);
        Ok(OomWatch { fd, memory: dir.share(), version: self.record().version, told: mark.told, notice })
    }
}

impl OomWatch {
    /// How far it has told.
    #[must_use]
    pub fn mark(&self) -> OomMark {
        OomMark { told: self.told, noticed: self.notice.is_some() }
    }

    /// Empties the descriptor and counts.
    ///
    /// # Errors
    /// `Kind::Os` when the files cannot be read.
    pub fn news(&mut self) -> Result<News> {
        let noticed = self.drain()?;
        let Some(kills) = kills(&self.memory, self.version)? else {
            return Ok(News { gone: true, ..News::default() });
        };
        let mut news = News { kills: kills.saturating_sub(self.told), ..News::default() };
        self.told = kills;
        if self.version != Version::V1 {
            return Ok(news);
        }
        if noticed && self.notice.is_none() {
            self.notice = Some(Instant::now());
        }
        match self.notice {
            Some(_) if news.kills > 0 => self.notice = None,
            Some(since) if since.elapsed() >= SETTLING => {
                self.notice = None;
                news.kills = 1;
            }
            Some(_) => news.again = true,
            None => {}
        }
        Ok(news)
    }

    /// Whether there was anything in the descriptor.
    fn drain(&self) -> Result<bool> {
        let mut bytes = [0; 1024];
        let mut any = false;
        loop {
            match rustix::io::read(&self.fd, &mut bytes) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(any),
                Ok(_) => any = true,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::os("read(oom watch)", errno)),
            }
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The kills that the kernel has counted; `None` if the group is gone or has no such count.
fn kills(memory: &CgroupDir, version: Version) -> Result<Option<u64>> {
    let file = if version == Version::V2 { "memory.events" } else { "memory.oom_control" };
    match memory.read(file) {
        Ok(text) => {
            let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
            Ok(Some(count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)))
        }
        Err(error) if gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn watch_events(memory: &CgroupDir) -> Result<OwnedFd> {
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let fd = inotify::init(flags).call(|| "inotify_init1")?;
    // Through the open directory: the group's name may be another group's by now.
    let path = format!("/proc/self/fd/{}/memory.events", memory.as_fd().as_raw_fd());
    inotify::add_watch(&fd, path, inotify::WatchFlags::MODIFY)
        .call(|| format!("inotify_add_watch({}/memory.events)", memory.path()))?;
    Ok(fd)
}

fn watch_control(memory: &CgroupDir) -> Result<OwnedFd> {
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).call(|| "eventfd")?;
    let control = memory.open_file("memory.oom_control")?;
    memory.write("cgroup.event_control", &format!("{} {}", fd.as_raw_fd(), control.as_raw_fd()))?;
    Ok(fd)
}
