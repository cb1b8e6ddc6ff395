// SPDX-License-Identifier: Apache-2.0
//! config.md, "Root", and config-linux.md: default devices and links, devices, masked and read-only paths.

#![forbid(unsafe_code)]

use std::fs;

use serde_json::json;

use crate::check;
use crate::harness::case::{Case, Verdict, case, same};
use crate::harness::test::Test;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all = root();
    all.extend(devices());
    all.extend(paths());
    all
}

fn root() -> Vec<Case> {
    [access(), pivot()].into_iter().flatten().collect()
}

fn access() -> Vec<Case> {
    vec![
        case("rootfs/read-only", |t| {
            t.expect(
                t.bundle()?,
                &[("create /x", "EROFS"), ("mkdir /tmp/x", "EROFS"), ("create /dev/shm/x", "ok")],
            )
            .map(drop)
        }),
        case("rootfs/writable", |t| {
            let b = t.bundle()?.writable();
            t.expect(b.clone(), &[("create /x", "ok"), ("mkdir /tmp/x", "ok")])?;
            check!(b.rootfs("x").exists(), "what was made inside is not in the bundle");
            Ok(())
        }),
        case("rootfs/readonly-absent-means-writable", |t| {
            t.expect(t.bundle()?.remove("/root/readonly"), &[("create /x", "ok")]).map(drop)
        }),
        case("rootfs/absolute-path", |t| {
            let b = t.bundle()?;
            let path = b.rootfs("");
            t.report(&b.set("/root/path", json!(path)))?.is("/cwd", "/")
        }),
        case("rootfs/path-through-a-link", |t| {
            let b = t.bundle()?;
            std::os::unix::fs::symlink("rootfs", b.dir.join("other"))?;
            t.report(&b.set("/root/path", json!("other")))?.is("/cwd", "/")
        })
        .runc("refuses links"),
        case("rootfs/cannot-be-left", |t| {
            let b = t.bundle()?.grants(&["SYS_CHROOT", "SYS_ADMIN", "DAC_OVERRIDE"]).writable();
            let got = t.expect(b, &[("list /../../..", "ok"), ("stat /..", "ok"), ("stat /", "ok")])?;
            same("the parent of /", &got[1], &got[2])?;
            let names: Vec<_> = got[0].as_array().into_iter().flatten().filter_map(|n| n.as_str()).collect();
            check!(names.contains(&"probe"), "/../../.. holds {names:?}");
            Ok(())
        }),
    ]
}

fn pivot() -> Vec<Case> {
    vec![
        case("rootfs/no-pivot", |t| {
            let done = t.try_create("run --no-pivot", &t.bundle()?)?;
            let r = crate::harness::report::Report::read(&done.ok()?.stdout)?;
            r.is("/cwd", "/")?;
            r.mount("/proc")?.fstype("proc").map(drop)
        }),
        case("rootfs/no-pivot-shows-nothing-of-the-host", |t| {
            let b = t.bundle()?.tries(["list /", "list /../..", "stat /.."]);
            let done = t.try_create("run --no-pivot", &b)?;
            let got = t.compare(
                &done.ok()?.stdout,
                &[("list /", "ok"), ("list /../..", "ok"), ("stat /..", "ok")],
            )?;
            same("the parent of /", &got[0], &got[1])
        }),
        case("rootfs/on-a-mount-of-its-own", |t| {
            let b = t.bundle()?;
            let path = b.rootfs("");
            let aside = b.dir.join("aside");
            fs::rename(&path, &aside)?;
            fs::create_dir(&path)?;
            t.mount("tmpfs", "tmpfs", &path, nix::mount::MsFlags::empty(), "")?;
            fs::copy(aside.join("probe"), b.rootfs("probe"))?;
            t.report(&b)?.mount("/")?.fstype("tmpfs").map(drop)
        }),
    ]
}

/// Path, kind, major and minor number: what every Linux container gets.
const DEFAULT_DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

fn devices() -> Vec<Case> {
    [default_devices(), listed_devices()].into_iter().flatten().collect()
}

