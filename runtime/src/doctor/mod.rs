// SPDX-License-Identifier: Apache-2.0
//! `doctor`: what this host has of all that containers need, what is wrong with it, and what to do about it.
//!
//! ```text
//! Signs::look ─plain data─> examine ─> Checks
//! ```
//! Looking changes nothing: no file is written, no group made, no module loaded, nobody signalled. Judging ([`examine`]) is pure,
//! so that each check has a test in which it fails (`tests.rs`). A subject's two halves, `look` and `examine`, stand in one file;
//! what a check is about, since when the kernel has it and what is lost without, stands in `catalogue.rs`. Only `clean` removes,
//! and only if it is asked to.

#![forbid(unsafe_code)]

mod catalogue;
mod cgroups;
mod clean;
pub(crate) mod containerd;
pub(crate) mod engines;
mod files;
mod kernel;
mod leftovers;
mod podman;
pub(crate) mod programs;
mod security;
pub(crate) mod toml;
mod users;

#[cfg(test)]
mod tests;

use std::path::Path;

use serde::Serialize;

use crate::error::Result;
use crate::facts::Facts;

pub use clean::{Cleaned, clean};
pub use leftovers::Leftovers;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// As it should be.
    Ok,
    /// Something that only who asks for it misses.
    Note,
    /// It could not be found out, or could not be asked here.
    Unknown,
    /// Containers run, some of them not as they could or not as somebody meant.
    Warn,
    /// Containers do not run, or an engine's do not.
    Fail,
}

/// One check and how it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostCheck {
    /// `group.name`; it stays what it is.
    pub id: &'static str,
    /// Which one, where there are several: a directory, a program, a handler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// How it went.
    pub health: Health,
    /// What there is.
    pub found: String,
    /// The first kernel (or other program) that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<&'static str>,
    /// What is lost where it is missing.
    pub lost: &'static str,
    /// What to do about it; nothing where it went well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub advice: String,
    /// It is `lost`.
    #[serde(skip)]
    pub loses: bool,
}

impl HostCheck {
    fn new(
        id: &'static str,
        health: Health,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> HostCheck {
        let row = catalogue::row(id);
        let (since, lost) = (row.and_then(|row| row.since), row.map_or("", |row| row.lost));
        // A note on a thing of no version tells of something else than that it is missing.
        let loses = health >= Health::Warn || health == Health::Note && since.is_some();
        HostCheck {
            id,
            subject: None,
            health,
            found: found.into(),
            since,
            lost,
            advice: advice.into(),
            loses,
        }
    }

    fn ok(id: &'static str, found: impl Into<String>) -> HostCheck {
        HostCheck::new(id, Health::Ok, found, "")
    }

    fn note(id: &'static str, found: impl Into<String>, advice: impl Into<String>) -> HostCheck {
        HostCheck::new(id, Health::Note, found, advice)
    }

    /// Not checked, for a reason.
    fn unknown(id: &'static str, why: impl Into<String>) -> HostCheck {
        HostCheck::new(id, Health::Unknown, why, "")
    }

    fn warn(id: &'static str, found: impl Into<String>, advice: impl Into<String>) -> HostCheck {
        HostCheck::new(id, Health::Warn, found, advice)
    }

    fn fail(id: &'static str, found: impl Into<String>, advice: impl Into<String>) -> HostCheck {
        HostCheck::new(id, Health::Fail, found, advice)
    }

    fn of(mut self, subject: impl Into<String>) -> HostCheck {
        self.subject = Some(subject.into());
        self
    }

    /// What the checks of its kind have in common: what stands before the dot.
    #[must_use]
    pub fn group(&self) -> &'static str {
        self.id.split_once('.').map_or(self.id, |(group, _)| group)
    }
}

/// What was seen of a host, as plain data.
#[derive(Debug, Clone)]
pub struct Signs {
    facts: Facts,
    kernel: kernel::KernelSigns,
    cgroups: cgroups::CgroupSigns,
    users: users::UserSigns,
    security: security::SecuritySigns,
    files: files::FileSigns,
    programs: programs::ProgramSigns,
    engines: engines::EngineSigns,
    leftovers: Leftovers,
}

impl Signs {
    /// Looks at the host; `root` is the state root. Must be called while this process has one thread.
    ///
    /// # Errors
    /// Only without a procfs.
    pub fn look(root: &Path) -> Result<Signs> {
        let facts = Facts::probe()?;
        let users = users::look(&facts);
        let programs = programs::look(programs::PATIENCE);
        let mut leftovers = leftovers::look(&facts, root);
        leftovers.shim_program = programs.shim.first().map(|shim| shim.path.clone());
        Ok(Signs {
            kernel: kernel::look(),
            cgroups: cgroups::look(&facts),
            security: security::look(),
            files: files::look(&facts, root),
            engines: engines::look(&facts),
            leftovers,
            users,
            programs,
            facts,
        })
    }

    /// What is left of dead containers, for [`clean`].
    #[must_use]
    pub fn leftovers(&self) -> &Leftovers {
        &self.leftovers
    }

    /// Root of the initial user namespace.
    fn is_host_root(&self) -> bool {
        self.facts.euid == 0 && !self.facts.in_userns
    }
}

/// Judges it: every check that this host and this user give occasion for, in the order in which it is told.
#[must_use]
pub fn examine(signs: &Signs) -> Vec<HostCheck> {
    let subjects = [
        kernel::examine,
        cgroups::examine,
        users::examine,
        security::examine,
        files::examine,
        programs::examine,
        engines::examine,
        leftovers::examine,
    ];
    subjects.iter().flat_map(|examine| examine(signs)).collect()
}

/// The worst of them; what could not be asked is no illness.
#[must_use]
pub fn worst(checks: &[HostCheck]) -> Health {
    let known = checks.iter().map(|check| check.health).filter(|health| *health != Health::Unknown);
    known.max().unwrap_or(Health::Ok)
}
