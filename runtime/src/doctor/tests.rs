// SPDX-License-Identifier: Apache-2.0
//! A host on which all is well, and for every check a change to it that the check is to find. A check without one fails here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::cgroups::CgroupSigns;
use super::engines::{ConfigFile, EngineSigns};
use super::files::{FileSigns, FileSystem};
use super::kernel::KernelSigns;
use super::leftovers::{Dead, DeadContainer, DeadShim, Leftovers};
use super::programs::{FoundProgram, ProgramSigns, VersionAnswer};
use super::security::SecuritySigns;
use super::users::{Forbidding, UserSigns};
use super::{Health, HostCheck, Signs, catalogue, examine};
use crate::cgroup::{Hierarchies, Hierarchy};
use crate::error::Error;
use crate::facts::{Facts, Permitted};
use crate::features::{COMMIT, VERSION};
use crate::sys::probe::{Question, UserNamespaceTry};

#[path = "tests/engines.rs"]
mod engines;

/// None of the questions may succeed: a kernel that takes one of them would do something.
#[test]
fn every_question_is_refused() {
    for (question, errno) in super::kernel::look().answers {
        assert_ne!(errno, 0, "{question:?}");
    }
}

fn texts(all: &[&str]) -> Vec<String> {
    all.iter().map(|text| (*text).to_owned()).collect()
}

fn program(path: &str, said: &str) -> FoundProgram {
    FoundProgram { path: PathBuf::from(path), answer: VersionAnswer::Said(said.to_owned()) }
}

fn silent(path: &str, answer: VersionAnswer) -> FoundProgram {
    FoundProgram { path: PathBuf::from(path), answer }
}

fn facts() -> Facts {
    let v2 = Hierarchy { mount: "/sys/fs/cgroup".into(), own: "/".into(), controllers: Vec::new() };
    Facts {
        euid: 0,
        in_userns: false,
        egid: 0,
        effective: (1 << 41) - 1,
        copies_mounts: true,
        setgroups_denied: false,
        ids: None,
        delegated: None,
        ignored: 0,
        last_cap: 40,
        grantable: (1 << 41) - 1,
        apparmor: true,
        selinux: true,
        cgroups: Hierarchies { v1: Vec::new(), v2: Some(v2), user: None },
        mount_setattr: true,
        below_sys: Vec::new(),
        mounts: Vec::new(),
        within: BTreeMap::new(),
        permitted: Permitted::default(),
    }
}

/// Root's, and nothing is amiss.
fn healthy() -> Signs {
    let said = format!("corten version {VERSION}\ncommit: {COMMIT}\n");
    Signs {
        facts: facts(),
        kernel: KernelSigns {
            release: "6.18.0-1-amd64".into(),
            answers: Vec::new(),
            killable: true,
            memfd: 0,
            namespaces: ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]
                .map(String::from)
                .into(),
            file_systems: ["proc", "sysfs", "tmpfs", "devpts", "mqueue"].map(String::from).into(),
            modules: ["overlay".to_owned()].into(),
            pidfs: true,
            mount_ids: true,
        },
        cgroups: CgroupSigns {
            controllers: texts(&["cpu", "cpuset", "io", "memory", "pids"]),
            writable: true,
            kill: Some(true),
            systemd: true,
            sockets: texts(&["/run/systemd/private"]),
            socket: Some("/run/systemd/private".into()),
        },
        users: UserSigns {
            tried: Ok(UserNamespaceTry::Made),
            forbidding: Vec::new(),
            name: "user".into(),
            subids: [65_536; 2],
            helpers: ["newuidmap", "newgidmap"].map(|tool| Some((PathBuf::from(tool), true))),
            runtime_dir: Some(("/run/user/1000".into(), None)),
            lingers: true,
        },
        security: SecuritySigns {
            securityfs: true,
            apparmor_parser: true,
            enforcing: true,
            label: "system_u:system_r:container_runtime_t:s0".into(),
            ..SecuritySigns::default()
        },
        files: FileSigns {
            root: "/run/corten".into(),
            root_state: Some(Ok(())),
            all: vec![store()],
            shared: true,
        },
        programs: ProgramSigns {
            corten: vec![program("/usr/bin/corten", &said)],
            shim: vec![program("/usr/bin/containerd-shim-corten-v2", &said)],
            criu: Some(program("/usr/sbin/criu", "Version: 4.1.1\n")),
            containerd: Some(program(
                "/usr/bin/containerd",
                "containerd github.com/containerd/containerd/v2 v2.3.0 abc",
            )),
            dockerd: Some(program("/usr/bin/dockerd", "Docker version 28.5.2, build 1\n")),
            podman: Some(program("/usr/bin/podman", "podman version 5.8.0\n")),
            crio: Some(program("/usr/bin/crio", "crio version 1.35.0\n")),
        },
        engines: engines::well_configured(),
        leftovers: Leftovers::default(),
    }
}

