// SPDX-License-Identifier: Apache-2.0
//! What is kept about a container, and how it is told.
//!
//! A container is a directory `<root>/<id>`: `state.json` (written whole, to a temporary name, and renamed),
//! `config.json` (the bundle's, byte for byte, as it was at create) and `gate` (the socket at which the stage
//! waits; gone once started). mkdir(2) takes the id; flock(2) on the directory orders the verbs. The state
//! "creating" is written before anything else is made, so that `delete` can undo a create that died at any point.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::ask::check_id;
use crate::cgroup;
use crate::error::{Context, Error, Kind, Result, Step};
use crate::spec::Resources;

/// The version of the OCI runtime specification that Corten implements.
pub const OCI_VERSION: &str = "1.3.0";

/// How long a verb waits for another one on the same container.
const PATIENCE: Duration = Duration::from_secs(10);

/// What state.json holds. Unknown fields are ignored, so that an older Corten reads a newer one's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Layout of this file.
    pub version: u32,
    /// The container's id.
    pub id: String,
    /// The bundle, absolute.
    pub bundle: PathBuf,
    /// The root file system, absolute.
    pub rootfs: PathBuf,
    /// When, RFC 3339.
    pub created: String,
    /// Who, as a user id.
    pub owner: u32,
    /// The configuration's annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The control group.
    pub cgroup: cgroup::Record,
    /// Made without pivot_root.
    #[serde(default)]
    pub no_pivot: bool,
    /// Has no session keyring of its own.
    #[serde(default)]
    pub no_keyring: bool,
    /// The name of its session keyring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyring: Option<String>,
    /// Descriptors kept from 3 on.
    #[serde(default)]
    pub keep_fds: u32,
    /// Of those, the socket-activation ones.
    #[serde(default)]
    pub listen_fds: u32,
    /// The configuration has a process: `start` is possible.
    #[serde(default)]
    pub process: bool,
    /// The configuration has poststart hooks.
    #[serde(default)]
    pub poststart: bool,
    /// The configuration has poststop hooks.
    #[serde(default)]
    pub poststop: bool,
    /// The resources in force, once an `update` has changed them; until then they are those of config.json.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Its groups in resctrl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdt: Option<crate::host::rdt::Record>,
    /// What it has mounted in the runtime's mount namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<crate::host::own_mount::OwnMount>,
    /// Init; `None` while the container is being created.
    pub init: Option<Identity>,
}

/// A process, told apart from a later one with the same pid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Pid in the pid namespace of the creator.
    pub pid: i32,
    /// Inode of its pidfd: unique for a boot since Linux 6.9; 0 before that.
    pub inode: u64,
    /// Start time in clock ticks since boot (proc_pid_stat(5), field 22), where there is no such inode.
    pub start_time: u64,
    /// The boot it belongs to.
    pub boot_id: String,
}

/// A container's status as `state` and `list` tell it, in the order of runc's fields (reference J1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Version of the specification.
    pub oci_version: &'static str,
    /// The id.
    pub id: String,
    /// Init's pid; 0 when stopped.
    pub pid: i32,
    /// creating, created, running, paused or stopped.
    pub status: &'static str,
    /// The bundle, absolute.
    pub bundle: String,
    /// The root file system, absolute.
    pub rootfs: String,
    /// When, RFC 3339 with nanoseconds.
    pub created: String,
    /// The configuration's annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Name of the user who created it, or the uid; `state` leaves it empty, as runc does.
    pub owner: String,
}

impl State {
    /// Reads the bytes of a state.json, and refuses what no `create` writes: verbs kill by it and remove by it.
    ///
    /// # Errors
    /// `Kind::Invalid` with the field.
    pub fn read(bytes: &[u8]) -> Result<State> {
        let wrong =
            |field: &str, text: &str| Err(Error::new(Kind::Invalid, text.to_owned()).at(format!("/{field}")));
        let state: State =
            serde_json::from_slice(bytes).map_err(|error| Error::new(Kind::Invalid, error.to_string()))?;
        if state.version != 1 {
            return wrong("version", &format!("layout {} is not known", state.version));
        }
        if check_id(&state.id).is_err() {
            return wrong("id", "invalid container ID format");
        }
        if state.listen_fds > state.keep_fds {
            return wrong("listenFds", "more than keepFds, which they are part of");
        }
        if state.init.as_ref().is_some_and(|init| init.pid <= 0) {
            return wrong("init/pid", "not the number of a process");
        }
        match state.cgroup.fault() {
            Some(text) => wrong("cgroup", text),
            None => Ok(state),
        }
    }
}

