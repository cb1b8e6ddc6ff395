// SPDX-License-Identifier: Apache-2.0
//! The compiler's table of numbers against the `syscalls` crate and, where installed, the kernel's headers. The
//! table is private, so it is asked through a profile that allows one call at a time.

use std::collections::HashMap;

use corten::seccomp::{Host, compile_for};
use corten::spec::{Seccomp, Syscall};

use crate::bpf::{Call, verdict};
use crate::model::{AUDIT_X86_64, abis};

const ALLOW: u32 = 0x7fff_0000;

/// Is `nr` what the compiler takes `name` for, and the numbers around it not?
fn assert_number(host: Host, arch: &str, audit: u32, name: &str, nr: u32) {
    let profile = Seccomp {
        default_action: "SCMP_ACT_TRAP".into(),
        architectures: vec![arch.into()],
        syscalls: vec![Syscall {
            names: vec![name.into()],
            action: "SCMP_ACT_ALLOW".into(),
            ..Syscall::default()
        }],
        ..Seccomp::default()
    };
    let filter = compile_for(host, &profile).unwrap().unwrap();
    assert!(filter.unknown.is_empty(), "{name}");
    let ask = |nr| verdict(&filter.insns, &Call { arch: audit, nr, args: [0; 6] });
    assert_eq!(ask(nr), ALLOW, "{arch} {name} {nr}");
    assert_ne!(ask(nr.wrapping_sub(1)), ALLOW, "{arch} {name} {nr}");
    assert_ne!(ask(nr + 1), ALLOW, "{arch} {name} {nr}");
}

#[test]
fn numbers_are_those_of_the_syscalls_crate() {
    let mut compared = 0;
    for host in [Host::X86_64, Host::Aarch64, Host::Riscv64] {
        for abi in abis(host) {
            for (name, nr) in &abi.numbers {
                assert_number(host, abi.name, abi.audit, name, *nr);
                compared += 1;
            }
        }
    }
    println!("{compared} numbers compared");
}

#[test]
fn numbers_are_those_of_the_kernel_headers() {
    let headers = [
        ("SCMP_ARCH_X86_64", AUDIT_X86_64, "unistd_64.h", 0),
        ("SCMP_ARCH_X86", 0x4000_0003, "unistd_32.h", 0),
        ("SCMP_ARCH_X32", AUDIT_X86_64, "unistd_x32.h", 0x4000_0000),
    ];
    for (arch, audit, file, base) in headers {
        let Ok(text) = std::fs::read_to_string(format!("/usr/include/x86_64-linux-gnu/asm/{file}")) else {
            println!("not run: {file} is not installed");
            continue;
        };
        let numbers: HashMap<&str, u32> = text.lines().filter_map(definition).collect();
        assert!(numbers.len() > 300, "{file}");
        for (name, nr) in &numbers {
            assert_number(Host::X86_64, arch, audit, name, base + nr);
        }
        println!("{}: {} numbers compared", file, numbers.len());
    }
}

/// `#define __NR_read 0` or `#define __NR_read (__X32_SYSCALL_BIT + 0)`.
fn definition(line: &str) -> Option<(&str, u32)> {
    let (name, value) = line.strip_prefix("#define __NR_")?.split_once(' ')?;
    let value = value.trim().trim_start_matches("(__X32_SYSCALL_BIT + ").trim_end_matches(')');
    Some((name, value.parse().ok()?))
}
