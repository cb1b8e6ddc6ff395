// SPDX-License-Identifier: Apache-2.0
//! `spec-tests cri-features SOCKET HANDLER IMAGE CGROUP DIR CASE`: one of what newer kubelets ask of a runtime's handler. DIR/volume is a directory of
//! root's with a file `words`, and with a mount at `sub`.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::{Cri, HOST_ID, LIMIT, Wish, conclude, read, text};
use crate::check;
use crate::harness::case::{Trouble, Verdict, same};
use crate::shim::grpc;
use crate::shim::wire::{Fields, Message};

const RUNNING: u64 = 1;

/// Prints nothing when all is well; exit code 1 when something is not.
pub fn main(args: &[String]) -> ExitCode {
    let Some((case, args)) = args.split_last() else { return ExitCode::from(2) };
    let cri = |userns| read("cri-features", args).map(|cri| Cri { own_pids: true, userns, ..cri });
    let Some(cri) = cri(case.starts_with("idmap")) else { return ExitCode::from(2) };
    conclude(match case.as_str() {
        "idmap" => cri.in_a_pod(Cri::idmapped_volume),
        "rro" => cri.in_a_pod(Cri::recursive_read_only),
        "resize" => cri.in_a_pod(Cri::resized_in_place),
        "sidecars" => cri.in_a_pod(Cri::sidecars),
        "image-volume" => cri.in_a_pod(Cri::image_volume),
        "stats" => cri.in_a_pod(Cri::statistics),
        "events" => cri.events(),
        "features" => cri.features(true),
        "no-features" => cri.features(false),
        other => Err(format!("no case '{other}'").into()),
    })
}

impl Cri {
    fn in_a_pod(self, case: fn(&Self, &str) -> Verdict) -> Verdict {
        let pod = self.run_pod("pod")?;
        let done = case(&self, &pod);
        // Also after a failure: whoever called us has to clean up otherwise.
        self.end_pod(&pod)?;
        done
    }

    fn launched(&self, pod: &str, name: &str, script: &str, wish: &Wish) -> Result<String, Trouble> {
        self.start_as(pod, name, &["sh", "-c", script], wish)
    }

    /// What a script in the container says, its errors included.
    fn says(&self, id: &str, script: &str) -> Result<String, Trouble> {
        let answer = self.exec(id, &["sh", "-c", &format!("{{ {script}; }} 2>&1")], 20)?;
        Ok(answer.text(1).trim().to_owned())
    }

    fn volume(&self) -> String {
        self.logs.join("volume").display().to_string()
    }

    fn mount(&self) -> Message {
        text("/volume").text(2, &self.volume())
    }

    /// Files of the node's root are root's in a pod whose root is another, and what that one makes is root's on the node.
    fn idmapped_volume(&self, pod: &str) -> Verdict {
        let ids = Message::new().number(1, HOST_ID).number(3, 65536);
        let wish = Wish { mounts: vec![self.mount().message(6, &ids).message(7, &ids)], ..Wish::default() };
        let id = self.launched(pod, "mapped", "sleep 1000", &wish)?;
        let said = self.says(&id, "cat /proc/self/uid_map | tr -s ' '; stat -c '%u %g' /volume/words; touch /volume/new; chown 5:6 /volume/new")?;
        same("ids and owner", said.as_str(), &*format!("0 {HOST_ID} 65536\n0 0"))?;
        let made = fs::metadata(self.logs.join("volume/new"))?;
        same("whose the new file is on the node", (made.uid(), made.gid()), (5, 6))?;
        // Without a mapping they are nobody's.
        let bare = self.launched(
            pod,
            "bare",
            "sleep 1000",
            &Wish { mounts: vec![self.mount()], ..Wish::default() },
        )?;
        same(
            "the owner without a mapping",
            self.says(&bare, "stat -c '%u %g' /volume/words")?.as_str(),
            "65534 65534",
        )
    }

    fn read_only(&self, recursively: bool) -> Wish {
        let mount = self.mount().flag(3, true).flag(8, recursively);
        Wish { mounts: vec![mount], ..Wish::default() }
    }

