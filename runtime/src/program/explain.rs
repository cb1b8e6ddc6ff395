// SPDX-License-Identifier: Apache-2.0
//! Programs in words: the sentences of `corten plan` and the steps that errors name.

#![forbid(unsafe_code)]

use super::op::{HostOp, Must, Op, Ref, Source, StageOp, Tree};
use super::place::Place;
use super::restoring::{CriuOp, RestorePoint};
use super::{Program, Step};
use crate::cgroup::WayIn;
use crate::error::printable;
use crate::plan::ids::{Writer, Writers};
use crate::plan::mounts::{Attrs, Propagation};
use crate::stage::wire::{self, barrier};

/// One sentence for one step, on one line.
pub fn sentence(program: &Program, step: &Step) -> String {
    let sentence = match &step.op {
        Op::Host(op) => host(program, op),
        Op::Stage(op) => stage(program, op),
        Op::Criu(op) => criu(*op).to_owned(),
    };
    printable(&sentence).into_owned()
}

/// Where an error happened, in the words of the configuration: `mounts[3] (/proc)`.
pub fn step_name(program: &Program, index: usize) -> String {
    let Some(step) = program.steps.get(index) else { return "container init".into() };
    let target = target_near(program, index);
    let mut parts = step.at.trim_start_matches('/').split('/');
    let mut place = String::new();
    for part in parts.by_ref() {
        if part.chars().all(|c| c.is_ascii_digit()) && !part.is_empty() {
            place.push_str(&format!("[{part}]"));
        } else {
            place.push_str(if place.is_empty() { "" } else { "." });
            place.push_str(&part.replace("~1", "/").replace("~0", "~"));
        }
    }
    match target {
        Some(target) if place.is_empty() => target,
        Some(target) => format!("{place} ({target})"),
        None => place,
    }
}

/// The latest target of the same field, or the one that is still to come: a bind has its flags before it has a place.
fn target_near(program: &Program, index: usize) -> Option<String> {
    let at = &program.steps.get(index)?.at;
    let (before, after) = program.steps.split_at(index + 1);
    if at.is_empty() {
        return before.iter().rev().take_while(|other| other.at.is_empty()).find_map(target_of);
    }
    before.iter().rev().chain(after).filter(|other| other.at == *at).find_map(target_of)
}

fn target_of(step: &Step) -> Option<String> {
    match &step.op {
        Op::Stage(
            StageOp::Target { path, .. } | StageOp::AttachOrLink { path, .. } | StageOp::Chdir { path, .. },
        ) => Some(path.clone()),
        Op::Stage(
            StageOp::Mask { place, .. }
            | StageOp::Readonly(place)
            | StageOp::Mknod { place, .. }
            | StageOp::Symlink { place, .. },
        ) => Some(place.path.clone()),
        Op::Stage(StageOp::Write { path, .. }) => Some(format!("/proc/{path}")),
        Op::Stage(StageOp::Hook { hook, .. }) => Some(hook.path.clone()),
        _ => None,
    }
}

