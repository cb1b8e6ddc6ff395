// SPDX-License-Identifier: Apache-2.0
//! The id mappings of a new user namespace (config-linux.md#user-namespace-mappings). Counterpart: `host/idmap.rs`.

#![forbid(unsafe_code)]

use super::namespaces::{Namespaces, NsKind};
use super::text::item;
use crate::error::{Error, Kind, Result};
use crate::facts::ids::mapped;
use crate::facts::{CAP_SETGID, CAP_SETUID, Facts, IdMaps};
use crate::spec::{IdMapping, Spec};

/// The mappings of the new user namespace; `None` when none is made.
///
/// # Errors
/// Mappings without a user namespace, a new one without mappings, and lines that the kernel would refuse.
pub fn decide_id_maps(spec: &Spec, namespaces: &Namespaces) -> Result<Option<IdMaps>> {
    let (uid, gid) = (&spec.linux.uid_mappings, &spec.linux.gid_mappings);
    let mapped = !uid.is_empty() || !gid.is_empty();
    if mapped && !namespaces.has(NsKind::User) {
        let at = if uid.is_empty() { "/linux/gidMappings" } else { "/linux/uidMappings" };
        let text = "User namespace mappings specified, but USER namespace isn't enabled in the config";
        return Err(Error::invalid(at, text));
    }
    if !namespaces.has_new(NsKind::User) {
        return Ok(None);
    }
    full(uid, "/linux/uidMappings", "uid")?;
    full(gid, "/linux/gidMappings", "gid")?;
    Ok(Some(IdMaps { uid: uid.clone(), gid: gid.clone() }))
}

/// Who writes a map (user_namespaces(7), "Defining user and group ID mappings").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// We do, with the capability for it, or because it is our own id alone.
    Us,
    /// We do, for our own group alone: without privilege, setgroups(2) must be denied in the namespace first.
    UsWithoutGroups,
    /// newuidmap(1) or newgidmap(1), which ask /etc/subuid or /etc/subgid.
    Tool,
}

/// Who writes the two maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writers {
    pub uid: Writer,
    pub gid: Writer,
}

/// Decides who writes the maps of a new user namespace.
#[must_use]
pub(crate) fn writers(ids: &IdMaps, facts: &Facts) -> Writers {
    let alone = |map: &[IdMapping], id: u32| matches!(map, [line] if line.size == 1 && line.host_id == id);
    let uid = match facts.can(CAP_SETUID) || alone(&ids.uid, facts.euid) {
        true => Writer::Us,
        false => Writer::Tool,
    };
    let gid = match (facts.can(CAP_SETGID), alone(&ids.gid, facts.egid)) {
        (true, _) => Writer::Us,
        (false, true) => Writer::UsWithoutGroups,
        (false, false) => Writer::Tool,
    };
    Writers { uid, gid }
}

/// Whether the process can set its supplementary groups where it will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setgroups {
    /// It can.
    Allowed,
    /// setgroups(2) is denied there: it keeps its creator's groups, which mean nothing more inside.
    Denied,
    /// The user namespace that it joins will tell.
    Unknown,
}

/// What holds for the container's first process.
#[must_use]
pub(crate) fn setgroups(namespaces: &Namespaces, ids: Option<&IdMaps>, facts: &Facts) -> Setgroups {
    if namespaces.joins(NsKind::User) {
        return Setgroups::Unknown;
    }
    let denies = ids.is_some_and(|ids| writers(ids, facts).gid == Writer::UsWithoutGroups);
    if facts.setgroups_denied || denies { Setgroups::Denied } else { Setgroups::Allowed }
}

/// Whether this process can drop its groups where it is.
#[must_use]
pub(crate) fn may_drop_groups(facts: &Facts) -> bool {
    facts.can(CAP_SETGID) && !facts.setgroups_denied
}

/// The mappings that ids in the configuration mean: the container's, as far as they are known, else our own.
#[must_use]
pub(crate) fn maps_of_configuration<'a>(
    namespaces: &Namespaces,
    ids: Option<&'a IdMaps>,
    facts: &'a Facts,
) -> Option<&'a IdMaps> {
    if namespaces.has(NsKind::User) { ids } else { facts.ids.as_ref() }
}

