// SPDX-License-Identifier: Apache-2.0
//! The runtime behind a container: the one inside, called as a library, or another one, executed.
//!
//! Everything here may take its time and runs on a verb's thread.

#![forbid(unsafe_code)]

mod binary;
mod paper;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use corten::ask::{Checkpoint, Create, CriuSettings, Exec, Hold, Home, Manager, Restore, Stdio, Update};
use corten::cgroup::{Group, OomWatch};
use corten::container::Container;
use corten::error::Kind;
use corten::host::Launched;
use corten::plan::namespaces::NsKind;
use corten::{spec, verbs};
use serde::Deserialize;

use self::binary::Binary;
pub use self::binary::{go_on_in, keep_working_directory, kept_working_directory};
use crate::handover::state::DriverState;
use crate::options::Options;
use crate::reaper::Reaper;
use crate::refusal::{Refusal, Result};
use crate::threads::StateRoot;

/// A runtime.
#[derive(Debug, Clone)]
pub enum Driver {
    /// The library.
    Inside(StateRoot),
    /// A program with an OCI runtime's command line.
    Outside(Binary),
}

/// What `create` is asked.
pub struct Wish {
    /// The container.
    pub id: String,
    pub bundle: PathBuf,
    /// Its descriptors.
    pub stdio: Stdio,
    pub options: Options,
    /// Who hears of its end.
    pub reaper: Reaper,
}

/// What is asked of a checkpoint.
#[derive(Debug, Default)]
pub struct CheckpointWish {
    /// The container ends.
    pub exit: bool,
    /// What CRIU is told.
    pub criu: CriuSettings,
}

/// What an exec is to run. Another runtime gets the very text, with all that we do not know.
pub struct ExecProcess {
    process: spec::Process,
    json: Vec<u8>,
}

impl ExecProcess {
    /// Reads `json`, a process of config.json. Whether it has a terminal is `terminal`'s to say, whatever stands there, as with
    /// containerd's own shim.
    ///
    /// # Errors
    /// InvalidArgument naming the field.
    pub fn read(mut json: Vec<u8>, terminal: bool) -> Result<ExecProcess> {
        let mut process: spec::Process = spec::read("process", &json)?;
        if process.terminal != terminal {
            process.terminal = terminal;
            let mut text: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&json)
                .map_err(|error| Refusal::invalid(format!("process: {error}")))?;
            // Go's reader, which the other runtime may have, knows the field however it is written.
            text.retain(|key, _| !key.eq_ignore_ascii_case("terminal"));
            text.insert("terminal".to_owned(), terminal.into());
            json = serde_json::Value::from(text).to_string().into_bytes();
        }
        Ok(ExecProcess { process, json })
    }

    /// What it was read from.
    pub fn json(&self) -> &[u8] {
        &self.json
    }
}

/// What came of it.
pub struct LaunchedProcess {
    /// Init's pid.
    pub pid: i32,
    /// Its pidfd; a child of ours, and claimed.
    pub pidfd: OwnedFd,
    /// Its terminal's outer end.
    pub console: Option<OwnedFd>,
    /// Its control groups.
    pub group: Option<Group>,
    /// Tells of kills for want of memory; it stands before init's first instruction.
    pub oom: Option<OomWatch>,
}

