// SPDX-License-Identifier: Apache-2.0
//! Bad input: the rows of config-linux.md, mounts and hooks. How they are tried stands in `bad_input`.

#![forbid(unsafe_code)]

use serde_json::json;

use super::bad_input::{Bad, bad};

/// Namespaces, mappings, and what belongs to a namespace.
pub const NAMESPACES: &[Bad] = &[
    bad(
        "namespace-twice",
        |b| b.push("/linux/namespaces", json!({"type": "uts"})),
        &["namespace|duplicated ns"],
        &["/linux/namespaces|linux.namespaces", "uts"],
    ).crun("leaves its cgroup behind"),
    bad(
        "namespace-unknown",
        |b| b.push("/linux/namespaces", json!({"type": "nosuch"})),
        &["nosuch"],
        &["/linux/namespaces|linux.namespaces"],
    ).crun("leaves its cgroup behind"),
    bad(
        "namespace-path-absent",
        |b| b.namespace("network", Some("/no/such/ns")),
        &["/no/such/ns", "no such file or directory|ENOENT"],
        &["/linux/namespaces|linux.namespaces"],
    ).crun("leaves its cgroup behind"),
    bad(
        "namespace-path-of-another-kind",
        |b| b.namespace("network", Some("/proc/self/ns/uts")),
        &["net|namespace|setns", "invalid argument|EINVAL|uts|type"],
        &["/linux/namespaces|linux.namespaces"],
    ).runc("several lines of error").crun("leaves its cgroup behind"),
    bad(
        "namespace-path-is-a-file",
        |b| b.namespace("ipc", Some("/etc/passwd")),
        &["ipc|namespace|setns"],
        &["/linux/namespaces|linux.namespaces", "/etc/passwd"],
    ).runc("several lines of error").crun("leaves its cgroup behind"),
    bad(
        "namespace-path-relative",
        |b| b.namespace("ipc", Some("proc/self/ns/ipc")),
        &["namespace|proc/self/ns/ipc"],
        &["/linux/namespaces|linux.namespaces", "absolute"],
    ).crun("leaves its cgroup behind"),
    bad(
        "mapping-without-user-namespace",
        |b| b.set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 1000, "size": 1}])),
        &["user namespace|mapping"],
        &["/linux/uidMappings|linux.uidMappings"],
    ).runc("ignores it").crun("ignores it"),
    bad(
        "user-namespace-without-mapping",
        |b| b.namespace("user", None),
        &["mapping|uid"],
        &["/linux/uidMappings|linux.uidMappings"],
    ).crun("invents one"),
    bad(
        "mapping-overlaps",
        |b| {
            b.namespace("user", None).set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 1000, "size": 10}, {"containerID": 5, "hostID": 3000, "size": 10}])).set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 1000, "size": 10}]))
        },
        &["map|mapping|uid"],
        &["/linux/uidMappings|linux.uidMappings"],
    ).runc("several lines of error").crun("leaves its cgroup behind"),
    bad(
        "mapping-of-size-0",
        |b| {
            b.user_namespace()
                .set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 1000, "size": 0}]))
        },
        &["map|mapping|uid"],
        &["/linux/uidMappings|linux.uidMappings"],
    ).crun("leaves its cgroup behind"),
    bad(
        "hostname-without-uts-namespace",
        |b| b.without_namespace("uts").set("/hostname", json!("x")),
        &["hostname|uts"],
        &["hostname", "uts"],
    ),
    bad(
        "domainname-without-uts-namespace",
        |b| b.remove("/hostname").without_namespace("uts").set("/domainname", json!("x")),
        &["domainname|uts"],
        &["domainname", "uts"],
    ),
    bad(
        "time-offsets-without-time-namespace",
        |b| b.set("/linux/timeOffsets", json!({"monotonic": {"secs": 1}})),
        &["time"],
        &["/linux/timeOffsets|linux.timeOffsets"],
    ).crun("leaves its cgroup behind"),
    bad(
        "time-offset-nanoseconds-too-large",
        |b| {
            b.namespace("time", None)
                .set("/linux/timeOffsets", json!({"monotonic": {"secs": 1, "nanosecs": 1_000_000_000}}))
        },
        &["time|offset|invalid argument|nanosec|numerical result"],
        &["/linux/timeOffsets|linux.timeOffsets"],
    ).runc("at times: several lines of error").crun("leaves its cgroup behind"),
    bad(
        "sysctl-of-the-host",
        |b| b.set("/linux/sysctl", json!({"kernel.core_pattern": "/x"})),
        &["kernel.core_pattern"],
        &["/linux/sysctl|linux.sysctl"],
    ),
    bad(
        "sysctl-of-the-host-with-slashes",
        |b| b.set("/linux/sysctl", json!({"kernel/core_pattern": "/x"})),
        &["kernel/core_pattern|kernel.core_pattern"],
        &["/linux/sysctl|linux.sysctl"],
    ),
    bad(
        "sysctl-vm",
        |b| b.set("/linux/sysctl", json!({"vm.overcommit_memory": "1"})),
        &["vm.overcommit_memory"],
        &["/linux/sysctl|linux.sysctl"],
    ),
    bad(
        "sysctl-hostname",
        |b| b.set("/linux/sysctl", json!({"kernel.hostname": "x"})),
        &["kernel.hostname"],
        &["/linux/sysctl|linux.sysctl"],
    ),
    bad(
        "sysctl-net-of-the-host",
        |b| b.without_namespace("network").set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})),
        &["net.ipv4.ip_forward"],
        &["/linux/sysctl|linux.sysctl"],
    ),
    bad(
        "sysctl-ipc-of-the-host",
        |b| {
            b.without_namespace("ipc")
                .without_mount("/dev/mqueue")
                .set("/linux/sysctl", json!({"kernel.shmmax": "1"}))
        },
        &["kernel.shmmax"],
        &["/linux/sysctl|linux.sysctl"],
    ),
    bad(
        "sysctl-climbing",
        |b| b.set("/linux/sysctl", json!({"net/../kernel/core_pattern": "/x"})),
        &["core_pattern"],
        &["/linux/sysctl|linux.sysctl"],
    ),
    bad(
        "sysctl-absent",
        |b| b.set("/linux/sysctl", json!({"net.ipv4.no_such_key": "1"})),
        &["no_such_key", "no such file or directory|ENOENT"],
        &["/linux/sysctl|linux.sysctl"],
    ),
    bad(
        "sysctl-value-refused",
        |b| b.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "text"})),
        &["net.ipv4.ip_forward|ip_forward", "invalid argument|EINVAL"],
        &["/linux/sysctl|linux.sysctl"],
    ),
];

