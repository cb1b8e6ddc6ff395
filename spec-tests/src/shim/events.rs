// SPDX-License-Identifier: Apache-2.0
//! containerd's events service over ttrpc, and the rules that what arrives there must follow.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::ttrpc::{RESPONSE, frame, locked, read_frame};
use super::wire::{Fields, Message};
use crate::check;
use crate::harness::case::{Trouble, Verdict};

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Event {
    /// `create`, `start`, `exec-added`, `exec-started`, `exit`, `delete`, `oom`, `paused`, `resumed` …
    pub kind: String,
    pub namespace: String,
    pub container: String,
    /// The exec id; empty for the container's first process.
    pub exec: String,
    pub pid: u64,
    pub status: u64,
    /// Seconds since the epoch.
    pub exited_at: f64,
    /// Seconds since the epoch, from the envelope.
    pub sent_at: f64,
}

impl Event {
    fn read(request: &[u8]) -> Result<Self, Trouble> {
        let request = Fields::read(request)?;
        check!(request.text(1) == "containerd.services.events.ttrpc.v1.Events", "called {}", request.text(1));
        check!(request.text(2) == "Forward", "called {}", request.text(2));
        let envelope = request.message(3)?.message(1)?;
        let any = envelope.message(4)?;
        let (topic, body) = (envelope.text(3), any.message(2)?);
        let kind = topic.strip_prefix("/tasks/").unwrap_or(&topic).to_owned();
        let expected = match kind.as_str() {
            "create" => "Create",
            "start" => "Start",
            "exit" => "Exit",
            "delete" => "Delete",
            "exec-added" => "ExecAdded",
            "exec-started" => "ExecStarted",
            "oom" => "OOM",
            "paused" => "Paused",
            "resumed" => "Resumed",
            "checkpointed" => "Checkpointed",
            _ => return Err(format!("an event with topic {topic}").into()),
        };
        let url = any.text(1);
        check!(url == format!("containerd.events.Task{expected}"), "the event of {topic} has type {url}");
        let mut event = Event { container: body.text(1), namespace: envelope.text(2), ..Event::default() };
        event.sent_at = envelope.time(1)?;
        match kind.as_str() {
            "create" => event.pid = body.number(6),
            "start" => event.pid = body.number(2),
            "exec-added" | "exec-started" => (event.exec, event.pid) = (body.text(2), body.number(3)),
            "exit" => {
                (event.exec, event.pid, event.status) = (body.text(2), body.number(3), body.number(4));
                event.exited_at = body.time(5)?;
            }
            "delete" => {
                (event.exec, event.pid, event.status) = (body.text(5), body.number(2), body.number(3));
                event.exited_at = body.time(4)?;
            }
            _ => {}
        }
        if event.exec == event.container {
            event.exec.clear();
        }
        event.kind = kind;
        Ok(event)
    }
}

#[derive(Default)]
struct Inner {
    log: Mutex<Vec<Event>>,
    /// What came that was no event.
    wrong: Mutex<Vec<String>>,
    arrived: Condvar,
    /// Requests are read but not answered.
    silent: AtomicBool,
    stop: AtomicBool,
    connections: Mutex<Vec<UnixStream>>,
}