/// Without privileges there is no container without a user namespace.
///
/// # Errors
/// In runc's words.
pub fn rootless(namespaces: &Namespaces, facts: &Facts) -> Result<()> {
    if facts.euid == 0 || facts.is_admin() || namespaces.has(NsKind::User) {
        return Ok(());
    }
    let text = "rootless container requires user namespaces";
    Err(Error::invalid("/linux/namespaces", text).with_kind(Kind::Unsupported))
}

/// What the configuration says about the mappings of a *joined* user namespace, if it says anything. containerd and
/// CRI-O give both path and mappings; runc accepts that when they are the same, so the host compares them with
/// the namespace's before anything else happens.
///
/// # Errors
/// One mapping without the other, or lines that no kernel accepts.
pub(crate) fn maps_of_joined(spec: &Spec, namespaces: &Namespaces) -> Result<Option<IdMaps>> {
    let (uid, gid) = (&spec.linux.uid_mappings, &spec.linux.gid_mappings);
    if !namespaces.joins(NsKind::User) {
        return Ok(None);
    }
    pair(uid, gid, "/linux")?;
    lines(uid, "/linux/uidMappings")?;
    lines(gid, "/linux/gidMappings")?;
    Ok((!uid.is_empty()).then(|| IdMaps { uid: uid.clone(), gid: gid.clone() }))
}

/// Whether one mapping comes without the other.
pub(super) fn pair(uid: &[IdMapping], gid: &[IdMapping], at: &str) -> Result<()> {
    match (uid.is_empty(), gid.is_empty()) {
        (true, false) => Err(Error::invalid(at, "gidMappings without uidMappings")),
        (false, true) => Err(Error::invalid(at, "uidMappings without gidMappings")),
        _ => Ok(()),
    }
}

/// An id that cannot be taken.
pub(super) fn unmapped(at: String, word: &str, id: u32) -> Error {
    let advice = "map it in linux.uidMappings and linux.gidMappings, or take one that they map";
    Error::invalid(at, format!("{word} id {id} is not mapped in the user namespace")).advise(advice)
}

/// A mapping that the container can live in: its root is mapped.
fn full(mapping: &[IdMapping], at: &str, word: &str) -> Result<()> {
    if mapping.is_empty() {
        let text = format!("user namespaces enabled, but no {word} mappings found");
        return Err(
            Error::invalid(at, text).advise("give one, or take the user namespace out of linux.namespaces")
        );
    }
    lines(mapping, at)?;
    if mapped(mapping, 0).is_none() {
        return Err(Error::invalid(at, format!("{word} 0 of the container is not mapped")));
    }
    Ok(())
}

/// user_namespaces(7): the kernel takes this many lines (UID_GID_MAP_MAX_EXTENTS, Linux 4.15).
const LINES: usize = 340;

/// Whether the kernel would take these lines: their number, no empty, wrapping or overlapping ranges.
pub(super) fn lines(mapping: &[IdMapping], at: &str) -> Result<()> {
    if mapping.len() > LINES {
        return Err(Error::invalid(
            at,
            format!("{} lines are more than the kernel's {LINES}", mapping.len()),
        ));
    }
    for (index, line) in mapping.iter().enumerate() {
        let at = item(at, index);
        if line.size == 0 {
            return Err(Error::invalid(format_args!("{at}/size"), "a mapping of no ids"));
        }
        // The last id, 4294967295, stands for "no id" and cannot be mapped.
        for (field, first) in [("containerID", line.container_id), ("hostID", line.host_id)] {
            if first.checked_add(line.size).is_none() {
                let text = format!("{} ids from {first} on exceed 4294967294", line.size);
                return Err(Error::invalid(format_args!("{at}/{field}"), text));
            }
        }
        let overlaps = |a: u32, a_size: u32, b: u32, b_size: u32| a < b + b_size && b < a + a_size;
        for (other, earlier) in mapping[..index].iter().enumerate() {
            let inside = overlaps(line.container_id, line.size, earlier.container_id, earlier.size);
            if inside || overlaps(line.host_id, line.size, earlier.host_id, earlier.size) {
                return Err(Error::invalid(at, format!("overlaps with line {other}")));
            }
        }
    }
    Ok(())
}
