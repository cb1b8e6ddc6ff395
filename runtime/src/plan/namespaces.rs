// SPDX-License-Identifier: Apache-2.0
//! Which namespaces a container gets (config-linux.md#namespaces). Counterparts: `host/birth.rs`, which
//! clones into the new ones, and the stage's `setns`, `unshare` and `hop` operations.

#![forbid(unsafe_code)]

use super::text::{absolute, escape, filled, item, plain};
use crate::error::{Error, Result};
use crate::spec::Spec;

/// A kind of namespace, by its clone(2) flag. Their order is the order in which namespaces are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NsKind {
    /// CLONE_NEWUSER
    User,
    /// CLONE_NEWPID
    Pid,
    /// CLONE_NEWNET
    Network,
    /// CLONE_NEWIPC
    Ipc,
    /// CLONE_NEWUTS
    Uts,
    /// CLONE_NEWCGROUP
    Cgroup,
    /// CLONE_NEWTIME
    Time,
    /// CLONE_NEWNS
    Mount,
}

/// CLONE_NEWTIME of linux/sched.h; `libc` has it as a c_int that shares its bit with CSIGNAL's.
const CLONE_NEWTIME: u64 = 0x80;

impl NsKind {
    pub const ALL: [NsKind; 8] = [
        NsKind::User,
        NsKind::Pid,
        NsKind::Network,
        NsKind::Ipc,
        NsKind::Uts,
        NsKind::Cgroup,
        NsKind::Time,
        NsKind::Mount,
    ];

    /// The name in the specification.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            NsKind::User => "user",
            NsKind::Pid => "pid",
            NsKind::Network => "network",
            NsKind::Ipc => "ipc",
            NsKind::Uts => "uts",
            NsKind::Cgroup => "cgroup",
            NsKind::Time => "time",
            NsKind::Mount => "mount",
        }
    }

    /// The name in /proc/PID/ns.
    #[must_use]
    pub(crate) fn file(self) -> &'static str {
        match self {
            NsKind::Network => "net",
            NsKind::Mount => "mnt",
            other => other.name(),
        }
    }

    /// The flag of clone3(2), setns(2), unshare(2) and NS_GET_NSTYPE.
    #[must_use]
    pub fn flag(self) -> u64 {
        let flag = match self {
            NsKind::User => libc::CLONE_NEWUSER,
            NsKind::Pid => libc::CLONE_NEWPID,
            NsKind::Network => libc::CLONE_NEWNET,
            NsKind::Ipc => libc::CLONE_NEWIPC,
            NsKind::Uts => libc::CLONE_NEWUTS,
            NsKind::Cgroup => libc::CLONE_NEWCGROUP,
            NsKind::Time => return CLONE_NEWTIME,
            NsKind::Mount => libc::CLONE_NEWNS,
        };
        // All of them are single bits below the sign bit.
        u64::from(flag.unsigned_abs())
    }

    fn parse(name: &str) -> Option<NsKind> {
        NsKind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// JSON pointer, `/linux/namespaces/2`.
    pub at: String,
    /// Its kind; the file's real kind is checked when it is opened.
    pub kind: NsKind,
    /// Absolute path of the namespace file.
    pub path: String,
}

/// What is made and what is joined. A kind in neither list stays the host's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// Made anew, with the JSON pointer of each.
    pub new: Vec<(NsKind, String)>,
    /// Joined, in the order in which they are joined: user first, mount last.
    pub join: Vec<Join>,
    /// Clock offsets of the new time namespace: the lines of /proc/self/timens_offsets (`monotonic 10 0`).
    pub time_offsets: Vec<String>,
}

impl Namespaces {
    /// A new namespace of this kind is made.
    #[must_use]
    pub(crate) fn has_new(&self, kind: NsKind) -> bool {
        self.new_at(kind).is_some()
    }

    /// JSON pointer of the new namespace of this kind.
    #[must_use]
    pub(crate) fn new_at(&self, kind: NsKind) -> Option<&str> {
        self.new.iter().find(|(new, _)| *new == kind).map(|(_, at)| at.as_str())
    }

    /// An existing namespace of this kind is joined.
    #[must_use]
    pub(crate) fn joins(&self, kind: NsKind) -> bool {
        self.join_of(kind).is_some()
    }

