// SPDX-License-Identifier: Apache-2.0
//! The NUMA memory policy (config-linux.md#memory-policy). Counterpart: the stage's `mempolicy` operation.

#![forbid(unsafe_code)]

use super::Field;
use super::sched::cpu_list;
use crate::error::{Error, Result};
use crate::spec;

/// Arguments of set_mempolicy(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemPolicy {
    /// MPOL_* number and MPOL_F_* bits.
    pub mode: u32,
    /// Bit n of word n / 64 is node n.
    pub nodes: Vec<u64>,
}

/// What a mode says about nodes (set_mempolicy(2)).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nodes {
    None,
    Some,
    Any,
}

/// Modes by name (linux/mempolicy.h).
const MODES: [(&str, u32, Nodes); 7] = [
    ("MPOL_BIND", 2, Nodes::Some),
    ("MPOL_DEFAULT", 0, Nodes::None),
    ("MPOL_INTERLEAVE", 3, Nodes::Some),
    ("MPOL_LOCAL", 4, Nodes::None),
    ("MPOL_PREFERRED", 1, Nodes::Any),
    ("MPOL_PREFERRED_MANY", 5, Nodes::Some),
    ("MPOL_WEIGHTED_INTERLEAVE", 6, Nodes::Some),
];

/// Flags by name (linux/mempolicy.h).
const FLAGS: [(&str, u32); 3] = [
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_STATIC_NODES", 1 << 15),
];

/// The names of all modes, sorted.
#[must_use]
pub(crate) fn mode_names() -> Vec<&'static str> {
    MODES.iter().map(|(name, ..)| *name).collect()
}

/// The names of all flags, sorted.
#[must_use]
pub(crate) fn flag_names() -> Vec<&'static str> {
    FLAGS.iter().map(|(name, _)| *name).collect()
}

/// The policy, in runc's words where they are matched (compatibility E12). An object without any field asks for nothing.
///
/// # Errors
/// Unknown names, nodes that do not read, a mode without the nodes that it needs.
pub(crate) fn decide_memory_policy(asked: Option<&spec::MemoryPolicy>) -> Result<Option<Field<MemPolicy>>> {
    const AT: &str = "/linux/memoryPolicy";
    let wrong = |field: &str, text: String| Err(Error::invalid(format_args!("{AT}/{field}"), text));
    let Some(asked) = asked.filter(|asked| **asked != spec::MemoryPolicy::default()) else { return Ok(None) };
    let Some((_, number, wants)) = MODES.iter().find(|(name, ..)| *name == asked.mode) else {
        return wrong("mode", format!("invalid memory policy mode {:?}", asked.mode));
    };
    let mut mode = *number;
    for (index, name) in asked.flags.iter().enumerate() {
        let Some((_, bit)) = FLAGS.iter().find(|(flag, _)| flag == name) else {
            return wrong(&format!("flags/{index}"), format!("invalid memory policy flag {name:?}"));
        };
        mode |= bit;
    }
    let nodes = match asked.nodes.trim() {
        "" => Vec::new(),
        list => match cpu_list(list) {
            Ok(set) => set.0,
            Err(part) => return wrong("nodes", format!("invalid memory policy node {part:?}")),
        },
    };
    let count: u32 = nodes.iter().map(|word| word.count_ones()).sum();
    match wants {
        Nodes::None if count != 0 => {
            wrong("nodes", format!("memory policy mode requires 0 nodes but got {count}"))
        }
        Nodes::Some if count == 0 => {
            wrong("nodes", "memory policy mode requires at least 1 node but got 0".to_owned())
        }
        _ => Ok(Some(Field { at: AT.to_owned(), value: MemPolicy { mode, nodes } })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// set_mempolicy(2): modes are small numbers, the flags bits above them.
    #[test]
    fn modes_and_flags() {
        assert_eq!(flag_names(), ["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"]);
        assert!(mode_names().contains(&"MPOL_BIND") && mode_names().is_sorted());
        let asked = spec::MemoryPolicy {
            mode: "MPOL_BIND".to_owned(),
            nodes: "0,64".to_owned(),
            flags: vec!["MPOL_F_STATIC_NODES".to_owned(), "MPOL_F_NUMA_BALANCING".to_owned()],
        };
        let policy = decide_memory_policy(Some(&asked)).unwrap().unwrap().value;
        assert_eq!(policy, MemPolicy { mode: 2 | 1 << 15 | 1 << 13, nodes: vec![1, 1] });
    }
}
