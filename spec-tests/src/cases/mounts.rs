// SPDX-License-Identifier: Apache-2.0
//! config.md, "Mounts".

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use nix::mount::MsFlags;
use serde_json::{Value, json};

use crate::check;
use crate::harness::case::{Case, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::test::Test;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all = kinds();
    all.extend(binds());
    all.extend(options());
    all
}

fn kinds() -> Vec<Case> {
    [defaults(), tmpfs(), other_kinds()].into_iter().flatten().collect()
}

fn defaults() -> Vec<Case> {
    vec![
        case("mounts/of-the-default-configuration", |t| {
            let r = t.report(&t.bundle()?)?;
            r.mount("/")?.has(&["ro"])?;
            r.mount("/proc")?.fstype("proc")?;
            r.mount("/dev")?.fstype("tmpfs")?.has(&["rw", "nosuid", "mode=755", "size=65536k"])?;
            r.mount("/dev")?.lacks(&["noexec", "nodev", "relatime", "noatime"])?;
            r.mount("/dev/pts")?.fstype("devpts")?.has(&[
                "nosuid",
                "noexec",
                "gid=5",
                "mode=620",
                "ptmxmode=666",
            ])?;
            r.mount("/dev/shm")?.fstype("tmpfs")?.has(&["nosuid", "noexec", "nodev", "size=65536k"])?;
            r.mount("/dev/mqueue")?.fstype("mqueue")?.has(&["nosuid", "noexec", "nodev"])?;
            r.mount("/sys")?.fstype("sysfs")?.has(&["nosuid", "noexec", "nodev", "ro"]).map(drop)
        }),
        case("mounts/in-the-given-order", |t| {
            let b = t.bundle()?.mount("tmpfs", "first", "/m", &[]).mount("tmpfs", "second", "/m/deep", &[]);
            let b = b.mount("tmpfs", "third", "/m", &[]);
            let r = t.report(&b)?;
            let all = r.at("/mounts").as_array().cloned().unwrap_or_default();
            let sources: Vec<_> = all
                .iter()
                .filter(|m| m["dest"].as_str().is_some_and(|d| d.starts_with("/m")))
                .map(|m| &m["source"])
                .collect();
            same("mounts below /m", sources, vec!["first", "second", "third"])
        }),
        case("mounts/nothing-of-the-host-is-left", |t| {
            let r = t.report(&t.bundle()?)?;
            let known = ["/", "/proc", "/dev", "/sys"];
            for mount in r.at("/mounts").as_array().into_iter().flatten() {
                let dest = mount["dest"].as_str().unwrap_or_default();
                let inside = known.iter().any(|k| dest == *k || dest.starts_with(&format!("{k}/")));
                check!(inside, "{dest} is mounted: {mount}");
            }
            Ok(())
        }),
    ]
}

fn tmpfs() -> Vec<Case> {
    vec![
        case("mounts/tmpfs-with-size-and-mode", |t| {
            let b = t.bundle()?.mount("tmpfs", "tmpfs", "/t", &["size=1m", "mode=1777", "uid=5", "gid=6"]);
            let got =
                t.expect(b, &[("stat /t", "ok"), ("create /t/x", "ok"), ("read /proc/self/mounts", "ok")])?;
            same("mode", &got[0]["mode"], "1777")?;
            same("owner", [&got[0]["uid"], &got[0]["gid"]], [&json!(5), &json!(6)])?;
            check!(got[2].as_str().is_some_and(|m| m.contains("size=1024k")), "no size in {}", got[2]);
            Ok(())
        }),
        case("mounts/tmpfs-takes-the-covered-directorys-mode", |t| {
            for mode in [0o710, 0o1500, 0o1777] {
                let b = t.bundle()?.dir("covered", mode)?.mount("tmpfs", "tmpfs", "/covered", &[]);
                let got = t.expect(b, &[("stat /covered", "ok")])?;
                same("mode", got[0]["mode"].as_str(), Some(format!("{mode:04o}").as_str()))?;
            }
            Ok(())
        }),
        case("mounts/tmpcopyup", |t| {
            let b = t
                .bundle()?
                .file("data/file", "content")?
                .file("data/sub/deep", "more")?
                .link("data/link", "file")?;
            fs::set_permissions(b.rootfs("data/sub"), fs::Permissions::from_mode(0o751))?;
            let b = b.mount("tmpfs", "tmpfs", "/data", &["tmpcopyup"]);
            let table = [
                ("read /data/file", "ok"),
                ("read /data/sub/deep", "ok"),
                ("read /data/link", "ok"),
                ("stat /data/sub", "ok"),
                ("write /data/file changed", "ok"),
            ];
            let got = t.expect(b.clone(), &table)?;
            same("the file", &got[0], "content")?;
            same("the deep file", &got[1], "more")?;
            same("through the link", &got[2], "content")?;
            same("the directory's mode", &got[3]["mode"], "0751")?;
            same("the original", fs::read_to_string(b.rootfs("data/file"))?, "content")
        }),
    ]
}

