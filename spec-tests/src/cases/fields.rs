// SPDX-License-Identifier: Apache-2.0
//! Fields of config.json and config-linux.md that few runtimes have right: mounts of rarer kinds, ids of what is joined,
//! owners of devices in user namespaces, kernels without mount_setattr(2).

#![forbid(unsafe_code)]

use std::fs;

use nix::mount::MsFlags;
use serde_json::{Value, json};

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, case, same};
use crate::harness::host::Need;
use crate::harness::report::Report;
use crate::harness::test::Test;
use crate::sys;

/// The chapter.
pub fn cases() -> Vec<Case> {
    [links(), roots(), idmapped(), joined(), devices(), old_kernel()].into_iter().flatten().collect()
}

fn links() -> Vec<Case> {
    const RUNC: &str = "copy-symlink is crun's";
    vec![
        case("mounts/copy-symlink-of-a-link", |t| {
            std::os::unix::fs::symlink("elsewhere/x", t.path("link"))?;
            let b = t.bundle()?.mount("bind", &t.file("link"), "/deep/copied", &["bind", "copy-symlink"]);
            let got = t.expect(b, &[("stat /deep/copied", "ok"), ("read /proc/self/mounts", "ok")])?;
            same("kind", &got[0]["kind"], "l")?;
            same("target", &got[0]["target"], "elsewhere/x")?;
            check!(!got[1].as_str().unwrap_or_default().contains("/deep"), "it is a mount");
            Ok(())
        })
        .runc(RUNC),
        case("mounts/copy-symlink-of-a-directory", |t| {
            fs::create_dir(t.path("dir"))?;
            fs::write(t.path("dir/file"), "text")?;
            let b = t.bundle()?.mount("bind", &t.file("dir"), "/copied", &["bind", "copy-symlink", "ro"]);
            let got = t.expect(b, &[("read /copied/file", "ok"), ("create /copied/new", "EROFS")])?;
            same("the file", &got[0], "text")
        })
        .runc(RUNC),
        case("mounts/copy-symlink-where-something-is", |t| {
            std::os::unix::fs::symlink("target", t.path("link"))?;
            let b = t.bundle()?.link("same", "target")?.file("other", "x")?;
            let same_link = b.clone().mount("bind", &t.file("link"), "/same", &["bind", "copy-symlink"]);
            t.run(&same_link)?.ok()?;
            let other = b.mount("bind", &t.file("link"), "/other", &["bind", "copy-symlink"]);
            t.run(&other)?.refuses(&["/other", "exists"]).map(drop)
        })
        .runc(RUNC)
        .crun("does not say where"),
    ]
}

fn roots() -> Vec<Case> {
    vec![
        case("mounts/over-the-root", |t| {
            let b = t.bundle()?;
            let upper = t.path("other");
            fs::create_dir(&upper)?;
            for dir in ["dev", "proc", "sys"] {
                fs::create_dir(upper.join(dir))?;
            }
            fs::copy(b.rootfs("probe"), upper.join("probe"))?;
            fs::write(upper.join("marker"), "covers")?;
            let over =
                json!({"destination": "/", "type": "bind", "source": upper, "options": ["rbind", "ro"]});
            let mounts = b.config["mounts"].as_array().cloned().unwrap_or_default();
            let all: Vec<Value> = std::iter::once(over).chain(mounts).collect();
            let b = b.set("/mounts", json!(all));
            let table = [
                ("read /marker", "ok"),
                ("stat /etc", "ENOENT"),
                ("create /x", "EROFS"),
                ("list /proc/self", "ok"),
            ];
            let got = t.expect(b, &table)?;
            same("the marker", &got[0], "covers")
        })
        .runc("a18: refused since the hardening of paths"),
        case("mounts/bind-type-without-the-option", |t| {
            fs::write(t.path("file"), "text")?;
            let mount = json!({"destination": "/bound", "type": "bind", "source": t.file("file")});
            let got = t.expect(t.bundle()?.push("/mounts", mount), &[("read /bound", "ok")])?;
            same("the file", &got[0], "text")
        })
        .both("runc#1717"),
        case("mounts/defaults-and-acl-mean-nothing", |t| {
            let b = t.bundle()?.mount("tmpfs", "tmpfs", "/t", &["defaults", "acl", "size=1m"]);
            t.report(&b)?.mount("/t")?.fstype("tmpfs")?.has(&["size=1024k"]).map(drop)
        })
        .runc("a1: runc#1444, runc#3738")
        .crun("passes acl to the file system"),
    ]
}

