// SPDX-License-Identifier: Apache-2.0
//! THE ORDER of a `restore`: the host's half as for a `create`, and CRIU in the stage's place.

#![forbid(unsafe_code)]

use super::Builder;
use super::mounting::Binds;
use crate::cgroup::RulesFrom;
use crate::plan::Plan;
use crate::plan::external::{ExternalSource, namespace_key};
use crate::plan::mounts::{MountSource, MountStep};
use crate::plan::namespaces::NsKind;
use crate::program::op::{HostOp, Op, Ref, Step};
use crate::program::{CriuOp, MountPoint, Program, RestorePoint, RestoreSources};

/// `restore`: from a checkpoint to a container whose processes run on.
pub fn restore(plan: &Plan) -> Program {
    let mut b = Builder::new(plan.set_attr);
    let b = &mut b;
    b.prologue(plan);
    let rootfs = b.rootfs(plan);
    let binds = b.bind_sources(plan);
    let joins = b.namespace_files(plan);
    b.host("", HostOp::MountPoints(mount_points(plan, &binds, index(rootfs))));
    b.host("", HostOp::Restore(sources(plan, &binds, rootfs, &joins)));
    if plan.rdt.is_some() {
        b.host("/linux/intelRdt", HostOp::RdtPlace);
    }
    b.criu(CriuOp::Namespaces);
    b.host("", HostOp::AwaitCriu(RestorePoint::Namespaces));
    let hooks = !plan.hooks.prestart.is_empty() || !plan.hooks.create_runtime.is_empty();
    // A hook may set up the network in which the connections were, and CRIU's own lock comes only afterwards.
    let holds_packets = hooks && plan.namespaces.has_new(NsKind::Network);
    if holds_packets {
        b.host("/hooks/createRuntime", HostOp::HoldPackets);
    }
    if plan.namespaces.has_new(NsKind::Network) {
        b.host("", HostOp::Loopback);
    }
    if hooks {
        b.host("/hooks/createRuntime", HostOp::Hooks);
    }
    b.criu(CriuOp::Mounts);
    b.criu(CriuOp::Processes);
    b.host("", HostOp::AwaitCriu(RestorePoint::Processes));
    if plan.cgroup.device_rules != RulesFrom::Birth {
        b.host("/linux/resources/devices", HostOp::DeviceRules);
    }
    b.host("", HostOp::Compare);
    if holds_packets {
        b.host("/hooks/createRuntime", HostOp::LetPacketsIn);
    }
    b.host("", HostOp::Keep);
    b.host("", HostOp::Identify);
    b.host("", HostOp::Record);
    b.host("", HostOp::Resume);
    b.host("/hooks/poststart", HostOp::Poststart);
    core::mem::take(&mut b.program)
}

impl Builder {
    fn criu(&mut self, op: CriuOp) {
        self.program.steps.push(Step { at: String::new(), op: Op::Criu(op) });
    }
}

/// The source's index; the rootfs's where there is none.
fn index(source: Ref) -> usize {
    if let Ref::Source(index) = source { index } else { 0 }
}

/// Where the configuration's mounts go: in the rootfs, or in what was bound over it before. What lies in a file system of the
/// container's own comes with the images.
fn mount_points(plan: &Plan, binds: &Binds, rootfs: usize) -> Vec<MountPoint> {
    // The mounts so far, with the tree that is bound there, if one is.
    let mut mounted: Vec<(&str, Option<usize>)> = vec![("/", Some(rootfs))];
    let mut points = Vec::new();
    for (step, source) in plan.mounts.iter().zip(&binds.mounts) {
        let MountStep::Mount(mount) = step else { continue };
        let bound = match (&mount.source, source) {
            (MountSource::Bind { .. }, Ref::Source(index)) => Some(*index),
            _ => None,
        };
        let over = mounted.iter().rev().find_map(|(point, tree)| {
            let rest = mount.target.strip_prefix(point.trim_end_matches('/'))?;
            (rest.is_empty() || rest.starts_with('/')).then_some((*tree, rest))
        });
        if let Some((Some(tree), rest)) = over.filter(|(_, rest)| !rest.is_empty()) {
            points.push(MountPoint { tree, path: rest.to_owned(), like: bound });
        }
        mounted.push((&mount.target, bound));
    }
    // There CRIU puts the old root for a moment. Without it it makes a directory in the root, which that may not allow any more.
    if plan.rootfs.readonly {
        points.push(MountPoint { tree: rootfs, path: "/tmp".to_owned(), like: None });
    }
    points
}

fn sources(plan: &Plan, binds: &Binds, rootfs: Ref, joins: &[(NsKind, Ref, String)]) -> RestoreSources {
    let mut sources =
        RestoreSources { rootfs: index(rootfs), masks: !plan.masked.is_empty(), ..RestoreSources::default() };
    for mount in plan.external_mounts() {
        let source = match mount.source {
            ExternalSource::Mount(index) => binds.mounts.get(index),
            ExternalSource::Device(index) => binds.devices.get(index),
        };
        if let Some(&Ref::Source(index)) = source {
            sources.mounts.push((index, mount.target.to_owned()));
        }
    }
    for (join, (_, source, _)) in plan.namespaces.join.iter().zip(joins) {
        match (namespace_key(join), source) {
            (Some(key), Ref::Source(index)) => sources.namespaces.push((*index, key)),
            _ => sources.join.push((join.kind.file(), join.path.clone())),
        }
    }
    sources
}
