// SPDX-License-Identifier: Apache-2.0
//! What a list of device rules means, for the unit tests and the fuzzer. `super` has `DeviceRule`.

use super::DeviceRule;

/// The rules in the words of the module's header, read straight off the configuration's list.
pub fn model(list: &[DeviceRule], kind: char, major: u32, minor: u32, letter: char) -> bool {
    let builtin = match (kind, major, minor) {
        (_, _, _) if letter == 'm' => true,
        ('c', 1, 3 | 5 | 7 | 8 | 9) | ('c', 5, 0 | 2) | ('c', 136, _) | ('c', 10, 200) => true,
        _ => false,
    };
    for rule in list.iter().rev() {
        let any = |n: Option<i64>| n.is_none_or(|n| n == -1);
        let all = matches!(rule.kind.as_str(), "" | "a");
        let letters = if rule.access.is_empty() { "rwm" } else { &rule.access };
        if all && any(rule.major) && any(rule.minor) && "rwm".chars().all(|l| letters.contains(l)) {
            return rule.allow || builtin;
        }
        let typed = all || rule.kind.replace('u', "c") == kind.to_string();
        let is = |n: Option<i64>, m: u32| any(n) || n == Some(m.into());
        if typed && is(rule.major, major) && is(rule.minor, minor) && letters.contains(letter) {
            return rule.allow;
        }
    }
    builtin
}