/// The operand of the call that an operation makes, for `fsmount(proc)`.
pub fn operand(program: &Program, index: usize) -> String {
    let Some(Op::Stage(op)) = program.steps.get(index).map(|step| &step.op) else { return String::new() };
    match op {
        StageOp::FsOpen { fstype, .. } => fstype.clone(),
        StageOp::FsMount { slot, .. } | StageOp::FsMode { slot, .. } => {
            let opened = program.steps[..index].iter().rev().find_map(|step| match &step.op {
                Op::Stage(StageOp::FsOpen { slot: other, fstype }) if other == slot => Some(fstype.clone()),
                _ => None,
            });
            opened.unwrap_or_default()
        }
        StageOp::FsSet { key, value, .. } => {
            value.as_ref().map_or(key.clone(), |value| format!("{key}={value}"))
        }
        StageOp::SetAttr { mount: Ref::Nothing, .. } => "/".into(),
        StageOp::Attach { .. } | StageOp::SetAttr { .. } | StageOp::Unmount { .. } => {
            let latest = || program.steps[..=index].iter().rev().find_map(target_of);
            target_near(program, index).or_else(latest).unwrap_or_default()
        }
        StageOp::AttachHost { path, .. } => path.clone(),
        StageOp::Write { path, data, .. } => format!("/proc/{path}, {data}"),
        StageOp::Exec { args, .. } => args.first().cloned().unwrap_or_default(),
        StageOp::SetIds { uid, gid } => format!("{uid}:{gid}"),
        StageOp::Groups { gids, .. } => format!("{gids:?}"),
        StageOp::OpenTree { tree, .. } => tree.path.display().to_string(),
        StageOp::CopyInside { path, .. } => format!("{path} in the root"),
        StageOp::Hostname(name) | StageOp::Domainname(name) => name.clone(),
        StageOp::Keyring { name, .. } => name.clone(),
        StageOp::Console { .. } => "/dev/pts/ptmx".into(),
        StageOp::ConsoleBind(_) => "/dev/console".into(),
        StageOp::MemPolicy(policy) => format!("{:#x}", policy.mode),
        StageOp::Setns { kinds, .. } => kind_names(*kinds),
        StageOp::Unshare(kinds) | StageOp::Hop(kinds) => kind_names(*kinds),
        _ => program.steps.get(index).and_then(target_of).unwrap_or_default(),
    }
}

fn host(program: &Program, op: &HostOp) -> String {
    match op {
        HostOp::Reserve => "take the id: make its state directory and write the state \"creating\"".into(),
        HostOp::JoinedIds => {
            "read the id mappings of the user namespace to be joined, and compare them with those given"
                .into()
        }
        HostOp::Rdt => "find or make the container's groups in resctrl".into(),
        HostOp::RdtPlace => "put the process into its groups in resctrl".into(),
        HostOp::NetDevices => "move the network devices into the container's network namespace".into(),
        HostOp::Cgroup => "make the control group and write its limits".into(),
        HostOp::CgroupOwner(uid) => format!("give the control group to user {uid} of the container"),
        HostOp::OwnMount(_) => "note in the state which mount it is, for `delete`".into(),
        HostOp::Network => "make the network namespace, bring its lo up, and send it to the process".into(),
        HostOp::DeviceRules => "put the device rules on the control group".into(),
        HostOp::Keep => "keep a copy of the configuration".into(),
        HostOp::Identify => "note which process it is".into(),
        HostOp::Open(index) => program.sources.get(*index).map_or_else(String::new, source),
        HostOp::ConsoleSocket => "connect to the console socket".into(),
        HostOp::Clone { flags, wait, way_in } => {
            let namespaces = if *flags == 0 { "no new namespace".into() } else { kind_names(*flags) };
            let (into, groups) = match way_in {
                WayIn::Born => (" into its control group", ""),
                WayIn::JoinsItself => ("", "; it joins its control groups by itself"),
                WayIn::MovedByPid | WayIn::PutBySystemd => ("", "; it is put into its control groups"),
            };
            let wait = if *wait { "; it waits" } else { "" };
            format!("clone the container's first process{into}, with {namespaces}{groups}{wait}")
        }
        HostOp::Adopt => "take over the process that the first one cloned".into(),
        HostOp::IdMaps(writers) => format!("write the id mappings of the user namespace{}", tools(*writers)),
        HostOp::Place => "see to it that the process is in its control groups".into(),
        HostOp::OomScoreAdj(score) => format!("write {score} to the process's oom_score_adj"),
        HostOp::Release => "let the process go on".into(),
        HostOp::Await(which) => format!("wait until the process is at barrier {}", barrier_name(*which)),
        HostOp::Hooks => "run the prestart and createRuntime hooks".into(),
        HostOp::Listener => "hand the seccomp listener to its agent".into(),
        HostOp::Rlimits => "raise the hard limits that the stage was refused".into(),
        HostOp::Schedule => "set scheduler, I/O priority and CPU affinity where asked for".into(),
        HostOp::Console => "hand over the terminal's master".into(),
        HostOp::Record => "write the state \"created\" and the pid file".into(),
        HostOp::Outcome => "wait for the outcome of the exec".into(),
        HostOp::Poststart => "run the poststart hooks".into(),
        HostOp::MountPoints(points) => {
            let paths: Vec<&str> = points.iter().map(|point| point.path.as_str()).collect();
            format!("make the mount points that are missing: {}", paths.join(" "))
        }
        HostOp::Restore(sources) => {
            let mounts: Vec<&str> = sources.mounts.iter().map(|(_, name)| name.as_str()).collect();
            let mut text = "start CRIU in the control group, the rootfs mounted for it alone".to_owned();
            if !mounts.is_empty() {
                text.push_str(&format!(", and for {}", mounts.join(" ")));
            }
            text
        }
        HostOp::AwaitCriu(RestorePoint::Namespaces) => "wait until CRIU has made the namespaces".into(),
        HostOp::AwaitCriu(RestorePoint::Processes) => {
            "wait until CRIU has made the processes, which are stopped".into()
        }
        HostOp::Loopback => "bring up lo of the network namespace".into(),
        HostOp::Compare => {
            "compare ids, capabilities, filters, namespaces and mounts with the configuration".into()
        }
        HostOp::HoldPackets => {
            "let no packet into the network namespace before its connections are back".into()
        }
        HostOp::LetPacketsIn => "let packets into the network namespace".into(),
        HostOp::Resume => "let the processes go on".into(),
    }
}

