// SPDX-License-Identifier: Apache-2.0
//! `setup`: an engine's configuration is told of Corten, and made to forget it.
//!
//! ```text
//! file::read ─text─> set_up or take_out ─text─> diff, file::replace ─> trial
//! ```
//! What becomes of a text is pure, and tested over many (`tests.rs`): whatever setup has written can be taken out again, and the
//! rest is byte for byte what it was; both are verified each time, by reading the text before and after as `doctor` does. What
//! cannot be told apart with certainty is refused, with what is to be said by hand. No engine is restarted.

#![forbid(unsafe_code)]

mod blocks;
mod containerd;
mod diff;
mod docker;
mod file;
mod json;
mod podman;
mod puts;
mod trial;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::geteuid;

use crate::doctor::engines::{self, podman_files};
use crate::doctor::programs::{self, FoundProgram};
use crate::doctor::toml::{self, TomlEntry};
use crate::error::{Context, Error, Kind, Result};
use file::SetupFile;
use puts::TomlPut;

pub use trial::Trial;

/// For the engines' versions, on which the lines depend: a busy machine must not make other ones of them.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whose configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetupEngine {
    /// /etc/containerd/config.toml
    Containerd,
    /// /etc/docker/daemon.json
    Docker,
    /// /etc/containers/containers.conf.d/corten.conf
    Podman,
}

/// What is asked for.
#[derive(Debug)]
pub struct SetupAsk {
    /// Of which engine.
    pub engine: SetupEngine,
    /// Corten is to be what containers have that name no runtime.
    pub default: bool,
    /// What was set up is to be taken back.
    pub undo: bool,
    /// Another file than the engine's own.
    pub config: Option<PathBuf>,
}

/// What the lines depend on.
#[derive(Debug, Clone, Default)]
struct SetupHost {
    euid: u32,
    /// Where this program is.
    corten: String,
    /// Where the shim is.
    shim: String,
    has_containerd: bool,
    /// Versions, where the engines tell them.
    containerd: Option<(u32, u32)>,
    docker: Option<(u32, u32)>,
    /// Docker takes a runtime's type, and finds the shim.
    docker_by_type: bool,
    /// The kubelet has systemd's driver.
    kubelet_systemd: bool,
    /// What podman's other files say.
    podman: Vec<TomlEntry>,
}

impl SetupHost {
    /// Whether there is a program of this name in PATH.
    fn has(&self, name: &str) -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| programs::is_program(&dir.join(name)))
    }

    fn look(path: &Path) -> Result<SetupHost> {
        let found = programs::look(PATIENCE);
        let version = |program: &Option<FoundProgram>| program.as_ref().and_then(FoundProgram::version);
        let euid = geteuid().as_raw();
        let corten = std::env::current_exe().call(|| "readlink(/proc/self/exe)")?;
        let shim = found.shim.first().map(|shim| shim.path.display().to_string()).unwrap_or_default();
        let docker = version(&found.dockerd);
        let others: Vec<_> =
            podman_files(euid).into_iter().filter(|file| Path::new(&file.path) != path).collect();
        Ok(SetupHost {
            euid,
            corten: corten.display().to_string(),
            has_containerd: found.containerd.is_some(),
            containerd: version(&found.containerd),
            docker,
            docker_by_type: euid == 0 && docker >= Some((23, 0)) && !shim.is_empty(),
            kubelet_systemd: engines::kubelet_driver().is_some_and(|driver| driver == "systemd"),
            podman: engines::entries(&others).map_err(|what| Error::new(Kind::Invalid, what))?,
            shim,
        })
    }
}

/// The keys that a TOML file is to have, and the one by which the default is told.
struct SetupPlan {
    puts: Vec<TomlPut>,
    default_key: &'static str,
}

/// What is to be done to a file.
#[derive(Debug)]
pub struct Setup {
    engine: SetupEngine,
    host: SetupHost,
    file: SetupFile,
    after: Option<String>,
    /// It is the file that the engine reads.
    engines_own: bool,
}

impl Setup {
    /// Looks at the file, and decides; nothing is changed.
    ///
    /// # Errors
    /// The file cannot be read, is not ours to change, or has something in the way.
    pub fn prepare(ask: &SetupAsk) -> Result<Setup> {
        let own = ask.engine.config()?;
        let path = ask.config.clone().unwrap_or_else(|| own.clone());
        let file = file::read(&path)?;
        let host = SetupHost::look(&file.path)?;
        let invalid = |what: String| Error::new(Kind::Invalid, what).at(file.path.display().to_string());
        let after = match ask.undo {
            true => file.text.as_deref().map_or(Ok(None), |text| take_out(ask.engine, text)),
            false => set_up(ask, &file, &host).map(Some),
        };
        let after = after.map_err(invalid)?;
        Ok(Setup { engine: ask.engine, host, file, after, engines_own: path == own })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Whether there is anything to do.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.file.text != self.after
    }

    /// As `diff -u` tells it.
    #[must_use]
    pub fn difference(&self) -> String {
        diff::unified(&self.file.path, self.file.text.as_deref(), self.after.as_deref())
    }

    /// Does it.
    ///
    /// # Errors
    /// Nothing is changed then.
    pub fn perform(&self) -> Result<()> {
        let judge = |new: &Path| trial::judge(self.engine, &self.host, new);
        self.file.replace(self.after.as_deref(), judge)
    }

