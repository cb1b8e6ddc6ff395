// SPDX-License-Identifier: Apache-2.0
//! The one error type of the runtime.
//!
//! An [`Error`] carries arguments, not prose: where in the configuration (a JSON pointer), which step, which
//! system call with which operands, which errno. [`Error::kind`] is for programs; `Display` is for people and for
//! the clients that match runc's wording (docs/compatibility.md, "Words"). An error is never logged *and*
//! returned.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt::{self, Write};

use nix::errno::Errno;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a program may want to distinguish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The configuration or a flag is wrong; nothing was touched.
    Invalid,
    /// No container with that id.
    NotFound,
    /// The id is taken.
    Exists,
    /// The container's status forbids the verb.
    Status,
    /// A system call failed.
    Os,
    /// Something on the other side (hook, console socket, seccomp agent …) misbehaved.
    Peer,
    /// The host cannot do what was asked (kernel, LSM, controller).
    Unsupported,
}

/// What went wrong at the bottom.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cause {
    Text(Cow<'static, str>),
    Call { call: Cow<'static, str>, errno: i32 },
}

/// An error of the runtime: kind, cause, and the path that led to it (outermost first when displayed).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    cause: Cause,
    /// Innermost first: each entry was added by one caller on the way out.
    context: Vec<Cow<'static, str>>,
    /// What to do about it; the innermost counts.
    advice: Option<&'static str>,
}

impl Error {
    /// An error of `kind` described by `text` (one clause, lower case, no full stop).
    pub fn new(kind: Kind, text: impl Into<Cow<'static, str>>) -> Self {
        Error { kind, cause: Cause::Text(text.into()), context: Vec::new(), advice: None }
    }

    /// A configuration error: `at` is the JSON pointer of the offending value, for example `/process/cwd`.
    pub(crate) fn invalid(at: impl fmt::Display, text: impl Into<Cow<'static, str>>) -> Self {
        Error::new(Kind::Invalid, text).at(format!("config.json {at}"))
    }

    /// A failed system call: `call` as strace would print it, for example `openat2(/etc/passwd)`.
    pub fn os(call: impl Into<Cow<'static, str>>, errno: impl Into<RawErrno>) -> Self {
        let cause = Cause::Call { call: call.into(), errno: errno.into().0 };
        Error { kind: Kind::Os, cause, context: Vec::new(), advice: None }
    }

    /// The same error with what to do about it: one clause, which ends the line. It names the field or the flag where nothing
    /// before it does.
    #[must_use]
    pub fn advise(mut self, advice: &'static str) -> Self {
        self.advice = self.advice.or(Some(advice));
        self
    }

    /// The same if there is any.
    #[must_use]
    pub(crate) fn advised(self, advice: Option<&'static str>) -> Self {
        match advice {
            Some(advice) => self.advise(advice),
            None => self,
        }
    }

    /// The same for an error of one of these errnos.
    #[must_use]
    pub(crate) fn advise_on(self, errnos: &[i32], advice: &'static str) -> Self {
        if self.errno().is_some_and(|errno| errnos.contains(&errno)) { self.advise(advice) } else { self }
    }

    /// The same error, reached through `context` (a step or a field).
    #[must_use]
    pub fn at(mut self, context: impl Into<Cow<'static, str>>) -> Self {
        let context = context.into();
        // A step without a name is none.
        if !context.is_empty() {
            self.context.push(context);
        }
        self
    }

    /// The same error, with `to` for `from` where a context begins with that: the same check may be of config.json or
    /// of what an `update` asks for.
    #[must_use]
    pub(crate) fn relocated(mut self, from: &str, to: &str) -> Self {
        for context in &mut self.context {
            if let Some(rest) = context.strip_prefix(from) {
                *context = format!("{to}{rest}").into();
            }
        }
        self
    }

