// SPDX-License-Identifier: Apache-2.0
//! `update`.

#![forbid(unsafe_code)]

use crate::ask::{Home, Update};
use crate::cgroup;
use crate::container::{Container, Phase};
use crate::error::{Error, Kind, Result};

/// `update`: changes limits of a container that is created, running or paused, all of them or none, and remembers them.
///
/// # Errors
/// `Kind::Invalid` and `Kind::Unsupported` before anything was written, with the pointer of the value; `Kind::Status` for
/// a stopped container and for a limit below the usage (`checkBeforeUpdate`); `Kind::Os` for what the kernel refuses:
/// what was written before is then taken back.
pub fn update(home: &Home, id: &str, ask: &Update) -> Result<()> {
    let mut container = Container::open_locked(home, id)?;
    match container.phase()?.0 {
        Phase::Created | Phase::Running | Phase::Paused => {}
        _ => return Err(Error::new(Kind::Status, format!("container not running: {id}"))),
    }
    rdt(ask)?;
    if container.state.cgroup.groups.is_empty() {
        return Err(Error::new(Kind::Unsupported, "the container has no control group to limit"));
    }
    let old = container.resources()?;
    let change = cgroup::change(&container.state.cgroup, &old, &ask.resources)?;
    for (at, why) in &change.plan.warnings {
        (home.warn)(&format!("{}: {why}", at.replace("/linux/resources", "resources ")));
    }
    let group = container.group();
    group.set_properties(&change.plan)?;
    let before = group.update(&change).inspect_err(|_| {
        // systemd took them; the kernel did not.
        let back = cgroup::change(&container.state.cgroup, &change.resources, &old);
        if let Err(error) = back.and_then(|back| group.set_properties(&back.plan)) {
            (home.warn)(&error.to_string());
        }
    })?;
    container.state.resources = Some(change.resources.clone());
    container.dir.write(&container.state).map_err(|error| match before.restore() {
        Ok(()) => error,
        Err(also) => error.at(format!("and the limits are not back ({also})")),
    })
}

/// Intel RDT is not built yet: nothing may be passed over in silence.
fn rdt(ask: &Update) -> Result<()> {
    let asked = [("l3-cache-schema", &ask.l3_cache_schema), ("mem-bw-schema", &ask.mem_bw_schema)];
    match asked.iter().find(|(_, schema)| schema.is_some()) {
        Some((name, _)) => {
            Err(Error::new(Kind::Unsupported, "Intel RDT is not built yet").at(format!("--{name}")))
        }
        None => Ok(()),
    }
}
