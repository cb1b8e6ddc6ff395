// SPDX-License-Identifier: Apache-2.0
//! Without root: what is mounted, and what must not become possible by it.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::mount::MsFlags;
use serde_json::json;

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::host::Need;
use crate::harness::test::Test;
use crate::harness::user::User;

/// The chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("rootless/devices-are-the-hosts", |t| {
            let table = [
                ("write /dev/null x", "ok"),
                ("read /dev/zero", "ok"),
                ("open /dev/urandom", "ok"),
                ("mknod /dev/mine c 1 3", "EPERM"),
                ("umount /dev/null", "EPERM|EINVAL"),
            ];
            expect(t, |b| b, &table)
        }),
        case("rootless/what-the-user-may-not-read-stays-so", |t| {
            let u = User::new(t)?;
            let secret = t.path("secret");
            fs::write(&secret, "root's")?;
            fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
            let b = u.bundle()?.mount("bind", &secret.to_string_lossy(), "/tmp/secret", &["bind"]);
            let done = u.run(&b.tries(["read /tmp/secret", "chmod /tmp/secret 777"]))?;
            t.compare(
                &done.ok()?.stdout,
                &[("read /tmp/secret", "EACCES"), ("chmod /tmp/secret 777", "EPERM")],
            )
            .map(drop)
        }),
        case("rootless/source-behind-a-closed-directory-is-refused", |t| {
            let u = User::new(t)?;
            let closed = t.path("closed");
            fs::create_dir_all(closed.join("in"))?;
            fs::set_permissions(&closed, fs::Permissions::from_mode(0o700))?;
            let source = closed.join("in").to_string_lossy().into_owned();
            let b = u.bundle()?.dir("/m", 0o755)?.mount("bind", &source, "/m", &["rbind"]);
            u.run(&b)?.refuses(&["permission denied"])?;
            Ok(())
        }),
        case("rootless/locked-flags-stay", |t| {
            let u = User::new(t)?;
            let b = locked(t, &u, &["rbind", "ro"])?;
            u.report(&b)?.mount("/m")?.has(&["ro", "nosuid", "nodev", "noexec"])?;
            Ok(())
        }),
        case("rootless/locked-flags-stay-within-unshare", |t| {
            let u = User::new(t)?.behind("unshare -Urm");
            let b = locked(t, &u, &["rbind", "ro"])?.without_namespace("user").remove("/linux/uidMappings");
            u.report(&b.remove("/linux/gidMappings"))?
                .mount("/m")?
                .has(&["ro", "nosuid", "nodev", "noexec"])?;
            Ok(())
        })
        .needs(&[Need::File("/usr/bin/unshare")]),
        case("rootless/locked-flags-cannot-be-cleared", |t| {
            let u = User::new(t)?;
            u.run(&locked(t, &u, &["rbind", "exec"])?)?.refuses(&["operation not permitted"])?;
            Ok(())
        })
        .crun("keeps the flag and says nothing"),
        case("rootless/hosts-sysfs-is-read-only", |t| {
            let u = User::new(t)?;
            let b = u.bundle()?.without_namespace("cgroup");
            let ops = ["mkdir /sys/fs/cgroup/x", "write /sys/fs/cgroup/cgroup.procs 0", "mkdir /sys/x"];
            let done = u.run(&b.tries(ops))?;
            let wants = ["EROFS|EACCES|EPERM", "EROFS|EACCES|ENOENT", "EROFS|EACCES|EPERM"];
            t.compare(&done.ok()?.stdout, &ops.into_iter().zip(wants).collect::<Vec<_>>()).map(drop)
        })
        .runc("on v1: leaves its tmpfs writable"),
        case("rootless/sysfs-type-without-a-network-of-ones-own", |t| {
            let u = User::new(t)?;
            let b = u.bundle()?.without_mount("/sys").without_mount("/sys/fs/cgroup");
            let b = b.mount("sysfs", "sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]);
            let r = u.report(&b)?;
            r.mount("/sys")?.fstype("sysfs")?.has(&["ro"])?;
            Ok(())
        })
        .runc("refuses to mount it")
        .crun("M11: it is not read-only"),
        case("rootless/sysfs-and-sysctl-of-ones-own-network", |t| {
            let u = User::new(t)?;
            let b = u.bundle()?.namespace("network", None).without_mount("/sys");
            let b = b.without_mount("/sys/fs/cgroup").mount("sysfs", "sysfs", "/sys", &["nosuid", "ro"]);
            let b = b.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
            let done = u.run(&b.tries(["read /proc/sys/net/ipv4/ip_forward"]))?;
            let data = t.compare(&done.ok()?.stdout, &[("read /proc/sys/net/ipv4/ip_forward", "ok")])?;
            same("ip_forward", &data[0], "1")
        }),
        case("rootless/devpts-without-the-group-tty", |t| {
            let u = User::new(t)?;
            let b = u.bundle()?.without_mount("/dev/pts");
            let b = b.mount(
                "devpts",
                "devpts",
                "/dev/pts",
                &["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            );
            u.report(&b)?.mount("/dev/pts")?.fstype("devpts")?;
            Ok(())
        })
        .both("refuses a gid that is not mapped"),
        case("rootless/an-unmapped-owner-of-a-tmpfs-is-refused", |t| {
            let u = User::new(t)?;
            let b = u.bundle()?.mount("tmpfs", "tmpfs", "/tmp", &["uid=1000"]);
            u.run(&b)?.refuses(&["uid=1000"])?;
            Ok(())
        })
        .crun("does not say which option"),
        case("rootless/masks-and-read-only-paths-hold", |t| {
            let table = [
                ("read /proc/keys", "ok"),
                ("write /proc/sys/kernel/domainname x", "EROFS|EACCES"),
                ("list /sys/firmware", "ok|ENOENT"),
            ];
            let u = User::new(t)?;
            let b = u.bundle()?.tries(table.iter().map(|(op, _)| *op));
            let data = t.compare(&u.run(&b)?.ok()?.stdout, &table)?;
            check!(data[0] == "", "/proc/keys is readable");
            check!(data[2] == json!([]) || data[2].is_null(), "/sys/firmware holds {}", data[2]);
            Ok(())
        }),
        case("rootless/id-mapped-mounts-are-refused", |t| {
            let u = User::new(t)?;
            let source = t.path("mapped");
            fs::create_dir(&source)?;
            let b = u.bundle()?.dir("/m", 0o755)?.mount(
                "bind",
                &source.to_string_lossy(),
                "/m",
                &["bind", "idmap"],
            );
            check!(u.run(&b)?.code != 0, "it was mounted, with whose ids?");
            Ok(())
        }),
    ]
}

/// A bundle that binds a tmpfs whose flags the host has set.
fn locked(t: &Test, u: &User, options: &[&str]) -> Result<Bundle, Trouble> {
    let dir = t.path("locked");
    fs::create_dir(&dir)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    t.mount("tmpfs", "tmpfs", &dir, flags, "mode=777")?;
    Ok(u.bundle()?.dir("/m", 0o755)?.mount("bind", &dir.to_string_lossy(), "/m", options))
}

/// Runs a user's bundle with these operations.
fn expect(t: &Test, change: impl Fn(Bundle) -> Bundle, table: &[(&str, &str)]) -> Verdict {
    let u = User::new(t)?;
    let b = change(u.bundle()?).tries(table.iter().map(|(op, _)| *op));
    t.compare(&u.run(&b)?.ok()?.stdout, table).map(drop)
}
