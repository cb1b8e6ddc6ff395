// SPDX-License-Identifier: Apache-2.0
//! The runtime in the hands of somebody who is not root: an id that nobody else uses, with an account in the case's own
//! mounts only.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::MsFlags;
use serde_json::json;

use super::bundle::Bundle;
use super::case::{Trouble, Verdict};
use super::done::Done;
use super::report::Report;
use super::test::{Log, Test};

/// User and group id of that somebody.
pub const ID: u32 = 41_234;
/// First of the ids that /etc/subuid gives it where [`User::with_ranges`] was called.
pub const RANGE: u32 = 3_000_000;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Lets `command` run as the user that a state root belongs to: root does not obey what others have written.
pub fn as_owner_of(root: &Path, command: &mut Command) {
    let owner = fs::metadata(root).map_or(0, |meta| meta.uid());
    if owner != 0 {
        command.uid(owner).gid(owner).current_dir("/");
    }
}

/// A user without privileges.
pub struct User<'a> {
    t: &'a Test,
    /// What stands before the runtime's own words.
    before: Vec<String>,
}

impl<'a> User<'a> {
    /// One with a state root of its own, who can reach the runtime.
    pub fn new(t: &'a Test) -> Result<Self, Trouble> {
        fs::create_dir_all(&t.place.root)?;
        chown(&t.place.root, Some(ID), Some(ID))?;
        reachable(t)?;
        let user = Self { t, before: Vec::new() };
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        user.etc("passwd", &(passwd + &format!("corten-test:x:{ID}:{ID}::/:/bin/false\n")))?;
        Ok(user)
    }

    /// The same behind other programs: `unshare -Ur`.
    pub fn behind(mut self, words: &str) -> Self {
        self.before = words.split_whitespace().map(str::to_owned).collect();
        self
    }

    /// newuidmap and newgidmap will give ids from [`RANGE`] on: in this case's mounts, the host's files stay.
    pub fn with_ranges(self) -> Result<Self, Trouble> {
        for tool in ["newuidmap", "newgidmap"] {
            if !PATH.split(':').any(|dir| Path::new(dir).join(tool).exists()) {
                return Err(Trouble::NotRun(format!("no {tool} here")));
            }
        }
        for file in ["subuid", "subgid"] {
            self.etc(file, &format!("corten-test:{RANGE}:65536\n"))?;
        }
        Ok(self)
    }

    /// Another text in a file of /etc, in this case's mounts.
    fn etc(&self, file: &str, text: &str) -> Verdict {
        let (mine, theirs) = (self.t.path(&format!("etc-{file}")), Path::new("/etc").join(file));
        if !theirs.exists() {
            return Err(Trouble::NotRun(format!("no {} here", theirs.display())));
        }
        fs::write(&mine, text)?;
        fs::set_permissions(&mine, fs::Permissions::from_mode(0o644))?;
        self.t.mount("", &mine.to_string_lossy(), &theirs, MsFlags::MS_BIND, "")
    }

