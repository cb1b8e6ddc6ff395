// SPDX-License-Identifier: Apache-2.0
//! Paths as a configuration writes them. Text alone: nothing is looked up.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

/// A path on the host: absolute ones verbatim, since cleaning could change what a symbolic link before a `..`
/// means; relative ones below the bundle.
pub(crate) fn on_host(path: &str, bundle: &Path) -> PathBuf {
    if path.starts_with('/') {
        return PathBuf::from(path);
    }
    match bundle.to_str() {
        Some(bundle) => PathBuf::from(clean(&format!("{bundle}/{path}"))),
        None => bundle.join(path),
    }
}

/// The path made absolute and lexically clean: one slash between names, no `.`, and `..` swallows the name before it
/// (at the root: nothing). What lies behind a symbolic link is not looked at; lookups inside are RESOLVE_IN_ROOT.
pub(crate) fn clean(path: &str) -> String {
    if is_clean(path.as_bytes()) {
        return path.to_owned();
    }
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    if names.is_empty() {
        return "/".to_owned();
    }
    names.iter().fold(String::with_capacity(path.len() + 1), |clean, name| clean + "/" + name)
}

/// Whether `clean` surely has nothing to do; nearly always.
fn is_clean(path: &[u8]) -> bool {
    let tidy = |pair: &[u8]| pair[0] != b'/' || !matches!(pair[1], b'/' | b'.');
    path.len() > 1 && path[0] == b'/' && !path.ends_with(b"/") && path.windows(2).all(tidy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_as_go_does() {
        for (path, want) in [
            ("/", "/"),
            ("", "/"),
            ("dev", "/dev"),
            ("/a//b/./c/", "/a/b/c"),
            ("/a/../b", "/b"),
            ("/../../etc", "/etc"),
            ("../x", "/x"),
            ("/a/b/../../..", "/"),
            ("/...", "/..."),
        ] {
            assert_eq!(clean(path), want, "{path}");
        }
    }
}
