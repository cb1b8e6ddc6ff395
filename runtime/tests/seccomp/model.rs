// SPDX-License-Identifier: Apache-2.0
//! What a profile means, evaluated directly: for one call, walk the rules. Written without looking at the compiler,
//! from the specification and from what libseccomp does; takes its numbers from the `syscalls` crate.

use std::collections::HashMap;

use corten::seccomp::Host;
use corten::spec::{Seccomp, SyscallArg};
use syscalls::{aarch64, arm, riscv64, x86, x86_64};

use crate::bpf::Call;

/// An ABI, by its name in the specification.
pub struct Abi {
    /// `SCMP_ARCH_…`
    pub name: &'static str,
    /// `AUDIT_ARCH_…`
    pub audit: u32,
    /// Arguments have 64 bits.
    pub wide: bool,
    /// Number by name.
    pub numbers: HashMap<&'static str, u32>,
    /// The numbers, sorted.
    known: Vec<u32>,
}

/// AUDIT_ARCH_X86_64.
pub const AUDIT_X86_64: u32 = 0xc000_003e;

/// Calls with a number of their own in x32, and calls that it does not have (Linux, syscall_64.tbl).
const X32_OWN: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];
const X32_NOT: [&str; 14] = [
    "_sysctl",
    "create_module",
    "epoll_ctl_old",
    "epoll_wait_old",
    "get_kernel_syms",
    "get_thread_area",
    "map_shadow_stack",
    "nfsservctl",
    "query_module",
    "set_thread_area",
    "uprobe",
    "uretprobe",
    "uselib",
    "vserver",
];
const ARM_PRIVATE: [&str; 6] = ["breakpoint", "cacheflush", "usr26", "usr32", "set_tls", "get_tls"];
const SOCKETCALL: [&str; 20] = [
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "send",
    "recv",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];
const IPC: [(&str, u64); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

macro_rules! numbers {
    ($arch:ident) => {
        (0..=$arch::Sysno::last().id())
            .filter_map(|nr| $arch::Sysno::new(nr as usize))
            .map(|call| (call.name().trim_start_matches("r#"), call.id() as u32))
            .collect::<HashMap<&'static str, u32>>()
    };
}

/// The ABIs of a host, native first.
pub fn abis(host: Host) -> Vec<Abi> {
    let abi = |name, audit, wide, numbers: HashMap<&'static str, u32>| {
        let mut known: Vec<u32> = numbers.values().copied().collect();
        known.sort_unstable();
        Abi { name, audit, wide, numbers, known }
    };
    match host {
        Host::X86_64 => vec![
            abi("SCMP_ARCH_X86_64", AUDIT_X86_64, true, numbers!(x86_64)),
            abi("SCMP_ARCH_X86", 0x4000_0003, false, numbers!(x86)),
            abi("SCMP_ARCH_X32", AUDIT_X86_64, false, x32()),
        ],
        Host::Aarch64 => {
            // The crate counts the 64-bit time calls in, which only 32-bit kernels have, and misspells one.
            let mut numbers = numbers!(aarch64);
            numbers.retain(|name, nr| !(403..=423).contains(nr) || !name.ends_with("64"));
            let nr = numbers.remove("fstatat").unwrap();
            numbers.insert("newfstatat", nr);
            let mut thirty_two = numbers!(arm);
            thirty_two.extend(ARM_PRIVATE.iter().zip(0x000f_0001..).map(|(name, nr)| (*name, nr)));
            vec![
                abi("SCMP_ARCH_AARCH64", 0xc000_00b7, true, numbers),
                abi("SCMP_ARCH_ARM", 0x4000_0028, false, thirty_two),
            ]
        }
        Host::Riscv64 => vec![abi("SCMP_ARCH_RISCV64", 0xc000_00f3, true, numbers!(riscv64))],
    }
}

fn x32() -> HashMap<&'static str, u32> {
    let own = X32_OWN.iter().zip(512..).map(|(name, nr)| (*name, nr));
    let mut numbers = numbers!(x86_64);
    numbers.retain(|name, _| !X32_NOT.contains(name));
    numbers.extend(own);
    numbers.into_iter().map(|(name, nr)| (name, nr + 0x4000_0000)).collect()
}

/// SECCOMP_RET_* of an action; the errno or data is EPERM if not given.
pub fn action(name: &str, errno: Option<u32>) -> u32 {
    match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => 0,
        "SCMP_ACT_KILL_PROCESS" => 0x8000_0000,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_ERRNO" => 0x0005_0000 + errno.unwrap_or(1),
        "SCMP_ACT_NOTIFY" => 0x7fc0_0000,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 + errno.unwrap_or(1),
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_ALLOW" => 0x7fff_0000,
        name => panic!("{name}"),
    }
}

