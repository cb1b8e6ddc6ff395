// SPDX-License-Identifier: Apache-2.0
//! Bad input: values of the right type that mean nothing, or that contradict others. How they are tried stands in
//! `bad_input`.

#![forbid(unsafe_code)]

use serde_json::{Value, json};

use super::bad_input::{Bad, bad};
use crate::harness::bundle::Bundle;

/// config.md.
pub const GENERAL: &[Bad] = &[
    bad(
        "version-of-another-kind",
        |b| b.set("/ociVersion", json!("2.0.0")),
        &["version"],
        &["/ociVersion", "2.0.0"],
    )
    .crun("a13: does not look")
    .runc("a13: does not look"),
    bad(
        "hostname-too-long",
        |b| b.set("/hostname", json!("x".repeat(65))),
        &["hostname"],
        &["/hostname", "65"],
    ),
    bad(
        "domainname-too-long",
        |b| b.set("/domainname", json!("x".repeat(65))),
        &["domainname"],
        &["/domainname", "65"],
    ),
    bad(
        "linux-of-wrong-type",
        |b| b.set("/linux", json!("all of it")),
        &["linux|cannot unmarshal|parse"],
        &["/linux"],
    ),
    bad(
        "readonly-of-wrong-type",
        |b| b.set("/root/readonly", json!("yes")),
        &["readonly|cannot unmarshal|parse"],
        &["/root/readonly"],
    )
    .crun("takes it for absent"),
    bad(
        "env-without-equals-sign",
        |b| b.push("/process/env", json!("WORD")),
        &["environment", "WORD"],
        &["/process/env"],
    )
    .crun("takes it")
    .runc("does not say which"),
    bad("env-without-name", |b| b.push("/process/env", json!("=value")), &["environment"], &["/process/env"])
        .crun("takes it"),
    bad(
        "env-with-nul",
        |b| b.push("/process/env", json!("A=b\u{0}c")),
        &["environment|nul|env"],
        &["/process/env", "NUL"],
    )
    .crun("takes what is before it"),
    bad(
        "args-with-nul",
        |b| b.push("/process/args", json!("a\u{0}b")),
        &["nul|invalid argument|args"],
        &["/process/args", "NUL"],
    )
    .crun("takes what is before it")
    .runc("exit code 255"),
    bad(
        "cwd-with-nul",
        |b| b.set("/process/cwd", json!("/a\u{0}b")),
        &["nul|invalid argument|cwd"],
        &["/process/cwd", "NUL"],
    )
    .crun("takes what is before it"),
    bad(
        "rlimit-negative",
        |b| b.set("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": -1, "hard": -1}])),
        &["rlimit|cannot unmarshal|parse"],
        &["/process/rlimits/0"],
    )
    .crun("takes it for no limit"),
    bad(
        "capability-effective-but-not-permitted",
        |b| b.set("/process/capabilities", json!({"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"]})),
        &["capabilit|capset", "permitted"],
        &["/process/capabilities/effective", "CAP_CHOWN"],
    ),
    bad(
        "hook-timeout-negative",
        |b| hook(b, json!({"path": "/bin/true", "timeout": -1})),
        &["timeout"],
        &["/hooks/createRuntime/0/timeout"],
    )
    .crun("says it twice"),
    bad(
        "hook-path-empty",
        |b| hook(b, json!({"args": ["x"]})),
        &["hook"],
        &["/hooks/createRuntime/0/path", "absolute"],
    )
    .crun("does not say where"),
];

