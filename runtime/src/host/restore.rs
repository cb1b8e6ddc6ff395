// SPDX-License-Identifier: Apache-2.0
//! The host's half of a restore: CRIU is started among the container's groups and mounts, and met at two points.
//!
//! `launch.rs` calls this room step by step. CRIU has the rootfs and everything from outside in a mount namespace of its own: what
//! it mounts on is what was opened here, and nothing is left when it has ended, however it does.

#![forbid(unsafe_code)]

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fstat};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::launch::{Child, LaunchPurpose, Walk};
use super::mount_points;
use super::network_lock;
use super::undo::Undo;
use crate::ask::Stdio;
use crate::cgroup::{Version, WayIn};
use crate::criu::images::{PARENT, RestoreImages};
use crate::criu::{CriuOptions, CriuProcess, CriuSetup, INHERITED, RequestKind};
use crate::error::{Context, Error, Kind, Result, WithStep};
use crate::plan::Plan;
use crate::plan::namespaces::NsKind;
use crate::procfs;
use crate::program::{MountPoint, RestorePoint, RestoreSources};
use crate::sys::spawn::{MountView, ViewMount, ViewOverlay};

/// CRIU's log of a restore.
pub(crate) const LOG: &str = "restore.log";
/// What hides a file is called so in the images, as by runc.
pub(crate) const MASK: &str = "/dev/null";

/// What a restore is given besides what a create is.
pub struct Restoration {
    /// CRIU.
    pub(crate) program: PathBuf,
    /// The images.
    pub(crate) images: RestoreImages,
    /// What CRIU is told in any case.
    pub(crate) options: CriuOptions,
}

impl Restoration {
    /// The error with what CRIU's log says of it.
    pub(crate) fn explain(&self, error: Error) -> Error {
        crate::criu::explain(error, &self.program, self.images.logs(), LOG)
    }
}

/// CRIU at work on it.
pub(super) struct RestoreUnderWay {
    criu: CriuProcess,
    /// The directories that it was told of by these descriptors of ours.
    _dirs: [OwnedFd; 2],
    /// A point at which it waits for our answer.
    at: Option<String>,
}

