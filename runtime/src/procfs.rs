// SPDX-License-Identifier: Apache-2.0
//! The tables of procfs that more than one room reads: mounts, and what a process is doing.

#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Context, Result};

/// One line of a mount table, as it stands there (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, Copy)]
pub struct MountinfoEntry<'a> {
    /// Its number, which is another's once it is gone.
    pub number: u64,
    /// Major and minor number of its file system: `0:45`.
    pub device: &'a str,
    root: &'a str,
    point: &'a str,
    /// The options of the mount alone: `ro,nosuid`.
    pub(crate) attributes: &'a str,
    /// The type of the file system.
    pub fstype: &'a str,
    /// Its source.
    pub source: &'a str,
    /// The options of its superblock.
    pub options: &'a str,
}

impl<'a> MountinfoEntry<'a> {
    /// `id parent dev ROOT POINT options [tags…] - TYPE SOURCE SUPEROPTIONS`.
    fn parse(line: &'a str) -> Option<MountinfoEntry<'a>> {
        let (mount, superblock) = line.split_once(" - ")?;
        let mut mount = mount.split(' ');
        let number = mount.next()?.parse().ok()?;
        let mut mount = mount.skip(1);
        let mut superblock = superblock.split(' ');
        Some(MountinfoEntry {
            number,
            device: mount.next()?,
            root: mount.next()?,
            point: mount.next()?,
            attributes: mount.next()?,
            fstype: superblock.next()?,
            source: superblock.next().unwrap_or_default(),
            options: superblock.next().unwrap_or_default(),
        })
    }

    /// What of the file system is mounted.
    #[must_use]
    pub(crate) fn root(&self) -> String {
        unescape(self.root)
    }

    /// Where.
    #[must_use]
    pub fn point(&self) -> String {
        unescape(self.point)
    }
}

/// The mounts of a table, in the order in which they were mounted.
pub fn mounts(table: &str) -> impl Iterator<Item = MountinfoEntry<'_>> {
    table.lines().filter_map(MountinfoEntry::parse)
}

/// The lines of /proc/PID/cgroup: the controllers of a hierarchy as they stand there (none: of cgroup2's), and the group in it
/// (cgroups(7)).
pub(crate) fn groups(table: &str) -> impl Iterator<Item = (&str, &str)> {
    table.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'))
}

/// Blanks, tabs, newlines and backslashes are written as three octal digits.
fn unescape(text: &str) -> String {
    if !text.contains('\\') {
        return text.to_owned();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let byte =
            octal.and_then(|d| std::str::from_utf8(d).ok()).and_then(|d| u8::from_str_radix(d, 8).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[3..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The boot that this is: inode numbers and start times hold within one.
///
/// # Errors
/// Without a procfs.
pub fn boot_id() -> Result<&'static str> {
    static ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = ID.get() {
        return Ok(id);
    }
    let path = "/proc/sys/kernel/random/boot_id";
    let call = || format!("read({path})");
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).call(call)?;
    let mut bytes = [0; 64];
    let length = rustix::io::read(&file, &mut bytes).call(call)?;
    let id = String::from_utf8_lossy(bytes.get(..length).unwrap_or_default()).trim_end().to_owned();
    Ok(ID.get_or_init(|| id))
}

/// Which kernel files end with a read that brings little.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShortRead {
    /// It may be anywhere in the file: only an empty one is the end (a mount table comes line by line).
    GoesOn,
    /// It is the end: the file comes in one piece or in pieces of a page or so. That saves a call for most.
    IsTheEnd,
}

/// Reads a file of the kernel's whole, without the stat that std makes first.
///
/// # Errors
/// Those of read(2).
pub(crate) fn read_whole(file: &OwnedFd, short: ShortRead) -> std::result::Result<String, Errno> {
    const LITTLE: usize = 512;
    // No read of such a file brings more (seq_file's buffer), and memory that is asked for comes new, a page fault each.
    let mut page = [0; 4096];
    let mut bytes = Vec::new();
    loop {
        match rustix::io::read(file, &mut page) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(page.get(..n).unwrap_or_default()),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        }
        if short == ShortRead::IsTheEnd && bytes.len() < LITTLE {
            break;
        }
    }
    Ok(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

/// Reads a file of procfs whole, in four calls. std makes a dozen of it: the files tell no size, so it feels its way from 32 bytes up.
///
/// # Errors
/// ENOENT when there is none; ESRCH when the process is gone meanwhile.
pub fn read(path: &str) -> Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty());
    file.and_then(|file| read_whole(&file, ShortRead::GoesOn)).call(|| format!("read({path})"))
}

