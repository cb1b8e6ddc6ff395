// SPDX-License-Identifier: Apache-2.0
//! `checkpoint`: CRIU writes the container's processes into a directory.
//!
//! CRIU freezes them, writes, and ends them or lets them go on. Whatever becomes of it, the container is not left frozen.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Statx, StatxFlags, openat2, statx};

use crate::ask::{Checkpoint, Create, CriuSettings, Home, NetworkLock};
use crate::container::{Container, Phase};
use crate::criu::images::{self, About};
use crate::criu::{self, CriuFeature, CriuOptions, CriuProcess, CriuResponse, CriuSetup, RequestKind, room};
use crate::error::{Context, Error, Kind, Result, WithStep};
use crate::facts::Facts;
use crate::host::members::ParentTable;
use crate::host::restore::MASK;
use crate::host::{network_lock, permitted};
use crate::plan::external::namespace_key;
use crate::plan::namespaces::NsKind;
use crate::plan::{AnnotationSettings, Plan};
use crate::procfs::{self, Stat};
use crate::spec::Spec;
use crate::state::{Identity, now};
use crate::sys::spawn::MountView;

const LOG: &str = "dump.log";
/// How often, and how long, a paused container goes on for the sake of a vfork(2).
const VFORK_TRIES: usize = 50;
const VFORK_MOMENT: Duration = Duration::from_millis(2);

/// `checkpoint`: writes the images. Unless it is to go on, the container has ended afterwards; it is not deleted.
///
/// Source: runc-checkpoint(8), criu(8).
#[doc = include_str!("examples/checkpoint.md")]
/// # Errors
/// `Kind::Status` unless it is running or paused; `Kind::Unsupported` without a CRIU that can; `Kind::Peer` with CRIU's own
/// words. The container then runs on as it did.
pub fn checkpoint(home: &Home, id: &str, ask: &Checkpoint) -> Result<()> {
    let container = Container::open_locked(home, id)?;
    let (phase, _init) = container.phase()?;
    if !matches!(phase, Phase::Running | Phase::Paused) {
        let text = format!("Container cannot be checkpointed in {} state", phase.name());
        return Err(Error::new(Kind::Status, text));
    }
    let program = super::criu_of_host()?;
    let spec = container.spec()?;
    // Trying out what the kernel can do, CRIU mounts: that would stay on the host if it were killed then.
    let mounts = spec.linux.namespaces.iter().any(|namespace| namespace.kind == "mount");
    let mounts = mounts.then(MountView::default);
    let mut criu = CriuProcess::start(&program, CriuSetup { mounts, ..CriuSetup::default() })?;
    // It takes longer to be there than all of this.
    let plan = plan_again(home, &container, &spec)?;
    let init = container.state.init.as_ref().map_or(0, |init| init.pid);
    let pids = container.pids()?;
    refuse_strangers(init, &pids)?;
    let images = images::for_dump(&ask.criu.image_path).step(|| "--image-path")?;
    if let Some(earlier) = &ask.parent_path {
        images::check_earlier(images.as_fd(), &ask.criu.image_path, earlier)?;
    }
    let work = ask.criu.work_path.as_deref().map(images::for_dump).transpose().step(|| "--work-path")?;
    carries(criu.check_version(&program)?, &plan)?;
    let logs = work.as_ref().unwrap_or(&images).as_fd();
    check_features(&mut criu, ask)?;
    if let Some(earlier) = &ask.parent_path {
        images::check_tracked(images.as_fd(), &ask.criu.image_path, earlier)?;
    }
    images::remove_pages(images.as_fd()).step(|| "--image-path")?;
    // Elsewhere the room is not ours to look at.
    if ask.page_server.is_none() && !ask.criu.lazy_pages {
        room::check(images.as_fd(), &ask.criu.image_path, &pids, ask.parent_path.is_some())?;
    }
    let mut options = CriuOptions::default();
    options.images_dir(images.as_fd());
    options.work_dir(logs);
    options.tell(LOG);
    options.pid(init);
    common(&mut options, &ask.criu, &plan.obeyed);
    dump_options(&mut options, ask);
    options.root(&container.state.rootfs.to_string_lossy());
    // Only to thaw what is frozen: CRIU stops the others by ptrace(2). With the freezer it waits ten seconds in vain now and then, for a
    // task that is just being made (decisions/0076).
    if phase == Phase::Paused
        && let Some(group) = container.group().freezer()?
    {
        past_vforks(&container)?;
        options.freeze_cgroup(&group);
    }
    namespaces(&mut options, &plan, init)?;
    own_groups(&mut options, init)?;
    if !ask.pre_dump {
        let table = procfs::read(&format!("/proc/{init}/mountinfo"))?;
        let mounts: Vec<_> = procfs::mounts(&table).collect();
        let external_mounts = external(&mut options, &plan, init, &mounts)?;
        let streams = streams(init, &pids, &mounts);
        // Pipes need no word.
        let keys = streams.iter().filter_map(|stream| stream.key.as_ref());
        keys.filter(|key| !key.starts_with("pipe")).for_each(|key| options.external(key));
        let external_namespaces = plan.namespaces.join.iter().map(|join| join.kind.name().to_owned());
        let about = About {
            version: About::VERSION,
            id: id.to_owned(),
            init,
            created: now(),
            external_mounts,
            external_namespaces: external_namespaces.collect(),
            external_streams: streams.each_ref().map(|stream| stream.key.clone()),
        };
        images::note(images.as_fd(), &streams.map(|stream| stream.link), &about).step(|| "--image-path")?;
    }
    let dumped = dump(criu, logs, &container, ask, &options);
    dumped.map_err(|error| explain(error, &program, logs, &container, phase))
}