/// The root file system, mounts, paths and devices.
pub const ROOT: &[Bad] = &[
    bad("root-absent", |b| b.remove("/root"), &["root"], &["root"]),
    bad(
        "root-path-absent",
        |b| b.set("/root/path", json!("nosuch")),
        &["nosuch", "no such file or directory|ENOENT|does not exist"],
        &["/root/path|root.path"],
    ),
    bad("root-path-empty", |b| b.set("/root/path", json!("")), &["root|rootfs"], &["/root/path|root.path"])
        .runc("takes the caller's directory")
        .crun("does not name the field"),
    bad(
        "root-path-is-a-file",
        |b| b.set("/root/path", json!("config.json")),
        &["config.json|root", "not a directory|ENOTDIR"],
        &["/root/path|root.path"],
    )
    .runc("does not name it")
    .crun("says permission denied"),
    bad(
        "mount-without-destination",
        |b| b.push("/mounts", json!({"type": "tmpfs", "source": "tmpfs"})),
        &["destination|mount"],
        &["/mounts/7|mounts[7]"],
    ),
    bad(
        "mount-of-wrong-type",
        |b| b.set("/mounts", json!("all")),
        &["mounts|cannot unmarshal|parse"],
        &["mounts"],
    ),
    bad(
        "mount-bind-source-absent",
        |b| b.mount("bind", "/no/such", "/x", &["bind"]),
        &["/no/such", "no such file or directory|ENOENT"],
        &["/mounts/7|mounts[7]"],
    ),
    bad(
        "mount-onto-a-file",
        |b| b.mount("tmpfs", "tmpfs", "/etc/passwd", &[]),
        &["/etc/passwd|etc/passwd", "not a directory|ENOTDIR"],
        &["/mounts/7|mounts[7]"],
    ),
    bad(
        "mount-type-unknown",
        |b| b.mount("nosuchfs", "nosuchfs", "/x", &[]),
        &["nosuchfs", "no such device|ENODEV"],
        &["/mounts/7|mounts[7]"],
    ),
    bad(
        "propagation-unknown",
        |b| b.set("/linux/rootfsPropagation", json!("nosuch")),
        &["rootfsPropagation|nosuch|propagation"],
        &["/linux/rootfsPropagation|linux.rootfsPropagation"],
    )
    .crun("ignores it"),
    bad(
        "masked-path-relative",
        |b| b.set("/linux/maskedPaths", json!(["etc/passwd"])),
        &["maskedPaths|etc/passwd"],
        &["/linux/maskedPaths|linux.maskedPaths", "absolute"],
    )
    .runc("a25: takes it")
    .crun("takes it"),
    bad(
        "readonly-path-relative",
        |b| b.set("/linux/readonlyPaths", json!(["etc"])),
        &["readonlyPaths|etc"],
        &["/linux/readonlyPaths|linux.readonlyPaths", "absolute"],
    )
    .runc("a25: takes it")
    .crun("takes it"),
    bad(
        "device-type-unknown",
        |b| b.push("/linux/devices", json!({"path": "/dev/x", "type": "q", "major": 1, "minor": 1})),
        &["/dev/x|device|\"q\""],
        &["/linux/devices|linux.devices"],
    )
    .crun("makes something"),
    bad(
        "device-path-relative",
        |b| b.push("/linux/devices", json!({"path": "x/y", "type": "c", "major": 1, "minor": 3})),
        &["x/y|device"],
        &["/linux/devices|linux.devices"],
    )
    .runc("takes it for absolute"),
];

