// SPDX-License-Identifier: Apache-2.0
//! The compiler against libseccomp, driven as runc drives it and with runc's ENOSYS stub in front.
//!
//! Runs where a C compiler and libseccomp with its header are installed; elsewhere it says that it did not run.
//! Compares verdicts on random calls. What differs must be one of the deliberate differences (`Difference`); each is
//! counted and printed.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use corten::seccomp::{Host, SockFilter, compile_for, known_operators};
use corten::spec::{Seccomp, SyscallArg};

use crate::bpf::{Call, check, run, verdict};
use crate::calls::{INTERESTING, Taste, call, profile};
use crate::model::{AUDIT_X86_64, Abi, Model, Rule, abis, action};
use crate::pfc::Pfc;
use crate::random::Random;
use crate::{docker_like, order};

/// A profile compiled by libseccomp.
///
/// Verdicts are taken from the description. The BPF of 2.5.4 differs from it in two ways, which this comparison
/// found: between two conditions on one argument it forgets to load the high word again (LT 143 or LT 0x200000005),
/// and with x32 it may forget to load the number at all (when the rule asked first is for a name that x86_64 has not).
pub struct Theirs {
    insns: Vec<SockFilter>,
    pfc: Pfc,
}

/// libseccomp in a process of its own.
pub struct Oracle {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    resolved: HashMap<String, [i64; 7]>,
}

/// What libseccomp calls the architectures (seccomp.h), in the order in which it tells of numbers.
const ARCHS: [(&str, u32); 6] = [
    ("SCMP_ARCH_X86_64", AUDIT_X86_64),
    ("SCMP_ARCH_X86", 0x4000_0003),
    ("SCMP_ARCH_X32", 0x4000_003e),
    ("SCMP_ARCH_AARCH64", 0xc000_00b7),
    ("SCMP_ARCH_ARM", 0x4000_0028),
    ("SCMP_ARCH_RISCV64", 0xc000_00f3),
];

/// Those of a host, the native one first.
fn archs(host: Host) -> &'static [(&'static str, u32)] {
    match host {
        Host::X86_64 => &ARCHS[..3],
        Host::Aarch64 => &ARCHS[3..5],
        Host::Riscv64 => &ARCHS[5..],
    }
}

