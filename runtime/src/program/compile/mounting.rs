// SPDX-License-Identifier: Apache-2.0
//! The file system's part of THE ORDER: sources, mounts, devices, terminal, hardening.

#![forbid(unsafe_code)]

use std::sync::Arc;

use super::{Builder, slots};
use crate::plan::Plan;
use crate::plan::devices::{Device, Via};
use crate::plan::mounts::{Attrs, Mount, MountSource, MountStep, Propagation};
use crate::plan::namespaces::NsKind;
use crate::program::op::{FsTree, HostOp, Must, Node, Ref, Source, StageOp, Tree};
use crate::program::place::Place;
use crate::stage::wire;

/// MOUNT_ATTR_RDONLY (linux/mount.h).
const RDONLY: u64 = 1;
/// Longest value that fsconfig(2) takes.
pub(super) const FSCONFIG_MAX: usize = 255;

/// The one attribute that mount(2) knows from Linux 5.10 on, and fsmount(2) and mount_setattr(2) from 5.14 on: it is set
/// last, when the mount is attached and the stage has both ways (`stage/remount.rs`).
const LAST: u64 = libc::MOUNT_ATTR_NOSYMFOLLOW;

fn before_attach(attrs: Attrs) -> Attrs {
    Attrs { set: attrs.set & !LAST, clear: attrs.clear & !LAST, ..attrs }
}

fn after_attach(attrs: Attrs) -> Attrs {
    Attrs { set: attrs.set & LAST, clear: attrs.clear & LAST, implied: 0 }
}

/// The bind sources of a plan, in the order of its mounts and then of its devices.
pub(super) struct Binds {
    pub(super) mounts: Vec<Ref>,
    pub(super) devices: Vec<Ref>,
}

/// What the top of a bind's source must be.
fn must(procfs: bool, copy_symlink: bool) -> Must {
    match (procfs, copy_symlink) {
        (true, _) => Must::Proc,
        (false, true) => Must::LinkOrTree,
        (false, false) => Must::Anything,
    }
}

/// How a bind's propagation changes, in order. One that its options make a slave must not have left its peers before, as a private or
/// unbindable root has it: it would be nobody's.
fn changes(default: Propagation, mount: &Mount) -> Vec<Propagation> {
    let alone = matches!(mount.source, MountSource::Bind { recursive: false, .. });
    let first = mount.propagation.first();
    let is_slave = first.is_some_and(|first| first.flag == libc::MS_SLAVE && (first.recursive || alone));
    let default = (!is_slave).then_some(default);
    default.into_iter().chain(mount.propagation.iter().copied()).collect()
}

impl Builder {
    pub(super) fn bind_sources(&mut self, plan: &Plan) -> Binds {
        let default = plan.rootfs.propagation;
        let mounts = self.mount_sources(plan);
        let devices = plan.devices.iter().map(|device| self.device_source(device, default)).collect();
        Binds { mounts, devices }
    }

    pub(super) fn mount_sources(&mut self, plan: &Plan) -> Vec<Ref> {
        // A shared root keeps binds in their peer groups; otherwise the host's mounts may come in, none goes out.
        let default = plan.rootfs.propagation;
        let source = |step: &MountStep| match step {
            MountStep::Mount(mount) => self.mount_source(mount, default),
            _ => Ref::Nothing,
        };
        plan.mounts.iter().map(source).collect()
    }

    fn mount_source(&mut self, mount: &Mount, default: Propagation) -> Ref {
        let tree = match (&mount.source, &mount.idmap) {
            (MountSource::Fs { .. }, None) => return Ref::Nothing,
            (MountSource::Fs { fstype, source, options, .. }, Some(idmap)) => Source::Fs(FsTree {
                fstype: fstype.clone(),
                source: source.clone(),
                options: options.clone(),
                attrs: before_attach(mount.attrs).set,
                all_attrs: mount.recursive,
                propagation: mount.propagation.clone(),
                idmap: idmap.clone(),
            }),
            // Copied when its turn comes.
            (MountSource::Bind { inside: Some(_), .. }, _) => return Ref::Nothing,
            (MountSource::Bind { path, recursive, nofollow, copy_symlink, procfs, .. }, idmap) => {
                let now = self.set_attr;
                let propagation = changes(default, mount);
                Source::Tree(Tree {
                    path: path.clone(),
                    recursive: *recursive,
                    nofollow: *nofollow,
                    attrs: if now { before_attach(mount.attrs) } else { Attrs::default() },
                    all_attrs: mount.recursive,
                    propagation: if now { propagation } else { Vec::new() },
                    idmap: idmap.clone(),
                    must: must(*procfs, *copy_symlink),
                })
            }
        };
        match tree {
            Source::Tree(tree) => self.tree(&mount.at, tree),
            other => self.open(&mount.at, other),
        }
    }

