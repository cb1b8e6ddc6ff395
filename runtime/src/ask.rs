// SPDX-License-Identifier: Apache-2.0
//! What is asked of the runtime: the verbs' arguments as plain data.
//!
//! The command line turns its flags into these, the shim its requests (`shim/src/driver.rs`). Nothing here comes from a
//! bundle, nothing is checked yet but its form.

#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::spec::{IntelRdt, Resources};
use crate::trace::Recorder;

/// Who makes control groups: `--cgroup-manager`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// We do, in the file system.
    #[default]
    Cgroupfs,
    /// systemd does, as a scope.
    Systemd,
    /// Nobody: the container stays in its creator's groups, without limits.
    Disabled,
}

/// Where containers are kept and how groups are managed: the global flags.
pub struct Home<'a> {
    /// The state root, absolute (`/run/corten`).
    pub root: PathBuf,
    /// Who makes control groups.
    pub manager: Manager,
    /// Whether a lack of permission for cgroups is put up with as long as nothing was asked of them (`--rootless`);
    /// `None`: for everybody but root of the initial user namespace.
    pub rootless: Option<bool>,
    /// Receives warnings, one line each, without a trailing newline.
    pub warn: &'a dyn Fn(&str),
    /// Records what takes how long (`--trace`).
    pub trace: Option<&'a Recorder>,
}

impl Home<'_> {
    /// What has been done since the last time that something was told is called `name` in a trace.
    pub(crate) fn mark(&self, name: &str) {
        if let Some(recorder) = self.trace {
            recorder.mark(name);
        }
    }

    /// Calls `verb` with the same home and a recorder: its answer, and what was recorded (`Recorder::finish`). `name` is how the verb is
    /// called, `id` the container.
    #[doc(hidden)]
    pub fn recorded<T>(
        &self,
        (name, id): (&str, &str),
        verb: impl FnOnce(&Home<'_>) -> Result<T>,
    ) -> (Result<T>, String) {
        let recorder = Recorder::new(name, id);
        let done = verb(&Home { root: self.root.clone(), trace: Some(&recorder), ..*self });
        let text = recorder.finish(done.as_ref().err());
        (done, text)
    }
}

/// What stands behind the process's descriptors 0, 1 and 2.
#[derive(Debug, Default)]
pub enum Stdio {
    /// The caller's own descriptors, or, with `process.terminal`, a terminal whose other end is handed back in
    /// `Launched::console`; its lines end with a bare newline unless the caller's own input and output are terminals.
    #[default]
    Inherit,
    /// A terminal whose other end goes to this AF_UNIX socket (`--console-socket`).
    ConsoleSocket(PathBuf),
    /// These three descriptors. For a configuration with `process.terminal` that is an error.
    Fds([OwnedFd; 3]),
    /// A terminal whose other end is handed back in `Launched::console`, also by a `create` that leaves its
    /// process waiting: the caller is a shim and stays. For a configuration without a terminal that is an error.
    HandBack,
}

/// `create` and `run`.
#[derive(Debug, Default)]
pub struct Create {
    /// The container's id.
    pub id: String,
    /// The bundle, absolute or relative to the working directory.
    pub bundle: PathBuf,
    /// Another name for config.json (`--config`).
    pub config: Option<PathBuf>,
    /// The configuration itself, as JSON; it goes before the file. Relative paths in it begin at the bundle.
    pub document: Option<Vec<u8>>,
    /// Standard descriptors.
    pub stdio: Stdio,
    /// Receives the pid in decimal, atomically.
    pub pid_file: Option<PathBuf>,
    /// Receives the pidfd by SCM_RIGHTS (payload `standard`).
    pub pidfd_socket: Option<PathBuf>,
    /// Use MS_MOVE and chroot instead of pivot_root.
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// What makes the name of the session keyring one that nobody can guess; empty where none is made (`plan`).
    pub keyring_suffix: String,
    /// Size (rows, columns) of a terminal for which the configuration gives none.
    pub console_size: Option<(u16, u16)>,
    /// How many descriptors from 3 (after LISTEN_FDS) on the process keeps.
    pub preserve_fds: u32,
    /// How many socket-activation descriptors from 3 on the process keeps (LISTEN_FDS).
    pub listen_fds: u32,
    /// `run`: start at once, through the launcher's own socket; no gate is left for a later `start`.
    pub run: bool,
    /// The service manager's notification socket (`NOTIFY_SOCKET`), which the container gets to talk to.
    pub notify: Option<PathBuf>,
    /// `run` whose caller goes away after the start (`--detach`).
    pub detach: bool,
}

/// `hold`: namespaces, kept by a process that waits in them.
#[derive(Debug, Default)]
pub struct Hold {
    /// By what `kill` and `delete` find it.
    pub id: String,
    /// What `state` says of it, and where its configuration would stand; absolute.
    pub bundle: PathBuf,
    /// A config.json that says which namespaces (`linux.namespaces`, mappings), how they are called (`hostname`,
    /// `domainname`), and `linux.sysctl`. `root` is asked for by the format.
    pub config: Vec<u8>,
}