/// What /proc/PID/stat says (proc_pid_stat(5)). Whoever reads it by a pid holds that pid by a pidfd.
#[derive(Debug)]
pub struct Stat(String);

impl Stat {
    /// Reads it.
    ///
    /// # Errors
    /// ENOENT when the process is gone.
    pub fn of(pid: i32) -> Result<Stat> {
        read(&format!("/proc/{pid}/stat")).map(Stat)
    }

    /// The name, field 2, which may hold anything, also blanks and parentheses.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        let head = self.0.rsplit_once(')').map_or("", |(head, _)| head);
        head.split_once('(').map_or("", |(_, name)| name)
    }

    /// The field of this number, counted as in the manual page, from 3 on.
    #[must_use]
    pub fn field<T: FromStr>(&self, number: usize) -> Option<T> {
        let (_, rest) = self.0.rsplit_once(')')?;
        rest.split_ascii_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
    }
}

impl From<String> for Stat {
    fn from(text: String) -> Stat {
        Stat(text)
    }
}

/// Whether it waits in the kernel until what it has begun to make executes something (vfork(2), CLONE_VFORK of clone(2); clone3(2) is
/// taken for it, too: its flags lie in the process's memory). From /proc/PID/syscall, of a task that is stopped or frozen.
pub(crate) fn waits_for_its_child(pid: i32) -> bool {
    read(&format!("/proc/{pid}/syscall")).is_ok_and(|text| is_vfork(&text))
}

fn is_vfork(syscall: &str) -> bool {
    let mut words = syscall.split_whitespace();
    let number = words.next().and_then(|word| word.parse::<i64>().ok());
    let flags = words.next().and_then(|word| word.strip_prefix("0x"));
    let flags = flags.and_then(|word| u64::from_str_radix(word, 16).ok()).unwrap_or_default();
    match number {
        #[cfg(target_arch = "x86_64")]
        Some(libc::SYS_vfork) => true,
        Some(libc::SYS_clone3) => true,
        Some(libc::SYS_clone) => flags & libc::CLONE_VFORK as u64 != 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vfork_is_known_by_its_number_and_flags() {
        let line = |number: libc::c_long, flags: u64| {
            format!("{number} {flags:#x} 0x0 0x0 0x0 0x0 0x0 0x7ffc 0x7f01\n")
        };
        let vfork = libc::CLONE_VFORK as u64;
        assert!(is_vfork(&line(libc::SYS_clone, vfork | 0x111)) && is_vfork(&line(libc::SYS_clone3, 0x7ffd)));
        assert!(!is_vfork(&line(libc::SYS_clone, 0x11)) && !is_vfork(&line(libc::SYS_wait4, vfork)));
        assert!(!is_vfork("running\n") && !is_vfork("-1 0x7ffc 0x7f01\n") && !is_vfork(""));
    }

    #[test]
    fn mounts_are_told_apart_and_their_names_are_plain() {
        let table = "1 0 0:1 / / rw - a b c\nrubbish\n2 1 0:2 /r\\011 /a\\040b rw master:1 - x y\n3 2 0:3 / /c\\134 rw - z\n";
        let all: Vec<MountinfoEntry> = mounts(table).collect();
        let points: Vec<String> = all.iter().map(MountinfoEntry::point).collect();
        assert_eq!(points, ["/", "/a b", "/c\\"]);
        assert_eq!(all[1].root(), "/r\t");
        assert_eq!((all[0].fstype, all[0].source, all[0].options), ("a", "b", "c"));
        assert_eq!((all[1].source, all[1].options, all[2].source), ("y", "", ""));
    }

    #[test]
    fn a_name_may_hold_anything() {
        let stat = Stat::from("7 (a) S 9 (b) Z 1 2 x\n".to_owned());
        assert_eq!(
            (stat.name(), stat.field::<char>(3), stat.field::<i32>(4)),
            ("a) S 9 (b", Some('Z'), Some(1))
        );
        assert_eq!((stat.field::<i32>(6), stat.field::<i32>(99), stat.field::<i32>(2)), (None, None, None));
        assert_eq!(
            (Stat::from(String::new()).name(), Stat::from("7 (a".to_owned()).field::<i32>(3)),
            ("", None)
        );
    }
}
