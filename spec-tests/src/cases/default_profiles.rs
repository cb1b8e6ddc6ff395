// SPDX-License-Identifier: Apache-2.0
//! S44: the default profiles of engines keep the calls away by which kernels were attacked. The process has the capabilities that they ask for, so that
//! a refusal is the filter's and nobody else's: without the profile none of these calls is refused, each fails for what it was given.

#![forbid(unsafe_code)]

use std::fs;

use serde_json::{Value, json};

use crate::check;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::host::Need;
use crate::harness::test::Test;
use crate::harness::tracer::name_of;

/// As it is installed beside podman.
const PODMANS: &str = "/usr/share/containers/seccomp.json";
/// What engines grant by default.
const GRANTED: [&str; 11] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// What the kernel asks for before it looks at the arguments of the calls below.
const NEEDED: [&str; 9] = [
    "CAP_BPF",
    "CAP_DAC_READ_SEARCH",
    "CAP_PERFMON",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_TIME",
];

/// Calls with arguments that no kernel takes.
const CALLS: [(i64, &str); 34] = [
    (libc::SYS_mount, "0 0 0 0 0"),
    (libc::SYS_umount2, "0 0"),
    (libc::SYS_pivot_root, "0 0"),
    (libc::SYS_fsopen, "0 0"),
    (libc::SYS_fsconfig, "-1 99 0 0 0"),
    (libc::SYS_fsmount, "-1 0 0"),
    (libc::SYS_fspick, "-1 0 0xffff"),
    (libc::SYS_move_mount, "-1 0 -1 0 0xffffffff"),
    (libc::SYS_open_tree, "-1 0 0xffffffff"),
    (libc::SYS_mount_setattr, "-1 0 0 0 1"),
    (libc::SYS_unshare, "1"),
    (libc::SYS_setns, "-1 0"),
    (libc::SYS_clone3, "0 0"),
    (libc::SYS_keyctl, "9999"),
    (libc::SYS_add_key, "0 0 0 0 0"),
    (libc::SYS_request_key, "0 0 0 0"),
    (libc::SYS_bpf, "9999 0 0"),
    (libc::SYS_perf_event_open, "0 0 -1 -1 0"),
    (libc::SYS_userfaultfd, "0xffffffff"),
    (libc::SYS_open_by_handle_at, "-1 0 0"),
    (libc::SYS_init_module, "0 0 0"),
    (libc::SYS_finit_module, "-1 0 0"),
    (libc::SYS_delete_module, "0 0"),
    (libc::SYS_kexec_load, "0 0 0 0xffff"),
    (libc::SYS_reboot, "0 0 0 0"),
    (libc::SYS_swapon, "0 0xffffffff"),
    (libc::SYS_swapoff, "0"),
    (libc::SYS_quotactl, "0xffffffff 0 0 0"),
    (libc::SYS_acct, "1"),
    (libc::SYS_settimeofday, "1 0"),
    (libc::SYS_fanotify_init, "0xffffffff 0"),
    (libc::SYS_setdomainname, "1 1"),
    (libc::SYS_set_mempolicy, "99 0 0"),
    // Address space without its random places (ADDR_NO_RANDOMIZE).
    (libc::SYS_personality, "0x40000"),
];

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("attack/S44-profile-of-docker", |t| {
            answers_as(t, &serde_json::from_str(include_str!("docker-seccomp.json"))?, 30)
        }),
        case("attack/S44-profile-of-podman", |t| {
            answers_as(t, &for_here(serde_json::from_str(&fs::read_to_string(PODMANS)?)?), 10)
        })
        .needs(&[Need::File(PODMANS)]),
    ]
}

