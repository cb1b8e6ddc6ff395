// SPDX-License-Identifier: Apache-2.0
//! `probe try OP`: one operation, and what the kernel said to it.
//!
//! The answer is `{"op": text, "errno": "ok" or a name, "data": what it gave}`.

#![forbid(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd;
use serde_json::{Value, json};

use super::report::{errno_name, node};
use crate::sys;

/// Performs `op` and tells the outcome.
pub fn attempt(op: &str) -> Value {
    let words: Vec<&str> = op.split_whitespace().collect();
    let (errno, data) = match perform(&words) {
        Ok(data) => ("ok".to_owned(), data),
        Err(errno) => (errno_name(errno), Value::Null),
    };
    json!({ "op": op, "errno": errno, "data": data })
}

type Answer = Result<Value, i32>;

fn perform(words: &[&str]) -> Answer {
    let word = |i: usize| words.get(i).copied().unwrap_or_default();
    let number = |i: usize| parse(word(i));
    let path = Path::new(word(1));
    match word(0) {
        "read" => read(path),
        "write" => write(path, &words.get(2..).unwrap_or_default().join(" ")),
        "open" => plain(fs::File::open(path).map(drop)),
        "create" => plain(OpenOptions::new().write(true).create_new(true).mode(0o666).open(path).map(drop)),
        "mkdir" => plain(fs::DirBuilder::new().mode(0o777).create(path)),
        "rmdir" => plain(fs::remove_dir(path)),
        "unlink" => plain(fs::remove_file(path)),
        "stat" => fs::symlink_metadata(path).map_err(errno_of).map(|_| node(path).unwrap_or_default()),
        "label" => sys::attribute(path, c"security.selinux").map(|label| json!(label)),
        "list" => list(path),
        "chmod" => plain(fs::set_permissions(path, fs::Permissions::from_mode(octal(word(2))))),
        "chown" => plain(std::os::unix::fs::chown(path, Some(number(2) as u32), Some(number(3) as u32))),
        "mknod" => make_node(path, word(2), number(3), number(4)),
        "mount" => linux(mount(Some(word(1)), word(2), Some(word(1)), MsFlags::empty(), None::<&str>)),
        "remount-rw" => linux(mount(None::<&str>, word(1), None::<&str>, rw_flags(), None::<&str>)),
        "umount" => linux(nix::mount::umount(path)),
        "device" => device(word(1), number(2), number(3)),
        "exec" => execute(words),
        "setuid" => linux(unistd::setuid((number(1) as u32).into())),
        "sethostname" => linux(unistd::sethostname(word(1))),
        "chroot" => linux(unistd::chroot(path)),
        "unshare" => linux(unshare(CloneFlags::from_bits_truncate(number(1) as i32))),
        "inject" => sys::push_input(io::stdin().as_fd(), b'x').map(|()| Value::Null),
        "syscall" => {
            let args = std::array::from_fn(|i| number(i + 2));
            sys::syscall(number(1), args).map(|value| json!(value))
        }
        "int80" => match sys::syscall_int80(number(1) as i32) {
            negative @ -4095..0 => Err(-negative),
            value => Ok(json!(value)),
        },
        "eat" => eat(number(1) as usize),
        "fork-many" => fork_many(number(1)),
        "spin" => Ok(json!(spin(number(1)))),
        "write-device" => write_device(path, number(2)),
        _ => Err(libc::ENOTSUP),
    }
}

fn parse(word: &str) -> i64 {
    match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).unwrap_or(0) as i64,
        None => word.parse().unwrap_or(0),
    }
}

fn octal(word: &str) -> u32 {
    u32::from_str_radix(word, 8).unwrap_or(0)
}