fn criu(op: CriuOp) -> &'static str {
    match op {
        CriuOp::Namespaces => "make the namespaces of the checkpoint",
        CriuOp::Mounts => "make its mounts",
        CriuOp::Processes => "make its processes, and all that they have",
    }
}

/// Who writes what the host does not write as root would.
fn tools(writers: Writers) -> &'static str {
    match (writers.uid, writers.gid) {
        (Writer::Tool, Writer::Tool) => " by newuidmap and newgidmap",
        (Writer::Tool, Writer::UsWithoutGroups) => " by newuidmap, and for groups, once setgroups is denied",
        (Writer::Tool, Writer::Us) => " by newuidmap, and for groups",
        (_, Writer::Tool) => ", for groups by newgidmap",
        (_, Writer::UsWithoutGroups) => ", once setgroups is denied in it",
        (_, Writer::Us) => "",
    }
}

fn source(source: &Source) -> String {
    match source {
        Source::Tree(tree) => self::tree(tree),
        Source::Namespace { path, kind, .. } => format!("open the {} namespace {path}", kind.name()),
        Source::Place => "keep a descriptor's place for a mount tree that is copied inside".into(),
        Source::Fs(fs) => {
            let attrs = attributes(Attrs::sets(fs.attrs), "");
            format!("mount a {} file system, detached, id-mapped{attrs}", fs.fstype)
        }
        Source::Node(node) => {
            let (major, minor) = device(node.rdev);
            format!(
                "make the device {major}:{minor}, detached, owned by {}:{} of the host",
                node.uid, node.gid
            )
        }
        Source::Proc => "open the host's /proc".into(),
        Source::Gate => "bind and listen on the gate, the socket at which `start` will knock".into(),
        Source::GateFifo => "make the gate, a FIFO: the profile refuses accept4(2)".into(),
        Source::OutcomeFifo => "make the FIFO in which `start` hears of the exec".into(),
        Source::Init => "open the container's init by pidfd and check that it is the one in the state".into(),
        Source::InitRoot => "open the root directory of the container's init".into(),
    }
}

fn tree(tree: &Tree) -> String {
    let mut text = format!("copy the mount tree at {}", tree.path.display());
    text.push_str(if tree.recursive { ", with all below it" } else { ", its top mount only" });
    text.push_str(&attributes(tree.attrs, ""));
    text.push_str(&attributes(tree.all_attrs, " (whole tree)"));
    for change in &tree.propagation {
        text.push_str(&format!(", made {}", propagation(*change)));
    }
    if tree.idmap.is_some() {
        text.push_str(", id-mapped");
    }
    if tree.must == Must::Proc {
        text.push_str("; it must be a procfs");
    }
    text
}