fn other_kinds() -> Vec<Case> {
    vec![
        case("mounts/mqueue-works", |t| {
            t.expect(t.bundle()?, &[("list /dev/mqueue", "ok"), ("read /proc/sys/fs/mqueue/msg_max", "ok")])
                .map(drop)
        }),
        case("mounts/devpts-is-a-new-instance", |t| {
            let got = t.expect(t.bundle()?, &[("list /dev/pts", "ok"), ("stat /dev/pts/ptmx", "ok")])?;
            same("terminals", &got[0], &json!(["ptmx"]))?;
            same("mode of ptmx", &got[1]["mode"], "0666")
        }),
        case("mounts/proc-is-of-the-new-pid-namespace", |t| {
            let got = t.expect(t.bundle()?, &[("list /proc", "ok"), ("read /proc/1/comm", "ok")])?;
            let pids = got[0].as_array().into_iter().flatten().filter_map(Value::as_str);
            same("processes", pids.filter(|name| name.parse::<u32>().is_ok()).count(), 1)?;
            same("the first", &got[1], "probe")
        }),
        case("mounts/unknown-type", |t| {
            let b = t.bundle()?.mount("nosuchfs", "x", "/x", &[]);
            t.run(&b)?.refuses(&["nosuchfs|/x|`x`", "no such device|ENODEV"]).map(drop)
        }),
        case("mounts/unknown-option-goes-to-the-file-system", |t| {
            let b = t.bundle()?.mount("tmpfs", "tmpfs", "/x", &["nr_inodes=77"]);
            t.report(&b)?.mount("/x")?.has(&["nr_inodes=77"])?;
            let b = t.bundle()?.mount("tmpfs", "tmpfs", "/x", &["nosuchoption"]);
            t.run(&b)?.refuses(&["/x|`x`", "invalid argument|EINVAL"]).map(drop)
        }),
    ]
}

fn binds() -> Vec<Case> {
    [bind_sources(), bind_submounts()].into_iter().flatten().collect()
}

fn bind_sources() -> Vec<Case> {
    vec![
        bind("mounts/bind-directory", "bind", "/b", |t| {
            fs::create_dir(t.path("src"))?;
            Ok(fs::write(t.path("src/file"), "shared")?)
        }),
        bind("mounts/bind-without-type", "", "/b", |t| {
            fs::create_dir(t.path("src"))?;
            Ok(fs::write(t.path("src/file"), "shared")?)
        }),
        case("mounts/bind-file-on-missing-file", |t| {
            fs::write(t.path("src"), "content")?;
            let b = t.bundle()?.mount("bind", &t.file("src"), "/new/dir/file", &["bind"]);
            let got =
                t.expect(b.clone(), &[("read /new/dir/file", "ok"), ("write /new/dir/file x", "ok")])?;
            same("the file", &got[0], "content")?;
            same("the source", fs::read_to_string(t.path("src"))?, "x".to_owned() + "ontent")?;
            check!(fs::metadata(b.rootfs("new/dir/file"))?.is_file(), "the mount point is no file");
            Ok(())
        }),
        case("mounts/missing-destinations-are-made", |t| {
            let b = t.bundle()?.mount("tmpfs", "tmpfs", "/a/b/c", &[]);
            t.report(&b)?.mount("/a/b/c")?.fstype("tmpfs")?;
            for dir in ["a", "a/b", "a/b/c"] {
                let meta = fs::metadata(b.rootfs(dir))?;
                same(dir, (meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o755, 0, 0))?;
            }
            Ok(())
        })
        .crun("makes them with mode 1755"),
        case("mounts/relative-source-is-below-the-bundle", |t| {
            let b = t.bundle()?;
            fs::create_dir(b.dir.join("data"))?;
            fs::write(b.dir.join("data/file"), "mine")?;
            let b = b.mount("bind", "data", "/b", &["bind"]);
            same("the file", &t.expect(b, &[("read /b/file", "ok")])?[0], "mine")
        }),
    ]
}