/// Each call is answered as the profile says, of which at least so many are refused.
fn answers_as(t: &Test, profile: &Value, refusals: usize) -> Verdict {
    let (free, held) = (tried(t, None)?, tried(t, Some(profile))?);
    let mut refused = 0;
    for ((number, args), (free, held)) in CALLS.iter().zip(free.iter().zip(&held)) {
        let name = name_of(*number);
        check!(free != "EPERM", "{name} is refused without a profile, too: this says nothing");
        let first = args.split(' ').next().unwrap_or_default();
        let want = errno_of(profile, &name, first);
        check!(
            want.as_ref().unwrap_or(free) == held,
            "{name}({args}): {held}, not {}",
            want.as_ref().unwrap_or(free)
        );
        refused += usize::from(want.is_some());
    }
    check!(refused >= refusals, "{refused} of {} are refused, at least {refusals} were", CALLS.len());
    Ok(())
}

/// What a profile answers to a call, read as people read it: the rules that name it, else the default. `None`: it lets it through.
fn errno_of(profile: &Value, name: &str, first: &str) -> Option<String> {
    let fits = |rule: &&Value| {
        let named = rule["names"].as_array().is_some_and(|names| names.iter().any(|one| one == name));
        let mut args = rule["args"].as_array().into_iter().flatten();
        named && args.all(|arg| first.parse() == Ok(arg["value"].as_u64().unwrap_or(u64::MAX)))
    };
    let rules: Vec<&Value> = profile["syscalls"].as_array().into_iter().flatten().filter(fits).collect();
    if rules.iter().any(|rule| rule["action"] == "SCMP_ACT_ALLOW") {
        return None;
    }
    let number = rules.first().map_or(&profile["defaultErrnoRet"], |rule| &rule["errnoRet"]).as_i64();
    Some(format!("{:?}", nix::errno::Errno::from_raw(number.unwrap_or(1) as i32)))
}

/// A profile in Docker's language, for a process with what engines grant, on this machine.
fn for_here(mut profile: Value) -> Value {
    let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let has = |list: &Value, mine: &dyn Fn(&str) -> bool| -> Vec<bool> {
        list.as_array().into_iter().flatten().filter_map(Value::as_str).map(mine).collect()
    };
    let granted = |name: &str| GRANTED.contains(&name);
    if let Some(rules) = profile["syscalls"].as_array_mut() {
        rules.retain(|rule| {
            let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
            let arches = has(&includes["arches"], &|name| name == arch);
            has(&includes["caps"], &granted).iter().all(|one| *one)
                && !has(&excludes["caps"], &granted).contains(&true)
                && (arches.is_empty() || arches.contains(&true))
        });
        for rule in rules {
            let (names, action, args) = (rule["names"].take(), rule["action"].take(), rule["args"].take());
            let errno = rule["errnoRet"].take();
            *rule = json!({"names": names, "action": action, "args": args});
            if errno.is_number() {
                rule["errnoRet"] = errno;
            }
        }
    }
    json!({"defaultAction": profile["defaultAction"], "defaultErrnoRet": profile["defaultErrnoRet"],
        "syscalls": profile["syscalls"]})
}

/// What the calls answer, one after the other.
fn tried(t: &Test, profile: Option<&Value>) -> Result<Vec<String>, Trouble> {
    let ops: Vec<String> = CALLS.iter().map(|(number, args)| format!("syscall {number} {args}")).collect();
    let mut b = t.bundle()?.set("/process/noNewPrivileges", json!(true));
    for set in ["bounding", "effective", "permitted"] {
        b = b.set(&format!("/process/capabilities/{set}"), json!(NEEDED));
    }
    if let Some(profile) = profile {
        b = b.set("/linux/seccomp", profile.clone());
    }
    let done = t.run(&b.tries(ops.iter().map(String::as_str)))?;
    let lines: Vec<Value> = done.ok()?.stdout.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    check!(lines.len() == CALLS.len(), "{} answers to {} calls: {done}", lines.len(), CALLS.len());
    Ok(lines.iter().map(|line| line["errno"].as_str().unwrap_or_default().to_owned()).collect())
}
