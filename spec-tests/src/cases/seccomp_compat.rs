// SPDX-License-Identifier: Apache-2.0
//! Filters and the kernel's 32-bit programs: i386's on x86_64, ARM's (EABI) on aarch64, which has no gate for them in 64-bit ones.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, case, same};
use crate::harness::test::Test;

/// Both ABIs have these numbers.
const GETPID: u8 = 20;
const GETPPID: u8 = 64;

#[cfg(target_arch = "x86_64")]
const NAMES: [&str; 2] = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"];
#[cfg(target_arch = "aarch64")]
const NAMES: [&str; 2] = ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"];

/// The part of the chapter.
pub fn cases() -> Vec<Case> {
    vec![
        case("seccomp/32-bit-programs-have-the-same-rules", |t| {
            let b = ground(t)?.set("/linux/seccomp", profile(&NAMES));
            same("getpid", t.run(&b.clone().args(&["/getpid"]))?.code, 0)?;
            same("getppid", t.run(&b.args(&["/getppid"]))?.code, libc::EACCES)
        }),
        case("seccomp/32-bit-programs-need-their-architecture", |t| {
            let b = ground(t)?.set("/linux/seccomp", profile(&NAMES[..1]));
            same("getpid", t.run(&b.args(&["/getpid"]))?.code, 128 + libc::SIGSYS)
        }),
    ]
}

fn profile(architectures: &[&str]) -> serde_json::Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": architectures,
        "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::EACCES}]
    })
}

/// A bundle with the programs, if the kernel runs such at all.
fn ground(t: &Test) -> Result<Bundle, Trouble> {
    let mut b = t.bundle()?;
    for (name, number) in [("getpid", GETPID), ("getppid", GETPPID)] {
        b = b.file(name, "")?;
        fs::write(b.rootfs(name), program(number))?;
        fs::set_permissions(b.rootfs(name), fs::Permissions::from_mode(0o755))?;
    }
    match t.run(&b.clone().args(&["/getppid"]))?.code {
        0 => Ok(b),
        _ => Err(Trouble::NotRun("this kernel runs no 32-bit programs".into())),
    }
}

/// For which machine, with which flags (elf(5)): makes the call, without arguments, and exits with its errno or 0.
#[cfg(target_arch = "x86_64")]
fn code(number: u8) -> (u16, u32, Vec<u8>) {
    let make = [0xb8, number, 0, 0, 0, 0xcd, 0x80]; // mov eax, number; int 0x80
    let errno = [0x85, 0xc0, 0x78, 0x02, 0x31, 0xc0, 0xf7, 0xd8]; // test eax, eax; js +2; xor eax, eax; neg eax
    let exit = [0x89, 0xc3, 0xb8, 1, 0, 0, 0, 0xcd, 0x80]; // mov ebx, eax; mov eax, 1; int 0x80
    (3, 0, [&make[..], &errno, &exit].concat())
}

/// As above.
#[cfg(target_arch = "aarch64")]
fn code(number: u8) -> (u16, u32, Vec<u8>) {
    const CALL: u32 = 0xef00_0000; // svc #0
    let make = [0xe3a0_7000 | u32::from(number), CALL]; // mov r7, number
    let errno = [0xe350_0000, 0xb260_0000, 0xa3a0_0000]; // cmp r0, #0; rsblt r0, r0, #0; movge r0, #0
    let exit = [0xe3a0_7001, CALL]; // mov r7, #1
    let words = [&make[..], &errno, &exit].concat();
    (40, 0x0500_0200, words.iter().flat_map(|word| word.to_le_bytes()).collect())
}

/// An ELF file of one segment.
fn program(number: u8) -> Vec<u8> {
    const BASE: u32 = 0x0800_0000;
    const HEADERS: u32 = 52 + 32;
    let (machine, flags, code) = code(number);
    let size = HEADERS + code.len() as u32;
    let mut file = b"\x7fELF\x01\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2u16.to_le_bytes(), machine.to_le_bytes()].concat());
    for word in [1, BASE + HEADERS, 52, 0, flags] {
        file.extend(u32::to_le_bytes(word));
    }
    for half in [52u16, 32, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for word in [1, 0, BASE, BASE, size, size, 5, 0x1000] {
        file.extend(u32::to_le_bytes(word));
    }
    file.extend(code);
    file
}
