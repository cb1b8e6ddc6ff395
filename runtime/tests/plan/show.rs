// SPDX-License-Identifier: Apache-2.0
//! The key decisions of a plan as text, one a line.

use std::fmt::Write;

use corten::plan::Plan;
use corten::plan::caps;
use corten::plan::devices::Via;
use corten::plan::hooks::Hook;
use corten::plan::mounts::{Attrs, Mount, MountSource, MountStep, Propagation};
use corten::plan::process::Process;

const ATTRS: [(u64, &str); 8] = [
    (0x01, "ro"),
    (0x02, "nosuid"),
    (0x04, "nodev"),
    (0x08, "noexec"),
    (0x10, "noatime"),
    (0x20, "strictatime"),
    (0x80, "nodiratime"),
    (0x20_0000, "nosymfollow"),
];

pub fn attrs(attrs: Attrs) -> String {
    let names = |bits: u64| ATTRS.iter().filter(move |(bit, _)| bits & bit != 0).map(|(_, name)| *name);
    let atime = attrs.clear & 0x70 == 0x70;
    let mut text: Vec<String> = names(attrs.set).map(|name| format!("+{name}")).collect();
    if atime && attrs.set & 0x70 == 0 {
        text.push("+relatime".into());
    }
    text.extend(names(if atime { attrs.clear & !0x70 } else { attrs.clear }).map(|name| format!("-{name}")));
    text.join("")
}

fn propagation(p: Propagation) -> String {
    let name = match p.flag {
        libc::MS_SHARED => "shared",
        libc::MS_SLAVE => "slave",
        libc::MS_PRIVATE => "private",
        libc::MS_UNBINDABLE => "unbindable",
        _ => "?",
    };
    format!("{}{name}", if p.recursive { "r" } else { "" })
}

fn mount(m: &Mount) -> String {
    let mut text = format!("{} {} ", m.at, m.target);
    match &m.source {
        MountSource::Bind { path, recursive, nofollow, copy_symlink, procfs, inside } => {
            text += &format!("{} {}", if *recursive { "rbind" } else { "bind" }, path.display());
            for (on, name) in
                [(nofollow, "src-nofollow"), (copy_symlink, "copy-symlink"), (procfs, "is-procfs")]
            {
                text += &if *on { format!(" {name}") } else { String::new() };
            }
            text += &inside.as_ref().map_or(String::new(), |path| format!(" inside={path}"));
        }
        MountSource::Fs { fstype, source, options, mode_of_target } => {
            text += &format!("{fstype} {}", source.as_deref().unwrap_or("-"));
            for (key, value) in options {
                text += &value.as_ref().map_or(format!(" {key}"), |value| format!(" {key}={value}"));
            }
            text += if *mode_of_target { " mode-of-target" } else { "" };
        }
    }
    let tree = attrs(m.recursive);
    let marks = [
        (m.attrs != Attrs::default(), attrs(m.attrs)),
        (!tree.is_empty(), format!("tree{tree}")),
        (m.nofollow, "nofollow".into()),
        (m.over_symlink, "over-symlink".into()),
        (m.in_proc, "in-proc".into()),
        (m.copy_up, "copy-up".into()),
    ];
    for (_, mark) in marks.iter().filter(|(on, _)| *on) {
        text += &format!(" | {mark}");
    }
    for p in &m.propagation {
        text += &format!(" | {}", propagation(*p));
    }
    if let Some(idmap) = &m.idmap {
        text += &format!(" | {}idmap {:?}", if idmap.recursive { "r" } else { "" }, lines(&idmap.uid));
    }
    text
}

fn step(step: &MountStep) -> String {
    match step {
        MountStep::Mount(m) => format!("mount {}", mount(m)),
        MountStep::Symlink { at, path, target } => format!("symlink {at} {path} -> {target}"),
        MountStep::Remount { at, target, attrs: a, recursive, late } => {
            let late = if *late { " late" } else { "" };
            format!("remount {at} {target} {}{}{late}", attrs(*a), attrs(*recursive))
        }
    }
}

fn lines(map: &[corten::spec::IdMapping]) -> Vec<String> {
    map.iter().map(|l| format!("{}:{}:{}", l.container_id, l.host_id, l.size)).collect()
}

