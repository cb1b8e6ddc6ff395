// SPDX-License-Identifier: Apache-2.0
//! `start`.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use super::delete::destroy;
use crate::ask::{Create, Home};
use crate::container::{Container, Phase};
use crate::error::{Error, Kind, Result};
use crate::facts::Facts;
use crate::host::fate::{Fate, Next, stage_fate};
use crate::host::gate::{self, GATE};
use crate::host::log::StartTrace;
use crate::host::notify::Notify;
use crate::host::{hooks, permitted};
use crate::plan::{self, Plan};
use crate::program::{Op, Program, StageOp, Step, compile};
use crate::state::NOTIFY_DIRECTORY;

/// What every error of the way to the user's program begins with (compatibility E4).
const STARTING: &str = "unable to start container process";

/// `start`: opens the gate and waits for the outcome of the exec; runs the poststart hooks.
/// Source: runtime.md, "Start".
#[doc = include_str!("examples/start.md")]
/// # Errors
/// The errno of the user's program's exec; `Kind::Status` when the container is not in the state "created".
pub fn start(home: &Home, id: &str) -> Result<()> {
    started(home, id, None).map(drop)
}

/// `start` for a service manager, whose notification socket `manager` is: stays until the container is ready, or has
/// ended. Only for a container that was created with such a socket.
///
/// Source: sd_notify(3).
#[doc = include_str!("examples/start_notifying.md")]
/// # Errors
/// As `start`; `Kind::Peer` when the manager's socket is gone.
pub fn start_notifying(home: &Home, id: &str, manager: &Path) -> Result<()> {
    match started(home, id, Some(manager))? {
        // Nobody holds the container's lock any more: this may take as long as it likes.
        Some((notify, pid, pidfd)) => notify.relay(pidfd.as_fd(), pid),
        None => Ok(()),
    }
}

/// What is left to do once it is started: the socket to relay, and for whom.
type Relay = Option<(Notify, i32, OwnedFd)>;

fn started(home: &Home, id: &str, manager: Option<&Path>) -> Result<Relay> {
    let container = Container::open_locked(home, id)?;
    let status = |text: &'static str| Err(Error::new(Kind::Status, text));
    let (phase, pidfd) = container.phase()?;
    match phase {
        Phase::Created => {}
        // It would wait for the thaw, and everybody for it.
        Phase::Paused => return status("cannot start a container in the paused state"),
        Phase::Stopped => return status("cannot start a container that has stopped"),
        Phase::Creating => return status("cannot start a container that is being created"),
        Phase::Running => return status("cannot start an already running container"),
    }
    if !container.state.process {
        return Err(Error::invalid("/process", "process property must not be empty"));
    }
    let notify = match manager {
        Some(manager) if container.dir.has(NOTIFY_DIRECTORY)? => Some(Notify::bind(&container.dir, manager)?),
        _ => None,
    };
    let knock = gate::knock(&container.dir)?;
    // Gone before the word is given: should we die in between, nobody is told "created", and the stage (unless its gate is a
    // FIFO) ends.
    container.dir.remove_file(GATE)?;
    home.mark("find the container, and knock at its gate");
    let trace = StartTrace::begin(home);
    knock.go()?;
    let heard = knock.outcome()?;
    home.mark("wait for the exec");
    if let (Some(pidfd), Some(init)) = (&pidfd, &container.state.init) {
        let outcome = stage_fate(heard, init.pid, pidfd.as_fd(), Next::Exec)
            .and_then(|fate| executed(home, &container, fate));
        if let Some(trace) = trace {
            trace.tell(&container.dir, init.pid, &program(home, &container), outcome.as_ref().err());
        }
        outcome?;
    }
    poststart(home, &container)?;
    let pid = container.state.init.as_ref().map_or(0, |init| init.pid);
    Ok(notify.zip(pidfd).map(|(notify, pidfd)| (notify, pid, pidfd)))
}

/// What has kept the stage from the exec, if it has not executed.
fn executed(home: &Home, container: &Container, fate: Fate) -> Result<()> {
    if matches!(fate, Fate::Executed) {
        return Ok(());
    }
    let program = program(home, container).map_err(|error| error.at(STARTING))?;
    let is_gate = |step: &Step| step.op == Op::Stage(StageOp::Gate);
    let from = program.steps.iter().position(is_gate).map_or(0, |gate| gate + 1);
    match fate.error(&program, from..program.steps.len(), Some((container.group(), 0))) {
        Some(error) => Err(error.at(STARTING)),
        None => Ok(()),
    }
}

/// The program that the stage ran, compiled once more from the same configuration: to word how it failed.
fn program(home: &Home, container: &Container) -> Result<Program> {
    let state = &container.state;
    let ask = Create {
        id: state.id.clone(),
        no_pivot: state.no_pivot,
        no_new_keyring: state.no_keyring,
        preserve_fds: state.keep_fds - state.listen_fds,
        listen_fds: state.listen_fds,
        notify: container.dir.has(NOTIFY_DIRECTORY).unwrap_or(false).then(PathBuf::new),
        ..Create::default()
    };
    let (spec, mut facts) = (container.spec()?, Facts::probe()?.for_rootless(home.rootless));
    facts.permitted = permitted::by(&facts, &spec.annotations)?;
    let plan = Plan::new(&spec, &facts, home, &ask, state.bundle.clone())?;
    Ok(compile::create(&plan, facts.last_cap))
}

/// A failing poststart hook ends the container: it is stopped and destroyed, and the poststop hooks run (runtime.md#lifecycle,
/// steps 10, 12 and 13).
fn poststart(home: &Home, container: &Container) -> Result<()> {
    let state = &container.state;
    if !state.poststart {
        return Ok(());
    }
    let told = |()| home.mark("run the poststart hooks");
    let pid = state.init.as_ref().map_or(0, |init| init.pid);
    let text = hooks::state_of(&state.id, "running", pid, &state.bundle, &state.annotations);
    let spec = container.spec()?;
    let obeyed = plan::annotations::read(&spec.annotations, &permitted::listed(&spec.annotations, false)?)?;
    let hooks = plan::hooks::decide_hooks(&spec.hooks, &obeyed.hook_output)?;
    let run = hooks::run("poststart", &hooks.poststart, &text, &state.bundle, &container.dir);
    run.map(told).inspect_err(|_| {
        let destroyed = container.phase().and_then(|(phase, pidfd)| destroy(home, container, phase, pidfd));
        if let Err(error) = destroyed {
            (home.warn)(&format!("after the failed hook: {error}"));
        }
    })
}
