// SPDX-License-Identifier: Apache-2.0
//! `spec-tests cri SOCKET HANDLER IMAGE CGROUP DIR`: what a kubelet does with a pod, through the CRI of a containerd that
//! listens on SOCKET: its containers run by HANDLER, from IMAGE, below the control group CGROUP, their logs in DIR.
//!
//! Message and field numbers are those of the CRI's runtime.v1.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod features;
pub mod figures;
pub mod restart;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::grpc;
use super::wire::{Fields, Message};
use crate::check;
use crate::harness::case::{Trouble, Verdict, same};
use crate::harness::hostdiff::all_processes;

const EXITED: u64 = 2;
/// Bytes that the memory hog may have.
const LIMIT: u64 = 32 << 20;

/// The first id of the host in a user namespace.
const HOST_ID: u64 = 100_000;

struct Cri {
    socket: PathBuf,
    handler: String,
    image: String,
    cgroup: String,
    logs: PathBuf,
    /// The pod has a user namespace.
    userns: bool,
    /// Each container has a pid namespace of its own, as a kubelet usually asks.
    own_pids: bool,
}

/// Prints nothing when all is well; exit code 1 when something is not.
pub fn main(args: &[String]) -> ExitCode {
    read("cri", args).map_or(ExitCode::from(2), |cri| conclude(cri.pods()))
}

fn read(command: &str, args: &[String]) -> Option<Cri> {
    let [socket, handler, image, cgroup, logs] = args else {
        eprintln!("usage: spec-tests {command} SOCKET HANDLER IMAGE CGROUP DIR");
        return None;
    };
    Some(Cri {
        socket: socket.into(),
        handler: handler.clone(),
        image: image.clone(),
        cgroup: cgroup.clone(),
        logs: logs.into(),
        userns: false,
        own_pids: false,
    })
}

