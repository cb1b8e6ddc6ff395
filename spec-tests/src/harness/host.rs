// SPDX-License-Identifier: Apache-2.0
//! What the machine and the runtime under test are, and what cases may need of them.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How cgroups are mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cgroups {
    V1,
    V2,
}

/// Something a case cannot do without.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    CgroupV2,
    /// This controller, on v1 or v2.
    Controller(&'static str),
    /// No such controller.
    NoController(&'static str),
    /// The harness itself holds this capability (its bit).
    Capability(u8),
    /// The harness itself lacks this capability.
    NoCapability(u8),
    /// The runtime is of this name.
    Runtime(&'static str),
    /// The runtime is not of this name, for a reason.
    NoRuntime(&'static str, &'static str),
    /// The kernel has this file.
    File(&'static str),
    /// This feature of the kernel, which came with this version.
    Kernel(&'static str, u32, u32),
    /// A rootfs with busybox.
    Busybox,
    /// A Debian rootfs.
    Debian,
    /// Minutes: only with `--long`.
    Long,
    /// Only with `--long`, but for v1.
    LongUnlessV1,
    /// Only with `--long`, but for v2.
    LongUnlessV2,
    /// AppArmor, with the profiles of lab/lsm/apparmor.
    AppArmor,
    /// A CRIU in PATH that finds the kernel fit.
    Criu,
    /// A CRIU of this version or a newer one.
    CriuFrom(u32, u32),
    /// An older one.
    CriuBefore(u32, u32),
    /// A kernel that tells which pages were written to.
    DirtyTracking,
    /// One that does not.
    NoDirtyTracking,
    /// A clock that is nobody else's: a kernel that is a process of its own (User Mode Linux), and nobody else on it.
    OwnClock,
    /// SELinux, enforcing, with the policy of lab/lsm/selinux.cil.
    SeLinux,
}

/// The machine, the runtime and the options of this run.
#[derive(Debug, Clone)]
pub struct Host {
    /// Absolute path of the runtime.
    pub runtime: PathBuf,
    /// `runc`, `crun`, `corten` …: the first word of `--version`.
    pub name: String,
    /// Its version: what follows `version`.
    pub version: String,
    /// The environment's name, as given.
    pub env: String,
    pub cgroups: Cgroups,
    pub controllers: BTreeSet<String>,
    pub busybox: Option<PathBuf>,
    pub debian: Option<PathBuf>,
    /// The runtime that the Go shim is to find.
    pub runc: Option<PathBuf>,
    /// Run the long cases, too.
    pub long: bool,
    /// Of the points at which a fault can happen every so many-th is tried; some few if nothing is said.
    pub every: Option<usize>,
    /// How long the cases of soak/ go on, if not for some rounds only.
    pub hours: Option<f64>,
    /// Where the cases' directories go.
    pub tmp: PathBuf,
    /// Nobody else uses this machine: compare the whole of it.
    pub alone: bool,
    /// Seconds until a case is given up.
    pub patience: f64,
    capabilities: u64,
    kernel: (u32, u32),
}

/// Where the CRIU of PATH is.
pub fn directory_of_criu() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find(|dir| dir.join("criu").is_file())
}

/// What chooses a mistake (`spec-tests/mutants`), for programs that get no other environment of ours.
pub fn choice_of_mutant() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"CORTEN_MUTANT"))
}

/// Asked once: it takes a while.
fn has_criu() -> bool {
    static FOUND: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *FOUND.get_or_init(|| {
        let check = Command::new("criu").arg("check").output();
        check.is_ok_and(|check| check.status.success())
    })
}