/// What of config.json decides who is in charge. Everything else is the runtime's to read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Peek {
    linux: Linux,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Linux {
    namespaces: Vec<Namespace>,
    cgroups_path: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Namespace {
    #[serde(rename = "type")]
    kind: String,
    path: String,
}

impl Peek {
    /// A configuration that does not read is the runtime's to complain about.
    pub fn read(bundle: &Path) -> Peek {
        let bytes = std::fs::read(bundle.join("config.json")).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Whether init's end is the end of everything in the container.
    pub fn own_pids(&self) -> bool {
        self.linux.namespaces.iter().any(|ns| ns.kind == "pid" && ns.path.is_empty())
    }

    /// `slice:prefix:name` is systemd's form, and nobody but the option of runc's message would say so.
    pub fn systemd(&self, options: &Options) -> bool {
        let path = &self.linux.cgroups_path;
        options.systemd_cgroup || (!path.starts_with('/') && path.split(':').count() == 3)
    }
}

impl Driver {
    /// The one that `options` ask for, for the container of `bundle`.
    pub fn new(options: &Options, namespace: &str, systemd: bool, bundle: &Path) -> Driver {
        Driver::at(options.binary(), options.root(namespace), systemd, bundle, options.traces())
    }

    fn at(
        program: Option<&Path>,
        root: PathBuf,
        systemd: bool,
        bundle: &Path,
        traces: Option<&Path>,
    ) -> Driver {
        match program {
            Some(program) => Driver::Outside(Binary::new(program, root, systemd, bundle)),
            None => {
                let manager = if systemd { Manager::Systemd } else { Manager::Cgroupfs };
                Driver::Inside(StateRoot { root, manager, traces: traces.map(Path::to_owned) })
            }
        }
    }

    /// As it is handed over.
    pub fn pass(&self) -> DriverState {
        match self {
            Driver::Inside(StateRoot { root, manager, traces }) => DriverState {
                program: None,
                root: root.clone(),
                systemd: *manager == Manager::Systemd,
                traces: traces.clone(),
            },
            Driver::Outside(binary) => binary.pass(),
        }
    }

    /// Goes on with one, for the container of `bundle`.
    pub fn resumed(state: &DriverState, bundle: &Path) -> Driver {
        let traces = state.traces.as_deref();
        Driver::at(state.program.as_deref(), state.root.clone(), state.systemd, bundle, traces)
    }

    /// `create`.
    ///
    /// # Errors
    /// In runc's words, under a code that containerd hands on as it is.
    pub fn create(&self, wish: Wish) -> Result<LaunchedProcess> {
        let place = match self {
            Driver::Inside(place) => place,
            Driver::Outside(binary) => return binary.create(wish),
        };
        let ask = Create {
            id: wish.id.clone(),
            bundle: wish.bundle,
            stdio: wish.stdio,
            no_pivot: wish.options.no_pivot_root,
            no_new_keyring: wish.options.no_new_keyring,
            ..Create::default()
        };
        place.with(|home| {
            let launched = wish
                .reaper
                .launched(|| place.traced(home, "create", &wish.id, |home| verbs::create(home, ask)));
            let launched = launched.map_err(|error| failed("create", &error))?;
            Ok(watched(home, &wish.id, launched))
        })
    }

    /// Makes the namespaces of a pod, and the process that holds them: `kill` and `delete` know it as a container.
    ///
    /// # Errors
    /// As `create`. There is no other runtime that could.
    pub fn hold(&self, id: &str, bundle: &Path, config: Vec<u8>, reaper: &Reaper) -> Result<LaunchedProcess> {
        let Driver::Inside(StateRoot { root, .. }) = self else {
            return Err(Refusal::unimplemented("another runtime cannot hold namespaces"));
        };
        let ask = Hold { id: id.to_owned(), bundle: bundle.to_owned(), config };
        // It stays in the server's groups: it is part of what that costs.
        let place = StateRoot { root: root.clone(), manager: Manager::Disabled, traces: None };
        place.with(|home| {
            let launched = reaper.launched(|| verbs::hold(home, ask));
            let Launched { pid, pidfd, console, .. } = launched.map_err(|error| failed("hold", &error))?;
            Ok(LaunchedProcess { pid, pidfd, console, group: None, oom: None })
        })
    }

    /// `checkpoint`. The container is not deleted: its end is told, as any other's.
    ///
    /// # Errors
    /// As `create`.
    pub fn checkpoint(&self, id: &str, wanted: CheckpointWish) -> Result<()> {
        match self {
            Driver::Inside(place) => {
                let ask =
                    Checkpoint { criu: wanted.criu, leave_running: !wanted.exit, ..Checkpoint::default() };
                place
                    .with(|home| verbs::checkpoint(home, id, &ask))
                    .map_err(|error| failed("checkpoint", &error))
            }
            Driver::Outside(binary) => binary.checkpoint(id, &wanted),
        }
    }

    /// `restore` from these images.
    ///
    /// # Errors
    /// As `create`.
    pub fn restore(&self, wish: Wish, images: PathBuf, work: PathBuf) -> Result<LaunchedProcess> {
        let place = match self {
            Driver::Inside(place) => place,
            Driver::Outside(binary) => return binary.restore(wish, &images, &work),
        };
        let ask = Create { id: wish.id.clone(), bundle: wish.bundle, stdio: wish.stdio, ..Create::default() };
        let criu = CriuSettings {
            image_path: images,
            work_path: Some(work),
            empty_namespaces: NsKind::Network.flag() as u32,
            ..CriuSettings::default()
        };
        let how = Restore { criu, ..Restore::default() };
        place.with(|home| {
            let launched = wish.reaper.launched(|| verbs::restore(home, ask, &how));
            let launched = launched.map_err(|error| failed("restore", &error))?;
            Ok(watched(home, &wish.id, launched))
        })
    }

    /// `start`.
    ///
    /// # Errors
    /// As `create`.
    pub fn start(&self, id: &str) -> Result<()> {
        match self {
            Driver::Inside(place) => {
                let start = |home: &Home<'_>| place.traced(home, "start", id, |home| verbs::start(home, id));
                place.with(start).map_err(|error| failed("start", &error))
            }
            Driver::Outside(binary) => binary.plain("start", &[id]),
        }
    }

    /// `exec`.
    ///
    /// # Errors
    /// As `create`.
    pub fn exec(
        &self,
        id: &str,
        wanted: ExecProcess,
        stdio: Stdio,
        reaper: &Reaper,
    ) -> Result<LaunchedProcess> {
        let place = match self {
            Driver::Inside(place) => place,
            Driver::Outside(binary) => return binary.exec(id, &wanted.json, stdio, reaper),
        };
        let object = Some(wanted.process);
        let ask = Exec { id: id.to_owned(), object, stdio, detach: true, ..Exec::default() };
        place.with(|home| {
            let launched = reaper.launched(|| place.traced(home, "exec", id, |home| verbs::exec(home, ask)));
            let Launched { pid, pidfd, console, .. } =
                launched.map_err(|error| failed("exec", &error.at("exec failed")))?;
            Ok(LaunchedProcess { pid, pidfd, console, group: None, oom: None })
        })
    }

    /// `kill`.
    ///
    /// # Errors
    /// NotFound for a container that does not run.
    pub fn kill(&self, id: &str, signal: i32, all: bool) -> Result<()> {
        let result = match self {
            Driver::Inside(place) => place.with(|home| verbs::kill(home, id, signal, all)).map_err(|error| {
                let gone = matches!(error.kind(), Kind::Status | Kind::NotFound);
                if gone { Refusal::not_found(error.to_string()) } else { error.into() }
            }),
            Driver::Outside(binary) => {
                let number = signal.to_string();
                let arguments = ["--all", id, &number];
                binary.plain("kill", if all { &arguments } else { &arguments[1..] })
            }
        };
        result.map_err(|refusal| match refusal.text.contains("not running") {
            true => Refusal::not_found("os: process already finished: not found"),
            false => refusal,
        })
    }

    /// `delete --force`: also of what is half made or gone already.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn delete(&self, id: &str) -> Result<()> {
        match self {
            Driver::Inside(place) => Ok(place.with(|home| verbs::delete(home, id, true))?),
            Driver::Outside(binary) => binary.plain("delete", &["--force", id]),
        }
    }

    /// `update` with the resources as JSON.
    ///
    /// # Errors
    /// InvalidArgument for a value that is wrong, FailedPrecondition for a container that does not run.
    pub fn update(&self, id: &str, resources: &[u8]) -> Result<()> {
        match self {
            Driver::Inside(place) => {
                let ask = Update { resources: spec::read("resources", resources)?, ..Update::default() };
                Ok(place.with(|home| verbs::update(home, id, &ask))?)
            }
            Driver::Outside(binary) => binary.update(id, resources),
        }
    }

    /// `pause` or `resume`.
    ///
    /// # Errors
    /// FailedPrecondition in the wrong state.
    pub fn freeze(&self, id: &str, on: bool) -> Result<()> {
        match (self, on) {
            (Driver::Inside(place), true) => Ok(place.with(|home| verbs::pause(home, id))?),
            (Driver::Inside(place), false) => Ok(place.with(|home| verbs::resume(home, id))?),
            (Driver::Outside(binary), true) => binary.plain("pause", &[id]),
            (Driver::Outside(binary), false) => binary.plain("resume", &[id]),
        }
    }
}

/// A container's first process, with what is watched of it.
fn watched(home: &Home<'_>, id: &str, launched: Launched) -> LaunchedProcess {
    let Launched { pid, pidfd, console, .. } = launched;
    let group = Container::open(home, id).ok().map(Container::into_group);
    LaunchedProcess { pid, pidfd, console, group: None, oom: None }.in_group(group)
}

impl LaunchedProcess {
    /// With the container's groups, and whoever tells of kills in them.
    fn in_group(self, group: Option<Group>) -> LaunchedProcess {
        let oom = group.as_ref().and_then(|group| group.oom_watch().ok());
        LaunchedProcess { group, oom, ..self }
    }
}

/// `OCI runtime create failed: …`: what Docker and the tests of containerd look for.
fn failed(verb: &str, error: &corten::Error) -> Refusal {
    Refusal::unknown(format!("OCI runtime {verb} failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peek(json: &str) -> Peek {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn both_forms_of_an_exec_say_the_same_of_its_terminal() {
        let text = br#"{"args":["a"],"terminal":true,"cwd":"/","later":{"x":1}}"#;
        let same = ExecProcess::read(text.to_vec(), true).unwrap();
        assert_eq!(same.json, text);
        let other = ExecProcess::read(text.to_vec(), false).unwrap();
        assert!(!other.process.terminal);
        let json: serde_json::Value = serde_json::from_slice(&other.json).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"args": ["a"], "cwd": "/", "later": {"x": 1}, "terminal": false})
        );
        assert!(ExecProcess::read(b"[]".to_vec(), false).is_err());
    }

    #[test]
    fn who_is_in_charge_is_read_from_the_configuration() {
        let own = peek(r#"{"linux":{"namespaces":[{"type":"pid"}],"cgroupsPath":"/a"},"x":[1]}"#);
        assert!(own.own_pids() && !own.systemd(&Options::default()));
        let joined =
            peek(r#"{"linux":{"namespaces":[{"type":"pid","path":"/p"}],"cgroupsPath":"a.slice:b:c"}}"#);
        assert!(!joined.own_pids() && joined.systemd(&Options::default()));
        assert!(!peek("{}").own_pids());
        assert!(peek("{}").systemd(&Options { systemd_cgroup: true, ..Default::default() }));
    }
}
