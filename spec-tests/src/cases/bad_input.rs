// SPDX-License-Identifier: Apache-2.0
//! What no runtime may accept, and what it must say: one line that names the field, the step or the errno; exit code
//! 1; and nothing left behind.

#![forbid(unsafe_code)]

use std::fs;

use serde_json::json;

use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::test::Test;

/// One thing that is wrong.
struct Bad {
    name: &'static str,
    /// Makes the bundle bad.
    spoil: fn(Bundle) -> Bundle,
    /// What everybody must say.
    says: &'static [&'static str],
    /// What Corten must say besides: the field's name, above all.
    corten: &'static [&'static str],
    runc: &'static str,
    crun: &'static str,
}

const fn bad(
    name: &'static str,
    spoil: fn(Bundle) -> Bundle,
    says: &'static [&'static str],
    corten: &'static [&'static str],
) -> Bad {
    Bad { name, spoil, says, corten, runc: "", crun: "" }
}

impl Bad {
    const fn runc(mut self, reason: &'static str) -> Self {
        self.runc = reason;
        self
    }

    const fn crun(mut self, reason: &'static str) -> Self {
        self.crun = reason;
        self
    }
}

/// The chapter.
pub fn cases() -> Vec<Case> {
    let tables = [PROCESS, PROGRAM, NAMESPACES, ROOT, RESOURCES].into_iter().flatten();
    let mut all: Vec<Case> = tables.map(row).collect();
    all.extend(super::bad_files::cases());
    all
}

fn row(bad: &'static Bad) -> Case {
    let body = move |t: &Test| refused(t, (bad.spoil)(t.bundle()?), bad.says, bad.corten);
    case(format!("bad/{}", bad.name), body).peer("runc", bad.runc).peer("crun", bad.crun)
}

/// `run` and `create` and `start` fail with one line that says all this, and leave nothing.
fn refused(t: &Test, b: Bundle, says: &[&str], corten: &[&str]) -> Verdict {
    let before = t.snapshot();
    let done = t.run(&b)?;
    done.refuses(says)?;
    if t.host.name == "corten" {
        done.complains(corten)?;
    }
    t.unchanged_since(&before)?;
    let created = t.try_create("create", &b)?;
    if created.code == 0 {
        // What can be found out at create should be; what the exec of the program alone shows is told by start.
        t.cli(&format!("start {}", b.id))?.refuses(says)?;
        t.cli(&format!("delete --force {}", b.id))?.ok()?;
    }
    t.unchanged_since(&before)
}

