// SPDX-License-Identifier: Apache-2.0
//! `spec-tests cri-checkpoint SOCKET HANDLER IMAGE CGROUP DIR`: CheckpointContainer of a container that counts, and containers made from
//! the archive: in the same pod once the first one is removed, and in another pod.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::{Cri, conclude, read, text};
use crate::check;
use crate::harness::case::{Trouble, Verdict, same};
use crate::shim::wire::Message;

const RUNNING: u64 = 1;
/// Counts in a file that is always whole, under a name that only these processes know.
const COUNTER: &str = "t=$(cat /proc/sys/kernel/random/uuid); i=0
    while :; do i=$((i + 1)); echo $t $i >/new; mv /new /count; echo said $i; sleep 0.05; done";

/// Prints nothing when all is well; exit code 1 when something is not.
pub fn main(args: &[String]) -> ExitCode {
    let own_pids = true;
    read("cri-checkpoint", args)
        .map_or(ExitCode::from(2), |cri| conclude(Cri { own_pids, ..cri }.checkpoints()))
}

/// What the container says: who counts, and how far.
struct Count(String, u64);

impl Cri {
    fn checkpoints(&self) -> Verdict {
        let pod = self.run_pod("pod")?;
        let other = self.run_pod("other")?;
        let done = self.to_and_fro(&pod, &other);
        for pod in [&pod, &other] {
            self.end_pod(pod)?;
        }
        done
    }

    fn to_and_fro(&self, pod: &str, other: &str) -> Verdict {
        let archive = self.logs.join("checkpoint.tar").display().to_string();
        let id = self.start(pod, "counter", &["sh", "-c", COUNTER], 0)?;
        let before = self.count(&id)?;
        self.call("CheckpointContainer", &text(&id).text(2, &archive))?;
        self.goes_on("after the checkpoint", &id, &before)?;
        self.call("StopContainer", &text(&id))?;
        self.call("RemoveContainer", &text(&id))?;
        for (name, pod) in [("pod", pod), ("other", other)] {
            let id = self.restored(pod, name, &archive).map_err(|trouble| in_pod(name, &trouble))?;
            self.goes_on(&format!("restored in {name}"), &id, &before)?;
            let log = std::fs::read_to_string(self.logs.join(format!("{name}.log")))?;
            check!(log.contains("stdout F said"), "the log after the restore in {name}: {log}");
            self.call("StopContainer", &text(&id))?;
            same("the exit code", self.status(&id)?.number(7), 137)?;
            self.call("RemoveContainer", &text(&id))?;
        }
        Ok(())
    }

    /// A container whose image is the archive.
    fn restored(&self, pod: &str, name: &str, archive: &str) -> Result<String, Trouble> {
        let linux = Message::new().message(2, &Message::new().message(3, &self.namespaces()));
        let config = Message::new().message(1, &text("counter")).message(2, &text(archive));
        let config = config.text(11, &format!("{name}.log")).message(15, &linux);
        let create = Message::new().text(1, pod).message(2, &config).message(3, &self.config_of(name));
        let id = self.call("CreateContainer", &create)?.text(1);
        self.call("StartContainer", &text(&id))?;
        same("its state", self.status(&id)?.number(3), RUNNING)?;
        Ok(id)
    }

    fn count(&self, id: &str) -> Result<Count, Trouble> {
        let begin = Instant::now();
        loop {
            let answer = self.exec(id, &["cat", "/count"], 20)?.text(1);
            if let Some((token, number)) = answer.trim().split_once(' ') {
                return Ok(Count(token.to_owned(), number.parse().unwrap_or_default()));
            }
            check!(begin.elapsed() < Duration::from_secs(10), "it does not count: {answer}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn goes_on(&self, when: &str, id: &str, before: &Count) -> Verdict {
        let now = self.count(id)?;
        check!(now.0 == before.0, "{when}: others count: it was started, not restored");
        check!(now.1 > before.1, "{when}: {} after {}", now.1, before.1);
        Ok(())
    }
}

fn in_pod(name: &str, trouble: &Trouble) -> Trouble {
    format!("restore in {name}: {trouble:?}").into()
}