fn idmapped() -> Vec<Case> {
    const NEED: [Need; 1] = [Need::Kernel("an id-mapped tmpfs", 6, 3)];
    let map = || json!([{"containerID": 0, "hostID": 2000, "size": 10}]);
    vec![
        case("userns/tmpfs-idmapped", move |t| {
            let mount = json!({"destination": "/t", "type": "tmpfs", "source": "tmpfs",
                "options": ["uid=3", "gid=4", "mode=751"], "uidMappings": map(), "gidMappings": map()});
            let got = t.expect(t.bundle()?.push("/mounts", mount), &[("stat /t", "ok")])?;
            same("owner", (&got[0]["uid"], &got[0]["gid"]), (&json!(2003), &json!(2004)))?;
            same("mode", &got[0]["mode"], "0751")
        })
        .needs(&NEED)
        .runc("a20: only bind mounts")
        .crun("loses uid= and gid="),
        case("userns/tmpfs-idmapped-as-the-container", |t| {
            let b = t.bundle()?.dir("t", 0o755)?.user_namespace().mount("tmpfs", "tmpfs", "/t", &["idmap", "uid=0", "gid=5"]);
            let got = t.expect(b, &[("stat /t", "ok"), ("create /t/x", "ok"), ("stat /t/x", "ok")])?;
            same("owner", (&got[0]["uid"], &got[0]["gid"]), (&json!(0), &json!(5)))?;
            same("owner of a file", &got[2]["uid"], 0)
        })
        .needs(&NEED)
        .runc("a20: only bind mounts")
        .crun("loses gid="),
        case("userns/mount-idmapped-inline", |t| {
            fs::create_dir(t.path("src"))?;
            fs::write(t.path("src/file"), "x")?;
            std::os::unix::fs::chown(t.path("src/file"), Some(1000), Some(1001))?;
            let options = ["bind", "idmap=uids=1000-2000-5;gids=1000-3000-5"];
            let b = t.bundle()?.mount("bind", &t.file("src"), "/m", &options);
            let got = t.expect(b, &[("stat /m/file", "ok")])?;
            same("owner", (&got[0]["uid"], &got[0]["gid"]), (&json!(2000), &json!(3001)))
        })
        .needs(&[Need::Kernel("id-mapped mounts", 5, 12)])
        .runc("the form is crun's"),
        case("userns/proc-cannot-be-idmapped", move |t| {
            let mount = json!({"destination": "/p", "type": "sysfs", "source": "x", "uidMappings": map(), "gidMappings": map()});
            t.run(&t.bundle()?.push("/mounts", mount))?.refuses(&["/mounts|id-mapped|idmap|sysfs"]).map(drop)
        })
        .crun("leaves its cgroup behind"),
    ]
}

fn joined() -> Vec<Case> {
    let second = |t: &Test| -> Result<Bundle, Trouble> {
        let first = t.bundle()?.user_namespace().probe("forever");
        t.launch(&first)?;
        let path = format!("/proc/{}/ns/user", t.pid(&first)?);
        Ok(t.bundle()?.user_namespace().namespace("user", Some(&path)))
    };
    vec![
        case("userns/joined-with-its-own-mappings-given", move |t| {
            let r = t.report(&second(t)?)?;
            r.is("/uid_map", json!(["0 100000 65536"]))
        }),
        case("userns/joined-with-other-mappings-given", move |t| {
            let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65535}]);
            for field in ["uidMappings", "gidMappings"] {
                let b = second(t)?.set(&format!("/linux/{field}"), map.clone());
                let done = t.run(&b)?;
                done.refuses(&["both namespace path and non-matching mapping specified"])?;
                if t.host.name == "corten" {
                    done.complains(&[field])?;
                }
            }
            Ok(())
        })
        .crun("ignores them"),
        case("userns/joined-and-idmapped-as-the-container", move |t| {
            fs::create_dir(t.path("src"))?;
            fs::write(t.path("src/file"), "x")?;
            let b = second(t)?.dir("m", 0o755)?.remove("/linux/uidMappings").remove("/linux/gidMappings");
            let b = b.mount("bind", &t.file("src"), "/m", &["bind", "idmap"]);
            same("owner", &t.expect(b, &[("stat /m/file", "ok")])?[0]["uid"], 0)
        })
        .needs(&[Need::Kernel("id-mapped mounts", 5, 12)]),
    ]
}