const PROCESS: &[Bad] = &[
    bad("args-empty", |b| b.set("/process/args", json!([])), &["args"], &["process.args"])
        .crun("does not name the field"),
    bad("args-absent", |b| b.remove("/process/args"), &["args"], &["process.args"])
        .crun("does not name the field"),
    bad(
        "args-of-wrong-type",
        |b| b.set("/process/args", json!("sh")),
        &["args|cannot unmarshal|parse"],
        &["process.args"],
    )
    .crun("takes it for absent"),
    bad(
        "args-hold-a-number",
        |b| b.set("/process/args", json!([7])),
        &["args|cannot unmarshal|parse"],
        &["process.args"],
    )
    .crun("takes it"),
    bad(
        "first-arg-empty",
        |b| b.set("/process/args", json!([""])),
        &["args|executable|exec"],
        &["process.args"],
    )
    .crun("does not name the field"),
    bad("process-absent", |b| b.remove("/process"), &["process"], &["process"]).crun("start succeeds"),
    bad("cwd-relative", |b| b.set("/process/cwd", json!("tmp")), &["cwd", "absolute"], &["process.cwd"])
        .crun("takes it"),
    bad("cwd-absent", |b| b.remove("/process/cwd"), &["cwd"], &["process.cwd"]),
    bad(
        "cwd-is-a-file",
        |b| b.set("/process/cwd", json!("/etc/passwd")),
        &["/etc/passwd|cwd", "not a directory|ENOTDIR"],
        &["process.cwd", "ENOTDIR|not a directory"],
    ),
    bad(
        "cwd-cannot-be-made",
        |b| b.set("/process/cwd", json!("/proc/none")),
        &["/proc/none|cwd", "no such file|ENOENT"],
        &["process.cwd"],
    ),
    bad(
        "uid-of-wrong-type",
        |b| b.set("/process/user", json!({"uid": "root", "gid": 0})),
        &["uid|user|cannot unmarshal|parse|invalid"],
        &["process.user.uid"],
    )
    .crun("takes it for 0"),
    bad(
        "uid-too-large",
        |b| b.set("/process/user", json!({"uid": 4_294_967_295u64, "gid": 0})),
        &["uid|user"],
        &["process.user.uid", "4294967295"],
    )
    .crun("stays root with it"),
    bad(
        "gid-too-large",
        |b| b.set("/process/user", json!({"uid": 0, "gid": 4_294_967_295u64})),
        &["gid|user"],
        &["process.user.gid", "4294967295"],
    )
    .crun("stays root with it"),
    bad(
        "additional-gid-too-large",
        |b| b.set("/process/user", json!({"uid": 0, "gid": 0, "additionalGids": [4_294_967_295u64]})),
        &["group|gid|invalid argument"],
        &["process.user.additionalGids", "4294967295"],
    )
    .crun("leaves its cgroup behind"),
    bad(
        "uid-over-32-bit",
        |b| b.set("/process/user", json!({"uid": 4_294_967_296u64, "gid": 0})),
        &["uid|user|cannot unmarshal"],
        &["process.user.uid"],
    ),
    bad(
        "rlimit-unknown",
        |b| b.push("/process/rlimits", json!({"type": "RLIMIT_NOSUCH", "soft": 1, "hard": 1})),
        &["RLIMIT_NOSUCH"],
        &["process.rlimits"],
    )
    .crun("leaves its cgroup behind"),
    bad(
        "rlimit-twice",
        |b| b.push("/process/rlimits", json!({"type": "RLIMIT_NOFILE", "soft": 512, "hard": 512})),
        &["RLIMIT_NOFILE"],
        &["process.rlimits"],
    )
    .runc("a10: the last one wins")
    .crun("a10: the last one wins"),
    bad(
        "rlimit-soft-over-hard",
        |b| b.set("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": 9, "hard": 8}])),
        &["RLIMIT_CORE|rlimit", "invalid argument|soft|EINVAL"],
        &["process.rlimits"],
    )
    .crun("leaves its cgroup behind"),
    bad(
        "oom-score-out-of-range",
        |b| b.set("/process/oomScoreAdj", json!(2000)),
        &["oom", "invalid argument|range|EINVAL"],
        &["process.oomScoreAdj"],
    )
    .runc("several lines of error")
    .crun("leaves its cgroup behind"),
    bad(
        "scheduler-unknown",
        |b| b.set("/process/scheduler", json!({"policy": "SCHED_NOSUCH"})),
        &["SCHED_NOSUCH|scheduler"],
        &["process.scheduler"],
    ),
    bad(
        "ioprio-unknown",
        |b| b.set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_NOSUCH", "priority": 1})),
        &["IOPRIO_CLASS_NOSUCH|ioPriority|io priority"],
        &["process.ioPriority"],
    ),
    bad(
        "personality-unknown",
        |b| b.set("/linux/personality", json!({"domain": "LINUX99"})),
        &["LINUX99|personality"],
        &["linux.personality"],
    ),
    bad(
        "console-size-negative",
        |b| {
            b.set("/process/terminal", json!(true))
                .set("/process/consoleSize", json!({"height": -1, "width": 0}))
        },
        &["consoleSize|cannot unmarshal|parse|terminal|console|tcgetattr"],
        &["consoleSize"],
    ),
    bad(
        "selinux-label-without-selinux",
        |b| b.set("/process/selinuxLabel", json!("a:b:c:d")),
        &["selinux|label|attr"],
        &["process.selinuxLabel"],
    ),
    bad(
        "apparmor-profile-without-apparmor",
        |b| b.set("/process/apparmorProfile", json!("no-such-profile")),
        &["apparmor|attr"],
        &["process.apparmorProfile"],
    )
    .crun("ignores it"),
];