fn default_devices() -> Vec<Case> {
    vec![
        case("devices/default-ones", |t| {
            let r = t.report(&t.bundle()?)?;
            for (name, major, minor) in DEFAULT_DEVICES {
                let node = r.at(&format!("/dev/~1dev~1{name}"));
                let got = (&node["kind"], &node["major"], &node["minor"], &node["mode"], &node["uid"]);
                same(name, got, (&json!("c"), &json!(major), &json!(minor), &json!("0666"), &json!(0)))?;
            }
            Ok(())
        }),
        case("devices/default-links", |t| {
            let r = t.report(&t.bundle()?)?;
            let links = [
                ("fd", "/proc/self/fd"),
                ("stdin", "/proc/self/fd/0"),
                ("stdout", "/proc/self/fd/1"),
                ("stderr", "/proc/self/fd/2"),
            ];
            for (name, target) in links {
                r.is(&format!("/dev/~1dev~1{name}/target"), target)?;
            }
            let ptmx = r.at("/dev/~1dev~1ptmx");
            let linked = ptmx["target"] == "pts/ptmx" || ptmx["target"] == "/dev/pts/ptmx";
            check!(linked || ptmx["kind"] == "c", "/dev/ptmx is {ptmx}");
            Ok(())
        }),
        case("devices/work", |t| {
            let table = [
                ("write /dev/null x", "ok"),
                ("read /dev/zero", "ok"),
                ("write /dev/full x", "ENOSPC"),
                ("open /dev/random", "ok"),
                ("open /dev/urandom", "ok"),
                ("open /dev/tty", "ENXIO"),
                ("open /dev/ptmx", "ok"),
            ];
            t.expect(t.bundle()?, &table).map(drop)
        }),
        case("devices/nothing-else-in-dev", |t| {
            let r = t.report(&t.bundle()?)?;
            let known = [
                "null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "fd", "stdin",
                "stdout",
            ];
            let known = [&known[..], &["stderr", "core", "pts", "shm", "mqueue"]].concat();
            for path in r.at("/dev").as_object().into_iter().flat_map(|all| all.keys()) {
                check!(known.iter().any(|name| path == &format!("/dev/{name}")), "there is {path}");
            }
            Ok(())
        }),
    ]
}

