// SPDX-License-Identifier: Apache-2.0
//! Capability sets as bit masks (capabilities(7)). Names come from the `caps` crate.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::str::FromStr;

use caps::Capability;

use super::text::printable;
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::spec;

/// Every one that has a name here, by number. (`caps::all` has them in a set, whose order is drawn by lot: getrandom(2).)
pub(crate) const ALL: [Capability; 41] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
    Capability::CAP_KILL,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
    Capability::CAP_SETPCAP,
    Capability::CAP_LINUX_IMMUTABLE,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_NET_BROADCAST,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_RAW,
    Capability::CAP_IPC_LOCK,
    Capability::CAP_IPC_OWNER,
    Capability::CAP_SYS_MODULE,
    Capability::CAP_SYS_RAWIO,
    Capability::CAP_SYS_CHROOT,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_SYS_PACCT,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_BOOT,
    Capability::CAP_SYS_NICE,
    Capability::CAP_SYS_RESOURCE,
    Capability::CAP_SYS_TIME,
    Capability::CAP_SYS_TTY_CONFIG,
    Capability::CAP_MKNOD,
    Capability::CAP_LEASE,
    Capability::CAP_AUDIT_WRITE,
    Capability::CAP_AUDIT_CONTROL,
    Capability::CAP_SETFCAP,
    Capability::CAP_MAC_OVERRIDE,
    Capability::CAP_MAC_ADMIN,
    Capability::CAP_SYSLOG,
    Capability::CAP_WAKE_ALARM,
    Capability::CAP_BLOCK_SUSPEND,
    Capability::CAP_AUDIT_READ,
    Capability::CAP_PERFMON,
    Capability::CAP_BPF,
    Capability::CAP_CHECKPOINT_RESTORE,
];

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
        let names = ignored.names.join(", ");
        warnings.push(format!(
            "config.json {at}/capabilities: ignoring unknown or unavailable capabilities: {names}"
        ));
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
    seen: BTreeSet<String>,
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
    let name = |number: u8| match ALL.get(usize::from(number)) {
        Some(cap) => cap.to_string(),
        None => format!("CAP_{number}"),
    };
    (0..64).filter(|number| mask & (1 << number) != 0).map(name).collect()
}
