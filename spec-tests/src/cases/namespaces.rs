// SPDX-License-Identifier: Apache-2.0
//! config-linux.md, "Namespaces", "User namespace mappings", "Offset for time namespace".

#![forbid(unsafe_code)]

use std::fs;

use serde_json::{Value, json};

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, case, same};
use crate::harness::host::Need;
use crate::harness::report::Report;
use crate::harness::test::Test;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all: Vec<Case> =
        KINDS.iter().flat_map(|kind| [fresh(kind), absent(kind), joined(kind)]).collect();
    all.extend(joining());
    all.extend(user());
    all.extend(others());
    all
}

/// The configuration's name of a namespace and the kernel's.
const KINDS: [(&str, &str); 7] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
    ("time", "time"),
];

fn own_namespace(kernel: &str) -> Result<String, Trouble> {
    Ok(fs::read_link(format!("/proc/self/ns/{kernel}"))?.to_string_lossy().into_owned())
}

fn fresh((kind, kernel): &'static (&str, &str)) -> Case {
    case(format!("namespace/{kind}-is-new"), move |t: &Test| {
        let r = t.report(&t.bundle()?.namespace(kind, None))?;
        let (inside, outside) = (r.text(&format!("/ns/{kernel}")), own_namespace(kernel)?);
        check!(inside.starts_with(kernel) && inside != outside, "it is {inside}, the host's {outside}");
        Ok(())
    })
}

fn absent((kind, kernel): &'static (&str, &str)) -> Case {
    let body = move |t: &Test| {
        // Without namespaces of its own the container cannot have what is named or made in them.
        let mut b = t.bundle()?.without_namespace(kind);
        match *kind {
            "uts" => b = b.remove("/hostname"),
            "ipc" => b = b.without_mount("/dev/mqueue"),
            _ => {}
        }
        let r = t.report(&b)?;
        same("the namespace", r.text(&format!("/ns/{kernel}")), own_namespace(kernel)?.as_str())
    };
    match *kind {
        "mount" => case("namespace/mount-absent-is-refused-or-works", |t| {
            // A rootfs without a mount namespace cannot be safe: whoever accepts it must leave the host's table alone.
            let before = t.snapshot();
            t.run(&t.bundle()?.without_namespace("mount"))?;
            t.unchanged_since(&before)
        })
        .crun("mounts in the host's table"),
        _ => case(format!("namespace/{kind}-absent-is-the-hosts"), body),
    }
}

fn joined((kind, kernel): &'static (&str, &str)) -> Case {
    let body = move |t: &Test| {
        let first = t.bundle()?.namespace(kind, None).probe("report -- forever");
        let theirs = t.launch(&first)?.report(t)?;
        let path = format!("/proc/{}/ns/{kernel}", t.pid(&first)?);
        let second = t.bundle()?.namespace(kind, Some(&path));
        let second = if *kind == "uts" { second.remove("/hostname") } else { second };
        let r = t.report(&second)?;
        let pointer = format!("/ns/{kernel}");
        same("the namespace", r.text(&pointer), theirs.text(&pointer))
    };
    match *kind {
        "mount" => case("namespace/mount-joined-or-refused", |t| {
            let first = t.bundle()?.probe("forever");
            t.launch(&first)?;
            let path = format!("/proc/{}/ns/mnt", t.pid(&first)?);
            let done = t.run(&t.bundle()?.namespace("mount", Some(&path)))?;
            check!(done.code == 0 || done.errors().len() == 1, "{done}");
            Ok(())
        })
        .crun("fails, and leaves its cgroup"),
        "time" => case("namespace/time-joined-by-path", body).crun("fails, and leaves its cgroup"),
        _ => case(format!("namespace/{kind}-joined-by-path"), body),
    }
}

