// SPDX-License-Identifier: Apache-2.0
//! `update`.

#![forbid(unsafe_code)]

use crate::ask::{Home, Update};
use crate::container::{Container, Phase};
use crate::error::{Error, Kind, Result};
use crate::host::rdt;
use crate::spec::{IntelRdt, Resources};
use crate::{cgroup, plan};

/// `update`: changes limits of a container that is created, running or paused, all of them or none, and remembers them.
///
/// The limits have the units of config-linux.md, "Control groups", which is the source.
#[doc = include_str!("examples/update.md")]
/// # Errors
/// `Kind::Invalid` and `Kind::Unsupported` before anything was written, with the pointer of the value or the flag; `Kind::Status` for
/// a stopped container and for a limit below the usage (`checkBeforeUpdate`); `Kind::Os` for what the kernel refuses:
/// what was written before is then taken back.
pub fn update(home: &Home, id: &str, ask: &Update) -> Result<()> {
    let mut container = Container::open_locked(home, id)?;
    match container.phase()?.0 {
        Phase::Created | Phase::Running | Phase::Paused => {}
        _ => return Err(Error::new(Kind::Status, format!("container not running: {id}"))),
    }
    let before = schemata(&container, &ask.rdt)?;
    let limited = match ask.resources == Resources::default() {
        true => Ok(()),
        false => limits(home, &mut container, &ask.resources),
    };
    limited.map_err(|error| taken_back(error, "schemata", before.map_or(Ok(()), |before| before.restore())))
}

/// The error, and what became of undoing what was done before it.
fn taken_back(error: Error, what: &str, undone: Result<()>) -> Error {
    match undone {
        Ok(()) => error,
        Err(also) => error.at(format!("and the {what} are not back ({also})")),
    }
}

/// Intel RDT: new schemata for the class of a container that has one.
fn schemata(container: &Container, ask: &IntelRdt) -> Result<Option<rdt::SchemataBefore>> {
    let flags = |error: Error| {
        error
            .relocated("config.json /linux/intelRdt/l3CacheSchema", "--l3-cache-schema")
            .relocated("config.json /linux/intelRdt/memBwSchema", "--mem-bw-schema")
    };
    let lines = plan::rdt::decide_rdt(Some(ask)).map_err(flags)?.map(|rdt| rdt.schemata).unwrap_or_default();
    if lines.is_empty() {
        return Ok(None);
    }
    let Some(record) = &container.state.rdt else {
        let text = "the container was created without intelRdt: it has no class to give schemata";
        return Err(Error::new(Kind::Unsupported, text));
    };
    rdt::update(record, &lines)
}

fn limits(home: &Home, container: &mut Container, ask: &Resources) -> Result<()> {
    if container.state.cgroup.groups.is_empty() {
        return Err(Error::new(Kind::Unsupported, "the container has no control group to limit"));
    }
    let old = container.resources()?;
    let change = cgroup::change(&container.state.cgroup, &old, ask)?;
    for (at, why) in &change.plan.warnings {
        (home.warn)(&format!("{}: {why}", at.replace("/linux/resources", "resources ")));
    }
    let group = &container.group;
    let mut before = group.update(&change)?;
    // systemd is told only what the kernel has taken: it could not be told to forget, as it has no word for a limit that was never
    // set. What it then writes is its own way of saying it; the exact values come once more.
    if let Err(error) = group.set_properties(&change.plan).and_then(|()| before.write_after_systemd()) {
        return Err(taken_back(error, "limits", before.restore()));
    }
    container.state.resources = Some(change.resources.clone());
    container.dir.write(&container.state).map_err(|error| taken_back(error, "limits", before.restore()))
}
