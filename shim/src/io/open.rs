// SPDX-License-Identifier: Apache-2.0
//! Opening what a client wants: nothing, a FIFO, `file://`, `binary://`.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use corten::ask::Stdio;
use corten::error::{Context, RawErrno};
use rustix::fs::{FileType, Gid, Mode, OFlags, Uid, fchown, fcntl_setfl, fstat, open};
use rustix::pipe::{PipeFlags, pipe_with};

use super::logger::Logger;
use super::{Owner, Prepared, StreamPaths};
use crate::refusal::{Refusal, Result};

/// Where output goes.
pub enum Sink {
    /// A FIFO (or a pipe), whose reader may be slow or away.
    Fifo(OwnedFd),
    /// A file, which takes everything at once.
    File(Rc<OwnedFd>),
}

/// Where input comes from.
pub struct Input {
    /// The FIFO.
    pub from: OwnedFd,
    /// Our own writing end of it.
    pub keep: OwnedFd,
    /// Our end of the container's pipe; none with a terminal.
    pub to: Option<OwnedFd>,
}

/// Opens everything. What the process gets comes first.
///
/// # Errors
/// InvalidArgument for a path or URI that cannot be meant, naming the stream; nothing is left open.
pub async fn prepare(wanted: &StreamPaths, owner: &Owner) -> Result<(Stdio, Prepared)> {
    if wanted.terminal && wanted.stdout.is_empty() {
        return Err(Refusal::invalid("a terminal was asked for, and no stdout to show it on"));
    }
    let (stdin, input) = match wanted.stdin.as_str() {
        "" => (None, None),
        path => stdin(path, wanted.terminal, owner)?,
    };
    let mut prepared = Prepared { input, outputs: Vec::new(), logger: None };
    if let Some(uri) = logger_of(&wanted.stdout).or_else(|| logger_of(&wanted.stderr)) {
        let fds = with_logger(uri, wanted, owner, &mut prepared).await?;
        return Ok((stdio(stdin, fds)?, prepared));
    }
    if wanted.terminal {
        prepared.outputs.push((None, sink("stdout", &wanted.stdout)?));
        return Ok((Stdio::HandBack, prepared));
    }
    let out = output("stdout", &wanted.stdout, owner, &mut prepared)?;
    let same = wanted.stderr == wanted.stdout && wanted.stderr.starts_with("file:");
    let err = match (&out, prepared.outputs.last()) {
        // One file, appended to by both: each by its own pipe.
        (Some(_), Some((_, Sink::File(file)))) if same => {
            let file = file.clone();
            let (ours, theirs) = pipe(owner)?;
            prepared.outputs.push((Some(ours), Sink::File(file)));
            Some(theirs)
        }
        _ => output("stderr", &wanted.stderr, owner, &mut prepared)?,
    };
    Ok((stdio(stdin, Some([out, err]))?, prepared))
}

/// `None` for the outputs: a terminal.
fn stdio(stdin: Option<OwnedFd>, outputs: Option<[Option<OwnedFd>; 2]>) -> Result<Stdio> {
    let Some([out, err]) = outputs else { return Ok(Stdio::HandBack) };
    let or_null = |fd: Option<OwnedFd>| fd.map_or_else(null, Ok);
    Ok(Stdio::Fds([or_null(stdin)?, or_null(out)?, or_null(err)?]))
}

fn null() -> Result<OwnedFd> {
    Ok(open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).call(|| "open(/dev/null)")?)
}

/// A pipe that the container writes to: our end, which never waits, and its.
fn pipe(owner: &Owner) -> Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).call(|| "pipe")?;
    fcntl_setfl(&read, OFlags::NONBLOCK).call(|| "fcntl(O_NONBLOCK)")?;
    chown_pipe(&write, owner)?;
    Ok((read, write))
}

/// A container's user may reopen its own output (/dev/stdout), for which it has to own it.
fn chown_pipe(fd: &OwnedFd, owner: &Owner) -> Result<()> {
    match owner.ids {
        (0, 0) => Ok(()),
        (uid, gid) => Ok(fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .call(|| format!("fchown(pipe, {uid}, {gid})"))?),
    }
}

fn output(name: &str, path: &str, owner: &Owner, prepared: &mut Prepared) -> Result<Option<OwnedFd>> {
    if path.is_empty() {
        return Ok(None);
    }
    let sink = sink(name, path)?;
    let (ours, theirs) = pipe(owner)?;
    prepared.outputs.push((Some(ours), sink));
    Ok(Some(theirs))
}

fn sink(name: &str, path: &str) -> Result<Sink> {
    let at = |path: &Path, errno: RawErrno| {
        Refusal::invalid(format!("{name}: {}", corten::Error::os(format!("open({})", path.display()), errno)))
    };
    if let Some(rest) = path.strip_prefix("file://") {
        let path = file_path(name, rest)?;
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|error| at(parent, error.into()))?;
        }
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = open(&path, flags, Mode::from_raw_mode(0o644)).map_err(|errno| at(&path, errno.into()))?;
        return Ok(Sink::File(Rc::new(file)));
    }
    let path = plain_path(name, path)?;
    // For reading as well: the FIFO stays whole while no client has it open, and opening it does not wait for one.
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let fd = open(path, flags, Mode::empty()).map_err(|errno| at(path, errno.into()))?;
    let stat = fstat(&fd).map_err(|errno| at(path, errno.into()))?;
    if FileType::from_raw_mode(stat.st_mode).is_fifo() {
        return Ok(Sink::Fifo(fd));
    }
    // A file or a device, which some clients give: appended to, as containerd's shim does.
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NOCTTY;
    let fd = open(path, flags, Mode::empty()).map_err(|errno| at(path, errno.into()))?;
    Ok(Sink::File(Rc::new(fd)))
}