impl Walk<'_> {
    pub(super) fn mount_points(&self, points: &[MountPoint]) -> Result<()> {
        for point in points {
            let Some(tree) = self.sources.get(point.tree) else { continue };
            let like = point.like.and_then(|index| self.sources.get(index)).map(AsFd::as_fd);
            mount_points::make(tree.as_fd(), &point.path, like)
                .step(|| format!("mount point {}", point.path))?;
        }
        Ok(())
    }

    pub(super) fn restore(&mut self, wanted: &RestoreSources) -> Result<()> {
        let (Some(given), LaunchPurpose::Create { plan, dir, .. }) =
            (self.given.restoration, &self.given.purpose)
        else {
            return Err(Error::new(Kind::Invalid, "internal error: nothing to restore"));
        };
        let mut options = given.options.clone();
        let private = !plan.namespaces.has(NsKind::User);
        // Through no link: an absolute one would lead out of CRIU's mount namespace, from where it is looked up below.
        let base = dir.path().canonicalize().call(|| format!("realpath({})", dir.path().display()))?;
        let mut sources: Vec<_> = std::mem::take(&mut self.sources).into_iter().map(Some).collect();
        let (view, names) = view(&mut sources, wanted, given, &base, private)?;
        let base = base.to_string_lossy();
        options.root(&format!("{base}/{ROOT}"));
        for (name, path) in external_mounts(wanted, &names, &base, given) {
            options.external_mount(&name, &path);
        }
        let mut setup = CriuSetup { mounts: Some(view), ..CriuSetup::default() };
        for ((source, key), number) in wanted.namespaces.iter().zip(INHERITED..) {
            let Some(namespace) = sources.get_mut(*source).and_then(Option::take) else { continue };
            setup.inherit.push(namespace);
            options.inherit(key, number);
        }
        for (kind, path) in &wanted.join {
            options.join_namespace(kind, path);
        }
        let stdio = streams(&self.given.subject.stdio, plan)?;
        for (key, number) in given.images.inherited_streams() {
            let mut from = number;
            // CRIU takes away what it is given, and asks its own terminal for --shell-job.
            if let Some(terminal) = stdio.get(number as usize).filter(|_| key.starts_with("tty[")) {
                from = INHERITED + setup.inherit.len() as i32;
                setup.inherit.push(terminal.try_clone().call(|| "dup(terminal)")?);
            }
            options.inherit(&key, from);
        }
        setup.stdio = Some(null_in_place(stdio, &given.images)?);
        let mut criu = CriuProcess::start(&given.program, setup)?;
        criu.check_version(&given.program)?;
        // CRIU mounts something below where it is at work: that must be a mount of its own.
        let seen = |name: &str| {
            let path = format!("/proc/{}/root{base}/{name}", criu.pid());
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(&*path, flags, Mode::empty()).call(|| format!("open({path})"))
        };
        // As it is: links in it lead to the dumps before. A user namespace's root may not look into it.
        let images =
            if private { given.images.dir.try_clone().call(|| "dup(images)")? } else { seen(SHOWN)? };
        let work = seen(WORK)?;
        options.images_dir(images.as_fd());
        options.work_dir(work.as_fd());
        // `delete --force` must be able to end what holds the container.
        dir.set_hook(Some(&crate::state::Identity::of(criu.pid(), criu.pidfd())?))?;
        let placed = self.placement.as_mut().map_or(Ok(()), |placement| {
            placement.place(criu.pid())?;
            placement.release_holder()
        });
        placed?;
        cgroup_roots(&mut options, criu.pid(), plan.cgroup.record.version)?;
        criu.ask(RequestKind::Restore, &options)?;
        self.restore = Some(RestoreUnderWay { criu, _dirs: [images, work], at: None });
        self.give_room_back();
        Ok(())
    }

    /// Goes on from where CRIU waits until it waits at `point`.
    pub(super) fn await_criu(&mut self, point: RestorePoint) -> Result<()> {
        let script = match point {
            RestorePoint::Namespaces => "setup-namespaces",
            RestorePoint::Processes => "pre-resume",
        };
        loop {
            let Some(under_way) = &mut self.restore else { return Err(no_restore()) };
            match under_way.at.take() {
                // Without namespaces of its own there is nothing to set up.
                Some(at) if at == script || at == "pre-resume" => {
                    under_way.at = Some(at);
                    return Ok(());
                }
                Some(_) => under_way.criu.go_on()?,
                None => {}
            }
            self.hear_criu()?;
        }
    }

    /// Lets the processes go on.
    pub(super) fn resume(&mut self) -> Result<()> {
        if let Some(lock) = self.given.restoration.and_then(|given| given.images.lock()) {
            let joined = self.joined_network()?;
            joined.map_or(Ok(()), |network| network_lock::let_in(network.as_fd(), &lock))?;
        }
        loop {
            let Some(under_way) = &mut self.restore else { return Err(no_restore()) };
            if under_way.at.take().is_some() {
                under_way.criu.go_on()?;
            }
            self.keep_thawed()?;
            if self.hear_criu()? {
                break;
            }
        }
        let Some(under_way) = self.restore.take() else { return Err(no_restore()) };
        under_way.criu.end()?;
        match &self.given.purpose {
            LaunchPurpose::Create { dir, .. } => dir.set_hook(None),
            LaunchPurpose::Exec { .. } => Ok(()),
        }
    }

    /// A group that was frozen at the dump is frozen again if CRIU restores its settings, and CRIU is in it: it would never end.
    fn keep_thawed(&mut self) -> Result<()> {
        const OFTEN: i64 = 50_000_000;
        let (Some(under_way), Some(made)) = (&self.restore, &self.group) else { return Ok(()) };
        while under_way.criu.is_silent_for(OFTEN)? {
            if made.group.is_frozen()? {
                made.group.freeze(false)?;
            }
        }
        Ok(())
    }

    /// Hears one word of CRIU's; whether it was the last.
    fn hear_criu(&mut self) -> Result<bool> {
        let Some(under_way) = &mut self.restore else { return Err(no_restore()) };
        let (response, fd) = under_way.criu.hear()?;
        match response.kind {
            Some(RequestKind::Restore) if response.success => return Ok(true),
            Some(RequestKind::Notify) => {}
            _ => return Err(response.refusal()),
        }
        under_way.at = Some(response.script.clone());
        match response.script.as_str() {
            "setup-namespaces" | "post-restore" | "pre-resume" if self.child.is_none() => {
                self.restored(response.pid)?
            }
            "orphan-pts-master" => self.hand_over_console(fd)?,
            _ => {}
        }
        Ok(false)
    }

    /// The root of the tree of processes: a child of ours, so that its number is nobody else's before it is waited for.
    fn restored(&mut self, pid: i32) -> Result<()> {
        let number = Pid::from_raw(pid).ok_or_else(|| Error::new(Kind::Peer, "criu told of no process"))?;
        let pidfd = pidfd_open(number, PidfdFlags::empty()).call(|| format!("pidfd_open({pid})"))?;
        if let LaunchPurpose::Create { plan, .. } = &self.given.purpose {
            self.journal.push(Undo::Poststop(plan));
        }
        self.journal.push_child(&pidfd)?;
        self.child = Some(Child { pid, pidfd, channel: None, way_in: WayIn::Born, cloner: None });
        Ok(())
    }

    fn network_of_child(&self) -> Result<OwnedFd> {
        let path = format!("/proc/{}/ns/net", self.pid());
        rustix::fs::open(&*path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .call(|| format!("open({path})"))
    }

    pub(super) fn loopback(&self) -> Result<()> {
        crate::sys::ns::loopback_up_in(self.network_of_child()?.as_fd())
    }

    pub(super) fn hold_packets(&self) -> Result<()> {
        network_lock::hold(self.network_of_child()?.as_fd())
    }

    pub(super) fn let_packets_in(&self) -> Result<()> {
        network_lock::let_in(self.network_of_child()?.as_fd(), network_lock::TABLE)
    }

    pub(super) fn compare(&self) -> Result<()> {
        let LaunchPurpose::Create { plan, .. } = &self.given.purpose else { return Ok(()) };
        super::restored::compare(plan, self.pid())
    }

    /// CRIU ends the processes that it has made, and itself. Once they are complete it would let them go on instead: so they are
    /// killed first.
    pub(super) fn give_restore_up(&mut self) -> Result<()> {
        let Some(under_way) = self.restore.take() else { return Ok(()) };
        let killed = match &self.child {
            Some(child) => super::identity::kill(child.pidfd.as_fd()),
            None => Ok(()),
        };
        let killed = killed.and(self.group.as_ref().map_or(Ok(()), |made| {
            if under_way.at.is_some() && self.child.is_some() { made.group.kill() } else { Ok(()) }
        }));
        // A network that it only joined lives on, locked if CRIU died.
        let locks = self.given.restoration.map(|given| network_lock::tables(given.images.logs(), LOG));
        killed.and(under_way.criu.end()).and(self.unlock_joined(&locks.unwrap_or_default()))
    }

    fn unlock_joined(&self, tables: &[String]) -> Result<()> {
        self.joined_network()?.map_or(Ok(()), |network| network_lock::unlock(network.as_fd(), tables))
    }

    fn joined_network(&self) -> Result<Option<OwnedFd>> {
        let LaunchPurpose::Create { plan, .. } = &self.given.purpose else { return Ok(None) };
        let Some(join) = plan.namespaces.join_of(NsKind::Network) else { return Ok(None) };
        let namespace = rustix::fs::open(&*join.path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        namespace.call(|| format!("open({})", join.path)).map(Some)
    }
}

/// What CRIU finds in its mount namespace; and where, by the name in the images.
fn view(
    sources: &mut [Option<OwnedFd>],
    wanted: &RestoreSources,
    given: &Restoration,
    base: &Path,
    private: bool,
) -> Result<(MountView, Vec<(String, String)>)> {
    let mut mounts = Vec::new();
    let mut names = Vec::new();
    let mut attach = |index: usize, name: String| -> Result<bool> {
        let Some(mount) = sources.get_mut(index).and_then(Option::take) else { return Ok(false) };
        let stat = fstat(&mount).call(|| "fstat")?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        // A link that was to be made again is no mount.
        if kind == FileType::Symlink {
            return Ok(false);
        }
        let name = CString::new(name).unwrap_or_default();
        mounts.push(ViewMount { mount, name, is_directory: kind == FileType::Directory, private: false });
        Ok(true)
    };
    attach(wanted.rootfs, ROOT.to_owned())?;
    for (number, (index, name)) in wanted.mounts.iter().enumerate() {
        if attach(*index, number.to_string())? {
            names.push((name.clone(), number.to_string()));
        }
    }
    let mut attach_dir = |dir: BorrowedFd<'_>, name: CString| -> Result<()> {
        let flags =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let copy = open_tree(dir, "", flags).call(|| "open_tree(images)")?;
        mounts.push(ViewMount { mount: copy, name, is_directory: true, private: true });
        Ok(())
    };
    attach_dir(given.images.logs(), name_of(WORK, 0))?;
    let mut view = if private {
        MountView { cover: c_string(base), mode: 0o700, ..MountView::default() }
    } else {
        let earlier = given.images.earlier()?;
        for (number, dir) in std::iter::once(&given.images.dir).chain(&earlier).enumerate() {
            attach_dir(dir.as_fd(), name_of(IMAGES, number))?;
        }
        visible_view(base, earlier.len())?
    };
    view.mounts = mounts;
    Ok((view, names))
}

