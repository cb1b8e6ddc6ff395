// SPDX-License-Identifier: Apache-2.0
//! The cases, a file per chapter of the OCI runtime specification or of runc's command line.
//!
//! A case's name is `chapter/what-holds`. It must assert something, must pass on runc and crun unless it carries the
//! reason why not, and leaves the host as it found it: the warden checks that after every case.

#![forbid(unsafe_code)]

mod attacks;
mod attacks_inside;
mod bad_files;
mod bad_input;
mod bad_linux;
mod bad_values;
mod calls;
mod cgroup_devices;
mod cgroup_places;
mod cgroup_views;
mod cgroups;
mod checkpoint;
mod checkpoint_faults;
mod checkpoint_flags;
mod checkpoint_matrix;
mod checkpoint_mounts;
mod checkpoint_odd;
mod checkpoint_scenes;
mod checkpoint_userns;
mod cli;
mod clocks;
mod crash;
mod credentials;
mod default_profiles;
mod doctor;
mod events;
mod exec;
mod faults;
mod fields;
mod forks;
mod halted;
mod histories;
mod hooks;
mod hunted;
mod inherited;
mod inner_binds;
mod lifecycle;
mod limits;
mod limits_bite;
mod listed;
mod lsm;
mod mempolicy;
mod mistakes;
mod mount_flags;
mod mount_rows;
mod mounts;
mod mounts_later;
mod namespaces;
mod nested;
mod netdev;
mod notify;
mod odd;
mod overmounted;
mod owners;
mod process;
mod procfs_writes;
mod propagation;
mod races;
mod rdt;
mod rootfs;
mod rootless;
mod rootless_groups;
mod rootless_mounts;
mod seccomp;
mod seccomp_compat;
mod seccomp_order;
mod shared_mounts;
mod signals;
mod soak;
mod systemd;
mod systemd_trouble;
mod systemd_updates;
mod terminal;
mod trace;
mod update;

use crate::harness::case::Case;

/// Every case, in the order in which they run.
pub fn all() -> Vec<Case> {
    let chapters = [
        lifecycle::cases,
        signals::cases,
        exec::cases,
        cli::cases,
        listed::cases,
        doctor::cases,
        terminal::cases,
        process::cases,
        credentials::cases,
        mounts::cases,
        mounts_later::cases,
        inner_binds::cases,
        propagation::cases,
        shared_mounts::cases,
        mount_flags::cases,
        mount_rows::cases,
        namespaces::cases,
        hooks::cases,
        bad_input::cases,
        mistakes::cases,
        seccomp::cases,
        seccomp_compat::cases,
        seccomp_order::cases,
        cgroups::cases,
        cgroup_devices::cases,
        cgroup_places::cases,
        cgroup_views::cases,
        systemd::cases,
        limits::cases,
        limits_bite::cases,
        update::cases,
        events::cases,
        calls::cases,
        trace::cases,
        default_profiles::cases,
        forks::cases,
        nested::cases,
        systemd_trouble::cases,
        systemd_updates::cases,
        rootfs::cases,
        rootless::cases,
        rootless_mounts::cases,
        rootless_groups::cases,
        attacks::cases,
        attacks_inside::cases,
        races::cases,
        hunted::cases,
        procfs_writes::cases,
        overmounted::cases,
        lsm::cases,
        crash::cases,
        histories::cases,
        halted::cases,
        clocks::cases,
        inherited::cases,
        soak::cases,
        faults::cases,
        owners::cases,
        rdt::cases,
        netdev::cases,
        mempolicy::cases,
        notify::cases,
        fields::cases,
        odd::cases,
        checkpoint::cases,
        checkpoint_faults::cases,
        checkpoint_mounts::cases,
        checkpoint_odd::cases,
        checkpoint_userns::cases,
        checkpoint_flags::cases,
        checkpoint_matrix::cases,
    ];
    chapters.into_iter().flat_map(|chapter| chapter()).collect()
}
