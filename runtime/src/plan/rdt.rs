// SPDX-License-Identifier: Apache-2.0
//! Intel RDT (config-linux.md#intelrdt): the class of service, its schemata, its monitoring group. Counterpart:
//! `host/rdt.rs`.

#![forbid(unsafe_code)]

use super::text::{filled, plain};
use crate::error::{Error, Result};
use crate::spec;

/// Which class of service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clos {
    /// The default one, the root of resctrl (`closID` is `/`).
    Default,
    /// One by name, which outlives the container.
    Named(String),
    /// One of the container's own, by its id.
    Own,
}

/// What is asked of resctrl.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rdt {
    /// The class of service.
    pub clos: Clos,
    /// Lines of the file `schemata`, in the order in which they are written; none leave it alone.
    pub schemata: Vec<String>,
    /// A monitoring group of the container's id.
    pub monitoring: bool,
}

/// What resctrl keeps for itself at its root.
const TAKEN: [&str; 4] = ["info", "mon_data", "mon_groups", "."];

/// Decides about `intelRdt`, if it is given.
///
/// # Errors
/// A class that is no plain name, lines that are several or of the wrong resource.
pub(crate) fn decide_rdt(asked: Option<&spec::IntelRdt>) -> Result<Option<Rdt>> {
    let Some(asked) = asked else { return Ok(None) };
    let wrong =
        |field: &str, text: String| Err(Error::invalid(format_args!("/linux/intelRdt/{field}"), text));
    let clos = match filled(asked.clos_id.as_deref()) {
        None => Clos::Own,
        Some("/") => Clos::Default,
        Some(name) if name.contains(['/', '\n', '\0']) || name == ".." || TAKEN.contains(&name) => {
            return wrong("closID", format!("invalid intelRdt.ClosID {name:?}"));
        }
        Some(name) => Clos::Named(name.to_owned()),
    };
    let mut schemata = Vec::new();
    if let Some(line) = filled(asked.l3_cache_schema.as_deref()) {
        // "SHOULD NOT contain newlines": two lines (L3CODE and L3DATA) are taken, as runc does.
        schemata.extend(plain("/linux/intelRdt/l3CacheSchema", line)?.lines().map(str::to_owned));
    }
    if let Some(line) = filled(asked.mem_bw_schema.as_deref()) {
        if !line.starts_with("MB:") || line.contains(['\n', '\0']) {
            return wrong("memBwSchema", format!("{line:?} is not one line that begins with MB:"));
        }
        schemata.push(line.to_owned());
    }
    for (index, line) in asked.schemata.iter().enumerate() {
        if line.contains(['\n', '\0']) || !line.contains(':') {
            return wrong(&format!("schemata/{index}"), format!("{line:?} is not one line of schemata"));
        }
        schemata.push(line.clone());
    }
    let monitoring = asked.enable_monitoring || asked.enable_cmt || asked.enable_mbm;
    Ok(Some(Rdt { clos, schemata, monitoring }))
}

/// The first of the lines `asked` that does not hold in `existing`, the content of a file `schemata`. A line of a
/// later place replaces what an earlier one says of the same resource and domain.
#[must_use]
pub(crate) fn mismatch<'a>(asked: &'a [String], existing: &str) -> Option<&'a str> {
    let there: Vec<(&str, &str, &str)> = existing.lines().flat_map(values).collect();
    let overruled = |index: usize, resource: &str, domain: &str| {
        let later = asked.iter().skip(index + 1).flat_map(|line| values(line));
        later.into_iter().any(|(r, d, _)| (r, d) == (resource, domain))
    };
    let differs = |(index, line): &(usize, &'a String)| {
        let found = values(line);
        let holds = |(resource, domain, value): &(&str, &str, &str)| {
            overruled(*index, resource, domain)
                || there
                    .iter()
                    .any(|(r, d, v)| (r, d) == (resource, domain) && is_same_value(resource, v, value))
        };
        found.is_empty() || !found.iter().all(holds)
    };
    asked.iter().enumerate().find(differs).map(|(_, line)| line.as_str())
}

/// `L3:0=7f0;1=1f` as resource, domain and value.
fn values(line: &str) -> Vec<(&str, &str, &str)> {
    let Some((resource, rest)) = line.split_once(':') else { return Vec::new() };
    let pairs = rest.split(';').filter_map(|pair| pair.split_once('='));
    pairs.map(|(domain, value)| (resource.trim(), domain.trim(), value.trim())).collect()
}

/// Caches have masks in hexadecimal, with or without leading zeros; bandwidth is decimal.
fn is_same_value(resource: &str, one: &str, other: &str) -> bool {
    let base = if resource.starts_with('L') { 16 } else { 10 };
    match (u64::from_str_radix(one, base), u64::from_str_radix(other, base)) {
        (Ok(one), Ok(other)) => one == other,
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemata_are_compared_by_value() {
        let existing = "    L3:0=00ff;1=0ff0\n    MB:0= 20;1=100\n";
        let check = |lines: &[&str]| {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            mismatch(&lines, existing).map(str::to_owned)
        };
        assert_eq!(check(&["L3:0=ff;1=ff0", "MB:0=20"]), None);
        assert_eq!(check(&["L3:1=ff0"]), None);
        assert_eq!(check(&["L3:0=f"]).as_deref(), Some("L3:0=f"));
        assert_eq!(check(&["L3:2=ff"]).as_deref(), Some("L3:2=ff"));
        assert_eq!(check(&["L2:0=ff"]).as_deref(), Some("L2:0=ff"));
        assert_eq!(check(&["MB:0=30"]).as_deref(), Some("MB:0=30"));
        assert_eq!(check(&["MB:0=30", "MB:0=20"]), None);
        // What is no number is compared as it is written.
        assert_eq!(mismatch(&["X:0=free".to_owned()], "    X:0=free\n"), None);
        assert_eq!(mismatch(&["X:0=busy".to_owned()], "    X:0=free\n"), Some("X:0=busy"));
        assert_eq!(check(&["nonsense"]).as_deref(), Some("nonsense"));
        assert_eq!(check(&[]), None);
    }
}
