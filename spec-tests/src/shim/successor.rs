// SPDX-License-Identifier: Apache-2.0
//! Programs that a shim is told to go on as, and that are none, or are too old, or do not keep their word: this binary, under
//! a shim's words. Which of them it is stands in the environment that the shim was started with.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Which program it is.
pub const KIND: &str = "SPEC_TESTS_SUCCESSOR";
/// The shim that it executes.
pub const SHIM: &str = "SPEC_TESTS_SHIM";

/// Where the version stands in a hand-over, where the number of descriptors, where their list begins.
const VERSION: usize = 8;
const COUNT: usize = 20;
const LIST: usize = 40;

/// Whether a shim has executed us.
pub fn is_meant(args: &[String]) -> bool {
    std::env::var_os(KIND).is_some() && args.iter().any(|arg| arg == "upgrade-check" || arg == "take-over")
}

/// Does what the successor of that kind does.
pub fn main(args: &[String]) -> ExitCode {
    let kind = std::env::var(KIND).unwrap_or_default();
    let checked = args.iter().any(|arg| arg == "upgrade-check");
    match (kind.as_str(), checked) {
        ("older", true) => {
            eprintln!("containerd-shim-corten-v2 is executed by containerd: start, delete, -info or -v");
            return ExitCode::from(2);
        }
        ("silent", true) => {
            std::thread::sleep(std::time::Duration::from_secs(60));
            return ExitCode::FAILURE;
        }
        ("killed", true) => std::process::abort(),
        ("something-else", true) => println!("hello"),
        (_, true) => println!("corten: takes over 1 to 99, writes 99: none"),
        (kind, false) => {
            eprintln!("{:?}", go_on(kind, args));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Hands the shim another memfd than it was handed. Returns what went wrong.
fn go_on(kind: &str, args: &[String]) -> std::io::Result<ExitCode> {
    let at = args.iter().position(|arg| arg == "take-over").unwrap_or_default();
    let mut bytes = std::fs::read(format!("/proc/self/fd/{}", args[at + 1]))?;
    let word = |bytes: &[u8], at: usize| {
        u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    };
    match kind {
        "newer" => bytes[VERSION] = 99,
        "damaged-state" => {
            let state = LIST + 4 * word(&bytes, COUNT) as usize;
            bytes[state] = b'x';
        }
        // What an exec is to run: found out last, when its container's init has been taken over.
        "damaged-exec" => {
            let pieces = LIST + 4 * word(&bytes, COUNT) as usize + word(&bytes, COUNT + 4) as usize;
            let name = b"\"args\"";
            let found = bytes[pieces..].windows(name.len()).position(|window| window == name);
            bytes[pieces + found.unwrap_or_default()] = b'x';
        }
        // One that is not open.
        "missing-descriptor" => bytes[LIST..LIST + 4].copy_from_slice(&99_999u32.to_le_bytes()),
        // The shim finds its listening socket to be something else, when others have been taken over already.
        "wrong-descriptor" => {
            let last = word(&bytes, COUNT) - 1;
            let memfd = word(&bytes, LIST + 4 * last as usize);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let first = text.find("\"socket\":").map(|at| at + 9).unwrap_or_default();
            let digit = text[first..].bytes().next().unwrap_or_default();
            let place = usize::from(digit - b'0');
            bytes[LIST + 4 * place..LIST + 4 * place + 4].copy_from_slice(&memfd.to_le_bytes());
            bytes[LIST + 4 * last as usize..LIST + 4 * last as usize + 4]
                .copy_from_slice(&memfd.to_le_bytes());
        }
        _ => {}
    }
    let memfd = sealed(&bytes)?;
    let shim = std::env::var(SHIM).unwrap_or_default();
    let mut command = Command::new(shim);
    command.arg0(std::env::args().next().unwrap_or_default()).args(&args[..=at]);
    Err(command.arg(memfd.as_raw_fd().to_string()).exec())
}

/// Open over an exec.
fn sealed(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("successor", MFdFlags::MFD_ALLOW_SEALING)?);
    file.write_all(bytes)?;
    let seals =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}
