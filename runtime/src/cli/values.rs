// SPDX-License-Identifier: Apache-2.0
//! Values of flags: strict readings of users, groups, signals, variables and descriptors.
//!
//! A user string that is read loosely ends as root (crun CVE-2026-30892: `-u 1` became 0:0), so nothing is guessed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use corten::ask::Stdio;
use nix::sys::signal::Signal;

use super::failure::Failure;

/// First and last real-time signal as programs count them (glibc keeps 32 and 33 for itself; musl 34 too, but the
/// container's numbering matters here, not ours).
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// A path; Go's clients pass an empty one for none.
pub fn path(value: Option<OsString>) -> Option<PathBuf> {
    value.filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Our own descriptors, or `--console-socket`.
pub fn stdio(console_socket: Option<OsString>) -> Stdio {
    path(console_socket).map_or(Stdio::Inherit, Stdio::ConsoleSocket)
}

/// A text; an empty one is none.
pub fn text(value: Option<String>) -> Option<String> {
    value.filter(|value| !value.is_empty())
}

/// `uid[:gid]`, decimal.
///
/// # Errors
/// Anything else; 4294967295 too, which setresuid(2) takes for "leave as it is".
pub fn user(text: &str) -> Result<(u32, Option<u32>), Failure> {
    let parsed = match text.split_once(':') {
        None => id(text).map(|uid| (uid, None)),
        Some((uid, gid)) => id(uid).zip(id(gid)).map(|(uid, gid)| (uid, Some(gid))),
    };
    parsed.ok_or_else(|| {
        Failure::new(format!("invalid user {text:?}: expected uid[:gid], each 0 to 4294967294"))
    })
}

/// One group id.
///
/// # Errors
/// As [`user`].
pub fn group(text: &str) -> Result<u32, Failure> {
    id(text).ok_or_else(|| Failure::new(format!("invalid group id {text:?}: expected 0 to 4294967294")))
}

fn id(text: &str) -> Option<u32> {
    parse_number(text).filter(|id| *id != u32::MAX)
}

/// Decimal digits and nothing else: no sign, no spaces, no other base.
fn parse_number(text: &str) -> Option<u32> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// A signal: a number from 0 (which only asks whether the process is there) to 64, or a name in any case, with or
/// without SIG, `RTMIN+n` and `RTMAX-n` included.
///
/// # Errors
/// Anything else.
pub fn signal(text: &str) -> Result<i32, Failure> {
    let unknown = || Failure::new(format!("unknown signal {text:?}"));
    if let Some(number) = parse_number(text) {
        return i32::try_from(number).ok().filter(|number| *number <= RTMAX).ok_or_else(unknown);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let numbered = match name {
        "IOT" => Some(libc::SIGABRT),
        "CLD" => Some(libc::SIGCHLD),
        "POLL" => Some(libc::SIGIO),
        "RTMIN" => Some(RTMIN),
        "RTMAX" => Some(RTMAX),
        _ => None,
    };
    let offset = |prefix, sign: i32, base: i32| {
        let number = i32::try_from(parse_number(name.strip_prefix(prefix)?)?).ok()?;
        (number <= RTMAX - RTMIN).then_some(base + sign * number)
    };
    numbered
        .or_else(|| offset("RTMIN+", 1, RTMIN))
        .or_else(|| offset("RTMAX-", -1, RTMAX))
        .or_else(|| Signal::from_str(&format!("SIG{name}")).ok().map(|signal| signal as i32))
        .ok_or_else(unknown)
}

/// One `NAME=value`.
///
/// # Errors
/// No `=`, or no name.
pub fn variable(text: String) -> Result<String, Failure> {
    match text.find('=') {
        None => Err(Failure::new(format!("invalid environment variable {text:?}: missing '='"))),
        Some(0) => Err(Failure::new(format!("invalid environment variable {text:?}: name cannot be empty"))),
        Some(_) => Ok(text),
    }
}

/// Checks that the caller handed down `count` descriptors from `first` on (`--preserve-fds`, LISTEN_FDS).
///
/// # Errors
/// Names the first one that is missing.
pub fn handed_down(what: &str, first: u32, count: u32) -> Result<(), Failure> {
    let missing = (0..count).find(|n| !first.checked_add(*n).is_some_and(corten::sys::tty::handed_down));
    match missing {
        None => Ok(()),
        Some(n) => {
            let number = u64::from(first) + u64::from(n);
            Err(Failure::new(format!("{what}: descriptor {number} ({} of {count}) is not open", n + 1)))
        }
    }
}

/// The service manager's notification socket, if we have one (sd_notify(3)).
pub fn notify_socket() -> Option<PathBuf> {
    path(std::env::var_os("NOTIFY_SOCKET"))
}

/// How many socket-activation descriptors this very process was given (sd_listen_fds(3)); a caller that does not
/// know our pid beforehand may leave LISTEN_PID out.
pub fn listen_fds() -> u32 {
    let variable = |name| std::env::var(name).ok().and_then(|text| parse_number(&text));
    match variable("LISTEN_PID") {
        Some(pid) if pid != std::process::id() => 0,
        _ => variable("LISTEN_FDS").unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S26 and S27.
    #[test]
    fn users() {
        for (text, expected) in [
            ("0", Some((0, None))),
            ("1", Some((1, None))),
            ("1:2", Some((1, Some(2)))),
            ("4294967294:4294967294", Some((4_294_967_294, Some(4_294_967_294)))),
            ("007", Some((7, None))),
            ("", None),
            (":", None),
            ("1:", None),
            (":1", None),
            ("1:2:3", None),
            (" 1", None),
            ("1 ", None),
            ("1: 2", None),
            ("+1", None),
            ("-1", None),
            ("1:-1", None),
            ("0x1", None),
            ("1e3", None),
            ("1.0", None),
            ("١", None),
            ("root", None),
            ("4294967295", None),
            ("0:4294967295", None),
            ("4294967296", None),
            ("18446744073709551616", None),
        ] {
            assert_eq!(user(text).ok(), expected, "{text:?}");
        }
        assert_eq!(group("5"), Ok(5));
        for bad in ["", "-1", "4294967295", "4294967296", "adm"] {
            assert!(group(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn signals() {
        for (text, expected) in [
            ("KILL", Some(9)),
            ("SIGKILL", Some(9)),
            ("kill", Some(9)),
            ("sigTerm", Some(15)),
            ("9", Some(9)),
            ("0", Some(0)),
            ("64", Some(64)),
            ("SIGWINCH", Some(28)),
            ("STKFLT", Some(16)),
            ("IOT", Some(6)),
            ("CLD", Some(17)),
            ("poll", Some(29)),
            ("SIGRTMIN", Some(34)),
            ("RTMIN+3", Some(37)),
            ("rtmin+30", Some(64)),
            ("RTMAX-1", Some(63)),
            ("RTMAX-30", Some(34)),
            ("RTMIN+31", None),
            ("RTMAX-31", None),
            ("RTMIN-1", None),
            ("RTMIN+", None),
            ("65", None),
            ("-9", None),
            ("+9", None),
            ("9 ", None),
            ("", None),
            ("SIG", None),
            ("SIGSIGKILL", None),
            ("FOO", None),
        ] {
            assert_eq!(signal(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn variables() {
        for (text, good) in
            [("A=b", true), ("A=", true), ("A=b=c", true), ("A", false), ("=b", false), ("", false)]
        {
            assert_eq!(variable(text.to_owned()).is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn descriptors_that_were_not_handed_down_are_named() {
        let error = handed_down("--preserve-fds", 900, 2).unwrap_err();
        assert_eq!(error, Failure::new("--preserve-fds: descriptor 900 (1 of 2) is not open"));
        assert!(handed_down("--preserve-fds", u32::MAX, 2).is_err());
        assert_eq!(handed_down("--preserve-fds", 3, 0), Ok(()));
    }
}
