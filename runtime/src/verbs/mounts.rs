// SPDX-License-Identifier: Apache-2.0
//! `mounts add` and `mounts remove` (crun's): what a container that is there has mounted, changed.

#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::create::read_file;
use super::exec::namespaces_to_enter;
use crate::ask::{Create, Home, Stdio};
use crate::container::{Container, Phase};
use crate::error::{Error, Kind, Result};
use crate::facts::{Facts, is_bind};
use crate::host::identity;
use crate::host::{Launch, LaunchPurpose, Subject, permitted};
use crate::plan::Plan;
use crate::plan::namespaces::NsKind;
use crate::program::check;
use crate::program::compile::{self, MountsEntry};
use crate::spec::{self, Mount, Spec};
use crate::state::NOTIFY_DIRECTORY;

/// File systems whose mounts are made of what only a create has.
const OF_A_CREATE: [&str; 3] = ["proc", "cgroup", "cgroup2"];

/// `mounts add`: `file` holds an array of mounts as those of config.json; each is made in the container, in its order, by the steps that a
/// create would make it with. All of them or none. Mount points that were missing stay.
///
/// # Errors
/// `Kind::Invalid` for what is wrong in the file, `Kind::Status` for a container that has stopped; those of a create's mounts.
pub fn add_mounts(home: &Home, id: &str, file: &Path) -> Result<()> {
    let mounts = read(file)?;
    let target = Target::open(home, id, file)?;
    for (index, mount) in mounts.iter().enumerate() {
        if let Err(error) = target.change(home, index, mount, true) {
            for (index, mount) in mounts.iter().enumerate().take(index).rev() {
                if let Err(error) = target.change(home, index, mount, false) {
                    (home.warn)(&format!("while undoing: {error}"));
                }
            }
            return Err(error);
        }
    }
    Ok(())
}

/// `mounts remove`: what is mounted last at the destination of each of the file's mounts goes, the last first, with all that is mounted below.
///
/// # Errors
/// As [`add_mounts`]; EINVAL where nothing is mounted. What has gone before that does not come back.
pub fn remove_mounts(home: &Home, id: &str, file: &Path) -> Result<()> {
    let mounts = read(file)?;
    let target = Target::open(home, id, file)?;
    mounts.iter().enumerate().rev().try_for_each(|(index, mount)| target.change(home, index, mount, false))
}

fn read(file: &Path) -> Result<Vec<Mount>> {
    let name = file.display().to_string();
    let mounts: Vec<Mount> = spec::read(&name, &read_file(file)?).map_err(|error| {
        error.advise("the file holds an array of mounts, each as in mounts of config.json")
    })?;
    for (index, mount) in mounts.iter().enumerate() {
        let kind = mount.kind.as_deref().unwrap_or_default();
        if OF_A_CREATE.contains(&kind) {
            let text = format!("a {kind} file system is mounted when the container is made, and not later");
            return Err(Error::new(Kind::Unsupported, text).at(format!("{name} /{index}/type")));
        }
    }
    Ok(mounts)
}

/// A container whose mounts change.
struct Target<'a> {
    container: Container,
    file: &'a Path,
    spec: Spec,
    facts: Facts,
    entry: MountsEntry,
}

impl<'a> Target<'a> {
    fn open(home: &Home, id: &str, file: &'a Path) -> Result<Target<'a>> {
        let container = Container::open_locked(home, id)?;
        if let (Phase::Stopped | Phase::Creating, _) | (_, None) = container.phase()? {
            return Err(Error::new(Kind::Status, "cannot change the mounts of a stopped container"));
        }
        let spec = container.spec()?;
        let mut facts = Facts::probe()?.for_rootless(home.rootless);
        facts.permitted = permitted::by(&facts, &spec.annotations)?;
        let namespaces = crate::plan::namespaces::decide_namespaces(&spec)?;
        if !namespaces.has(NsKind::Mount) {
            let text =
                "the container has no mount namespace of its own: what is mounted there is the runtime's";
            return Err(Error::new(Kind::Unsupported, text));
        }
        let entry = MountsEntry {
            kinds: namespaces_to_enter(&namespaces),
            user: namespaces.has(NsKind::User),
            chroot: container.state.no_pivot,
            ignored: facts.ignored,
        };
        Ok(Target { container, file, spec, facts, entry })
    }

    /// Adds or removes one mount, of which the plan is the container's with nothing else mounted.
    fn change(&self, home: &Home, index: usize, mount: &Mount, add: bool) -> Result<()> {
        let state = &self.container.state;
        let mut spec = self.spec.clone();
        spec.mounts = vec![if add { mount.clone() } else { place_of(mount) }];
        let mut facts = self.facts.clone();
        facts.probe_sources(&spec, &state.bundle);
        let here = format!("{} /{index}", self.file.display());
        let ask = Create {
            id: state.id.clone(),
            no_pivot: state.no_pivot,
            no_new_keyring: true,
            notify: self.container.dir.has(NOTIFY_DIRECTORY)?.then(PathBuf::new),
            ..Create::default()
        };
        let plan = Plan::new(&spec, &facts, home, &ask, state.bundle.clone())
            .map_err(|error| error.relocated("config.json /mounts/0", &here))?;
        if add && !facts.copies_mounts && is_bind(mount) {
            let text = "a bind into a container that is there takes root of the host";
            return Err(Error::new(Kind::Unsupported, text).at(here));
        }
        let program = if add {
            compile::add_mounts(&plan, self.entry)
        } else {
            compile::remove_mounts(&plan, self.entry)
        };
        check::check(&program)?;
        let (_, Some(init)) = self.container.phase()? else {
            return Err(Error::new(Kind::Status, "container not running"));
        };
        let subject = Subject {
            id: &state.id,
            bundle: &state.bundle,
            process: None,
            listener: None,
            stdio: Stdio::Inherit,
            pid_file: None,
            pidfd_socket: None,
        };
        let pid = state.init.as_ref().map_or(0, |init| init.pid);
        let purpose =
            LaunchPurpose::Exec { init, pid, placement: Box::default(), rdt: None, mounts: Some(&plan) };
        let launched = Launch { home, program: &program, purpose, subject, restoration: None }
            .run()
            .map_err(|error| error.at(here))?;
        identity::end(launched.pidfd.as_fd())
    }
}

/// What of a mount says where it is: its source may be gone by now.
fn place_of(mount: &Mount) -> Mount {
    let options = mount.options.iter().filter(|option| *option == "dest-nofollow").cloned().collect();
    let destination = mount.destination.clone();
    Mount { destination, kind: Some("tmpfs".to_owned()), options, ..Mount::default() }
}