/// `exec`.
#[derive(Debug, Default)]
pub struct Exec {
    /// The container's id.
    pub id: String,
    /// A whole process object (`--process FILE`), instead of the configuration's one.
    pub process: Option<PathBuf>,
    /// The same, read already; it goes before the file.
    pub object: Option<crate::spec::Process>,
    /// What overlays the process object.
    pub overlay: Overlay,
    /// Standard descriptors.
    pub stdio: Stdio,
    /// Receives the pid in decimal, atomically.
    pub pid_file: Option<PathBuf>,
    /// Receives the pidfd by SCM_RIGHTS (payload `setns`).
    pub pidfd_socket: Option<PathBuf>,
    /// Size (rows, columns) of a terminal for which the process object gives none.
    pub console_size: Option<(u16, u16)>,
    /// How many descriptors from 3 on the process keeps.
    pub preserve_fds: u32,
    /// `--detach`.
    pub detach: bool,
    /// Sub-cgroups (`--cgroup [CONTROLLER[,CONTROLLER]:]PATH`), below the container's.
    pub cgroup: Vec<String>,
    /// Go on although the container is paused.
    pub ignore_paused: bool,
}

/// The flags of `exec` that overlay a process object.
#[derive(Debug, Default)]
pub struct Overlay {
    /// argv; empty keeps the object's.
    pub args: Vec<String>,
    /// `NAME=value` strings, appended.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: Option<String>,
    /// `uid[:gid]`.
    pub user: Option<(u32, Option<u32>)>,
    /// Supplementary groups, appended.
    pub additional_gids: Vec<u32>,
    /// Allocate a terminal.
    pub terminal: bool,
    /// Capabilities, added to bounding, effective and permitted.
    pub caps: Vec<String>,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privileges: bool,
    /// AppArmor profile.
    pub apparmor: Option<String>,
    /// SELinux label.
    pub process_label: Option<String>,
}

/// `update`.
#[derive(Debug, Default)]
pub struct Update {
    /// The limits asked for; what is absent stays.
    pub resources: Resources,
    /// Of Intel RDT, the schemata; the rest of it is decided at create.
    pub rdt: IntelRdt,
}

/// How CRIU treats control groups (criu_cg_mode): which of them it makes, and whose values it writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupMode {
    /// Nothing is restored.
    Ignore = 0,
    /// Groups that are missing are made, with their values.
    #[default]
    Soft = 3,
    /// The values of all groups are written.
    Full = 4,
    /// A group that exists is an error.
    Strict = 5,
}

impl CgroupMode {
    /// The mode of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<CgroupMode> {
        Some(match name {
            "ignore" => CgroupMode::Ignore,
            "" | "soft" => CgroupMode::Soft,
            "full" => CgroupMode::Full,
            "strict" => CgroupMode::Strict,
            _ => return None,
        })
    }
}

/// How packets are kept from established connections meanwhile (criu_network_lock_method).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkLock {
    /// With `iptables-restore`.
    Iptables = 1,
    /// With CRIU's own nftables.
    Nftables = 2,
    /// Not at all.
    Skip = 3,
}

impl NetworkLock {
    /// The method of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<NetworkLock> {
        Some(match name {
            "iptables" => NetworkLock::Iptables,
            "nftables" => NetworkLock::Nftables,
            "skip" => NetworkLock::Skip,
            _ => return None,
        })
    }
}

/// What `checkpoint` and `restore` tell CRIU alike (criu(8)).
#[derive(Debug, Default)]
pub struct CriuSettings {
    /// The directory of the images.
    pub image_path: PathBuf,
    /// The directory of CRIU's logs and statistics; without one that of the images.
    pub work_path: Option<PathBuf>,
    /// Established TCP connections are dumped and restored.
    pub tcp_established: bool,
    /// Sockets that are connected to a UNIX socket outside are put up with.
    pub ext_unix_sk: bool,
    /// The caller's terminal is put up with.
    pub shell_job: bool,
    /// File locks are dumped and restored.
    pub file_locks: bool,
    /// Control groups below the container's.
    pub cgroups: CgroupMode,
    /// CLONE_NEW* flags of namespaces of which only the existence is restored.
    pub empty_namespaces: u32,
    /// Images of the same pages are cut out of earlier ones.
    pub auto_dedup: bool,
    /// Pages are fetched when they are needed (userfaultfd(2)).
    pub lazy_pages: bool,
    /// How packets are held off meanwhile; `None`: as CRIU does, or as it can.
    pub network_lock: Option<NetworkLock>,
}

/// `checkpoint`.
#[derive(Debug, Default)]
pub struct Checkpoint {
    /// What restore is told, too.
    pub criu: CriuSettings,
    /// The images of an earlier dump, relative to the new ones.
    pub parent_path: Option<String>,
    /// Only the memory is written, and the container goes on.
    pub pre_dump: bool,
    /// The container goes on afterwards.
    pub leave_running: bool,
    /// Connections that are not established yet are left out.
    pub tcp_skip_in_flight: bool,
    /// Files without a name get one.
    pub link_remap: bool,
    /// Where pages are sent to instead: address and port of a `criu page-server`.
    pub page_server: Option<(String, u16)>,
    /// Receives a zero byte when pages can be fetched, and is closed then.
    pub status_fd: Option<OwnedFd>,
}

/// `restore`, besides what is asked of a `create`.
#[derive(Debug, Default)]
pub struct Restore {
    /// What checkpoint is told, too.
    pub criu: CriuSettings,
    /// Established connections are closed.
    pub tcp_close: bool,
    /// The AppArmor profile or SELinux label instead of the dumped one.
    pub lsm_profile: Option<String>,
    /// The SELinux context of mounts instead of the dumped one.
    pub lsm_mount_context: Option<String>,
}
