// SPDX-License-Identifier: Apache-2.0
//! Mount options by name (config-linux.md#linux-mount-options): the one table that is parsed with and that
//! `corten features` shows.
//!
//! Kernel words: attributes of a mount are those of mount_setattr(2), flags of a superblock are parameters of
//! fsconfig(2). Anything that is not in the table is the file system's own business (`size=64k`, `newinstance`).

#![forbid(unsafe_code)]

use libc::{
    MOUNT_ATTR_NOATIME as NOATIME, MOUNT_ATTR_NODEV as NODEV, MOUNT_ATTR_NODIRATIME as NODIRATIME,
    MOUNT_ATTR_NOEXEC as NOEXEC, MOUNT_ATTR_NOSUID as NOSUID, MOUNT_ATTR_NOSYMFOLLOW as NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY as RDONLY, MOUNT_ATTR_RELATIME as RELATIME, MOUNT_ATTR_STRICTATIME as STRICTATIME,
};

use super::{Attrs, Propagation};

/// What an option does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Accepted; says what holds anyway, or what the new mount interface has no word for.
    Nothing,
    /// Sets or clears one attribute, of the mount or of its whole tree.
    Attr {
        bit: u64,
        on: bool,
        tree: bool,
    },
    /// The access time attribute is an enumeration: taking one value leaves every other, declining one (`on` false)
    /// falls back to the default if that one held.
    Atime {
        value: u64,
        on: bool,
        tree: bool,
    },
    /// Sets or clears a flag of the superblock.
    Super {
        name: &'static str,
        on: bool,
    },
    /// Changes the propagation; all of these are done, in order.
    Propagation {
        flag: libc::c_ulong,
        tree: bool,
    },
    /// A bind mount.
    Bind {
        tree: bool,
    },
    /// An id-mapped mount.
    Idmap {
        tree: bool,
    },
    Switch(Switch),
}

/// Options without anything more to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Switch {
    Remount,
    CopyUp,
    SourceNofollow,
    CopySymlink,
    TargetNofollow,
}

const fn attr(bit: u64, on: bool) -> Effect {
    Effect::Attr { bit, on, tree: false }
}

const fn tree(bit: u64, on: bool) -> Effect {
    Effect::Attr { bit, on, tree: true }
}

const fn atime(value: u64, on: bool) -> Effect {
    Effect::Atime { value, on, tree: false }
}

const fn tree_atime(value: u64, on: bool) -> Effect {
    Effect::Atime { value, on, tree: true }
}

const fn superblock(name: &'static str, on: bool) -> Effect {
    Effect::Super { name, on }
}

const fn propagate(flag: libc::c_ulong, tree: bool) -> Effect {
    Effect::Propagation { flag, tree }
}

