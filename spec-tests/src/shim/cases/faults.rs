// SPDX-License-Identifier: Apache-2.0
//! A system call of the shim's, or of what it clones, fails while it does what it was asked for (R19 of docs/reliability.md): the request
//! works or fails with one line, the shim answers the next one, and holds what it held.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use nix::errno::Errno;
use serde_json::json;

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::procs::{self, Usage};
use crate::harness::sniper::{Shot, fail_at};
use crate::harness::test::Test;
use crate::harness::tracer::name_of;
use crate::shim::daemon::Daemon;
use crate::shim::task::{Io, METHODS, PROCESS, RESOURCES, RUNNING, STOPPED, Shim, Task, process};
use crate::shim::ttrpc::{CLOSED, Failure};
use crate::shim::wire::Message;

/// What calls fail with, one point after the other.
const ERRNOS: [Errno; 6] =
    [Errno::ENOMEM, Errno::EIO, Errno::EMFILE, Errno::ENOSPC, Errno::EPERM, Errno::EAGAIN];
/// Points of each request, if it is to be short.
const FEW: usize = 3;
/// How soon a shim holds no more than before.
const SETTLING: Duration = Duration::from_secs(3);
/// Calls by which an answer, or a request, is carried: where one of them fails, the connection may end.
const CARRIERS: [i64; 8] = [
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvmsg,
    libc::SYS_recvfrom,
    libc::SYS_read,
    libc::SYS_epoll_ctl,
];
/// Checkpoint takes CRIU, whose calls are not the shim's; Shutdown would leave nothing to ask.
const LEFT_OUT: [&str; 2] = ["Checkpoint", "Shutdown"];
/// A Start of another process than init, which is another way than that of init.
const OF_AN_EXEC: &str = "Start-of-an-exec";

/// The chapter.
pub fn cases() -> Vec<Case> {
    let one = |method: &'static str| {
        let name = format!("faults/failing-in-{}", method.to_lowercase());
        case(name, move |t| at_calls(t, method)).takes(3600.0).needs(&[Need::Runtime("corten")])
    };
    let methods = METHODS.into_iter().filter(|method| !LEFT_OUT.contains(method));
    methods.chain([OF_AN_EXEC]).map(one).collect()
}

/// A shim with a container that stays, in whose company others come and go.
struct Company<'t> {
    d: Daemon<'t>,
    first: Bundle,
    keeper: Task,
    held: Usage,
}

fn at_calls(t: &Test, method: &str) -> Verdict {
    let c = Company::begin(t)?;
    c.disturbed(method, None)?;
    // What the first request of its kind makes is there from now on.
    let all = c.disturbed(method, None)?.0;
    let step = t.host.every.or(t.host.long.then_some(1)).unwrap_or_else(|| all.div_ceil(FEW)).max(1);
    let points: Vec<usize> = (1..=all).skip(step / 2).step_by(step).collect();
    let (begin, mut missed, mut found) = (Instant::now(), 0, Vec::new());
    for (number, at) in points.iter().enumerate() {
        let errno = ERRNOS[number % ERRNOS.len()];
        let done = c.disturbed(method, Some((*at, errno)));
        let Err(trouble) = done.map(|(_, hit)| missed += usize::from(!hit)) else { continue };
        let text = format!("call {at} of {all} with {errno:?}: {trouble:?}");
        eprintln!("FAULT {method}: {text}");
        found.push(text);
        // Without its shim there is nothing more to be learnt.
        if !procs::is_alive(c.keeper.shim.pid) || found.len() > 20 {
            break;
        }
    }
    check!(found.is_empty(), "{} of {} points: {}", found.len(), points.len(), found.join(" || "));
    let rate = points.len() as f64 / begin.elapsed().as_secs_f64();
    let name = method.to_lowercase();
    let count = points.len();
    eprintln!(
        "FAULTS faults/failing-in-{name} {count} points of {all}, {missed} not reached, {rate:.1} a second, 0 held"
    );
    c.d.end(&c.first, &c.keeper)?;
    c.d.finish()
}

impl<'t> Company<'t> {
    fn begin(t: &'t Test) -> Result<Self, Trouble> {
        let d = Daemon::new(t)?;
        let (first, keeper) = d.launch("forever")?;
        keeper.execute("x", &["/probe", "exit", "4"], &Io::null())?;
        let held = procs::usage(keeper.shim.pid)?;
        Ok(Self { d, first, keeper, held })
    }

