// SPDX-License-Identifier: Apache-2.0
//! Binds of what lies in the container already: in its root file system, or put there by an earlier mount (config.md,
//! "Mounts": they are made in the order of the list).

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::test::Test;
use crate::harness::user::User;

/// The chapter.
pub fn cases() -> Vec<Case> {
    [earlier(), links(), odd()].into_iter().flatten().collect()
}

/// A volume with a file `inner`, mounted on `/v` by the entry before; below that the image has `v/under`.
fn volume(t: &Test) -> Result<Bundle, Trouble> {
    fs::create_dir_all(t.path("volume/deep"))?;
    fs::write(t.path("volume/inner"), "of the volume")?;
    fs::write(t.path("volume/deep/file"), "deep")?;
    let b = t.bundle()?.dir("v", 0o755)?.file("v/under", "of the image")?;
    Ok(b.mount("bind", &t.file("volume"), "/v", &["bind"]))
}

/// The path on the host of what is at `path` inside.
fn source(b: &Bundle, path: &str) -> String {
    b.rootfs(path).to_string_lossy().into_owned()
}

fn sees_the_volume(t: &Test, b: Bundle) -> Verdict {
    let got = t.expect(b, &[("read /b/inner", "ok"), ("stat /b/under", "ENOENT")])?;
    same("the file", &got[0], "of the volume")
}

fn earlier() -> Vec<Case> {
    vec![
        case("mounts/bind-of-an-earlier-bind", |t| {
            let b = volume(t)?;
            let from = source(&b, "v");
            sees_the_volume(t, b.mount("bind", &from, "/b", &["rbind"]))
        }),
        case("mounts/bind-of-an-earlier-bind-in-a-user-namespace", |t| {
            let b = volume(t)?.dir("b", 0o755)?.user_namespace();
            let from = source(&b, "v");
            sees_the_volume(t, b.mount("bind", &from, "/b", &["rbind"]))
        })
        .crun("opens it on the host in a user namespace"),
        case("mounts/bind-of-an-earlier-bind-without-root", |t| {
            let user = User::new(t)?;
            fs::create_dir(t.path("volume"))?;
            fs::write(t.path("volume/inner"), "of the volume")?;
            let b = user.bundle()?.dir("v", 0o777)?.mount("bind", &t.file("volume"), "/v", &["rbind"]);
            let from = source(&b, "v");
            let b = b.dir("b", 0o777)?.mount("bind", &from, "/b", &["rbind"]);
            let done = user.run(&b.tries(["read /b/inner"]))?;
            let got = t.compare(&done.ok()?.stdout, &[("read /b/inner", "ok")])?;
            same("the file", &got[0], "of the volume")
        }),
        case("mounts/bind-of-a-file-of-an-earlier-bind", |t| {
            let b = volume(t)?;
            let from = source(&b, "v/deep/file");
            let got = t.expect(
                b.mount("bind", &from, "/file", &["bind", "ro"]),
                &[("read /file", "ok"), ("write /file x", "EROFS")],
            )?;
            same("the file", &got[0], "deep")
        }),
        case("mounts/bind-of-a-directory-in-an-earlier-tmpfs", |t| {
            let b = t.bundle()?.dir("t", 0o755)?.mount("tmpfs", "tmpfs", "/t", &["mode=1751"]);
            let from = source(&b, "t");
            let got = t.expect(
                b.mount("bind", &from, "/b", &["bind"]),
                &[("stat /b", "ok"), ("create /b/x", "ok"), ("stat /t/x", "ok")],
            )?;
            same("mode", &got[0]["mode"], "1751")
        }),
        case("mounts/bind-of-the-containers-own-proc", |t| {
            let b = t.bundle()?;
            let from = source(&b, "proc/sys/kernel/pid_max");
            let got = t.expect(b.mount("bind", &from, "/pid_max", &["bind"]), &[("read /pid_max", "ok")])?;
            check!(got[0].as_str().is_some_and(|text| text.trim().parse::<u32>().is_ok()), "{}", got[0]);
            Ok(())
        }),
        case("mounts/bind-of-an-earlier-mount-with-what-is-below", |t| {
            let b = volume(t)?.mount("tmpfs", "tmpfs", "/v/deep", &["mode=1777"]);
            let from = source(&b, "v");
            let whole = b.mount("bind", &from, "/b", &["rbind"]).mount("bind", &from, "/c", &["bind"]);
            let got = t.expect(
                whole,
                &[("stat /b/deep", "ok"), ("stat /c/deep", "ok"), ("read /c/deep/file", "ok")],
            )?;
            same("with what is below", &got[0]["mode"], "1777")?;
            same("without", &got[1]["mode"], "0755")
        }),
        case("mounts/bind-of-what-the-image-has", |t| {
            let b = t.bundle()?.file("data/file", "of the image")?;
            let from = source(&b, "data");
            let got = t.expect(b.mount("bind", &from, "/b", &["bind"]), &[("read /b/file", "ok")])?;
            same("the file", &got[0], "of the image")
        }),
        case("mounts/bind-of-what-is-mounted-later", |t| {
            let b = t.bundle()?.file("v/under", "of the image")?;
            let from = source(&b, "v");
            let b = b.mount("bind", &from, "/b", &["bind"]).mount("tmpfs", "tmpfs", "/v", &[]);
            let got = t.expect(b, &[("read /b/under", "ok")])?;
            same("the file", &got[0], "of the image")
        }),
    ]
}

