// SPDX-License-Identifier: Apache-2.0
//! `exec`.

#![forbid(unsafe_code)]

use std::path::Path;

use super::create::read_file;
use crate::ask::{Exec, Home};
use crate::cgroup::Placement;
use crate::container::{Container, Phase};
use crate::error::{Error, Kind, Result, printable};
use crate::facts::{self, Facts};
use crate::host::{Launch, LaunchPurpose, Launched, Subject, permitted};
use crate::plan::annotations;
use crate::plan::ids::{self, Setgroups};
use crate::plan::namespaces::{self, Namespaces, NsKind};
use crate::plan::process::{self, Process, ProcessContext};
use crate::program::compile::Entry;
use crate::program::{check, compile};
use crate::spec::{self, Spec};
use crate::state::State;

/// `exec`: launches another process in a container; the exec of the user's program has succeeded on return.
/// The process is a child of the caller, as that of [`create`](super::create). Source: runc-exec(8).
#[doc = include_str!("examples/exec.md")]
/// # Errors
/// `Kind::Status` for a container that is stopped or paused; as `create` for the process.
pub fn exec(home: &Home, mut ask: Exec) -> Result<Launched> {
    let container = Container::open(home, &ask.id)?;
    let (phase, pidfd) = container.phase()?;
    let status = |text: &'static str| Err(Error::new(Kind::Status, text));
    let init = match (phase, pidfd) {
        (Phase::Paused, _) if !ask.ignore_paused => {
            return status("cannot exec in a paused container (use --ignore-paused to override)");
        }
        (Phase::Stopped | Phase::Creating, _) | (_, None) => {
            return status("cannot exec in a stopped container");
        }
        (_, Some(pidfd)) => pidfd,
    };
    let pid = container.state.init.as_ref().map_or(0, |init| init.pid);
    let spec = container.spec()?;
    home.mark("find the container, and read its configuration");
    let facts = Facts::of_process()?;
    let namespaces = namespaces::decide_namespaces(&spec)?;
    let setgroups = setgroups(&namespaces, &facts, pid)?;
    let process = decide_process(home, &ask, &spec, (&facts, setgroups), &namespaces)?;
    super::terminal_rules(process.terminal.is_some(), &ask.stdio, ask.detach)?;
    let placement = find_placement(&container, &ask, pid)?;
    let mut warnings = Vec::new();
    let permitted = permitted::by(&facts, &spec.annotations)?;
    let obeyed = annotations::read(&spec.annotations, &permitted)?;
    let seccomp = process::seccomp(&spec, &obeyed, &mut warnings)?;
    let entry = Entry {
        id: container.state.id.clone(),
        kinds: namespaces_to_enter(&namespaces),
        pid: namespaces.has(NsKind::Pid),
        user: namespaces.has(NsKind::User),
        chroot: container.state.no_pivot || !namespaces.has(NsKind::Mount),
        keyring: keyring(&container.state),
        way_in: container.state.cgroup.version.way_in(),
        unprivileged: !facts.is_admin(),
        drops_groups: setgroups != Setgroups::Allowed && ids::may_drop_groups(&facts) && !obeyed.keep_groups,
        ignored: facts.ignored,
        last_cap: facts.last_cap,
        rdt: container.state.rdt.is_some(),
        keep_groups: obeyed.keep_groups,
        seccomp,
        keep_fds: ask.preserve_fds,
    };
    if entry.pid {
        let bounding = bounding(&spec) | process.caps.bounding;
        super::refuse_lending(entry.seccomp.as_ref(), &process, bounding, namespaces.joins(NsKind::Pid))?;
    }
    let program = compile::exec(&entry, &process);
    check::check(&program)?;
    home.mark("decide, and put it in order");
    let subject = Subject {
        id: &container.state.id,
        bundle: &container.state.bundle,
        process: Some(&process),
        listener: entry.seccomp.as_ref().and_then(|filter| filter.listener.as_ref()),
        stdio: std::mem::take(&mut ask.stdio),
        pid_file: ask.pid_file.take(),
        pidfd_socket: ask.pidfd_socket.take(),
    };
    let purpose = LaunchPurpose::Exec {
        init,
        pid,
        placement: Box::new(placement),
        rdt: container.state.rdt.clone(),
        mounts: None,
    };
    Launch { home, program: &program, purpose, subject, restoration: None }.run()
}

