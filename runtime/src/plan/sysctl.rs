// SPDX-License-Identifier: Apache-2.0
//! Kernel parameters (config-linux.md#sysctl): only those of a namespace that the container has to itself.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use super::Field;
use super::namespaces::{Join, Namespaces, NsKind};
use super::text::{escape, plain};
use crate::error::{Error, Result};
use crate::spec::Spec;

/// Parameters of the IPC namespace (ipc/ipc_sysctl.c), besides `fs.mqueue.*`.
const IPC: [&str; 12] = [
    "kernel/auto_msgmni",
    "kernel/msg_next_id",
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/sem_next_id",
    "kernel/shm_next_id",
    "kernel/shm_rmid_forced",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
];

/// The parameters in the order of the configuration's map (by name): path below /proc/sys, and value.
///
/// # Errors
/// Names that are not plain paths, and parameters that would change the host.
pub(crate) fn decide_sysctls(spec: &Spec, namespaces: &Namespaces) -> Result<Vec<Field<(String, String)>>> {
    let mut decided: Vec<Field<(String, String)>> = Vec::new();
    let mut seen = BTreeSet::new();
    for (name, value) in &spec.linux.sysctl {
        let at = format!("/linux/sysctl/{}", escape(name));
        let value = plain(&at, value.as_deref().unwrap_or_default())?.to_owned();
        let path = path(name, &at)?;
        allowed(name, &path, &at, namespaces)?;
        if path == "kernel/domainname" && spec.domainname.as_ref().is_some_and(|field| *field != value) {
            let text =
                format!("sysctl {name:?} is not allowed as it conflicts with the OCI \"domainname\" field");
            return Err(Error::invalid(at, text));
        }
        if !seen.insert(path.clone()) {
            return Err(Error::invalid(at, format!("sysctl {name:?} is given twice")));
        }
        decided.push(Field { at, value: (path, value) });
    }
    Ok(decided)
}

/// The joined namespaces that must not turn out to be the runtime's own when they are opened (their inode tells),
/// with the pointer of the parameter that demands it: a path says nothing about whose namespace it leads to.
#[must_use]
pub fn foreign<'a>(
    sysctl: &'a [Field<(String, String)>],
    namespaces: &'a Namespaces,
) -> Vec<(&'a Join, &'a str)> {
    let mut joins: Vec<(&Join, &str)> = Vec::new();
    for field in sysctl {
        let join = namespace(&field.value.0).and_then(|kind| namespaces.join_of(kind));
        if let Some(join) = join.filter(|join| !joins.iter().any(|(other, _)| other.kind == join.kind)) {
            joins.push((join, &field.at));
        }
    }
    joins
}

/// The path below /proc/sys: as sysctl(8), the first separator decides which of `.` and `/` separates; the other
/// one belongs to a name (`net.ipv4.conf.eth0/100.rp_filter`, `net/ipv4/conf/eth0.100/rp_filter`).
fn path(name: &str, at: &str) -> Result<String> {
    let dotted = name.find(['.', '/']).is_none_or(|first| name.as_bytes().get(first) == Some(&b'.'));
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    let path: String = if dotted { name.chars().map(swap).collect() } else { name.to_owned() };
    let strange = path.chars().any(|c| c.is_control() || c.is_whitespace());
    if strange || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Error::invalid(at, format!("{name:?} is not the name of a kernel parameter")));
    }
    Ok(path)
}

/// The namespace that a parameter belongs to; `None` if it is the whole host's.
fn namespace(path: &str) -> Option<NsKind> {
    if IPC.contains(&path) || path.starts_with("fs/mqueue/") {
        return Some(NsKind::Ipc);
    }
    if path == "kernel/domainname" || path == "kernel/hostname" {
        return Some(NsKind::Uts);
    }
    match path.split_once('/') {
        Some(("net", _)) => Some(NsKind::Network),
        Some(("user", _)) => Some(NsKind::User),
        _ => None,
    }
}

fn allowed(name: &str, path: &str, at: &str, namespaces: &Namespaces) -> Result<()> {
    let kind = namespace(path);
    let own = kind.is_some_and(|kind| namespaces.has(kind));
    let text = match kind {
        // The field is the one way to name the host, so that hostname and state cannot disagree.
        _ if path == "kernel/hostname" && own => {
            "is not allowed as it conflicts with the OCI \"hostname\" field"
        }
        _ if own => return Ok(()),
        Some(NsKind::Ipc) => "is not allowed in the hosts ipc namespace",
        Some(NsKind::Network) => "not allowed in host network namespace",
        _ => "is not in a separate kernel namespace",
    };
    let advice = match kind {
        _ if own => "set hostname",
        Some(_) => "a container's own needs a namespace for it in linux.namespaces",
        None => "it is the whole host's: set it there",
    };
    Err(Error::invalid(at, format!("sysctl {name:?} {text}")).advise(advice))
}