fn attributes(attrs: Attrs, suffix: &str) -> String {
    const NAMES: [(u64, &str); 8] = [
        (0x1, "ro"),
        (0x2, "nosuid"),
        (0x4, "nodev"),
        (0x8, "noexec"),
        (0x10, "noatime"),
        (0x20, "strictatime"),
        (0x80, "nodiratime"),
        (0x20_0000, "nosymfollow"),
    ];
    let mut text = String::new();
    for (_, name) in NAMES.iter().filter(|(bit, _)| attrs.set & bit != 0) {
        text.push_str(&format!(", {name}{suffix}"));
    }
    for (_, name) in NAMES.iter().filter(|(bit, _)| attrs.clear & bit != 0 && attrs.set & bit == 0) {
        text.push_str(&format!(", not {name}{suffix}"));
    }
    let implied: Vec<&str> =
        NAMES.iter().filter(|(bit, _)| attrs.implied & bit != 0).map(|(_, name)| *name).collect();
    if !implied.is_empty() {
        text.push_str(&format!(", without {} unless locked{suffix}", implied.join(", ")));
    }
    text
}

fn propagation(change: Propagation) -> String {
    let name = match change.flag {
        0x2_0000 => "unbindable",
        0x4_0000 => "private",
        0x8_0000 => "slave",
        _ => "shared",
    };
    format!("{}{name}", if change.recursive { "recursively " } else { "" })
}

fn kind_names(flags: u64) -> String {
    use crate::plan::namespaces::NsKind;
    let names: Vec<&str> =
        NsKind::ALL.iter().filter(|kind| flags & kind.flag() != 0).map(|kind| kind.name()).collect();
    match names.len() {
        1 => format!("{} namespace", names[0]),
        _ => format!("{} namespaces", names.join(", ")),
    }
}

fn barrier_name(which: u8) -> &'static str {
    match which {
        barrier::HOOKS => "Hooks",
        barrier::CONSOLE => "Console",
        barrier::LISTENER | barrier::LISTENER_NUMBER => "Listener",
        barrier::READY => "Ready",
        barrier::NETWORK => "Network",
        barrier::DEVICES => "Devices",
        barrier::MAPPED => "Mapped",
        _ => "",
    }
}

fn stage(program: &Program, op: &StageOp) -> String {
    match op {
        StageOp::Signals(_) => "set all signals to their defaults".into(),
        StageOp::Setns { kinds, .. } => format!("join the {}", kind_names(*kinds)),
        StageOp::Unshare(kinds) => format!("make a new {}", kind_names(*kinds)),
        StageOp::Hop(kinds) if *kinds == 0 => "clone the final process".into(),
        StageOp::Hop(kinds) => format!("clone the final process into new {}", kind_names(*kinds)),
        StageOp::BecomeRoot => "become root of the user namespace".into(),
        StageOp::Keyring { name, .. } => format!("join the session keyring {name}"),
        StageOp::Setsid => "start a session".into(),
        StageOp::Loopback => "bring lo up".into(),
        StageOp::JoinSent(kind) => format!("join the {} that the host has made", kind_names(*kind)),
        StageOp::Barrier { barrier, .. } => format!("come to barrier {} and wait", barrier_name(*barrier)),
        StageOp::Hostname(name) => format!("set the host name {name}"),
        StageOp::Domainname(name) => format!("set the domain name {name}"),
        StageOp::Gate => "wait at the gate for `start`".into(),
        StageOp::Disown => "leave no zombies of children".into(),
        StageOp::Hold(name) => format!("wait for ever as {name}"),
        StageOp::Hook { kind, hook, .. } => format!("run the {kind} hook {}", hook.path),
        StageOp::Close { from, gate: Ref::Nothing, .. } => format!("close every descriptor from {from} on"),
        StageOp::Close { from, .. } => format!("close every descriptor from {from} on, but for the gate"),
        StageOp::CloseFd(_) => "close the source's descriptor".into(),
        StageOp::Console { size, .. } => {
            let size = size
                .map_or_else(String::new, |(rows, columns)| format!(" of {rows} rows and {columns} columns"));
            format!("open a terminal{size} in the container's devpts")
        }
        StageOp::ConsoleBind(_) => "bind the terminal onto /dev/console".into(),
        StageOp::ConsoleStdio(_) => "make the terminal stdin, stdout and stderr".into(),
        StageOp::ConsoleControl => "make stdin the controlling terminal".into(),
        StageOp::ChownStdio(uid) => format!("give stdin, stdout and stderr to user {uid}"),
        StageOp::Write { path, data, .. } => format!("write {data:?} to /proc/{path}"),
        other => mount(program, other),
    }
}