impl Oracle {
    /// Starts it; `None`, having said so, where that is impossible.
    pub fn start() -> Option<Oracle> {
        static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
        let Some(program) = PROGRAM.get_or_init(build) else {
            println!("not run: libseccomp-dev is not installed (or no C compiler, or not x86_64)");
            return None;
        };
        let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Some(Oracle { child, input, output: BufReader::new(output), resolved: HashMap::new() })
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "libseccomp died: {:?}", self.child.wait());
        line
    }

    /// Numbers of a name: native, then as in [`ARCHS`]; negative if there is none.
    pub fn resolve(&mut self, name: &str) -> [i64; 7] {
        if let Some(known) = self.resolved.get(name) {
            return *known;
        }
        writeln!(self.input, "resolve {name}").unwrap();
        let line = self.line();
        let mut numbers = line.split_whitespace().map(|word| word.parse().unwrap());
        let numbers = std::array::from_fn(|_| numbers.next().unwrap());
        self.resolved.insert(name.to_owned(), numbers);
        numbers
    }

    /// What libseccomp makes of a profile when runc asks it to, or the errno.
    pub fn compile(&mut self, host: Host, profile: &Seccomp) -> Result<Theirs, i32> {
        let default = action(&profile.default_action, profile.default_errno_ret);
        let calls: usize = profile.syscalls.iter().map(|block| block.names.len()).sum();
        let mut text = format!("begin {default:x} {}\n", if calls > 32 { 2 } else { 1 });
        let archs = archs(host);
        if host != Host::X86_64 {
            text += &format!("foreign {:x}\n", archs[0].1);
        }
        for (name, token) in archs {
            if profile.architectures.iter().any(|arch| arch == name) {
                text += &format!("arch {token:x}\n");
            }
        }
        for block in &profile.syscalls {
            let action = action(&block.action, block.errno_ret);
            if action == default {
                continue;
            }
            let repeated = block
                .args
                .iter()
                .enumerate()
                .any(|(i, a)| block.args[..i].iter().any(|b| a.index == b.index));
            for name in &block.names {
                if repeated {
                    for arg in &block.args {
                        text += &rule(action, name, std::slice::from_ref(arg));
                    }
                } else {
                    text += &rule(action, name, &block.args);
                }
            }
        }
        text += "end\n";
        self.input.write_all(text.as_bytes()).unwrap();
        let insns = self.bytes()?;
        let insns = insns.chunks_exact(8).map(|raw| SockFilter {
            code: u16::from_ne_bytes([raw[0], raw[1]]),
            jt: raw[2],
            jf: raw[3],
            k: u32::from_ne_bytes([raw[4], raw[5], raw[6], raw[7]]),
        });
        let insns = insns.collect();
        let pfc = Pfc::parse(std::str::from_utf8(&self.bytes()?).unwrap());
        Ok(Theirs { insns, pfc })
    }

    fn bytes(&mut self) -> Result<Vec<u8>, i32> {
        let line = self.line();
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[0] == "error" {
            return Err(words[2].parse().unwrap());
        }
        let mut bytes = vec![0; words[1].parse().unwrap()];
        self.output.read_exact(&mut bytes).unwrap();
        Ok(bytes)
    }

    /// runc's stub (libcontainer/seccomp/patchbpf) for a profile.
    fn stub(&mut self, profile: &Seccomp) -> Stub {
        if matches!(profile.default_action.as_str(), "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG" | "SCMP_ACT_TRACE") {
            return Stub([0; 6]);
        }
        let names: Vec<[i64; 7]> =
            profile.syscalls.iter().flat_map(|block| &block.names).map(|name| self.resolve(name)).collect();
        let listed = |column: usize| profile.architectures.iter().any(|arch| arch == ARCHS[column].0);
        let last = |column: usize| names.iter().map(|numbers| numbers[column + 1]).max().unwrap_or(0);
        Stub(std::array::from_fn(|column| if listed(column) { last(column) } else { 0 }))
    }
}

/// The highest numbers named, as in [`ARCHS`].
struct Stub([i64; 6]);

impl Stub {
    /// Does it answer this call with ENOSYS?
    fn answers(&self, call: &Call) -> bool {
        let last = match call.arch {
            AUDIT_X86_64 if call.nr & 0x4000_0000 != 0 => self.0[2],
            AUDIT_X86_64 => self.0[0],
            arch => ARCHS.iter().position(|(_, token)| *token == arch).map_or(0, |column| self.0[column]),
        };
        last > 0 && i64::from(call.nr) > last
    }
}

