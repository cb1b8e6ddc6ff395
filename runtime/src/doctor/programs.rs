// SPDX-License-Identifier: Apache-2.0
//! Our own programs in PATH, CRIU and the engines: which there are, and of which version. Each is asked for that and for nothing
//! else, all at once, and none for longer than the caller waits: [`PATIENCE`] for `doctor`.

#![forbid(unsafe_code)]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

use super::{HostCheck, Signs};
use crate::features::{COMMIT, VERSION};

/// For all answers together: `doctor` is done in a second.
pub(super) const PATIENCE: Duration = Duration::from_millis(600);
/// How much of an answer is read.
const SAID: usize = 4096;
/// The name of the shim's program, by which containerd looks for it.
pub(crate) const SHIM: &str = "containerd-shim-corten-v2";

/// What came of asking for a version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum VersionAnswer {
    /// The first lines.
    Said(String),
    /// Nothing in time: on a machine that is busy, that means nothing.
    Late,
    /// It has ended, or could not be begun, without a word.
    #[default]
    Nothing,
}

/// A program and what it says of its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundProgram {
    pub(crate) path: PathBuf,
    pub(crate) answer: VersionAnswer,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct ProgramSigns {
    /// Each `corten` of PATH, the first one first.
    pub(crate) corten: Vec<FoundProgram>,
    /// Each shim of PATH and beside containerd.
    pub(crate) shim: Vec<FoundProgram>,
    /// The first criu.
    pub(crate) criu: Option<FoundProgram>,
    /// containerd's, Docker's, podman's and CRI-O's daemon or command.
    pub(crate) containerd: Option<FoundProgram>,
    pub(crate) dockerd: Option<FoundProgram>,
    pub(crate) podman: Option<FoundProgram>,
    pub(crate) crio: Option<FoundProgram>,
}

impl FoundProgram {
    /// The first version in what it says: `v2.1.9` or `28.5.1`, as far as its numbers go.
    pub(crate) fn version(&self) -> Option<(u32, u32)> {
        let words = self.said().split(|c: char| c.is_whitespace() || c == ',');
        let mut found = words.filter_map(|word| {
            let mut numbers = word.trim_start_matches('v').split(|c: char| !c.is_ascii_digit());
            Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
        });
        found.next()
    }

    fn said(&self) -> &str {
        match &self.answer {
            VersionAnswer::Said(said) => said,
            _ => "",
        }
    }

    fn first_line(&self) -> &str {
        self.said().lines().next().unwrap_or("no answer")
    }

    /// What is told of one that did not answer: nothing is known of it, or something is wrong with it.
    fn without_answer(&self, id: &'static str) -> Option<HostCheck> {
        let path = self.path.display();
        match self.answer {
            VersionAnswer::Said(_) => None,
            VersionAnswer::Late => {
                Some(HostCheck::unknown(id, format!("{path} did not tell its version within {PATIENCE:?}")))
            }
            VersionAnswer::Nothing => {
                let found = format!("{path} does not tell its version");
                Some(HostCheck::warn(id, found, "see why it fails when it is asked for its version"))
            }
        }
    }
}

pub(crate) fn look(patience: Duration) -> ProgramSigns {
    let path = std::env::var("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect();
    let first = |name: &str| found(&dirs, name).into_iter().next();
    let containerd = first("containerd");
    let mut shims = found(&dirs, SHIM);
    let beside = containerd.as_ref().and_then(|path| path.parent()).map(|dir| dir.join(SHIM));
    shims.extend(beside.filter(|path| is_program(path) && !has_same(&shims, path)));
    std::thread::scope(|scope| {
        let ask = |path: PathBuf, word: &'static str| {
            let asked = path.clone();
            (path, scope.spawn(move || answer(&asked, word, patience)))
        };
        let told = |(path, thread): (PathBuf, std::thread::ScopedJoinHandle<'_, VersionAnswer>)| {
            FoundProgram { path, answer: thread.join().unwrap_or_default() }
        };
        let corten: Vec<_> = found(&dirs, "corten").into_iter().map(|path| ask(path, "--version")).collect();
        let shims: Vec<_> = shims.into_iter().map(|path| ask(path, "-v")).collect();
        let others = [first("criu"), containerd, first("dockerd"), first("podman"), first("crio")];
        let [criu, containerd, dockerd, podman, crio] =
            others.map(|path| path.map(|path| ask(path, "--version")));
        ProgramSigns {
            corten: corten.into_iter().map(told).collect(),
            shim: shims.into_iter().map(told).collect(),
            criu: criu.map(told),
            containerd: containerd.map(told),
            dockerd: dockerd.map(told),
            podman: podman.map(told),
            crio: crio.map(told),
        }
    })
}

