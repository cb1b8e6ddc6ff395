// SPDX-License-Identifier: Apache-2.0
//! Which annotations the host's administrator lets be obeyed (docs/annotations.md).

#![forbid(unsafe_code)]

use std::collections::BTreeSet;

/// What annotations may do besides what anybody may ask for. What each name means is the plan's to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permitted {
    /// The names that the administrator has listed.
    pub listed: BTreeSet<String>,
    /// Keeping the caller's groups is nobody's to permit: they are the caller's own.
    pub groups: bool,
}

impl Permitted {
    /// Reads a list: a name on each line, or a comment after `#`.
    #[must_use]
    pub fn of(text: &str, groups: bool) -> Permitted {
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        Permitted { listed: lines.filter(|name| !name.is_empty()).map(str::to_owned).collect(), groups }
    }
}