/// The same host, seen by a user.
fn users() -> Signs {
    let mut signs = healthy();
    signs.facts.euid = 1000;
    signs.facts.effective = 0;
    signs.facts.copies_mounts = false;
    signs.facts.delegated = Some(texts(&["/sys/fs/cgroup/user.slice"]));
    signs.facts.cgroups.user = Some(1000);
    signs
}

fn store() -> FileSystem {
    FileSystem {
        path: "/var/lib/containerd".into(),
        kind: "ext4".into(),
        attributes: "rw,relatime".into(),
        store: true,
        idmap: Some(0),
    }
}

/// A check, how it is to go, and what is to be changed for it on a host, or for a user.
type Sick = (&'static str, Health, fn(&mut Signs));

fn unanswered(signs: &mut Signs, question: Question, errno: i32) {
    signs.kernel.answers.push((question, errno));
}

const KERNEL: [Sick; 27] = [
    ("kernel.version", Health::Warn, |s| s.kernel.release = "5.4.0-old".into()),
    ("kernel.version", Health::Unknown, |s| s.kernel.release = "x".into()),
    ("kernel.clone3", Health::Fail, |s| unanswered(s, Question::Clone3, libc::ENOSYS)),
    ("kernel.clone3", Health::Fail, |s| unanswered(s, Question::Clone3, libc::EPERM)),
    ("kernel.clone-into-cgroup", Health::Warn, |s| unanswered(s, Question::CloneIntoCgroup, libc::E2BIG)),
    ("kernel.openat2", Health::Fail, |s| unanswered(s, Question::Openat2, libc::ENOSYS)),
    ("kernel.mount-api", Health::Fail, |s| unanswered(s, Question::OpenTree, libc::ENOSYS)),
    ("kernel.mount-api", Health::Fail, |s| unanswered(s, Question::Fsopen, libc::EPERM)),
    ("kernel.mount-api", Health::Fail, |s| unanswered(s, Question::MoveMount, libc::ENOSYS)),
    ("kernel.pidfd", Health::Fail, |s| unanswered(s, Question::PidfdOpen, libc::ENOSYS)),
    ("kernel.close-range", Health::Fail, |s| unanswered(s, Question::CloseRange, libc::ENOSYS)),
    ("kernel.mount-setattr", Health::Warn, |s| unanswered(s, Question::MountSetattr, libc::ENOSYS)),
    ("kernel.seccomp", Health::Warn, |s| unanswered(s, Question::Seccomp, libc::ENOSYS)),
    ("kernel.seccomp-notify", Health::Note, |s| unanswered(s, Question::SeccompNotify, libc::EINVAL)),
    ("kernel.seccomp-killable", Health::Note, |s| s.kernel.killable = false),
    ("kernel.memfd-exec", Health::Note, |s| s.kernel.memfd = libc::EACCES),
    ("kernel.memfd-exec", Health::Fail, |s| s.kernel.memfd = libc::ENOSYS),
    ("kernel.namespaces", Health::Note, |s| _ = s.kernel.namespaces.remove("time")),
    ("kernel.namespaces", Health::Fail, |s| _ = s.kernel.namespaces.remove("pid")),
    ("kernel.filesystems", Health::Fail, |s| _ = s.kernel.file_systems.remove("mqueue")),
    ("kernel.filesystems", Health::Note, |s| s.kernel.modules.clear()),
    ("kernel.device-filter", Health::Fail, |s| unanswered(s, Question::DeviceFilter, libc::EINVAL)),
    ("kernel.device-filter", Health::Unknown, |s| unanswered(s, Question::DeviceFilter, libc::EPERM)),
    ("kernel.memory-policy", Health::Note, |s| unanswered(s, Question::MemoryPolicy, libc::ENOSYS)),
    ("kernel.keyring", Health::Note, |s| unanswered(s, Question::Keyring, libc::ENOSYS)),
    ("kernel.pidfs", Health::Note, |s| s.kernel.pidfs = false),
    ("kernel.mount-ids", Health::Note, |s| s.kernel.mount_ids = false),
];

const HOST: [Sick; 40] = [
    ("cgroup.layout", Health::Warn, |s| s.facts.cgroups.v2 = None),
    ("cgroup.layout", Health::Note, |s| s.facts.cgroups.v1 = vec![v1("memory")]),
    ("cgroup.controllers", Health::Warn, |s| s.cgroups.controllers.retain(|one| one != "memory")),
    ("cgroup.controllers", Health::Note, |s| s.cgroups.controllers.retain(|one| one != "io")),
    ("cgroup.writable", Health::Fail, |s| s.cgroups.writable = false),
    ("cgroup.kill", Health::Note, |s| s.cgroups.kill = Some(false)),
    ("cgroup.kill", Health::Unknown, |s| s.cgroups.kill = None),
    ("cgroup.systemd", Health::Note, |s| s.cgroups.systemd = false),
    ("cgroup.systemd", Health::Warn, |s| s.cgroups.socket = None),
    ("user.namespaces", Health::Warn, |s| s.users.tried = Ok(UserNamespaceTry::Refused(libc::ENOSPC))),
    ("user.namespaces", Health::Unknown, |s| s.users.tried = Err(Error::os("fork", libc::EAGAIN))),
    ("user.sysctls", Health::Warn, |s| forbid(s, "user.max_user_namespaces", 0)),
    ("user.sysctls", Health::Note, |s| forbid(s, "kernel.apparmor_restrict_unprivileged_userns", 1)),
    ("security.capabilities", Health::Fail, |s| s.facts.effective &= !(1 << 21)),
    ("security.capabilities", Health::Warn, |s| s.facts.effective &= !(1 << 12)),
    ("security.filter", Health::Note, |s| s.security.seccomp = 2),
    ("security.apparmor", Health::Warn, |s| s.security.securityfs = false),
    ("security.apparmor", Health::Note, |s| s.security.apparmor_parser = false),
    ("security.selinux", Health::Note, |s| s.security.enforcing = false),
    ("security.selinux", Health::Warn, |s| s.security.label = "u:r:sshd_t:s0".into()),
    ("files.root", Health::Fail, |s| s.files.root_state = Some(Err("others may write to it".into()))),
    ("files.idmap", Health::Warn, |s| {
        s.files.all = vec![FileSystem { kind: "btrfs".into(), idmap: Some(libc::EINVAL), ..store() }]
    }),
    ("files.idmap", Health::Note, |s| {
        s.files.all = vec![FileSystem { idmap: Some(libc::ENOSYS), ..store() }]
    }),
    ("files.idmap", Health::Unknown, |s| s.files.all = vec![FileSystem { idmap: None, ..store() }]),
    ("files.options", Health::Warn, |s| {
        s.files.all = vec![FileSystem { attributes: "rw,noexec".into(), ..store() }]
    }),
    ("files.options", Health::Note, |s| {
        s.files.all = vec![FileSystem { attributes: "rw,nosuid".into(), ..store() }]
    }),
    ("files.propagation", Health::Note, |s| s.files.shared = false),
    ("programs.corten", Health::Note, |s| s.programs.corten.clear()),
    ("programs.corten", Health::Warn, |s| {
        s.programs.corten = vec![program("/bin/corten", "corten version 0.0.0\n")]
    }),
    ("programs.corten", Health::Warn, |s| s.programs.corten.push(program("/opt/corten", VERSION))),
    ("programs.shim", Health::Warn, |s| s.programs.shim = vec![program("/bin/x", "Version: 0.0.0\n")]),
    ("programs.criu", Health::Note, |s| s.programs.criu = None),
    ("programs.criu", Health::Warn, |s| s.programs.criu = Some(program("/sbin/criu", "Version: 3.16.1\n"))),
    ("programs.criu", Health::Warn, |s| s.programs.criu = Some(silent("/sbin/criu", VersionAnswer::Nothing))),
    ("programs.engine", Health::Warn, |s| {
        s.programs.podman = Some(silent("/bin/podman", VersionAnswer::Nothing))
    }),
    ("programs.engine", Health::Unknown, |s| {
        s.programs.podman = Some(silent("/bin/podman", VersionAnswer::Late))
    }),
    ("programs.criu", Health::Unknown, |s| s.programs.criu = Some(silent("/bin/criu", VersionAnswer::Late))),
    ("programs.shim", Health::Unknown, |s| s.programs.shim = vec![silent("/bin/x", VersionAnswer::Late)]),
    ("programs.corten", Health::Warn, |s| {
        s.programs.corten = vec![silent("/bin/corten", VersionAnswer::Nothing)]
    }),
    ("leftovers.groups", Health::Note, |s| s.leftovers.groups = vec!["/sys/fs/cgroup/c".into()]),
];

const LEFT: [Sick; 8] = [
    ("leftovers.containers", Health::Warn, |s| dead(s, Dead::HalfMade)),
    ("leftovers.containers", Health::Warn, |s| dead(s, Dead::OtherBoot)),
    ("leftovers.containers", Health::Warn, |s| dead(s, Dead::BundleGone)),
    ("leftovers.containers", Health::Note, |s| dead(s, Dead::Stopped)),
    ("leftovers.containers", Health::Warn, |s| dead(s, Dead::Haunted)),
    ("leftovers.containers", Health::Warn, |s| dead(s, Dead::Unreadable("no".into()))),
    ("leftovers.shims", Health::Warn, |s| s.leftovers.shims = vec![dead_shim(false)]),
    ("leftovers.shims", Health::Warn, |s| s.leftovers.shims = vec![dead_shim(true)]),
];

const USER: [Sick; 18] = [
    ("kernel.memfd-exec", Health::Warn, |s| s.kernel.memfd = libc::EACCES),
    ("cgroup.delegation", Health::Warn, |s| s.facts.delegated = Some(Vec::new())),
    ("cgroup.delegated-controllers", Health::Warn, |s| s.cgroups.controllers = texts(&["memory", "pids"])),
    ("cgroup.delegated-controllers", Health::Unknown, |s| s.facts.delegated = Some(Vec::new())),
    ("cgroup.systemd", Health::Note, |s| (s.cgroups.sockets, s.cgroups.socket) = (Vec::new(), None)),
    ("user.namespaces", Health::Fail, |s| s.users.tried = Ok(UserNamespaceTry::Refused(libc::EPERM))),
    ("user.namespaces", Health::Fail, |s| s.users.tried = Ok(UserNamespaceTry::Powerless(libc::EACCES))),
    ("user.sysctls", Health::Warn, |s| forbid(s, "kernel.unprivileged_userns_clone", 0)),
    ("user.subids", Health::Warn, |s| s.users.subids = [65_536, 0]),
    ("user.subids", Health::Warn, |s| s.users.subids = [1000; 2]),
    ("user.helpers", Health::Warn, |s| s.users.helpers[1] = None),
    ("user.helpers", Health::Warn, |s| s.users.helpers[0] = Some(("/usr/bin/newuidmap".into(), false))),
    ("user.runtime-dir", Health::Warn, |s| s.users.runtime_dir = None),
    ("user.runtime-dir", Health::Warn, |s| {
        s.users.runtime_dir = Some(("/x".into(), Some("it is not there")))
    }),
    ("user.manager", Health::Warn, |s| s.cgroups.socket = None),
    ("user.manager", Health::Note, |s| s.users.lingers = false),
    ("security.no-new-privileges", Health::Warn, |s| s.security.no_new_privileges = true),
    ("security.proc", Health::Warn, |s| s.security.over_proc = texts(&["/proc/kcore"])),
];

fn v1(controller: &str) -> Hierarchy {
    Hierarchy {
        mount: format!("/sys/fs/cgroup/{controller}"),
        own: "/".into(),
        controllers: texts(&[controller]),
    }
}

fn forbid(signs: &mut Signs, name: &'static str, value: u64) {
    signs.users.forbidding = vec![Forbidding { name, value }];
}

fn dead(signs: &mut Signs, why: Dead) {
    signs.leftovers.containers = vec![DeadContainer { root: "/run/corten".into(), id: "c".into(), why }];
}

fn dead_shim(runs: bool) -> DeadShim {
    let bundle = "/run/containerd/io.containerd.runtime.v2.task/k8s.io/c".into();
    DeadShim { namespace: "k8s.io".into(), id: "c".into(), bundle, address: "unix:///s".into(), runs }
}

fn of<'a>(checks: &'a [HostCheck], id: &str) -> Vec<&'a HostCheck> {
    checks.iter().filter(|check| check.id == id).collect()
}