    /// A bundle of this user's: like `spec --rootless` makes it, without a cgroup path.
    pub fn bundle(&self) -> Result<Bundle, Trouble> {
        let mut bundle = self.t.bundle()?.without_namespace("network").remove("/linux/resources");
        bundle = bundle.remove("/linux/cgroupsPath").without_mount("/sys");
        bundle = bundle.mount("none", "/sys", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]);
        // Before what lies below it.
        if let Some(mounts) = bundle.config["mounts"].as_array_mut() {
            mounts.iter_mut().filter_map(|mount| mount["options"].as_array_mut()).for_each(|options| {
                options.retain(|option| option != "gid=5");
            });
            mounts.sort_by_key(|mount| mount["destination"] == "/sys/fs/cgroup");
        }
        let one = json!([{"containerID": 0, "hostID": ID, "size": 1}]);
        let bundle = bundle.namespace("user", None);
        Ok(bundle.set("/linux/uidMappings", one.clone()).set("/linux/gidMappings", one))
    }

    /// Root inside is the user, all others come from its range.
    pub fn wide(&self, bundle: Bundle) -> Bundle {
        let map = json!([{"containerID": 0, "hostID": ID, "size": 1},
            {"containerID": 1, "hostID": RANGE, "size": 65536}]);
        bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map)
    }

    /// The runtime as this user, with the case's state root.
    pub fn runtime(&self) -> Command {
        let mut command = self.bare();
        command.arg("--root").arg(&self.t.place.root);
        command
    }

    /// The runtime as this user, left to itself.
    pub fn bare(&self) -> Command {
        let runtime = self.t.host.runtime.to_string_lossy().into_owned();
        let words: Vec<&String> = self.before.iter().chain([&runtime]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).uid(ID).gid(ID).current_dir("/");
        command.env_clear().envs(super::host::choice_of_mutant());
        command.env("PATH", PATH).env("HOME", "/").env("SPEC_TESTS", &self.t.place.mark);
        command
    }

    /// Runs the runtime with these words, split at white space.
    pub fn cli(&self, words: &str) -> Result<Done, Trouble> {
        let mut command = self.runtime();
        command.args(words.split_whitespace());
        self.t.complete(command)
    }

    /// `VERB [options] -b BUNDLE ID`, once everything in the bundle is the user's.
    pub fn bundle_command(&self, verb: &str, bundle: &Bundle) -> Result<Command, Trouble> {
        bundle.write()?;
        give(&bundle.dir)?;
        let mut command = self.runtime();
        command.args(verb.split_whitespace()).arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
        Ok(command)
    }

    /// `run` to its end, whatever that is.
    pub fn run(&self, bundle: &Bundle) -> Result<Done, Trouble> {
        self.t.complete(self.bundle_command("run", bundle)?)
    }

    /// `run` of a probe that reports; it must succeed.
    pub fn report(&self, bundle: &Bundle) -> Result<Report, Trouble> {
        Report::read(&self.run(bundle)?.ok()?.stdout)
    }

    /// A successful `create` and `start`.
    pub fn launch(&self, bundle: &Bundle) -> Result<Log, Trouble> {
        let running = self.t.spawn(self.bundle_command("create", bundle)?)?;
        let log = running.log();
        self.t.finish(running)?.ok()?;
        self.cli(&format!("start {}", bundle.id))?.ok()?;
        Ok(log)
    }
}

/// Everything at and below `path` becomes the user's.
pub fn give(path: &Path) -> Verdict {
    give_to(path, ID)
}

/// Everything at and below `path` becomes somebody's.
pub fn give_to(path: &Path, id: u32) -> Verdict {
    std::os::unix::fs::lchown(path, Some(id), Some(id))?;
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            give_to(&entry?.path(), id)?;
        }
    }
    Ok(())
}

/// A runtime below a directory that only root may enter (a lab in root's home) is bound to the same place in a tmpfs over
/// that directory: its interpreter and libraries are beside it.
fn reachable(t: &Test) -> Verdict {
    let runtime = &t.host.runtime;
    let closed = |dir: &&Path| fs::metadata(dir).is_ok_and(|meta| meta.permissions().mode() & 0o001 == 0);
    let ancestors: Vec<&Path> = runtime.ancestors().skip(1).collect();
    let Some(top) = ancestors.iter().rev().find(|dir| closed(dir)) else { return Ok(()) };
    let lab: PathBuf = runtime.ancestors().nth(2).unwrap_or(runtime).to_owned();
    let held = fs::File::open(&lab)?;
    use std::os::fd::AsRawFd;
    t.mount("tmpfs", "tmpfs", top, MsFlags::empty(), "mode=755")?;
    fs::create_dir_all(&lab)?;
    t.mount("", &format!("/proc/self/fd/{}", held.as_raw_fd()), &lab, MsFlags::MS_BIND, "")
}
