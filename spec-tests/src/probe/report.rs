// SPDX-License-Identifier: Apache-2.0
//! `probe report`: everything a process can tell about itself, as JSON.
//!
//! A value it cannot read is null, never a guess. The shape is what `harness::report` reads.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd;
use serde_json::{Value, json};

use crate::sys;

pub fn everything() -> Value {
    let status = status();
    let of_process = json!({
        "rlimits": rlimits(),
        "oom_score_adj": text("/proc/self/oom_score_adj"),
        "hostname": unistd::gethostname().ok().map(|n| n.to_string_lossy().into_owned()),
        "domainname": sys::domainname(),
        "mounts": mounts(),
        "fds": descriptors(),
        "tty": terminal(),
    });
    // In parts: the macro goes as deep as it has entries.
    joined([process(&status), of_process, kernel_side(&status)])
}

/// The entries of all.
fn joined<const N: usize>(parts: [Value; N]) -> Value {
    let entries = parts.into_iter().filter_map(|part| match part {
        Value::Object(entries) => Some(entries),
        _ => None,
    });
    Value::Object(entries.flatten().collect())
}

/// What a process is, a container's or a hook's.
fn process(status: &BTreeMap<String, String>) -> Value {
    let umask = sys::umask();
    json!({
        "argv": std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect::<Vec<_>>(),
        "env": environment(),
        "cwd": unistd::getcwd().ok().map(|p| p.to_string_lossy().into_owned()),
        "uid": ids(status, "Uid"),
        "gid": ids(status, "Gid"),
        "groups": ids(status, "Groups"),
        "umask": format!("{umask:04o}"),
        "caps": capabilities(status),
        "no_new_privs": status.get("NoNewPrivs"),
        "seccomp": status.get("Seccomp"),
        "sig_ignored": format!("{:016x}", sys::ignored_at_birth()),
        "sig_blocked": status.get("SigBlk"),
    })
}

/// What a hook tells of itself and its input.
pub fn of_hook(kind: &str, stdin: &str) -> Value {
    let of_hook = json!({
        "kind": kind,
        "stdin": stdin,
        "ns": namespaces(),
        "fds": descriptors().as_object().map(|all| all.keys().cloned().collect::<Vec<_>>()),
    });
    joined([process(&status()), of_hook])
}

/// What the kernel holds of it: namespaces, cgroup, scheduling, labels.
fn kernel_side(status: &BTreeMap<String, String>) -> Value {
    json!({
        "ns": namespaces(),
        "cgroup": text("/proc/self/cgroup").map(|t| t.lines().map(str::to_owned).collect::<Vec<_>>()),
        "timens_offsets": text("/proc/self/timens_offsets"),
        "uid_map": text("/proc/self/uid_map").map(squeezed),
        "gid_map": text("/proc/self/gid_map").map(squeezed),
        "sched": scheduling(),
        "affinity": status.get("Cpus_allowed_list"),
        "ioprio": io_priority(),
        "personality": sys::syscall(libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0, 0]).ok(),
        "pid": std::process::id(),
        "ppid": std::os::unix::process::parent_id(),
        "sid": unistd::getsid(None).ok().map(|p| p.as_raw()),
        "pgid": unistd::getpgrp().as_raw(),
        "keyring": sys::session_keyring().map_err(errno_name).unwrap_or_else(|name| name),
        "dev": nodes(Path::new("/dev")),
        "exe": fs::read_link("/proc/self/exe").ok().map(|p| p.to_string_lossy().into_owned()),
        "keyring_label": sys::session_keyring_label().map_err(errno_name).unwrap_or_else(|name| name),
        "attr": text("/proc/self/attr/current"),
        "apparmor": text("/proc/self/attr/apparmor/current"),
        "mems_allowed": status.get("Mems_allowed_list"),
        "memory_policy": memory_policy(),
        "securebits": sys::syscall(libc::SYS_prctl, [libc::PR_GET_SECUREBITS.into(), 0, 0, 0, 0, 0]).ok(),
        "timer_slack": sys::syscall(libc::SYS_prctl, [libc::PR_GET_TIMERSLACK.into(), 0, 0, 0, 0, 0]).ok(),
        "interfaces": interfaces(),
    })
}

/// The kernel's name of an error: `EPERM`.
pub fn errno_name(errno: i32) -> String {
    format!("{:?}", nix::errno::Errno::from_raw(errno))
}

fn text(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|t| t.trim_end_matches(['\n', '\0']).to_owned())
}

fn squeezed(text: String) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn status() -> BTreeMap<String, String> {
    let text = text("/proc/self/status").unwrap_or_default();
    let pair = |line: &str| line.split_once(':').map(|(k, v)| (k.to_owned(), v.trim().to_owned()));
    text.lines().filter_map(pair).collect()
}