fn joining() -> Vec<Case> {
    vec![
        case("namespace/four-joined-at-once", |t| {
            let first = t.bundle()?.probe("report -- forever");
            let theirs = t.launch(&first)?.report(t)?;
            let pid = t.pid(&first)?;
            let mut b = t.bundle()?.remove("/hostname");
            for (kind, kernel) in &KINDS[..4] {
                b = b.namespace(kind, Some(&format!("/proc/{pid}/ns/{kernel}")));
            }
            let r = t.report(&b)?;
            for (_, kernel) in &KINDS[..4] {
                same(kernel, r.text(&format!("/ns/{kernel}")), theirs.text(&format!("/ns/{kernel}")))?;
            }
            check!(r.at("/pid").as_u64() > Some(1), "it is process {} of the other's", r.at("/pid"));
            same("hostname", r.text("/hostname"), theirs.text("/hostname"))
        }),
        case("namespace/joined-pid-with-exec-and-kill", |t| {
            let first = t.bundle()?.probe("forever");
            t.launch(&first)?;
            let path = format!("/proc/{}/ns/pid", t.pid(&first)?);
            let second = t.bundle()?.namespace("pid", Some(&path)).probe("forever");
            t.launch(&second)?;
            t.exec(&second, "", "/probe exit 5")?.exits(5)?;
            t.cli(&format!("kill {} KILL", second.id))?.ok()?;
            t.await_status(&second, "stopped")?;
            t.has_status(&first, "running")
        }),
        case("namespace/joined-after-bind-mount", |t| {
            let first = t.bundle()?.probe("report -- forever");
            let theirs = t.launch(&first)?.report(t)?;
            let pin = t.path("pinned-netns");
            fs::write(&pin, "")?;
            let from = format!("/proc/{}/ns/net", t.pid(&first)?);
            t.mount("", &from, &pin, nix::mount::MsFlags::MS_BIND, "")?;
            t.cli(&format!("delete -f {}", first.id))?.ok()?;
            let r = t.report(&t.bundle()?.namespace("network", Some(&pin.to_string_lossy())))?;
            same("the namespace", r.text("/ns/net"), theirs.text("/ns/net"))
        }),
        case("namespace/new-network-has-loopback-up", |t| {
            let got = t.expect(
                t.bundle()?,
                &[("read /proc/net/if_inet6", "ok|ENOENT"), ("read /proc/net/dev", "ok")],
            )?;
            let table = got[1].as_str().unwrap_or_default();
            same("interfaces", table.lines().count(), 3)?;
            let up = t.expect(
                t.bundle()?,
                &[("read /sys/class/net/lo/operstate", "ok"), ("read /sys/class/net/lo/flags", "ok")],
            )?;
            same("flags of lo", &up[1], "0x9")
        }),
        case("namespace/hostname-set-inside-stays-inside", |t| {
            let b = t.bundle()?.grants(&["SYS_ADMIN"]);
            t.expect(b, &[("sethostname elsewhere", "ok")]).map(drop)
        }),
    ]
}

fn user() -> Vec<Case> {
    [user_identity(), user_joined(), user_mappings()].into_iter().flatten().collect()
}

