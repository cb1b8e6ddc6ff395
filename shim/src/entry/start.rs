// SPDX-License-Identifier: Apache-2.0
//! `start`: sees to it that the container's group has a server, and tells its address.
//!
//! The server is this very process, gone on after fork(2) without exec: its socket listens before the answer is
//! given, so a client that comes at once waits in the backlog. Nothing but the answer may be written: containerd reads
//! stdout and stderr together and until both are closed, so the server must hold neither.

#![forbid(unsafe_code)]

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::rc::Rc;

use corten::error::Context;
use corten::host::write_whole;
use corten::procfs;
use corten::sys::spawn;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{getpid, getppid, setsid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::{CoreSchedulingScope, create_core_scheduling_cookie};
use tokio::task::LocalSet;

use super::bootstrap::{Boot, input, reply};
use super::socket::{self, BoundSocket, Found};
use super::{group, serve};
use crate::events::Events;
use crate::flags::Flags;
use crate::options::Options;
use crate::pod::{Pod, Server};
use crate::reaper::Reaper;
use crate::refusal::{Refusal, Result};
use crate::{driver, log};

/// `start`. Returns in the process that containerd waits for, and, when the server ends, in that.
///
/// # Errors
/// What the user is told; nothing is left behind.
#[inline(never)]
pub fn start(flags: &Flags) -> Result<()> {
    check(flags)?;
    let mut boot = Boot::read(&input()?, flags)?;
    let options = Options::read(boot.options.as_ref())?;
    let bundle = std::env::current_dir().call(|| "getcwd")?;
    let group = group::of_bundle(&bundle, &flags.id)?;
    if !bundle.join("config.json").exists() {
        boot.is_for_a_sandbox();
    }
    let path = socket::path(boot.socket_dir.as_deref(), &flags.address, &flags.namespace, &group)?;
    let found = socket::find_or_bind(&path)?;
    let address = format!("unix://{}", path.display());
    let prepared = match &found {
        Found::Server => Ok(()),
        Found::Ours(_) => set_surroundings(&options),
    };
    // containerd 1.6 and 1.7 find the server again by this file, the later ones as well when theirs is lost.
    let written = prepared.and_then(|()| Ok(write_whole(&bundle.join("address"), address.as_bytes())?));
    let server = match (written, found) {
        (Err(refusal), Found::Ours(_)) => {
            socket::remove(&path);
            return Err(refusal);
        }
        (Err(refusal), Found::Server) => return Err(refusal),
        (Ok(()), Found::Server) => None,
        (Ok(()), Found::Ours(bound)) => Some(bound),
    };
    if let Some(bound) = server
        && spawn::fork().inspect_err(|_| socket::remove(&path))? == 0
    {
        return daemon(bound, flags, &boot, options, &address);
    }
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(&reply(boot.dialect, &address))
        .and_then(|()| stdout.flush())
        .call(|| "write(stdout)")?;
    Ok(())
}

fn check(flags: &Flags) -> Result<()> {
    corten::state::check_id(&flags.id)?;
    if flags.namespace.is_empty() || flags.namespace.contains('/') || flags.namespace.starts_with('.') {
        return Err(Refusal::invalid(format!("namespace {:?} is not valid", flags.namespace)));
    }
    Ok(())
}

/// What the server inherits: its place among the host's processes.
fn set_surroundings(options: &Options) -> Result<()> {
    let group = options.shim_cgroup.as_str();
    if !group.is_empty() {
        join_cgroup(group).map_err(|error| Refusal::from(error).at("ShimCgroup"))?;
    }
    // Before containerd, should memory run short: it can be started again without us, not the other way round. As far as
    // we are allowed to.
    let parent = getppid().map_or(1, |pid| pid.as_raw_nonzero().get());
    let score = procfs::read(&format!("/proc/{parent}/oom_score_adj")).unwrap_or_default();
    if let Ok(score) = score.trim().parse::<i32>() {
        let _ = std::fs::write("/proc/self/oom_score_adj", (score + 1).min(1000).to_string());
    }
    if std::env::var("SCHED_CORE").is_ok_and(|value| value == "1" || value == "true") {
        let call = || "prctl(PR_SCHED_CORE)";
        create_core_scheduling_cookie(getpid(), CoreSchedulingScope::ThreadGroup).call(call)?;
    }
    Ok(())
}

/// Joins a control group in every hierarchy; it is made if need be.
fn join_cgroup(path: &str) -> corten::Result<()> {
    let pid = std::process::id().to_string();
    for dir in corten::cgroup::Hierarchies::probe()?.directories(path) {
        std::fs::create_dir_all(&dir).call(|| format!("mkdir({})", dir.display()))?;
        let procs = dir.join("cgroup.procs");
        std::fs::write(&procs, &pid).call(|| format!("write({})", procs.display()))?;
    }
    Ok(())
}

/// The server: on its own, and to its end.
#[inline(never)]
fn daemon(bound: BoundSocket, flags: &Flags, boot: &Boot, options: Options, address: &str) -> Result<()> {
    let listener = bound.take_over()?;
    alone(&listener, boot.debug)?;
    let signals = serve::own_process()?;
    let reaper = Reaper::default();
    let runtime = serve::runtime()?;
    let events = Events::new(&flags.namespace, &boot.ttrpc_address);
    let pod = Pod::new(&flags.namespace, options, Server::here(address), events, reaper.clone());
    LocalSet::new().block_on(&runtime, async {
        let listener = serve::listen(listener.into())?;
        serve::serve(listener, Rc::default(), pod, reaper, signals).await;
        Ok(())
    })
}

/// Holds nothing of the process that started it.
fn alone(listener: &UnixListener, debug: bool) -> Result<()> {
    spawn::close_all_but(listener.as_fd());
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).call(|| "open(/dev/null)")?;
    dup2_stdin(&null).and_then(|()| dup2_stdout(&null)).and_then(|()| dup2_stderr(&null)).call(|| "dup2")?;
    setsid().call(|| "setsid")?;
    log::open_here(debug);
    driver::keep_working_directory();
    // The group's other members must not find their sandbox's bundle busy.
    Ok(std::env::set_current_dir(Path::new("/")).call(|| "chdir(/)")?)
}

/// A socket's path as it stands in an address.
pub fn path_of(address: &str) -> Option<&Path> {
    address.strip_prefix("unix://").map(Path::new)
}