pub const SCHEDULING: &[Bad] = &[
    bad(
        "scheduler-without-policy",
        |b| scheduler(b, json!({"nice": 5})),
        &["scheduler"],
        &["/process/scheduler/policy"],
    )
    .crun("does not say where"),
    bad(
        "scheduler-nice",
        |b| scheduler(b, json!({"policy": "SCHED_OTHER", "nice": 20})),
        &["nice"],
        &["/process/scheduler/nice", "20"],
    )
    .crun("the kernel cuts it"),
    bad(
        "scheduler-priority-of-another-policy",
        |b| scheduler(b, json!({"policy": "SCHED_OTHER", "priority": 10})),
        &["priority"],
        &["/process/scheduler/priority"],
    )
    .crun("does not name the field"),
    bad(
        "scheduler-flag-unknown",
        |b| scheduler(b, json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_NOSUCH"]})),
        &["SCHED_FLAG_NOSUCH|scheduler"],
        &["/process/scheduler/flags/0"],
    ),
    bad(
        "scheduler-deadline-before-the-end",
        |b| {
            scheduler(
                b,
                json!({"policy": "SCHED_DEADLINE", "runtime": 30_000_000, "deadline": 10_000_000, "period": 40_000_000}),
            )
        },
        &["sched", "invalid argument|EINVAL|deadline"],
        &["/process/scheduler/deadline"],
    ),
    bad(
        "scheduler-period-of-another-policy",
        |b| scheduler(b, json!({"policy": "SCHED_BATCH", "period": 40_000_000})),
        &["deadline"],
        &["/process/scheduler/period"],
    )
    .crun("ignores it"),
    bad(
        "ioprio-level",
        |b| b.set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 8})),
        &["priority|ioprio"],
        &["/process/ioPriority/priority", "8"],
    ),
    bad(
        "ioprio-without-class",
        |b| b.set("/process/ioPriority", json!({"priority": 1})),
        &["class|ioprio|priority"],
        &["/process/ioPriority/class"],
    ),
    bad(
        "personality-flags",
        |b| b.set("/linux/personality", json!({"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]})),
        &["personality"],
        &["/linux/personality/flags/0"],
    )
    .crun("a17: ignores them")
    .runc("a17: a warning"),
    bad(
        "affinity-that-does-not-read",
        |b| b.set("/process/execCPUAffinity", json!({"initial": "0-x"})),
        &["affinity"],
        &["/process/execCPUAffinity/initial"],
    )
    .crun("reads it at exec only"),
];

/// Namespaces, mounts, devices, paths.
pub const FILES: &[Bad] = &[
    bad(
        "time-offset-of-an-unknown-clock",
        |b| b.namespace("time", None).set("/linux/timeOffsets", json!({"realtime": {"secs": 1}})),
        &["time|clock|realtime"],
        &["/linux/timeOffsets/realtime"],
    )
    .crun("ignores it")
    .runc("at times: several lines of error"),
    bad(
        "time-offset-before-the-boot",
        |b| {
            b.namespace("time", None)
                .set("/linux/timeOffsets", json!({"boottime": {"secs": -4_000_000_000i64}}))
        },
        &["time", "result|range|ERANGE"],
        &["/linux/timeOffsets|timens_offsets"],
    )
    .crun("leaves its cgroup behind")
    .runc("several lines of error"),
    bad(
        "root-not-mapped",
        |b| {
            b.user_namespace()
                .set("/linux/uidMappings", json!([{"containerID": 1, "hostID": 100_000, "size": 9}]))
        },
        &["map|uid"],
        &["/linux/uidMappings", "0"],
    )
    .crun("leaves its cgroup behind"),
    bad(
        "mount-with-user-mapping-alone",
        |b| mapped(b, json!(["bind"]), json!(map()), Value::Null),
        &["mappings"],
        &["/mounts/7"],
    )
    .crun("leaves its cgroup behind"),
    bad(
        "mount-idmap-without-any-mapping",
        |b| mapped(b, json!(["bind", "idmap"]), Value::Null, Value::Null),
        &["idmap|id-map|user namespace|userns"],
        &["/mounts/7/options"],
    )
    .crun("does not say what"),
    bad(
        "mount-of-a-bind-without-source",
        |b| b.push("/mounts", json!({"destination": "/x", "options": ["bind"]})),
        &["source|no such file|/x|mount"],
        &["/mounts/7/source"],
    )
    .runc("binds the bundle"),
    bad(
        "mount-without-type",
        |b| b.push("/mounts", json!({"destination": "/x", "source": "x"})),
        &["type|/x|mount"],
        &["/mounts/7/type"],
    ),
    bad(
        "mount-option-of-no-file-system",
        |b| b.mount("tmpfs", "tmpfs", "/x", &["nosuchoption"]),
        &["/x|nosuchoption", "invalid argument|EINVAL"],
        &["/mounts/7|mounts[7]", "nosuchoption"],
    )
    .crun("does not say which"),
    bad(
        "mount-destination-with-nul",
        |b| b.mount("tmpfs", "tmpfs", "/x\u{0}y", &[]),
        &["mount|invalid argument|destination"],
        &["/mounts/7/destination", "NUL"],
    )
    .crun("takes what is before it"),
    bad(
        "device-number-negative",
        |b| device(b, json!({"path": "/dev/x", "type": "c", "major": -1, "minor": 3})),
        &["device|/dev/x|/dev"],
        &["/linux/devices/0/major", "-1"],
    ),
    bad(
        "device-number-too-large",
        |b| device(b, json!({"path": "/dev/x", "type": "c", "major": 1, "minor": 1 << 20})),
        &["device|/dev/x|/dev"],
        &["/linux/devices/0/minor"],
    ),
    bad(
        "device-twice",
        |b| {
            device(
                device(b, json!({"path": "/dev/x", "type": "c", "major": 1, "minor": 3})),
                json!({"path": "/dev/x", "type": "c", "major": 1, "minor": 5}),
            )
        },
        &["device|/dev/x"],
        &["/linux/devices/1", "/linux/devices/0"],
    )
    .crun("a5: the first one stays")
    .runc("a5: the first one stays"),
    bad(
        "sysctl-twice",
        |b| b.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "0", "net/ipv4/ip_forward": "1"})),
        &["ip_forward"],
        &["/linux/sysctl", "twice"],
    )
    .crun("a23: both are written")
    .runc("a23: one of them wins"),
    bad(
        "masked-path-is-the-root",
        |b| b.set("/linux/maskedPaths", json!(["/"])),
        &["mask|/"],
        &["/linux/maskedPaths/0"],
    )
    .runc("a25: takes it"),
    bad(
        "class-of-service-that-is-a-path",
        |b| b.set("/linux/intelRdt", json!({"closID": "../x"})),
        &["rdt|closID"],
        &["/linux/intelRdt/closID"],
    )
    .crun("looks for resctrl first"),
];