fn no_restore() -> Error {
    Error::new(Kind::Invalid, "internal error: no restore is under way")
}

/// Names in CRIU's mount namespace, beside numbers.
const ROOT: &str = "root";
const IMAGES: &str = "images";
const WORK: &str = "work";
/// The images as everybody may see them.
const SHOWN: &str = "shown";
const UPPER: &str = "upper";
const SCRATCH: &str = "scratch";

fn c_string(path: &Path) -> CString {
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

/// A view that a user namespace's root may look into: CRIU does part of its work as that one. The tmpfs covers the first directory on
/// the way to `base` that is not open to everybody, and the images, which root alone may read, are shown by an overlay: as the
/// host's root, without any capability here, CRIU looks into them, too, so that an id-mapped copy does not do. Each dump before is shown
/// likewise, and the link to it leads there.
fn visible_view(base: &Path, earlier: usize) -> Result<MountView> {
    let mut cover = base;
    let ancestors: Vec<&Path> = base.ancestors().collect();
    for dir in ancestors.into_iter().rev() {
        let mode = rustix::fs::stat(dir).call(|| format!("stat({})", dir.display()))?.st_mode;
        if mode & 0o001 == 0 {
            cover = dir;
            break;
        }
    }
    let rest = base.strip_prefix(cover).unwrap_or(Path::new(""));
    let dirs = rest.components().map(|part| c_string(Path::new(part.as_os_str()))).collect();
    let overlay = |number: usize| {
        let [images, upper, scratch] =
            [IMAGES, UPPER, SCRATCH].map(|name| name_of(name, number).to_string_lossy().into_owned());
        let link = (number < earlier).then(|| {
            let before = name_of(SHOWN, number + 1).to_string_lossy().into_owned();
            (c_string(Path::new(&format!("{upper}/{PARENT}"))), c_string(Path::new(&format!("../{before}"))))
        });
        ViewOverlay {
            name: name_of(SHOWN, number),
            upper: name_of(UPPER, number),
            scratch: name_of(SCRATCH, number),
            options: c_string(Path::new(&format!("lowerdir={images},upperdir={upper},workdir={scratch}"))),
            link,
        }
    };
    let overlays = (0..=earlier).map(overlay).collect();
    Ok(MountView { cover: c_string(cover), mode: 0o755, dirs, mounts: Vec::new(), overlays })
}

/// Of the restored dump, and of each before it.
fn name_of(name: &str, number: usize) -> CString {
    let name = if number == 0 { name.to_owned() } else { format!("{name}-{number}") };
    CString::new(name).unwrap_or_default()
}

/// Where CRIU finds what the images do not hold: what the configuration has, and what lies below that.
fn external_mounts(
    wanted: &RestoreSources,
    names: &[(String, String)],
    base: &str,
    given: &Restoration,
) -> Vec<(String, String)> {
    let path = |number: &str, rest: &str| format!("{base}/{number}{rest}");
    let mut found: Vec<(String, String)> =
        names.iter().map(|(name, number)| (name.clone(), path(number, ""))).collect();
    if wanted.masks {
        found.push((MASK.to_owned(), MASK.to_owned()));
    }
    for name in given.images.external_mounts().filter(|name| !names.iter().any(|(known, _)| known == name)) {
        let over = names.iter().filter_map(|(known, number)| {
            let rest = name.strip_prefix(known.as_str()).filter(|rest| rest.starts_with('/'))?;
            Some((known.len(), path(number, rest)))
        });
        if let Some((_, path)) = over.max() {
            found.push((name.to_owned(), path));
        }
    }
    found
}

/// What the processes have as their standard streams.
fn streams(stdio: &Stdio, plan: &Plan) -> Result<[OwnedFd; 3]> {
    let terminal = plan.process.as_ref().is_some_and(|process| process.terminal.is_some());
    let copies = |fds: [std::os::fd::BorrowedFd<'_>; 3]| -> Result<[OwnedFd; 3]> {
        let [stdin, stdout, stderr] = fds.map(|fd| fd.try_clone_to_owned().call(|| "dup(stdio)"));
        Ok([stdin?, stdout?, stderr?])
    };
    match stdio {
        Stdio::Fds([stdin, stdout, stderr]) => copies([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]),
        Stdio::Inherit if !terminal => {
            let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
            copies([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()])
        }
        _ => Ok([null()?, null()?, null()?]),
    }
}

fn null() -> Result<OwnedFd> {
    rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).call(|| "open(/dev/null)")
}

