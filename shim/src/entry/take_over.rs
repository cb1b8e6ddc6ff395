// SPDX-License-Identifier: Apache-2.0
//! `take-over`: this program goes on as the server that another one has been, in the same process (`upgrade.rs`).
//!
//! Until everything has been taken over nothing is done that the other program could notice: if something is wrong it is
//! executed again, finds every descriptor under its number, and goes on from the same memfd.

#![forbid(unsafe_code)]

use std::ffi::CString;
use std::os::fd::AsFd;
use std::rc::Rc;

use corten::sys::passing::{SpareFds, copy_of};
use nix::sys::signalfd::SignalFd;
use tokio::task::LocalSet;

use super::serve;
use crate::events::Events;
use crate::flags::Flags;
use crate::handover::Written;
use crate::handover::state::{AskerState, ServerState};
use crate::pod::{Pod, Server};
use crate::reaper::Reaper;
use crate::refusal::{Refusal, Result};
use crate::server::{Clients, Connection, Resumed};
use crate::upgrade::{Upgraded, microseconds, our_arguments, this_version};
use crate::{driver, log};

/// What is taken over, before anything is done with it.
struct TakenOver {
    listener: Rc<tokio::net::UnixListener>,
    pod: Rc<Pod>,
    reaper: Reaper,
    signals: SignalFd,
    resumed: Resumed,
    asker: Option<(Rc<Connection>, AskerState)>,
}

/// `take-over NUMBER`. Returns at the server's end.
///
/// # Errors
/// What is wrong with the hand-over, when there is no way back.
#[inline(never)]
pub fn take_over(flags: &Flags) -> Result<()> {
    let number = flags.operands.first().and_then(|number| number.parse().ok());
    let number = number.ok_or_else(|| Refusal::invalid("usage: take-over NUMBER"))?;
    let written = Written::read(copy_of(number)?.as_fd())?;
    let spares = match &flags.refused {
        None => written.spare(),
        // Who is back goes back no further, and needs no copies: too few descriptors for them may be why we are back.
        Some(_) => Ok(SpareFds::default()),
    };
    let spares = match spares {
        Ok(spares) => spares,
        // Nothing has been touched yet.
        Err(refusal) => return Err(written.go_back(SpareFds::default(), our_arguments(), &refusal).into()),
    };
    let runtime = serve::runtime();
    let local = LocalSet::new();
    let taken = match runtime {
        Ok(runtime) => local.block_on(&runtime, async { take(&written) }).map(|taken| (taken, runtime)),
        Err(refusal) => Err(refusal),
    };
    let (((taken, state), runtime), spares) = match taken {
        Ok(taken) => (taken, spares),
        // Back already, and from there is no way back.
        Err(refusal) if flags.refused.is_some() => return Err(refusal),
        Err(refusal) => return Err(written.go_back(spares, our_arguments(), &refusal).into()),
    };
    drop((written, spares));
    set_name();
    local.block_on(&runtime, go_on(taken, state, flags.refused.clone()));
    Ok(())
}

/// An exec by descriptor names the process after that.
fn set_name() {
    let program = std::env::args().next().unwrap_or_default();
    let name = program.rsplit('/').next().unwrap_or_default();
    if let Ok(name) = CString::new(&name.as_bytes()[..name.len().min(15)]) {
        let _ = rustix::thread::set_name(&name);
    }
}

fn take(written: &Written) -> Result<(TakenOver, ServerState)> {
    let state = written.state()?;
    let from = written.take_over()?;
    if let Some(place) = state.log {
        log::go_on(from.fd(place)?, state.debug);
    }
    if let Some(place) = state.here {
        driver::go_on_in(from.fd(place)?);
    }
    let signals = serve::own_process()?;
    let reaper = Reaper::default();
    let listener = serve::listen(from.fd(state.listener)?)?;
    let events = Events::resumed(&state.namespace, &state.events, &from);
    let pod = Pod::new(
        &state.namespace,
        state.options.clone(),
        Server::here(&state.address),
        events,
        reaper.clone(),
    );
    let resumed = Resumed::of(&state.connections, &from)?;
    let asker = state.asker.clone();
    let asker = asker.and_then(|asker| Some((resumed.connection(asker.connection)?, asker)));
    pod.take_over(&state, &from)?;
    Ok((TakenOver { listener, pod, reaper, signals, resumed, asker }, state))
}

async fn go_on(taken: TakenOver, state: ServerState, refused: Option<String>) {
    let TakenOver { listener, pod, reaper, signals, resumed, asker } = taken;
    let clients: Rc<Clients> = Rc::default();
    pod.go_on();
    clients.go_on(resumed, &pod);
    let paused_us = asker.as_ref().map_or(0, |(_, asker)| microseconds().saturating_sub(asker.held_at));
    let result = match refused {
        Some(text) => {
            log::warn(&format!("goes on as it was: {text}"));
            Err(Refusal::state(text).at("the new program could not take over"))
        }
        None => {
            let to = this_version();
            log::info(&format!("goes on as {to}, was {}, paused for {paused_us} us", state.from));
            let done = Upgraded {
                pid: std::process::id(),
                from: state.from,
                to,
                paused_us,
                containers: pod.container_ids(),
            };
            Ok(serde_json::to_vec(&done).unwrap_or_default())
        }
    };
    if let Some((connection, asker)) = asker {
        clients.answer(&connection, asker.stream, result);
    }
    serve::serve(listener, clients, pod, reaper, signals).await;
}