/// Seccomp and control groups.
pub const RESOURCES: &[Bad] = &[
    bad(
        "seccomp-default-errno-of-allow",
        |b| {
            b.set(
                "/linux/seccomp",
                json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 5, "syscalls": rules()}),
            )
        },
        &["errno"],
        &["/linux/seccomp/defaultErrnoRet"],
    ).runc("a4: drops it silently"),
    bad(
        "seccomp-errno-beyond-16-bits",
        |b| {
            b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 70_000}]}))
        },
        &["errno|seccomp"],
        &["/linux/seccomp/syscalls/0/errnoRet", "70000"],
    ),
    bad(
        "seccomp-notify-without-listener",
        |b| {
            b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_NOTIFY"}]}))
        },
        &["listener"],
        &["/linux/seccomp/listenerPath"],
    ).crun("ignores the rule"),
    bad(
        "seccomp-empty-name",
        |b| {
            b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [""], "action": "SCMP_ACT_ERRNO"}]}))
        },
        &["seccomp|syscall"],
        &["/linux/seccomp/syscalls/0/names/0"],
    ).crun("ignores it"),
    bad(
        "seccomp-without-default-action",
        |b| b.set("/linux/seccomp", json!({"syscalls": rules()})),
        &["action|seccomp"],
        &["/linux/seccomp/defaultAction"],
    ),
    bad(
        "unified-without-controller",
        |b| b.set("/linux/resources/unified", json!({"nosuch.max": "1"})),
        &["nosuch"],
        &["/linux/resources/unified"],
    ).crun("leaves its cgroup behind").runc("on v1: refuses all of unified"),
];

fn map() -> Value {
    json!([{"containerID": 0, "hostID": 1000, "size": 1}])
}

fn rules() -> Value {
    json!([{"names": ["getppid"], "action": "SCMP_ACT_ERRNO"}])
}

fn hook(b: Bundle, hook: Value) -> Bundle {
    b.set("/hooks/createRuntime", json!([hook]))
}

fn scheduler(b: Bundle, scheduler: Value) -> Bundle {
    b.set("/process/scheduler", scheduler)
}

fn device(b: Bundle, device: Value) -> Bundle {
    b.push("/linux/devices", device)
}

fn mapped(b: Bundle, options: Value, uid: Value, gid: Value) -> Bundle {
    b.push(
        "/mounts",
        json!({"destination": "/x", "type": "bind", "source": "/tmp", "options": options, "uidMappings": uid, "gidMappings": gid}),
    )
}
