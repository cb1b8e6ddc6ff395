// SPDX-License-Identifier: Apache-2.0
//! What is disturbed: a verb of the runtime on a container of some kind, in the state that it needs.

#![forbid(unsafe_code)]

use std::any::Any;
use std::fs;
use std::process::Command;

use serde_json::json;

use crate::cases::systemd::{MEMORY, runtime};
use crate::harness::bundle::Bundle;
use crate::harness::case::{Trouble, Verdict};
use crate::harness::console::Receiver;
use crate::harness::done::Done;
use crate::harness::host::Need;
use crate::harness::test::Test;
use crate::harness::user::User;

/// Of what kind a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// runc's default configuration.
    Plain,
    /// A user namespace, a filter, hooks of every kind, limits, binds, sysctls, devices of its own.
    Rich,
    /// With a terminal, whose master goes to a console socket.
    Terminal,
    /// Of a user without privileges.
    Rootless,
    /// In a unit of systemd's.
    Systemd,
    /// Its program is missing: it fails late, and what was made is undone.
    Refused,
    /// A hook of its fails, when nearly everything is there.
    BadHook,
}

/// How far it is when the verb comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    Nothing,
    Created,
    Running,
    Paused,
    Stopped,
}

/// A verb on a container of some kind.
#[derive(Debug, Clone, Copy)]
pub struct Scene {
    pub verb: &'static str,
    pub sort: Sort,
    pub before: Before,
    /// What stands between the verb and the id, and after that.
    options: &'static str,
    after: &'static str,
}

const fn scene(verb: &'static str, sort: Sort, before: Before) -> Scene {
    Scene { verb, sort, before, options: "", after: "" }
}

/// All of them.
pub const SCENES: [Scene; 24] = [
    scene("create", Sort::Plain, Before::Nothing),
    scene("create", Sort::Rich, Before::Nothing),
    scene("create", Sort::Terminal, Before::Nothing),
    scene("create", Sort::Rootless, Before::Nothing),
    scene("create", Sort::Systemd, Before::Nothing),
    scene("create", Sort::Refused, Before::Nothing),
    scene("create", Sort::BadHook, Before::Nothing),
    scene("run", Sort::Plain, Before::Nothing),
    scene("run", Sort::Rich, Before::Nothing),
    scene("start", Sort::Plain, Before::Created),
    scene("start", Sort::Rich, Before::Created),
    scene("start", Sort::Rootless, Before::Created),
    Scene { after: "/probe exit 0", ..scene("exec", Sort::Plain, Before::Running) },
    Scene { after: "/probe exit 0", ..scene("exec", Sort::Rich, Before::Running) },
    Scene { after: "/probe exit 0", ..scene("exec", Sort::Rootless, Before::Running) },
    Scene { after: "/probe exit 0", ..scene("exec", Sort::Systemd, Before::Running) },
    Scene { after: "KILL", ..scene("kill", Sort::Plain, Before::Running) },
    scene("pause", Sort::Plain, Before::Running),
    scene("resume", Sort::Plain, Before::Paused),
    Scene { options: "--pids-limit 77 --cpu-share 512", ..scene("update", Sort::Plain, Before::Running) },
    scene("delete", Sort::Plain, Before::Stopped),
    scene("delete", Sort::Rich, Before::Stopped),
    Scene { options: "--force", ..scene("delete", Sort::Rich, Before::Running) },
    Scene { options: "--force", ..scene("delete", Sort::Systemd, Before::Running) },
];

/// What a scene is played on.
pub struct Ground<'t> {
    pub t: &'t Test,
    pub scene: Scene,
    pub bundle: Bundle,
    user: Option<User<'t>>,
}

/// The command to disturb, and what must live as long as it.
pub type Ready = (Command, Option<Box<dyn Any>>);

impl Scene {
    pub fn name(&self) -> String {
        let force = if self.options == "--force" { "-force" } else { "" };
        format!("{}{force}-{:?}", self.verb, self.sort).to_lowercase()
    }

    /// Whether this verb takes a bundle.
    pub fn launches(verb: &str) -> bool {
        matches!(verb, "create" | "run")
    }

    pub fn needs(&self) -> Vec<Need> {
        match (self.sort, self.verb) {
            (Sort::Systemd, _) => MEMORY.to_vec(),
            (_, "update") => vec![Need::Controller("pids"), Need::Controller("cpu")],
            _ => Vec::new(),
        }
    }

    /// It fails without any fault of ours.
    pub fn fails_anyway(&self) -> bool {
        matches!(self.sort, Sort::Refused | Sort::BadHook)
    }

