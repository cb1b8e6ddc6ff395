// SPDX-License-Identifier: Apache-2.0
//! `spec-tests cri-begin SOCKET HANDLER IMAGE CGROUP DIR`: a pod with a container; prints its id and the container's.
//! `spec-tests cri-go-on SOCKET HANDLER IMAGE CGROUP DIR POD CONTAINER`: both are as they were, a further container runs, and all ends as it should;
//! in between containerd may have been killed.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use super::{Cri, EXITED, conclude, read, shims, text};
use crate::check;
use crate::harness::case::{Trouble, Verdict, same};

/// Prints two words; exit code 1 when something is not well.
pub fn begin(args: &[String]) -> ExitCode {
    let Some(cri) = read("cri-begin", args) else { return ExitCode::from(2) };
    conclude(cri.begin().map(|(pod, container)| println!("{pod} {container}")))
}

/// Prints nothing when all is well; exit code 1 when something is not.
pub fn go_on(args: &[String]) -> ExitCode {
    let [args @ .., pod, container] = args else { return ExitCode::from(2) };
    let Some(cri) = read("cri-go-on", args) else { return ExitCode::from(2) };
    conclude(cri.go_on(pod, container))
}

impl Cri {
    fn begin(&self) -> Result<(String, String), Trouble> {
        let pod = self.run_pod("pod")?;
        let container = self.start(&pod, "keeper", &["sleep", "1000"], 0)?;
        Ok((pod, container))
    }

    fn go_on(&self, pod: &str, container: &str) -> Verdict {
        let ready = |what: &str, state: u64| -> Verdict {
            let status = self.call("PodSandboxStatus", &text(pod))?.message(1)?;
            // SANDBOX_READY is 0 in the CRI.
            same(what, status.number(3), state)
        };
        ready("the pod's state", 0)?;
        check!(self.status(container)?.number(3) != EXITED, "the container has ended");
        let answer = self.exec(container, &["hostname"], 20)?;
        same("its host name", answer.text(1).trim(), "host")?;
        self.exits(pod)?;
        same("shims of the pod", shims(pod), 1)?;
        self.call("StopPodSandbox", &text(pod))?;
        ready("the pod's state after its stop", 1)?;
        check!(self.status(container)?.number(3) == EXITED, "the container goes on after its pod's end");
        self.call("RemovePodSandbox", &text(pod))?;
        self.shim_ends(pod)
    }
}
