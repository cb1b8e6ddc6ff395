// SPDX-License-Identifier: Apache-2.0
//! The rows of config.md's table of mount options that take something back or that few configurations use, and crun's
//! options about symbolic links. The common ones are in `mounts`.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{chown, symlink};

use nix::mount::MsFlags;
use serde_json::json;

use crate::harness::case::{Case, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::test::Test;

/// The chapter.
pub fn cases() -> Vec<Case> {
    let rows = NEW.iter().map(of_new).chain(BOUND.iter().map(of_bound));
    rows.chain(TREE.iter().map(of_tree)).chain(others()).chain(links()).chain(mapped()).collect()
}

type Row = (&'static str, &'static [&'static str], &'static [&'static str], &'static [&'static str]);

/// On a new tmpfs: the options, what the mount then has, and what it lacks.
const NEW: [Row; 14] = [
    ("async", &["sync", "async"], &["rw"], &["sync"]),
    ("diratime", &["nodiratime", "diratime"], &["rw"], &["nodiratime"]),
    ("atime", &["noatime", "atime"], &["relatime"], &["noatime"]),
    ("norelatime", &["norelatime"], &["rw"], &["noatime"]),
    ("nostrictatime", &["strictatime", "nostrictatime"], &["relatime"], &["noatime"]),
    ("symfollow", &["nosymfollow", "symfollow"], &["rw"], &["nosymfollow"]),
    ("lazytime", &["lazytime"], &["lazytime"], &[]),
    ("nolazytime", &["lazytime", "nolazytime"], &["rw"], &["lazytime"]),
    ("mand", &["mand"], &["rw"], &[]),
    ("nomand", &["nomand"], &["rw"], &["mand"]),
    ("silent", &["silent"], &["rw"], &[]),
    ("loud", &["loud"], &["rw"], &[]),
    ("iversion", &["iversion"], &["rw"], &[]),
    ("noiversion", &["noiversion"], &["rw"], &[]),
];

/// On a bind of a mount that has every attribute.
const BOUND: [Row; 6] = [
    ("rw", &["bind", "rw"], &["rw"], &["ro"]),
    ("suid", &["bind", "suid"], &[], &["nosuid"]),
    ("dev", &["bind", "dev"], &[], &["nodev"]),
    ("exec", &["bind", "exec"], &[], &["noexec"]),
    ("diratime", &["bind", "diratime"], &[], &["nodiratime"]),
    ("relatime", &["bind", "relatime"], &["relatime"], &["noatime"]),
];

/// The same, and on a mount below it.
const TREE: [Row; 9] = [
    ("rrw", &["rbind", "rrw"], &[], &["ro"]),
    ("rsuid", &["rbind", "rsuid"], &[], &["nosuid"]),
    ("rdev", &["rbind", "rdev"], &[], &["nodev"]),
    ("rexec", &["rbind", "rexec"], &[], &["noexec"]),
    ("rdiratime", &["rbind", "rdiratime"], &[], &["nodiratime"]),
    ("ratime", &["rbind", "ratime"], &["relatime"], &["noatime"]),
    ("rnodiratime", &["rbind", "rnodiratime"], &["nodiratime"], &[]),
    ("rnostrictatime", &["rbind", "rstrictatime", "rnostrictatime"], &["relatime"], &["noatime"]),
    ("rsymfollow", &["rbind", "rsymfollow"], &[], &["nosymfollow"]),
];

fn of_new((name, options, has, lacks): &'static Row) -> Case {
    case(format!("mounts/option-{name}"), move |t: &Test| {
        let r = t.report(&t.bundle()?.mount("tmpfs", "tmpfs", "/m", options))?;
        r.mount("/m")?.has(has)?.lacks(lacks).map(drop)
    })
    .peer(
        "crun",
        match *name {
            "diratime" | "atime" | "nostrictatime" => "no option undoes an earlier one",
            "symfollow" | "silent" | "loud" | "iversion" | "noiversion" => "M2: passed to the file system",
            _ => "",
        },
    )
}

/// `src` and `src/sub` with every attribute.
fn with_attributes(t: &Test) -> Verdict {
    let most = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let all =
        most | MsFlags::MS_NOATIME | MsFlags::MS_NODIRATIME | MsFlags::from_bits_retain(libc::MS_NOSYMFOLLOW);
    fs::create_dir(t.path("src"))?;
    t.mount("tmpfs", "tmpfs", &t.path("src"), all, "")?;
    fs::create_dir(t.path("src/sub"))?;
    t.mount("tmpfs", "tmpfs", &t.path("src/sub"), all, "")?;
    // A remount of the mounts alone, whose file systems stay writable.
    for dir in ["src/sub", "src"] {
        t.mount("", "", &t.path(dir), all | MsFlags::MS_RDONLY | MsFlags::MS_REMOUNT | MsFlags::MS_BIND, "")?;
    }
    Ok(())
}

fn of_bound((name, options, has, lacks): &'static Row) -> Case {
    case(format!("mounts/bind-option-{name}"), move |t: &Test| {
        with_attributes(t)?;
        let r = t.report(&t.bundle()?.mount("bind", &t.file("src"), "/m", options))?;
        r.mount("/m")?.has(has)?.lacks(lacks).map(drop)
    })
    .peer("runc", if *name == "diratime" { "the option does nothing" } else { "" })
    .peer("crun", if *name == "diratime" { "the option does nothing" } else { "" })
}

fn of_tree((name, options, has, lacks): &'static Row) -> Case {
    case(format!("mounts/bind-option-{name}"), move |t: &Test| {
        with_attributes(t)?;
        let r = t.report(&t.bundle()?.mount("bind", &t.file("src"), "/m", options))?;
        r.mount("/m")?.has(has)?.lacks(lacks)?;
        r.mount("/m/sub")?.has(has)?.lacks(lacks).map(drop)
    })
    .needs(&[Need::Kernel("attributes of a whole tree", 5, 12)])
    .peer(
        "crun",
        match *name {
            "rdiratime" | "ratime" | "rnodiratime" | "rnostrictatime" => "r*atime is EINVAL",
            "rsymfollow" => "knows no symfollow",
            _ => "",
        },
    )
}

fn others() -> Vec<Case> {
    vec![
        case("mounts/bind-options-leave-submounts-alone", |t| {
            with_attributes(t)?;
            let b = t.bundle()?.mount("bind", &t.file("src"), "/m", &["rbind", "rw", "dev", "rexec"]);
            let r = t.report(&b)?;
            r.mount("/m")?.has(&["rw", "noatime"])?.lacks(&["nosuid", "nodev", "noexec"])?;
            r.mount("/m/sub")?.has(&["ro", "nosuid", "nodev", "noatime"])?.lacks(&["noexec"]).map(drop)
        })
        .needs(&[Need::Kernel("attributes of a whole tree", 5, 12)]),
        case("mounts/propagation-runbindable", |t| {
            fs::create_dir_all(t.path("src/sub"))?;
            t.mount("tmpfs", "tmpfs", &t.path("src/sub"), MsFlags::empty(), "")?;
            let r = t.report(&t.bundle()?.mount("bind", &t.file("src"), "/m", &["rbind", "runbindable"]))?;
            r.mount("/m")?.propagates(&["unbindable"])?;
            r.mount("/m/sub")?.propagates(&["unbindable"])
        })
        .crun("leaves it private"),
        case("mounts/remount-of-an-earlier-one", |t| {
            let again = json!({"destination": "/m", "type": "none", "options": ["remount", "ro", "nosuid"]});
            let b = t.bundle()?.mount("tmpfs", "tmpfs", "/m", &["nodev"]).push("/mounts", again);
            t.report(&b)?.mount("/m")?.has(&["ro", "nosuid"]).map(drop)
        }),
    ]
}

fn links() -> Vec<Case> {
    const RUNC: &str = "M14: the option is crun's";
    vec![
        case("mounts/src-nofollow", |t| {
            symlink("elsewhere/x", t.path("link"))?;
            let b = t.bundle()?.mount("bind", &t.file("link"), "/bound", &["bind", "src-nofollow"]);
            let got = t.expect(b, &[("stat /bound", "ok"), ("read /proc/self/mounts", "ok")])?;
            same("kind", &got[0]["kind"], "l")?;
            same("target", &got[0]["target"], "elsewhere/x")?;
            same("it is a mount", got[1].as_str().is_some_and(|table| table.contains(" /bound ")), true)
        })
        .runc(RUNC)
        .crun("looks for what it points at"),
        case("mounts/src-nofollow-of-a-file", |t| {
            fs::write(t.path("file"), "text")?;
            let b = t.bundle()?.mount("bind", &t.file("file"), "/bound", &["bind", "src-nofollow"]);
            same("the file", &t.expect(b, &[("read /bound", "ok")])?[0], "text")
        })
        .runc(RUNC),
        case("mounts/dest-nofollow", |t| {
            fs::write(t.path("file"), "covers")?;
            let b = t.bundle()?.file("pointed-at", "stays")?.link("over", "pointed-at")?;
            let b = b.mount("bind", &t.file("file"), "/over", &["bind", "dest-nofollow"]);
            let got = t.expect(b, &[("read /over", "ok"), ("read /pointed-at", "ok")])?;
            same("over the link", &got[0], "covers")?;
            same("what it points at", &got[1], "stays")
        })
        .runc(RUNC),
    ]
}

fn mapped() -> Vec<Case> {
    let of = |name: &str, option: &'static str, below: u32| {
        case(format!("userns/mount-{name}"), move |t: &Test| {
            fs::create_dir_all(t.path("src/sub"))?;
            t.mount("tmpfs", "tmpfs", &t.path("src/sub"), MsFlags::empty(), "")?;
            for file in ["src/file", "src/sub/file"] {
                fs::write(t.path(file), "x")?;
                chown(t.path(file), Some(1000), Some(1000))?;
            }
            let map = json!([{"containerID": 1000, "hostID": 2000, "size": 1}]);
            let b = t.bundle()?.push(
                "/mounts",
                json!({
                    "type": "bind", "source": t.file("src"), "destination": "/m", "options": ["rbind", option],
                    "uidMappings": map, "gidMappings": map
                }),
            );
            let got = t.expect(b, &[("stat /m/file", "ok"), ("stat /m/sub/file", "ok")])?;
            same("owner", (&got[0]["uid"], &got[0]["gid"]), (&json!(2000), &json!(2000)))?;
            same("owner below", (&got[1]["uid"], &got[1]["gid"]), (&json!(below), &json!(below)))
        })
        // tmpfs can be mapped since then.
        .needs(&[Need::Kernel("an id-mapped tmpfs", 6, 3)])
    };
    vec![of("ridmap-is-for-the-tree", "ridmap", 2000), of("idmap-is-for-the-top", "idmap", 1000)]
}
