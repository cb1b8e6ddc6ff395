// SPDX-License-Identifier: Apache-2.0
//! Odd and large input: it works, or is one clear error, and soon.

#![forbid(unsafe_code)]

use std::path::Path;
use std::time::Duration;

use nix::sys::resource::UsageWho;
use serde_json::{Value, json};

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::done::Done;
use crate::harness::host::Need;
use crate::harness::pace::{processor_time, within};
use crate::harness::test::Test;

/// The chapter.
pub fn cases() -> Vec<Case> {
    [documents(), large(), annotations()].into_iter().flatten().collect()
}

/// An answer within a second, on the clock and of processor time. A guest that emulates its kernel (`--alone`) says
/// nothing about time: there the limit is the case's patience.
fn soon(t: &Test, run: impl FnOnce() -> Result<Done, Trouble>) -> Result<Done, Trouble> {
    let before = processor_time(UsageWho::RUSAGE_CHILDREN)?;
    let done = run()?;
    let spent = processor_time(UsageWho::RUSAGE_CHILDREN)? - before;
    let limit = Duration::from_secs(if cfg!(debug_assertions) { 8 } else { 1 });
    if !t.host.alone {
        check!(spent < limit, "`{}` took {spent:?} of a processor", done.words);
        within(&done.words, done.took, limit)?;
    }
    Ok(done)
}

/// The patience of a case that makes tens of thousands of system calls, in seconds: in a guest each is some 50 us.
const GUEST: f64 = 240.0;

/// `run` of a config.json of these very bytes.
fn run_text(t: &Test, b: &Bundle, text: &str) -> Result<Done, Trouble> {
    let command = t.bundle_command("run", b)?;
    std::fs::write(b.dir.join("config.json"), text)?;
    t.complete(command)
}

fn documents() -> Vec<Case> {
    vec![
        case("odd/unknown-fields", |t| {
            let b = t.bundle()?;
            let b = b.set("/future", json!({"a": [1, null]})).set("/process/future", json!(7));
            let b = b.set("/linux/resources/future", json!("x")).set("/mounts/0/future", json!({}));
            t.run(&b)?.ok().map(drop)
        }),
        case("odd/sections-of-other-platforms", |t| {
            let b = t
                .bundle()?
                .set("/windows", json!({"layerFolders": ["C:\\x"], "resources": {"memory": {"limit": 5}}}));
            let b = b
                .set("/solaris", json!({"milestone": "x"}))
                .set("/zos", json!({"namespaces": [{"type": "pid"}]}));
            let b = b.set("/freebsd", json!({"jail": {"host": "x"}}));
            let b = b.set("/vm", json!({"kernel": {"path": "/no/such/kernel"}, "hwConfig": {"vcpus": 3}}));
            let b =
                b.set("/process/commandLine", json!("x y")).set("/process/user/username", json!("nobody"));
            t.report(&b)?.is("/uid/0", 0)
        }),
        case("odd/keys-that-stand-twice", |t| {
            let b = t.bundle()?.probe("print first");
            let text = b.config.to_string();
            let text = text.replacen("\"hostname\":", "\"hostname\":\"earlier\",\"hostname\":", 1);
            let text = text.replacen("\"args\":", "\"args\":[\"/nothing\"],\"args\":", 1);
            run_text(t, &b, &text)?.ok()?.prints("first").map(drop)
        }),
        case("odd/null-for-everything-optional", |t| {
            let mut b = t.bundle()?;
            for field in [
                "/hostname",
                "/domainname",
                "/hooks",
                "/annotations",
                "/linux/uidMappings",
                "/linux/gidMappings",
                "/linux/timeOffsets",
                "/linux/devices",
                "/linux/resources",
                "/linux/intelRdt",
                "/linux/memoryPolicy",
                "/linux/sysctl",
                "/linux/seccomp",
                "/linux/rootfsPropagation",
                "/linux/maskedPaths",
                "/linux/readonlyPaths",
                "/linux/mountLabel",
                "/linux/personality",
                "/linux/netDevices",
                "/process/consoleSize",
                "/process/env",
                "/process/rlimits",
                "/process/apparmorProfile",
                "/process/capabilities",
                "/process/noNewPrivileges",
                "/process/oomScoreAdj",
                "/process/scheduler",
                "/process/selinuxLabel",
                "/process/ioPriority",
                "/process/execCPUAffinity",
                "/process/user/umask",
                "/process/user/additionalGids",
                "/mounts/0/options",
                "/root/readonly",
                "/vm",
                "/windows",
            ] {
                b = b.set(field, Value::Null);
            }
            t.run(&b)?.ok().map(drop)
        }),
        case("odd/empty-strings-for-everything-optional", |t| {
            let mut b = t.bundle()?.set("/process/execCPUAffinity", json!({"initial": "", "final": ""}));
            for field in [
                "/hostname",
                "/domainname",
                "/linux/rootfsPropagation",
                "/linux/mountLabel",
                "/process/apparmorProfile",
                "/process/selinuxLabel",
                "/linux/namespaces/0/path",
            ] {
                b = b.set(field, json!(""));
            }
            t.run(&b)?.ok().map(drop)
        })
        .crun("c14: an empty label is a label"),
        case("odd/a-process-that-comes-later", |t| {
            let b = t.bundle()?.remove("/process");
            t.create(&b)?;
            t.has_status(&b, "created")?;
            t.cli(&format!("start {}", b.id))?.refuses(&["process"])?;
            t.cli(&format!("delete --force {}", b.id))?.ok().map(drop)
        })
        .runc("a9: wants a process at create")
        .crun("start succeeds"),
    ]
}