/// The state that a hook reads on stdin (runtime.md#state), without its pid: the text before and after it.
pub fn hook_state(
    id: &str,
    status: &str,
    bundle: &Path,
    annotations: &BTreeMap<String, String>,
) -> (String, String) {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let before =
        format!("{{\"ociVersion\":\"{OCI_VERSION}\",\"id\":{},\"status\":\"{status}\",\"pid\":", quote(id));
    let annotations = serde_json::to_string(annotations).unwrap_or_default();
    let after = format!(",\"bundle\":{},\"annotations\":{annotations}}}", quote(&bundle.to_string_lossy()));
    (before, after)
}

/// A container's directory, held open: a name that is taken anew meanwhile is another directory.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    /// Takes the id: makes the directory and locks it.
    ///
    /// # Errors
    /// `Kind::Exists` when it is taken.
    pub fn create(root: &Path, id: &str) -> Result<Dir> {
        check_id(id)?;
        make_root(root)?;
        let path = root.join(id);
        rustix::fs::mkdir(&path, Mode::RWXU).map_err(|errno| match errno {
            rustix::io::Errno::EXIST => {
                Error::new(Kind::Exists, format!("container with given ID already exists: {id}"))
            }
            errno => Error::os(format!("mkdir({})", path.display()), errno),
        })?;
        let dir = Dir::open_path(path).step(|| "state directory")?;
        dir.lock()?;
        Ok(dir)
    }

    /// Opens a container's directory.
    ///
    /// # Errors
    /// `Kind::NotFound` when there is none.
    pub fn open(root: &Path, id: &str) -> Result<Dir> {
        check_id(id)?;
        Dir::open_path(root.join(id)).map_err(|error| match error.errno() {
            Some(libc::ENOENT) => Error::new(Kind::NotFound, format!("container does not exist: {id}")),
            _ => error,
        })
    }

    fn open_path(path: PathBuf) -> Result<Dir> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(&path, flags, Mode::empty()).call(|| format!("open({})", path.display()))?;
        Ok(Dir { fd, path })
    }

    /// Waits for the other verbs on this container to end, and holds them off until the directory is dropped.
    ///
    /// # Errors
    /// `Kind::Status` when one takes longer than [`PATIENCE`]: a hook of its may hang for ever.
    pub fn lock(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
                // flock(2) knows no time limit; this is the rare case of two verbs at once.
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(rustix::io::Errno::AGAIN) => {
                    let text =
                        format!("another operation on the container is still under way after {PATIENCE:?}");
                    return Err(Error::new(Kind::Status, text));
                }
                other => return other.call(|| format!("flock({})", self.path.display())),
            }
        }
    }

    /// Whether some verb is at work on this container.
    pub fn is_locked(&self) -> bool {
        // Through a description of its own: on ours, which may hold the lock, this would give it up.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, ".", flags, Mode::empty())
            .is_ok_and(|other| rustix::fs::flock(&other, FlockOperation::NonBlockingLockShared).is_err())
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path for bind(2) and connect(2), which take at most 107 bytes, whatever the state root's length.
    pub fn short_path(&self, name: &str) -> PathBuf {
        use std::os::fd::AsRawFd;
        format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd()).into()
    }

    /// Reads state.json.
    ///
    /// # Errors
    /// `Kind::Invalid` when it does not read: the container can still be deleted with force.
    pub fn read(&self) -> Result<State> {
        let bytes = self.read_file("state.json")?;
        let state = State::read(&bytes).map_err(|error| error.at(self.name_of("state.json")))?;
        // The id is the mark on the container's groups: with another one, those of another container would go.
        match self.path.file_name() {
            Some(name) if name != state.id.as_str() => {
                let text = format!("it is the state of {:?}", state.id);
                Err(Error::new(Kind::Invalid, text).at(self.name_of("state.json")))
            }
            _ => Ok(state),
        }
    }

    /// Reads a file of the directory.
    pub fn read_file(&self, name: &str) -> Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, name, flags, Mode::empty())
            .call(|| format!("open({})", self.name_of(name)))?;
        read_all(file.as_fd()).call(|| format!("read({})", self.name_of(name)))
    }

    /// Writes state.json whole or not at all.
    pub fn write(&self, state: &State) -> Result<()> {
        let bytes = serde_json::to_vec(state)
            .map_err(|error| Error::new(Kind::Invalid, error.to_string()).at("state.json"))?;
        self.write_file(".state.json", &bytes)?;
        rustix::fs::renameat(&self.fd, ".state.json", &self.fd, "state.json")
            .call(|| format!("rename({})", self.name_of("state.json")))
    }

    /// Writes a file of the directory, to disk unless that is memory.
    pub fn write_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        const TMPFS_MAGIC: i64 = 0x0102_1994;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)
            .call(|| format!("open({})", self.name_of(name)))?;
        write_all(file.as_fd(), bytes).call(|| format!("write({})", self.name_of(name)))?;
        let on_disk = rustix::fs::fstatfs(&file).is_ok_and(|fs| fs.f_type != TMPFS_MAGIC);
        if on_disk {
            rustix::fs::fsync(&file).call(|| format!("fsync({})", self.name_of(name)))?;
        }
        Ok(())
    }

    /// Whether the directory holds `name`.
    pub fn has(&self, name: &str) -> bool {
        rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Removes a file of the directory; its absence is fine.
    pub fn remove_file(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::os(format!("unlink({})", self.name_of(name)), errno)),
        }
    }

    /// Removes the directory and what Corten put there: the id is free again.
    pub fn remove(&self) -> Result<()> {
        for name in ["gate", "config.json", ".state.json", "state.json"] {
            self.remove_file(name)?;
        }
        self.remove_notify()?;
        let mut removed = rustix::fs::rmdir(&self.path);
        if removed == Err(rustix::io::Errno::NOTEMPTY) {
            // Few containers have one.
            self.remove_file("outcome")?;
            removed = rustix::fs::rmdir(&self.path);
        }
        match removed {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::os(format!("rmdir({})", self.path.display()), errno)),
        }
    }

    /// The notification socket and its directory, if there are any.
    fn remove_notify(&self) -> Result<()> {
        use crate::plan::notify::{DIRECTORY, SOCKET};
        if !self.has(DIRECTORY) {
            return Ok(());
        }
        self.remove_file(&format!("{DIRECTORY}/{SOCKET}"))?;
        rustix::fs::unlinkat(&self.fd, DIRECTORY, AtFlags::REMOVEDIR)
            .call(|| format!("rmdir({})", self.name_of(DIRECTORY)))
    }

    /// The directory's descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn name_of(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