    /// The same error with another kind.
    #[must_use]
    pub(crate) fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// What a program may want to distinguish.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The errno of the failed call, if a call failed.
    pub fn errno(&self) -> Option<i32> {
        match self.cause {
            Cause::Call { errno, .. } => Some(errno),
            Cause::Text(_) => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line whatever is in it: names, values and paths are somebody else's.
        for context in self.context.iter().rev() {
            write!(f, "{}: ", printable(context))?;
        }
        match &self.cause {
            Cause::Text(text) => f.write_str(&printable(text)),
            Cause::Call { call, errno } => write!(f, "{}: {}", printable(call), Words(*errno)),
        }?;
        self.advice.map_or(Ok(()), |advice| write!(f, "; {advice}"))
    }
}

impl std::error::Error for Error {}

/// An errno from any of the crates that report one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawErrno(pub i32);

impl From<i32> for RawErrno {
    fn from(errno: i32) -> Self {
        RawErrno(errno)
    }
}

impl From<rustix::io::Errno> for RawErrno {
    fn from(errno: rustix::io::Errno) -> Self {
        RawErrno(errno.raw_os_error())
    }
}

impl From<std::io::Error> for RawErrno {
    fn from(error: std::io::Error) -> Self {
        RawErrno(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl From<&std::io::Error> for RawErrno {
    fn from(error: &std::io::Error) -> Self {
        RawErrno(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

/// An errno in words and by name: `no such file or directory (ENOENT)`. Lower case, because clients match Go's
/// spelling (moby: `no such file or directory`, `permission denied`, `is a directory`).
pub struct Words(pub i32);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = Errno::from_raw(self.0);
        match errno {
            Errno::UnknownErrno => write!(f, "errno {}", self.0),
            // Without memory: there may be no more.
            known => {
                glibc(known).chars().flat_map(char::to_lowercase).try_for_each(|c| f.write_char(c))?;
                write!(f, " ({known:?})")
            }
        }
    }
}

/// glibc's words, which people and clients know; nix has others for some.
fn glibc(errno: Errno) -> &'static str {
    match errno {
        Errno::EIO => "Input/output error",
        Errno::EBADF => "Bad file descriptor",
        Errno::EAGAIN => "Resource temporarily unavailable",
        Errno::ENOMEM => "Cannot allocate memory",
        Errno::EXDEV => "Invalid cross-device link",
        Errno::ENFILE => "Too many open files in system",
        Errno::ENOTTY => "Inappropriate ioctl for device",
        Errno::EDOM => "Numerical argument out of domain",
        Errno::ERANGE => "Numerical result out of range",
        Errno::EDEADLK => "Resource deadlock avoided",
        Errno::ENOLCK => "No locks available",
        Errno::ELOOP => "Too many levels of symbolic links",
        Errno::EBADMSG => "Bad message",
        Errno::EILSEQ => "Invalid or incomplete multibyte or wide character",
        Errno::EOPNOTSUPP => "Operation not supported",
        Errno::ENETRESET => "Network dropped connection on reset",
        Errno::EDQUOT => "Disk quota exceeded",
        other => other.desc(),
    }
}

/// What of a text is shown at most: a path is shorter.
const SHOWN: usize = 4300;

/// The text with its control characters escaped and not endless: what a configuration, a hook or a caller says must not
/// break a log's line, nor fill it, nor speak to a terminal.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let end = (0..=text.len().min(SHOWN)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let (start, rest) = text.split_at(end);
    if rest.is_empty() && !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(start.len() + 32);
    for c in start.chars() {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    if !rest.is_empty() {
        shown.push_str(&format!("… and {} bytes more", rest.len()));
    }
    Cow::Owned(shown)
}

/// Adds the call (or the step) to a failing result.
pub trait Context<T> {
    /// Names the failed system call.
    fn call<C: Into<Cow<'static, str>>>(self, call: impl FnOnce() -> C) -> Result<T>;
}

impl<T, E: Into<RawErrno>> Context<T> for std::result::Result<T, E> {
    fn call<C: Into<Cow<'static, str>>>(self, call: impl FnOnce() -> C) -> Result<T> {
        self.map_err(|errno| Error::os(call(), errno))
    }
}

/// Adds the step to a failing result of this crate.
pub trait WithStep<T> {
    /// Names the step or field that failed.
    fn step<C: Into<Cow<'static, str>>>(self, step: impl FnOnce() -> C) -> Result<T>;
}

impl<T> WithStep<T> for Result<T> {
    fn step<C: Into<Cow<'static, str>>>(self, step: impl FnOnce() -> C) -> Result<T> {
        self.map_err(|error| error.at(step()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_field_step_call_and_errno() {
        let error = Error::os("fsmount(proc)", libc::EPERM).at("mounts[3] (/proc)").at("container init");
        assert_eq!(
            error.to_string(),
            "container init: mounts[3] (/proc): fsmount(proc): operation not permitted (EPERM)"
        );
        assert_eq!(error.errno(), Some(libc::EPERM));
        assert_eq!(error.kind(), Kind::Os);
        assert_eq!(
            Error::os("setns(user)", libc::EPERM).at("").at("x").to_string(),
            "x: setns(user): operation not permitted (EPERM)"
        );
    }

    /// Found by the fuzzer: `SCMP_ACT_\x1b[2J` came through as it was, and 70 KB of an action's name.
    #[test]
    fn is_one_line_of_bounded_length() {
        let error = Error::os("open(a\nb)", libc::ENOENT).at("x\u{1b}[2J");
        assert_eq!(error.to_string(), "x\\u{1b}[2J: open(a\\nb): no such file or directory (ENOENT)");
        let long = Error::new(Kind::Invalid, "é".repeat(40_000)).to_string();
        assert!(long.len() < 5000 && long.ends_with("é… and 75700 bytes more"), "{}", long.len());
        assert_eq!(Error::new(Kind::Invalid, "a\tb\u{9b}").to_string(), "a\\tb\\u{9b}");
    }

    #[test]
    fn advice_ends_the_line_and_the_innermost_counts() {
        let error = Error::os("open(/x)", libc::ENOENT).advise("do this").at("root.path").advise("do that");
        assert_eq!(error.to_string(), "root.path: open(/x): no such file or directory (ENOENT); do this");
        let error = Error::os("open(/x)", libc::ENOENT);
        assert_eq!(error.clone().advise_on(&[libc::EPERM], "do this"), error);
        assert!(error.advise_on(&[libc::EPERM, libc::ENOENT], "do this").to_string().ends_with("; do this"));
    }

    /// Neither nix's nor musl's.
    #[test]
    fn words_are_glibcs() {
        let table = include_str!("../tests/data/errno").lines().filter(|line| !line.starts_with('#'));
        let mut count = 0;
        for line in table {
            let (errno, words) = line.split_once(' ').unwrap();
            let said = Words(errno.parse().unwrap()).to_string();
            assert!(said.starts_with(&format!("{words} (E")), "{errno}: {said:?}, not {words:?}");
            count += 1;
        }
        assert!(count > 120, "{count} lines");
    }

    #[test]
    fn words_are_those_that_clients_match() {
        for (errno, words) in [
            (libc::ENOENT, "no such file or directory"),
            (libc::EACCES, "permission denied"),
            (libc::EISDIR, "is a directory"),
            (libc::ENOTDIR, "not a directory"),
            (libc::ENOEXEC, "exec format error"),
            (libc::EPERM, "operation not permitted"),
            (libc::ESRCH, "no such process"),
        ] {
            assert!(Words(errno).to_string().starts_with(words), "{errno}: {}", Words(errno));
        }
    }
}
