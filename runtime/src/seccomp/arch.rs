// SPDX-License-Identifier: Apache-2.0
//! Architectures: the names of the specification, and what a filter must know of the ABIs a host's kernel runs.

#![forbid(unsafe_code)]

use super::names::{ARM_PRIVATE, MULTIPLEXED, NONE, NUMBERS};

/// An architecture whose kernel a filter can be compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// x86-64, with the ABIs i386 and x32.
    X86_64,
    /// 64-bit ARM, with the 32-bit EABI.
    Aarch64,
    /// 64-bit RISC-V.
    Riscv64,
}

impl Host {
    /// The host this program was built for; `None` where there is no table.
    pub(crate) const NATIVE: Option<Host> = if cfg!(target_arch = "x86_64") {
        Some(Host::X86_64)
    } else if cfg!(target_arch = "aarch64") {
        Some(Host::Aarch64)
    } else if cfg!(target_arch = "riscv64") {
        Some(Host::Riscv64)
    } else {
        None
    };

    /// The ABIs its kernel runs, the native one first.
    pub(super) fn abis(self) -> &'static [Abi] {
        match self {
            Host::X86_64 => &[X86_64, X86, X32],
            Host::Aarch64 => &[AARCH64, ARM],
            Host::Riscv64 => &[RISCV64],
        }
    }
}

/// One system call ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Abi {
    /// Its name in the specification.
    pub name: &'static str,
    /// `AUDIT_ARCH_*` (linux/audit.h), what the kernel puts into `seccomp_data.arch`.
    pub audit: u32,
    /// Its column in the table.
    column: usize,
    /// Arguments count as 64 bits. In the other ABIs only the low word is compared, as in libseccomp: the kernel
    /// takes no more of it, and what a 64-bit program leaves above for `int 0x80` must not decide.
    pub wide: bool,
    /// Added to every number.
    pub base: u32,
    /// Socket and System V IPC calls can also be made through socketcall(2) and ipc(2).
    pub multiplexed: bool,
}

/// What x32 adds to every number (`__X32_SYSCALL_BIT`); it shares AUDIT_ARCH_X86_64.
pub(super) const X32_BIT: u32 = 0x4000_0000;

const X86_64: Abi =
    Abi { name: "SCMP_ARCH_X86_64", audit: 0xc000_003e, column: 0, wide: true, base: 0, multiplexed: false };
const X86: Abi =
    Abi { name: "SCMP_ARCH_X86", audit: 0x4000_0003, column: 1, wide: false, multiplexed: true, ..X86_64 };
const X32: Abi = Abi { name: "SCMP_ARCH_X32", column: 2, wide: false, base: X32_BIT, ..X86_64 };
const AARCH64: Abi = Abi { name: "SCMP_ARCH_AARCH64", audit: 0xc000_00b7, column: 3, ..X86_64 };
const ARM: Abi = Abi { name: "SCMP_ARCH_ARM", audit: 0x4000_0028, column: 4, wide: false, ..X86_64 };
const RISCV64: Abi = Abi { name: "SCMP_ARCH_RISCV64", audit: 0xc000_00f3, column: 5, ..X86_64 };

impl Abi {
    /// The number of the call in `row`, if this ABI has it.
    pub(super) fn call_number(&self, row: usize) -> Option<u32> {
        match NUMBERS[row][self.column] {
            NONE => None,
            nr if nr >= ARM_PRIVATE => Some(0x000f_0000 + u32::from(nr - ARM_PRIVATE)),
            nr => Some(self.base + u32::from(nr)),
        }
    }

    /// How the call in `row` is made through another one: the name of that one and its first argument.
    pub(super) fn multiplexer(&self, row: usize) -> Option<(&'static str, u64)> {
        match MULTIPLEXED[row] {
            NONE => None,
            _ if !self.multiplexed => None,
            call if call < 200 => Some(("socketcall", u64::from(call - 100))),
            call => Some(("ipc", u64::from(call - 200))),
        }
    }
}

/// Every architecture of the specification, sorted.
pub(super) const KNOWN: &[&str] = &[
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
];

#[cfg(test)]
mod tests {
    use super::super::names::row;
    use super::*;

    #[test]
    fn numbers_of_each_abi() {
        let number = |abi: Abi, name: &str| abi.call_number(row(name).unwrap());
        assert_eq!(number(X86_64, "execve"), Some(59));
        assert_eq!(number(X86, "execve"), Some(11));
        assert_eq!(number(X32, "execve"), Some(0x4000_0000 + 520));
        assert_eq!(number(X32, "getpid"), Some(0x4000_0000 + 39));
        assert_eq!(number(AARCH64, "execve"), Some(221));
        assert_eq!(number(AARCH64, "open"), None);
        assert_eq!(number(ARM, "set_tls"), Some(0x000f_0005));
        assert_eq!(number(RISCV64, "riscv_hwprobe"), Some(258));
    }

    #[test]
    fn multiplexed_calls_of_i386() {
        let through = |abi: Abi, name: &str| abi.multiplexer(row(name).unwrap());
        assert_eq!(through(X86, "socket"), Some(("socketcall", 1)));
        assert_eq!(through(X86, "shmctl"), Some(("ipc", 24)));
        assert_eq!(through(X86, "read"), None);
        assert_eq!(through(X86_64, "socket"), None);
        assert_eq!(through(ARM, "socket"), None);
    }

    #[test]
    fn hosts_run_known_architectures() {
        assert!(KNOWN.is_sorted());
        assert_eq!(KNOWN.len(), 23);
        for host in [Host::X86_64, Host::Aarch64, Host::Riscv64] {
            assert!(host.abis().iter().all(|abi| KNOWN.contains(&abi.name)));
            assert!(host.abis()[0].wide);
        }
    }
}
