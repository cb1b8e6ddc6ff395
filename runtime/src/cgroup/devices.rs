// SPDX-License-Identifier: Apache-2.0
//! Device rules: from the configuration's list to a policy, and from a policy to the lines of cgroup v1. Pure.
//!
//! What a rule list means, for each device and each letter of `rwm` by itself: the last rule that covers the
//! device and has the letter decides; where none does, the built-in rules below decide, and then "no". Rules for
//! everything (`a`, no numbers, `rwm`) start anew: "allow" allows everything, "deny" goes back to the built-in
//! rules. So the deny-all that heads every client's list leaves a container its /dev/null, while a rule that names
//! it takes it away (runc lets nobody do that).

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;

use crate::error::{Error, Kind, Result};
use crate::spec::DeviceRule;

/// Letter `m`; the values are the kernel's `BPF_DEVCG_ACC_*`.
pub(super) const MKNOD: u8 = 1;
/// Letter `r`.
pub(super) const READ: u8 = 2;
/// Letter `w`.
pub(super) const WRITE: u8 = 4;
/// All letters.
pub(super) const RWM: u8 = 7;
/// No list in the field comes near it; it bounds the work done on a hostile one, and the jumps of the program.
pub(super) const MOST_RULES: usize = 2048;

/// Type of device; the values are the kernel's `BPF_DEVCG_DEV_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Type {
    /// b
    Block = 1,
    /// c
    Char = 2,
}

/// Which devices a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Devices {
    pub kind: Type,
    /// Major number; `None` is every one.
    pub major: Option<u32>,
    /// Minor number; `None` is every one.
    pub minor: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub devices: Devices,
    /// Bits of `rwm` (m = 1, r = 2, w = 4).
    pub access: u8,
    /// Allow or deny.
    pub allow: bool,
    /// Not from the configuration.
    pub builtin: bool,
}

/// A rule list, made canonical: the first rule that covers the device and has the letter decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The rules, the deciding one first (the configuration's order reversed).
    pub rules: Vec<Rule>,
    /// What holds where no rule decides.
    pub otherwise: bool,
}

const fn builtin(kind: Type, major: Option<u32>, minor: Option<u32>, access: u8) -> Rule {
    Rule { devices: Devices { kind, major, minor }, access, allow: true, builtin: true }
}

/// What every container may use: runc's list. Not the host's console: a container's own is a pseudo-terminal.
const BUILTIN: [Rule; 11] = [
    builtin(Type::Char, None, None, MKNOD),
    builtin(Type::Block, None, None, MKNOD),
    builtin(Type::Char, Some(1), Some(3), RWM),    // null
    builtin(Type::Char, Some(1), Some(5), RWM),    // zero
    builtin(Type::Char, Some(1), Some(7), RWM),    // full
    builtin(Type::Char, Some(1), Some(8), RWM),    // random
    builtin(Type::Char, Some(1), Some(9), RWM),    // urandom
    builtin(Type::Char, Some(5), Some(0), RWM),    // tty
    builtin(Type::Char, Some(5), Some(2), RWM),    // ptmx
    builtin(Type::Char, Some(136), None, RWM),     // pts/*
    builtin(Type::Char, Some(10), Some(200), RWM), // net/tun
];

impl Policy {
    /// The meaning of the configuration's list.
    ///
    /// # Errors
    /// `Kind::Invalid` with the pointer of the rule.
    pub fn of(list: &[DeviceRule]) -> Result<Policy> {
        if list.len() > MOST_RULES {
            return Err(Error::invalid("/linux/resources/devices", format!("more than {MOST_RULES} rules")));
        }
        let mut rules = BUILTIN.to_vec();
        let mut otherwise = false;
        for (index, rule) in list.iter().enumerate() {
            let read =
                read(rule).map_err(|why| Error::invalid(format!("/linux/resources/devices/{index}"), why))?;
            match read.as_slice() {
                // Everything: start anew.
                [Rule { devices: Devices { major: None, minor: None, .. }, access: RWM, allow, .. }, _] => {
                    otherwise = *allow;
                    rules.clear();
                    if !allow {
                        rules.extend(BUILTIN);
                    }
                }
                some => rules.extend(some),
            }
        }
        Ok(Policy::canonical(&rules, otherwise))
    }