const ENOSYS: u32 = 0x0005_0000 + 38;

/// One way for a rule to hold.
#[derive(Debug, Clone)]
pub struct Rule {
    /// All must hold; as the ABI asks them, sorted by argument.
    pub conditions: Vec<SyscallArg>,
    /// SECCOMP_RET_*.
    pub action: u32,
    multiplexed: bool,
}

/// A profile prepared for one ABI.
struct View<'a> {
    abi: &'a Abi,
    rules: HashMap<u32, Vec<Rule>>,
    last: Option<u32>,
}

/// A profile with its meaning.
pub struct Model<'a> {
    default: u32,
    native: Option<&'a Abi>,
    views: Vec<View<'a>>,
    enosys: bool,
}

impl<'a> Model<'a> {
    /// The meaning of `profile` on a host with these ABIs.
    pub fn new(profile: &Seccomp, abis: &'a [Abi]) -> Model<'a> {
        let default = action(&profile.default_action, profile.default_errno_ret);
        let allowing = ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"];
        let listed =
            |abi: &&Abi| abi.name == abis[0].name || profile.architectures.iter().any(|a| a == abi.name);
        Model {
            default,
            native: abis.first(),
            views: abis.iter().filter(listed).map(|abi| View::new(profile, abi, default)).collect(),
            enosys: !allowing.contains(&profile.default_action.as_str()),
        }
    }

    /// Do two rules contradict each other?
    pub fn contradicts(&self) -> bool {
        self.views.iter().any(|view| view.rules.values().any(|rules| contradict(rules)))
    }

    /// The rules that hold for a call, and so could decide.
    pub fn holding(&self, call: &Call) -> Vec<&Rule> {
        let wide = self.view(call).is_some_and(|view| view.abi.wide);
        let rules = self.rules(call).iter();
        rules.filter(|rule| rule.conditions.iter().all(|c| holds(c, call, wide))).collect()
    }

    /// All rules for the number of a call.
    pub fn rules(&self, call: &Call) -> &[Rule] {
        self.view(call).and_then(|view| view.rules.get(&call.nr)).map_or(&[], Vec::as_slice)
    }

    /// Is the number one that fails with ENOSYS because the author cannot have known it?
    pub fn beyond(&self, call: &Call) -> bool {
        let Some(view) = self.view(call) else { return false };
        let unknown = |last| call.nr > last || view.abi.known.binary_search(&call.nr).is_err();
        self.enosys && view.last.is_some_and(unknown)
    }

    /// The highest number that the profile names in the ABI of this call.
    pub fn last(&self, call: &Call) -> Option<u32> {
        self.view(call)?.last
    }

    fn view(&self, call: &Call) -> Option<&View<'a>> {
        let x32 = call.arch == AUDIT_X86_64 && call.nr >= 0x4000_0000;
        self.views
            .iter()
            .find(|view| view.abi.audit == call.arch && (view.abi.name == "SCMP_ARCH_X32") == x32)
    }

    /// SECCOMP_RET_* for a call.
    pub fn verdict(&self, call: &Call) -> u32 {
        if self.view(call).is_none() {
            let native = self.native.is_some_and(|abi| abi.audit == call.arch);
            return if native && call.nr == u32::MAX { self.default } else { 0 };
        }
        if self.beyond(call) {
            return ENOSYS;
        }
        let holding = self.holding(call);
        if let Some(rule) = holding.iter().find(|rule| rule.conditions.is_empty()) {
            return rule.action;
        }
        let mut winner: Option<&Rule> = None;
        for rule in holding {
            winner = Some(match winner {
                Some(best) if !before(rule, best) => best,
                _ => rule,
            });
        }
        winner.map_or(self.default, |rule| rule.action)
    }
}