fn bind_submounts() -> Vec<Case> {
    vec![
        case("mounts/bind-sees-no-submounts", |t| {
            with_submount(t)?;
            let b = t.bundle()?.mount("bind", &t.file("src"), "/b", &["bind"]);
            let got = t.expect(b, &[("list /b/sub", "ok")])?;
            same("below the submount", &got[0], &json!([]))
        }),
        case("mounts/rbind-sees-submounts", |t| {
            with_submount(t)?;
            let b = t.bundle()?.mount("bind", &t.file("src"), "/b", &["rbind"]);
            let got = t.expect(b, &[("list /b/sub", "ok")])?;
            same("below the submount", &got[0], &json!(["inner"]))
        }),
        case("mounts/bind-read-only-is-the-mounts-alone", |t| {
            fs::create_dir(t.path("src"))?;
            let b = t.bundle()?.mount("bind", &t.file("src"), "/b", &["rbind", "ro"]);
            t.expect(b, &[("create /b/x", "EROFS")])?;
            Ok(fs::write(t.path("src/from-the-host"), "")?)
        }),
        case("mounts/ro-leaves-submounts-writable", |t| {
            with_submount(t)?;
            let b = t.bundle()?.mount("bind", &t.file("src"), "/b", &["rbind", "ro"]);
            t.expect(b, &[("create /b/x", "EROFS"), ("create /b/sub/x", "ok")]).map(drop)
        }),
        case("mounts/rro-makes-submounts-read-only", |t| {
            with_submount(t)?;
            let b = t.bundle()?.mount("bind", &t.file("src"), "/b", &["rbind", "rro"]);
            t.expect(b, &[("create /b/x", "EROFS"), ("create /b/sub/x", "EROFS")]).map(drop)
        })
        .needs(&[Need::Kernel("attributes of a whole tree", 5, 12)]),
        case("mounts/bind-keeps-the-sources-own-flags", |t| {
            fs::create_dir(t.path("src"))?;
            mount_tmpfs(t, "src", MsFlags::MS_NOSUID | MsFlags::MS_NODEV)?;
            let b = t.bundle()?.mount("bind", &t.file("src"), "/b", &["bind", "ro"]);
            let r = t.report(&b)?;
            r.mount("/b")?.has(&["ro"]).map(drop)
        }),
        case("mounts/absent-bind-source", |t| {
            let b = t.bundle()?.mount("bind", "/no/such/source", "/b", &["bind"]);
            t.run(&b)?.refuses(&["/no/such/source|/b", "no such file or directory|ENOENT"]).map(drop)
        }),
        case("mounts/onto-the-root", |t| {
            fs::create_dir(t.path("src"))?;
            let b = t.bundle()?.mount("bind", &t.file("src"), "/", &["bind"]);
            // Either it works, and then the probe is covered; or one line says why not.
            let done = t.run(&b)?;
            check!(done.code != 0 && done.errors().len() == 1, "{done}");
            Ok(())
        }),
    ]
}

fn bind(name: &'static str, kind: &'static str, dest: &'static str, prepare: fn(&Test) -> Verdict) -> Case {
    case(name, move |t: &Test| {
        prepare(t)?;
        let mut mount = json!({"source": t.file("src"), "destination": dest, "options": ["bind"]});
        if !kind.is_empty() {
            mount["type"] = json!(kind);
        }
        let (read, create) = (format!("read {dest}/file"), format!("create {dest}/new"));
        let b = t.bundle()?.push("/mounts", mount);
        let got = t.expect(b, &[(&read, "ok"), (&create, "ok")])?;
        same("the file", &got[0], "shared")?;
        check!(t.path("src/new").exists(), "what was made inside is not outside");
        Ok(())
    })
}

/// A tmpfs on a directory of the case's own.
pub(super) fn mount_tmpfs(t: &Test, dir: &str, flags: MsFlags) -> Verdict {
    t.mount("tmpfs", "tmpfs", &t.path(dir), flags, "")
}

/// `src` with a tmpfs on `src/sub` that holds `inner`.
fn with_submount(t: &Test) -> Verdict {
    fs::create_dir_all(t.path("src/sub"))?;
    mount_tmpfs(t, "src/sub", MsFlags::empty())?;
    Ok(fs::write(t.path("src/sub/inner"), "")?)
}