    /// A copy of what an earlier mount, or the image, has below the root.
    fn copy_inside(&mut self, mount: &Mount, held: Option<Ref>, default: Propagation) -> Ref {
        let MountSource::Bind { recursive, nofollow, copy_symlink, procfs, inside: Some(path), .. } =
            &mount.source
        else {
            return Ref::Nothing;
        };
        let slot = if let Some(Ref::Slot(slot)) = held { slot } else { slots::MOUNT };
        let (path, recursive, nofollow) = (path.clone(), *recursive, *nofollow || *copy_symlink);
        let must = must(*procfs, *copy_symlink);
        self.stage(&mount.at, StageOp::CopyInside { slot, path, recursive, nofollow, must });
        let copy = Ref::Slot(slot);
        // The fallback for mount_setattr(2) comes once it is attached.
        if self.set_attr {
            self.propagate(&mount.at, copy, &changes(default, mount));
            self.set_attr(&mount.at, copy, mount.recursive, 0, true);
            self.set_attr(&mount.at, copy, before_attach(mount.attrs), 0, false);
        }
        copy
    }

    fn device_source(&mut self, device: &Device, default: Propagation) -> Ref {
        let source = match &device.via {
            Via::Mknod => return Ref::Nothing,
            Via::Node { path, uid, gid } => {
                let (mode, rdev, uid, gid) = (device.mode, device.rdev, *uid, *gid);
                Source::Node(Node { mode, rdev, uid, gid, path: path.into() })
            }
            Via::Bind(path) => Source::Tree(Tree {
                path: path.into(),
                recursive: false,
                nofollow: false,
                attrs: Attrs::default(),
                all_attrs: Attrs::default(),
                propagation: if self.set_attr { vec![default] } else { Vec::new() },
                idmap: None,
                must: Must::Anything,
            }),
        };
        match source {
            Source::Tree(tree) => self.tree(&device.at, tree),
            other => self.open(&device.at, other),
        }
    }

    pub(super) fn mounts(&mut self, plan: &Plan, binds: &Binds) {
        for (index, (step, source)) in plan.mounts.iter().zip(&binds.mounts).enumerate() {
            let held = self.anchors.of_mount(index);
            match step {
                MountStep::Mount(mount @ Mount { source: MountSource::Fs { .. }, .. })
                    if *source == Ref::Nothing =>
                {
                    let slot = if let Some(Ref::Slot(slot)) = held { slot } else { slots::MOUNT };
                    self.context = self.inside.context_of(index);
                    let slot = self.context.unwrap_or(slot);
                    self.file_system(mount, slot, plan.mount_label.as_deref());
                }
                MountStep::Mount(mount) => {
                    let source = match source {
                        Ref::Nothing => self.copy_inside(mount, held, plan.rootfs.propagation),
                        source => *source,
                    };
                    self.bind(mount, source, plan.rootfs.propagation);
                    // As the root it stays open.
                    if mount.target != "/" && held.is_none() {
                        self.stage(&mount.at, StageOp::CloseFd(source));
                    }
                }
                MountStep::Symlink { at, path, target } => {
                    let (place, target) = (Place::named(path), target.clone());
                    self.stage(at, StageOp::Symlink { place, target });
                }
                MountStep::Remount { late: false, .. } => self.remount(step),
                // Not before the devices are in place.
                MountStep::Remount { .. } => {}
            }
        }
    }

    /// Those that had to wait for devices and links.
    pub(super) fn late_remounts(&mut self, plan: &Plan) {
        for (index, step) in plan.mounts.iter().enumerate() {
            match (step, self.anchors.of_remount(index)) {
                (MountStep::Remount { at, attrs, recursive, .. }, Some(held)) => {
                    self.set_attr(at, held, *attrs, 0, false);
                    self.set_attr(at, held, *recursive, 0, true);
                }
                (MountStep::Remount { late: true, .. }, None) => self.remount(step),
                _ => {}
            }
        }
    }