fn large() -> Vec<Case> {
    vec![
        case("odd/10000-mounts", |t| {
            let mount = |n: usize| json!({"destination": format!("/m/{n}"), "type": "tmpfs", "source": "t", "options": ["size=4k"]});
            let mut b = t.bundle()?.mount("tmpfs", "m", "/m", &[]);
            if let Some(list) = b.config["mounts"].as_array_mut() {
                list.extend((0..10_000).map(mount));
            }
            let done = soon(t, || t.run(&b.probe("try stat /m/9999 -- try read /proc/self/mounts")))?;
            done.ok()?;
            check!(done.stdout.contains("/m/9999"), "the last mount is not there");
            Ok(())
        })
        .takes(GUEST)
        .runc("at times: takes longer"),
        case("odd/1000-binds", |t| {
            std::fs::write(t.path("file"), "x")?;
            let mut b = t.bundle()?.mount("tmpfs", "m", "/m", &[]);
            for n in 0..1000 {
                b = b.mount("bind", &t.file("file"), &format!("/m/{n}"), &["bind", "ro"]);
            }
            let done = soon(t, || t.run(&b.probe("try read /m/999")))?;
            done.ok().map(drop)
        })
        .runc("at times: takes longer"),
        case("odd/a-mebibyte-of-environment", |t| {
            let env: Vec<String> = (0..1024).map(|n| format!("V{n}={}", "x".repeat(1017))).collect();
            let b = t.bundle()?.set("/process/env", json!(env));
            let done = soon(t, || t.run(&b))?;
            let r = crate::harness::report::Report::read(&done.ok()?.stdout)?;
            same("the last one", r.variable("V1023").first().map(|value| value.len()), Some(1017))
        }),
        case("odd/a-variable-of-a-mebibyte", |t| {
            let b = t.bundle()?.set("/process/env/-", json!(format!("BIG={}", "x".repeat(1 << 20))));
            let done = soon(t, || t.run(&b))?;
            done.refuses(&["argument list too long|E2BIG"]).map(drop)
        })
        .runc("exit code 255"),
        case("odd/arguments-that-do-not-fit", |t| {
            let args: Vec<String> = std::iter::once("/probe".to_owned()).chain((0..100).map(|_| "y".repeat(130_000))).collect();
            let done = soon(t, || t.run(&t.bundle()?.set("/process/args", json!(args))))?;
            done.refuses(&["argument list too long|E2BIG"]).map(drop)
        })
        .runc("exit code 255"),
        case("odd/340-mappings", |t| {
            // All lines must fit into one page.
            let map: Value = (0..340).map(|n| json!({"containerID": n, "hostID": 2000 + 2 * n, "size": 1})).collect();
            let b = t.bundle()?.user_namespace().set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
            let done = soon(t, || t.run(&b))?;
            done.ok().map(drop)
        }),
        case("odd/341-mappings", |t| {
            let map: Value = (0..341).map(|n| json!({"containerID": n, "hostID": 100_000 + 2 * n, "size": 1})).collect();
            let b = t.bundle()?.user_namespace().set("/linux/uidMappings", map);
            let done = soon(t, || t.run(&b))?;
            done.refuses(&["map|340"]).map(drop)
        })
        .runc("several lines of error")
        .crun("leaves its cgroup behind"),
        case("odd/mappings-of-more-than-a-page", |t| {
            let map: Value = (0..340)
                .map(|n| json!({"containerID": 3_000_000_000_u32 * (n % 2) + n, "hostID": 1_000_000_000 + 2 * n, "size": 1}))
                .collect();
            let b = t.bundle()?.user_namespace().set("/linux/gidMappings", map);
            t.run(&b)?.refuses(&["gid_map|gidMappings"]).map(drop)
        })
        .runc("several lines of error")
        .crun("leaves its cgroup behind"),
        case("odd/10000-devices-and-paths", |t| {
            let device = |n: usize| json!({"path": format!("/dev/d/{n}"), "type": "c", "major": 1, "minor": 3});
            let paths: Vec<String> = (0..10_000).map(|n| format!("/absent/{n}")).collect();
            let devices: Vec<Value> = (0..10_000).map(device).collect();
            let b = t.bundle()?.set("/linux/devices", json!(devices)).set("/linux/maskedPaths", json!(paths));
            let done = soon(t, || t.run(&b.set("/linux/readonlyPaths", json!(paths)).probe("try stat /dev/d/9999")))?;
            done.ok().map(drop)
        })
        .takes(GUEST)
        .runc("at times: takes longer than a second"),
    ]
}