fn listed_devices() -> Vec<Case> {
    vec![
        case("devices/listed-ones", listed),
        case("devices/listed-that-is-a-default-one", |t| {
            let device = json!({"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 0, "gid": 0});
            let b = t.bundle()?.push("/linux/devices", device);
            t.expect(b, &[("write /dev/null x", "ok")]).map(drop)
        }).runc("loses the rule that allows it"),
        case("devices/listed-outside-dev", |t| {
            let device = json!({"path": "/nodes/zero", "type": "c", "major": 1, "minor": 5});
            let b = t.bundle()?.push("/linux/devices", device);
            let got = t.expect(b, &[("stat /nodes/zero", "ok")])?;
            same("it", (&got[0]["kind"], &got[0]["minor"]), (&json!("c"), &json!(5)))
        }),
        case("devices/existing-other-node-is-refused", |t| {
            let b =
                t.bundle()?.without_mount("/dev/pts").without_mount("/dev/shm").without_mount("/dev/mqueue");
            let b = b.without_mount("/dev").file("dev/thing", "a file")?;
            let b =
                b.push("/linux/devices", json!({"path": "/dev/thing", "type": "c", "major": 1, "minor": 5}));
            t.run(&b)?.refuses(&["/dev/thing"]).map(drop)
        })
        .both("a5: takes what is there"),
        case("devices/unknown-type-is-refused", |t| {
            let b = t
                .bundle()?
                .push("/linux/devices", json!({"path": "/dev/x", "type": "z", "major": 1, "minor": 5}));
            t.run(&b)?.refuses(&["device|/dev/x|devices"]).map(drop)
        })
        .crun("takes it")]
}

fn listed(t: &Test) -> Verdict {
    let b = t.bundle()?.writable().push(
        "/linux/devices",
        json!({"path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 7, "gid": 8}),
    );
    let b = b.push("/linux/devices", json!({"path": "/dev/deep/block", "type": "b", "major": 7, "minor": 3}));
    let b = b.push("/linux/devices", json!({"path": "/dev/pipe", "type": "p", "fileMode": 0o600}));
    let b = b.push("/linux/devices", json!({"path": "/dev/unbuffered", "type": "u", "major": 1, "minor": 5}));
    let table = [
        ("stat /dev/mine", "ok"),
        ("stat /dev/deep/block", "ok"),
        ("stat /dev/pipe", "ok"),
        ("stat /dev/unbuffered", "ok"),
    ];
    let got = t.expect(b, &table)?;
    let mine = &got[0];
    same("mine", (&mine["kind"], &mine["minor"], &mine["mode"]), (&json!("c"), &json!(3), &json!("0640")))?;
    same("its owner", (&mine["uid"], &mine["gid"]), (&json!(7), &json!(8)))?;
    same(
        "block",
        (&got[1]["kind"], &got[1]["major"], &got[1]["minor"]),
        (&json!("b"), &json!(7), &json!(3)),
    )?;
    same("pipe", (&got[2]["kind"], &got[2]["mode"]), (&json!("p"), &json!("0600")))?;
    same("unbuffered", (&got[3]["kind"], &got[3]["minor"]), (&json!("c"), &json!(5)))
}

fn paths() -> Vec<Case> {
    [masked(), read_only()].into_iter().flatten().collect()
}

fn masked() -> Vec<Case> {
    vec![
        case("masked/default-paths-are-empty", |t| {
            let table = [
                ("read /proc/keys", "ok"),
                ("read /proc/timer_list", "ok"),
                ("read /proc/kcore", "ok|ENOENT"),
                ("list /sys/firmware", "ok|ENOENT"),
            ];
            let got = t.expect(t.bundle()?, &table)?;
            for data in &got[..3] {
                check!(data.is_null() || data == "", "a masked file holds {data}");
            }
            check!(got[3].is_null() || got[3] == json!([]), "/sys/firmware holds {}", got[3]);
            Ok(())
        }),
        case("masked/file-and-directory", |t| {
            let b = t.bundle()?.writable().file("secret/file", "text")?.file("plain", "text")?;
            let b = b.set("/linux/maskedPaths", json!(["/secret", "/plain"]));
            let table = [
                ("list /secret", "ok"),
                ("create /secret/new", "EROFS"),
                ("read /plain", "ok"),
                ("read /secret/file", "ENOENT"),
            ];
            let got = t.expect(b.clone(), &table)?;
            same("the directory", &got[0], &json!([]))?;
            same("the file", &got[2], "")?;
            same("the original", fs::read_to_string(b.rootfs("plain"))?, "text")
        }),
        case("masked/missing-paths-are-skipped", |t| {
            let b = t
                .bundle()?
                .set("/linux/maskedPaths", json!(["/no/such", "/proc/no-such", "/proc/no-such/deep"]));
            t.report(&b)?.is("/pid", 1)
        }),
        case("masked/hold-against-root-inside", |t| {
            let b = t.bundle()?.set("/linux/maskedPaths", json!(["/etc/passwd", "/proc/timer_list"]));
            let table = [
                ("umount /etc/passwd", "EPERM"),
                ("umount /proc/timer_list", "EPERM"),
                ("read /etc/passwd", "ok"),
                ("read /proc/timer_list", "ok"),
            ];
            let got = t.expect(b, &table)?;
            check!(got[2..].iter().all(|text| text == ""), "what is hidden gives {:?}", &got[2..]);
            Ok(())
        }),
        case("masked/through-a-link", |t| {
            let b = t.bundle()?.file("real", "text")?.link("link", "/real")?;
            let b = b.set("/linux/maskedPaths", json!(["/link"]));
            let done = t.run(&b.tries(["read /real", "read /link"]))?;
            // Either the link's target is masked, or one line says why not; never is it silently left open.
            if done.code != 0 {
                return done.refuses(&["/link"]).map(drop);
            }
            let got = t.compare(&done.stdout, &[("read /real", "ok"), ("read /link", "ok")])?;
            same("the target", &got[0], "")
        }),
    ]
}

fn read_only() -> Vec<Case> {
    vec![
        case("readonly/default-paths", |t| {
            let table = [
                ("write /proc/sys/kernel/hostname x", "EROFS"),
                ("write /proc/sysrq-trigger h", "EROFS|ENOENT"),
                ("write /proc/irq/default_smp_affinity 1", "EROFS|ENOENT"),
                ("read /proc/sys/kernel/hostname", "ok"),
            ];
            t.expect(t.bundle()?.grants(&["SYS_ADMIN"]), &table).map(drop)
        }),
        case("readonly/keeps-other-flags", |t| {
            let b = t.bundle()?.mount("tmpfs", "tmpfs", "/m", &["nosuid", "nodev", "noexec"]).writable();
            let b = b.set("/linux/readonlyPaths", json!(["/m", "/etc", "/no/such"]));
            let r = t.report(&b)?;
            r.mount("/m")?.has(&["ro", "nosuid", "nodev", "noexec"])?;
            r.mount("/etc")?.has(&["ro"]).map(drop)
        }),
        case("readonly/with-submounts", |t| {
            let b = t.bundle()?.mount("tmpfs", "tmpfs", "/m", &[]).mount("tmpfs", "tmpfs", "/m/sub", &[]);
            let b = b.set("/linux/readonlyPaths", json!(["/m"]));
            t.expect(b, &[("create /m/x", "EROFS"), ("list /m/sub", "ok")]).map(drop)
        }),
        case("readonly/none-when-empty", |t| {
            let b = t.bundle()?.set("/linux/readonlyPaths", json!([])).set("/linux/maskedPaths", json!([]));
            let r = t.report(&b)?;
            r.no_mount("/proc/sys")?;
            r.no_mount("/proc/kcore")
        }),
    ]
}