type MountOption = (&'static str, &'static [&'static str], &'static [&'static str], &'static [&'static str]);
const TMPFS: [MountOption; 17] = [
    ("ro", &["ro"], &["ro"], &["rw"]),
    ("rw", &["ro", "rw"], &["rw"], &["ro"]),
    ("nosuid", &["nosuid"], &["nosuid"], &[]),
    ("suid", &["nosuid", "suid"], &["rw"], &["nosuid"]),
    ("nodev", &["nodev"], &["nodev"], &[]),
    ("dev", &["nodev", "dev"], &["rw"], &["nodev"]),
    ("noexec", &["noexec"], &["noexec"], &[]),
    ("exec", &["noexec", "exec"], &["rw"], &["noexec"]),
    ("noatime", &["noatime"], &["noatime"], &["relatime"]),
    ("relatime", &["relatime"], &["relatime"], &["noatime"]),
    ("strictatime", &["strictatime"], &["rw"], &["relatime", "noatime"]),
    ("nodiratime", &["nodiratime"], &["nodiratime"], &[]),
    ("atime-last-wins", &["noatime", "strictatime"], &["rw"], &["relatime", "noatime"]),
    ("sync", &["sync"], &["sync"], &[]),
    ("dirsync", &["dirsync"], &["dirsync"], &[]),
    ("nosymfollow", &["nosymfollow"], &["nosymfollow"], &[]),
    (
        "many",
        &["ro", "nosuid", "nodev", "noexec", "noatime"],
        &["ro", "nosuid", "nodev", "noexec", "noatime"],
        &["relatime"],
    ),
];
const BIND: [MountOption; 14] = [
    ("ro", &["rbind", "ro"], &["ro"], &[]),
    ("nosuid", &["bind", "nosuid"], &["nosuid"], &["ro"]),
    ("nodev", &["bind", "nodev"], &["nodev"], &["nosuid"]),
    ("noexec", &["bind", "noexec"], &["noexec"], &["nosuid"]),
    ("noatime", &["bind", "noatime"], &["noatime"], &["relatime"]),
    ("nosymfollow", &["bind", "nosymfollow"], &["nosymfollow"], &[]),
    ("rro", &["rbind", "rro"], &["ro"], &[]),
    ("rnosuid", &["rbind", "rnosuid"], &["nosuid"], &[]),
    ("rnodev", &["rbind", "rnodev"], &["nodev"], &[]),
    ("rnoexec", &["rbind", "rnoexec"], &["noexec"], &[]),
    ("rnoatime", &["rbind", "rnoatime"], &["noatime"], &["relatime"]),
    ("rrelatime", &["rbind", "rrelatime"], &["relatime"], &[]),
    ("rstrictatime", &["rbind", "rstrictatime"], &["rw"], &["relatime", "noatime"]),
    ("rnosymfollow", &["rbind", "rnosymfollow"], &["nosymfollow"], &[]),
];

/// An option, on which mount it is tried, and what the mount must then have and lack.
fn options() -> Vec<Case> {
    let mut all: Vec<Case> = Vec::new();
    for (prefix, kind, rows) in [("option", "tmpfs", &TMPFS[..]), ("bind-option", "bind", &BIND[..])] {
        all.extend(rows.iter().map(|(name, options, has, lacks)| {
            let row = move |t: &Test| {
                fs::create_dir(t.path("src"))?;
                let source = if kind == "bind" { t.file("src") } else { "tmpfs".into() };
                let r = t.report(&t.bundle()?.mount(kind, &source, "/m", options))?;
                r.mount("/m")?.has(has)?.lacks(lacks).map(drop)
            };
            let odd = matches!(*name, "rw" | "suid" | "dev" | "exec" | "nosymfollow" | "rnosymfollow")
                || (kind == "bind" && matches!(*name, "rnoatime" | "rstrictatime"));
            let crun = if odd {
                "no option undoes an earlier one; knows no symfollow; r*atime is EINVAL"
            } else {
                ""
            };
            let whole = kind == "bind" && name.starts_with('r') && *name != "ro";
            let needs = [Need::Kernel("attributes of a whole tree", 5, 12)];
            case(format!("mounts/{prefix}-{name}"), row)
                .needs(if whole { &needs } else { &[] })
                .peer("crun", crun)
        }));
    }
    all.push(
        case("mounts/option-defaults-is-nothing", |t| {
            t.report(&t.bundle()?.mount("tmpfs", "tmpfs", "/m", &["defaults", "nosuid"]))?
                .mount("/m")?
                .has(&["nosuid"])?;
            fs::create_dir(t.path("src"))?;
            let b = t.bundle()?.mount("bind", &t.file("src"), "/m", &["bind", "defaults"]);
            t.report(&b)?.mount("/m").map(drop)
        })
        .runc("a1: `defaults` is passed to the file system"),
    );
    all
}