/// Its version, likewise: major and minor number.
pub fn criu_version() -> (u32, u32) {
    static FOUND: std::sync::OnceLock<(u32, u32)> = std::sync::OnceLock::new();
    *FOUND.get_or_init(|| {
        let told = Command::new("criu").arg("--version").output().map(|told| told.stdout).unwrap_or_default();
        let told = String::from_utf8_lossy(&told);
        let text = told.lines().find_map(|line| line.strip_prefix("Version: ")).unwrap_or_default();
        let mut numbers = text.split('.').map(|number| number.trim().parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    })
}

/// Asked once, too.
fn tracks_writes() -> bool {
    static FOUND: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *FOUND.get_or_init(|| {
        let check = Command::new("criu").args(["check", "--feature", "mem_dirty_track"]).output();
        check.is_ok_and(|check| check.status.success())
    })
}

impl Host {
    /// Looks at the machine, and asks the runtime its name.
    pub fn look(runtime: &Path) -> Result<Self, String> {
        let runtime = fs::canonicalize(runtime).map_err(|e| format!("{}: {e}", runtime.display()))?;
        let (name, version) = name_of(&runtime)?;
        Self::look_named(runtime, name, version)
    }

    /// Looks at the machine; the program under test is a containerd shim: `runc` or `corten`, by its file's name.
    pub fn look_at_shim(shim: &Path) -> Result<Self, String> {
        let shim = fs::canonicalize(shim).map_err(|e| format!("{}: {e}", shim.display()))?;
        let file = shim.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = file.trim_start_matches("containerd-shim-").trim_end_matches("-v2").to_owned();
        let told = Command::new(&shim).arg("-v").output().map_err(|e| format!("{}: {e}", shim.display()))?;
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        let version = told.lines().find_map(|line| line.trim().strip_prefix("Version:"));
        Self::look_named(shim, name, version.unwrap_or_default().trim().to_owned())
    }

    fn look_named(runtime: PathBuf, name: String, version: String) -> Result<Self, String> {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let cap_line = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap_or("0");
        let v2 = !Path::new("/sys/fs/cgroup/devices").exists()
            && Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        Ok(Self {
            name,
            version,
            env: String::new(),
            runtime,
            cgroups: if v2 { Cgroups::V2 } else { Cgroups::V1 },
            controllers: controllers(v2),
            busybox: None,
            debian: None,
            runc: None,
            long: false,
            every: None,
            hours: None,
            tmp: std::env::temp_dir(),
            alone: false,
            patience: 40.0,
            capabilities: u64::from_str_radix(cap_line, 16).unwrap_or(0),
            kernel: kernel(),
        })
    }

    /// True on cgroup v2.
    pub fn is_v2(&self) -> bool {
        self.cgroups == Cgroups::V2
    }

    /// What of `need` is not here, in words.
    pub fn lacks(&self, need: Need) -> Option<String> {
        let (there, words) = match need {
            Need::CgroupV2 => (self.is_v2(), "needs cgroup v2".to_owned()),
            Need::Controller(name) => (self.controllers.contains(name), format!("no {name} controller here")),
            Need::NoController(name) => {
                (!self.controllers.contains(name), format!("there is a {name} controller"))
            }
            Need::Capability(bit) => {
                (self.capabilities >> bit & 1 == 1, format!("the harness lacks capability {bit}"))
            }
            Need::NoCapability(bit) => {
                (self.capabilities >> bit & 1 == 0, format!("the harness has capability {bit}"))
            }
            Need::Runtime(name) => (self.name == name, format!("only for {name}")),
            Need::NoRuntime(name, why) => (self.name != name, format!("not for {name}: {why}")),
            Need::File(path) => (Path::new(path).exists(), format!("no {path} here")),
            Need::Kernel(what, major, minor) => {
                (self.kernel >= (major, minor), format!("needs {what} (Linux {major}.{minor})"))
            }
            Need::Busybox => (self.busybox.is_some(), "no --rootfs-busybox".to_owned()),
            Need::Long => (self.long, "only with --long".to_owned()),
            Need::LongUnlessV1 => (self.long || !self.is_v2(), "only with --long, or on v1".to_owned()),
            Need::LongUnlessV2 => (self.long || self.is_v2(), "only with --long, or on v2".to_owned()),
            Need::AppArmor => (has_apparmor(), "no AppArmor here, or not lab/lsm's profiles".to_owned()),
            Need::SeLinux => (has_selinux(), "no SELinux here, or not lab/lsm's policy".to_owned()),
            Need::Criu => (has_criu(), "no criu in PATH that finds this kernel fit".to_owned()),
            Need::CriuFrom(major, minor) => {
                (criu_version() >= (major, minor), format!("CRIU is older than {major}.{minor}"))
            }
            Need::CriuBefore(major, minor) => {
                (criu_version() < (major, minor), format!("CRIU is not older than {major}.{minor}"))
            }
            Need::DirtyTracking => (tracks_writes(), "this kernel has no soft-dirty tracking".to_owned()),
            Need::NoDirtyTracking => (!tracks_writes(), "this kernel has soft-dirty tracking".to_owned()),
            Need::OwnClock => {
                (self.alone && is_uml(), "CLOCK_REALTIME is the whole machine's here".to_owned())
            }
            Need::Debian => (self.debian.is_some(), "no --rootfs-debian".to_owned()),
        };
        (!there).then_some(words)
    }

    /// Directories in which a controller's groups appear: one per hierarchy on v1.
    pub fn hierarchies(&self) -> Vec<PathBuf> {
        // The v2 hierarchy beside them (hybrid) holds no controller.
        let mut all = self.mounted_hierarchies();
        all.retain(|dir| self.is_v2() || !dir.join("cgroup.controllers").exists());
        all
    }

    /// Everywhere a runtime may make groups: some do in the v2 hierarchy of a hybrid host, too.
    pub fn mounted_hierarchies(&self) -> Vec<PathBuf> {
        if self.is_v2() {
            return vec![BASE.into()];
        }
        mounted().into_iter().map(|(dir, _)| dir).collect()
    }
}

/// Where the hierarchies are.
const BASE: &str = "/sys/fs/cgroup";

/// The hierarchies below [`BASE`], each with the options of its superblock, which name a v1 hierarchy's controllers: as the
/// mount table says, for a plain directory there is none (some engines leave such behind).
fn mounted() -> Vec<(PathBuf, String)> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let hierarchy = |line: &str| {
        let (mount, superblock) = line.split_once(" - ")?;
        let (mut mount, mut superblock) = (mount.split(' '), superblock.split(' '));
        let (whole, point) = (mount.nth(3)? == "/", Path::new(mount.next()?));
        let (kind, options) = (superblock.next()?, superblock.nth(1).unwrap_or_default());
        let here = whole && kind.starts_with("cgroup") && point.parent() == Some(Path::new(BASE));
        here.then(|| (point.to_owned(), options.to_owned()))
    };
    let mut all: Vec<(PathBuf, String)> = table.lines().filter_map(hierarchy).collect();
    all.sort();
    all.dedup_by(|one, other| one.0 == other.0);
    all
}