/// Lets the host's administrator list annotations for Corten: below /etc, in this case's mount namespace.
fn permit(t: &Test, names: &[&str]) -> Verdict {
    if t.host.name != "corten" {
        return Ok(());
    }
    let etc = t.path("etc");
    let copied = std::process::Command::new("cp").arg("-a").arg("/etc").arg(&etc).status()?;
    check!(copied.success(), "cp -a /etc: {copied}");
    std::fs::create_dir_all(etc.join("corten"))?;
    std::fs::write(etc.join("corten/annotations"), names.join("\n"))?;
    t.mount("", &t.file("etc"), Path::new("/etc"), nix::mount::MsFlags::MS_BIND, "")
}

/// S41: what an image's or a pod's author may set must not open, make or tell anything on the host, nor weaken anything.
fn without_permission(t: &Test) -> Verdict {
    let (out, socket) = (t.file("hook-out"), t.path("agent"));
    let receiver = crate::harness::console::Receiver::listen(&socket)?;
    let socket = socket.to_string_lossy().into_owned();
    let allow_all = "BgAAAAAA/38=";
    let mut b = t.bundle()?.writable();
    for (name, value) in [
        ("run.oci.hooks.stdout", &*out),
        ("run.oci.hooks.stderr", &out),
        ("run.oci.pidfd_receiver", &socket),
        ("run.oci.seccomp.receiver", &socket),
        ("run.oci.seccomp_bpf_data", allow_all),
        ("run.oci.keep_original_groups", "1"),
    ] {
        b = b.set(&format!("/annotations/{name}"), json!(value));
    }
    let program = b.rootfs("probe");
    let hook = json!([{"path": program, "args": ["probe", "print", "said"]}]);
    let denied = json!([{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]);
    let b = b.set("/hooks", json!({"createRuntime": hook, "poststart": hook, "poststop": hook}));
    let b = b.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": denied}));
    let mut command = t.bundle_command("run", &b)?;
    crate::sys::with_groups_and_umask(&mut command, vec![4321], 0o022);
    let done = t.complete(command)?;
    let r = crate::harness::report::Report::read(&done.ok()?.stdout)?;
    r.is("/groups", json!([]))?;
    for name in ["hooks.stdout", "hooks.stderr", "pidfd_receiver", "seccomp.receiver", "seccomp_bpf_data"] {
        check!(done.stderr.contains(name), "not a word of {name}: {done}");
    }
    check!(!Path::new(&out).exists(), "a file was made");
    check!(receiver.is_silent()?, "somebody has connected");
    t.expect(b, &[("mkdir /tmp/x", "EPERM")]).map(drop)
}

/// crun's annotations that are obeyed.
fn annotations() -> Vec<Case> {
    const RUNC: &str = "F8: the annotation is crun's";
    let set = |t: &Test, name: &str, value: &str| {
        Ok::<_, Trouble>(t.bundle()?.set(&format!("/annotations/{name}"), json!(value)))
    };
    vec![
        case("annotation/S41-nothing-without-permission", without_permission).runc(RUNC).crun("obeys whoever sets them"),
        case("annotation/keep-original-groups", move |t| {
            permit(t, &["run.oci.keep_original_groups"])?;
            let b = set(t, "run.oci.keep_original_groups", "1")?;
            let mut command = t.bundle_command("run", &b)?;
            crate::sys::with_groups_and_umask(&mut command, vec![4321], 0o022);
            let r = crate::harness::report::Report::read(&t.complete(command)?.ok()?.stdout)?;
            r.is("/groups", json!([4321]))
        })
        .runc(RUNC),
        case("annotation/seccomp-fail-unknown-syscall", move |t| {
            let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"}]});
            let b = set(t, "run.oci.seccomp_fail_unknown_syscall", "1")?.set("/linux/seccomp", profile);
            t.run(&b)?.refuses(&["no_such_call"]).map(drop)
        })
        .runc(RUNC),
        case("annotation/seccomp-bpf-data", move |t| {
            // mkdir (83) is EPERM, everything else is allowed: four instructions.
            let data = "IAAAAAAAAAAVAAABUwAAAAYAAAABAAUABgAAAAAA/38=";
            permit(t, &["run.oci.seccomp_bpf_data"])?;
            let b = set(t, "run.oci.seccomp_bpf_data", data)?.writable();
            t.expect(b, &[("syscall 83 0 0", "EPERM"), ("mkdir /tmp/x", "EPERM"), ("open /etc/passwd", "ok")]).map(drop)
        })
        .needs(&[Need::File("/proc/sys/abi/vsyscall32")])
        .runc(RUNC),
        case("annotation/hooks-output", move |t| {
            permit(t, &["run.oci.hooks.stdout", "run.oci.hooks.stderr"])?;
            let (out, err) = (t.file("hook-out"), t.file("hook-err"));
            let b = set(t, "run.oci.hooks.stdout", &out)?.set("/annotations/run.oci.hooks.stderr", json!(err));
            let program = b.rootfs("probe");
            let hook = json!([{"path": program, "args": ["probe", "print", "said", "--", "complain", "loudly"]}]);
            let b = b.set("/hooks", json!({"createRuntime": hook, "poststop": hook}));
            t.run(&b)?.ok()?;
            same("stdout", std::fs::read_to_string(&out)?, "said\nsaid\n".to_owned())?;
            same("stderr", std::fs::read_to_string(&err)?, "loudly\nloudly\n".to_owned())
        })
        .runc(RUNC),
        case("annotation/pidfd-receiver", move |t| {
            let path = t.path("pidfd");
            let receiver = crate::harness::console::Receiver::listen(&path)?;
            permit(t, &["run.oci.pidfd_receiver"])?;
            let b = set(t, "run.oci.pidfd_receiver", &t.file("pidfd"))?.probe("forever");
            t.launch(&b)?;
            same("descriptors", receiver.receive()?.fds.len(), 1)
        })
        .runc(RUNC),
        case("annotation/values-that-do-not-read", move |t| {
            permit(t, &["run.oci.seccomp_bpf_data", "run.oci.pidfd_receiver"])?;
            for (name, value) in [("run.oci.seccomp_bpf_data", "*"), ("run.oci.pidfd_receiver", "relative"), ("run.oci.mount_context_type", "x")] {
                t.run(&set(t, name, value)?)?.refuses(&[name])?;
            }
            Ok(())
        })
        .runc(RUNC)
        .crun("does not name the annotation"),
    ]
}