/// The state root: made with all its parents, for its owner alone.
fn make_root(root: &Path) -> Result<()> {
    match rustix::fs::mkdir(root, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => return Ok(()),
        Err(rustix::io::Errno::NOENT) => {}
        Err(errno) => return Err(Error::os(format!("mkdir({})", root.display()), errno).at("state root")),
    }
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(root)
        .call(|| format!("mkdir({})", root.display()))
        .step(|| "state root")
}

/// No configuration and no state comes near it; it bounds what a file that grows, or never ends, can do, and keeps every
/// offset of an encoded program within 32 bits.
const LARGEST: usize = 16 << 20;

/// Reads a file, or a pipe, to its end.
///
/// # Errors
/// EFBIG for more than 16 MiB.
pub(crate) fn read_all(file: BorrowedFd<'_>) -> Result<Vec<u8>, rustix::io::Errno> {
    let size = usize::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0);
    let mut bytes = vec![0; size.min(LARGEST) + 1];
    let mut length = 0;
    loop {
        match rustix::io::retry_on_intr(|| rustix::io::read(file, &mut bytes[length..]))? {
            0 => break,
            count => length += count,
        }
        if length > LARGEST {
            return Err(rustix::io::Errno::FBIG);
        }
        if length == bytes.len() {
            bytes.resize(length * 2, 0);
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), rustix::io::Errno> {
    while !bytes.is_empty() {
        let count = rustix::io::write(file, bytes)?;
        bytes = &bytes[count..];
    }
    Ok(())
}

/// Now, as RFC 3339 in UTC with nanoseconds.
pub fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339(since.as_secs(), since.subsec_nanos())
}

