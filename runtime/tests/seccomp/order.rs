// SPDX-License-Identifier: Apache-2.0
//! Which of several rules for one call decides: the cases that the documentation in `rules.rs` promises. The same
//! cases are put to libseccomp in `libseccomp.rs`.

use corten::seccomp::{Host, compile_for};
use corten::spec::Seccomp;

use crate::bpf::{Call, verdict};
use crate::model::{AUDIT_X86_64, Model, abis};

const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;
const TRAP: u32 = 0x0003_0000;
const EPERM: u32 = 0x0005_0001;

/// A few rules for socket(2) under the default ERRNO(EPERM).
pub struct Case {
    /// What it shows.
    pub why: &'static str,
    /// Rules: action, then conditions as `argument operator value`, joined by `&`.
    pub rules: &'static str,
    /// First argument, second argument, verdict.
    pub calls: &'static [(u64, u64, u32)],
}

impl Case {
    /// As a profile.
    pub fn profile(&self) -> Seccomp {
        profile(self.rules)
    }
}

/// The rules as a profile; they are separated by `;`.
pub fn profile(rules: &str) -> Seccomp {
    let blocks = rules.split(';').map(|rule| {
        let (action, conditions) = rule.trim().split_once(' ').unwrap_or((rule.trim(), ""));
        let args = conditions.split('&').filter(|text| !text.is_empty()).map(|text| {
            let words: Vec<&str> = text.split_whitespace().collect();
            let two = words.get(3).unwrap_or(&"0");
            format!(
                r#"{{"index":{},"op":"SCMP_CMP_{}","value":{},"valueTwo":{two}}}"#,
                words[0], words[1], words[2]
            )
        });
        let args: Vec<String> = args.collect();
        format!(r#"{{"names":["socket"],"action":"SCMP_ACT_{action}","args":[{}]}}"#, args.join(","))
    });
    let blocks: Vec<String> = blocks.collect();
    crate::profile(&format!(
        r#"{{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{}]}}"#,
        blocks.join(",")
    ))
}

/// Every promise.
pub const CASES: &[Case] = &[
    Case {
        why: "several conditions are AND-ed",
        rules: "ALLOW 0 EQ 1 & 1 EQ 2",
        calls: &[(1, 2, ALLOW), (1, 3, EPERM), (2, 2, EPERM)],
    },
    Case {
        why: "several rules are OR-ed",
        rules: "ALLOW 0 EQ 1; ALLOW 1 EQ 2",
        calls: &[(1, 0, ALLOW), (0, 2, ALLOW), (1, 2, ALLOW), (0, 0, EPERM)],
    },
    Case {
        why: "one argument named twice in a rule is OR-ed",
        rules: "ALLOW 0 EQ 1 & 0 EQ 7 & 1 EQ 2",
        calls: &[(1, 0, ALLOW), (7, 0, ALLOW), (0, 2, ALLOW), (0, 0, EPERM)],
    },
    Case {
        why: "unconditional beats conditional, behind it",
        rules: "TRAP 0 EQ 1; ALLOW",
        calls: &[(1, 0, ALLOW), (2, 0, ALLOW)],
    },
    Case {
        why: "unconditional beats conditional, before it",
        rules: "ALLOW; TRAP 0 EQ 1",
        calls: &[(1, 0, ALLOW), (2, 0, ALLOW)],
    },
    Case { why: "the first unconditional one stands", rules: "LOG; ALLOW", calls: &[(1, 0, LOG)] },
    Case {
        why: "a mask of zero is no condition",
        rules: "LOG 0 MASKED_EQ 0 5; TRAP 0 EQ 1",
        calls: &[(1, 0, LOG), (2, 0, LOG)],
    },
    Case {
        why: "the default's action says nothing, so the conditional rule stands",
        rules: "ERRNO; ALLOW 0 EQ 1",
        calls: &[(1, 0, ALLOW), (2, 0, EPERM)],
    },
    Case {
        why: "the rule whose first argument has the higher index is asked first",
        rules: "ALLOW 0 EQ 1; TRAP 1 EQ 2",
        calls: &[(1, 2, TRAP), (1, 0, ALLOW), (0, 2, TRAP)],
    },
    Case {
        why: "equality before greater",
        rules: "ALLOW 0 GE 0; TRAP 0 EQ 1",
        calls: &[(1, 0, TRAP), (2, 0, ALLOW)],
    },
    Case {
        why: "equality before less",
        rules: "ALLOW 0 LE 9; TRAP 0 EQ 1",
        calls: &[(1, 0, TRAP), (2, 0, ALLOW), (10, 0, EPERM)],
    },
    Case {
        why: "less before greater",
        rules: "ALLOW 0 GT 5; TRAP 0 LT 10",
        calls: &[(7, 0, TRAP), (11, 0, ALLOW), (1, 0, TRAP)],
    },
    Case {
        why: "of two greater-than the larger value",
        rules: "ALLOW 0 GT 5; TRAP 0 GT 10",
        calls: &[(7, 0, ALLOW), (11, 0, TRAP), (5, 0, EPERM), (0x1_0000_0000, 0, TRAP)],
    },
    Case {
        why: "of two greater-than the larger value, the other way round",
        rules: "TRAP 0 GT 10; ALLOW 0 GT 5",
        calls: &[(7, 0, ALLOW), (11, 0, TRAP), (5, 0, EPERM), (0x1_0000_0000, 0, TRAP)],
    },
    Case {
        why: "of two less-than the smaller value",
        rules: "ALLOW 0 LT 10; TRAP 0 LT 5",
        calls: &[(7, 0, ALLOW), (4, 0, TRAP), (10, 0, EPERM)],
    },
    Case {
        why: "a rule behind one that has a part of its conditions is never asked",
        rules: "ALLOW 0 EQ 1; TRAP 0 EQ 1 & 1 EQ 2",
        calls: &[(1, 2, ALLOW), (1, 0, ALLOW)],
    },
    Case {
        why: "then by the second condition",
        rules: "ALLOW 0 EQ 1 & 1 GE 0; TRAP 0 EQ 1 & 1 EQ 2",
        calls: &[(1, 2, TRAP), (1, 0, ALLOW)],
    },
    Case {
        why: "a mask applies to both sides",
        rules: "ALLOW 0 MASKED_EQ 240 255",
        calls: &[(0xf0, 0, ALLOW), (0xff, 0, ALLOW), (0x0f, 0, EPERM)],
    },
    Case {
        why: "high and low words",
        rules: "ALLOW 0 EQ 4294967297; LOG 1 MASKED_EQ 1095216660480 4294967296",
        calls: &[
            (0x1_0000_0001, 0, ALLOW),
            (1, 0, EPERM),
            (0, 0x1_0000_0000, LOG),
            (0, 0x101_0000_0005, LOG),
        ],
    },
];

/// Refused, by libseccomp with EEXIST.
pub const CONTRADICTIONS: &[&str] = &[
    "ALLOW 0 EQ 1; TRAP 0 EQ 1",
    "ALLOW 0 NE 1 & 1 GT 7; TRAP 0 NE 1 & 1 GT 7",
    "ALLOW 0 EQ 1 & 1 EQ 2; TRAP 0 EQ 1",
];

#[test]
fn rules_are_asked_in_the_documented_order() {
    let abis = abis(Host::X86_64);
    for case in CASES {
        let profile = case.profile();
        let filter = compile_for(Host::X86_64, &profile).unwrap().unwrap();
        let model = Model::new(&profile, &abis);
        for (arg0, arg1, expected) in case.calls {
            let call = Call { arch: AUDIT_X86_64, nr: 41, args: [*arg0, *arg1, 0, 0, 0, 0] };
            assert_eq!(verdict(&filter.insns, &call), *expected, "{}: {arg0:#x} {arg1:#x}", case.why);
            assert_eq!(model.verdict(&call), *expected, "model, {}: {arg0:#x} {arg1:#x}", case.why);
        }
    }
}

#[test]
fn contradictions_are_refused_with_their_place() {
    for case in CONTRADICTIONS {
        let error = compile_for(Host::X86_64, &profile(case)).unwrap_err();
        let text = "config.json /linux/seccomp/syscalls/1: contradicts an earlier rule for socket (SCMP_ARCH_X86_64)";
        assert_eq!(error.to_string(), text, "{case}");
    }
}
