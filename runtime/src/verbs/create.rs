// SPDX-License-Identifier: Apache-2.0
//! `create` and `run`.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use crate::ask::{Create, Home, Launched, Stdio};
use crate::error::{Context, Error, Kind, Result, Step};
use crate::facts::Facts;
use crate::host::{Launch, Subject, Task};
use crate::plan::{Plan, ids};
use crate::program::{check, compile};
use crate::spec::{self, Spec};
use crate::state::{Dir, State, now};

/// `create`, and `run` up to and including the start: the process is launched and, for `run`, started.
///
/// # Errors
/// After an error nothing is left behind.
pub fn create(home: &Home, mut ask: Create) -> Result<Launched> {
    let (spec, bytes, bundle) = load(&ask)?;
    let facts = Facts::probe()?.for_rootless(home.rootless);
    let mut plan = Plan::new(&spec, &facts, home, &ask, bundle)?;
    if let Some(process) = &mut plan.process {
        process.size_of(ask.console_size);
    }
    if ask.run && plan.process.is_none() {
        return Err(Error::invalid("/process", "process property must not be empty"));
    }
    ids::rootless(&plan.namespaces, &facts)?;
    terminal_rules(&plan, &ask)?;
    let program = compile::create(&plan, facts.last_cap);
    check::check(&program)?;
    plan.warnings.iter().for_each(|warning| (home.warn)(warning));
    let dir = Dir::create(&home.root, &plan.id)?;
    let state = State {
        version: 1,
        id: plan.id.clone(),
        bundle: plan.bundle.clone(),
        rootfs: plan.rootfs.path.clone(),
        created: now(),
        owner: facts.euid,
        annotations: plan.annotations.clone(),
        cgroup: plan.cgroup.record.clone(),
        no_pivot: plan.ask.no_pivot,
        no_keyring: plan.ask.no_new_keyring,
        keep_fds: plan.ask.keep_fds,
        listen_fds: plan.ask.listen_fds,
        process: plan.process.is_some(),
        poststart: !plan.hooks.poststart.is_empty(),
        poststop: !plan.hooks.poststop.is_empty(),
        init: None,
    };
    if let Err(error) = dir.write_file("config.json", &bytes) {
        // Nothing else exists yet.
        let _ = dir.remove();
        return Err(error);
    }
    let subject = Subject {
        id: &plan.id,
        bundle: &plan.bundle,
        process: plan.process.as_ref(),
        listener: plan.seccomp.as_ref().and_then(|filter| filter.listener.as_ref()),
        stdio: std::mem::take(&mut ask.stdio),
        pid_file: ask.pid_file.take(),
        pidfd_socket: ask.pidfd_socket.take(),
    };
    Launch::run(home, &program, Task::Create { plan: &plan, dir: &dir, state: Box::new(state) }, subject)
}

/// Reads the bundle: the configuration, its bytes, and the bundle's absolute path.
pub(super) fn load(ask: &Create) -> Result<(Spec, Vec<u8>, PathBuf)> {
    let bundle = std::fs::canonicalize(&ask.bundle)
        .call(|| format!("open({})", ask.bundle.display()))
        .step(|| "bundle")?;
    let path = bundle.join(ask.config.as_deref().unwrap_or(Path::new("config.json")));
    let bytes = std::fs::read(&path).map_err(|error| {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        let error = Error::os(format!("open({})", path.display()), errno).with_kind(Kind::Invalid);
        match errno {
            libc::ENOENT => error.at("JSON specification file config.json not found"),
            _ => error,
        }
    })?;
    Ok((spec::read("config.json", &bytes)?, bytes, bundle))
}

/// Which descriptors a terminal may have (reference E15).
fn terminal_rules(plan: &Plan, ask: &Create) -> Result<()> {
    let terminal = plan.process.as_ref().is_some_and(|process| process.terminal.is_some());
    let socket = matches!(ask.stdio, Stdio::ConsoleSocket(_));
    let leaves = !ask.run || ask.detach;
    match (terminal, socket) {
        (true, false) if leaves => Err(Error::new(
            Kind::Invalid,
            "cannot allocate tty if corten will detach without setting console socket",
        )),
        (false, true) | (true, true) if !leaves || !terminal => Err(Error::new(
            Kind::Invalid,
            "cannot use console socket if corten will not detach or allocate tty",
        )),
        _ => Ok(()),
    }
}