fn mount(program: &Program, op: &StageOp) -> String {
    match op {
        StageOp::Propagate(change) => format!("make the copied host tree {}", propagation(*change)),
        StageOp::Attach { mount, .. } => match mount {
            Ref::Source(n) => match program.sources.get(*n) {
                Some(Source::Tree(tree)) => format!("attach the copy of {} there", tree.path.display()),
                _ => "attach it there".into(),
            },
            _ => "attach the new mount there".into(),
        },
        StageOp::AttachOrLink { path, .. } => {
            format!("attach it at {path}, or make the same link there if it is one")
        }
        StageOp::AttachHost { path, .. } => {
            format!("attach the root file system at {path} of the host's tree")
        }
        StageOp::OpenTree { tree, .. } => self::tree(tree),
        StageOp::CopyInside { path, recursive, must, .. } => {
            let below = if *recursive { ", with all below it" } else { ", its top mount only" };
            let proc = if *must == Must::Proc { "; it must be a procfs" } else { "" };
            format!("copy the mount tree that is at {path} in the root by now{below}{proc}")
        }
        StageOp::ChdirHost(path) => format!("change to the directory {path} of the host's tree"),
        StageOp::Root(Ref::Nothing) => "look up paths from the container's root".into(),
        StageOp::Root(_) => "look up paths inside the root file system from here on".into(),
        StageOp::Target { path, flags, .. } if flags & wire::TARGET_EXISTING != 0 => format!("find {path}"),
        StageOp::Target { path, .. } => format!("find or make the mount point {path}"),
        StageOp::FsOpen { fstype, .. } => format!("prepare a {fstype} file system"),
        StageOp::ProcOf { .. } => "prepare a proc file system of the pid namespace, from outside".into(),
        StageOp::FsSet { key, value: Some(value), .. } => format!("set its {key} to {value}"),
        StageOp::FsSet { key, value: None, .. } => format!("set {key}"),
        StageOp::Label { label, .. } => format!("label it {label}"),
        StageOp::FsMode { .. } => "give it the mode of the directory that it covers".into(),
        StageOp::FsMount { attrs, .. } => {
            format!("make the mount{}", attributes(Attrs::sets(*attrs), ""))
        }
        StageOp::MountClassic { fstype, data, .. } => format!("mount a {fstype} with {data}"),
        StageOp::SetAttr { attrs, propagation: 0, recursive, .. } => {
            let text = attributes(*attrs, if *recursive { " (whole tree)" } else { "" });
            format!("make it {}", text.trim_start_matches(", "))
        }
        StageOp::SetAttr { propagation: flag, recursive, .. } => {
            format!("make it {}", propagation(Propagation { flag: *flag, recursive: *recursive }))
        }
        StageOp::Unmount { .. } => "take the mount there away, with all below it".into(),
        StageOp::CopyUp { .. } => "copy the content of the covered directory into it".into(),
        StageOp::Mknod { place, mode, rdev, .. } => {
            let kind = match mode & 0o170_000 {
                0o060_000 => "block device",
                0o010_000 => "FIFO",
                _ => "character device",
            };
            let (major, minor) = device(*rdev);
            let (path, found) = (&place.path, by_its_mount(place));
            format!("make the {kind} {path} ({major}:{minor}, mode {:04o}){found}", mode & 0o7777)
        }
        StageOp::Symlink { place, target } => {
            format!("link {} to {target}{}", place.path, by_its_mount(place))
        }
        StageOp::Mkdir(path) => format!("make the directory {path} if it is missing"),
        StageOp::Mask { place, .. } => format!("mask {}{}", place.path, by_its_mount(place)),
        StageOp::Readonly(place) => format!("make {} read-only{}", place.path, by_its_mount(place)),
        StageOp::Pivot => "pivot_root into the root file system and detach the host's tree".into(),
        StageOp::MoveRoot(mounts) => format!(
            "move the root file system over /, take {} mounts of the host's tree away, and chroot into it",
            mounts.len()
        ),
        StageOp::Chroot(_) => "chroot into the container's root".into(),
        other => identity(other),
    }
}