/// Asks CRIU, and answers it until it is done.
fn dump(
    mut criu: CriuProcess,
    logs: BorrowedFd<'_>,
    container: &Container,
    ask: &Checkpoint,
    options: &CriuOptions,
) -> Result<()> {
    let kind = if ask.pre_dump { RequestKind::PreDump } else { RequestKind::Dump };
    // `delete --force` must be able to end what holds the container.
    container.dir.set_hook(Some(&Identity::of(criu.pid(), criu.pidfd())?))?;
    let answer = attend(&mut criu, kind, ask, options);
    let ended = criu.end();
    container.dir.set_hook(None)?;
    match answer {
        Ok(answer) if answer.success && answer.kind == Some(kind) => ended,
        Ok(answer) => Err(answer.refusal()),
        // It is gone without a word, and what it has locked stays locked.
        Err(error) => {
            let init = container.state.init.as_ref().map_or(0, |init| init.pid);
            Err(match network_lock::unlock_of(init, logs, LOG) {
                Ok(()) => error,
                // So is the container.
                Err(also) if matches!(also.errno(), Some(libc::ENOENT | libc::ESRCH)) => error,
                Err(also) => error.at(format!("and the container's network may still be locked ({also})")),
            })
        }
    }
}

/// Its last answer.
fn attend(
    criu: &mut CriuProcess,
    kind: RequestKind,
    ask: &Checkpoint,
    options: &CriuOptions,
) -> Result<CriuResponse> {
    criu.ask(kind, options)?;
    loop {
        let (response, _) = criu.hear()?;
        if response.kind != Some(RequestKind::Notify) {
            return Ok(response);
        }
        if let ("status-ready", Some(status)) = (response.script.as_str(), &ask.status_fd) {
            rustix::io::write(status, &[0]).call(|| "write(--status-fd)")?;
        }
        criu.go_on()?;
    }
}

/// A task that was frozen in vfork(2) cannot be stopped before its child has executed something, which CRIU stops as well: it would wait
/// ten seconds in vain. So a paused container goes on for a moment until there is none.
fn past_vforks(container: &Container) -> Result<()> {
    for _ in 0..VFORK_TRIES {
        if !container.pids()?.into_iter().any(procfs::waits_for_its_child) {
            break;
        }
        container.group().freeze(false)?;
        std::thread::sleep(VFORK_MOMENT);
        container.group().freeze(true)?;
    }
    Ok(())
}

