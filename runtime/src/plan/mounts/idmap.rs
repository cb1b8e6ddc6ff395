// SPDX-License-Identifier: Apache-2.0
//! The id mapping of one mount (config-linux.md, "idmap" and "ridmap"; per-mount `uidMappings` and `gidMappings`), and
//! crun's form of it, in which the lines stand in the option: `idmap=uids=0-1000-10#10-2000-5;gids=@0-0-10`.

#![forbid(unsafe_code)]

use super::options::MountOptions;
use super::{Idmap, MountContext};
use crate::error::{Error, Result};
use crate::facts::IdMaps;
use crate::plan::ids;
use crate::plan::namespaces::NsKind;
use crate::spec::{IdMapping, Mount};

/// The mapping that the entry asks for, by option or by its own lines (which imply the option). An option that holds
/// lines is taken out of `options`.
///
/// # Errors
/// Lines that do not read, one kind without the other, a mapping of the container's where it has none.
pub(super) fn decide_mount_id_map(
    mount: &Mount,
    options: &mut MountOptions,
    at: &str,
    context: &MountContext,
) -> Result<Option<Idmap>> {
    let (mut uid, mut gid) = (mount.uid_mappings.clone(), mount.gid_mappings.clone());
    let inline = |key: &str| matches!(key, "idmap" | "ridmap");
    if let Some((index, key, value)) = options.data.iter().find(|(_, key, _)| inline(key)) {
        let lines = read(value.as_deref().unwrap_or_default(), context.ids);
        let lines = lines.map_err(|part| {
            let text = format!("{part:?} is no mapping: expected uids=FS-HOST-SIZE[#…];gids=…");
            Error::invalid(format_args!("{at}/options/{index}"), text)
        })?;
        if !uid.is_empty() || !gid.is_empty() {
            let text = "a mapping of its own besides uidMappings and gidMappings";
            return Err(Error::invalid(format_args!("{at}/options/{index}"), text));
        }
        (uid, gid) = lines;
        options.idmap = Some(key == "ridmap");
        options.data.retain(|(_, key, _)| !inline(key));
    }
    ids::pair(&uid, &gid, at)?;
    ids::lines(&uid, &format!("{at}/uidMappings"))?;
    ids::lines(&gid, &format!("{at}/gidMappings"))?;
    let own = !uid.is_empty();
    if options.idmap.is_none() && !own {
        return Ok(None);
    }
    if !own && !context.namespaces.has(NsKind::User) {
        let text = "idmap without mappings of its own needs a user namespace";
        return Err(Error::invalid(format_args!("{at}/options"), text));
    }
    Ok(Some(Idmap { uid, gid, recursive: options.idmap == Some(true) }))
}

type Lines = (Vec<IdMapping>, Vec<IdMapping>);

/// Reads the option's value; the part that does not read is the error.
fn read(text: &str, container: Option<&IdMaps>) -> Result<Lines, String> {
    let mut lines = (Vec::new(), Vec::new());
    for part in text.split(';').filter(|part| !part.is_empty()) {
        let (to, of, list) = match part.split_once('=') {
            Some(("uids", list)) => (&mut lines.0, container.map(|ids| &ids.uid), list),
            Some(("gids", list)) => (&mut lines.1, container.map(|ids| &ids.gid), list),
            _ => return Err(part.to_owned()),
        };
        // crun lets the @ of the list hold for its first range or for each.
        let (list, whole) = list.strip_prefix('@').map_or((list, false), |list| (list, true));
        for range in list.split('#').filter(|range| !range.is_empty()) {
            let (plain, relative) = range.strip_prefix('@').map_or((range, whole), |range| (range, true));
            let of = if relative { Some(of.ok_or_else(|| range.to_owned())?) } else { None };
            to.push(line(plain, of).ok_or_else(|| range.to_owned())?);
        }
    }
    Ok(lines)
}

/// `FS-HOST-SIZE`; relative to the container's lines, HOST is an id of the container, shifted as the line that holds
/// FS shifts.
fn line(range: &str, of: Option<&Vec<IdMapping>>) -> Option<IdMapping> {
    let mut numbers = range.split('-').map(|number| number.parse::<u32>().ok());
    let (container_id, host, size) = (numbers.next()??, numbers.next()??, numbers.next()??);
    if numbers.next().is_some() {
        return None;
    }
    let host_id = match of {
        None => host,
        Some(lines) => {
            let holds =
                |l: &&IdMapping| container_id.checked_sub(l.container_id).is_some_and(|at| at < l.size);
            let line = lines.iter().find(holds)?;
            let shifted = i64::from(host) + i64::from(line.host_id) - i64::from(line.container_id);
            u32::try_from(shifted).ok()?
        }
    };
    Some(IdMapping { container_id, host_id, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(container_id: u32, host_id: u32, size: u32) -> IdMapping {
        IdMapping { container_id, host_id, size }
    }

    #[test]
    fn cruns_form() {
        let container = IdMaps { uid: vec![map(0, 0, 1), map(1, 2, 1000)], gid: vec![map(0, 100, 10)] };
        let read = |text| read(text, Some(&container));
        assert_eq!(
            read("uids=0-1-10#10-11-10;gids=0-100-10"),
            Ok((vec![map(0, 1, 10), map(10, 11, 10)], vec![map(0, 100, 10)]))
        );
        // The example of crun(1).
        assert_eq!(read("uids=@1-3-10").unwrap().0, [map(1, 4, 10)]);
        assert_eq!(read("uids=0-0-1#@1-3-10").unwrap().0, [map(0, 0, 1), map(1, 4, 10)]);
        for wrong in
            ["uids", "uids=1-2", "uids=1-2-3-4", "x=1-2-3", "uids=a-b-c", "uids=@5000-1-1", "gids=1--1-2"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(super::read("uids=@0-0-1", None).is_err());
    }
}