/// How a path is found, where that is not by name.
fn by_its_mount(place: &Place) -> &'static str {
    if place.is_anchored() { ", by its mount" } else { "" }
}

/// Major and minor number.
fn device(rdev: u64) -> (u64, u64) {
    (rdev >> 8 & 0xfff, rdev & 0xff | rdev >> 12 & 0xfff_ff00)
}

fn identity(op: &StageOp) -> String {
    match op {
        StageOp::Umask(mask) => format!("set the umask {mask:03o}"),
        StageOp::Personality(persona) => format!("set the execution domain {persona:#x}"),
        StageOp::MemPolicy(policy) => {
            format!("set the memory policy {:#x} for the nodes {:x?}", policy.mode, policy.nodes)
        }
        StageOp::NoNewPrivs => "set no_new_privs".into(),
        StageOp::Chdir { path, again: false } => format!("change to the directory {path}"),
        StageOp::Chdir { again: true, .. } => "check that the working directory is inside the root".into(),
        StageOp::KeepGroups => "keep the caller's supplementary groups".into(),
        StageOp::Groups { may_keep: true, .. } => {
            "drop all supplementary groups, unless the user namespace denies it".into()
        }
        StageOp::Groups { gids, .. } if gids.is_empty() => "drop all supplementary groups".into(),
        StageOp::Groups { gids, .. } => format!("set the supplementary groups {gids:?}"),
        StageOp::DropGroups => "drop all supplementary groups of the caller".into(),
        StageOp::SetIds { uid, gid } => format!("become user {uid}, group {gid}"),
        StageOp::Bound { keep, .. } => format!("bound the capabilities to {}", caps(*keep)),
        StageOp::LendAdmin { .. } => {
            "set the capabilities, and CAP_SYS_ADMIN beside them until the filter is loaded".into()
        }
        StageOp::Capset { effective, permitted, inheritable } => format!(
            "set the capabilities: effective {}, permitted {}, inheritable {}",
            caps(*effective),
            caps(*permitted),
            caps(*inheritable)
        ),
        StageOp::Rlimits { limits, set } => {
            let names: Vec<String> =
                limits.iter().map(|limit| format!("{} {}:{}", limit.name, limit.soft, limit.hard)).collect();
            let verb = if *set { "set the resource limits" } else { "raise the hard limits that are below" };
            format!("{verb} {}", names.join(", "))
        }
        StageOp::Ambient(set) => format!("raise the ambient capabilities {}", caps(*set)),
        StageOp::Seccomp { filter, .. } => {
            format!("load the seccomp filter of {} instructions", filter.len())
        }
        StageOp::Lookup(candidates) => format!("find the executable: {}", candidates.join(", ")),
        StageOp::Home(uid) => format!("find the home directory of user {uid} in /etc/passwd"),
        StageOp::Exec { args, .. } => format!("execute {}", args.join(" ")),
        _ => String::new(),
    }
}

fn caps(mask: u64) -> String {
    if mask == 0 { "none".into() } else { crate::plan::caps::names(mask).join(" ") }
}
