// SPDX-License-Identifier: Apache-2.0
//! `create` and `run`.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::restore::prepare;
use crate::ask::{Create, Home, Restore};
use crate::cgroup::Version;
use crate::error::{Context, Error, Kind, Result};
use crate::facts::Facts;
use crate::host::notify::Notify;
use crate::host::{Launch, LaunchPurpose, Launched, Subject, permitted};
use crate::plan::namespaces::NsKind;
use crate::plan::{Plan, ids};
use crate::procfs::boot_id;
use crate::program::{check, compile};
use crate::spec::{self, Spec};
use crate::state::{Dir, State, now, read_all};
use crate::sys::random;

/// `create`, and `run` up to and including the start: the process is launched and, for `run`, started.
/// The process is a child of the caller, which waits for it with [`wait`](super::wait). Source: runtime.md, "Create".
#[doc = include_str!("examples/create.md")]
/// # Errors
/// After an error nothing is left behind.
pub fn create(home: &Home, ask: Create) -> Result<Launched> {
    launch(home, ask, None)
}

/// The same, or a restore, which has its plan the same way and a program of its own.
pub(super) fn launch(home: &Home, mut ask: Create, restore: Option<&Restore>) -> Result<Launched> {
    let (spec, bytes, bundle) = load(&ask)?;
    home.mark("read config.json");
    let mut facts = Facts::probe()?.for_rootless(home.rootless);
    facts.permitted = permitted::by(&facts, &spec.annotations)?;
    // Two, by one call: the mark on the groups can be read by whoever sees them, the keyring's name must not follow from it.
    let [mark, suffix] = random::texts().call(|| "getrandom()")?;
    if !ask.no_new_keyring {
        ask.keyring_suffix = suffix;
    }
    if ask.no_pivot {
        facts.probe_mounts()?;
    }
    facts.probe_sources(&spec, &bundle);
    home.mark("probe the host");
    let mut plan = Plan::new(&spec, &facts, home, &ask, bundle)?;
    if let Some(process) = &mut plan.process {
        process.size_of(ask.console_size);
    }
    if ask.run && plan.process.is_none() {
        return Err(Error::invalid("/process", "process property must not be empty"));
    }
    ids::rootless(&plan.namespaces, &facts)?;
    terminal_rules(&plan, &ask)?;
    if plan.cgroup.record.version != Version::None {
        plan.cgroup.record.mark = mark;
        boot_id()?.clone_into(&mut plan.cgroup.record.boot);
    }
    if let Some(process) = plan.process.as_ref().filter(|_| plan.namespaces.joins(NsKind::Pid)) {
        super::refuse_lending(plan.seccomp.as_ref(), process, process.caps.bounding, true)?;
    }
    let restoration = restore.map(|ask| prepare(&plan, ask)).transpose()?;
    let program = match restoration {
        None => compile::create(&plan, facts.last_cap),
        Some(_) => compile::restore(&plan),
    };
    check::check(&program)?;
    home.mark("decide, and put it in order");
    plan.warnings.iter().for_each(|warning| (home.warn)(warning));
    let dir = Dir::create(&home.root, &plan.id)?;
    home.mark("take the id");
    let state = first_state(&plan, facts.euid);
    let notify = match notification(&plan, &ask, &dir) {
        Ok(notify) => notify,
        Err(error) => {
            let _ = dir.remove();
            return Err(error);
        }
    };
    let purpose = LaunchPurpose::Create { plan: &plan, dir: &dir, state: Box::new(state), config: &bytes };
    let subject = Subject {
        id: &plan.id,
        bundle: &plan.bundle,
        process: plan.process.as_ref(),
        listener: plan.seccomp.as_ref().and_then(|filter| filter.listener.as_ref()),
        stdio: std::mem::take(&mut ask.stdio),
        pid_file: ask.pid_file.take(),
        pidfd_socket: ask.pidfd_socket.take().or_else(|| plan.obeyed.pidfd_socket.clone()),
    };
    let launched =
        Launch { home, program: &program, purpose, subject, restoration: restoration.as_ref() }.run();
    let launched = match &restoration {
        Some(restoration) => launched.map_err(|error| restoration.explain(error)),
        None => launched,
    };
    Ok(Launched { notify, ..launched? })
}

/// The state "creating", of a container of which nothing is there yet.
pub(super) fn first_state(plan: &Plan, owner: u32) -> State {
    State {
        version: 1,
        id: plan.id.clone(),
        bundle: plan.bundle.clone(),
        rootfs: plan.rootfs.path.clone(),
        created: now(),
        owner,
        annotations: plan.annotations.clone(),
        cgroup: plan.cgroup.record.clone(),
        no_pivot: plan.ask.no_pivot,
        no_keyring: plan.ask.keyring.is_none(),
        keyring: plan.ask.keyring.clone(),
        keep_fds: plan.ask.keep_fds,
        listen_fds: plan.ask.listen_fds,
        process: plan.process.is_some(),
        poststart: !plan.hooks.poststart.is_empty(),
        poststop: !plan.hooks.poststop.is_empty(),
        resources: None,
        rdt: None,
        mount: None,
        init: None,
    }
}

/// The notification socket's directory, if there is a service manager to notify; for `run` the socket as well.
fn notification(plan: &Plan, ask: &Create, dir: &Dir) -> Result<Option<Notify>> {
    let Some(manager) = ask.notify.as_ref().filter(|_| plan.notifies()) else { return Ok(None) };
    Notify::prepare(dir)?;
    if ask.run { Notify::bind(dir, manager).map(Some) } else { Ok(None) }
}

/// Reads the bundle: the configuration, its bytes, and the bundle's absolute path.
pub(super) fn load(ask: &Create) -> Result<(Spec, Vec<u8>, PathBuf)> {
    let bundle = real(&ask.bundle)
        .call(|| format!("open({})", ask.bundle.display()))
        .map_err(|error| error.at("bundle").advise("--bundle names the directory that config.json is in"))?;
    let path = bundle.join(ask.config.as_deref().unwrap_or(Path::new("config.json")));
    let explain = |error: Error| match error.errno() {
        Some(libc::ENOENT) => error
            .at("JSON specification file config.json not found")
            .advise("--bundle names its directory, and the command spec writes one to begin with"),
        _ => error,
    };
    let bytes = ask.document.clone().map_or_else(|| read_file(&path).map_err(explain), Ok)?;
    Ok((spec::read("config.json", &bytes)?, bytes, bundle))
}

/// The absolute path of what `path` leads to, as the kernel says it; realpath(3), which maps memory of its own, is for
/// where there is no /proc.
fn real(path: &Path) -> std::io::Result<PathBuf> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty())?;
    let link = format!("/proc/self/fd/{}", opened.as_raw_fd());
    std::fs::read_link(link).or_else(|_| std::fs::canonicalize(path))
}

/// A file of the caller's, whole but within bounds.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>> {
    let opened = std::fs::File::open(path).call(|| format!("open({})", path.display()));
    let read = opened.and_then(|file| read_all(file.as_fd()).call(|| format!("read({})", path.display())));
    read.map_err(|error| error.with_kind(Kind::Invalid))
}

/// Which descriptors a terminal may have (compatibility E15).
fn terminal_rules(plan: &Plan, ask: &Create) -> Result<()> {
    let terminal = plan.process.as_ref().is_some_and(|process| process.terminal.is_some());
    super::terminal_rules(terminal, &ask.stdio, !ask.run || ask.detach)
}