    fn remount(&mut self, step: &MountStep) {
        let MountStep::Remount { at, target, attrs, recursive, .. } = step else { return };
        let (path, slot) = (target.clone(), slots::TARGET);
        let flags = wire::TARGET_EXISTING | wire::TARGET_IN_PROC;
        self.stage(at, StageOp::Target { slot, path, flags, like: Ref::Nothing });
        self.set_attr(at, Ref::Slot(slot), *attrs, 0, false);
        self.set_attr(at, Ref::Slot(slot), *recursive, 0, true);
    }

    fn target(&mut self, mount: &Mount, like: Ref) {
        let (flags, path) = (Self::target_flags(mount, like), mount.target.clone());
        self.stage(&mount.at, StageOp::Target { slot: slots::TARGET, path, flags, like });
    }

    fn target_flags(mount: &Mount, like: Ref) -> u16 {
        let mut flags = if like == Ref::Nothing { wire::TARGET_DIR } else { 0 };
        for (on, flag) in [
            (mount.nofollow, wire::TARGET_NOFOLLOW),
            (mount.in_proc, wire::TARGET_IN_PROC),
            (mount.over_symlink, wire::TARGET_LINK),
        ] {
            flags |= if on { flag } else { 0 };
        }
        flags
    }

    /// Attaches what the host has opened.
    fn bind(&mut self, mount: &Mount, source: Ref, default: Propagation) {
        if matches!(mount.source, MountSource::Bind { copy_symlink: true, .. }) {
            let (slot, path, flags) =
                (slots::TARGET, mount.target.clone(), Self::target_flags(mount, source));
            self.stage(&mount.at, StageOp::AttachOrLink { mount: source, slot, path, flags });
        } else {
            self.target(mount, source);
            self.attach(mount, source);
        }
        if !self.set_attr {
            self.propagate(&mount.at, source, &changes(default, mount));
            self.set_attr(&mount.at, source, mount.attrs, 0, false);
        } else {
            self.set_attr(&mount.at, source, after_attach(mount.attrs), 0, false);
        }
    }

    /// From here on the stage is in the container's network namespace, if the host makes that.
    pub(super) fn join_network(&mut self) {
        if let Some(at) = self.network.take() {
            self.stage(&at, StageOp::JoinSent(NsKind::Network.flag()));
        }
    }

    fn file_system(&mut self, mount: &Mount, slot: usize, label: Option<&str>) {
        /// These do not ask who mounts them for the network namespace; sysfs and network file systems do.
        const LOCAL: [&str; 8] =
            ["proc", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "overlay", "ramfs"];
        let MountSource::Fs { fstype, source, options, mode_of_target } = &mount.source else { return };
        if !LOCAL.contains(&fstype.as_str()) {
            self.join_network();
        }
        let at = mount.at.as_str();
        self.target(mount, Ref::Nothing);
        let long = |value: &Option<String>| value.as_ref().is_some_and(|value| value.len() > FSCONFIG_MAX);
        // mount(2) makes a procfs of the pid namespace that the stage is in.
        let elsewhere = fstype == "proc" && self.inside.joins.is_some();
        if !elsewhere && options.iter().any(|(_, value)| long(value)) {
            return self.classic(mount);
        }
        let prepared = self.context.take().is_some();
        self.context(at, slot, fstype, prepared);
        if let Some(source) = source {
            self.stage(at, StageOp::FsSet { slot, key: "source".into(), value: Some(source.clone()) });
        }
        if *mode_of_target {
            self.stage(at, StageOp::FsMode { slot, target: slots::TARGET });
        }
        for (key, value) in options {
            self.stage(at, StageOp::FsSet { slot, key: key.clone(), value: value.clone() });
        }
        self.stage(at, StageOp::FsMount { slot, attrs: before_attach(mount.attrs).set });
        // An IPC namespace has one mqueue, which has its context already.
        if let Some(label) = label.filter(|_| fstype == "mqueue") {
            self.stage(at, StageOp::Label { slot, label: label.to_owned() });
        }
        self.set_attr(at, Ref::Slot(slot), mount.recursive, 0, true);
        if mount.copy_up {
            self.stage(at, StageOp::CopyUp { slot, target: slots::TARGET });
        }
        // The fallback for mount_setattr(2) needs it attached.
        if self.set_attr {
            self.propagate(at, Ref::Slot(slot), &mount.propagation);
        }
        self.attach(mount, Ref::Slot(slot));
        if !self.set_attr {
            self.propagate(at, Ref::Slot(slot), &mount.propagation);
        }
        self.set_attr(at, Ref::Slot(slot), after_attach(mount.attrs), 0, false);
    }