/// Each program of that name, once.
fn found(dirs: &[PathBuf], name: &str) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = Vec::new();
    for path in dirs.iter().map(|dir| dir.join(name)).filter(|path| is_program(path)) {
        if !has_same(&all, &path) {
            all.push(path);
        }
    }
    all
}

fn has_same(all: &[PathBuf], path: &Path) -> bool {
    all.iter().any(|one| one.canonicalize().ok() == path.canonicalize().ok())
}

pub(crate) fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// What it answers in time, as far as that comes in one piece. What has not ended by then is killed, with all that it has started.
fn answer(program: &Path, word: &str, patience: Duration) -> VersionAnswer {
    let mut command = Command::new(program);
    command.arg(word).current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return VersionAnswer::Nothing };
    let answer = child.stdout.take().map(|stdout| {
        let limit =
            Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: i64::from(patience.subsec_nanos()) };
        if !poll(&mut [PollFd::new(&stdout, PollFlags::IN)], Some(&limit)).is_ok_and(|count| count > 0) {
            return VersionAnswer::Late;
        }
        let mut bytes = [0; SAID];
        let count = rustix::io::read(&stdout, &mut bytes).unwrap_or(0);
        match String::from_utf8_lossy(bytes.get(..count).unwrap_or_default()).trim() {
            "" => VersionAnswer::Nothing,
            said => VersionAnswer::Said(said.to_owned()),
        }
    });
    // Not waited for yet, so the number is its own still.
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let _ = child.wait();
    answer.unwrap_or_default()
}

pub(crate) fn examine(signs: &Signs) -> Vec<HostCheck> {
    let programs = &signs.programs;
    let mut all = vec![corten(&programs.corten), shim(&programs.shim), criu(programs.criu.as_ref())];
    let engines = [&programs.containerd, &programs.dockerd, &programs.podman, &programs.crio];
    all.extend(engines.into_iter().flatten().map(|engine| {
        let name = engine.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let id = "programs.engine";
        let check = engine.without_answer(id).unwrap_or_else(|| HostCheck::ok(id, engine.first_line()));
        check.of(name)
    }));
    all
}

/// What it is to say: this program's version and commit.
fn is_ours(program: &FoundProgram) -> bool {
    let said = program.said();
    said.contains(VERSION) && (COMMIT == "unknown" || said.contains(COMMIT))
}

fn corten(all: &[FoundProgram]) -> HostCheck {
    let id = "programs.corten";
    let advice = "remove the others, or name this one by its path in the engine's configuration";
    if let [one] = all
        && let Some(check) = one.without_answer(id)
    {
        return check;
    }
    match all {
        [] => HostCheck::note(
            id,
            format!("this is {VERSION}; none is in PATH"),
            "make install, or name it by its path",
        ),
        [one] if is_ours(one) => HostCheck::ok(id, format!("{VERSION} ({COMMIT}) at {}", one.path.display())),
        [one] => {
            let found = format!(
                "this is {VERSION} ({COMMIT}), in PATH is {} ({})",
                one.path.display(),
                one.first_line()
            );
            HostCheck::warn(id, found, "install this one over it, or name it by its path")
        }
        several => {
            let paths =
                several.iter().map(|one| one.path.display().to_string()).collect::<Vec<_>>().join(", ");
            HostCheck::warn(id, format!("several in PATH: {paths}"), advice)
        }
    }
}

fn shim(all: &[FoundProgram]) -> HostCheck {
    let id = "programs.shim";
    let Some(first) = all.first() else {
        return HostCheck::note(
            id,
            format!("no {SHIM} in PATH or beside containerd"),
            "install it there for containerd, Kubernetes and Docker",
        );
    };
    if let Some(check) = first.without_answer(id) {
        return check;
    }
    let path = first.path.display();
    match is_ours(first) {
        true => HostCheck::ok(id, format!("{VERSION} at {path}")),
        false => HostCheck::warn(
            id,
            format!("{path} is not of this version ({})", first.first_line()),
            "install both programs of one version",
        ),
    }
}

fn criu(program: Option<&FoundProgram>) -> HostCheck {
    let id = "programs.criu";
    let Some(program) = program else {
        return HostCheck::note(
            id,
            "no criu in PATH",
            "install CRIU 3.17 or newer (Debian: apt-get install criu)",
        );
    };
    if let Some(check) = program.without_answer(id) {
        return check;
    }
    let path = program.path.display();
    match program.version() {
        Some(version) if version >= (3, 17) => {
            HostCheck::ok(id, format!("{}.{} at {path}", version.0, version.1))
        }
        Some(version) => HostCheck::warn(
            id,
            format!("{}.{} at {path} is too old", version.0, version.1),
            "install CRIU 3.17 or newer",
        ),
        None => {
            HostCheck::warn(id, format!("{path} does not tell its version"), "see what criu --version says")
        }
    }
}