fn plain_path<'a>(name: &str, path: &'a str) -> Result<&'a Path> {
    let path = path.strip_prefix("fifo://").unwrap_or(path);
    match path.split_once("://") {
        Some((scheme, _)) => Err(Refusal::invalid(format!("{name}: unsupported scheme {scheme}://"))),
        None if path.starts_with('/') => Ok(Path::new(path)),
        None => Err(Refusal::invalid(format!("{name}: {path:?} is no absolute path"))),
    }
}

fn file_path(name: &str, rest: &str) -> Result<PathBuf> {
    let path = rest.split('?').next().unwrap_or_default();
    match path.starts_with('/') {
        true => Ok(PathBuf::from(path)),
        false => Err(Refusal::invalid(format!("{name}: file://{rest} is no absolute path"))),
    }
}

type Stdin = (Option<OwnedFd>, Option<Input>);

fn stdin(path: &str, terminal: bool, owner: &Owner) -> Result<Stdin> {
    let path = plain_path("stdin", path)?;
    let at = |errno| {
        Refusal::invalid(format!("stdin: {}", corten::Error::os(format!("open({})", path.display()), errno)))
    };
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let from = open(path, OFlags::RDONLY | flags, Mode::empty()).map_err(at)?;
    let kind = FileType::from_raw_mode(fstat(&from).map_err(at)?.st_mode);
    if kind.is_dir() {
        return Err(at(rustix::io::Errno::ISDIR));
    }
    if !kind.is_fifo() {
        // A file is its own input.
        fcntl_setfl(&from, OFlags::empty()).map_err(at)?;
        return Ok((Some(from), None));
    }
    let keep = open(path, OFlags::WRONLY | flags, Mode::empty()).map_err(at)?;
    if terminal {
        return Ok((None, Some(Input { from, keep, to: None })));
    }
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).call(|| "pipe")?;
    fcntl_setfl(&write, OFlags::NONBLOCK).call(|| "fcntl(O_NONBLOCK)")?;
    chown_pipe(&read, owner)?;
    Ok((Some(read), Some(Input { from, keep, to: Some(write) })))
}

fn logger_of(path: &str) -> Option<&str> {
    (path.starts_with("binary://") || path.starts_with("binary-v2://")).then_some(path)
}

/// Both outputs go to one logger, whatever stderr says. With a terminal we copy to its stdout.
async fn with_logger(
    uri: &str,
    wanted: &StreamPaths,
    owner: &Owner,
    prepared: &mut Prepared,
) -> Result<Option<[Option<OwnedFd>; 2]>> {
    let (out_read, out) = pipe_with(PipeFlags::CLOEXEC).call(|| "pipe")?;
    let (err_read, err) = pipe_with(PipeFlags::CLOEXEC).call(|| "pipe")?;
    chown_pipe(&out, owner)?;
    chown_pipe(&err, owner)?;
    prepared.logger = Some(Logger::start(uri, owner, [out_read, err_read]).await?);
    if wanted.terminal {
        fcntl_setfl(&out, OFlags::NONBLOCK).call(|| "fcntl(O_NONBLOCK)")?;
        prepared.outputs.push((None, Sink::Fifo(out)));
        return Ok(None);
    }
    Ok(Some([Some(out), Some(err)]))
}

impl Sink {
    /// Its descriptor.
    pub fn fd(&self) -> rustix::fd::BorrowedFd<'_> {
        match self {
            Sink::Fifo(fd) => fd.as_fd(),
            Sink::File(fd) => fd.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_all(stdin: &str, stdout: &str, stderr: &str, terminal: bool) -> Result<Prepared> {
        let wanted =
            StreamPaths { terminal, stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(prepare(&wanted, &Owner::default())).map(|(_, prepared)| prepared)
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        for (stdin, stdout, stderr, terminal, word) in [
            ("relative", "", "", false, "stdin"),
            ("", "relative", "", false, "stdout"),
            ("", "/", "", false, "stdout: open(/): is a directory"),
            ("/", "", "", false, "stdin: open(/): is a directory"),
            ("", "", "/no/such/fifo", false, "stderr: open(/no/such/fifo): no such file"),
            ("", "gopher://x", "", false, "gopher"),
            ("", "file://x", "", false, "file://x"),
            ("", "binary://no/such/logger", "", false, "logger"),
            ("", "", "/dev/null", true, "terminal"),
        ] {
            let Err(error) = open_all(stdin, stdout, stderr, terminal) else { panic!("{word}: opened") };
            assert!(error.text.contains(word), "{word}: {error}");
        }
    }

    #[test]
    fn a_file_is_made_with_its_parents_and_shared() {
        let dir = std::env::temp_dir().join(format!("corten-io-{}", std::process::id()));
        let uri = format!("file://{}/a/b/log", dir.display());
        let prepared = open_all("", &uri, &uri, false).unwrap();
        assert_eq!(prepared.outputs.len(), 2);
        assert!(dir.join("a/b/log").is_file());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
