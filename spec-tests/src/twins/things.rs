// SPDX-License-Identifier: Apache-2.0
//! What a plan wants to be there before: directories, files, links, mounts and nodes beside the rootfs and in it.

#![forbid(unsafe_code)]

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};

use nix::mount::MsFlags;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::harness::bundle::Bundle;
use crate::harness::case::{Trouble, Verdict};
use crate::harness::console::Receiver;
use crate::harness::test::Test;
use crate::sys;

/// Makes one thing (see `Plan::things`); paths are relative to the bundle.
pub fn make(t: &Test, bundle: &Bundle, thing: &str) -> Verdict {
    let thing = super::perform::fill(t, bundle, thing);
    let words: Vec<&str> = thing.split(' ').collect();
    let word = |i: usize| words.get(i).copied().unwrap_or_default();
    let path = bundle.dir.join(word(1));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match word(0) {
        "dir" => {
            fs::create_dir_all(&path)?;
            fs::set_permissions(
                &path,
                fs::Permissions::from_mode(u32::from_str_radix(word(2), 8).unwrap_or(0o755)),
            )?;
        }
        "file" => fs::write(&path, words.get(2..).unwrap_or_default().join(" "))?,
        "link" => {
            // Another dimension may have put something there.
            fs::remove_file(&path).or_else(|_| fs::remove_dir(&path)).ok();
            symlink(word(2), &path)?;
        }
        "node" => {
            let kind = if word(2) == "b" { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
            let number = |i| word(i).parse().unwrap_or(0);
            mknod(&path, kind, Mode::from_bits_truncate(0o666), makedev(number(3), number(4)))?;
        }
        "mount" => {
            let (source, at) = (word(2), bundle.dir.join(word(3)));
            fs::create_dir_all(&at)?;
            let flags = word(4).split(',').fold(MsFlags::empty(), |all, name| all | flag(name));
            match word(1) {
                "bind" => {
                    t.mount("", source, &at, MsFlags::MS_BIND | MsFlags::MS_REC, "")?;
                    t.mount("", source, &at, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags, "")?;
                }
                kind => t.mount(kind, source, &at, flags, "")?,
            }
        }
        "group" => group(t, word(1), word(2) == "frozen")?,
        "agent" => agent(&path)?,
        _ => return Err(Trouble::Fail(format!("no such thing: {thing}"))),
    }
    Ok(())
}

/// A group of this path in every hierarchy, until the performance is over.
fn group(t: &Test, path: &str, frozen: bool) -> Verdict {
    for top in t.host.mounted_hierarchies() {
        let dir = top.join(path);
        if fs::create_dir_all(&dir).is_err() {
            continue;
        }
        if frozen {
            fs::write(dir.join("cgroup.freeze"), "1").ok();
            fs::write(dir.join("freezer.state"), "FROZEN").ok();
        }
        let first = path.split('/').next().unwrap_or(path);
        let (dir, last) = (top.join(path), top.join(first));
        t.at_end(move || {
            fs::write(dir.join("cgroup.freeze"), "0").ok();
            fs::write(dir.join("freezer.state"), "THAWED").ok();
            dir.ancestors()
                .take_while(|above| above.starts_with(&last))
                .for_each(|above| _ = fs::remove_dir(above));
        });
    }
    Ok(())
}

/// Somebody who is asked through seccomp, and answers every call with ENOTSUP.
fn agent(path: &std::path::Path) -> Verdict {
    let receiver = Receiver::listen(path)?;
    std::thread::spawn(move || {
        while let Ok(delivery) = receiver.receive() {
            std::thread::spawn(move || {
                for listener in &delivery.fds {
                    while let Ok(request) = sys::seccomp_receive(listener.as_fd()) {
                        sys::seccomp_answer(listener.as_fd(), request.id, 0, libc::ENOTSUP).ok();
                    }
                }
            });
        }
    });
    Ok(())
}

fn flag(name: &str) -> MsFlags {
    match name {
        "ro" => MsFlags::MS_RDONLY,
        "nosuid" => MsFlags::MS_NOSUID,
        "nodev" => MsFlags::MS_NODEV,
        "noexec" => MsFlags::MS_NOEXEC,
        "noatime" => MsFlags::MS_NOATIME,
        "nodiratime" => MsFlags::MS_NODIRATIME,
        _ => MsFlags::empty(),
    }
}