impl<'a> View<'a> {
    fn new(profile: &Seccomp, abi: &'a Abi, default: u32) -> View<'a> {
        let mut view = View { abi, rules: HashMap::new(), last: None };
        for block in &profile.syscalls {
            let action = action(&block.action, block.errno_ret);
            let repeated = (0..6).any(|index| block.args.iter().filter(|arg| arg.index == index).count() > 1);
            let ways: Vec<Vec<SyscallArg>> = if repeated {
                block.args.iter().map(|arg| vec![arg.clone()]).collect()
            } else {
                vec![block.args.clone()]
            };
            for name in &block.names {
                for (through, first) in view.ways_to_call(name) {
                    view.last = view.last.max(Some(through));
                    for conditions in ways.iter().filter(|_| action != default) {
                        let conditions = view.conditions(conditions, first);
                        let rule = Rule { conditions, action, multiplexed: first.is_some() };
                        add(view.rules.entry(through).or_default(), rule);
                    }
                }
            }
        }
        view
    }

    /// Numbers by which a call is made, with the first argument where it is one of several behind a number.
    fn ways_to_call(&self, name: &str) -> Vec<(u32, Option<u64>)> {
        let mut ways = Vec::new();
        if self.abi.name == "SCMP_ARCH_X86" {
            if let Some(at) = SOCKETCALL.iter().position(|call| *call == name) {
                ways.push((self.abi.numbers["socketcall"], Some(at as u64 + 1)));
            }
            if let Some((_, at)) = IPC.iter().find(|(call, _)| *call == name) {
                ways.push((self.abi.numbers["ipc"], Some(*at)));
            }
        }
        ways.extend(self.abi.numbers.get(name).map(|nr| (*nr, None)));
        ways
    }

    /// The conditions as this ABI can ask them.
    fn conditions(&self, conditions: &[SyscallArg], first: Option<u64>) -> Vec<SyscallArg> {
        let width = if self.abi.wide { u64::MAX } else { 0xffff_ffff };
        let mut asked: Vec<SyscallArg> = conditions
            .iter()
            .filter(|c| first.is_none() || c.index != 0)
            .filter(|c| c.op != "SCMP_CMP_MASKED_EQ" || c.value & width != 0)
            .map(|c| {
                let value = c.value & width;
                let value_two = if c.op == "SCMP_CMP_MASKED_EQ" { c.value_two & value } else { 0 };
                SyscallArg { value, value_two, ..c.clone() }
            })
            .collect();
        if let Some(value) = first {
            asked.push(SyscallArg { index: 0, value, value_two: 0, op: "SCMP_CMP_EQ".into() });
        }
        asked.sort_by_key(|c| c.index);
        asked
    }
}

/// Rules that would never be asked are not kept: after an unconditional one, and behind one with fewer conditions.
fn add(rules: &mut Vec<Rule>, rule: Rule) {
    let settled = rule.conditions.is_empty() && rules.iter().any(|known| known.conditions.is_empty());
    if !settled {
        rules.push(rule);
    }
}

/// Walks the rules of one call in the order of the profile.
fn contradict(rules: &[Rule]) -> bool {
    let mut standing: Vec<Rule> = Vec::new();
    for rule in rules {
        if rule.conditions.is_empty() {
            return false;
        }
        let same = |a: &Rule, b: &Rule| b.conditions.starts_with(&a.conditions);
        if let Some(known) = standing.iter().find(|known| same(known, rule)) {
            let equal = known.conditions.len() == rule.conditions.len();
            if equal && known.action != rule.action && !rule.multiplexed {
                return true;
            }
            continue;
        }
        if standing.iter().any(|known| same(rule, known) && known.action != rule.action) && !rule.multiplexed
        {
            return true;
        }
        standing.retain(|known| !same(rule, known));
        standing.push(rule.clone());
    }
    false
}

/// Is `a`, which stands behind `b` in the profile, asked before it all the same?
fn before(a: &Rule, b: &Rule) -> bool {
    for (x, y) in a.conditions.iter().zip(&b.conditions) {
        if x.index != y.index {
            return x.index > y.index;
        }
        let class = |c: &SyscallArg| match c.op.as_str() {
            "SCMP_CMP_LT" | "SCMP_CMP_LE" => 1,
            "SCMP_CMP_GT" | "SCMP_CMP_GE" => 2,
            _ => 0,
        };
        if class(x) != class(y) {
            return class(x) < class(y);
        }
        let value = |c: &SyscallArg| if c.op == "SCMP_CMP_MASKED_EQ" { c.value_two } else { c.value };
        if value(x) != value(y) {
            return (value(x) > value(y)) != (class(x) == 1);
        }
    }
    if a.conditions == b.conditions && a.multiplexed {
        return (a.action as i32) < (b.action as i32);
    }
    a.conditions.len() < b.conditions.len()
}

fn holds(condition: &SyscallArg, call: &Call, wide: bool) -> bool {
    let arg = call.args[condition.index as usize] & if wide { u64::MAX } else { 0xffff_ffff };
    match condition.op.as_str() {
        "SCMP_CMP_NE" => arg != condition.value,
        "SCMP_CMP_LT" => arg < condition.value,
        "SCMP_CMP_LE" => arg <= condition.value,
        "SCMP_CMP_EQ" => arg == condition.value,
        "SCMP_CMP_GE" => arg >= condition.value,
        "SCMP_CMP_GT" => arg > condition.value,
        "SCMP_CMP_MASKED_EQ" => arg & condition.value == condition.value_two,
        op => panic!("{op}"),
    }
}