    /// Reverses the list and leaves out what later rules decide already, and rules at the end that say what holds
    /// anyway.
    fn canonical(list: &[Rule], otherwise: bool) -> Policy {
        let mut decided: BTreeMap<Devices, u8> = BTreeMap::new();
        let mut rules: Vec<Rule> = Vec::with_capacity(list.len());
        for rule in list.iter().rev() {
            let access =
                rule.devices.wider().iter().fold(rule.access, |a, d| a & !decided.get(d).unwrap_or(&0));
            if access != 0 {
                *decided.entry(rule.devices).or_default() |= access;
                rules.push(Rule { access, ..*rule });
            }
        }
        while rules.last().is_some_and(|rule| rule.allow == otherwise) {
            rules.pop();
        }
        Policy { rules, otherwise }
    }

    /// Whether every device may be used: then there is nothing to enforce.
    #[must_use]
    pub(crate) fn allows_everything(&self) -> bool {
        self.otherwise && self.rules.is_empty()
    }

    /// Whether nodes of every device may be made, as the built-in rules have it.
    #[must_use]
    pub(super) fn lets_make_nodes(&self) -> bool {
        let makes = |rule: &&Rule| rule.access & MKNOD != 0;
        let whole = |kind| Devices { kind, major: None, minor: None };
        let all = |kind| self.rules.iter().filter(makes).any(|rule| rule.devices == whole(kind));
        let denied = self.rules.iter().filter(makes).any(|rule| !rule.allow);
        !denied && (self.otherwise || all(Type::Char) && all(Type::Block))
    }

    /// The exceptions from `otherwise`, as cgroup v1 can hold them: a set without order, in which an exception can only
    /// be taken back exactly as it was made.
    ///
    /// # Errors
    /// `Kind::Unsupported` for a list that excepts something from an exception.
    pub(super) fn exceptions(&self) -> Result<Vec<Rule>> {
        let mut set: Vec<Rule> = Vec::with_capacity(self.rules.len());
        for rule in self.rules.iter().rev() {
            if rule.allow != self.otherwise {
                set.push(*rule);
                continue;
            }
            for exception in &mut set {
                if rule.devices.covers(&exception.devices) {
                    exception.access &= !rule.access;
                } else if exception.devices.overlaps(&rule.devices) {
                    let left = exception.access & rule.access;
                    // Making a node of a device one may not open is harmless, and v1 cannot say it otherwise.
                    if left != 0 && !(exception.builtin && left == MKNOD) {
                        return Err(Error::new(
                            Kind::Unsupported,
                            format!("cgroup v1 cannot except \"{rule}\" from \"{exception}\""),
                        )
                        .at("config.json /linux/resources/devices"));
                    }
                }
            }
        }
        set.retain(|exception| exception.access != 0);
        if !self.otherwise {
            one_for_both(&mut set)?;
        }
        // What the configuration asks for first, in its order: so it is found in `devices.list`.
        set.sort_by_key(|exception| exception.builtin);
        Ok(set)
    }
}

/// Who opens a device for reading and writing is asked for both at once, and v1 looks for one exception that has both
/// (`match_exception` of security/device_cgroup.c): where two allow a letter each, there has to be one more.
fn one_for_both(set: &mut Vec<Rule>) -> Result<()> {
    const BOTH: u8 = READ | WRITE;
    let partial = |rule: &&Rule| !matches!(rule.access & BOTH, 0 | BOTH);
    let halves: Vec<Rule> = set.iter().filter(partial).copied().collect();
    let covered = |devices: Devices| {
        let wider = halves.iter().filter(|half| half.devices.covers(&devices));
        wider.fold(0, |access, half| access | half.access & BOTH)
    };
    for rule in set.iter_mut().filter(|rule| partial(&&**rule)) {
        rule.access |= covered(rule.devices);
    }
    let meet = |a: &Rule, b: &Rule| match (a.devices, b.devices) {
        (
            Devices { kind, major: Some(major), minor: None },
            Devices { kind: same, major: None, minor: Some(minor) },
        ) if kind == same && (a.access | b.access) & BOTH == BOTH => {
            Some(Devices { kind, major: Some(major), minor: Some(minor) })
        }
        _ => None,
    };
    for (major, minor) in halves.iter().flat_map(|a| halves.iter().map(move |b| (a, b))) {
        let Some(devices) = meet(major, minor) else { continue };
        if set.len() >= MOST_RULES {
            let text = format!("cgroup v1 would need more than {MOST_RULES} rules to say this");
            return Err(Error::new(Kind::Unsupported, text).at("config.json /linux/resources/devices"));
        }
        match set.iter_mut().find(|rule| rule.devices == devices) {
            Some(rule) => rule.access |= BOTH,
            None => set.push(Rule { devices, access: BOTH, allow: true, builtin: false }),
        }
    }
    Ok(())
}