    pub(super) fn propagate(&mut self, at: &str, mount: Ref, changes: &[Propagation]) {
        for change in changes {
            self.set_attr(at, mount, Attrs::default(), change.flag, change.recursive);
        }
    }

    /// Options longer than fsconfig(2) takes go through mount(2), on the target's descriptor all the same.
    fn classic(&mut self, mount: &Mount) {
        let MountSource::Fs { fstype, source, options, .. } = &mount.source else { return };
        let data: Vec<String> = options
            .iter()
            .map(|(key, value)| value.as_ref().map_or(key.clone(), |value| format!("{key}={value}")))
            .collect();
        let (fstype, source) = (fstype.clone(), source.clone().unwrap_or_default());
        // MS_RDONLY, MS_NOSUID, MS_NODEV and MS_NOEXEC have the numbers of their MOUNT_ATTR_* twins.
        let flags = mount.attrs.set & 0xf;
        let op = StageOp::MountClassic { slot: slots::TARGET, fstype, source, flags, data: data.join(",") };
        self.stage(&mount.at, op);
        // The rest is the mount's that is there now.
        let (path, slot) = (mount.target.clone(), slots::TARGET);
        let flags = wire::TARGET_EXISTING | wire::TARGET_IN_PROC;
        let set = mount.attrs.set & !0xf;
        // The access time bits are one number, which mount_setattr(2) wants cleared before it is set.
        let atime = if set & libc::MOUNT_ATTR__ATIME != 0 { libc::MOUNT_ATTR__ATIME } else { 0 };
        let attrs = Attrs { set, clear: mount.attrs.clear | atime, implied: 0 };
        if attrs != Attrs::default() || mount.recursive != Attrs::default() || !mount.propagation.is_empty() {
            self.stage(&mount.at, StageOp::Target { slot, path, flags, like: Ref::Nothing });
            self.set_attr(&mount.at, Ref::Slot(slot), attrs, 0, false);
            self.set_attr(&mount.at, Ref::Slot(slot), mount.recursive, 0, true);
            self.propagate(&mount.at, Ref::Slot(slot), &mount.propagation);
        }
    }

    fn attach(&mut self, mount: &Mount, what: Ref) {
        self.stage(&mount.at, StageOp::Attach { mount: what, target: Ref::Slot(slots::TARGET) });
        if mount.target == "/" {
            // What covers the root is the root from here on.
            self.stage(&mount.at, StageOp::Root(what));
        }
    }

    pub(super) fn set_attr(&mut self, at: &str, mount: Ref, attrs: Attrs, propagation: u64, recursive: bool) {
        if attrs != Attrs::default() || propagation != 0 {
            self.stage(at, StageOp::SetAttr { mount, attrs, propagation, recursive });
        }
    }

    pub(super) fn devices(&mut self, plan: &Plan, binds: &Binds) {
        for (device, source) in plan.devices.iter().zip(&binds.devices) {
            let at = if device.at.is_empty() { "/linux/devices" } else { device.at.as_str() };
            match device.via {
                Via::Mknod => self.stage(
                    at,
                    StageOp::Mknod {
                        place: self.place_to_make(plan, &device.path),
                        mode: device.mode,
                        rdev: device.rdev,
                        uid: device.uid,
                        gid: device.gid,
                    },
                ),
                Via::Bind(_) | Via::Node { .. } => {
                    let (slot, path) = (slots::TARGET, device.path.clone());
                    self.stage(at, StageOp::Target { slot, path, flags: 0, like: *source });
                    self.stage(at, StageOp::Attach { mount: *source, target: Ref::Slot(slot) });
                    if !self.set_attr {
                        self.propagate(at, *source, &[plan.rootfs.propagation]);
                    }
                    self.stage(at, StageOp::CloseFd(*source));
                }
            }
        }
        for (path, target) in &plan.dev_links {
            let place = self.place_to_make(plan, path);
            self.stage("", StageOp::Symlink { place, target: (*target).into() });
        }
    }