fn user_identity() -> Vec<Case> {
    vec![
        case("userns/root-inside-is-100000-outside", |t| {
            let b = t.bundle()?.user_namespace().probe("report -- forever");
            let r = t.launch(&b)?.report(t)?;
            r.is("/uid", json!([0, 0, 0, 0]))?;
            r.is("/gid", json!([0, 0, 0, 0]))?;
            r.is("/uid_map", json!(["0 100000 65536"]))?;
            r.is("/gid_map", json!(["0 100000 65536"]))?;
            let status = fs::read_to_string(format!("/proc/{}/status", t.pid(&b)?))?;
            check!(status.contains("Uid:\t100000\t"), "outside it is {status}");
            check!(r.text("/ns/user") != own_namespace("user")?, "it is in the host's user namespace");
            Ok(())
        }),
        case("userns/default-mounts-and-devices-work", |t| {
            let r = t.report(&t.bundle()?.user_namespace())?;
            r.mount("/proc")?.fstype("proc")?;
            r.mount("/sys")?.fstype("sysfs")?.has(&["ro"])?;
            r.mount("/dev/pts")?.fstype("devpts")?;
            r.mount("/dev/mqueue")?.fstype("mqueue")?;
            r.is("/dev/~1dev~1null/major", 1)?;
            let table = [("write /dev/null x", "ok"), ("read /dev/zero", "ok"), ("open /dev/urandom", "ok")];
            t.expect(t.bundle()?.user_namespace(), &table).map(drop)
        }),
        case("userns/root-owns-mqueue", |t| {
            // It belongs to the maker of the IPC namespace, who is nobody as long as no id is mapped.
            let b = t.bundle()?.user_namespace();
            t.report(&b)?.is("/dev/~1dev~1mqueue/uid", 0)?;
            t.report(&b.namespace("time", None))?.is("/dev/~1dev~1mqueue/uid", 0)
        })
        .needs(&[Need::File("/proc/self/ns/time")]),
        case("userns/user-inside", |t| {
            let b = t.bundle()?.user_namespace();
            let b = b.set("/process/user", json!({"uid": 1000, "gid": 1000, "additionalGids": [5]}));
            let r = t.report(&b)?;
            r.is("/uid/0", 1000)?;
            r.is("/gid/0", 1000)?;
            r.is("/groups", json!([5]))
        }),
        case("userns/exec-joins-it", |t| {
            let b = t.bundle()?.user_namespace().probe("report -- forever");
            let init = t.launch(&b)?.report(t)?;
            let r = Report::read(&t.exec(&b, "", "/probe report")?.ok()?.stdout)?;
            for pointer in ["/ns", "/uid", "/gid", "/groups", "/caps", "/uid_map"] {
                same(pointer, r.at(pointer), init.at(pointer))?;
            }
            Ok(())
        }),
        case("userns/capabilities-inside-are-none-outside", |t| {
            let b = t
                .bundle()?
                .user_namespace()
                .grants(&["SYS_ADMIN", "SYS_TIME", "DAC_OVERRIDE", "MKNOD"])
                .writable();
            let table = [
                ("mknod /tmp/x c 1 3", "EPERM|EACCES"),
                ("write /proc/sys/kernel/core_pattern x", "EACCES|EROFS|EPERM"),
            ];
            t.expect(b, &table).map(drop)
        }),
    ]
}

fn user_joined() -> Vec<Case> {
    vec![
        case("userns/joined-by-path", |t| {
            let first = t.bundle()?.user_namespace().probe("report -- forever");
            let theirs = t.launch(&first)?.report(t)?;
            let path = format!("/proc/{}/ns/user", t.pid(&first)?);
            let b = t.bundle()?.user_namespace().namespace("user", Some(&path));
            let b = b.remove("/linux/uidMappings").remove("/linux/gidMappings");
            let r = t.report(&b)?;
            same("the namespace", r.text("/ns/user"), theirs.text("/ns/user"))?;
            r.is("/uid_map", json!(["0 100000 65536"]))
        }),
        case("userns/joined-with-others", |t| {
            let first = t.bundle()?.user_namespace().probe("report -- forever");
            let theirs = t.launch(&first)?.report(t)?;
            let pid = t.pid(&first)?;
            let mut b = t.bundle()?.user_namespace().remove("/hostname");
            for (kind, kernel) in [("user", "user"), ("network", "net"), ("ipc", "ipc"), ("uts", "uts")] {
                b = b.namespace(kind, Some(&format!("/proc/{pid}/ns/{kernel}")));
            }
            let r = t.report(&b)?;
            for kernel in ["user", "net", "ipc", "uts"] {
                same(kernel, r.text(&format!("/ns/{kernel}")), theirs.text(&format!("/ns/{kernel}")))?;
            }
            Ok(())
        }),
    ]
}