impl Devices {
    /// Itself and every wider set that a rule can name.
    fn wider(self) -> [Devices; 4] {
        let Devices { major, minor, .. } = self;
        [(major, minor), (major, None), (None, minor), (None, None)].map(|(major, minor)| Devices {
            major,
            minor,
            ..self
        })
    }

    fn covers(&self, other: &Devices) -> bool {
        other.wider().contains(self)
    }

    fn overlaps(&self, other: &Devices) -> bool {
        let meet = |a: Option<u32>, b: Option<u32>| a.is_none() || b.is_none() || a == b;
        self.kind == other.kind && meet(self.major, other.major) && meet(self.minor, other.minor)
    }
}

/// One rule of the configuration: one of ours, or two where the type is `a`.
fn read(rule: &DeviceRule) -> Result<Vec<Rule>, String> {
    let kinds: &[Type] = match rule.kind.as_str() {
        "" | "a" => &[Type::Char, Type::Block],
        "c" | "u" => &[Type::Char],
        "b" => &[Type::Block],
        other => return Err(format!("invalid device type {other:?}")),
    };
    let number = |number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(n) => u32::try_from(n).map(Some).map_err(|_| format!("{n} is no device number")),
    };
    let (major, minor) = (number(rule.major)?, number(rule.minor)?);
    let access = access(&rule.access)?;
    let rule =
        |&kind| Rule { devices: Devices { kind, major, minor }, access, allow: rule.allow, builtin: false };
    Ok(kinds.iter().map(rule).collect())
}

fn access(letters: &str) -> Result<u8, String> {
    if letters.is_empty() {
        return Ok(RWM);
    }
    letters.chars().try_fold(0, |access, letter| match letter {
        'r' => Ok(access | READ),
        'w' => Ok(access | WRITE),
        'm' => Ok(access | MKNOD),
        other => Err(format!("invalid device access {other:?}")),
    })
}