/// What the failure means, and the container as it was: CRIU leaves it frozen if it dies meanwhile, and thawed if it gives up.
fn explain(
    error: Error,
    program: &Path,
    logs: BorrowedFd<'_>,
    container: &Container,
    before: Phase,
) -> Error {
    let error = criu::explain(error, program, logs, LOG);
    let as_it_was = match (before, container.group().is_frozen()) {
        (Phase::Running, Ok(true)) => container.group().freeze(false),
        (Phase::Paused, Ok(false)) => container.group().freeze(true),
        (_, Err(error)) => Err(error),
        _ => Ok(()),
    };
    match as_it_was {
        Ok(()) => error,
        Err(also) => error.at(format!("and the container is not {} as before ({also})", before.name())),
    }
}

/// The plan of its `create`, for what comes from outside.
fn plan_again(home: &Home, container: &Container, spec: &Spec) -> Result<Plan> {
    let state = &container.state;
    let mut facts = Facts::probe()?.for_rootless(home.rootless);
    facts.permitted = permitted::by(&facts, &spec.annotations)?;
    facts.probe_sources(spec, &state.bundle);
    let ask = Create {
        id: state.id.clone(),
        no_pivot: state.no_pivot,
        no_new_keyring: state.no_keyring,
        ..Create::default()
    };
    Plan::new(spec, &facts, home, &ask, state.bundle.clone())
}

/// What dump and restore are told alike.
pub(super) fn common(options: &mut CriuOptions, ask: &CriuSettings, obeyed: &AnnotationSettings) {
    options.tcp_established(ask.tcp_established);
    options.ext_unix_sk(ask.ext_unix_sk);
    options.shell_job(ask.shell_job);
    options.file_locks(ask.file_locks);
    options.manage_cgroups(ask.cgroups);
    options.empty_namespaces(ask.empty_namespaces);
    options.auto_dedup(ask.auto_dedup);
    options.lazy_pages(ask.lazy_pages);
    options.orphan_pts_master();
    if let Some(method) = ask.network_lock.or_else(default_lock) {
        options.network_lock(method);
    }
    if let Some(file) = config_file(obeyed) {
        options.config_file(&file);
    }
}

/// CRIU's own choice is iptables, by a program that need not be there; nftables it can do without one.
fn default_lock() -> Option<NetworkLock> {
    criu::in_path("iptables-restore").is_none().then_some(NetworkLock::Nftables)
}

/// Settings of the administrator's, which go before all that is asked here (criu(8), "Configuration files").
fn config_file(obeyed: &AnnotationSettings) -> Option<String> {
    match &obeyed.criu_config {
        Some(file) => Some(file.clone()).filter(|file| !file.is_empty()),
        None => {
            let usual = ["/etc/criu/corten.conf", "/etc/criu/runc.conf"];
            usual.into_iter().find(|file| Path::new(file).exists()).map(str::to_owned)
        }
    }
}

/// What an older CRIU drops without a word: a restore would be refused, with the container gone.
fn carries(version: u32, plan: &Plan) -> Result<()> {
    let lost = [
        (
            31_900,
            plan.process.as_ref().is_some_and(|process| process.no_new_privileges),
            "/process/noNewPrivileges",
        ),
        (31_800, plan.rootfs.readonly, "/root/readonly"),
    ];
    match lost.into_iter().find(|(since, asked, _)| *asked && version < *since) {
        Some((since, _, field)) => {
            let (major, minor) = (version / 10_000, version / 100 % 100);
            let text = format!(
                "CRIU {major}.{minor} does not carry it: install {}.{} or newer",
                since / 10_000,
                since / 100 % 100
            );
            Err(Error::invalid(field, text).with_kind(Kind::Unsupported))
        }
        None => Ok(()),
    }
}