/// The name of the container's session keyring. Containers of before 0.2 have it named after their id alone.
fn keyring(state: &State) -> Option<String> {
    let named = || state.keyring.clone().unwrap_or_else(|| format!("_ses.{}", state.id));
    (!state.no_keyring).then(named)
}

/// What the container's process may have had.
fn bounding(spec: &Spec) -> u64 {
    let sets = spec.process.as_ref().and_then(|process| process.capabilities.as_ref());
    let traces = sets.is_some_and(|sets| sets.bounding.iter().any(|name| name == "CAP_SYS_PTRACE"));
    if traces { compile::PTRACE } else { 0 }
}

/// What holds where the process goes. Init may be in a user namespace that it made itself since, which denies more;
/// but what its namespace denies, it can never allow again, so this is no race to be won.
fn setgroups(namespaces: &Namespaces, facts: &Facts, pid: i32) -> Result<Setgroups> {
    let denied = match namespaces.has(NsKind::User) {
        true => facts::ids::setgroups_denied(&pid.to_string())?,
        false => facts.setgroups_denied,
    };
    Ok(if denied { Setgroups::Denied } else { Setgroups::Allowed })
}

fn decide_process(
    home: &Home,
    ask: &Exec,
    spec: &Spec,
    (facts, setgroups): (&Facts, Setgroups),
    namespaces: &Namespaces,
) -> Result<Process> {
    let whole = ask.process.is_some() || ask.object.is_some();
    let mut object = match (&ask.object, &ask.process) {
        (Some(object), _) => object.clone(),
        (None, Some(path)) => read_process(path)?,
        (None, None) => spec.process.clone().unwrap_or_default(),
    };
    if object.oom_score_adj.is_none() {
        // The container's, not ours, which may be containerd-shim's -998 (as runc).
        object.oom_score_adj = spec.process.as_ref().and_then(|process| process.oom_score_adj);
    }
    let object = if whole { object } else { process::overlay(object, &ask.overlay) };
    let theirs = ids::decide_id_maps(spec, namespaces)?.or(ids::maps_of_joined(spec, namespaces)?);
    let known = ids::maps_of_configuration(namespaces, theirs.as_ref(), facts);
    let context = ProcessContext { facts, ids: known, setgroups, spec, listen_fds: 0 };
    let mut warnings = Vec::new();
    let at = if whole { "" } else { "/process" };
    let mut process = process::decide_process_object(&object, at, &context, &mut warnings)?;
    process.size_of(ask.console_size);
    warnings.iter().for_each(|warning| (home.warn)(&printable(warning)));
    Ok(process)
}

fn read_process(path: &Path) -> Result<spec::Process> {
    spec::read(&path.display().to_string(), &read_file(path)?)
}

/// All namespaces of the container but its pid namespace, into which the process is born.
pub(super) fn namespaces_to_enter(namespaces: &Namespaces) -> u64 {
    let kinds = NsKind::ALL.into_iter().filter(|kind| *kind != NsKind::Pid && namespaces.has(*kind));
    kinds.fold(0, |flags, kind| flags | kind.flag())
}

/// The container's group, or the sub-group asked for. Where the container's own takes no process, because the container made
/// groups below it, the one that init is in.
fn find_placement(container: &Container, ask: &Exec, pid: i32) -> Result<Placement> {
    let group = container.group();
    // The container's own group is where it goes anyway.
    let named = |sub: &&str| !sub.is_empty() && *sub != "/";
    let subs: Vec<&str> = ask.cgroup.iter().map(String::as_str).filter(named).collect();
    let placement = group.exec_placement(&subs)?;
    Ok(if subs.is_empty() { placement.or_beside(pid) } else { placement })
}
