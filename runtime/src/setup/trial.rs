// SPDX-License-Identifier: Apache-2.0
//! Whether the engine takes what setup wrote: its own reading of the file, and a container of Corten's. The container needs no
//! image: its root file system is this program. Must never restart, reload or configure an engine.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

use super::{SetupEngine, SetupHost};
use crate::error::{Context, Error, Kind, Result};
use crate::features::VERSION;

/// For one command of an engine's.
const PATIENCE: Duration = Duration::from_secs(60);
/// What of its words is read.
const WORDS: usize = 16 * 1024;
/// The name of all that is made: container, image, and containerd's namespace.
const NAME: &str = "corten-setup-check";

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trial {
    /// A container ran.
    Runs,
    /// None was tried, for a reason.
    NotTried(String),
    /// What the engine said.
    Fails(String),
}

/// Whether a command succeeded, and what it said on stdout and stderr.
struct EngineAnswer {
    success: bool,
    words: String,
}

impl EngineAnswer {
    /// The last thing said.
    fn last(&self) -> String {
        self.words.trim().lines().next_back().unwrap_or("it said nothing").to_owned()
    }
}

/// Runs a command for [`PATIENCE`] at most; after that it is killed with all that it has started.
fn ask(program: &str, words: &[&str]) -> Result<EngineAnswer> {
    let (reader, writer) = std::io::pipe().call(|| "pipe2")?;
    let copy = writer.try_clone().call(|| "fcntl(F_DUPFD)")?;
    let mut command = Command::new(program);
    command.args(words).current_dir("/").process_group(0).stdin(Stdio::null()).stdout(writer).stderr(copy);
    let mut child = command.spawn().call(|| format!("execve({program})"))?;
    // It holds the other ends of the pipe.
    drop(command);
    let (end, mut said, mut reader) = (Instant::now() + PATIENCE, Vec::new(), reader);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let limit = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        if !poll(&mut [PollFd::new(&reader, PollFlags::IN)], Some(&limit)).is_ok_and(|count| count > 0) {
            break;
        }
        let mut bytes = [0; 4096];
        match reader.read(&mut bytes).call(|| "read(pipe)")? {
            0 => break,
            count if said.len() < WORDS => said.extend_from_slice(bytes.get(..count).unwrap_or_default()),
            _ => {}
        }
    }
    if Instant::now() >= end {
        // Not waited for yet, so the number is its own still.
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
        said.extend_from_slice(format!("\nno end within {PATIENCE:?}").as_bytes());
    }
    let status = child.wait().call(|| format!("wait4({program})"))?;
    Ok(EngineAnswer { success: status.success(), words: String::from_utf8_lossy(&said).into_owned() })
}

/// Has the engine read the new file, where it is here and can. podman has no command for that.
///
/// # Errors
/// What it said.
pub(super) fn judge(engine: SetupEngine, host: &SetupHost, file: &Path) -> Result<()> {
    let path = file.display().to_string();
    let (program, words) = match engine {
        SetupEngine::Containerd if host.has_containerd => {
            ("containerd", vec!["--config", &path, "config", "dump"])
        }
        SetupEngine::Docker if host.docker >= Some((23, 0)) => {
            ("dockerd", vec!["--validate", "--config-file", &path])
        }
        _ => return Ok(()),
    };
    let answer = ask(program, &words)?;
    match answer.success {
        true => Ok(()),
        false => {
            Err(Error::new(Kind::Invalid, answer.last())
                .at(format!("{program} cannot read what it would be")))
        }
    }
}

/// A directory with this program in it; gone when dropped.
struct TrialRoot(PathBuf);

impl TrialRoot {
    fn new(host: &SetupHost) -> Result<TrialRoot> {
        // Where programs can be executed, unlike some /run and /tmp.
        let path = PathBuf::from(format!("/var/tmp/{NAME}-{}", std::process::id()));
        let dir = |path: &Path| {
            fs::DirBuilder::new().mode(0o755).create(path).call(|| format!("mkdir({})", path.display()))
        };
        dir(&path)?;
        let root = TrialRoot(path);
        dir(&root.rootfs())?;
        let program = root.rootfs().join("corten");
        fs::copy(&host.corten, &program)
            .call(|| format!("copy({} -> {})", host.corten, program.display()))?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
            .call(|| format!("chmod({})", program.display()))?;
        Ok(root)
    }

    fn rootfs(&self) -> PathBuf {
        self.0.join("rootfs")
    }