fn dump_options(options: &mut CriuOptions, ask: &Checkpoint) {
    options.leave_running(ask.leave_running || ask.pre_dump);
    options.tcp_skip_in_flight(ask.tcp_skip_in_flight);
    options.link_remap(ask.link_remap);
    if let Some(parent) = &ask.parent_path {
        options.parent(parent);
    }
    if ask.pre_dump || ask.parent_path.is_some() {
        options.track_mem();
    }
    if let Some((address, port)) = &ask.page_server {
        options.page_server(address, *port);
    }
}

/// Of a hierarchy in whose root the container is, CRIU would dump everybody's groups, and a restore would make them again.
fn own_groups(options: &mut CriuOptions, init: i32) -> Result<()> {
    /// No hierarchy is called so: without any, CRIU takes all.
    const NONE: &str = "-";
    let table = procfs::read(&format!("/proc/{init}/cgroup"))?;
    let own = procfs::groups(&table).filter(|(_, group)| *group != "/").map(|(name, _)| name);
    let own: Vec<&str> = own.collect();
    let names = if own.is_empty() { vec![NONE] } else { own };
    names.into_iter().for_each(|name| options.dump_controller(name));
    Ok(())
}

/// What the kernel must be able to do for this.
fn check_features(criu: &mut CriuProcess, ask: &Checkpoint) -> Result<()> {
    const TRACK: &str = "to track memory (CONFIG_MEM_SOFT_DIRTY)";
    let wanted = [
        (ask.pre_dump, CriuFeature::MemTrack, "--pre-dump", TRACK),
        (ask.parent_path.is_some(), CriuFeature::MemTrack, "--parent-path", TRACK),
        (ask.criu.lazy_pages, CriuFeature::LazyPages, "--lazy-pages", "userfaultfd(2)"),
    ];
    for (_, feature, flag, what) in wanted.into_iter().filter(|(asked, ..)| *asked) {
        if !criu.has_feature(feature)? {
            let text = format!("this kernel, or this CRIU, is not able {what}");
            return Err(Error::new(Kind::Unsupported, text).at(flag));
        }
    }
    Ok(())
}

/// Namespaces of others are not dumped; they have a name in the images instead.
fn namespaces(options: &mut CriuOptions, plan: &Plan, init: i32) -> Result<()> {
    for join in &plan.namespaces.join {
        let Some(key) = namespace_key(join) else { continue };
        let file = join.kind.file();
        let path = format!("/proc/{init}/ns/{file}");
        let inode = rustix::fs::stat(&*path).call(|| format!("stat({path})"))?.st_ino;
        options.external(&format!("{file}[{inode}]:{key}"));
    }
    Ok(())
}

/// Mounts of the host's are not dumped, either. Returns what they are called in the images.
fn external(
    options: &mut CriuOptions,
    plan: &Plan,
    init: i32,
    mounts: &[procfs::MountinfoEntry<'_>],
) -> Result<Vec<String>> {
    let mut names: Vec<(String, String)> = Vec::new();
    for mount in plan.external_mounts() {
        let point = match mounts.iter().any(|entry| entry.point() == mount.target) {
            true => Some(mount.target.to_owned()),
            false => mount_point(init, mount.target, mounts)?,
        };
        names.extend(point.map(|point| (point, mount.target.to_owned())));
    }
    // What came along with a recursive bind, and what hides a file by one of a mount that the container does not see whole.
    let whole = |entry: &procfs::MountinfoEntry<'_>| {
        mounts.iter().any(|other| other.device == entry.device && other.root() == "/")
    };
    for entry in mounts {
        let point = entry.point();
        let named = names.iter().any(|(known, _)| *known == point);
        let below = names.iter().any(|(known, _)| point.starts_with(&format!("{known}/")));
        // A cgroup namespace has mounts of its own, whose root is the container's group.
        let own_groups = entry.fstype.starts_with("cgroup") && plan.namespaces.has(NsKind::Cgroup);
        if point == "/" || named || own_groups || !below && whole(entry) {
            continue;
        }
        let hidden = plan.masked.iter().any(|masked| masked.value == point);
        names.push((point.clone(), if hidden { MASK.to_owned() } else { point }));
    }
    for (point, name) in &names {
        options.external_mount(point, name);
    }
    Ok(names.into_iter().map(|(_, name)| name).collect())
}