/// One file that several streams were is one descriptor now. The null device is opened for both ways then.
fn null_in_place(mut stdio: [OwnedFd; 3], images: &RestoreImages) -> Result<[OwnedFd; 3]> {
    for (_, number) in images.inherited_streams() {
        if let Some(stream) = usize::try_from(number).ok().and_then(|number| stdio.get_mut(number)) {
            let stat = fstat(&*stream).call(|| "fstat(stdio)")?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
                && stat.st_rdev == NULL_DEVICE
            {
                *stream = null()?;
            }
        }
    }
    Ok(stdio)
}

/// makedev(1, 3)
pub(super) const NULL_DEVICE: u64 = 0x103;

/// Where the container's groups are now, which CRIU is in already: below them it makes what the images have.
fn cgroup_roots(options: &mut CriuOptions, pid: i32, version: Version) -> Result<()> {
    let table = procfs::read(&format!("/proc/{pid}/cgroup"))?;
    for (controllers, group) in procfs::groups(&table) {
        match (controllers, version) {
            // A hybrid host's, too: else the tasks are in the group that the dumped container had, whatever it is called now.
            ("", Version::V1 | Version::V2) => options.cgroup_root("", group),
            ("", Version::None) => {}
            _ => controllers.split(',').for_each(|controller| options.cgroup_root(controller, group)),
        }
    }
    Ok(())
}
