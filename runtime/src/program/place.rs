// SPDX-License-Identifier: Apache-2.0
//! Where inside the container something is made, hidden or made read-only (decisions/0029).

#![forbid(unsafe_code)]

use super::op::Ref;

/// An absolute path, and the mount of our own that it lies in, if the stage still holds that: look-ups from there do not
/// depend on what the mount point is called by now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The path below the container's root.
    pub path: String,
    /// The mount; `Nothing`: the path is looked up by name in the root.
    pub anchor: Ref,
    /// Bytes of `path` that lead to the mount, with the slash behind them; 0 without a mount.
    pub inside: usize,
}

impl Place {
    /// By its name in the root.
    pub fn named(path: impl Into<String>) -> Place {
        Place { path: path.into(), anchor: Ref::Nothing, inside: 0 }
    }

    /// Whether it is found by a mount.
    pub fn is_anchored(&self) -> bool {
        self.anchor != Ref::Nothing
    }

    /// What is looked up: the path, or what of it lies in the mount.
    pub fn rest(&self) -> &str {
        self.path.get(self.inside..).unwrap_or_default()
    }

    /// The mount point; empty without a mount.
    pub fn mount_point(&self) -> &str {
        self.path.get(..self.inside.saturating_sub(1)).unwrap_or_default()
    }
}

/// How many bytes of `path` lead into the directory `target`, with the slash; `None` if it does not lie below. Both are
/// clean absolute paths.
pub fn inside(target: &str, path: &str) -> Option<usize> {
    let rest = path.strip_prefix(target.trim_end_matches('/'))?;
    (rest.len() > 1 && rest.starts_with('/')).then(|| path.len() - rest.len() + 1)
}