/// Every option, by name.
///
/// `silent` and `iversion` with their opposites have no fsconfig(2) parameter (EINVAL from every file system, Linux
/// 6.18): the first is about log lines only, the second is decided by the file systems themselves. `defaults` and
/// `acl` must not reach the file system, most of which refuse them (runc issues 1444 and 3738).
/// `copy-symlink`, `src-nofollow` and `dest-nofollow` are crun's.
const OPTIONS: &[(&str, Effect)] = &[
    ("acl", Effect::Nothing),
    ("async", superblock("sync", false)),
    ("atime", atime(NOATIME, false)),
    ("bind", Effect::Bind { tree: false }),
    ("copy-symlink", Effect::Switch(Switch::CopySymlink)),
    ("defaults", Effect::Nothing),
    ("dest-nofollow", Effect::Switch(Switch::TargetNofollow)),
    ("dev", attr(NODEV, false)),
    ("diratime", attr(NODIRATIME, false)),
    ("dirsync", superblock("dirsync", true)),
    ("exec", attr(NOEXEC, false)),
    ("idmap", Effect::Idmap { tree: false }),
    ("iversion", Effect::Nothing),
    ("lazytime", superblock("lazytime", true)),
    ("loud", Effect::Nothing),
    ("mand", superblock("mand", true)),
    ("noatime", atime(NOATIME, true)),
    ("nodev", attr(NODEV, true)),
    ("nodiratime", attr(NODIRATIME, true)),
    ("noexec", attr(NOEXEC, true)),
    ("noiversion", Effect::Nothing),
    ("nolazytime", superblock("lazytime", false)),
    ("nomand", superblock("mand", false)),
    ("norelatime", atime(RELATIME, false)),
    ("nostrictatime", atime(STRICTATIME, false)),
    ("nosuid", attr(NOSUID, true)),
    ("nosymfollow", attr(NOSYMFOLLOW, true)),
    ("private", propagate(libc::MS_PRIVATE, false)),
    ("ratime", tree_atime(NOATIME, false)),
    ("rbind", Effect::Bind { tree: true }),
    ("rdev", tree(NODEV, false)),
    ("rdiratime", tree(NODIRATIME, false)),
    ("relatime", atime(RELATIME, true)),
    ("remount", Effect::Switch(Switch::Remount)),
    ("rexec", tree(NOEXEC, false)),
    ("ridmap", Effect::Idmap { tree: true }),
    ("rnoatime", tree_atime(NOATIME, true)),
    ("rnodev", tree(NODEV, true)),
    ("rnodiratime", tree(NODIRATIME, true)),
    ("rnoexec", tree(NOEXEC, true)),
    ("rnorelatime", tree_atime(RELATIME, false)),
    ("rnostrictatime", tree_atime(STRICTATIME, false)),
    ("rnosuid", tree(NOSUID, true)),
    ("rnosymfollow", tree(NOSYMFOLLOW, true)),
    ("ro", attr(RDONLY, true)),
    ("rprivate", propagate(libc::MS_PRIVATE, true)),
    ("rrelatime", tree_atime(RELATIME, true)),
    ("rro", tree(RDONLY, true)),
    ("rrw", tree(RDONLY, false)),
    ("rshared", propagate(libc::MS_SHARED, true)),
    ("rslave", propagate(libc::MS_SLAVE, true)),
    ("rstrictatime", tree_atime(STRICTATIME, true)),
    ("rsuid", tree(NOSUID, false)),
    ("rsymfollow", tree(NOSYMFOLLOW, false)),
    ("runbindable", propagate(libc::MS_UNBINDABLE, true)),
    ("rw", attr(RDONLY, false)),
    ("shared", propagate(libc::MS_SHARED, false)),
    ("silent", Effect::Nothing),
    ("slave", propagate(libc::MS_SLAVE, false)),
    ("src-nofollow", Effect::Switch(Switch::SourceNofollow)),
    ("strictatime", atime(STRICTATIME, true)),
    ("suid", attr(NOSUID, false)),
    ("symfollow", attr(NOSYMFOLLOW, false)),
    ("sync", superblock("sync", true)),
    ("tmpcopyup", Effect::Switch(Switch::CopyUp)),
    ("unbindable", propagate(libc::MS_UNBINDABLE, false)),
];

/// The names of all options, sorted.
#[must_use]
pub fn option_names() -> Vec<&'static str> {
    OPTIONS.iter().map(|(name, _)| *name).collect()
}

fn effect(name: &str) -> Option<Effect> {
    let found = OPTIONS.binary_search_by_key(&name, |(name, _)| name).ok()?;
    OPTIONS.get(found).map(|(_, effect)| *effect)
}

/// The propagation of that name, for `rootfsPropagation` as well.
#[must_use]
pub(crate) fn propagation(name: &str) -> Option<Propagation> {
    match effect(name)? {
        Effect::Propagation { flag, tree } => Some(Propagation { flag, recursive: tree }),
        _ => None,
    }
}

/// The options of one mount, read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MountOptions {
    pub attrs: Attrs,
    /// Attributes of its whole tree.
    pub tree: Attrs,
    /// Flags of the superblock that are on, as fsconfig(2) names them; without `ro`, which is in `attrs`.
    pub superblock: Vec<&'static str>,
    /// Propagation changes, in order.
    pub propagation: Vec<Propagation>,
    /// A bind mount; true with everything below.
    pub bind: Option<bool>,
    /// An id-mapped mount; true with everything below.
    pub idmap: Option<bool>,
    /// Change an existing mount.
    pub remount: bool,
    /// Copy what the target held into the new tmpfs.
    pub copy_up: bool,
    /// Bind a symbolic link itself.
    pub source_nofollow: bool,
    /// Make the same symbolic link if the source is one.
    pub copy_symlink: bool,
    /// Mount over a symbolic link itself.
    pub target_nofollow: bool,
    /// Something is said of the mount itself, or of its file system: a bind takes no flag over that is not said.
    pub about_mount: bool,
    /// The access time is given, not only one way of it declined.
    pub gives_atime: bool,
    /// The rest, for the file system: index of the option, key and value.
    pub data: Vec<(usize, String, Option<String>)>,
}

