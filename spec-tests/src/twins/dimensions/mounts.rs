// SPDX-License-Identifier: Apache-2.0
//! Mounts: where their sources lie, what lies on what, options, propagation, with and without a cgroup namespace.

#![forbid(unsafe_code)]

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::super::plan::Plan;
use super::{maybe, one_of, together};

/// Places in the container; some lie below others.
const PLACES: [&str; 9] =
    ["/m", "/m/sub", "/n", "/tmp", "/tmp/deep/er", "/dev/shm", "/etc", "/etc/passwd", "/ln/through"];

/// Sources on the host: of no mount, of mounts with flags, through links, and what earlier mounts of the container cover.
const SOURCES: [&str; 14] = [
    "$DIR/host/a",
    "$DIR/host/a/sub",
    "$DIR/host/file",
    "$DIR/host/ln",
    "$DIR/host/lnfile",
    "$DIR/host/strict",
    "$DIR/host/ro",
    "$DIR/rootfs/etc",
    "$DIR/rootfs/m",
    "$DIR/rootfs/m/sub",
    "$DIR/rootfs/n",
    "$DIR/rootfs/tmp",
    "$DIR/rootfs/etc/passwd",
    "$DIR/missing",
];

const OPTIONS: [&str; 14] = [
    "ro",
    "rw",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "noexec",
    "exec",
    "noatime",
    "nodiratime",
    "relatime",
    "strictatime",
    "norelatime",
    "nosymfollow",
];
const PROPAGATION: [&str; 8] =
    ["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"];

/// Up to four mounts beside the default ones.
pub fn parts() -> BoxedStrategy<Plan> {
    let more = proptest::collection::vec(prop_oneof![3 => bind(), 1 => tmpfs()], 0..4);
    let mounts =
        more.prop_map(|mounts| Plan::join(mounts.into_iter().map(|mount| Plan::set("/mounts/-", mount))));
    together(vec![
        Just(sources()).boxed(),
        mounts.boxed(),
        maybe(
            0.4,
            "/linux/rootfsPropagation",
            one_of(
                ["private", "slave", "rslave", "shared", "rshared", "unbindable", "rprivate"]
                    .map(|kind| json!(kind))
                    .into(),
            ),
        ),
        maybe(0.3, "/linux/namespaces/-", one_of(vec![json!({"type": "cgroup"})])),
        maybe(0.5, "/root/readonly", one_of(vec![json!(false)])),
    ])
}

/// What the sources are, and a look at the places from within.
fn sources() -> Plan {
    let made = [
        // On a mount of its own: what lies on the file system of the bundle is a case apart.
        "mount tmpfs tmpfs host rw",
        "dir host/a/sub 755",
        "file host/a/one first",
        "file host/a/sub/two second",
        "file host/file third",
        "link host/ln a",
        "link host/lnfile file",
        "mount tmpfs tmpfs host/strict nosuid,nodev,noexec,noatime",
        "mount bind $DIR/host/a host/ro ro",
        "dir rootfs/m/sub 755",
        "file rootfs/m/below underneath",
        "dir rootfs/n 755",
        "link rootfs/ln tmp",
    ];
    let tries = [
        "list /m",
        "list /m/sub",
        "list /n",
        "list /tmp",
        "create /m/new",
        "create /n/new",
        "read /etc/passwd",
        "list /ln",
    ];
    made.into_iter().fold(Plan::default(), |plan, thing| plan.thing(thing)).tries(tries)
}

fn bind() -> BoxedStrategy<Value> {
    let words = (
        select(&PLACES[..]),
        select(&SOURCES[..]),
        select(vec!["bind", "rbind"]),
        subsequence(&OPTIONS[..], 0..=3),
        proptest::option::weighted(0.4, select(&PROPAGATION[..])),
    );
    let mount = |(place, source, kind, options, propagation): (
        &str,
        &str,
        &'static str,
        Vec<&'static str>,
        Option<&'static str>,
    )| {
        let options: Vec<_> = [kind].into_iter().chain(options).chain(propagation).collect();
        json!({"destination": place, "source": source, "type": "bind", "options": options})
    };
    words.prop_map(mount).boxed()
}

fn tmpfs() -> BoxedStrategy<Value> {
    let words = (
        select(&PLACES[..]),
        subsequence(&OPTIONS[..], 0..=3),
        proptest::option::of(select(vec!["size=64k", "mode=700", "mode=1777", "tmpcopyup", "nr_inodes=50"])),
        proptest::option::weighted(0.2, select(&PROPAGATION[..])),
    );
    let mount = |(place, options, more, propagation): (
        &str,
        Vec<&'static str>,
        Option<&'static str>,
        Option<&'static str>,
    )| {
        let options: Vec<_> = options.into_iter().chain(more).chain(propagation).collect();
        json!({"destination": place, "source": "tmpfs", "type": "tmpfs", "options": options})
    };
    words.prop_map(mount).boxed()
}