const PROGRAM: &[Bad] = &[
    bad(
        "program-not-in-PATH",
        |b| b.args(&["no-such-program"]),
        &[
            "no-such-program",
            "executable file not found in $PATH|executable file `no-such-program` not found in $PATH",
        ],
        &[],
    ),
    bad("program-absent", |b| b.args(&["/no/such"]), &["/no/such", "no such file or directory"], &[]),
    bad(
        "program-not-executable",
        |b| b.args(&["/etc/passwd"]),
        &["/etc/passwd", "permission denied|not executable"],
        &["permission denied"],
    ),
    bad(
        "program-is-a-directory",
        |b| b.args(&["/etc"]),
        &["/etc", "permission denied|is a directory|not a regular file"],
        &["permission denied|is a directory"],
    ),
    bad("program-below-a-file", |b| b.args(&["/etc/passwd/x"]), &["/etc/passwd/x", "not a directory"], &[]),
    bad("program-of-another-machine", |b| elf(b, 0xb7), &["exec format error"], &["/program"])
        .runc("run exits with 255")
        .crun("start succeeds"),
    bad("program-is-text", |b| program(b, b"just text\n"), &["exec format error"], &["/program"])
        .runc("run exits with 255")
        .crun("start succeeds"),
    bad("program-is-empty", |b| program(b, b""), &["exec format error"], &["/program"])
        .runc("run exits with 255")
        .crun("start succeeds"),
    bad(
        "program-with-absent-interpreter",
        |b| program(b, b"#!/no/such/interpreter\n"),
        &["no such file or directory"],
        &["/program"],
    )
    .runc("run exits with 255")
    .crun("start succeeds"),
    bad(
        "program-is-a-loop-of-links",
        |b| linked(b, "program", "program"),
        &["/program", "too many levels of symbolic links|ELOOP"],
        &[],
    ),
];

const NAMESPACES: &[Bad] = &[
    bad(
        "namespace-twice",
        |b| b.push("/linux/namespaces", json!({"type": "uts"})),
        &["namespace|duplicated ns"],
        &["linux.namespaces", "uts"],
    ).crun("leaves its cgroup behind"),
    bad(
        "namespace-unknown",
        |b| b.push("/linux/namespaces", json!({"type": "nosuch"})),
        &["nosuch"],
        &["linux.namespaces"],
    ).crun("leaves its cgroup behind"),
    bad(
        "namespace-path-absent",
        |b| b.namespace("network", Some("/no/such/ns")),
        &["/no/such/ns", "no such file or directory|ENOENT"],
        &["linux.namespaces"],
    ).crun("leaves its cgroup behind"),
    bad(
        "namespace-path-of-another-kind",
        |b| b.namespace("network", Some("/proc/self/ns/uts")),
        &["net|namespace|setns", "invalid argument|EINVAL|uts|type"],
        &["linux.namespaces"],
    ).runc("several lines of error").crun("leaves its cgroup behind"),
    bad(
        "namespace-path-is-a-file",
        |b| b.namespace("ipc", Some("/etc/passwd")),
        &["ipc|namespace|setns"],
        &["linux.namespaces", "/etc/passwd"],
    ).runc("several lines of error").crun("leaves its cgroup behind"),
    bad(
        "namespace-path-relative",
        |b| b.namespace("ipc", Some("proc/self/ns/ipc")),
        &["namespace|proc/self/ns/ipc"],
        &["linux.namespaces", "absolute"],
    ).crun("leaves its cgroup behind"),
    bad(
        "mapping-without-user-namespace",
        |b| b.set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 1000, "size": 1}])),
        &["user namespace|mapping"],
        &["linux.uidMappings"],
    ).runc("ignores it").crun("ignores it"),
    bad(
        "user-namespace-without-mapping",
        |b| b.namespace("user", None),
        &["mapping|uid"],
        &["linux.uidMappings"],
    ).crun("invents one"),
    bad(
        "mapping-overlaps",
        |b| {
            b.namespace("user", None).set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 1000, "size": 10}, {"containerID": 5, "hostID": 3000, "size": 10}])).set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 1000, "size": 10}]))
        },
        &["map|mapping|uid"],
        &["linux.uidMappings"],
    ).runc("several lines of error").crun("leaves its cgroup behind"),
    bad(
        "mapping-of-size-0",
        |b| {
            b.user_namespace()
                .set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 1000, "size": 0}]))
        },
        &["map|mapping|uid"],
        &["linux.uidMappings"],
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
        &["linux.timeOffsets"],
    ).crun("leaves its cgroup behind"),
    bad(
        "time-offset-nanoseconds-too-large",
        |b| {
            b.namespace("time", None)
                .set("/linux/timeOffsets", json!({"monotonic": {"secs": 1, "nanosecs": 1_000_000_000}}))
        },
        &["time|offset|invalid argument|nanosec|numerical result"],
        &["linux.timeOffsets"],
    ).runc("several lines of error").crun("leaves its cgroup behind"),
    bad(
        "sysctl-of-the-host",
        |b| b.set("/linux/sysctl", json!({"kernel.core_pattern": "/x"})),
        &["kernel.core_pattern"],
        &["linux.sysctl"],
    ),
    bad(
        "sysctl-of-the-host-with-slashes",
        |b| b.set("/linux/sysctl", json!({"kernel/core_pattern": "/x"})),
        &["kernel/core_pattern|kernel.core_pattern"],
        &["linux.sysctl"],
    ),
    bad(
        "sysctl-vm",
        |b| b.set("/linux/sysctl", json!({"vm.overcommit_memory": "1"})),
        &["vm.overcommit_memory"],
        &["linux.sysctl"],
    ),
    bad(
        "sysctl-hostname",
        |b| b.set("/linux/sysctl", json!({"kernel.hostname": "x"})),
        &["kernel.hostname"],
        &["linux.sysctl"],
    ),
    bad(
        "sysctl-net-of-the-host",
        |b| b.without_namespace("network").set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})),
        &["net.ipv4.ip_forward"],
        &["linux.sysctl"],
    ),
    bad(
        "sysctl-ipc-of-the-host",
        |b| {
            b.without_namespace("ipc")
                .without_mount("/dev/mqueue")
                .set("/linux/sysctl", json!({"kernel.shmmax": "1"}))
        },
        &["kernel.shmmax"],
        &["linux.sysctl"],
    ),
    bad(
        "sysctl-climbing",
        |b| b.set("/linux/sysctl", json!({"net/../kernel/core_pattern": "/x"})),
        &["core_pattern"],
        &["linux.sysctl"],
    ),
    bad(
        "sysctl-absent",
        |b| b.set("/linux/sysctl", json!({"net.ipv4.no_such_key": "1"})),
        &["no_such_key", "no such file or directory|ENOENT"],
        &["linux.sysctl"],
    ),
    bad(
        "sysctl-value-refused",
        |b| b.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "text"})),
        &["net.ipv4.ip_forward|ip_forward", "invalid argument|EINVAL"],
        &["linux.sysctl"],
    ),
];

