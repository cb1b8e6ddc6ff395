// SPDX-License-Identifier: Apache-2.0
//! Random profiles and random calls, the same ones every time.

use corten::spec::{Seccomp, Syscall, SyscallArg};

use crate::bpf::Call;
use crate::random::Random;

/// Values around which comparisons go wrong.
pub const EDGES: &[u64] = &[
    0,
    1,
    2,
    5,
    0xff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_fffe,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0001,
    0x1_0000_0005,
    0x2_0000_0005,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_0000_0000,
    0xffff_ffff_ffff_fffe,
    0xffff_ffff_ffff_ffff,
];

const ACTIONS: &[&str] = &[
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];

/// What profiles are made of.
pub struct Taste<'a> {
    /// Names to choose from.
    pub names: &'a [&'a str],
    /// Architectures to choose from.
    pub archs: &'a [&'a str],
    /// Blocks, at most.
    pub blocks: usize,
    /// Blocks with conditions have this action, when all of one profile shall have the same.
    pub one_action: bool,
    /// Operators to choose from.
    pub operators: &'a [&'a str],
    /// May a block name an argument twice?
    pub repeat: bool,
}

/// Calls that are special somewhere: multiplexed, x32's own, holes, private ones of ARM, the first and the last.
pub const INTERESTING: &[&str] = &[
    "read",
    "write",
    "close",
    "execve",
    "clone",
    "clone3",
    "personality",
    "ioctl",
    "socket",
    "connect",
    "accept",
    "accept4",
    "send",
    "recv",
    "recvmmsg",
    "socketcall",
    "ipc",
    "semop",
    "semtimedop",
    "semget",
    "msgsnd",
    "shmat",
    "shmctl",
    "waitpid",
    "wait4",
    "waitid",
    "uselib",
    "futex_waitv",
    "rt_sigaction",
    "readv",
    "preadv2",
    "pwritev2",
    "io_setup",
    "ptrace",
    "mmap",
    "mmap2",
    "getpid",
    "restart_syscall",
    "faccessat2",
    "openat2",
    "time",
    "set_tls",
    "cacheflush",
    "arm_fadvise64_64",
    "newfstatat",
    "fstatat64",
    "clock_gettime64",
    "kexec_file_load",
    "pidfd_getfd",
];

/// A profile.
pub fn profile(random: &mut Random, taste: &Taste) -> Seccomp {
    let default_action = (*random.pick(ACTIONS)).to_owned();
    let default_action =
        if default_action == "SCMP_ACT_NOTIFY" { "SCMP_ACT_ALLOW".to_owned() } else { default_action };
    let few: Vec<&str> = (0..1 + random.below(6)).map(|_| *random.pick(taste.names)).collect();
    let action = *random.pick(ACTIONS);
    let blocks = random.below(taste.blocks + 1);
    Seccomp {
        default_errno_ret: errno(random, &default_action),
        default_action,
        architectures: taste.archs.iter().filter(|_| !random.one_in(3)).map(|a| (*a).to_owned()).collect(),
        listener_path: Some("/run/agent".to_owned()),
        syscalls: (0..blocks).map(|_| block(random, taste, &few, action)).collect(),
        ..Seccomp::default()
    }
}

fn block(random: &mut Random, taste: &Taste, few: &[&str], action: &str) -> Syscall {
    let conditional = !random.one_in(3);
    let action = if taste.one_action && conditional { action } else { *random.pick(ACTIONS) };
    // Few names with many rules, or many names.
    let names = if random.one_in(4) { taste.names } else { few };
    let names = (0..1 + random.below(4)).map(|_| (*random.pick(names)).to_owned());
    let names = names.filter(|name| action != "SCMP_ACT_NOTIFY" || name != "write").collect();
    let mut args: Vec<SyscallArg> = Vec::new();
    for _ in 0..if conditional { 1 + random.below(3) } else { 0 } {
        let arg = argument(random, taste);
        if taste.repeat || args.iter().all(|known| known.index != arg.index) {
            args.push(arg);
        }
    }
    Syscall { names, action: action.to_owned(), errno_ret: errno(random, action), args }
}

fn argument(random: &mut Random, taste: &Taste) -> SyscallArg {
    let op = (*random.pick(taste.operators)).to_owned();
    let indices = if random.one_in(4) { 6 } else { 2 };
    let index = random.below(indices) as u32;
    SyscallArg { index, value: value(random), value_two: value(random), op }
}

fn errno(random: &mut Random, action: &str) -> Option<u32> {
    let carries = matches!(action, "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE") && random.one_in(2);
    carries.then(|| *random.pick(&[0, 1, 13, 38, 4095, 65535]))
}

/// A number that is likely to matter.
pub fn value(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => random.next(),
        1 => random.next() & 0xffff_ffff,
        2 => u64::from(random.next() as u8),
        _ => *random.pick(EDGES),
    }
}

/// A call: mostly one that the profile has an opinion on, with arguments near its values.
pub fn call(random: &mut Random, profile: &Seccomp, archs: &[u32], numbers: &[u32]) -> Call {
    let nr = match random.below(16) {
        0 => random.next() as u32,
        1 => *random.pick(&[
            0x3fff_ffff,
            0x4000_0000,
            0x7fff_ffff,
            0x8000_0000,
            0xc000_0000,
            u32::MAX - 1,
            u32::MAX,
        ]),
        2 => random.below(600) as u32,
        3 => 0x4000_0000 + random.below(600) as u32,
        4 => random.pick(numbers).wrapping_add(1),
        _ => *random.pick(numbers),
    };
    let arch = if random.one_in(64) { random.next() as u32 } else { *random.pick(archs) };
    let mut args = [0; 6];
    for (index, arg) in args.iter_mut().enumerate() {
        *arg = argument_near(random, profile, index as u32);
    }
    Call { arch, nr, args }
}

fn argument_near(random: &mut Random, profile: &Seccomp, index: u32) -> u64 {
    if profile.syscalls.is_empty() || random.one_in(3) {
        return value(random);
    }
    let block = random.pick(&profile.syscalls);
    let of_this = |arg: &&SyscallArg| arg.index == index;
    let Some(arg) = block.args.iter().find(of_this) else { return value(random) };
    let near = if random.one_in(2) { arg.value } else { arg.value_two };
    match random.below(6) {
        0 => near.wrapping_add(1),
        1 => near.wrapping_sub(1),
        2 => near ^ (1 << random.below(64)),
        3 => near & 0xffff_ffff,
        _ => near,
    }
}
