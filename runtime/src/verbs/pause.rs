// SPDX-License-Identifier: Apache-2.0
//! `pause` and `resume`.

#![forbid(unsafe_code)]

use crate::ask::Home;
use crate::container::{Container, Phase};
use crate::error::{Error, Kind, Result};

/// `pause`: freezes every process of the container, and waits until they are.
///
/// Source: runc-pause(8); cgroup.freeze (cgroups(7)).
#[doc = include_str!("examples/pause.md")]
/// # Errors
/// `Kind::Status` unless it is created or running; a freeze that does not come about is taken back.
pub fn pause(home: &Home, id: &str) -> Result<()> {
    let container = Container::open_locked(home, id)?;
    match container.phase()?.0 {
        Phase::Created | Phase::Running => container.group().freeze(true),
        _ => Err(Error::new(Kind::Status, format!("container not running or created: {id}"))),
    }
}

/// `resume`: thaws them.
///
/// Source: runc-resume(8).
#[doc = include_str!("examples/resume.md")]
/// # Errors
/// `Kind::Status` unless it is paused.
pub fn resume(home: &Home, id: &str) -> Result<()> {
    let container = Container::open_locked(home, id)?;
    match container.phase()?.0 {
        Phase::Paused => container.group().freeze(false),
        _ => Err(Error::new(Kind::Status, format!("container not paused: {id}"))),
    }
}