const ROOT: &[Bad] = &[
    bad("root-absent", |b| b.remove("/root"), &["root"], &["root"]),
    bad(
        "root-path-absent",
        |b| b.set("/root/path", json!("nosuch")),
        &["nosuch", "no such file or directory|ENOENT|does not exist"],
        &["root.path"],
    ),
    bad("root-path-empty", |b| b.set("/root/path", json!("")), &["root|rootfs"], &["root.path"])
        .runc("takes the caller's directory")
        .crun("does not name the field"),
    bad(
        "root-path-is-a-file",
        |b| b.set("/root/path", json!("config.json")),
        &["config.json|root", "not a directory|ENOTDIR"],
        &["root.path"],
    )
    .runc("does not name it")
    .crun("says permission denied"),
    bad(
        "mount-without-destination",
        |b| b.push("/mounts", json!({"type": "tmpfs", "source": "tmpfs"})),
        &["destination|mount"],
        &["mounts[7]"],
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
        &["mounts[7]"],
    ),
    bad(
        "mount-onto-a-file",
        |b| b.mount("tmpfs", "tmpfs", "/etc/passwd", &[]),
        &["/etc/passwd|etc/passwd", "not a directory|ENOTDIR"],
        &["mounts[7]"],
    ),
    bad(
        "mount-type-unknown",
        |b| b.mount("nosuchfs", "nosuchfs", "/x", &[]),
        &["nosuchfs", "no such device|ENODEV"],
        &["mounts[7]"],
    ),
    bad(
        "propagation-unknown",
        |b| b.set("/linux/rootfsPropagation", json!("nosuch")),
        &["rootfsPropagation|nosuch|propagation"],
        &["linux.rootfsPropagation"],
    )
    .crun("ignores it"),
    bad(
        "masked-path-relative",
        |b| b.set("/linux/maskedPaths", json!(["etc/passwd"])),
        &["maskedPaths|etc/passwd"],
        &["linux.maskedPaths", "absolute"],
    )
    .runc("a25: takes it")
    .crun("takes it"),
    bad(
        "readonly-path-relative",
        |b| b.set("/linux/readonlyPaths", json!(["etc"])),
        &["readonlyPaths|etc"],
        &["linux.readonlyPaths", "absolute"],
    )
    .runc("a25: takes it")
    .crun("takes it"),
    bad(
        "device-type-unknown",
        |b| b.push("/linux/devices", json!({"path": "/dev/x", "type": "q", "major": 1, "minor": 1})),
        &["/dev/x|device|\"q\""],
        &["linux.devices"],
    )
    .crun("makes something"),
    bad(
        "device-path-relative",
        |b| b.push("/linux/devices", json!({"path": "x/y", "type": "c", "major": 1, "minor": 3})),
        &["x/y|device"],
        &["linux.devices"],
    )
    .runc("takes it for absolute"),
];

