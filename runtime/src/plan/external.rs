// SPDX-License-Identifier: Apache-2.0
//! What of a container is not its own: mounts of the host's and namespaces of others. A checkpoint does not hold them, a
//! restore brings them along.

#![forbid(unsafe_code)]

use super::Plan;
use super::devices::Via;
use super::mounts::{MountSource, MountStep};
use super::namespaces::{Join, NsKind};

/// Which of the plan's mounts it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExternalSource {
    /// The mount step of this index.
    Mount(usize),
    /// The device of this index.
    Device(usize),
}

/// A mount that comes from the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalMount<'a> {
    /// JSON pointer.
    pub at: &'a str,
    /// Absolute path inside, as the configuration has it: what it is called in the images, as by runc.
    pub target: &'a str,
    /// Where the host's half finds it.
    pub source: ExternalSource,
}

impl Plan {
    /// Mounts that come from the host, in the order in which they are made. A bind from below the rootfs is the
    /// container's own, as CRIU sees it.
    #[must_use]
    pub fn external_mounts(&self) -> Vec<ExternalMount<'_>> {
        let mounts = self.mounts.iter().enumerate().filter_map(|(index, step)| match step {
            MountStep::Mount(mount) => match mount.source {
                MountSource::Bind { inside: None, .. } => Some(ExternalMount {
                    at: &mount.at,
                    target: &mount.target,
                    source: ExternalSource::Mount(index),
                }),
                _ => None,
            },
            _ => None,
        });
        let devices = self.devices.iter().enumerate().filter(|(_, device)| device.via != Via::Mknod);
        let devices = devices.map(|(index, device)| ExternalMount {
            at: &device.at,
            target: &device.path,
            source: ExternalSource::Device(index),
        });
        mounts.chain(devices).collect()
    }
}

/// What a namespace is called that a checkpoint does not hold; runc's and crun's word, too. `None` for kinds that CRIU joins by path.
#[must_use]
pub fn namespace_key(join: &Join) -> Option<&'static str> {
    match join.kind {
        NsKind::Network => Some("extRootNetNS"),
        NsKind::Pid => Some("extRootPidNS"),
        _ => None,
    }
}