    #[must_use]
    pub(crate) fn join_of(&self, kind: NsKind) -> Option<&Join> {
        self.join.iter().find(|join| join.kind == kind)
    }

    /// The configuration names a namespace of this kind, new or joined: it is not simply the runtime's.
    #[must_use]
    pub fn has(&self, kind: NsKind) -> bool {
        self.has_new(kind) || self.joins(kind)
    }

    /// The clone flags of the new ones.
    #[must_use]
    pub(crate) fn new_flags(&self) -> u64 {
        self.new.iter().fold(0, |flags, (kind, _)| flags | kind.flag())
    }
}

/// Sorts the configuration's namespaces into new and joined ones.
///
/// # Errors
/// Unknown or repeated kinds, relative paths, clock offsets without a new time namespace.
pub fn decide_namespaces(spec: &Spec) -> Result<Namespaces> {
    let mut namespaces = Namespaces::default();
    for (index, namespace) in spec.linux.namespaces.iter().enumerate() {
        let at = item("/linux/namespaces", index);
        let Some(kind) = NsKind::parse(&namespace.kind) else {
            let text = format!("namespace {:?} does not exist", namespace.kind);
            let types = "the types are pid, network, mount, ipc, uts, user, cgroup and time";
            return Err(Error::invalid(format_args!("{at}/type"), text).advise(types));
        };
        if namespaces.has(kind) {
            let error = Error::invalid(&at, format!("duplicated namespace {:?}", namespace.kind));
            return Err(error.advise(
                "give each type once, with the path of one that is there, or without for a new one",
            ));
        }
        match filled(namespace.path.as_deref()) {
            None => namespaces.new.push((kind, at)),
            Some(path) => {
                let path = absolute(format_args!("{at}/path"), path)?.to_owned();
                namespaces.join.push(Join { at, kind, path });
            }
        }
    }
    namespaces.join.sort_by_key(|join| join.kind);
    namespaces.time_offsets = time_offsets(spec, &namespaces)?;
    Ok(namespaces)
}

/// Clocks that time_namespaces(7) lets be moved.
const CLOCKS: [&str; 2] = ["monotonic", "boottime"];

fn time_offsets(spec: &Spec, namespaces: &Namespaces) -> Result<Vec<String>> {
    let offsets = &spec.linux.time_offsets;
    if !offsets.is_empty() && !namespaces.has_new(NsKind::Time) {
        // The kernel refuses offsets once a process lives in the namespace, so a joined one is no help.
        let text = "time namespace offsets specified, but time namespace isn't enabled in the config";
        return Err(Error::invalid("/linux/timeOffsets", text));
    }
    let line = |(clock, offset): (&String, &crate::spec::TimeOffset)| {
        let at = format!("/linux/timeOffsets/{}", escape(clock));
        if !CLOCKS.contains(&clock.as_str()) {
            return Err(Error::invalid(
                at,
                format!("unknown clock {clock:?}, expected monotonic or boottime"),
            ));
        }
        if offset.nanosecs >= 1_000_000_000 {
            let text = format!("{} nanoseconds are a second or more", offset.nanosecs);
            return Err(Error::invalid(format_args!("{at}/nanosecs"), text));
        }
        Ok(format!("{clock} {} {}", offset.secs, offset.nanosecs))
    };
    offsets.iter().map(line).collect()
}

/// The kernel's __NEW_UTS_LEN.
const UTS_LENGTH: usize = 64;

/// A host or domain name, if one is given.
///
/// # Errors
/// When the container has no UTS namespace of its own, or the kernel would refuse the name.
pub(crate) fn uts_name(name: Option<&str>, at: &str, namespaces: &Namespaces) -> Result<Option<String>> {
    let Some(name) = filled(name) else { return Ok(None) };
    let field = at.trim_start_matches('/');
    if !namespaces.has(NsKind::Uts) {
        let error = Error::invalid(at, format!("unable to set {field} without a private UTS namespace"));
        return Err(error.advise("add {\"type\": \"uts\"} to linux.namespaces, or leave the name out"));
    }
    if name.len() > UTS_LENGTH {
        return Err(Error::invalid(
            at,
            format!("{} bytes are more than a {field}'s {UTS_LENGTH}", name.len()),
        ));
    }
    plain(at, name).map(|name| Some(name.to_owned()))
}