    /// The mount below is read-only, too; with a plain read-only mount it is not.
    fn recursive_read_only(&self, pod: &str) -> Verdict {
        let script = "touch /volume/file; touch /volume/sub/file && echo written";
        let plain = self.launched(pod, "plain", "sleep 1000", &self.read_only(false))?;
        let said = self.says(&plain, script)?;
        same(
            "what is said below a read-only mount",
            said.as_str(),
            "touch: /volume/file: Read-only file system\nwritten",
        )?;
        let all = self.launched(pod, "all", "sleep 1000", &self.read_only(true))?;
        let said = self.says(&all, script)?;
        same("refusals", said.matches("Read-only file system").count(), 2)?;
        let (told, id) = (self.status(&all)?, &all);
        let mount = told.message(14)?;
        check!(mount.number(8) == 1, "the status of {id} tells of no recursive read-only mount: {mount:?}");
        Ok(())
    }

    /// Limits go up and down beneath a process that goes on, and are told.
    fn resized_in_place(&self, pod: &str) -> Verdict {
        let limits = |quota: u64, shares: u64, memory: u64| {
            Message::new().number(1, 100_000).number(2, quota).number(3, shares).number(4, memory)
        };
        let wish = Wish { resources: limits(20_000, 204, LIMIT), ..Wish::default() };
        let id = self.launched(pod, "resized", "sleep 1000", &wish)?;
        let script = "cd /sys/fs/cgroup; cat cpu.max cpu/cpu.cfs_quota_us memory.max memory/memory.limit_in_bytes \
             2>/dev/null; cut -d ' ' -f 22 /proc/1/stat";
        let before = self.says(&id, script)?;
        check!(before.contains(&LIMIT.to_string()) && before.contains("20000"), "limits at first: {before}");
        for (quota, shares, memory) in [(50_000, 512, 3 * LIMIT), (10_000, 102, LIMIT / 2)] {
            let update = text(&id).message(2, &limits(quota, shares, memory));
            self.call("UpdateContainerResources", &update)?;
            let now = self.says(&id, script)?;
            check!(now.contains(&memory.to_string()) && now.contains(&quota.to_string()), "limits: {now}");
            same("when it began", now.lines().last(), before.lines().last())?;
            let told = self.status(&id)?.message(16)?.message(1)?;
            same("the quota that is told", told.number(2), quota)?;
            same("the memory that is told", told.number(4), memory)?;
        }
        // Less than it has: refused, or it is the end of who has it; never a limit that is not told.
        self.says(&id, "head -c 8000000 /dev/zero >/dev/shm/held")?;
        let small = text(&id).message(2, &limits(10_000, 102, 4 << 20));
        let refused = self.call("UpdateContainerResources", &small).is_err();
        let told = self.status(&id)?.message(16)?.message(1)?.number(4);
        same("the memory that is told at last", told, if refused { LIMIT / 2 } else { 4 << 20 })
    }

    /// A sidecar is there before the others and after them, restarts alone, and hears of the end last.
    fn sidecars(&self, pod: &str) -> Verdict {
        let wish = || Wish { mounts: vec![self.mount()], ..Wish::default() };
        let script = |name: &str| {
            format!(
                "echo {name} begins >>/volume/story; trap 'echo {name} ends >>/volume/story; exit 0' TERM; while :; do sleep 0.05; done"
            )
        };
        let mut ids = Vec::new();
        for name in ["first", "second", "app"] {
            ids.push(self.launched(pod, name, &script(name), &wish())?);
            self.story_has(&format!("{name} begins"))?;
        }
        // One sidecar fails and is there again; nobody else hears of that.
        let fails = self.launched(pod, "third", "exit 3", &wish())?;
        same("its exit code", self.ended(&fails)?.number(7), 3)?;
        for id in &ids {
            same("the state of another", self.status(id)?.number(3), RUNNING)?;
        }
        for id in ids.iter().rev() {
            self.call("StopContainer", &text(id).number(2, 20))?;
            same("its exit code", self.status(id)?.number(7), 0)?;
        }
        let story = fs::read_to_string(self.logs.join("volume/story"))?;
        let want = "first begins\nsecond begins\napp begins\napp ends\nsecond ends\nfirst ends\n";
        same("the story", story.as_str(), want)
    }