/// Reads the options of one mount; of contradicting ones the last wins.
#[must_use]
pub fn parse(options: &[String]) -> MountOptions {
    let mut read = MountOptions::default();
    let (mut top, mut below) = (None, None);
    for (index, option) in options.iter().enumerate() {
        match effect(option) {
            None => read.data.extend(split(option).into_iter().map(|(key, value)| (index, key, value))),
            Some(Effect::Atime { value, on, tree }) => {
                let state = if tree { &mut below } else { &mut top };
                read.about_mount |= !tree;
                read.gives_atime |= !tree && on;
                *state = choose(*state, value, on);
            }
            Some(effect) => read.apply(effect),
        }
    }
    read.attrs.atime(top);
    read.tree.atime(below);
    read
}

/// The access time attribute after an option; `None` leaves it as it is.
fn choose(state: Option<u64>, value: u64, on: bool) -> Option<u64> {
    match state {
        _ if on => Some(value),
        // relatime is the default: declining it changes nothing that was not asked for (as mount(8)).
        _ if value == RELATIME => state.filter(|held| *held != RELATIME),
        Some(other) if other != value => state,
        _ => Some(RELATIME),
    }
}

impl Attrs {
    fn switch(&mut self, bit: u64, on: bool) {
        let (to, from) = if on { (&mut self.set, &mut self.clear) } else { (&mut self.clear, &mut self.set) };
        *to |= bit;
        *from &= !bit;
    }

    /// mount_setattr(2): a new value needs the whole of MOUNT_ATTR__ATIME cleared.
    fn atime(&mut self, value: Option<u64>) {
        if let Some(value) = value {
            self.set |= value;
            self.clear |= libc::MOUNT_ATTR__ATIME;
        }
    }
}

/// What a bind does not take over from its source once anything is said of the mount.
const FLAGS: u64 = RDONLY | NOSUID | NODEV | NOEXEC | NOSYMFOLLOW;

impl MountOptions {
    /// Attributes of a bind's own mount (docs/mount-flags.md). Nothing said: its source's. Anything said: exactly that; the
    /// access time and `nodiratime` are one group of their own, as they are for mount(2). Options for the whole tree come
    /// last, so what they settle is left to them.
    #[must_use]
    pub(crate) fn of_bind(&self) -> Attrs {
        let Attrs { mut set, mut clear, .. } = self.attrs;
        if set & NODIRATIME != 0 {
            clear |= libc::MOUNT_ATTR__ATIME;
        } else if self.gives_atime {
            clear |= NODIRATIME;
        }
        let settled = self.tree.set | self.tree.clear;
        (set, clear) = (set & !settled, clear & !settled);
        let implied = if self.about_mount { FLAGS & !(set | clear | settled) } else { 0 };
        Attrs { set, clear, implied }
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            // Access times are kept by `parse`.
            Effect::Nothing | Effect::Atime { .. } => {}
            Effect::Attr { bit, on, tree } => {
                self.about_mount |= !tree;
                let attrs = if tree { &mut self.tree } else { &mut self.attrs };
                attrs.switch(bit, on);
            }
            Effect::Super { name, on } => {
                self.about_mount = true;
                self.superblock.retain(|other| *other != name);
                if on {
                    self.superblock.push(name);
                }
            }
            Effect::Propagation { flag, tree } => {
                self.propagation.push(Propagation { flag, recursive: tree })
            }
            // As mount(8): `bind` does not take `rbind` back.
            Effect::Bind { tree } => self.bind = Some(tree || self.bind == Some(true)),
            Effect::Idmap { tree } => self.idmap = Some(tree),
            Effect::Switch(Switch::Remount) => self.remount = true,
            Effect::Switch(Switch::CopyUp) => self.copy_up = true,
            Effect::Switch(Switch::SourceNofollow) => self.source_nofollow = true,
            Effect::Switch(Switch::CopySymlink) => self.copy_symlink = true,
            Effect::Switch(Switch::TargetNofollow) => self.target_nofollow = true,
        }
    }
}

/// File system data as keys and values. mount(2) takes one string with commas, so several may stand in one option;
/// commas inside double quotes (SELinux contexts) and behind a backslash (overlay) belong to the value.
fn split(data: &str) -> Vec<(String, Option<String>)> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, c) in data.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                parts.push(&data[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&data[start..]);
    let pair = |part: &str| match part.split_once('=') {
        // fsconfig(2) has no quoting.
        Some((key, value)) => (key.to_owned(), Some(unquote(value).to_owned())),
        None => (part.to_owned(), None),
    };
    parts.into_iter().filter(|part| !part.is_empty()).map(pair).collect()
}

fn unquote(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}