/// Seccomp, hooks and control groups.
pub const RESOURCES: &[Bad] = &[
    bad("seccomp-action-unknown", |b| b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOSUCH"})), &["SCMP_ACT_NOSUCH|seccomp"], &["/linux/seccomp|linux.seccomp"]),
    bad("seccomp-architecture-unknown", |b| b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NOSUCH"], "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO"}]})), &["arch|SCMP_ARCH_NOSUCH"], &["/linux/seccomp|linux.seccomp"]),
    bad("seccomp-operator-unknown", |b| b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_NOSUCH"}]}]})), &["SCMP_CMP_NOSUCH|operator|seccomp"], &["/linux/seccomp|linux.seccomp"]),
    bad("seccomp-argument-out-of-range", |b| b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]})), &["seccomp|argument|index"], &["/linux/seccomp|linux.seccomp"]),
    bad("seccomp-flag-unknown", |b| b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NOSUCH"], "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO"}]})), &["SECCOMP_FILTER_FLAG_NOSUCH|flag"], &["/linux/seccomp|linux.seccomp"]).crun("start succeeds"),
    bad("seccomp-errnoRet-on-allow", |b| b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ALLOW", "errnoRet": 5}]})), &["errno"], &["/linux/seccomp|linux.seccomp"])
        .runc("a4: drops it silently"),
    bad("seccomp-metadata-without-listener", |b| b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x", "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO"}]})), &["listener"], &["/linux/seccomp|linux.seccomp"])
        .runc("ignores it").crun("ignores it"),
    bad("hook-path-absent", |b| b.set("/hooks/createRuntime", json!([{"path": "/no/such"}])), &["/no/such|hook", "no such file or directory|ENOENT"], &["/hooks/createRuntime|hooks.createRuntime"])
        .crun("exits with 255, does not say why"),
    bad("hook-timeout-zero", |b| b.set("/hooks/createRuntime", json!([{"path": "/probe", "timeout": 0}])), &["timeout"], &["/hooks/createRuntime|hooks.createRuntime"])
        .runc("a14: does not look").crun("exits with 255"),
    bad("device-rule-type-unknown", |b| b.push("/linux/resources/devices", json!({"allow": true, "type": "q", "access": "rwm"})), &["device"], &["/linux/resources/devices|linux.resources.devices"]).crun("ignores it"),
    bad("device-rule-access-unknown", |b| b.push("/linux/resources/devices", json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "xyz"})), &["device|access"], &["/linux/resources/devices|linux.resources.devices"])
        .crun("ignores it").runc("on v2: ignores it"),
    bad("cgroups-path-of-wrong-type", |b| b.set("/linux/cgroupsPath", json!(["a"])), &["cgroupsPath|cannot unmarshal|parse"], &["/linux/cgroupsPath|linux.cgroupsPath"])
        .crun("ignores it"),
];
