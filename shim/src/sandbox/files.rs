// SPDX-License-Identifier: Apache-2.0
//! The files of a pod that containerd mounts into its containers if they are there: hostname, hosts, resolv.conf below its
//! root, /dev/shm below its state. Its own pause controller makes them; without one nobody else does, nor removes them.
//!
//! They are written before there is a container, never after: from then on they are in places that containers write to.

#![forbid(unsafe_code)]

use std::ffi::CString;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use corten::error::{Context, Error, Kind};
use rustix::mount::{MountFlags, mount};
use serde::{Deserialize, Serialize};

use super::wish::PodWish;
use crate::mounts;
use crate::refusal::{Refusal, Result};

/// containerd's CRI plugin below its root and its state, in every version.
const PLUGIN: &str = "io.containerd.grpc.v1.cri/sandboxes";
/// As the pause controller's.
const SHM: u64 = 64 << 20;

/// Where they are. Written into the record before they are made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodFiles {
    /// Of hostname, hosts and resolv.conf.
    pub root: PathBuf,
    /// Of shm.
    pub state: PathBuf,
}

impl PodFiles {
    /// From where the bundle is: `<state>/<plugin>/<namespace>/<id>`, whose link `work` leads to the same below the root.
    ///
    /// # Errors
    /// InvalidArgument for a bundle that is nowhere of the kind.
    pub fn of(bundle: &Path, id: &str) -> Result<PodFiles> {
        let place = |bundle: &Path| {
            let named = bundle.is_absolute() && bundle.file_name().is_some_and(|name| name == id);
            let base = bundle.ancestors().nth(3).filter(|base| named && base.parent().is_some());
            base.map(|base| base.join(PLUGIN).join(id))
        };
        let work = bundle.join("work");
        let target = std::fs::read_link(&work).call(|| format!("readlink({})", work.display()))?;
        match (place(&target), place(bundle)) {
            (Some(root), Some(state)) => Ok(PodFiles { root, state }),
            _ => {
                let (bundle, target) = (bundle.display(), target.display());
                Err(Refusal::invalid(format!("bundle {bundle} with work {target} is no bundle of {id}")))
            }
        }
    }

    pub fn shm(&self) -> PathBuf {
        self.state.join("shm")
    }

    /// Makes all of them.
    ///
    /// # Errors
    /// The failed call; what has been made is there to be removed.
    pub fn make(&self, wish: &PodWish) -> Result<()> {
        make_directory(&self.root)?;
        let hostname = match wish.hostname.as_str() {
            "" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            name => name.to_owned(),
        };
        write_new(&self.root.join("hostname"), format!("{hostname}\n").as_bytes())?;
        write_new(&self.root.join("hosts"), &of_host("/etc/hosts")?)?;
        let resolv = match resolv_conf(wish) {
            text if text.is_empty() => of_host("/etc/resolv.conf")?,
            text => text.into_bytes(),
        };
        write_new(&self.root.join("resolv.conf"), &resolv)?;
        if wish.host_ipc {
            return Ok(());
        }
        make_directory(&self.state)?;
        make_directory(&self.shm())?;
        let mut data = format!("mode=1777,size={SHM}");
        if let Some((uid, gid)) = wish.ids.as_ref().and_then(|ids| ids.root()) {
            data.push_str(&format!(",uid={uid},gid={gid}"));
        }
        let data = CString::new(data).map_err(|error| Error::new(Kind::Invalid, error.to_string()))?;
        let flags = MountFlags::NOEXEC | MountFlags::NOSUID | MountFlags::NODEV;
        let shm = self.shm();
        Ok(mount("shm", &shm, "tmpfs", flags, data.as_c_str())
            .call(|| format!("mount(shm, {})", shm.display()))?)
    }

    /// Unmounts what is mounted. Nothing there is fine.
    pub fn unmount(&self) {
        if self.shm().is_absolute() && self.shm().exists() {
            mounts::unmount_all(&self.shm());
        }
    }

    /// Removes all of them, with whatever else is in there. Nothing there is fine.
    ///
    /// # Errors
    /// The failed call.
    pub fn remove(&self) -> Result<()> {
        self.unmount();
        for dir in [&self.state, &self.root] {
            match std::fs::remove_dir_all(dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::os(format!("rmdir({})", dir.display()), error).into());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn make_directory(path: &Path) -> Result<()> {
    Ok(std::fs::create_dir_all(path).call(|| format!("mkdir({})", path.display()))?)
}

/// A file that was not there, or is exchanged for this one.
fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let call = |what: &str| format!("{what}({})", path.display());
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::os(call("unlink"), error).into());
        }
        _ => {}
    }
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o644).open(path).call(|| call("open"))?;
    Ok(file.write_all(bytes).call(|| call("write"))?)
}

/// A file of the host's; one that is not there is empty.
fn of_host(path: &str) -> Result<Vec<u8>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        read => Ok(read.call(|| format!("read({path})"))?),
    }
}

/// As the pause controller writes it; empty where the pod says nothing.
fn resolv_conf(wish: &PodWish) -> String {
    let dns = &wish.dns;
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    dns.servers.iter().for_each(|server| text.push_str(&format!("nameserver {server}\n")));
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::wish::PodDns;
    use super::*;

    #[test]
    fn they_are_where_containerd_looks() {
        let dir = std::env::temp_dir().join(format!("corten-podfiles-{}", std::process::id()));
        let bundle = dir.join("state/io.containerd.runtime.v2.task/k8s.io/p1");
        std::fs::create_dir_all(&bundle).unwrap();
        assert!(PodFiles::of(&bundle, "p1").unwrap_err().text.contains("readlink"));
        std::os::unix::fs::symlink("/r/io.containerd.runtime.v2.task/k8s.io/p1", bundle.join("work"))
            .unwrap();
        let files = PodFiles::of(&bundle, "p1").unwrap();
        assert_eq!(files.root, Path::new("/r/io.containerd.grpc.v1.cri/sandboxes/p1"));
        assert_eq!(files.shm(), dir.join("state/io.containerd.grpc.v1.cri/sandboxes/p1/shm"));
        assert!(PodFiles::of(&bundle, "p2").is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn resolv_conf_is_the_pause_controllers() {
        let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
        let dns = PodDns {
            servers: words(&["1.1.1.1", "::1"]),
            searches: words(&["a", "b.c"]),
            options: words(&["ndots:5"]),
        };
        let wish = PodWish { dns, ..PodWish::default() };
        assert_eq!(resolv_conf(&wish), "search a b.c\nnameserver 1.1.1.1\nnameserver ::1\noptions ndots:5\n");
        assert_eq!(resolv_conf(&PodWish::default()), "");
    }
}
