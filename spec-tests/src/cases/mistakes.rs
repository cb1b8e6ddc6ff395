// SPDX-License-Identifier: Apache-2.0
//! The usual mistakes: each is answered by one line that names the field (or the flag), what was found there, and what to do. What is
//! refused at all, and by the peers too, is the chapter `bad`.

#![forbid(unsafe_code)]

use serde_json::{Value, json};

use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::host::Need;
use crate::harness::test::Test;

/// A mistake: its name, the call, how the bundle gets wrong, and the field, what was found and what to do.
type Row = (&'static str, &'static str, fn(Bundle) -> Bundle, [&'static str; 3]);

/// The chapter.
pub fn cases() -> Vec<Case> {
    let rows = [PROCESS, PROGRAM, TERMINAL, FILES, LINUX, LIMITS].into_iter().flatten();
    let row = |(name, verb, spoil, says): &'static Row| {
        let body = move |t: &Test| answered(t, verb, spoil(t.bundle()?), says);
        case(format!("mistakes/{name}"), body).needs(&[Need::Runtime("corten")])
    };
    let mut all: Vec<Case> = rows.map(row).collect();
    all.extend(calls().into_iter().map(|case| case.needs(&[Need::Runtime("corten")])));
    all
}

fn answered(t: &Test, verb: &str, b: Bundle, says: &[&str]) -> Verdict {
    let before = t.snapshot();
    t.try_create(verb, &b)?.refuses(says)?;
    t.unchanged_since(&before)
}

/// Mistakes of the call rather than of config.json.
fn calls() -> Vec<Case> {
    vec![
        case("mistakes/no-config", |t| {
            let done = t.cli("run --bundle / nobody")?;
            done.refuses(&["config.json", "open(/config.json): no such file", "; --bundle names"]).map(drop)
        }),
        case("mistakes/no-bundle", |t| {
            let done = t.cli("run --bundle /no/such nobody")?;
            done.refuses(&["bundle: ", "open(/no/such): no such file", "; --bundle names"]).map(drop)
        }),
        case("mistakes/bad-id", |t| {
            t.cli("state a:b")?.refuses(&["container ID", "\"a:b\"", "; up to 255 of A-Z a-z"]).map(drop)
        }),
        case("mistakes/id-taken", |t| {
            let b = t.bundle()?;
            t.create(&b)?;
            let says = ["container with given ID", b.id.as_str(), "; delete that, or take another id"];
            t.try_create("create", &b)?.refuses(&says)?;
            t.cli(&format!("delete --force {}", b.id))?.ok().map(drop)
        }),
        case("mistakes/malformed-json", |t| {
            let b = t.bundle()?;
            b.write()?;
            std::fs::write(b.dir.join("config.json"), "{\"root\": {\"path\": \"rootfs\"},}")?;
            let done = t.cli(&format!("run --bundle {} {}", b.dir.display(), b.id))?;
            done.refuses(&["config.json: malformed JSON", "at line 1 column 29", "; JSON has no comments"])
                .map(drop)
        }),
        case("mistakes/security-module-off", |t| {
            if std::path::Path::new("/sys/fs/selinux/enforce").exists() {
                return Err(Trouble::NotRun("SELinux is switched on".to_owned()));
            }
            let b = t.bundle()?.set("/process/selinuxLabel", json!("system_u:system_r:container_t:s0"));
            let says = ["/process/selinuxLabel", "selinux is disabled", "; take it out, or boot a kernel"];
            t.try_create("run", &b)?.refuses(&says).map(drop)
        }),
        case("mistakes/group-that-is-gone", gone_group),
        case("mistakes/unknown-field", |t| {
            let b = t.bundle()?.set("/process/arg", json!(["x"])).set("/linux/resources/memroy", json!({}));
            b.write()?;
            let done = t.cli(&format!("plan --bundle {}", b.dir.display()))?;
            let warned = |field: &str| {
                let line = format!("config.json {field}: no specification knows this field");
                if done.stderr.contains(&line) { Ok(()) } else { Err(format!("no word of {field}: {done}")) }
            };
            done.ok()?;
            warned("/process/arg")?;
            Ok(warned("/linux/resources/memroy")?)
        }),
    ]
}

/// Somebody else has taken the process out of its groups and removed them.
fn gone_group(t: &Test) -> Verdict {
    let b = t.bundle()?.probe("sleep 1000");
    t.launch(&b)?;
    let pid = t.pid(&b)?.to_string();
    for top in t.host.hierarchies().iter().filter(|top| top.join(&b.id).is_dir()) {
        std::fs::write(top.join("cgroup.procs"), &pid)?;
        std::fs::remove_dir(top.join(&b.id))?;
    }
    t.cli(&format!("pause {}", b.id))?.refuses(&["the container's control group is gone", "no such file"])?;
    t.cli(&format!("kill {} KILL", b.id))?.ok()?;
    t.await_status(&b, "stopped")?;
    t.cli(&format!("delete --force {}", b.id))?.ok().map(drop)
}

const PROCESS: &[Row] = &[
    (
        "args-empty",
        "run",
        |b| b.set("/process/args", json!([])),
        ["/process/args", "must not be empty", "name a program"],
    ),
    (
        "cwd-relative",
        "run",
        |b| b.set("/process/cwd", json!("tmp")),
        ["/process/cwd", "not \"tmp\"", "an absolute path"],
    ),
    (
        "user-unmapped",
        "run",
        |b| b.user_namespace().set("/process/user", json!({"uid": 70_000, "gid": 0})),
        ["/process/user/uid", "70000", "; map it in linux.uidMappings"],
    ),
    (
        "user-not-an-id",
        "run",
        |b| b.set("/process/user", json!({"uid": u32::MAX, "gid": 0})),
        ["/process/user/uid", "4294967295", "4294967294 is the last"],
    ),
    (
        "rlimit-without-prefix",
        "run",
        |b| b.set("/process/rlimits", json!([{"type": "NOFILE", "soft": 1, "hard": 1}])),
        ["/process/rlimits/0/type", "\"NOFILE\"", "; the names are those of setrlimit(2)"],
    ),
    (
        "rlimit-soft-over-hard",
        "run",
        |b| b.set("/process/rlimits", json!([{"type": "RLIMIT_CORE", "soft": 9, "hard": 8}])),
        ["/process/rlimits/0/soft", "9, exceeds the hard limit, 8", "; lower the one"],
    ),
];

const PROGRAM: &[Row] = &[
    (
        "program-not-found",
        "run",
        |b| b.args(&["nosuch"]),
        [
            "process.args[0]",
            "\"nosuch\": executable file not found in $PATH",
            "in the directories of PATH in process.env",
        ],
    ),
    (
        "program-path-not-found",
        "run",
        |b| b.args(&["/bin/nosuch"]),
        [
            "process.args[0]",
            "stat /bin/nosuch: no such file",
            "is a path in the container's root file system",
        ],
    ),
    (
        "program-not-executable",
        "run",
        |b| b.args(&["/etc/passwd"]),
        ["process.args[0]", "\"/etc/passwd\": permission denied", "needs the x bit"],
    ),
    (
        "program-is-a-directory",
        "run",
        |b| b.args(&["/etc"]),
        ["process.args[0]", "\"/etc\": is a directory", "to be a program"],
    ),
];

const TERMINAL: &[Row] = &[
    (
        "terminal-without-a-socket",
        "create",
        |b| b.set("/process/terminal", json!(true)),
        ["process.terminal is true", "cannot allocate tty", "give --console-socket"],
    ),
    (
        "socket-without-a-terminal",
        "create --console-socket /no/such/socket",
        |b| b,
        ["--console-socket is for", "cannot use console socket", "whose process.terminal is true"],
    ),
    (
        "console-socket-absent",
        "create --console-socket /no/such/socket",
        |b| b.set("/process/terminal", json!(true)),
        ["process.terminal", "connect(/no/such/socket): no such file", "; it is to be an AF_UNIX"],
    ),
    (
        "terminal-without-devpts",
        "run",
        |b| b.set("/process/terminal", json!(true)).without_mount("/dev/pts"),
        ["process.terminal", "/dev/pts", "; a terminal is made in the container's devpts"],
    ),
];

const FILES: &[Row] = &[
    (
        "rootfs-absent",
        "run",
        |b| b.set("/root/path", json!("nosuch")),
        ["root.path", "/nosuch): no such file", "; root.path and the source"],
    ),
    ("root-absent", "run", |b| b.remove("/root"), ["/root", "must be specified", "; \"root\": {\"path\""]),
    (
        "bind-source-absent",
        "run",
        |b| b.mount("bind", "/no/such", "/tmp", &["bind"]),
        ["mounts[", "open_tree(/no/such): no such file", "the source of a bind mount"],
    ),
    (
        "mount-option-unknown",
        "run",
        |b| b.mount("tmpfs", "tmpfs", "/tmp", &["nosiud"]),
        ["mounts[", "fsconfig(nosiud): invalid argument", "; the mount's type knows no option"],
    ),
    (
        "tmpfs-size-wrong",
        "run",
        |b| b.mount("tmpfs", "tmpfs", "/tmp", &["size=lots"]),
        ["mounts[", "fsconfig(size=lots): invalid argument", "or not this value"],
    ),
    (
        "file-system-unknown",
        "run",
        |b| b.mount("tmpsf", "x", "/tmp", &[]),
        ["mounts[", "fsopen(tmpsf): no such device", "; the mount's type is to be one of /proc/filesystems"],
    ),
    (
        "pid-file-without-a-directory",
        "create --pid-file /no/such/pid",
        |b| b,
        ["--pid-file", "open(/no/such/pid): no such file", "in a directory that exists"],
    ),
];

const LINUX: &[Row] = &[
    (
        "namespace-path-absent",
        "run",
        |b| b.namespace("pid", Some("/proc/0/ns/pid")),
        ["linux.namespaces[", "/proc/0/ns/pid): no such file", "; a path is /proc/PID/ns/TYPE"],
    ),
    (
        "namespace-of-another-type",
        "run",
        |b| b.namespace("pid", Some("/proc/self/ns/net")),
        [
            "linux.namespaces[",
            "/proc/self/ns/net is a namespace of another type",
            "; a path is /proc/PID/ns/TYPE",
        ],
    ),
    (
        "mappings-absent",
        "run",
        |b| b.namespace("user", None),
        ["/linux/uidMappings", "no uid mappings found", "; give one, or take the user namespace out"],
    ),
    (
        "hostname-without-uts",
        "run",
        |b| b.set("/hostname", json!("x")).without_namespace("uts"),
        ["/hostname", "without a private UTS namespace", "; add {\"type\": \"uts\"}"],
    ),
    (
        "sysctl-without-its-namespace",
        "run",
        |b| b.without_namespace("network").set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})),
        [
            "/linux/sysctl/net.ipv4.ip_forward",
            "not allowed in host network namespace",
            "needs a namespace for it",
        ],
    ),
    (
        "sysctl-of-the-host",
        "run",
        |b| b.set("/linux/sysctl", json!({"vm.swappiness": "1"})),
        ["/linux/sysctl/vm.swappiness", "not in a separate kernel namespace", "; it is the whole host's"],
    ),
    (
        "seccomp-action-unknown",
        "run",
        |b| b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALOW"})),
        ["/linux/seccomp/defaultAction", "SCMP_ACT_ALOW", "; SCMP_ACT_ALLOW, SCMP_ACT_ERRNO"],
    ),
    (
        "hook-path-relative",
        "run",
        |b| b.set("/hooks", json!({"prestart": [{"path": "bin/true"}]})),
        ["/hooks/prestart/0/path", "\"bin/true\"", "is not an absolute path"],
    ),
    (
        "device-type-unknown",
        "run",
        |b| b.push("/linux/devices", json!({"path": "/dev/x", "type": "z", "major": 1, "minor": 3})),
        ["/linux/devices/", "\"z\"", "; c, u, b and p are types"],
    ),
    (
        "namespace-type-unknown",
        "run",
        |b| b.push("/linux/namespaces", json!({"type": "net"})),
        ["/linux/namespaces/", "namespace \"net\" does not exist", "; the types are pid, network"],
    ),
    (
        "namespace-twice",
        "run",
        |b| b.push("/linux/namespaces", json!({"type": "pid"})),
        ["/linux/namespaces/", "duplicated namespace \"pid\"", "; give each type once"],
    ),
    (
        "masked-path-relative",
        "run",
        |b| b.set("/linux/maskedPaths", json!(["proc/kcore"])),
        ["/linux/maskedPaths/0", "\"proc/kcore\" is not an absolute path", "; a path begins with /"],
    ),
    (
        "propagation-unknown",
        "run",
        |b| b.set("/linux/rootfsPropagation", json!("shard")),
        ["/linux/rootfsPropagation", "=shard is not supported", "; it is shared, slave, private"],
    ),
];

const LIMITS: &[Row] = &[
    (
        "swap-below-memory",
        "run",
        |b| b.set("/linux/resources/memory", memory()),
        ["/linux/resources/memory/swap", "100000000 < 200000000", "memory included, -1 for no limit"],
    ),
    (
        "quota-too-small",
        "run",
        |b| b.set("/linux/resources/cpu", json!({"quota": 10, "period": 100_000})),
        ["/linux/resources/cpu/quota", "10 is no CPU quota", "at least 1000 microseconds, or -1"],
    ),
    (
        "groups-path-upwards",
        "run",
        |b| b.set("/linux/cgroupsPath", json!("/a/../b")),
        ["/linux/cgroupsPath", "\"/a/../b\"", "leads upwards"],
    ),
];

fn memory() -> Value {
    json!({"limit": 200_000_000, "swap": 100_000_000})
}