const RESOURCES: &[Bad] = &[
    bad("seccomp-action-unknown", |b| b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_NOSUCH"})), &["SCMP_ACT_NOSUCH|seccomp"], &["linux.seccomp"]),
    bad("seccomp-architecture-unknown", |b| b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NOSUCH"], "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO"}]})), &["arch|SCMP_ARCH_NOSUCH"], &["linux.seccomp"]),
    bad("seccomp-operator-unknown", |b| b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_NOSUCH"}]}]})), &["SCMP_CMP_NOSUCH|operator|seccomp"], &["linux.seccomp"]),
    bad("seccomp-argument-out-of-range", |b| b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]})), &["seccomp|argument|index"], &["linux.seccomp"]),
    bad("seccomp-flag-unknown", |b| b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NOSUCH"], "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO"}]})), &["SECCOMP_FILTER_FLAG_NOSUCH|flag"], &["linux.seccomp"]).crun("start succeeds"),
    bad("seccomp-errnoRet-on-allow", |b| b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ALLOW", "errnoRet": 5}]})), &["errno"], &["linux.seccomp"])
        .runc("a4: drops it silently"),
    bad("seccomp-metadata-without-listener", |b| b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x", "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO"}]})), &["listener"], &["linux.seccomp"])
        .runc("ignores it").crun("ignores it"),
    bad("hook-path-absent", |b| b.set("/hooks/createRuntime", json!([{"path": "/no/such"}])), &["/no/such|hook", "no such file or directory|ENOENT"], &["hooks.createRuntime"])
        .crun("exits with 255, does not say why"),
    bad("hook-timeout-zero", |b| b.set("/hooks/createRuntime", json!([{"path": "/probe", "timeout": 0}])), &["timeout"], &["hooks.createRuntime"])
        .runc("a14: does not look").crun("exits with 255"),
    bad("device-rule-type-unknown", |b| b.push("/linux/resources/devices", json!({"allow": true, "type": "q", "access": "rwm"})), &["device"], &["linux.resources.devices"]).crun("ignores it"),
    bad("device-rule-access-unknown", |b| b.push("/linux/resources/devices", json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "xyz"})), &["device|access"], &["linux.resources.devices"])
        .crun("ignores it").runc("ignores it on cgroup v2"),
    bad("cgroups-path-of-wrong-type", |b| b.set("/linux/cgroupsPath", json!(["a"])), &["cgroupsPath|cannot unmarshal|parse"], &["linux.cgroupsPath"])
        .crun("ignores it"),
];

fn program(b: Bundle, bytes: &[u8]) -> Bundle {
    use std::os::unix::fs::PermissionsExt;
    let at = b.rootfs("program");
    // A bundle that could not be spoilt makes the case fail: the program is then absent, which reads otherwise.
    let written =
        fs::write(&at, bytes).and_then(|()| fs::set_permissions(&at, fs::Permissions::from_mode(0o755)));
    if written.is_ok() { b.args(&["/program"]) } else { b }
}

/// The head of a program for the machine with this number.
fn elf(b: Bundle, machine: u8) -> Bundle {
    let mut head = vec![0u8; 128];
    head[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    (head[16], head[18], head[20]) = (2, machine, 1);
    program(b, &head)
}

fn linked(b: Bundle, name: &str, target: &str) -> Bundle {
    let made: Result<Bundle, Trouble> = b.clone().link(name, target);
    made.unwrap_or(b).args(&["/program"])
}
