// SPDX-License-Identifier: Apache-2.0
//! Capability sets as bit masks (capabilities(7)). Names come from the `caps` crate.

#![forbid(unsafe_code)]

use std::collections::HashSet;
use std::str::FromStr;

use caps::Capability;

use super::text::printable;
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::spec;

/// The five sets, bit n = capability n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Caps {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

/// The sets of a process object whose pointer is `at`. No object means no capability at all, as in runc. Nothing is
/// added to any set: inheritable and ambient capabilities that nobody asked for were CVE-2022-29162 and its kin.
///
/// Capabilities that nobody knows, or this kernel does not have, are left out with a warning (config.md: "SHOULD
/// NOT" fail); so are ambient ones that the kernel would refuse.
///
/// # Errors
/// An effective capability that is not permitted: capset(2) would refuse the whole.
pub fn decide_capabilities(
    sets: Option<&spec::Capabilities>,
    at: &str,
    facts: &Facts,
    warnings: &mut Vec<String>,
) -> Result<Caps> {
    let Some(sets) = sets else { return Ok(Caps::default()) };
    let mut ignored = Ignored::default();
    let mut mask = |names: &[String]| names.iter().fold(0, |set, name| set | bit(name, facts, &mut ignored));
    let mut caps = Caps {
        bounding: mask(&sets.bounding),
        effective: mask(&sets.effective),
        permitted: mask(&sets.permitted),
        inheritable: mask(&sets.inheritable),
        ambient: mask(&sets.ambient),
    };
    if !ignored.names.is_empty() {
        warnings.push(format!("ignoring unknown or unavailable capabilities: {}", ignored.names.join(", ")));
    }
    let excess = caps.effective & !caps.permitted;
    if excess != 0 {
        let text = format!("{} is not in the permitted set", names(excess).join(", "));
        return Err(Error::invalid(format_args!("{at}/capabilities/effective"), text));
    }
    let refused = caps.ambient & !(caps.permitted & caps.inheritable);
    for name in names(refused) {
        let text = "it is not both permitted and inheritable";
        warnings.push(format!("can't raise ambient capability {name}: {text}"));
    }
    caps.ambient &= !refused;
    Ok(caps)
}

/// Names that are no capability here, each once, in their order.
#[derive(Default)]
struct Ignored {
    seen: HashSet<String>,
    names: Vec<String>,
}

/// The capability's bit, or 0 with its name noted.
fn bit(name: &str, facts: &Facts, ignored: &mut Ignored) -> u64 {
    let known = Capability::from_str(name).ok().filter(|cap| u32::from(cap.index()) <= facts.last_cap);
    // Also those that we do not hold ourselves: capset(2) would refuse the whole.
    if let Some(cap) = known.filter(|cap| facts.grantable & cap.bitmask() != 0) {
        return cap.bitmask();
    }
    if ignored.seen.insert(name.to_owned()) {
        ignored.names.push(printable(name).into_owned());
    }
    0
}

/// The names of the capabilities in a mask, by number; those that `caps` has no name for as `CAP_41`.
#[must_use]
pub fn names(mask: u64) -> Vec<String> {
    let all = caps::all();
    let name = |number: u8| match all.iter().find(|cap| cap.index() == number) {
        Some(cap) => cap.to_string(),
        None => format!("CAP_{number}"),
    };
    (0..64).filter(|number| mask & (1 << number) != 0).map(name).collect()
}