    /// The command that has the engine read it; podman reads it each time.
    #[must_use]
    pub fn next(&self) -> Option<&'static str> {
        match (self.engine, self.host.euid) {
            (SetupEngine::Containerd, 0) => Some("systemctl restart containerd"),
            (SetupEngine::Docker, 0) => Some("systemctl reload docker"),
            (SetupEngine::Containerd, _) => Some("systemctl --user restart containerd"),
            (SetupEngine::Docker, _) => Some("systemctl --user restart docker"),
            (SetupEngine::Podman, _) => None,
        }
    }

    /// Runs a container by the engine, if that is here.
    ///
    /// # Errors
    /// What hinders the trial itself.
    pub fn check(&self) -> Result<Trial> {
        match self.engines_own {
            true => trial::run(self.engine, &self.host),
            false => Ok(Trial::NotTried("this is not the file that the engine reads by itself".into())),
        }
    }
}

impl SetupEngine {
    /// The file that it reads, root's or this user's.
    fn config(self) -> Result<PathBuf> {
        let base = match geteuid().is_root() {
            true => PathBuf::from("/etc"),
            false => {
                let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
                let home = || set("HOME").map(|home| home.join(".config"));
                set("XDG_CONFIG_HOME").or_else(home).ok_or_else(|| {
                    Error::new(
                        Kind::Invalid,
                        "neither XDG_CONFIG_HOME nor HOME is set: name the file by --config",
                    )
                })?
            }
        };
        Ok(base.join(match self {
            SetupEngine::Containerd => "containerd/config.toml",
            SetupEngine::Docker => "docker/daemon.json",
            SetupEngine::Podman => "containers/containers.conf.d/corten.conf",
        }))
    }
}

fn set_up(ask: &SetupAsk, file: &SetupFile, host: &SetupHost) -> Result<String, String> {
    let text = file.text.as_deref();
    let path = file.path.display().to_string();
    match ask.engine {
        SetupEngine::Containerd if host.shim.is_empty() => {
            Err(format!("{} is neither in PATH nor beside containerd: install it first", programs::SHIM))
        }
        SetupEngine::Containerd => {
            toml_set_up(text, ask.default, &|base, default| containerd::puts(base, &path, default, host))
        }
        SetupEngine::Podman => toml_set_up(text, ask.default, &|base, default| {
            let base = toml::read(base.unwrap_or_default())?;
            Ok(podman::puts(&base, &host.podman, default, host))
        }),
        SetupEngine::Docker => docker::set_up(text, ask.default, host),
    }
}

fn take_out(engine: SetupEngine, text: &str) -> Result<Option<String>, String> {
    match engine {
        SetupEngine::Docker => docker::take_out(text),
        SetupEngine::Containerd | SetupEngine::Podman => toml_take_out(text),
    }
}

/// Which keys a file is to have that says this, and has the default or not.
type PutsOf<'a> = &'a dyn Fn(Option<&str>, bool) -> Result<SetupPlan, String>;

/// What the file says afterwards; what it says, where it has all that.
fn toml_set_up(text: Option<&str>, default: bool, puts_of: PutsOf<'_>) -> Result<String, String> {
    let there = text.map_or(Ok(Vec::new()), blocks::find)?;
    let taken = text.map_or(Ok(None), blocks::take_out)?;
    if let (Some(text), Some(taken)) = (text, &taken) {
        puts::same_outside(text, taken.text.as_deref().unwrap_or_default(), &taken.restored)?;
    }
    let base = match &taken {
        Some(taken) => taken.text.as_deref(),
        None => text,
    };
    // What was made the default stays it, until all is taken back.
    let is_default = |key: &str| {
        let says = |line: &str| {
            let said = line.split('=').next().unwrap_or_default().trim();
            !said.starts_with('#') && said.rsplit('.').next() == Some(key)
        };
        there.iter().any(|block| block.body.lines().any(says))
    };
    let plan = puts_of(base, default)?;
    let plan = if !default && is_default(plan.default_key) { puts_of(base, true)? } else { plan };
    let edits = puts::edits(base, &plan.puts)?;
    let after = blocks::apply(base, &edits);
    if edits.is_empty() {
        return Ok(text.unwrap_or_default().to_owned());
    }
    let back = blocks::take_out(&after)?.ok_or("setup's lines are not found again")?;
    if back.text.as_deref() != base {
        return Err("setup's lines could not be taken out again: they are to be added by hand".into());
    }
    puts::same_outside(&after, base.unwrap_or_default(), &back.restored)?;
    // The same lines may stand elsewhere, or in one block: somebody has written on below them.
    let bodies = |blocks: &[blocks::SetupBlock]| {
        let mut all: Vec<String> =
            blocks.iter().flat_map(|block| block.body.lines()).map(str::to_owned).collect();
        all.retain(|line| !line.is_empty() && !line.starts_with("version = "));
        all.sort();
        all
    };
    match (text, bodies(&there) == bodies(&blocks::find(&after)?)) {
        (Some(text), true) => Ok(text.to_owned()),
        _ => Ok(after),
    }
}

fn toml_take_out(text: &str) -> Result<Option<String>, String> {
    let Some(taken) = blocks::take_out(text)? else { return Ok(Some(text.to_owned())) };
    let rest = taken.text.as_deref().unwrap_or_default();
    puts::same_outside(text, rest, &taken.restored)?;
    let entries = toml::read(rest)?;
    let names = |entry: &&TomlEntry| {
        entry.path.iter().any(|name| name == "runtimes") && entry.path.iter().any(|name| name == "corten")
    };
    let default = entries.iter().find(|entry| {
        let key = entry.path.last().map(String::as_str);
        matches!(key, Some("default_runtime_name" | "runtime")) && entry.value.text() == Some("corten")
    });
    match (default, entries.iter().find(names)) {
        (Some(default), None) => Err(format!(
            "line {} has corten as the default, and is not setup's: change it first",
            puts::line_number(rest, default.at.start)
        )),
        _ => Ok(taken.text),
    }
}