/// Seconds since the epoch as a date: the civil calendar counted in eras of 400 years that begin in March.
fn rfc3339(seconds: u64, nanoseconds: u32) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (second / 3_600, second % 3_600 / 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}.{nanoseconds:09}Z", second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00.000000007Z"),
            (951_782_399, "2000-02-28T23:59:59.000000007Z"),
            (951_782_400, "2000-02-29T00:00:00.000000007Z"),
            (1_798_761_599, "2026-12-31T23:59:59.000000007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000007Z"),
        ] {
            assert_eq!(rfc3339(seconds, 7), date);
        }
    }

    /// Found by review: a state root may hold anything's name, and an endless file.
    #[test]
    fn ids_are_checked_where_they_become_paths_and_files_are_bounded() {
        let root = std::env::temp_dir();
        for id in ["..", "a/b", "", "."] {
            assert_eq!(Dir::open(&root, id).err().map(|error| error.kind()), Some(Kind::Invalid), "{id:?}");
            assert_eq!(Dir::create(&root, id).err().map(|error| error.kind()), Some(Kind::Invalid), "{id:?}");
        }
        let endless = std::fs::File::open("/dev/zero").unwrap();
        assert_eq!(read_all(endless.as_fd()), Err(rustix::io::Errno::FBIG));
        assert_eq!(read_all(std::fs::File::open("/dev/null").unwrap().as_fd()), Ok(Vec::new()));
    }

    /// Found by the fuzzer and by review: what none of these may be believed to be.
    #[test]
    fn states_that_nobody_wrote_are_refused() {
        let good = r#"{"version":1,"id":"box","bundle":"/b","rootfs":"/r","created":"","owner":0,"keepFds":2,"listenFds":1,
            "cgroup":{"version":"v2","id":"box","groups":[{"mount":"/sys/fs/cgroup","path":"/box"}]},
            "init":{"pid":7,"inode":1,"startTime":0,"bootId":"x"}}"#;
        assert!(State::read(good.as_bytes()).is_ok());
        for (from, to, field) in [
            ("\"version\":1", "\"version\":2", "/version"),
            ("\"id\":\"box\",\"bundle", "\"id\":\"../x\",\"bundle", "/id"),
            ("\"pid\":7", "\"pid\":-1", "/init/pid"),
            ("\"pid\":7", "\"pid\":0", "/init/pid"),
            // keep_fds - listen_fds is taken by `start`.
            ("\"listenFds\":1", "\"listenFds\":3", "/listenFds"),
            // No group at all was a panic of `kill` and `exec`; others would be emptied and removed.
            ("[{\"mount\":\"/sys/fs/cgroup\",\"path\":\"/box\"}]", "[]", "/cgroup"),
            ("\"path\":\"/box\"", "\"path\":\"/\"", "/cgroup"),
            ("\"path\":\"/box\"", "\"path\":\"/../../../home\"", "/cgroup"),
            ("\"path\":\"/box\"", "\"path\":\"box\"", "/cgroup"),
            ("\"mount\":\"/sys/fs/cgroup\"", "\"mount\":\"\"", "/cgroup"),
        ] {
            assert!(good.contains(from), "{from}");
            let error = State::read(good.replace(from, to).as_bytes()).unwrap_err();
            assert!(error.to_string().starts_with(&format!("{field}: ")), "{to}: {error}");
        }
    }

    #[test]
    fn a_hook_reads_the_state_as_json() {
        let annotations = BTreeMap::from([("a\"b".to_owned(), "c\nd".to_owned())]);
        let (before, after) = hook_state("id", "creating", Path::new("/b \"x\""), &annotations);
        let state: serde_json::Value = serde_json::from_str(&format!("{before}42{after}")).unwrap();
        assert_eq!(state["pid"], 42);
        assert_eq!(state["status"], "creating");
        assert_eq!(state["bundle"], "/b \"x\"");
        assert_eq!(state["annotations"]["a\"b"], "c\nd");
    }
}