fn links() -> Vec<Case> {
    vec![
        case("mounts/bind-of-an-earlier-bind-by-a-link-to-the-rootfs", |t| {
            let b = volume(t)?;
            symlink(b.rootfs(""), t.path("link"))?;
            sees_the_volume(t, b.mount("bind", &t.file("link/v"), "/b", &["bind"]))
        }),
        case("mounts/bind-of-an-earlier-bind-by-a-link-at-the-end", |t| {
            let b = volume(t)?;
            symlink(b.rootfs("v"), t.path("link"))?;
            sees_the_volume(t, b.mount("bind", &t.file("link"), "/b", &["bind"]))
        }),
        case("mounts/bind-of-an-earlier-bind-by-a-link-inside", |t| {
            let b = volume(t)?.link("w", "v")?;
            let from = source(&b, "w");
            sees_the_volume(t, b.mount("bind", &from, "/b", &["bind"]))
        }),
        case("mounts/bind-source-by-a-relative-path", |t| {
            let b = volume(t)?;
            sees_the_volume(t, b.mount("bind", "rootfs/v", "/b", &["bind"]))
        }),
        // The image's links lead nowhere but inside.
        case("attack/bind-source-in-the-rootfs-is-a-link-out", |t| {
            fs::create_dir_all(t.path("elsewhere"))?;
            fs::write(t.path("elsewhere/secret"), "secret")?;
            let b = t.bundle()?.link("out", &t.file("elsewhere"))?;
            let from = source(&b, "out");
            let done = t.run(&b.mount("bind", &from, "/b", &["bind"]).tries(["read /b/secret"]))?;
            check!(!done.stdout.contains("secret\""), "{done}");
            done.refuses(&["no such file or directory"]).map(drop)
        })
        .both("follow the image's link on the host"),
    ]
}

fn odd() -> Vec<Case> {
    vec![
        case("mounts/absent-bind-source-inside", |t| {
            let b = t.bundle()?;
            let from = source(&b, "not/there");
            let done = t.run(&b.mount("bind", &from, "/b", &["bind"]))?;
            done.refuses(&["not/there", "no such file or directory"]).map(drop)
        }),
        case("mounts/a-locked-flag-of-an-inner-bind-names-its-mount", |t| {
            let b = t.bundle()?.dir("v", 0o755)?.dir("b", 0o755)?.user_namespace();
            let from = source(&b, "v");
            // It is set before the mount has a place: the last one that had is another.
            let done = t.run(&b.mount("bind", &from, "/b", &["bind", "nosuid", "nodiratime"]))?;
            done.refuses(&["/b", "atime"])?;
            check!(!done.stderr.contains("(/sys") && !done.stderr.contains("(/dev"), "{done}");
            Ok(())
        })
        .crun("does not lock flags"),
        case("mounts/idmapped-bind-of-an-earlier-mount", |t| {
            let b = volume(t)?;
            let from = source(&b, "v");
            let ids = json!([{"containerID": 0, "hostID": 1000, "size": 10}]);
            let mount = json!({"destination": "/b", "type": "bind", "source": from, "options": ["bind"],
                "uidMappings": ids, "gidMappings": ids});
            let done = t.run(&b.push("/mounts", mount).tries(["read /b/inner"]))?;
            // Either it works, or one line says why not; never what lies under the mount.
            if done.code == 0 {
                check!(done.stdout.contains("of the volume"), "{done}");
                return Ok(());
            }
            done.refuses(&["/mounts/5/source|/b|idmap|id-map"]).map(drop)
        })
        .crun("binds what lies under the mount"),
    ]
}