fn errno_of(error: io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

fn plain(result: io::Result<()>) -> Answer {
    result.map(|()| Value::Null).map_err(errno_of)
}

fn linux(result: nix::Result<()>) -> Answer {
    result.map(|()| Value::Null).map_err(|errno| errno as i32)
}

fn rw_flags() -> MsFlags {
    MsFlags::MS_REMOUNT | MsFlags::MS_BIND
}

fn read(path: &Path) -> Answer {
    let mut data = vec![0; 65536];
    let mut file = fs::File::open(path).map_err(errno_of)?;
    let mut len = 0;
    while len < data.len() {
        match file.read(&mut data[len..]).map_err(errno_of)? {
            0 => break,
            more => len += more,
        }
    }
    Ok(json!(String::from_utf8_lossy(&data[..len]).trim_end_matches(['\n', '\0'])))
}

fn write(path: &Path, text: &str) -> Answer {
    let mut file = OpenOptions::new().write(true).open(path).map_err(errno_of)?;
    plain(file.write_all(text.as_bytes()))
}

fn list(path: &Path) -> Answer {
    let entries = fs::read_dir(path).map_err(errno_of)?;
    let mut names: Vec<_> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(json!(names))
}

fn make_node(path: &Path, kind: &str, major: i64, minor: i64) -> Answer {
    let kind = match kind {
        "c" => SFlag::S_IFCHR,
        "b" => SFlag::S_IFBLK,
        _ => SFlag::S_IFIFO,
    };
    linux(mknod(path, kind, Mode::from_bits_truncate(0o666), makedev(major as u64, minor as u64)))
}

/// What the kernel says to making such a node, and to opening the one below /nodes to read, to write, and for both.
fn device(kind: &str, major: i64, minor: i64) -> Answer {
    let made = Path::new("/nodes/made");
    let mut all = vec![ok_or_errno(&make_node(made, kind, major, minor))];
    fs::remove_file(made).ok();
    let path = format!("/nodes/{kind}{major}-{minor}");
    for (read, write) in [(true, false), (false, true), (true, true)] {
        let mut options = OpenOptions::new();
        let options = options.read(read).write(write).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        all.push(ok_or_errno(&plain(options.open(&path).map(drop))));
    }
    Ok(json!(all.join(" ")))
}

fn ok_or_errno(answer: &Answer) -> String {
    answer.as_ref().map_or_else(|errno| errno_name(*errno), |_| "ok".to_owned())
}

/// Runs another program: `ok` with its exit code, or why it could not be executed.
fn execute(words: &[&str]) -> Answer {
    let Some(program) = words.get(1) else { return Err(libc::EINVAL) };
    let status = Command::new(program).args(words.get(2..).unwrap_or_default()).status().map_err(errno_of)?;
    Ok(json!(status.code()))
}

/// Touches so many MiB of memory.
fn eat(mebibytes: usize) -> Answer {
    let mut food = vec![0u8; mebibytes << 20];
    food.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    Ok(json!(std::hint::black_box(&food).len() >> 20))
}

/// Keeps a processor busy for so many milliseconds of the wall clock; gives the milliseconds it was given of it.
fn spin(milliseconds: i64) -> i64 {
    let end = Instant::now() + Duration::from_millis(milliseconds as u64);
    while Instant::now() < end {}
    sys::processor_time().as_millis() as i64
}

/// Writes so many KiB to a block device, past the page cache; gives the milliseconds it took.
fn write_device(path: &Path, kibibytes: i64) -> Answer {
    let mut file =
        OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path).map_err(errno_of)?;
    // O_DIRECT wants memory at an address of 512: some part of a block twice as long has one.
    let block = vec![1u8; 65536 + 4096];
    let at = block.as_ptr().align_offset(4096);
    let begin = Instant::now();
    for _ in 0..kibibytes / 64 {
        file.write_all(&block[at..at + 65536]).map_err(errno_of)?;
    }
    Ok(json!(begin.elapsed().as_millis()))
}

/// Starts so many sleeping children, or says what stopped it.
fn fork_many(count: i64) -> Answer {
    for _ in 0..count {
        let this = std::env::args_os().next().unwrap_or_else(|| "/probe".into());
        match Command::new(this).args(["sleep", "100"]).spawn() {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => return Err(Errno::EAGAIN as i32),
            Err(error) => return Err(errno_of(error)),
        }
    }
    Ok(Value::Null)
}