/// Where the mount is that a path inside leads to, through links.
fn mount_point(init: i32, target: &str, mounts: &[procfs::MountinfoEntry<'_>]) -> Result<Option<String>> {
    let path = format!("/proc/{init}/root");
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, &path, flags, Mode::empty()).call(|| format!("open({path})"))?;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // What is not there any more, the container has unmounted.
    let Ok(found) = openat2(&root, target, flags, Mode::empty(), resolve) else { return Ok(None) };
    let number = statx(&found, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).call(|| "statx")?.stx_mnt_id;
    Ok(mounts.iter().find(|entry| entry.number == number).map(|entry| entry.point()))
}

/// One of the standard streams at the checkpoint.
#[derive(Default)]
struct Stream {
    /// What the link in /proc says.
    link: String,
    /// What it is called in the images, if it comes from outside.
    key: Option<String>,
}

/// The standard streams: those of init, or of whoever still has what the caller gave.
fn streams(init: i32, pids: &[i32], mounts: &[procfs::MountinfoEntry<'_>]) -> [Stream; 3] {
    [0, 1, 2].map(|number| {
        let first = stream(init, number, mounts).unwrap_or_default();
        let others = pids.iter().filter(|pid| **pid != init).filter_map(|pid| stream(*pid, number, mounts));
        match first.key {
            Some(_) => first,
            None => others.into_iter().find(|stream| stream.key.is_some()).unwrap_or(first),
        }
    })
}

/// `None` for one that is closed. A pipe is called as its link; a file on a mount that the container does not have, by that; the
/// caller's terminal by its device.
fn stream(pid: i32, number: usize, mounts: &[procfs::MountinfoEntry<'_>]) -> Option<Stream> {
    let path = format!("/proc/{pid}/fd/{number}");
    let link = std::fs::read_link(&path).ok()?.to_string_lossy().into_owned();
    if link.starts_with("pipe:") {
        return Some(Stream { key: Some(link.clone()), link });
    }
    let about = statx(CWD, &*path, AtFlags::empty(), StatxFlags::MNT_ID | StatxFlags::INO).ok()?;
    let inside = mounts.iter().any(|entry| entry.number == about.stx_mnt_id);
    let key = (!inside).then(|| outside_key(&link, &about)).flatten();
    Some(Stream { link, key })
}

fn outside_key(link: &str, about: &Statx) -> Option<String> {
    let device = |major, minor| rustix::fs::makedev(major, minor);
    match link {
        _ if link.starts_with("/dev/pts/") || link.starts_with("/dev/tty") => {
            let itself = device(about.stx_rdev_major, about.stx_rdev_minor);
            Some(format!("tty[{itself:x}:{:x}]", device(about.stx_dev_major, about.stx_dev_minor)))
        }
        _ => link.starts_with('/').then(|| format!("file[{:x}:{:x}]", about.stx_mnt_id, about.stx_ino)),
    }
}

/// CRIU dumps init and what descends from it. A process that an exec brought in does not, and would make it fail in the middle.
fn refuse_strangers(init: i32, pids: &[i32]) -> Result<()> {
    let parents = ParentTable::of(pids)?;
    let descends = |pid: i32| parents.ancestry(pid).any(|pid| pid == init);
    match pids.iter().find(|pid| parents.has(**pid) && !descends(**pid)) {
        Some(stranger) => {
            let name = Stat::of(*stranger).map(|stat| stat.name().to_owned()).unwrap_or_default();
            let name = crate::error::printable(&name);
            let text = format!(
                "process {stranger} ({name}) was brought in by an exec and does not descend from the container's init: it cannot be checkpointed"
            );
            Err(Error::new(Kind::Status, text))
        }
        None => Ok(()),
    }
}