fn ids(status: &BTreeMap<String, String>, key: &str) -> Value {
    let numbers = |line: &String| line.split_whitespace().filter_map(|n| n.parse::<u32>().ok()).collect();
    status.get(key).map(numbers).map(|ids: Vec<u32>| json!(ids)).unwrap_or_default()
}

fn environment() -> Vec<String> {
    let raw = fs::read("/proc/self/environ").unwrap_or_default();
    let mut all: Vec<_> = raw.split(|b| *b == 0).map(|v| String::from_utf8_lossy(v).into_owned()).collect();
    all.pop();
    all
}

const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

fn capabilities(status: &BTreeMap<String, String>) -> Value {
    let set = |key: &str| {
        let mask = u64::from_str_radix(status.get(key)?, 16).ok()?;
        let names = CAPABILITIES.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1);
        Some(names.map(|(_, name)| format!("CAP_{name}")).collect::<Vec<_>>())
    };
    json!({
        "bounding": set("CapBnd"), "effective": set("CapEff"), "inheritable": set("CapInh"),
        "permitted": set("CapPrm"), "ambient": set("CapAmb"),
    })
}

fn rlimits() -> Value {
    const ALL: [(&str, Resource); 16] = [
        ("RLIMIT_AS", Resource::RLIMIT_AS),
        ("RLIMIT_CORE", Resource::RLIMIT_CORE),
        ("RLIMIT_CPU", Resource::RLIMIT_CPU),
        ("RLIMIT_DATA", Resource::RLIMIT_DATA),
        ("RLIMIT_FSIZE", Resource::RLIMIT_FSIZE),
        ("RLIMIT_LOCKS", Resource::RLIMIT_LOCKS),
        ("RLIMIT_MEMLOCK", Resource::RLIMIT_MEMLOCK),
        ("RLIMIT_MSGQUEUE", Resource::RLIMIT_MSGQUEUE),
        ("RLIMIT_NICE", Resource::RLIMIT_NICE),
        ("RLIMIT_NOFILE", Resource::RLIMIT_NOFILE),
        ("RLIMIT_NPROC", Resource::RLIMIT_NPROC),
        ("RLIMIT_RSS", Resource::RLIMIT_RSS),
        ("RLIMIT_RTPRIO", Resource::RLIMIT_RTPRIO),
        ("RLIMIT_RTTIME", Resource::RLIMIT_RTTIME),
        ("RLIMIT_SIGPENDING", Resource::RLIMIT_SIGPENDING),
        ("RLIMIT_STACK", Resource::RLIMIT_STACK),
    ];
    let limit = |(name, resource): &(&str, Resource)| {
        getrlimit(*resource).ok().map(|(soft, hard)| (name.to_string(), json!([soft, hard])))
    };
    ALL.iter().filter_map(limit).collect::<serde_json::Map<_, _>>().into()
}

/// `/proc/self/mountinfo`, in mount order.
fn mounts() -> Value {
    let Some(table) = text("/proc/self/mountinfo") else { return Value::Null };
    let lines: Vec<_> = table.lines().collect();
    stacked(&lines).into_iter().filter_map(mount).collect()
}

/// The table's lines, those of one place in the order in which they lie on each other. The kernel's own order is that of making
/// them, and a mount may be made before, and laid on top after, another.
fn stacked<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let field = |line: &'a str, number| line.split(' ').nth(number).unwrap_or_default();
    // How many lie below a mount at its own place.
    let height = |line: &'a str| {
        let below = |above: &&'a str| {
            let under = lines.iter().find(|one| field(one, 0) == field(above, 1))?;
            (field(under, 4) == field(line, 4)).then_some(*under)
        };
        std::iter::successors(Some(line), below).take(lines.len()).count()
    };
    let mut sorted: Vec<_> = lines.to_vec();
    for place in lines.iter().map(|line| field(line, 4)) {
        let at: Vec<_> = (0..sorted.len()).filter(|at| field(sorted[*at], 4) == place).collect();
        let mut pile: Vec<_> = at.iter().map(|at| sorted[*at]).collect();
        pile.sort_by_key(|line| height(line));
        at.into_iter().zip(pile).for_each(|(at, line)| sorted[at] = line);
    }
    sorted
}

fn mount(line: &str) -> Option<Value> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<_> = left.split(' ').collect();
    let right: Vec<_> = right.split(' ').collect();
    Some(json!({
        "root": left.get(3)?,
        "dest": left.get(4)?.replace("\\040", " "),
        "options": left.get(5)?.split(',').collect::<Vec<_>>(),
        "propagation": left.get(6..)?,
        "fstype": right.first()?,
        "source": right.get(1)?,
        "super": right.get(2)?.split(',').collect::<Vec<_>>(),
    }))
}