pub(super) fn conclude(verdict: Verdict) -> ExitCode {
    match verdict {
        Ok(()) => ExitCode::SUCCESS,
        Err(Trouble::Fail(text) | Trouble::NotRun(text)) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

/// A message that says one thing, or whose first field names what it is about.
pub(super) fn text(value: &str) -> Message {
    Message::new().text(1, value)
}

/// What a container is, but for its name and its command.
#[derive(Default)]
struct Wish {
    mounts: Vec<Message>,
    resources: Message,
}

impl Cri {
    fn call(&self, name: &str, request: &Message) -> Result<Fields, Trouble> {
        grpc::call(&self.socket, &format!("/runtime.v1.RuntimeService/{name}"), request)
    }

    /// One pod, and one with a user namespace where containerd has that.
    fn pods(mut self) -> Verdict {
        self.pod()?;
        let version = self.call("Version", &Message::new())?.text(3);
        let old = ["1.", "v1."].iter().any(|old| version.starts_with(old));
        self.userns = !old;
        if old {
            Ok(())
        } else {
            self.pod().map_err(|trouble| format!("with a user namespace: {trouble:?}").into())
        }
    }

    /// A pod whose containers share its pid namespace, from beginning to end.
    fn pod(&self) -> Verdict {
        let pod = self.run_pod("pod")?;
        let done = self.containers(&pod);
        // Also after a failure: whoever called us has to clean up otherwise.
        self.end_pod(&pod)?;
        done?;
        self.shim_ends(&pod)
    }

    fn run_pod(&self, name: &str) -> Result<String, Trouble> {
        let run = Message::new().message(1, &self.config_of(name)).text(2, &self.handler);
        Ok(self.call("RunPodSandbox", &run)?.text(1))
    }

    fn end_pod(&self, pod: &str) -> Verdict {
        self.call("StopPodSandbox", &text(pod))?;
        self.call("RemovePodSandbox", &text(pod)).map(drop)
    }

    fn shim_ends(&self, pod: &str) -> Verdict {
        let begin = Instant::now();
        while shims(pod) > 0 {
            check!(begin.elapsed() < Duration::from_secs(5), "the pod's shim is still there");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn config(&self) -> Message {
        self.config_of("pod")
    }

    fn config_of(&self, name: &str) -> Message {
        let metadata = Message::new().text(1, name).text(2, "uid").text(3, "default");
        let security = Message::new().message(1, &self.namespaces());
        let linux = Message::new().text(1, &self.cgroup).message(2, &security);
        let logs = self.logs.display().to_string();
        Message::new().message(1, &metadata).text(2, "host").text(3, &logs).message(8, &linux)
    }

    fn namespaces(&self) -> Message {
        let map = Message::new().number(1, HOST_ID).number(3, 65536);
        let userns = Message::new().message(2, &map).message(3, &map);
        let message = Message::new().number(2, u64::from(self.own_pids));
        if self.userns { message.message(5, &userns) } else { message }
    }

    fn containers(&self, pod: &str) -> Verdict {
        let keeper = self.start(pod, "keeper", &["sleep", "1000"], 0)?;
        same("shims of the pod", shims(pod), 1)?;
        same("shims of its container", shims(&keeper), 0)?;
        self.exits(pod)?;
        self.is_short_of_memory(pod)?;
        self.execs(&keeper)?;
        self.is_updated(&keeper)?;
        let stats = self.call("ContainerStats", &text(&keeper))?.message(1)?;
        check!(stats.message(3)?.message(2)?.number(1) > 0, "no memory in use: {stats:?}");
        // The others have ended, in a pid namespace that is also its own.
        check!(self.status(&keeper)?.number(3) != EXITED, "the container ended with another one of its pod");
        self.call("StopContainer", &Message::new().text(1, &keeper).number(2, 5))?;
        let status = self.status(&keeper)?;
        same("the state of a stopped container", status.number(3), EXITED)?;
        same("its exit code", status.number(7), 128 + 15)?;
        self.call("RemoveContainer", &text(&keeper)).map(drop)
    }

    fn start(&self, pod: &str, name: &str, command: &[&str], memory: u64) -> Result<String, Trouble> {
        let wish = Wish { resources: Message::new().number(4, memory), ..Wish::default() };
        self.start_as(pod, name, command, &wish)
    }

    fn start_as(&self, pod: &str, name: &str, command: &[&str], wish: &Wish) -> Result<String, Trouble> {
        let security = Message::new().message(3, &self.namespaces());
        let linux = Message::new().message(1, &wish.resources).message(2, &security);
        let config = Message::new().message(1, &text(name)).message(2, &text(&self.image));
        let config = command.iter().fold(config, |config, word| config.text(3, word));
        let config = wish.mounts.iter().fold(config, |config, mount| config.message(7, mount));
        let config = config.text(11, &format!("{name}.log")).message(15, &linux);
        let create = Message::new().text(1, pod).message(2, &config).message(3, &self.config());
        let id = self.call("CreateContainer", &create)?.text(1);
        self.call("StartContainer", &text(&id))?;
        Ok(id)
    }

    fn status(&self, id: &str) -> Result<Fields, Trouble> {
        self.call("ContainerStatus", &text(id))?.message(1)
    }

    /// Waits for the end, and removes it.
    fn ended(&self, id: &str) -> Result<Fields, Trouble> {
        let begin = Instant::now();
        loop {
            let status = self.status(id)?;
            if status.number(3) == EXITED {
                self.call("RemoveContainer", &text(id))?;
                return Ok(status);
            }
            check!(begin.elapsed() < Duration::from_secs(30), "the container does not end: {status:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn exits(&self, pod: &str) -> Verdict {
        let id = self.start(pod, "exits", &["sh", "-c", "echo out; echo err >&2; exit 3"], 0)?;
        same("the exit code", self.ended(&id)?.number(7), 3)?;
        let log = fs::read_to_string(self.logs.join("exits.log"))?;
        check!(log.contains("stdout F out\n") && log.contains("stderr F err\n"), "the log: {log}");
        Ok(())
    }

    fn is_short_of_memory(&self, pod: &str) -> Verdict {
        let id = self.start(pod, "hog", &["busybox", "tail", "/dev/zero"], LIMIT)?;
        let status = self.ended(&id)?;
        same("the exit code", status.number(7), 137)?;
        same("the reason", status.text(10).as_str(), "OOMKilled")
    }

    fn exec(&self, id: &str, words: &[&str], seconds: u64) -> Result<Fields, Trouble> {
        let request = words.iter().fold(text(id), |request, word| request.text(2, word));
        self.call("ExecSync", &request.number(3, seconds))
    }

    fn execs(&self, id: &str) -> Verdict {
        let exec = |words: &[&str], seconds: u64| self.exec(id, words, seconds);
        let answer = exec(&["sh", "-c", "echo out; echo err >&2; exit 4"], 20)?;
        same("an exec's stdout", answer.text(1).as_str(), "out\n")?;
        same("an exec's stderr", answer.text(2).as_str(), "err\n")?;
        same("an exec's exit code", answer.number(3), 4)?;
        // A file of the image's owner, in a directory of the image.
        let answer = exec(&["sh", "-c", "touch /bin/new && cat /proc/self/uid_map"], 20)?;
        let first = if self.userns { HOST_ID } else { 0 }.to_string();
        same("what id 0 is", answer.text(1).split_whitespace().nth(1), Some(first.as_str()))?;
        check!(exec(&["sleep", "100"], 1).is_err(), "an exec that takes too long succeeds");
        check!(exec(&["/no/such"], 20).is_err(), "an exec of nothing succeeds");
        Ok(())
    }

    /// A new limit is what the container itself then reads.
    fn is_updated(&self, id: &str) -> Verdict {
        let resources = Message::new().number(4, 2 * LIMIT);
        self.call("UpdateContainerResources", &text(id).message(2, &resources))?;
        let script = "cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes 2>/dev/null; :";
        let answer = self.exec(id, &["sh", "-c", script], 20)?;
        same("the updated limit", answer.text(1).trim(), (2 * LIMIT).to_string().as_str())
    }
}

/// How many shims were started for that id.
fn shims(id: &str) -> usize {
    shims_of(id).count()
}

/// The shims that were started for that id.
fn shims_of(id: &str) -> impl Iterator<Item = i32> {
    let words = format!("-id\0{id}\0");
    let line = |pid: i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_one = move |pid: &i32| String::from_utf8_lossy(&line(*pid)).contains(&words);
    all_processes().into_iter().map(|process| process.pid).filter(is_one)
}