    /// Opened before the change of root, while /dev can still be written to.
    pub(super) fn terminal(&mut self, plan: &Plan) {
        let Some(size) = plan.process.as_ref().and_then(|process| process.terminal) else { return };
        let (at, master, terminal) = ("/process/terminal", slots::MASTER, slots::TERMINAL);
        self.stage(at, StageOp::Console { master, terminal, size });
        self.stage(at, StageOp::ConsoleBind(terminal));
    }

    /// Read-only root, kernel parameters, read-only and masked paths.
    pub(super) fn harden(&mut self, plan: &Plan) {
        if plan.rootfs.readonly {
            let attrs = Attrs::sets(RDONLY);
            self.set_attr("/root/readonly", Ref::Nothing, attrs, 0, false);
        }
        if self.wants_own_proc(plan) {
            self.own_proc("/linux/sysctl");
        }
        for field in &plan.sysctl {
            let (path, data) = (format!("sys/{}", field.value.0), field.value.1.clone());
            self.stage(&field.at, StageOp::Write { dir: Ref::Slot(slots::PROC), path, data });
        }
        self.harden_paths(plan, true);
        self.harden_paths(plan, false);
    }

    /// Read-only and masked paths: first those in mounts that we hold, then those that are looked up by name. What the
    /// latter lead to may be a held mount all the same (by a link, or from above), and then they copy it as it is. A hook
    /// may have mounted over a held one: then its paths are covered once more, by name.
    fn harden_paths(&mut self, plan: &Plan, held: bool) {
        let hooks = &plan.hooks;
        let again = !(hooks.prestart.is_empty()
            && hooks.create_runtime.is_empty()
            && hooks.create_container.is_empty());
        let place = |this: &Self, path: &str| match this.place_to_harden(plan, path) {
            place if place.is_anchored() == held => Some(place),
            _ => (!held && again).then(|| Place::named(path)),
        };
        for field in &plan.readonly {
            if let Some(place) = place(self, &field.value) {
                self.stage(&field.at, StageOp::Readonly(place));
            }
        }
        for field in &plan.masked {
            if let Some(place) = place(self, &field.value) {
                self.stage(&field.at, StageOp::Mask { place, label: plan.mount_label.clone() });
            }
        }
    }

    /// A procfs of our own that nobody can mount over: for everything that is written there.
    pub(super) fn own_proc(&mut self, at: &str) {
        // One of a pid namespace that is joined last was prepared before.
        let prepared = self.inside.joins.is_some();
        self.context(at, slots::PROC, "proc", prepared);
        self.stage(at, StageOp::FsMount { slot: slots::PROC, attrs: 0 });
    }

    /// Hooks that the stage runs, with the state they read on stdin.
    pub(super) fn hooks_inside(
        &mut self,
        plan: &Plan,
        kind: &'static str,
        hooks: &[crate::plan::hooks::Hook],
        status: &str,
    ) {
        if hooks.is_empty() {
            return;
        }
        let filter = plan.seccomp.as_ref().filter(|_| kind == "startContainer");
        let avoid = filter.map_or(0, super::filter::avoided_by_hooks);
        let state = Arc::new(crate::state::hook_state(&plan.id, status, &plan.bundle, &plan.annotations));
        for (number, hook) in hooks.iter().enumerate() {
            let (hook, state) = (Box::new(hook.clone()), state.clone());
            let at = hook.at.clone();
            self.stage(&at, StageOp::Hook { number: number as u16, kind, hook, state, avoid });
        }
    }

    /// The host's half of the barriers that `become_user` comes to.
    pub(super) fn ready(at: &str, terminal: bool) -> Vec<(&str, HostOp)> {
        let mut host = vec![("", HostOp::Rlimits), ("", HostOp::Schedule)];
        if terminal {
            host.push((at, HostOp::Console));
        }
        host.push(("", HostOp::Record));
        host
    }
}