/// How a check went; the worst, where it is told of several things.
fn health(checks: &[HostCheck], id: &str) -> Option<Health> {
    of(checks, id).iter().map(|check| check.health).max()
}

#[test]
fn a_healthy_host_is_told_so() {
    let ill = |signs: &Signs, health: Health| {
        let found: Vec<_> = examine(signs).into_iter().filter(|check| check.health >= health).collect();
        assert!(found.is_empty(), "{found:?}");
    };
    let root = examine(&healthy());
    let sick: Vec<_> = root.iter().filter(|check| check.health != Health::Ok).collect();
    assert!(sick.is_empty(), "{sick:?}");
    assert_eq!(super::worst(&root), Health::Ok);
    ill(&users(), Health::Warn);
}

#[test]
fn every_check_fails_once() {
    let mut failed = BTreeSet::new();
    let hosts = [(healthy as fn() -> Signs, &KERNEL[..]), (healthy, &HOST), (healthy, &LEFT), (users, &USER)];
    for (host, (id, wanted, change)) in
        hosts.into_iter().flat_map(|(host, all)| all.iter().map(move |one| (host, one)))
    {
        let mut signs = host();
        change(&mut signs);
        let checks = examine(&signs);
        assert_eq!(health(&checks, id), Some(*wanted), "{id}: {:?}", of(&checks, id));
        let told = checks.iter().filter(|check| check.id == *id && check.health == *wanted);
        told.for_each(|check| assert!(!check.advice.is_empty() || *wanted == Health::Unknown, "{check:?}"));
        failed.insert(*id);
    }
    failed.extend(engines::every_one_fails());
    let all: BTreeSet<&str> = catalogue::ROWS.iter().map(|row| row.id).collect();
    assert_eq!(all.len(), catalogue::ROWS.len(), "an id twice");
    assert_eq!(failed, all, "checks without a test in which they fail, or not in the catalogue");
}