    /// The same as an archive of one file: POSIX.1-1988's header (ustar), the content, two blocks of nothing.
    fn archive(&self) -> Result<PathBuf> {
        let content = fs::read(self.rootfs().join("corten")).call(|| "read(corten)")?;
        let mut header = [0_u8; 512];
        let size = format!("{:011o}", content.len());
        let fields: [(usize, &[u8]); 8] = [
            (0, b"corten"),
            (100, b"0000755"),
            (108, b"0000000"),
            (116, b"0000000"),
            (124, size.as_bytes()),
            (136, b"00000000000"),
            (148, b"        "),
            (156, b"0"),
        ];
        for (at, text) in fields.into_iter().chain([(257, &b"ustar\x0000"[..])]) {
            header.iter_mut().skip(at).zip(text).for_each(|(to, byte)| *to = *byte);
        }
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()).for_each(|(to, byte)| *to = byte);
        let path = self.0.join("image.tar");
        let padding = vec![0; content.len().next_multiple_of(512) - content.len() + 1024];
        let mut file = fs::File::create_new(&path).call(|| format!("open({})", path.display()))?;
        for part in [&header[..], &content, &padding] {
            file.write_all(part).call(|| format!("write({})", path.display()))?;
        }
        Ok(path)
    }
}

impl Drop for TrialRoot {
    fn drop(&mut self) {
        // Of our own making, and in nobody's way.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a container by what the engine has been told.
///
/// # Errors
/// What hinders the trial itself.
pub(super) fn run(engine: SetupEngine, host: &SetupHost) -> Result<Trial> {
    match engine {
        SetupEngine::Containerd => containerd(host),
        SetupEngine::Docker => docker(host),
        SetupEngine::Podman => podman(host),
    }
}

fn not_tried(why: impl Into<String>) -> Result<Trial> {
    Ok(Trial::NotTried(why.into()))
}

fn judged(answer: &EngineAnswer) -> Trial {
    match answer.success && answer.words.contains(&format!("corten version {VERSION}")) {
        true => Trial::Runs,
        false => Trial::Fails(answer.last()),
    }
}

fn containerd(host: &SetupHost) -> Result<Trial> {
    if host.euid != 0 {
        return not_tried("a user's containerd is in a namespace of its own");
    }
    if !host.has("ctr") {
        return not_tried("there is no ctr in PATH");
    }
    let version = ask("ctr", &["--connect-timeout", "5s", "version"])?;
    if !version.success {
        return not_tried(format!("containerd does not answer: {}", version.last()));
    }
    let root = TrialRoot::new(host)?;
    let rootfs = root.rootfs().display().to_string();
    let runtime = ["run", "--rm", "--runtime", crate::doctor::containerd::TYPE, "--rootfs", &rootfs, NAME];
    let answer = ask("ctr", &[&["--namespace", NAME][..], &runtime, &["/corten", "--version"]].concat())?;
    let trial = judged(&answer);
    // A namespace is made by its first use and has a group, on v1 one in each hierarchy, which nobody else takes away.
    ask("ctr", &["namespaces", "remove", NAME])?;
    let all =
        fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path().join(NAME));
    for group in all.chain([Path::new("/sys/fs/cgroup").join(NAME)]) {
        // What is not there, or not empty, is not ours to remove.
        let _ = fs::remove_dir(group);
    }
    Ok(trial)
}

fn docker(host: &SetupHost) -> Result<Trial> {
    if !host.has("docker") {
        return not_tried("there is no docker in PATH");
    }
    let known = ask("docker", &["info", "--format", "{{json .Runtimes}}"])?;
    if !known.success {
        return not_tried(format!("dockerd does not answer: {}", known.last()));
    }
    if !known.words.contains("\"corten\"") {
        return not_tried("dockerd has not read the file yet; after that the same command checks it");
    }
    let root = TrialRoot::new(host)?;
    let archive = root.archive()?.display().to_string();
    let image = ask("docker", &["import", &archive, NAME])?;
    if !image.success {
        return not_tried(format!("docker import: {}", image.last()));
    }
    let words = ["run", "--rm", "--runtime", "corten", "--network", "none", NAME, "/corten", "--version"];
    let trial = judged(&ask("docker", &words)?);
    ask("docker", &["rmi", NAME])?;
    Ok(trial)
}

fn podman(host: &SetupHost) -> Result<Trial> {
    if !host.has("podman") {
        return not_tried("there is no podman in PATH");
    }
    let root = TrialRoot::new(host)?;
    let rootfs = root.rootfs().display().to_string();
    let words = [
        "--runtime",
        "corten",
        "run",
        "--rm",
        "--network",
        "none",
        "--rootfs",
        &rootfs,
        "/corten",
        "--version",
    ];
    Ok(judged(&ask("podman", &words)?))
}
