// SPDX-License-Identifier: Apache-2.0
//! When a server ends, and whom a signal goes to.

use std::future::Future;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use containerd_shim_protos::api::{CreateTaskRequest, KillRequest};
use rustix::process::Pid;
use tokio::time::timeout;

use super::*;
use crate::driver::Driver;
use crate::io::{Owner, StreamPaths};
use crate::process::TaskProcess;

/// A pod whose containers are in no runtime's state.
fn pod() -> Rc<Pod> {
    Pod::new("test", Options::default(), Server::here(""), Events::new("test", ""), Reaper::default())
}

fn add(pod: &Pod, id: &str, own_pids: bool) -> Rc<Task> {
    let options = Options { root: "/nonexistent".to_owned(), ..Options::default() };
    let driver = Driver::new(&options, "test", false, Path::new("/nonexistent"));
    let init = TaskProcess::new(String::new(), StreamPaths::default());
    let request = CreateTaskRequest { id: id.to_owned(), ..Default::default() };
    let task = create::new_task(&request, "/nonexistent".into(), Owner::default(), init, driver, own_pids);
    pod.tasks.borrow_mut().insert(id.to_owned(), task.clone());
    task
}

/// With a clock that runs on as soon as nothing else is to be done.
fn at_once<T>(work: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// Whether the server was told to end.
fn ends(pod: &Pod) -> bool {
    at_once(async { timeout(Duration::from_secs(1), pod.end.notified()).await.is_ok() })
}

#[test]
fn a_signal_ends_the_server_with_its_last_container() {
    let empty = pod();
    assert!(!ends(&empty));
    empty.asked_to_end();
    assert!(ends(&empty));
    let pod = pod();
    add(&pod, "one", false);
    pod.taken.borrow_mut().insert("two".to_owned(), false);
    pod.asked_to_end();
    assert!(!ends(&pod));
    pod.remove("one");
    assert!(!ends(&pod), "while a create is under way");
    pod.taken.borrow_mut().clear();
    pod.end_if_empty();
    assert!(ends(&pod));
}

/// `Shutdown` is for a server without containers: one that comes too early is not remembered.
#[test]
fn a_shutdown_counts_only_without_containers() {
    let with_one = pod();
    add(&with_one, "one", false);
    with_one.shutdown(&ShutdownRequest::default()).unwrap();
    with_one.remove("one");
    assert!(!ends(&with_one));
    with_one.shutdown(&ShutdownRequest::default()).unwrap();
    assert!(ends(&with_one));
    let creating = pod();
    creating.taken.borrow_mut().insert("one".to_owned(), false);
    creating.shutdown(&ShutdownRequest::default()).unwrap();
    assert!(!ends(&creating));
    creating.taken.borrow_mut().clear();
    creating.end_if_empty();
    assert!(ends(&creating), "its create came to nothing");
}

#[test]
fn a_server_ends_when_it_has_neither_a_client_nor_a_container() {
    let hours = Duration::from_secs(7200);
    let alone = |pod: Rc<Pod>| at_once(async move { timeout(hours, pod.end_when_alone()).await.is_ok() });
    assert!(alone(pod()));
    let visited = pod();
    let _visit = visited.visit();
    assert!(!alone(visited.clone()), "with a client");
    let with_one = pod();
    add(&with_one, "one", false);
    assert!(!alone(with_one));
    let creating = pod();
    creating.taken.borrow_mut().insert("one".to_owned(), false);
    assert!(!alone(creating));
}

/// Ends with its test.
struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// SIGKILL goes to init alone where its pid namespace, or nothing, hangs on it; otherwise the runtime is asked, which here has
/// no such container.
#[test]
fn the_runtime_kills_what_init_does_not_take_along() {
    let reaches_init = |signal: i32, all: bool, own_pids: bool, paused: bool| {
        let pod = pod();
        let task = add(&pod, "one", own_pids);
        let sleeper = Sleeper(Command::new("sleep").arg("1000").spawn().unwrap());
        let pid = Pid::from_raw(sleeper.0.id() as i32).unwrap();
        task.init.born(pid.as_raw_nonzero().get(), pidfd_open(pid, PidfdFlags::empty()).unwrap());
        task.init.phase.set(ProcessPhase::Running);
        task.paused.set(paused);
        let request = KillRequest { id: "one".into(), signal: signal as u32, all, ..Default::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, pod.kill(&request)).is_ok()
    };
    assert!(
        reaches_init(libc::SIGTERM, false, false, false) && reaches_init(libc::SIGTERM, false, true, true)
    );
    assert!(!reaches_init(libc::SIGTERM, true, true, false), "each of its processes");
    assert!(reaches_init(libc::SIGKILL, false, true, false));
    assert!(
        !reaches_init(libc::SIGKILL, false, false, false),
        "what shares a pid namespace outlives its init"
    );
    assert!(!reaches_init(libc::SIGKILL, false, true, true), "what is frozen on v1 does not die");
    assert!(!reaches_init(libc::SIGKILL, true, true, false));
}