fn descriptors() -> Value {
    let Ok(dir) =
        nix::dir::Dir::open("/proc/self/fd", nix::fcntl::OFlag::O_RDONLY, nix::sys::stat::Mode::empty())
    else {
        return Value::Null;
    };
    let own = std::os::fd::AsRawFd::as_raw_fd(&dir).to_string();
    // A call that a profile refuses is refused every time: an error is the end here, or there is none.
    let entries = dir.into_iter().map_while(Result::ok);
    let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
    let mut all = serde_json::Map::new();
    for name in names.filter(|n| !n.starts_with('.') && *n != own) {
        let target = fs::read_link(format!("/proc/self/fd/{name}"));
        all.insert(name, json!(target.ok().map(|t| t.to_string_lossy().into_owned())));
    }
    all.into()
}

fn terminal() -> Value {
    let stdin = std::io::stdin();
    let Some((rows, columns)) = sys::window_size(stdin.as_fd()) else { return Value::Null };
    let console = fs::metadata("/dev/console").ok().map(|m| m.rdev());
    let same = fs::metadata("/proc/self/fd/0").ok().map(|m| m.rdev()) == console;
    json!({
        "rows": rows,
        "columns": columns,
        "name": fs::read_link("/proc/self/fd/0").ok().map(|p| p.to_string_lossy().into_owned()),
        "is_console": same,
        "owner": fs::metadata("/proc/self/fd/0").ok().map(|m| m.uid()),
        "controlling": fs::File::open("/dev/tty").is_ok(),
    })
}

fn namespaces() -> Value {
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];
    let link = |kind: &&str| {
        let target = fs::read_link(format!("/proc/self/ns/{kind}")).ok();
        (kind.to_string(), json!(target.map(|t| t.to_string_lossy().into_owned())))
    };
    kinds.iter().map(link).collect::<serde_json::Map<_, _>>().into()
}

fn scheduling() -> Value {
    let attr = sys::sched_getattr();
    json!({
        "policy": attr.policy, "flags": attr.flags, "nice": attr.nice, "priority": attr.priority,
        "runtime": attr.runtime, "deadline": attr.deadline, "period": attr.period,
    })
}

/// `{"mode": with its flags, "nodes": […]}`; null without NUMA.
fn memory_policy() -> Value {
    sys::memory_policy().map_or(Value::Null, |(mode, nodes)| json!({ "mode": mode, "nodes": nodes }))
}

/// The network interfaces: name → whether it is up.
fn interfaces() -> Value {
    let table = text("/proc/self/net/dev").unwrap_or_default();
    let names = table.lines().skip(2).filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    names
        .map(|name| (name.to_owned(), json!(sys::interface_is_up(name))))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn io_priority() -> Value {
    const WHO_PROCESS: i64 = 1;
    match sys::syscall(libc::SYS_ioprio_get, [WHO_PROCESS, 0, 0, 0, 0, 0]) {
        Ok(value) => json!({ "class": value >> 13, "data": value & 0x1fff }),
        Err(_) => Value::Null,
    }
}

/// Every file below `dir` on the same file system: its kind, numbers, mode and owner, or a link's target.
fn nodes(dir: &Path) -> Value {
    let mut all = serde_json::Map::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if let Some(node) = node(&path) {
            all.insert(path.to_string_lossy().into_owned(), node);
        }
    }
    all.into()
}

/// One file, links not followed: `{"kind","major","minor","mode","uid","gid","target"}`.
pub fn node(path: &Path) -> Option<Value> {
    let meta = fs::symlink_metadata(path).ok()?;
    let kind = meta.file_type();
    let kind = match () {
        () if kind.is_char_device() => "c",
        () if kind.is_block_device() => "b",
        () if kind.is_fifo() => "p",
        () if kind.is_dir() => "d",
        () if kind.is_symlink() => "l",
        () if kind.is_socket() => "s",
        () => "f",
    };
    let device = meta.rdev();
    Some(json!({
        "kind": kind,
        "major": libc::major(device),
        "minor": libc::minor(device),
        "mode": format!("{:04o}", meta.mode() & 0o7777),
        "uid": meta.uid(),
        "gid": meta.gid(),
        "size": meta.size(),
        "target": fs::read_link(path).ok().map(|t| t.to_string_lossy().into_owned()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_one_place_are_told_from_below() {
        let lines = ["31 30 0:1 / /b x", "29 20 0:2 / /a x", "30 20 0:3 / /b x"];
        assert_eq!(stacked(&lines), ["30 20 0:3 / /b x", "29 20 0:2 / /a x", "31 30 0:1 / /b x"]);
    }
}
