// SPDX-License-Identifier: Apache-2.0
//! Device rules → eBPF and → lines of cgroup v1, each run by a machine of the tests, against the rules' meaning.

use corten::ask::Manager;
use corten::cgroup::{DevicePlan, Hierarchies, Policy, compile_devices, decide_groups};
use corten::spec::{self, DeviceRule, Resources};
use corten::sys::bpf::Insn;

use crate::mutate::Shape;
use crate::random::{Random, hash};
use crate::targets::Target;
use crate::{holds, hosts};
use machine::run as execute;
use model::model;

#[path = "../../devices/machine.rs"]
mod machine;
#[path = "../../devices/model.rs"]
mod model;

pub const TARGET: Target = Target { name: "devices", shape: Shape::Json, seeds, run, short: 4000 };

/// Accesses asked about for each list.
const ACCESSES: usize = 60;

fn run(input: &[u8]) -> bool {
    let Some((_, json)) = input.split_first() else { return false };
    let rules = match spec::read::<Vec<DeviceRule>>("config.json", json) {
        Ok(rules) => rules,
        Err(error) => {
            holds::configuration_error("config.json", &error);
            return false;
        }
    };
    let policy = match Policy::of(&rules) {
        Ok(policy) => policy,
        Err(error) => {
            holds::configuration_error("config.json /linux/resources/devices", &error);
            return false;
        }
    };
    let program = compile_devices(&policy);
    assert!(program.len() < 1 << 15, "{} instructions", program.len());
    let v1 = v1(&hosts::v1().cgroups, rules.clone());
    let mut random = Random(hash(input));
    for _ in 0..ACCESSES {
        let (major, minor) = numbers(&rules, &mut random);
        let (kind, letters) = (1 + random.below(2) as u32, 1 + random.below(7) as u32);
        let name = if kind == 1 { 'b' } else { 'c' };
        let asked = [(1, 'm'), (2, 'r'), (4, 'w')].into_iter().filter(|(bit, _)| letters & bit != 0);
        let means = asked.clone().all(|(_, letter)| model(&rules, name, major, minor, letter));
        let does = execute(&program, kind, letters, major, minor) == 1;
        assert_eq!(does, means, "{name} {major}:{minor} {letters} of {rules:?}");
        let Some(v1) = &v1 else { continue };
        for (_, letter) in asked {
            let (does, means) =
                (v1.allows(name, major, minor, letter), model(&rules, name, major, minor, letter));
            // The one tolerated difference: nodes may be made of devices that may not be opened.
            assert!(
                does == means || does && letter == 'm',
                "v1: {name} {major}:{minor} {letter} of {rules:?}"
            );
        }
    }
    true
}

/// Device numbers near those of the rules, and of the built-in ones. The kernel's have 12 and 20 bits.
fn numbers(rules: &[DeviceRule], random: &mut Random) -> (u32, u32) {
    let mut near = |of: Option<i64>, some: &[u32], most: u32| match of.and_then(|n| u32::try_from(n).ok()) {
        Some(n) if n <= most && !random.one_in(4) => n,
        Some(n) if n < most && random.one_in(2) => n + 1,
        _ => *random.pick(some),
    };
    let rule = if rules.is_empty() {
        None
    } else {
        Some(&rules[hash(&rules.len().to_ne_bytes()) as usize % rules.len()])
    };
    let major = near(rule.and_then(|rule| rule.major), &[0, 1, 5, 8, 10, 136, 4095], 4095);
    let minor = near(rule.and_then(|rule| rule.minor), &[0, 1, 2, 3, 5, 200, 0xf_ffff], 0xf_ffff);
    (major, minor)
}

/// What the kernel keeps of the lines that are written (security/device_cgroup.c): a default, and exceptions from it.
struct V1 {
    allow: bool,
    exceptions: Vec<(char, Option<u32>, Option<u32>, String)>,
}

impl V1 {
    fn allows(&self, kind: char, major: u32, minor: u32, letter: char) -> bool {
        let is = |n: &Option<u32>, m: u32| n.is_none_or(|n| n == m);
        let mut exceptions = self.exceptions.iter();
        self.allow
            != exceptions.any(|(k, a, b, letters)| {
                *k == kind && is(a, major) && is(b, minor) && letters.contains(letter)
            })
    }
}

/// What v1 makes of the list; `None` where it says that it cannot.
fn v1(host: &Hierarchies, devices: Vec<DeviceRule>) -> Option<V1> {
    let resources = Resources { devices, ..Resources::default() };
    let plan = match decide_groups(host, Manager::Cgroupfs, "box", None, Some(&resources)) {
        Ok(plan) => plan,
        Err(error) => {
            holds::configuration_error("config.json /linux/resources/devices", &error);
            return None;
        }
    };
    let DevicePlan::Lines(lines) = plan.devices else { panic!("a program on v1") };
    let mut v1 = V1 { allow: true, exceptions: Vec::new() };
    for line in &lines {
        let allow = line.file == "devices.allow";
        if line.value == "a" {
            v1 = V1 { allow, exceptions: Vec::new() };
            continue;
        }
        assert_ne!(allow, v1.allow, "a line that the kernel would take for the opposite: {line:?}");
        let fields: Vec<&str> = line.value.split([' ', ':']).collect();
        let [kind @ ("b" | "c"), major, minor, letters] = fields[..] else { panic!("{line:?}") };
        let number = |text: &str| (text != "*").then(|| text.parse().unwrap());
        v1.exceptions.push((kind.chars().next().unwrap(), number(major), number(minor), letters.to_owned()));
    }
    Some(v1)
}

fn seeds() -> Vec<Vec<u8>> {
    let lists = [
        r#"[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":3,"access":"rwm"},{"allow":true,"type":"b","major":8,"access":"r"}]"#,
        r#"[{"allow":true},{"allow":false,"type":"c","major":10,"minor":229,"access":"rw"},{"allow":true,"type":"u","minor":5}]"#,
        r#"[{"allow":true,"type":"a","major":-1,"minor":-1,"access":"m"},{"allow":false,"type":"b"},{"allow":false,"type":"c","major":136,"minor":-1,"access":"w"}]"#,
        r#"[]"#,
    ];
    lists.iter().map(|list| [b"0", list.as_bytes()].concat()).collect()
}