    pub fn ground<'t>(&self, t: &'t Test) -> Result<Ground<'t>, Trouble> {
        let user = if self.sort == Sort::Rootless { Some(User::new(t)?) } else { None };
        let bundle = match (&user, self.sort) {
            (Some(user), _) => user.bundle()?,
            (_, Sort::Rich) => rich(t)?,
            (_, Sort::Terminal) => t.bundle()?.set("/process/terminal", json!(true)),
            (_, Sort::Refused) => t.bundle()?.set("/process/args", json!(["/absent"])),
            (_, Sort::BadHook) => {
                rich(t)?.push("/hooks/createContainer", json!({"path": "/bin/false", "args": ["false"]}))
            }
            _ => t.bundle()?,
        };
        let bundle = match (self.sort, self.verb) {
            (Sort::Refused, _) => bundle,
            (_, "run") => bundle.probe("exit 0"),
            _ => bundle.probe("forever"),
        };
        let path = format!(":corten:{}", bundle.id);
        let bundle =
            if self.sort == Sort::Systemd { bundle.set("/linux/cgroupsPath", json!(path)) } else { bundle };
        Ok(Ground { t, scene: *self, bundle, user })
    }
}

/// Whatever a launch can come to do, without anything that a host may lack.
pub fn rich(t: &Test) -> Result<Bundle, Trouble> {
    fs::create_dir_all(t.path("source/below"))?;
    fs::write(t.path("source/file"), "text")?;
    let source = t.file("source");
    let mut b = t.bundle()?.user_namespace().dir("made", 0o755)?.dir("two", 0o755)?;
    b = b.mount("bind", &source, "/made", &["rbind", "ro", "nosuid"]);
    b = b.mount("tmpfs", "tmpfs", "/two", &["size=64k", "mode=700"]);
    b = b.mount("bind", &format!("{source}/file"), "/etc/passwd", &["bind"]);
    for kind in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
        b = b.push(&format!("/hooks/{kind}"), json!({"path": "/bin/true", "args": ["true"]}));
    }
    b = b.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "0", "kernel.shm_rmid_forced": "1"}));
    if t.host.controllers.contains("pids") {
        b = b.set("/linux/resources/pids", json!({"limit": 100}));
    }
    b = b.set("/process/oomScoreAdj", json!(500)).set("/domainname", json!("domain"));
    b = b.set("/process/user/additionalGids", json!([5, 6]));
    b = b.set("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]));
    let rules = json!([{"names": ["getppid"], "action": "SCMP_ACT_ERRNO"}]);
    Ok(b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})))
}

impl Ground<'_> {
    /// The container as it is to be when the verb comes.
    pub fn prepare(&self) -> Verdict {
        let before = self.scene.before;
        if before == Before::Nothing {
            return Ok(());
        }
        let (command, _held) = self.launching("create")?;
        self.t.complete(command)?.ok()?;
        let words: &[&str] = match before {
            Before::Running => &["start"],
            Before::Paused => &["start", "pause"],
            Before::Stopped => &["start", "kill"],
            Before::Nothing | Before::Created => &[],
        };
        for word in words {
            let signal = if *word == "kill" { "KILL" } else { "" };
            self.cli(&format!("{word} {} {signal}", self.bundle.id))?.ok()?;
        }
        if before == Before::Stopped { self.t.await_status(&self.bundle, "stopped") } else { Ok(()) }
    }

    /// The verb.
    pub fn command(&self) -> Result<Ready, Trouble> {
        let Scene { verb, options, after, .. } = self.scene;
        if Scene::launches(verb) {
            return self.launching(verb);
        }
        let mut command = self.runtime();
        command.arg(verb).args(options.split_whitespace()).arg(&self.bundle.id);
        command.args(after.split_whitespace());
        Ok((command, None))
    }

    /// `create` or `run`.
    fn launching(&self, verb: &str) -> Result<Ready, Trouble> {
        let mut words = vec![verb.to_owned()];
        let mut held: Option<Box<dyn Any>> = None;
        if self.scene.sort == Sort::Terminal {
            let path = self.t.path("console");
            fs::remove_file(&path).ok();
            words.push(format!("--console-socket={}", path.display()));
            held = Some(Box::new(Receiver::listen(&path)?));
        }
        if let Some(user) = &self.user {
            return Ok((user.bundle_command(&words.join(" "), &self.bundle)?, held));
        }
        self.bundle.write()?;
        let mut command = self.runtime();
        command.args(words).arg("--bundle").arg(&self.bundle.dir).arg(&self.bundle.id);
        Ok((command, held))
    }

    fn runtime(&self) -> Command {
        match (&self.user, self.scene.sort) {
            (Some(user), _) => user.runtime(),
            (None, Sort::Systemd) => runtime(self.t),
            _ => self.t.runtime(),
        }
    }

    /// Any other words, undisturbed.
    pub fn cli(&self, words: &str) -> Result<Done, Trouble> {
        let mut command = self.runtime();
        command.args(words.split_whitespace());
        self.t.complete(command)
    }
}