    /// One request, at one of whose calls something may happen. How many calls there were, and whether it happened.
    fn disturbed(&self, method: &str, at: Option<(usize, Errno)>) -> Result<(usize, bool), Trouble> {
        let b = self.d.bundle("forever")?;
        let task = Task::new(self.keeper.shim.clone(), &b.id);
        let (name, request) = self.prepared(method, &b, &task)?;
        let shim = Shim::connect(&task.shim.address, 3, &task.id)?;
        let mut asked = None;
        let Shot { calls, hit } = fail_at(shim.pid, at, || asked = Some(shim.begin(name, &request)))?;
        let answer = match (asked, method) {
            (Some(_), "Wait") | (None, _) => None,
            (Some(asked), _) => asked.within(20.0).err(),
        };
        let at = hit.map_or("nothing".to_owned(), name_of);
        // Its connection is none of what the shim is to hold.
        drop(shim);
        let told = answer.map_or(Ok(()), |failure| says_why(&failure, hit));
        let cleared = told.and_then(|()| self.clear_away(&b, &task));
        cleared.map_err(|trouble| Trouble::Fail(format!("after {at} failed: {trouble:?}")))?;
        Ok((calls, hit.is_some()))
    }

    /// What has to be there for a request, and the request.
    fn prepared<'m>(&self, method: &'m str, b: &Bundle, task: &Task) -> Result<(&'m str, Message), Trouble> {
        b.write()?;
        if method != "Create" {
            task.create(&self.d, b, &Io::null())?;
        }
        if !matches!(method, "Create" | "Start") {
            task.start("")?;
        }
        let about = Message::new().text(1, &task.id);
        Ok(match method {
            "Create" => (method, task.create_request(b, &Io::null(), &self.d.rootfs(), &self.d.options())),
            "Delete" => {
                task.end()?;
                (method, about)
            }
            "Resume" => {
                task.pause()?;
                (method, about)
            }
            "Kill" => (method, about.number(3, 9).flag(4, true)),
            "Exec" => {
                let process = process(&["/probe", "forever"]).to_string();
                (method, about.text(2, "x").any(7, PROCESS, process.as_bytes()))
            }
            OF_AN_EXEC => {
                task.exec("x", &["/probe", "forever"], &Io::null())?;
                ("Start", about.text(2, "x"))
            }
            "Update" => {
                let resources = json!({"cpu": {"shares": 512}, "pids": {"limit": 77}});
                (method, about.any(2, RESOURCES, resources.to_string().as_bytes()))
            }
            "CloseIO" => (method, about.flag(3, true)),
            _ => (method, about),
        })
    }

    /// Others are answered, what is left of the container goes, and nothing is held on to.
    fn clear_away(&self, b: &Bundle, task: &Task) -> Verdict {
        same("the state of another", self.keeper.state("")?.status, RUNNING)?;
        if let Ok(state) = task.state("") {
            task.resume().ok();
            if state.status != STOPPED {
                task.kill("", 9, true)?;
            }
            task.exit("")?;
            if task.state("x").is_ok() {
                task.delete("x")?;
            }
            task.delete("")?;
        }
        self.d.remove(b)?;
        let begin = Instant::now();
        loop {
            self.d.t.reap();
            let now = procs::usage(self.keeper.shim.pid)?;
            let Usage { fds, zombies, threads, .. } = self.held;
            if now.fds <= fds && now.zombies <= zombies && now.threads <= threads + 2 {
                return Ok(());
            }
            check!(begin.elapsed() < SETTLING, "it holds {now:?}, and held {:?}", self.held);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// One line; or the connection ended, as a call failed that carries answers.
fn says_why(failure: &Failure, hit: Option<i64>) -> Verdict {
    let Failure { code, text } = failure;
    if *code == CLOSED && hit.is_some_and(|call| CARRIERS.contains(&call)) {
        return Ok(());
    }
    check!(*code < CLOSED, "no answer: {failure:?}");
    check!(
        !text.is_empty() && text.lines().count() == 1,
        "{} lines of error: {text:?}",
        text.lines().count()
    );
    Ok(())
}
