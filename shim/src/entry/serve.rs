// SPDX-License-Identifier: Apache-2.0
//! The server, from the moment it has a socket to its end: what `start` goes on as, and `take-over`.

#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdListener;
use std::rc::Rc;
use std::time::Duration;

use corten::error::Context;
use nix::sys::signalfd::SignalFd;
use rustix::process::{Pid, set_child_subreaper};
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::spawn_local;

use super::socket;
use super::start::path_of;
use crate::pod::Pod;
use crate::reaper::Reaper;
use crate::refusal::Result;
use crate::server::Clients;
use crate::upgrade::Served;
use crate::{log, reaper, server, work};

/// containerd waits that long for the answer to Shutdown.
const FLUSH: Duration = Duration::from_secs(3);

/// What a server needs of its process.
pub fn own_process() -> Result<SignalFd> {
    set_child_subreaper(Some(Pid::INIT)).call(|| "prctl(PR_SET_CHILD_SUBREAPER)")?;
    std::panic::set_hook(Box::new(|panic| log::warn(&format!("internal error: {panic}"))));
    Ok(reaper::block_signals()?)
}

/// The reactor.
pub fn runtime() -> Result<Runtime> {
    let mut builder = Builder::new_current_thread();
    let builder = builder.enable_io().enable_time().max_io_events_per_tick(64);
    Ok(builder.build().call(|| "epoll_create")?)
}

/// The listening socket, in the reactor.
pub fn listen(socket: OwnedFd) -> Result<Rc<UnixListener>> {
    let listener = StdListener::from(socket);
    listener.set_nonblocking(true).call(|| "fcntl(O_NONBLOCK)")?;
    Ok(Rc::new(UnixListener::from_std(listener).call(|| "epoll_ctl")?))
}

/// Serves to the end.
pub async fn serve(
    listener: Rc<UnixListener>,
    clients: Rc<Clients>,
    pod: Rc<Pod>,
    reaper: Reaper,
    signals: SignalFd,
) {
    let told = pod.clone();
    spawn_local(reaper.sweep(signals, move || told.asked_to_end()));
    spawn_local(pod.events.clone().publish());
    spawn_local(server::serve(listener.clone(), clients.clone(), pod.clone()));
    let quiet = pod.clone();
    spawn_local(async move { quiet.idle.give_pages_back().await });
    let alone = pod.clone();
    spawn_local(async move { alone.end_when_alone().await });
    spawn_local(Served { listener, clients, pod: pod.clone() }.attend());
    pod.end.notified().await;
    let _work = work::begin("the end of the server");
    // Nobody is to find us from here on; who has connected already gets its answers.
    if let Some(path) = path_of(&pod.server.address) {
        socket::remove(path);
    }
    pod.events.flush(FLUSH).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
}