/// The server.
pub struct Events {
    pub path: PathBuf,
    inner: Arc<Inner>,
    listener: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Events {
    pub fn listen(path: &Path) -> Result<Self, Trouble> {
        let events = Self { path: path.to_owned(), inner: Arc::default(), listener: Mutex::new(None) };
        events.open()?;
        Ok(events)
    }

    /// Listens again after `close`.
    pub fn open(&self) -> Verdict {
        let listener = UnixListener::bind(&self.path)?;
        listener.set_nonblocking(true)?;
        self.inner.stop.store(false, Ordering::SeqCst);
        let inner = self.inner.clone();
        let accept = move || {
            while !inner.stop.load(Ordering::SeqCst) {
                let Ok((socket, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                };
                socket.set_nonblocking(false).ok();
                let Ok(kept) = socket.try_clone() else { continue };
                locked(&inner.connections).push(kept);
                let inner = inner.clone();
                std::thread::spawn(move || serve(socket, &inner));
            }
        };
        *locked(&self.listener) = Some(std::thread::spawn(accept));
        Ok(())
    }

    /// Goes away as containerd does when it is killed.
    pub fn close(&self) {
        self.inner.stop.store(true, Ordering::SeqCst);
        locked(&self.listener).take().map(|thread| thread.join().ok());
        std::fs::remove_file(&self.path).ok();
        for socket in locked(&self.inner.connections).drain(..) {
            socket.shutdown(std::net::Shutdown::Both).ok();
        }
    }

    /// Whether requests are left without an answer.
    pub fn set_silent(&self, silent: bool) {
        self.inner.silent.store(silent, Ordering::SeqCst);
    }

    /// All but this container's, once they have followed the rules: for cases that have more of them than can be kept, at a moment at
    /// which no other container is alive.
    pub fn forget_all_but(&self, container: &str) -> Verdict {
        self.follow_the_rules()?;
        locked(&self.inner.log).retain(|event| event.container == container);
        Ok(())
    }

    /// All events so far.
    pub fn all(&self) -> Vec<Event> {
        locked(&self.inner.log).clone()
    }

    /// Waits until `find` answers.
    pub fn wait<T>(
        &self,
        seconds: f64,
        what: &str,
        find: impl Fn(&[Event]) -> Option<T>,
    ) -> Result<T, Trouble> {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        let mut log = locked(&self.inner.log);
        loop {
            if let Some(found) = find(&log) {
                return Ok(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            check!(!left.is_zero(), "no event: {what}; the last: {}", tail(&log));
            log = self.inner.arrived.wait_timeout(log, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for the exit of a container (`exec` empty) or of an exec.
    pub fn exit(&self, container: &str, exec: &str) -> Result<Event, Trouble> {
        self.wait(10.0, &format!("exit of {container} {exec:?}"), |all| {
            all.iter().find(|e| e.kind == "exit" && e.container == container && e.exec == exec).cloned()
        })
    }

    /// Waits for an event of this kind.
    pub fn of_kind(&self, container: &str, kind: &str) -> Result<Event, Trouble> {
        self.wait(10.0, &format!("{kind} of {container}"), |all| {
            all.iter().find(|e| e.kind == kind && e.container == container).cloned()
        })
    }

    /// How many events of this kind the container has had.
    pub fn count(&self, container: &str, kind: &str) -> usize {
        self.all().iter().filter(|e| e.container == container && e.kind == kind).count()
    }

    /// The kinds of a container's events in order; an exec's with its id.
    pub fn story(&self, container: &str) -> Vec<String> {
        let all = self.all();
        let told = all.iter().filter(|e| e.container == container);
        told.map(|e| if e.exec.is_empty() { e.kind.clone() } else { format!("{} {}", e.kind, e.exec) })
            .collect()
    }

    /// The rules that hold for every sequence of events.
    pub fn follow_the_rules(&self) -> Verdict {
        let wrong = locked(&self.inner.wrong);
        check!(wrong.is_empty(), "the shim sent what is no event: {}", wrong.join("; "));
        rules(&self.all())
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.close();
    }
}

fn tail(log: &[Event]) -> String {
    let last = log.iter().rev().take(4).rev();
    last.map(|e| format!("{} {}", e.kind, e.exec)).collect::<Vec<_>>().join(", ")
}

fn serve(mut socket: UnixStream, inner: &Inner) {
    while let Ok((stream, _, payload)) = read_frame(&mut socket) {
        match Event::read(&payload) {
            Ok(event) => locked(&inner.log).push(event),
            Err(trouble) => locked(&inner.wrong).push(format!("{trouble:?}")),
        }
        inner.arrived.notify_all();
        while inner.silent.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // An empty Response with an empty payload.
        let answer = Message::new().bytes(2, &[]);
        if socket.write_all(&frame(stream, RESPONSE, &answer.0)).is_err() {
            return;
        }
    }
}

/// create before start before exit before delete; exec-added before exec-started before the exec's exit before the
/// container's; exactly one exit for each process, at a sensible time.
fn rules(all: &[Event]) -> Verdict {
    // An exec's id is free again after its deletion, so what counts is the latest of each name.
    let mut open: HashMap<(&str, &str), Vec<&str>> = HashMap::new();
    let mut last: HashMap<&str, &Event> = HashMap::new();
    for event in all {
        // One whose answer was lost with the connection comes again, with the very time it had: the same event.
        let again =
            last.insert(&event.container, event).is_some_and(|last| event.sent_at > 0.0 && last == event);
        if again {
            continue;
        }
        let name = (event.container.as_str(), event.exec.as_str());
        let whose = format!("{} of {} {:?}", event.kind, event.container, event.exec);
        if event.kind == "exec-added" {
            open.remove(&name);
        }
        let deleted =
            |open: &HashMap<_, Vec<&str>>| open.get(&name).is_some_and(|told| told.contains(&"delete"));
        if event.kind == "create" && deleted(&open) {
            open.retain(|(container, _), _| *container != event.container);
        }
        let ended = |who: &(&str, &str)| open.get(who).is_some_and(|told| told.contains(&"exit"));
        let init = (event.container.as_str(), "");
        match event.kind.as_str() {
            "create" => check!(!open.contains_key(&name), "a second {whose}"),
            "start" => check!(
                open.get(&name).is_some_and(|t| t == &["create"]),
                "{whose} after {:?}",
                open.get(&name)
            ),
            "exec-started" => {
                check!(
                    open.get(&name).is_some_and(|t| t == &["exec-added"]),
                    "{whose} after {:?}",
                    open.get(&name)
                );
            }
            "exec-added" => check!(!ended(&init), "{whose} after the container's exit"),
            "exit" => {
                check!(!ended(&name), "a second {whose}");
                check!(open.contains_key(&name), "{whose} of an unknown process");
                check!(!ended(&init), "{whose} after the container's own exit");
                check!(
                    event.exec.is_empty() || open[&name].contains(&"exec-started"),
                    "{whose} before its start"
                );
                let age = event.sent_at - event.exited_at;
                check!((-0.01..60.0).contains(&age), "{whose}: exited_at is {age} s before it was sent");
            }
            "delete" => {
                check!(event.exec.is_empty(), "{whose}: only a container's deletion is told");
                // One that was to be restored, and was not, has never lived.
                let lived = event.pid != 0 || open.get(&init).is_some_and(|told| told.contains(&"start"));
                check!(ended(&init) || !lived, "{whose} before its exit");
            }
            _ => {}
        }
        open.entry(name).or_default().push(&event.kind);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_order(list: &[(&str, &str)]) -> Verdict {
        let event = |(kind, exec): &(&str, &str)| Event {
            kind: kind.to_string(),
            container: "c".into(),
            exec: exec.to_string(),
            ..Event::default()
        };
        rules(&list.iter().map(event).collect::<Vec<_>>())
    }

    #[test]
    fn the_order_of_events_is_judged() {
        let good = [("create", ""), ("start", ""), ("exec-added", "x"), ("exec-started", "x"), ("exit", "x")];
        assert!(check_order(&good).is_ok());
        assert!(
            check_order(&[&good[..], &[("exec-added", "x"), ("exit", ""), ("delete", "")]].concat()).is_ok()
        );
        assert!(check_order(&[("create", ""), ("exit", ""), ("delete", "")]).is_ok());
        for bad in [
            &[("create", ""), ("exit", ""), ("start", "")][..],
            &[("create", ""), ("exit", ""), ("exit", "")],
            &[("create", ""), ("start", ""), ("delete", "")],
            &[("create", ""), ("exec-added", "x"), ("exit", "x"), ("exec-started", "x")],
            &[("create", ""), ("exec-added", "x"), ("exec-started", "x"), ("exit", ""), ("exit", "x")],
            &[("exit", "")],
        ] {
            assert!(check_order(bad).is_err(), "{bad:?}");
        }
    }
}