fn user_mappings() -> Vec<Case> {
    vec![
        case("userns/many-mappings", |t| {
            let maps: Value =
                (0..100).map(|i| json!({"containerID": i, "hostID": 100_000 + 2 * i, "size": 1})).collect();
            let b = t
                .bundle()?
                .user_namespace()
                .set("/linux/uidMappings", maps.clone())
                .set("/linux/gidMappings", maps);
            let r = t.report(&b)?;
            same("lines of the map", r.at("/uid_map").as_array().map(Vec::len), Some(100))?;
            r.is("/uid_map/99", "99 100198 1")
        }),
        case("userns/mount-idmapped", |t| {
            fs::create_dir(t.path("src"))?;
            fs::write(t.path("src/file"), "x")?;
            std::os::unix::fs::chown(t.path("src/file"), Some(1000), Some(1000))?;
            let map = json!([{"containerID": 1000, "hostID": 2000, "size": 1}]);
            let b = t.bundle()?.push(
                "/mounts",
                json!({
                    "type": "bind", "source": t.file("src"), "destination": "/m", "options": ["bind"],
                    "uidMappings": map, "gidMappings": map
                }),
            );
            let got = t.expect(b, &[("stat /m/file", "ok")])?;
            same("owner", (&got[0]["uid"], &got[0]["gid"]), (&json!(2000), &json!(2000)))
        })
        .needs(&[Need::Kernel("id-mapped mounts", 5, 12)]),
        case("userns/mount-idmapped-as-the-container", |t| {
            fs::create_dir(t.path("src"))?;
            fs::write(t.path("src/file"), "x")?;
            let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
            let b = t.bundle()?.dir("m", 0o755)?.user_namespace().push(
                "/mounts",
                json!({
                    "type": "bind", "source": t.file("src"), "destination": "/m", "options": ["bind"],
                    "uidMappings": map, "gidMappings": map
                }),
            );
            let got = t.expect(b, &[("stat /m/file", "ok")])?;
            same("owner", &got[0]["uid"], 0)
        })
        .needs(&[Need::Kernel("id-mapped mounts", 5, 12)]),
        case("userns/nothing-is-left", |t| {
            let (before, b) = (t.snapshot(), t.bundle()?.user_namespace());
            t.report(&b)?;
            t.unchanged_since(&before)
        }),
    ]
}

fn others() -> Vec<Case> {
    vec![
        case("timens/offsets", |t| {
            let offsets = json!({"monotonic": {"secs": 1000, "nanosecs": 5}, "boottime": {"secs": 172_800}});
            let b = t.bundle()?.namespace("time", None).set("/linux/timeOffsets", offsets);
            let r = t.report(&b)?;
            let words: Vec<_> = r.text("/timens_offsets").split_whitespace().collect();
            same("offsets", words, vec!["monotonic", "1000", "5", "boottime", "172800", "0"])?;
            let got = t.expect(b, &[("read /proc/uptime", "ok")])?;
            let uptime: f64 = got[0].as_str().and_then(|s| s.split('.').next()?.parse().ok()).unwrap_or(0.0);
            check!(uptime > 172_800.0, "uptime is {uptime}");
            Ok(())
        })
        .needs(&[Need::File("/proc/self/ns/time")]),
        case("timens/offsets-hold-in-exec", |t| {
            let offsets = json!({"monotonic": {"secs": 5000}});
            let b = t.bundle()?.namespace("time", None).set("/linux/timeOffsets", offsets).probe("forever");
            t.launch(&b)?;
            let r = Report::read(&t.exec(&b, "", "/probe report")?.ok()?.stdout)?;
            check!(r.text("/timens_offsets").contains("5000"), "offsets are {:?}", r.text("/timens_offsets"));
            Ok(())
        })
        .needs(&[Need::File("/proc/self/ns/time")]),
        case("cgroupns/sees-itself-as-the-root", |t| {
            let r = t.report(&t.bundle()?.namespace("cgroup", None))?;
            for line in r.at("/cgroup").as_array().into_iter().flatten().filter_map(Value::as_str) {
                check!(line.ends_with(":/") || !line.contains("corten-test"), "it sees {line}");
            }
            Ok(())
        }),
        case("namespace/none-is-left-behind", |t| {
            let before = count_namespaces();
            for _ in 0..3 {
                t.run(&everything_new(t.bundle()?))?.ok()?;
            }
            t.until(|| "namespaces to go".into(), || Ok((count_namespaces() <= before).then_some(())))
        }),
    ]
}

fn everything_new(b: Bundle) -> Bundle {
    b.namespace("cgroup", None).user_namespace()
}

/// Distinct network namespaces of processes below this one.
fn count_namespaces() -> usize {
    let links = crate::harness::hostdiff::descendants().into_iter();
    let links = links.filter_map(|p| fs::read_link(format!("/proc/{}/ns/net", p.pid)).ok());
    links.collect::<std::collections::BTreeSet<_>>().len()
}
