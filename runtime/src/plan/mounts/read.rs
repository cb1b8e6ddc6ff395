// SPDX-License-Identifier: Apache-2.0
//! One entry of `mounts`: what it is, where it goes, what it may not be.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::options::{self, MountOptions};
use super::{Attrs, Idmap, Mount, MountContext, MountSource, MountStep, cgroups, idmap};
use crate::error::{Error, Kind, Result};
use crate::facts::paths::{clean, on_host};
use crate::plan::namespaces::NsKind;
use crate::plan::text::{filled, item, plain};
use crate::spec::{self, Spec};

/// Files of procfs that may be covered, by lxcfs and its like; everything else in /proc may not, since a process
/// that looks at /proc has to see the kernel's (CVE-2019-16884). The list is runc's.
const COVERABLE: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/uptime",
];

/// Most that any mount call takes: mount(2) copies one page. (fsconfig(2) takes 255 bytes; the compiler turns to
/// mount(2) for longer ones, which are the layers of an overlay.)
const LONGEST: usize = 4095;

/// No file system has near as many parameters; it bounds the work done on a hostile list.
const PARAMETERS: usize = 1000;

/// One entry, read and half understood.
pub(super) struct Reading<'a> {
    /// JSON pointer.
    pub(super) at: String,
    /// Clean absolute path inside.
    pub(super) target: String,
    /// Its place in the list.
    index: usize,
    pub(super) options: MountOptions,
    /// The file system type, if one is given.
    kind: Option<&'a str>,
    pub(super) source: Option<&'a str>,
    /// The mapping of ids, if one is asked for.
    pub(super) idmap: Option<Idmap>,
    label: Option<&'a str>,
    /// What else decides.
    pub(super) context: &'a MountContext<'a>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(
        mount: &'a spec::Mount,
        index: usize,
        spec: &'a Spec,
        context: &'a MountContext,
        warnings: &mut Vec<String>,
    ) -> Result<Reading<'a>> {
        let at = item("/mounts", index);
        let target = plain(format_args!("{at}/destination"), &mount.destination)?;
        if target.is_empty() {
            return Err(Error::invalid(format_args!("{at}/destination"), "a mount needs a destination"));
        }
        if !target.starts_with('/') {
            // The specification wants it absolute since 1.0; Docker volumes of old configurations are not.
            warnings
                .push(format!("config.json {at}/destination: relative path {target:?} is taken as below /"));
        }
        let text = |field: &str, text: Option<&'a str>| match filled(text) {
            Some(text) => plain(format_args!("{at}/{field}"), text).map(Some),
            None => Ok(None),
        };
        let (kind, source) = (text("type", mount.kind.as_deref())?, text("source", mount.source.as_deref())?);
        for (index, option) in mount.options.iter().enumerate() {
            plain(format_args!("{at}/options/{index}"), option)?;
        }
        let label = super::label(spec)?;
        let mut options = options::parse(&mount.options);
        let idmap = idmap::decide_mount_id_map(mount, &mut options, &at, context)?;
        let target = clean(target);
        Ok(Reading { at, target, index, options, kind, source, idmap, label, context })
    }

    /// Adds what this entry asks for.
    pub(super) fn steps(self, steps: &mut Vec<MountStep>, warnings: &mut Vec<String>) -> Result<()> {
        if self.options.remount {
            steps.push(self.remount()?);
            return Ok(());
        }
        if self.options.bind.is_some() || self.kind == Some("bind") {
            self.ignored_by_binds(warnings);
            let source = self.bind(steps)?;
            let mount = self.mount(source)?;
            let close = self.closes_sysfs(&mount);
            self.push_bind(mount, close, steps);
            return Ok(());
        }
        match self.kind {
            None | Some("none") => {
                let text = "a mount needs a file system type or the option bind";
                Err(Error::invalid(format_args!("{}/type", self.at), text))
            }
            Some("cgroup" | "cgroup2") => cgroups::steps(&self, steps),
            Some("sysfs") if self.foreign(NsKind::Network) => {
                self.push_bind(self.host_tree("/sys")?, true, steps);
                Ok(())
            }
            Some("mqueue") if self.foreign(NsKind::Ipc) => {
                self.push_bind(self.host_tree("/dev/mqueue")?, false, steps);
                Ok(())
            }
            Some(kind) => self.file_system(kind, steps),
        }
    }

    /// A mount with this entry's options.
    pub(super) fn mount(&self, source: MountSource) -> Result<Mount> {
        let in_proc = self.in_proc(Some(&source))?;
        self.needs_mount_setattr()?;
        let fs = match &source {
            MountSource::Fs { fstype, .. } => Some(fstype.as_str()),
            MountSource::Bind { .. } => None,
        };
        let attrs = match fs {
            Some(_) => Attrs::sets(self.options.attrs.set),
            None => self.options.of_bind(),
        };
        Ok(Mount {
            at: self.at.clone(),
            target: self.target.clone(),
            attrs,
            recursive: self.options.tree,
            propagation: self.options.propagation.clone(),
            // A link planted in the image must not lead the kernel's own file systems elsewhere (CVE-2023-27561).
            nofollow: matches!(fs, Some("proc" | "sysfs")),
            over_symlink: self.options.target_nofollow,
            in_proc,
            copy_up: fs == Some("tmpfs") && self.options.copy_up,
            idmap: self.idmap.clone(),
            source,
        })
    }

    /// Linux before 5.12 cannot change whole trees nor map ids; there is no other way to do it.
    fn needs_mount_setattr(&self) -> Result<()> {
        let trees = self.options.tree != Attrs::default();
        if self.context.facts.mount_setattr || !trees && self.idmap.is_none() {
            return Ok(());
        }
        let what = if trees { "attributes of a whole tree need" } else { "an id mapping needs" };
        let text = format!("{what} mount_setattr(2), which the kernel lacks (Linux 5.12 has it)");
        Err(Error::invalid(format_args!("{}/options", self.at), text).with_kind(Kind::Unsupported))
    }

    /// Whether the target may be in /proc, or an error if it may not be but is.
    fn in_proc(&self, source: Option<&MountSource>) -> Result<bool> {
        let target = self.target.as_str();
        let refuse = |text: &str| {
            let text = format!("{target:?} cannot be mounted because it is {text}");
            Err(Error::invalid(format_args!("{}/destination", self.at), text))
        };
        if target == "/proc" {
            return match source {
                Some(MountSource::Fs { fstype, .. }) if fstype != "proc" => refuse("not of type proc"),
                // Whether the source of a bind is a procfs is for the host to see; a remount changes no source.
                _ => Ok(true),
            };
        }
        if !target.starts_with("/proc/") {
            return Ok(false);
        }
        if COVERABLE.contains(&target) { Ok(true) } else { refuse("inside /proc") }
    }

    fn bind(&self, earlier: &[MountStep]) -> Result<MountSource> {
        let Some(source) = self.source else {
            return Err(Error::invalid(format_args!("{}/source", self.at), "a bind mount needs a source"));
        };
        Ok(MountSource::Bind {
            path: on_host(source, self.context.bundle),
            recursive: self.options.bind == Some(true),
            nofollow: self.options.source_nofollow,
            copy_symlink: self.options.copy_symlink,
            procfs: self.target == "/proc",
            inside: self.inside(earlier)?,
        })
    }

    /// The source as a path from the container's root, if it lies there: an earlier mount may be what is meant. An id
    /// mapping is the host's to set, on what the host has.
    fn inside(&self, earlier: &[MountStep]) -> Result<Option<String>> {
        let Some(path) = self.context.facts.within.get(&self.index) else { return Ok(None) };
        if self.idmap.is_none() {
            return Ok(Some(path.clone()));
        }
        let covers = |step: &MountStep| match step {
            MountStep::Mount(mount) => Path::new(path).starts_with(&mount.target),
            _ => false,
        };
        match earlier.iter().any(covers) {
            false => Ok(None),
            true => {
                let text = "an id-mapped bind of what an earlier mount has put there";
                Err(Error::invalid(format_args!("{}/source", self.at), text).with_kind(Kind::Unsupported))
            }
        }
    }

    /// `ro` is for the top of a bind. Configurations without root bind /sys because they may not mount a sysfs, and mean
    /// what is below as well: the control groups there are in part the user's own (CVE-2023-25809).
    fn closes_sysfs(&self, mount: &Mount) -> bool {
        let users = self.context.namespaces.has(NsKind::User) || self.context.facts.in_userns;
        let whole = matches!(&mount.source, MountSource::Bind { path, recursive: true, .. } if path == Path::new("/sys"));
        users && whole && self.readonly() && mount.recursive.clear & libc::MOUNT_ATTR_RDONLY == 0
    }

    /// A bind; `close`: of the whole of /sys, which is to be read-only with all that is mounted below it.
    fn push_bind(&self, mut mount: Mount, close: bool, steps: &mut Vec<MountStep>) {
        let facts = self.context.facts;
        let attrs = Attrs::sets(libc::MOUNT_ATTR_RDONLY);
        if close && facts.mount_setattr {
            mount.recursive.set |= attrs.set;
            mount.recursive.clear &= !attrs.set;
        } else if close {
            mount.attrs.set |= attrs.set;
            mount.attrs.clear &= !attrs.set;
            mount.attrs.implied &= !attrs.set;
        }
        let target = mount.target.clone();
        steps.push(MountStep::Mount(mount));
        // Linux before 5.12 changes one mount at a time.
        for point in facts.below_sys.iter().filter(|_| close && !facts.mount_setattr) {
            let target = format!("{target}{}", point.strip_prefix("/sys").unwrap_or(point));
            let recursive = Attrs::default();
            steps.push(MountStep::Remount { at: self.at.clone(), target, attrs, recursive, late: false });
        }
    }

    /// mount(2) ignores the data of a bind, and so do we, but not in silence: it is most often a misspelt option.
    fn ignored_by_binds(&self, warnings: &mut Vec<String>) {
        const TOLD: usize = 16;
        let data = &self.options.data;
        for (index, key, _) in data.iter().take(TOLD) {
            warnings.push(format!(
                "config.json {}/options/{index}: {key:?} means nothing to a bind mount",
                self.at
            ));
        }
        if data.len() > TOLD {
            warnings.push(format!("config.json {}/options: and {} more", self.at, data.len() - TOLD));
        }
    }

    /// The kernel lets a user namespace mount a file system that shows another namespace only if that namespace is
    /// its own: sysfs needs the network's, mqueue the IPC's. Whether a joined one is, only the kernel knows.
    fn foreign(&self, kind: NsKind) -> bool {
        let namespaces = self.context.namespaces;
        match namespaces.has_new(NsKind::User) {
            true => !namespaces.has_new(kind),
            false => {
                (namespaces.joins(NsKind::User) || self.context.facts.in_userns) && !namespaces.has(kind)
            }
        }
    }

    /// The host's tree instead of a file system that could not be mounted (crun and runc fall back likewise). What is
    /// below must not become writable by this: the whole of /sys is to be read-only (CVE-2023-25809).
    fn host_tree(&self, path: &str) -> Result<Mount> {
        let source = MountSource::Bind {
            path: PathBuf::from(path),
            recursive: true,
            nofollow: false,
            copy_symlink: false,
            procfs: false,
            inside: None,
        };
        let mut mount = self.mount(source)?;
        only_sets(&mut mount.attrs);
        mount.nofollow = path == "/sys";
        Ok(mount)
    }

    fn file_system(&self, kind: &str, steps: &mut Vec<MountStep>) -> Result<()> {
        // Device nodes, links and the targets of later mounts are still to be made in these.
        let late = self.readonly() && (kind == "tmpfs" || self.target == "/dev");
        let data = self.data(kind)?;
        let mapped = self.idmap.is_some();
        // What shows a namespace must be mounted in it, which is where no other mapping can be; and no kernel maps them.
        if mapped && matches!(kind, "proc" | "sysfs" | "mqueue" | "devpts") {
            return Err(Error::invalid(&self.at, format!("a {kind} cannot be id-mapped")));
        }
        if mapped && self.options.copy_up {
            let error =
                Error::invalid(format_args!("{}/options", self.at), "tmpcopyup of an id-mapped tmpfs");
            return Err(error.with_kind(Kind::Unsupported));
        }
        let mut mount = self.mount(MountSource::Fs {
            fstype: kind.to_owned(),
            source: self.source.map(str::to_owned),
            mode_of_target: kind == "tmpfs" && !mapped && !data.iter().any(|(key, _)| key == "mode"),
            options: self.parameters(kind, data, late),
        })?;
        if late {
            mount.attrs.set &= !libc::MOUNT_ATTR_RDONLY;
        }
        steps.push(MountStep::Mount(mount));
        if late {
            let attrs = Attrs::sets(libc::MOUNT_ATTR_RDONLY);
            let (at, target) = (self.at.clone(), self.target.clone());
            steps.push(MountStep::Remount { at, target, attrs, recursive: Attrs::default(), late });
        }
        Ok(())
    }

    /// Whether the mount itself is to be read-only.
    pub(super) fn readonly(&self) -> bool {
        self.options.attrs.set & libc::MOUNT_ATTR_RDONLY != 0
    }

    /// All parameters for fsconfig(2): flags of the superblock, the entry's data, the label.
    fn parameters(
        &self,
        kind: &str,
        data: Vec<(String, Option<String>)>,
        late: bool,
    ) -> Vec<(String, Option<String>)> {
        let mut parameters: Vec<_> =
            self.options.superblock.iter().map(|name| (name.to_string(), None)).collect();
        if self.readonly() && !late {
            parameters.push(("ro".to_owned(), None));
        }
        parameters.extend(data);
        // SELinux gives these their labels itself, and refuses another (as runc).
        let labelled = !matches!(kind, "proc" | "sysfs" | "mqueue");
        if let Some(label) = self.label.filter(|_| labelled) {
            parameters.push((self.context.mount_context.to_owned(), Some(label.to_owned())));
        }
        parameters
    }

    /// The entry's own data, with the ids in it checked against the mapping of the new user namespace.
    pub(super) fn data(&self, kind: &str) -> Result<Vec<(String, Option<String>)>> {
        if self.options.data.len() > PARAMETERS {
            let text =
                format!("{} parameters of a file system, more than {PARAMETERS}", self.options.data.len());
            return Err(Error::invalid(format_args!("{}/options", self.at), text));
        }
        let mut data = Vec::with_capacity(self.options.data.len());
        for (index, key, value) in &self.options.data {
            let length = key.len().max(value.as_ref().map_or(0, String::len));
            if length > LONGEST {
                let text = format!("{length} bytes are more than mount(2) takes, {LONGEST}");
                let error = Error::invalid(format_args!("{}/options/{index}", self.at), text);
                return Err(error.with_kind(Kind::Unsupported));
            }
            if self.mapped(key, value.as_deref()) {
                data.push((key.clone(), value.clone()));
            } else if kind != "devpts" {
                let text = format!(
                    "{key}={} is not mapped in the user namespace",
                    value.as_deref().unwrap_or_default()
                );
                return Err(Error::invalid(format_args!("{}/options/{index}", self.at), text));
            }
            // Every generated configuration asks for gid=5 on devpts; without that group the ptys keep the user's,
            // which is what happens on a host without it as well.
        }
        Ok(data)
    }

    fn mapped(&self, key: &str, value: Option<&str>) -> bool {
        let id = value.and_then(|value| value.parse().ok());
        match (self.context.ids, key, id) {
            (Some(ids), "uid", Some(id)) => ids.host_uid(id).is_some(),
            (Some(ids), "gid", Some(id)) => ids.host_gid(id).is_some(),
            _ => true,
        }
    }

    /// Changes the mount that an earlier entry made: its attributes only. Superblocks may be shared with the host.
    fn remount(&self) -> Result<MountStep> {
        self.in_proc(None)?;
        if let Some((index, key, _)) = self.options.data.first() {
            let text =
                format!("{key:?} cannot be changed by a remount, which is for the mount's own options");
            return Err(Error::invalid(format_args!("{}/options/{index}", self.at), text));
        }
        let whole = !self.options.propagation.is_empty() || self.idmap.is_some();
        if whole || !self.options.superblock.is_empty() {
            let text = "a remount cannot change propagation, id mapping or superblock";
            return Err(
                Error::invalid(format_args!("{}/options", self.at), text).with_kind(Kind::Unsupported)
            );
        }
        let (at, target, attrs) = (self.at.clone(), self.target.clone(), self.options.attrs);
        Ok(MountStep::Remount { at, target, attrs, recursive: self.options.tree, late: false })
    }
}

/// Leaves of the attributes only what may be set on a tree of the host in any user namespace: what is cleared and the
/// access time may be locked there (mount_namespaces(7)), and were meant for a file system of the container's own.
pub(super) fn only_sets(attrs: &mut Attrs) {
    *attrs = Attrs::sets(attrs.set & !libc::MOUNT_ATTR__ATIME);
}
