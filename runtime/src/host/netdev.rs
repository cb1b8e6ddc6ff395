// SPDX-License-Identifier: Apache-2.0
//! Moving network devices into the container and, should the launch fail, back. Counterpart: `plan/netdev.rs`.
//!
//! A device that moves loses its addresses and its being up (net/core/dev.c: dev_change_net_namespace); both are given
//! to it again. Nothing is moved back when a container ends: its namespace may outlive it, and if not, the kernel
//! returns physical devices (config-linux.md#network-devices).

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::netlink::{InterfaceAddress, Link, Netlink};
use crate::error::{Context, Error, Kind, Result, WithStep};
use crate::plan::netdev::NetDevice;

/// Where devices are moved to, and from.
pub(super) struct NetnsPair {
    host: Netlink,
    host_file: OwnedFd,
    inside: Netlink,
    inside_file: OwnedFd,
}

/// A device as it was before it was moved.
pub(super) struct Moved {
    namespaces: std::rc::Rc<NetnsPair>,
    before: Link,
    addresses: Vec<InterfaceAddress>,
    /// Where it is now; nothing before it was moved.
    now: std::cell::Cell<Option<u32>>,
}

impl NetnsPair {
    /// Ours and the one of process `pid`, an unreaped child of ours.
    pub(super) fn of(pid: i32) -> Result<NetnsPair> {
        let open = |path: String| {
            rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .call(|| format!("open({path})"))
        };
        let host_file = open("/proc/thread-self/ns/net".to_owned())?;
        let inside_file = open(format!("/proc/{pid}/ns/net"))?;
        let inside = Netlink::open_in(inside_file.as_fd())?;
        Ok(NetnsPair { host: Netlink::open()?, host_file, inside, inside_file })
    }
}

impl Moved {
    /// Looks at a device that is to be moved; touches nothing.
    ///
    /// # Errors
    /// No such device, or its name inside is taken.
    pub(super) fn prepare(namespaces: &std::rc::Rc<NetnsPair>, device: &NetDevice) -> Result<Moved> {
        let wrong = |text| Error::new(Kind::Invalid, text).at(format!("config.json {}", device.at));
        let before = namespaces.host.links()?.into_iter().find(|link| link.name == device.host);
        let Some(before) = before else {
            return Err(wrong(format!("network device {:?} does not exist", device.host)));
        };
        if namespaces.inside.links()?.iter().any(|link| link.name == device.inside) {
            return Err(wrong(format!(
                "a network device {:?} exists in the container already",
                device.inside
            )));
        }
        let addresses = namespaces.host.addresses(before.index)?;
        let (namespaces, now) = (std::rc::Rc::clone(namespaces), std::cell::Cell::new(None));
        Ok(Moved { namespaces, before, addresses, now })
    }

    /// Moves it, sets it up and gives it its addresses.
    ///
    /// # Errors
    /// What the kernel says of a device that may not leave (EINVAL, EPERM), or of its name (EEXIST).
    pub(super) fn go(&self, device: &NetDevice) -> Result<()> {
        let NetnsPair { host, inside, inside_file, .. } = &*self.namespaces;
        let known: Vec<u32> = inside.links()?.iter().map(|link| link.index).collect();
        let sent = host.send_away(self.before.index, &device.inside, inside_file.as_fd());
        // It keeps its number unless that is taken inside, so the one that is new is it; also after a failure, which
        // may have come between the move and the change of its name.
        let new = |link: &Link| !known.contains(&link.index);
        let mut arrived: Vec<Link> = inside.links()?.into_iter().filter(new).collect();
        // In a namespace that others live in, others may add some at this moment.
        arrived.sort_by_key(|link| link.index != self.before.index && link.name != device.inside);
        let arrived = arrived.into_iter().next();
        self.now.set(arrived.as_ref().map(|link| link.index));
        let field = || format!("config.json {}", device.at);
        sent.step(field)?;
        let link = arrived.ok_or_else(|| Error::new(Kind::Os, "it did not arrive").at(field()))?;
        inside.up(link.index).step(field)?;
        self.addresses.iter().try_for_each(|one| inside.add(&link, &self.before.name, one)).step(field)
    }

    /// Brings it back as it was.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn back(&self) -> Result<()> {
        let Some(index) = self.now.take() else { return Ok(()) };
        let NetnsPair { host, inside, host_file, .. } = &*self.namespaces;
        let name = self.before.name.as_str();
        inside.send_away(index, name, host_file.as_fd()).step(|| format!("network device {name}"))?;
        let back = host.links()?.into_iter().find(|link| link.name == name);
        let Some(link) = back else { return Ok(()) };
        if self.before.up {
            host.up(link.index)?;
        }
        self.addresses.iter().try_for_each(|one| host.add(&link, name, one))
    }
}