fn devices() -> Vec<Case> {
    let device = |path: &str, more: Value| {
        let mut device = json!({"path": path, "type": "c", "major": 1, "minor": 3});
        if let (Some(device), Some(more)) = (device.as_object_mut(), more.as_object()) {
            device.extend(more.clone());
        }
        device
    };
    vec![
        case("devices/owner-in-a-user-namespace", move |t| {
            let owned = device("/dev/mine", json!({"uid": 7, "gid": 8, "fileMode": 0o640}));
            let b = t.bundle()?.user_namespace().push("/linux/devices", owned);
            let got = t.expect(b, &[("stat /dev/mine", "ok"), ("write /dev/mine x", "ok|EACCES")])?;
            same("owner", (&got[0]["uid"], &got[0]["gid"]), (&json!(7), &json!(8)))?;
            same("mode and number", (&got[0]["mode"], &got[0]["minor"]), (&json!("0640"), &json!(3)))
        })
        .runc("a6: binds the host's node of that path"),
        case("devices/an-owner-that-is-not-mapped", move |t| {
            let owned = device("/dev/null", json!({"uid": 70_000, "gid": 0}));
            let b = t.bundle()?.user_namespace().push("/linux/devices", owned);
            same("the device", &t.expect(b, &[("stat /dev/null", "ok")])?[0]["minor"], 3)
        })
        .runc("refuses it, as the container's id cannot be mapped"),
        case("devices/something-else-is-there", move |t| {
            let b = t.bundle()?.file("there", "a file")?.push("/linux/devices", device("/there", json!({})));
            t.run(&b)?.refuses(&["/there"]).map(drop)
        })
        .runc("a5: takes it")
        .crun("takes it"),
    ]
}

/// A kernel before Linux 5.12.
fn old_kernel() -> Vec<Case> {
    let needs = [Need::Runtime("corten")];
    let run = |t: &Test, verb: &str, b: &Bundle| {
        let mut command = t.bundle_command(verb, b)?;
        sys::without_syscall(&mut command, libc::SYS_mount_setattr, libc::ENOSYS);
        t.complete(command)
    };
    vec![
        case("old-kernel/without-mount_setattr", move |t| {
            fs::create_dir(t.path("src"))?;
            fs::write(t.path("src/file"), "x")?;
            let b = t.bundle()?.mount("bind", &t.file("src"), "/b", &["rbind", "ro", "nosuid", "noatime"]);
            let b = b.mount("bind", &t.file("src/file"), "/f", &["bind", "ro", "noexec"]);
            let b = b.mount("tmpfs", "tmpfs", "/t", &["nodev", "rslave"]).mount("bind", &t.file("src"), "/s", &["bind", "shared"]);
            let b = b.set("/linux/readonlyPaths", json!(["/tmp", "/etc/passwd"]));
            std::os::unix::fs::symlink("x", t.path("link"))?;
            let b = b.mount("bind", &t.file("link"), "/copied", &["bind", "ro", "copy-symlink"]);
            let r = Report::read(&run(t, "run", &b)?.ok()?.stdout)?;
            r.mount("/")?.has(&["ro"])?;
            r.mount("/b")?.has(&["ro", "nosuid", "noatime"])?.propagates(&["master"])?;
            r.mount("/f")?.has(&["ro", "noexec"])?;
            r.mount("/t")?.has(&["nodev"])?;
            r.mount("/s")?.has(&["rw"])?.propagates(&["shared"])?;
            r.mount("/tmp")?.has(&["ro"])?;
            r.mount("/etc/passwd")?.has(&["ro"])?;
            r.mount("/sys")?.has(&["ro", "nosuid"]).map(drop)
        })
        .needs(&needs),
        case("old-kernel/nothing-spreads-to-the-host", move |t| {
            let shared = t.path("shared");
            fs::create_dir(&shared)?;
            t.mount("tmpfs", "tmpfs", &shared, MsFlags::empty(), "")?;
            fs::create_dir(shared.join("sub"))?;
            let b = t.bundle()?.grants(&["SYS_ADMIN"]).mount("bind", &t.file("shared"), "/b", &["rbind"]);
            let before = t.snapshot();
            let b = b.tries(["mount tmpfs /b/sub", "list /b"]);
            run(t, "run", &b)?.ok()?;
            t.unchanged_since(&before)
        })
        .needs(&needs),
        case("old-kernel/with-a-user-namespace", move |t| {
            let r = Report::read(&run(t, "run", &t.bundle()?.user_namespace())?.ok()?.stdout)?;
            r.mount("/")?.has(&["ro"]).map(drop)
        })
        .needs(&needs),
        case("old-kernel/what-it-cannot-do-is-an-error", move |t| {
            fs::create_dir(t.path("src"))?;
            let tree = t.bundle()?.mount("bind", &t.file("src"), "/b", &["rbind", "rro"]);
            run(t, "run", &tree)?.refuses(&["/mounts/7", "mount_setattr(2)", "5.12"])?;
            let map = json!([{"containerID": 0, "hostID": 2000, "size": 10}]);
            let mapped = json!({"destination": "/b", "type": "bind", "source": t.file("src"), "uidMappings": map, "gidMappings": map});
            run(t, "run", &t.bundle()?.push("/mounts", mapped))?.refuses(&["/mounts/7", "mount_setattr(2)"]).map(drop)
        })
        .needs(&needs),
    ]
}