/// As in devices.allow: `c 1:3 rwm`.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
        let kind = if self.devices.kind == Type::Char { 'c' } else { 'b' };
        write!(f, "{kind} {}:{} ", number(self.devices.major), number(self.devices.minor))?;
        for (bit, letter) in [(READ, "r"), (WRITE, "w"), (MKNOD, "m")] {
            if self.access & bit != 0 {
                f.write_str(letter)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "../../tests/devices/model.rs"]
pub(super) mod model;

#[cfg(test)]
#[path = "../../tests/devices/lists.rs"]
pub(super) mod lists;

#[cfg(test)]
mod tests {
    use super::lists::{LETTERS, Random, random_list};
    use super::model::model;
    use super::*;

    fn rule(allow: bool, kind: &str, major: i64, minor: i64, access: &str) -> DeviceRule {
        DeviceRule { allow, kind: kind.into(), major: Some(major), minor: Some(minor), access: access.into() }
    }

    fn lines(list: &[DeviceRule]) -> Vec<String> {
        let set = Policy::of(list).unwrap().exceptions().unwrap();
        set.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn deny_all_leaves_the_built_in_rules_wherever_it_stands() {
        let builtin = Policy::of(&[]).unwrap();
        assert_eq!(builtin.rules.len(), BUILTIN.len());
        let deny = DeviceRule { access: "rwm".into(), ..DeviceRule::default() };
        assert_eq!(Policy::of(std::slice::from_ref(&deny)).unwrap(), builtin);
        assert_eq!(Policy::of(&[rule(true, "b", 8, 0, "r"), deny.clone(), deny]).unwrap(), builtin);
    }

    #[test]
    fn a_named_built_in_rule_can_be_denied() {
        let policy = Policy::of(&[rule(false, "c", 1, 3, "rwm")]).unwrap();
        assert!(
            !policy.rules[0].allow && !policy.rules.iter().any(|r| r.to_string() == "c 1:3 rwm" && r.allow)
        );
        let none = Policy::of(&[rule(false, "c", -1, -1, ""), rule(false, "b", -1, -1, "")]).unwrap();
        assert_eq!(none, Policy { rules: Vec::new(), otherwise: false });
    }

    #[test]
    fn allow_all_leaves_nothing_to_enforce() {
        let allow = DeviceRule { allow: true, ..DeviceRule::default() };
        assert!(Policy::of(&[rule(true, "b", 8, 0, "r"), allow.clone()]).unwrap().allows_everything());
        // Some letters only are no "everything".
        let read = DeviceRule { access: "r".into(), ..allow };
        assert!(!Policy::of(&[read]).unwrap().otherwise);
    }

    #[test]
    fn wrong_rules_name_their_pointer() {
        for wrong in [
            rule(true, "p", 1, 3, "r"),
            rule(true, "c", -2, 3, "r"),
            rule(true, "c", 1 << 32, 3, "r"),
            rule(true, "c", 1, 3, "rx"),
        ] {
            let error = Policy::of(&[DeviceRule::default(), wrong]).unwrap_err();
            assert!(error.to_string().starts_with("config.json /linux/resources/devices/1: "), "{error}");
        }
    }

    #[test]
    fn nodes_that_may_not_be_made() {
        let makes = |list: &[DeviceRule]| Policy::of(list).unwrap().lets_make_nodes();
        let allow = DeviceRule { allow: true, ..DeviceRule::default() };
        assert!(makes(&[]) && makes(&[DeviceRule::default()]) && makes(std::slice::from_ref(&allow)));
        assert!(makes(&[rule(false, "c", 1, 9, "rw"), rule(true, "b", 8, 0, "r")]));
        assert!(!makes(&[rule(false, "c", 1, 9, "rwm")]));
        assert!(!makes(&[rule(false, "b", -1, -1, "m")]));
        assert!(!makes(&[allow, rule(false, "c", -1, 5, "")]));
    }

    #[test]
    fn v1_lines() {
        let usual = lines(&[DeviceRule::default(), rule(true, "b", 8, -1, "r")]);
        assert_eq!((usual.len(), usual.first().unwrap().as_str()), (12, "b 8:* r"));
        assert!(!lines(&[rule(false, "c", 1, 3, "rw")]).contains(&"c 1:3 rwm".to_owned()));
        let allow = DeviceRule { allow: true, ..DeviceRule::default() };
        assert_eq!(lines(&[allow, rule(false, "c", 10, 229, "rw")]), ["c 10:229 rw"]);
    }

    #[test]
    fn v1_refuses_what_it_cannot_say() {
        let list = [rule(true, "b", 8, -1, "rw"), rule(false, "b", 8, 1, "w")];
        let error = Policy::of(&list).unwrap().exceptions().unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.to_string().contains("cannot except \"b 8:1 w\" from \"b 8:* rw\""), "{error}");
    }

    /// The kernel's reading of devices.allow and devices.deny (security/device_cgroup.c): one exception that allows all that
    /// is asked for, or one that denies any of it.
    fn kernel_v1(set: &[Rule], otherwise: bool, kind: Type, major: u32, minor: u32, letters: u8) -> bool {
        let one = Devices { kind, major: Some(major), minor: Some(minor) };
        let mut covering = set.iter().filter(|rule| rule.devices.covers(&one));
        match otherwise {
            true => !covering.any(|rule| rule.access & letters != 0),
            false => covering.any(|rule| rule.access & letters == letters),
        }
    }

    #[test]
    fn v1_and_the_model_agree_on_random_lists() {
        let mut random = Random(42);
        let mut said = 0;
        for _ in 0..3000 {
            let list = random_list(&mut random);
            let policy = Policy::of(&list).unwrap();
            let Ok(set) = policy.exceptions() else { continue };
            said += 1;
            for _ in 0..100 {
                let (major, minor) = random.numbers();
                // Nodes are made, or devices opened.
                let bits = [MKNOD, READ, WRITE, READ | WRITE][random.below(4) as usize];
                let (kind, name) = [(Type::Char, 'c'), (Type::Block, 'b')][random.below(2) as usize];
                let mut letters = LETTERS.iter().filter(|(bit, _)| bits & bit != 0);
                let expected = letters.all(|(_, letter)| model(&list, name, major, minor, *letter));
                let answer = kernel_v1(&set, policy.otherwise, kind, major, minor, bits);
                // The one tolerated difference: nodes may be made of devices that may not be opened.
                assert!(
                    answer == expected || (answer && bits == MKNOD),
                    "{name} {major}:{minor} {bits} {list:?}"
                );
            }
        }
        assert!(said > 500, "{said}");
    }
}