/// The kernel refuses to mount before it looks at anything: to who may not, that is no answer about the call.
#[test]
fn what_may_not_be_asked_is_not_missing() {
    let mut signs = healthy();
    signs.facts.effective &= !(1 << 21);
    unanswered(&mut signs, Question::Fsopen, libc::EPERM);
    assert_eq!(health(&examine(&signs), "kernel.mount-api"), Some(Health::Ok));
}

/// docs/doctor.md has a row for each, with the version that the program tells.
#[test]
fn the_document_has_every_check() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/doctor.md")).unwrap();
    let rows: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).collect();
    for row in &catalogue::ROWS {
        let told = rows.get(row.id).unwrap_or_else(|| panic!("docs/doctor.md lacks `{}`", row.id));
        assert!(
            row.since.is_none_or(|since| told.contains(since)),
            "docs/doctor.md: {} and {:?}",
            row.id,
            row.since
        );
    }
    let gone: Vec<_> = rows.keys().filter(|id| id.contains('.') && catalogue::row(id).is_none()).collect();
    assert!(gone.is_empty(), "docs/doctor.md has {gone:?}");
}

/// The host that this runs on, whatever it is: looking must not fail, and each finding must be in the catalogue.
#[test]
fn this_host_can_be_looked_at() {
    let checks = examine(&Signs::look(std::path::Path::new("/nonexistent/corten")).unwrap());
    assert!(checks.iter().all(|check| catalogue::row(check.id).is_some()), "{checks:?}");
    assert!(health(&checks, "kernel.openat2").is_some() && health(&checks, "files.root") == Some(Health::Ok));
}

#[test]
fn ranges_of_ids_are_counted_by_name_and_by_number() {
    let text = "a:100000:65536\n1000:300000:10\nb:1:x\n\nab:1:7\n";
    assert_eq!(super::users::subids(text, "a", 1000), 65_546);
    assert_eq!(super::users::subids(text, "b", 7), 0);
}