/// Compiles oracle.c.
fn build() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (made, program) = (folder.join(format!("oracle.{}", std::process::id())), folder.join("oracle"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/seccomp/oracle.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-Wall", "-o"]).arg(&made).args([source, "-lseccomp"]).stderr(Stdio::null());
    let built = cfg!(target_arch = "x86_64") && compiler.status().is_ok_and(|status| status.success());
    // Renamed, so that no one starts a half-written one.
    built.then(|| std::fs::rename(&made, &program).map(|()| program).unwrap())
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn rule(action: u32, name: &str, args: &[SyscallArg]) -> String {
    let mut text = format!("rule {action:x} {name} {}", args.len());
    for arg in args {
        // enum scmp_compare
        let op = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
        let op = op.iter().position(|op| arg.op == format!("SCMP_CMP_{op}")).unwrap() + 1;
        text += &format!(" {} {op} {:x} {:x}", arg.index, arg.value, arg.value_two);
    }
    text + "\n"
}

/// Why a verdict may differ from runc's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// Numbers without a call below the highest one named: ENOSYS (runc: the default action).
    Hole,
    /// runc overlooks that i386 can also make socket and IPC calls directly, and takes a lower number for the highest.
    LastMultiplexed,
    /// Of the calls of an ABI only number 0 is named; runc takes that for none.
    LastZero,
    /// Bit 31 set, no x32 in the profile: killed like every number from bit 30 on (runc's stub says ENOSYS).
    Bit31,
    /// Several rules with different actions hold.
    Overlap,
    /// libseccomp mixes up what follows on two unequal comparisons of one argument with the same high word:
    /// `0 GE 1 & 5 EQ 2` and `0 GT 1 & 1 EQ 3` also let through `0 GE 1 & 1 EQ 3`.
    SharedTail,
}

/// Sorts a mismatch into its class; none if there is no excuse.
fn excuse(model: &Model, call: &Call) -> Option<Difference> {
    let actions: Vec<u32> = model.holding(call).iter().map(|rule| rule.action).collect();
    if call.arch == AUDIT_X86_64 && (0x8000_0000..0xc000_0000).contains(&call.nr) {
        Some(Difference::Bit31)
    } else if model.last(call).is_some_and(|last| call.nr <= last) && model.beyond(call) {
        Some(Difference::Hole)
    } else if call.arch == 0x4000_0003
        && matches!(model.last(call), Some(102 | 117 | 337 | 345 | 359..=373 | 393..=402))
    {
        Some(Difference::LastMultiplexed)
    } else if matches!(model.last(call), Some(0 | 0x4000_0000)) && model.beyond(call) {
        Some(Difference::LastZero)
    } else if actions.iter().any(|action| *action != actions[0]) {
        Some(Difference::Overlap)
    } else if shared_tail(model.rules(call)) {
        Some(Difference::SharedTail)
    } else {
        None
    }
}

fn shared_tail(rules: &[Rule]) -> bool {
    let unequal = |rule: &Rule| -> Vec<(u32, u64)> {
        let tests =
            rule.conditions.iter().filter(|c| !matches!(c.op.as_str(), "SCMP_CMP_EQ" | "SCMP_CMP_MASKED_EQ"));
        tests.map(|c| (c.index, c.value >> 32)).collect()
    };
    rules.iter().enumerate().any(|(i, a)| {
        rules[..i].iter().any(|b| {
            let longer = a.conditions.len().max(b.conditions.len()) > 1;
            longer && unequal(a).iter().any(|test| unequal(b).contains(test))
        })
    })
}

/// Counts of a comparison.
#[derive(Debug, Default)]
struct Tally {
    profiles: usize,
    refused_by_both: usize,
    refused_by_us: usize,
    /// By errno.
    refused_by_them: BTreeMap<i32, usize>,
    tuples: usize,
    /// Where libseccomp's BPF does not do what its description says.
    miscompiled: usize,
    /// Several rules with different actions hold.
    overlaps: usize,
    different: BTreeMap<Difference, usize>,
    instructions: [usize; 2],
    steps: [usize; 2],
}

fn compare(
    (oracle, host, abis): (&mut Oracle, Host, &[Abi]),
    random: &mut Random,
    tally: &mut Tally,
    profile: &Seccomp,
    tuples: usize,
) {
    let model = Model::new(profile, abis);
    tally.profiles += 1;
    let (ours, theirs) = match (compile_for(host, profile), oracle.compile(host, profile)) {
        (Ok(ours), Ok(theirs)) => (ours.unwrap().insns, theirs),
        (Err(_), Err(_)) => return tally.refused_by_both += 1,
        (Err(_), Ok(_)) => return tally.refused_by_us += 1,
        (Ok(_), Err(errno)) => return *tally.refused_by_them.entry(errno).or_default() += 1,
    };
    assert_eq!(check(&ours), Ok(()));
    let numbers: Vec<u32> = profile
        .syscalls
        .iter()
        .flat_map(|block| &block.names)
        .flat_map(|name| oracle.resolve(name))
        .filter_map(|nr| u32::try_from(nr).ok())
        .chain([0, 102, 117, 335, 359])
        .collect();
    tally.instructions[0] += ours.len();
    tally.instructions[1] += theirs.insns.len();
    let stub = oracle.stub(profile);
    // The native one most of all.
    let audits: Vec<u32> = abis[..1].iter().chain(abis).map(|abi| abi.audit).collect();
    for _ in 0..tuples {
        let call = call(random, profile, &audits, &numbers);
        let (ours, steps) = run(&ours, &call);
        let (filter, their_steps) = run(&theirs.insns, &call);
        tally.miscompiled += usize::from(filter != theirs.pfc.verdict(&call));
        let filter = theirs.pfc.verdict(&call);
        let theirs = if stub.answers(&call) { 0x0005_0026 } else { filter };
        tally.steps[0] += steps;
        tally.steps[1] += their_steps;
        let holding = model.holding(&call);
        tally.overlaps += usize::from(holding.iter().any(|rule| rule.action != holding[0].action));
        if ours != theirs {
            let Some(difference) = excuse(&model, &call) else {
                let profile = shrink(profile.clone(), |profile| differs(oracle, host, profile, &call));
                panic!("{ours:#x} is not {theirs:#x} on {call:#x?} with {profile:#?}");
            };
            *tally.different.entry(difference).or_default() += 1;
        }
    }
    tally.tuples += tuples;
}

/// Is there a difference without excuse?
fn differs(oracle: &mut Oracle, host: Host, profile: &Seccomp, call: &Call) -> bool {
    let abis = abis(host);
    let (Ok(Some(ours)), Ok(theirs)) = (compile_for(host, profile), oracle.compile(host, profile)) else {
        return false;
    };
    let theirs = if oracle.stub(profile).answers(call) { 0x0005_0026 } else { theirs.pfc.verdict(call) };
    verdict(&ours.insns, call) != theirs && excuse(&Model::new(profile, &abis), call).is_none()
}

/// Leaves out of a profile what is not needed for it to be `bad`.
fn shrink(mut profile: Seccomp, mut bad: impl FnMut(&Seccomp) -> bool) -> Seccomp {
    let mut block = 0;
    while block < profile.syscalls.len() {
        let mut less = profile.clone();
        less.syscalls.remove(block);
        if bad(&less) {
            profile = less;
            continue;
        }
        for part in [true, false] {
            let mut at = 0;
            loop {
                let mut less = profile.clone();
                let entry = &mut less.syscalls[block];
                let left = if part { entry.names.len() } else { entry.args.len() };
                if at >= left {
                    break;
                }
                if part {
                    drop(entry.names.remove(at))
                } else {
                    drop(entry.args.remove(at))
                }
                if bad(&less) { profile = less } else { at += 1 }
            }
        }
        block += 1;
    }
    profile
}

fn tuples() -> usize {
    std::env::var("CORTEN_SECCOMP_TUPLES").map_or(300_000, |n| n.parse().unwrap())
}

/// Names that both know.
fn common(oracle: &mut Oracle, names: &[&'static str]) -> Vec<&'static str> {
    names.iter().copied().filter(|name| oracle.resolve(name)[0] != -1).collect()
}

#[test]
fn random_profiles_mean_what_libseccomp_makes_of_them() {
    let Some(mut oracle) = Oracle::start() else { return };
    for (host, share) in [(Host::X86_64, 6), (Host::Aarch64, 3), (Host::Riscv64, 1)] {
        for one_action in [true, false] {
            let tally = random_profiles(&mut oracle, host, one_action, tuples() * share / 20);
            println!("{host:?}, one action for all conditions {one_action}: {tally:?}");
        }
    }
}

fn random_profiles(oracle: &mut Oracle, host: Host, one_action: bool, tuples: usize) -> Tally {
    let mut random = Random(0x005e_cc09 + u64::from(one_action));
    let archs: Vec<&str> = archs(host).iter().map(|(name, _)| *name).collect();
    let abis = abis(host);
    let mut all: Vec<&str> = abis.iter().flat_map(|abi| abi.numbers.keys().copied()).collect();
    all.sort_unstable();
    let (few, all) = (common(oracle, INTERESTING), common(oracle, &all));
    let mut tally = Tally::default();
    while tally.tuples < tuples {
        let taste = Taste {
            names: if random.one_in(2) { &few } else { &all },
            archs: &archs,
            blocks: *random.pick(&[2, 8, 40]),
            one_action,
            operators: known_operators(),
            repeat: true,
        };
        let mut profile = profile(&mut random, &taste);
        // Without this runc leaves the stub out for the native architecture.
        profile.architectures.push(archs[0].into());
        compare((oracle, host, &abis), &mut random, &mut tally, &profile, 100);
    }
    tally
}

#[test]
fn a_docker_like_profile_means_what_libseccomp_makes_of_it() {
    let Some(mut oracle) = Oracle::start() else { return };
    let mut profile = docker_like();
    for block in &mut profile.syscalls {
        block.names.retain(|name| oracle.resolve(name)[0] != -1);
    }
    profile.architectures.extend(ARCHS[3..].iter().map(|(name, _)| (*name).to_owned()));
    for host in [Host::X86_64, Host::Aarch64, Host::Riscv64] {
        let (abis, mut random, mut tally) = (abis(host), Random(7), Tally::default());
        compare((&mut oracle, host, &abis), &mut random, &mut tally, &profile, tuples() / 9);
        println!("{host:?}: {tally:?}");
        assert_eq!(tally.profiles, 1);
        let known = |difference: &Difference| matches!(difference, Difference::Hole | Difference::Bit31);
        assert!(tally.different.keys().all(known), "{host:?}: {tally:?}");
    }
}

#[test]
fn the_order_of_rules_is_that_of_libseccomp() {
    let Some(mut oracle) = Oracle::start() else { return };
    for case in order::CASES {
        let profile = case.profile();
        for (arg0, arg1, expected) in case.calls {
            let theirs = oracle
                .compile(Host::X86_64, &profile)
                .unwrap_or_else(|errno| panic!("{}: errno {errno}", case.why));
            let call = Call { arch: AUDIT_X86_64, nr: 41, args: [*arg0, *arg1, 0, 0, 0, 0] };
            assert_eq!(theirs.pfc.verdict(&call), *expected, "{}: {arg0:#x} {arg1:#x}", case.why);
        }
    }
    for case in order::CONTRADICTIONS {
        assert_eq!(
            oracle.compile(Host::X86_64, &order::profile(case)).map(|_| ()).unwrap_err(),
            17,
            "{case}"
        );
    }
}

#[test]
fn numbers_are_those_of_libseccomp() {
    let Some(mut oracle) = Oracle::start() else { return };
    for host in [Host::X86_64, Host::Aarch64, Host::Riscv64] {
        for abi in &abis(host) {
            let column = 1 + ARCHS.iter().position(|(name, _)| *name == abi.name).unwrap();
            let (mut compared, mut unknown) = (0, 0);
            for (name, nr) in &abi.numbers {
                let theirs = oracle.resolve(name)[column];
                if theirs >= 0 {
                    assert_eq!(theirs, i64::from(*nr), "{name} {}", abi.name);
                    compared += 1;
                } else if theirs == -1 {
                    unknown += 1;
                } else {
                    // Pseudo numbers: i386's multiplexed calls only.
                    let multiplexed = abi.name == "SCMP_ARCH_X86" && (-300..=-100).contains(&theirs);
                    assert!(multiplexed, "{name} {} {theirs}", abi.name);
                }
            }
            println!(
                "{}: {compared} numbers compared, {unknown} unknown to the libseccomp installed",
                abi.name
            );
            assert!(compared > 200, "{}: {compared}", abi.name);
        }
    }
}
