// SPDX-License-Identifier: Apache-2.0
//! Steps of a launch for fields that few configurations have: resctrl, network devices, a user namespace that is joined.
//!
//! `launch.rs` calls this room step by step.

#![forbid(unsafe_code)]

use std::rc::Rc;

use super::launch::{LaunchPurpose, STARTING, Walk};
use super::netdev::{Moved, NetnsPair};
use super::undo::Undo;
use super::{idmap, rdt, sources};
use crate::error::{Result, WithStep};
use crate::plan::namespaces::NsKind;
use crate::state::OwnMount;

impl Walk<'_> {
    /// Before anything else happens: the real mappings, which must be those that the configuration gives, if any.
    pub(super) fn joined_ids(&mut self) -> Result<()> {
        let LaunchPurpose::Create { plan, .. } = &self.given.purpose else { return Ok(()) };
        let Some(join) = plan.namespaces.join_of(NsKind::User) else { return Ok(()) };
        let mapped = plan.mounts.iter().any(crate::plan::mounts::MountStep::is_mapped);
        // Read only if there is a use for them.
        if plan.expected_ids.is_none() && !mapped && plan.group_owner.is_none() {
            return Ok(());
        }
        use std::os::fd::AsFd;
        let field = || format!("config.json {}", join.at);
        let file = sources::namespace(&join.path, NsKind::User, None).step(field)?;
        let found = idmap::read_id_maps(file.as_fd()).step(field)?;
        if let Some(expected) = &plan.expected_ids {
            idmap::compare(expected, &found)?;
        }
        self.joined = Some(found);
        Ok(())
    }

    /// In the state, and the journal, before it is attached.
    pub(super) fn own_mount(&mut self, index: usize) -> Result<()> {
        use std::os::fd::AsFd;
        let (LaunchPurpose::Create { plan, dir, state, .. }, Some(mount)) =
            (&mut self.given.purpose, self.sources.get(index))
        else {
            return Ok(());
        };
        let own = OwnMount::of(mount.as_fd(), &plan.rootfs.path)?;
        self.journal.push(Undo::Mount(own.clone()));
        state.mount = Some(own);
        dir.write(state)
    }

    /// Whoever has no power over the group's owner has the group already, or cannot give it away.
    pub(super) fn cgroup_owner(&mut self, uid: u32) -> Result<()> {
        let (LaunchPurpose::Create { plan, .. }, Some(made)) = (&self.given.purpose, &self.group) else {
            return Ok(());
        };
        let ids = plan.ids.as_ref().or(self.joined.as_ref());
        let Some(owner) = ids.and_then(|ids| ids.host_uid(uid)) else { return Ok(()) };
        match made.group.give_to(owner) {
            Err(error) if error.errno() == Some(libc::EPERM) && crate::sys::ns::unprivileged() => Ok(()),
            other => other,
        }
    }

    /// What is to be made is in the state before it is made.
    pub(super) fn rdt(&mut self) -> Result<()> {
        let LaunchPurpose::Create { plan, dir, state, .. } = &mut self.given.purpose else { return Ok(()) };
        let Some(asked) = &plan.rdt else { return Ok(()) };
        let record = rdt::prepare(asked, &plan.id)?;
        state.rdt = Some(record.clone());
        dir.write(state)?;
        self.journal.push(Undo::Rdt(record.made.clone()));
        rdt::make(asked, &record).step(|| "config.json /linux/intelRdt")
    }

    pub(super) fn rdt_place(&mut self) -> Result<()> {
        let record = match &self.given.purpose {
            LaunchPurpose::Create { state, .. } => &state.rdt,
            LaunchPurpose::Exec { rdt, .. } => rdt,
        };
        let Some(record) = record else { return Ok(()) };
        rdt::move_into_groups(record, self.pid()).step(|| "config.json /linux/intelRdt")
    }

    /// All are looked at before the first is moved.
    pub(super) fn net_devices(&mut self) -> Result<()> {
        let LaunchPurpose::Create { plan, .. } = &self.given.purpose else { return Ok(()) };
        let namespaces = Rc::new(NetnsPair::of(self.pid()).step(|| "config.json /linux/netDevices")?);
        let prepared: Vec<Rc<Moved>> = plan
            .netdevs
            .iter()
            .map(|device| Moved::prepare(&namespaces, device).map(Rc::new))
            .collect::<Result<_>>()
            .step(|| STARTING)?;
        for (moved, device) in prepared.into_iter().zip(&plan.netdevs) {
            self.journal.push(Undo::NetDevice(Rc::clone(&moved)));
            moved.go(device).step(|| STARTING)?;
        }
        Ok(())
    }
}