/// The first line of `--version`: `NAME version VERSION`.
fn name_of(runtime: &Path) -> Result<(String, String), String> {
    let out = Command::new(runtime).arg("--version").output();
    let out = out.map_err(|e| format!("{}: {e}", runtime.display()))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let mut words = text.lines().next().unwrap_or_default().split_whitespace();
    let name = words.next().ok_or_else(|| format!("{} --version says nothing", runtime.display()))?;
    Ok((name.to_owned(), words.last().unwrap_or_default().to_owned()))
}

fn controllers(v2: bool) -> BTreeSet<String> {
    if v2 {
        let text = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        return text.split_whitespace().map(str::to_owned).collect();
    }
    // By the name of the directory: `cpu,cpuacct` is two, `unified` and `systemd` count as well.
    let names =
        mounted().into_iter().filter_map(|(dir, _)| Some(dir.file_name()?.to_string_lossy().into_owned()));
    names.flat_map(|name| name.split(',').map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn kernel() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = text.split(['.', '-']).map_while(|part| part.trim().parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn is_uml() -> bool {
    fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains("User Mode Linux"))
}

fn has_apparmor() -> bool {
    let profiles = fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    profiles.lines().any(|line| line == "corten-test (enforce)")
}

fn has_selinux() -> bool {
    // The kernel takes only a context that its policy knows.
    let known = fs::write("/sys/fs/selinux/context", "system_u:system_r:container_t:s0:c1,c2").is_ok();
    known && fs::read_to_string("/sys/fs/selinux/enforce").is_ok_and(|on| on.trim() == "1")
}