fn process(out: &mut String, p: &Process) {
    writeln!(
        out,
        "exec {:?} cwd {} user {}:{} {:?} umask {:03o}",
        p.args, p.cwd, p.uid, p.gid, p.gids, p.umask
    )
    .unwrap();
    writeln!(out, "candidates {}", p.candidates.join(" ")).unwrap();
    writeln!(out, "env {:?} needs-home {} terminal {:?}", p.env, p.needs_home, p.terminal).unwrap();
    let sets = [
        ("bounding", p.caps.bounding),
        ("effective", p.caps.effective),
        ("permitted", p.caps.permitted),
        ("inheritable", p.caps.inheritable),
        ("ambient", p.caps.ambient),
    ];
    for (name, set) in sets {
        writeln!(out, "caps {name} {}", caps::names(set).join(" ")).unwrap();
    }
    writeln!(out, "no_new_privs {} oom {:?}", p.no_new_privileges, p.oom_score_adj).unwrap();
    for l in &p.rlimits {
        writeln!(out, "rlimit {} {} {}", l.name, l.soft, l.hard).unwrap();
    }
    writeln!(
        out,
        "lsm {:?} {:?}",
        p.apparmor.as_ref().map(|f| &f.value),
        p.selinux.as_ref().map(|f| &f.value)
    )
    .unwrap();
    let fields = (&p.scheduler, &p.io_priority, &p.personality, &p.affinity);
    if fields != (&None, &None, &None, &None) {
        writeln!(out, "sched {fields:?}").unwrap();
    }
    if let Some(policy) = &p.mempolicy {
        writeln!(out, "mempolicy {:#x} {:?}", policy.value.mode, policy.value.nodes).unwrap();
    }
}

fn hooks(out: &mut String, hooks: &[Hook]) {
    for h in hooks {
        let env = h.env.as_ref().map_or_else(|| "inherited".to_owned(), |env| format!("{env:?}"));
        writeln!(out, "hook {} {} {:?} {env} {:?}", h.at, h.path, h.args, h.timeout).unwrap();
    }
}

pub fn plan(p: &Plan) -> String {
    let mut out = String::new();
    let new: Vec<&str> = p.namespaces.new.iter().map(|(kind, _)| kind.name()).collect();
    writeln!(out, "namespaces {}", new.join(" ")).unwrap();
    for j in &p.namespaces.join {
        writeln!(out, "join {} {} {}", j.kind.name(), j.path, j.at).unwrap();
    }
    for (word, ids) in [("ids", &p.ids), ("expected ids", &p.expected_ids)] {
        if let Some(ids) = ids {
            writeln!(out, "{word} {:?} {:?}", lines(&ids.uid), lines(&ids.gid)).unwrap();
        }
    }
    for line in &p.namespaces.time_offsets {
        writeln!(out, "timens {line}").unwrap();
    }
    let (root, ro) = (&p.rootfs, if p.rootfs.readonly { " ro" } else { "" });
    writeln!(
        out,
        "rootfs {}{ro} {} {}",
        root.path.display(),
        propagation(root.propagation),
        root.propagation_at
    )
    .unwrap();
    writeln!(out, "names {:?} {:?}", p.hostname, p.domainname).unwrap();
    for s in &p.mounts {
        writeln!(out, "{}", step(s)).unwrap();
    }
    for d in &p.devices {
        let via = match &d.via {
            Via::Mknod => "mknod".to_owned(),
            Via::Bind(_) => "bind".to_owned(),
            Via::Node { uid, gid, .. } => format!("node {uid}:{gid}"),
        };
        let (major, minor) = (libc::major(d.rdev), libc::minor(d.rdev));
        writeln!(out, "device {} {:o} {major}:{minor} {}:{} {via}", d.path, d.mode, d.uid, d.gid).unwrap();
    }
    for (path, target) in &p.dev_links {
        writeln!(out, "link {path} -> {target}").unwrap();
    }
    for (word, paths) in [("mask", &p.masked), ("readonly", &p.readonly)] {
        let paths: Vec<&str> = paths.iter().map(|field| field.value.as_str()).collect();
        writeln!(out, "{word} {}", paths.join(" ")).unwrap();
    }
    for field in &p.sysctl {
        writeln!(out, "sysctl {}={}", field.value.0, field.value.1).unwrap();
    }
    if let Some(process_plan) = &p.process {
        process(&mut out, process_plan);
    }
    if let Some(rdt) = &p.rdt {
        writeln!(out, "{rdt:?}").unwrap();
    }
    for device in &p.netdevs {
        writeln!(out, "netdev {} {} -> {}", device.at, device.host, device.inside).unwrap();
    }
    if p.obeyed != Default::default() {
        writeln!(out, "{:?}", p.obeyed).unwrap();
    }
    let h = &p.hooks;
    for list in
        [&h.prestart, &h.create_runtime, &h.create_container, &h.start_container, &h.poststart, &h.poststop]
    {
        hooks(&mut out, list);
    }
    for warning in &p.warnings {
        writeln!(out, "warning {warning}").unwrap();
    }
    out
}
