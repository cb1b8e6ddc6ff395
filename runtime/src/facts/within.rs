// SPDX-License-Identifier: Apache-2.0
//! Bind sources that lie below the rootfs (decisions/0069): where, seen from the container's root.
//!
//! What an earlier mount has put there is not on the host yet, so these are looked up by the stage, in the root, when their
//! turn comes. This only says which they are; it opens nothing that is used.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use super::paths::on_host;
use crate::spec::{Mount, Spec};

/// As many as the kernel follows (fs/namei.c: MAXSYMLINKS).
const LINKS: u32 = 40;

/// By the index of a mount: the absolute path below the container's root that its source is. The first mount is left out:
/// nothing comes before it.
pub(super) fn sources(spec: &Spec, bundle: &Path) -> BTreeMap<usize, String> {
    let Some(root) = spec.root.as_ref().map(|root| on_host(&root.path, bundle)) else {
        return BTreeMap::new();
    };
    let mut real = None;
    let within = |(index, mount): (usize, &Mount)| {
        let source = mount.source.as_deref().filter(|source| !source.is_empty() && is_bind(mount))?;
        let source = on_host(source, bundle);
        let inside = match below(&source, &root) {
            Some(inside) => inside,
            None => {
                let real = real.get_or_insert_with(|| resolve(&root, LINKS, true)).as_deref()?;
                below(&resolve(&source, LINKS, !names_link(mount))?, real)?
            }
        };
        Some((index, inside))
    };
    spec.mounts.iter().enumerate().skip(1).filter_map(within).collect()
}

/// Whether it is a tree of the host's, by its type or by its options.
pub(crate) fn is_bind(mount: &Mount) -> bool {
    let bind = |option: &String| option == "bind" || option == "rbind";
    mount.kind.as_deref() == Some("bind") || mount.options.iter().any(bind)
}

/// A link at the end of the source is meant itself.
fn names_link(mount: &Mount) -> bool {
    mount.options.iter().any(|option| option == "src-nofollow" || option == "copy-symlink")
}

/// `path` as one below `root`, if it lies there by its name alone.
fn below(path: &Path, root: &Path) -> Option<String> {
    let rest = path.strip_prefix(root).ok()?;
    let mut inside = String::new();
    for part in rest.components() {
        let Component::Normal(name) = part else { return None };
        inside.push('/');
        inside.push_str(name.to_str()?);
    }
    Some(if inside.is_empty() { "/".to_owned() } else { inside })
}

/// The absolute path of what `path` leads to. What does not exist (an earlier mount may bring it along) lies where its
/// parent is. `None` for what cannot be reached.
fn resolve(path: &Path, links: u32, follow: bool) -> Option<PathBuf> {
    if follow {
        match open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
            Ok(opened) => return std::fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd())).ok(),
            Err(Errno::NOENT) => {}
            Err(_) => return None,
        }
    }
    let links = links.checked_sub(1)?;
    let (above, name) = (path.parent()?, path.file_name());
    let above = resolve(above, links, true)?;
    // `..` is no name.
    let Some(name) = name else { return above.parent().map(Path::to_owned) };
    let path = above.join(name);
    match std::fs::read_link(&path) {
        Ok(target) if follow => resolve(&above.join(target), links, true),
        _ => Some(path),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn by_name_only_what_is_below() {
        for (path, root, want) in [
            ("/b/rootfs/a", "/b/rootfs", Some("/a")),
            ("/b/rootfs", "/b/rootfs", Some("/")),
            ("/b/rootfs/", "/b/rootfs/", Some("/")),
            ("/b/rootfs/a/./c", "/b/rootfs", Some("/a/c")),
            ("/b/rootfs/a/../../c", "/b/rootfs", None),
            ("/b/rootfs-2/a", "/b/rootfs", None),
            ("/b", "/b/rootfs", None),
        ] {
            assert_eq!(below(Path::new(path), Path::new(root)).as_deref(), want, "{path}");
        }
    }

    #[test]
    fn links_and_what_is_missing() {
        let top = std::env::temp_dir().join(format!("corten-within-{}", std::process::id()));
        let top = std::fs::create_dir_all(&top).and_then(|()| top.canonicalize()).unwrap();
        std::fs::create_dir_all(top.join("rootfs/there")).unwrap();
        symlink("rootfs", top.join("link")).unwrap();
        symlink("rootfs/missing/deep", top.join("dangling")).unwrap();
        symlink("loop", top.join("loop")).unwrap();
        for (path, follow, want) in [
            ("link/there", true, Some("rootfs/there")),
            ("link/there/new/dir", true, Some("rootfs/there/new/dir")),
            ("link/new/../there", true, Some("rootfs/there")),
            ("dangling", true, Some("rootfs/missing/deep")),
            ("dangling", false, Some("dangling")),
            ("link", false, Some("link")),
            ("loop", true, None),
        ] {
            let found = resolve(&top.join(path), LINKS, follow);
            assert_eq!(found, want.map(|want| top.join(want)), "{path}");
        }
        std::fs::remove_dir_all(&top).unwrap();
    }
}