    fn story_has(&self, words: &str) -> Verdict {
        let begin = Instant::now();
        while !fs::read_to_string(self.logs.join("volume/story")).unwrap_or_default().contains(words) {
            check!(begin.elapsed() < Duration::from_secs(30), "'{words}' is not said");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The files of an image, at a place of the container's, read-only.
    fn image_volume(&self, pod: &str) -> Verdict {
        let mount = text("/image").flag(3, true).message(9, &text(&self.image));
        let id =
            self.launched(pod, "images", "sleep 1000", &Wish { mounts: vec![mount], ..Wish::default() })?;
        let said = self.says(&id, "cmp /bin/busybox /image/bin/busybox && echo same; touch /image/file")?;
        same("what is said", said.as_str(), "same\ntouch: /image/file: Read-only file system")
    }

    /// By container and by pod, figures that can be, and that grow.
    fn statistics(&self, pod: &str) -> Verdict {
        let id = self.launched(
            pod,
            "busy",
            "head -c 9000000 /dev/zero >/dev/shm/f; while :; do :; done",
            &Wish::default(),
        )?;
        let (mut used, mut pods) = (0, 0);
        for round in 0..2 {
            std::thread::sleep(Duration::from_millis(500));
            let stats = self.call("ContainerStats", &text(&id))?.message(1)?;
            let now = stats.message(2)?.message(2)?.number(1);
            check!(now > used, "the processor's time does not grow in round {round}: {now} after {used}");
            used = now;
            let memory = stats.message(3)?.message(2)?.number(1);
            check!((9_000_000..64_000_000).contains(&memory), "a working set of {memory} bytes");
            let stats = self.call("PodSandboxStats", &text(pod))?.message(1)?.message(2)?;
            let now = stats.message(1)?.message(2)?.number(1);
            check!(now > pods, "the pod's time does not grow in round {round}: {now} after {pods}");
            pods = now;
            check!(stats.message(4)?.message(2)?.number(1) >= 1, "the pod has no process");
            same("containers of the pod", stats.all(5).count(), 1)?;
        }
        let filter = Message::new().message(1, &text(&id));
        let listed = self.call("ListContainerStats", &filter)?;
        same("listed containers", listed.all(1).count(), 1)?;
        let listed = self.call("ListPodSandboxStats", &Message::new())?;
        check!(listed.all(1).count() >= 1, "no pod is listed");
        Ok(())
    }

    /// A container's life as it is told to a kubelet that does not ask again and again: each step once, in order.
    fn events(self) -> Verdict {
        let (sender, receiver) = channel();
        let socket = self.socket.clone();
        std::thread::spawn(move || {
            let method = "/runtime.v1.RuntimeService/GetContainerEvents";
            // The stream has no end but the caller's.
            let _ = grpc::stream(&socket, method, &Message::new(), |event| sender.send(event).is_ok());
        });
        std::thread::sleep(Duration::from_millis(500));
        let pod = self.run_pod("pod")?;
        let done = self.launched(&pod, "short", "exit 7", &Wish::default());
        let done = done.and_then(|id| self.ended(&id).map(|_| id));
        self.end_pod(&pod)?;
        let id = done?;
        let mut told = Vec::new();
        while let Ok(event) = receiver.recv_timeout(Duration::from_secs(2)) {
            told.push((event.text(1), event.number(2)));
        }
        for id in [&id, &pod] {
            let steps: Vec<u64> =
                told.iter().filter(|(whose, _)| whose == id).map(|(_, step)| *step).collect();
            // CREATED, STARTED, STOPPED, DELETED
            same("the steps that are told", steps.as_slice(), &[0, 1, 2, 3][..])?;
        }
        Ok(())
    }

    /// What Status says of the handler: whether a kubelet sends it pods with user namespaces and recursive read-only mounts.
    fn features(&self, wanted: bool) -> Verdict {
        let status = self.call("Status", &Message::new())?;
        let handlers: Vec<Fields> = status.all(3).map(Fields::read).collect::<Result<_, _>>()?;
        let Some(handler) = handlers.iter().find(|handler| handler.text(1) == self.handler) else {
            return Err(format!("Status names no handler {}: {handlers:?}", self.handler).into());
        };
        let features = handler.message(2)?;
        same("recursive read-only mounts", features.number(1), u64::from(wanted))?;
        same("user namespaces", features.number(2), u64::from(wanted))
    }
}
