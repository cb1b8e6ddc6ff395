// SPDX-License-Identifier: Apache-2.0
//! The user's process (config.md#process), of `create` and of `exec` alike.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use super::Field;
use super::annotations::AnnotationSettings;
use super::caps::{self, Caps};
use super::ids::{self, Setgroups};
use super::mempolicy::{self, MemPolicy};
use super::rlimits::{self, Rlimit};
use super::sched::{self, Affinity, Scheduler};
use super::text::{filled, plain, printable};
use crate::ask::{self, Create};
use crate::error::{Error, Kind, Result};
use crate::facts::Facts;
use crate::facts::IdMaps;
use crate::facts::paths::clean;
use crate::seccomp;
use crate::spec::{self, Spec};
use crate::state::NOTIFY_SOCKET;

/// Everything about the process that the stage (or, where privilege is needed, the host) sets up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// JSON pointer prefix of the process object: `/process`, or empty in a `--process` file.
    pub at: String,
    /// argv, never empty.
    pub args: Vec<String>,
    /// Where to look for `args[0]`, in order: itself if it has a slash, else one entry per PATH element.
    pub candidates: Vec<String>,
    /// The environment, last duplicate won.
    pub env: Vec<String>,
    /// HOME is absent or empty: to be taken from the container's /etc/passwd, else `/`.
    pub needs_home: bool,
    /// Absolute, clean.
    pub cwd: String,
    /// The process gets a terminal of its own, of this size (rows, columns) if one is given.
    pub terminal: Option<Option<(u16, u16)>>,
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Supplementary groups, exactly.
    pub gids: Vec<u32>,
    /// setgroups(2) may be denied where the process will be: then it keeps the caller's groups. Only if it asks for none.
    pub keeps_groups: bool,
    pub umask: u32,
    /// The five sets; `None` (no `capabilities` object) leaves an empty everything, as runc does.
    pub caps: Caps,
    /// PR_SET_NO_NEW_PRIVS.
    pub no_new_privileges: bool,
    /// /proc/PID/oom_score_adj.
    pub oom_score_adj: Option<i32>,
    /// prlimit(2).
    pub rlimits: Vec<Rlimit>,
    /// sched_setattr(2).
    pub scheduler: Option<Field<Scheduler>>,
    /// ioprio_set(2) value (class << 13 | level).
    pub io_priority: Option<Field<i32>>,
    /// personality(2) value.
    pub personality: Option<Field<u32>>,
    /// set_mempolicy(2).
    pub mempolicy: Option<Field<MemPolicy>>,
    /// sched_setaffinity(2); for `exec` only.
    pub affinity: Option<Field<Affinity>>,
    /// AppArmor profile for the exec.
    pub apparmor: Option<Field<String>>,
    /// SELinux label for the exec.
    pub selinux: Option<Field<String>>,
}

/// Where the notification socket's directory is in the container: runc's place, which images may know.
pub(super) const NOTIFY_INSIDE: &str = "/run/notify";

impl Process {
    /// Its start is to be told to a service manager: by the socket that [`super::mounts::notify`] brings.
    pub(crate) fn notify(&mut self) {
        self.env.retain(|entry| !entry.starts_with("NOTIFY_SOCKET="));
        self.env.push(format!("NOTIFY_SOCKET={NOTIFY_INSIDE}/{NOTIFY_SOCKET}"));
    }

    /// A terminal for which no size is configured takes this one: its program must not start with 0 × 0.
    pub fn size_of(&mut self, console: Option<(u16, u16)>) {
        if self.terminal == Some(None) {
            self.terminal = Some(console);
        }
    }
}

/// What a process object is read against: what of the container and the host it may depend on.
#[derive(Debug)]
pub struct ProcessContext<'a> {
    pub facts: &'a Facts,
    /// The container's mappings, as far as they are known: ids are checked against them.
    pub ids: Option<&'a IdMaps>,
    /// Whether its supplementary groups can be set.
    pub setgroups: Setgroups,
    /// The rest of the configuration: personality and the CPU list are the container's, not the process's.
    pub spec: &'a Spec,
    /// How many socket-activation descriptors the process gets.
    pub listen_fds: u32,
}

/// The process of `create`; `None` when the configuration has none, which is an error only at `start`.
///
/// # Errors
/// `Kind::Invalid` with the pointer of the offending value.
pub(crate) fn decide_process(
    spec: &Spec,
    facts: &Facts,
    (ids, setgroups): (Option<&IdMaps>, Setgroups),
    ask: &Create,
    warnings: &mut Vec<String>,
) -> Result<Option<Process>> {
    let Some(process) = &spec.process else { return Ok(None) };
    decide_process_object(
        process,
        "/process",
        &ProcessContext { facts, ids, setgroups, spec, listen_fds: ask.listen_fds },
        warnings,
    )
    .map(Some)
}

/// Decides about one process object. `at` is its JSON pointer: `/process`, or empty for a file of its own.
///
/// # Errors
/// `Kind::Invalid` with the pointer of the offending value.
pub fn decide_process_object(
    process: &spec::Process,
    at: &str,
    context: &ProcessContext,
    warnings: &mut Vec<String>,
) -> Result<Process> {
    let env = environment(process, at, context.listen_fds)?;
    let args = args(process, at)?;
    let mut user = user(&process.user, &format!("{at}/user"), context.ids)?;
    if context.setgroups == Setgroups::Denied {
        without_setgroups(&mut user, &format!("{at}/user"))?;
    }
    let no_apparmor =
        (!context.facts.apparmor).then_some("apparmor: config provided but apparmor is not enabled");
    let no_selinux = (!context.facts.selinux)
        .then_some("selinux label is specified in config, but selinux is disabled or not supported");
    let size = process.console_size.as_ref().map(|size| (size.height, size.width));
    let cpus = context
        .spec
        .linux
        .resources
        .as_ref()
        .and_then(|r| r.cpu.as_ref())
        .and_then(|cpu| cpu.cpus.as_deref());
    Ok(Process {
        candidates: candidates(&args, &env, at)?,
        needs_home: !env.iter().any(|entry| entry.starts_with("HOME=")),
        env,
        args,
        cwd: cwd(process, at)?,
        terminal: process.terminal.then_some(size),
        uid: user.uid,
        gid: user.gid,
        keeps_groups: context.setgroups != Setgroups::Allowed && user.additional_gids.is_empty(),
        gids: user.additional_gids,
        umask: process.user.umask.unwrap_or(UMASK) & 0o777,
        caps: caps::decide_capabilities(process.capabilities.as_ref(), at, context.facts, warnings)?,
        no_new_privileges: process.no_new_privileges,
        oom_score_adj: oom_score_adj(process, at)?,
        rlimits: rlimits::decide_rlimits(&process.rlimits, at)?,
        scheduler: sched::scheduler(process.scheduler.as_ref(), at, cpus)?,
        io_priority: sched::io_priority(process.io_priority.as_ref(), at)?,
        personality: sched::personality(context.spec.linux.personality.as_ref())?,
        mempolicy: mempolicy::decide_memory_policy(context.spec.linux.memory_policy.as_ref())?,
        affinity: sched::affinity(process.exec_cpu_affinity.as_ref(), at)?,
        apparmor: label(process.apparmor_profile.as_deref(), at, "apparmorProfile", no_apparmor)?,
        selinux: label(process.selinux_label.as_deref(), at, "selinuxLabel", no_selinux)?,
        at: at.to_owned(),
    })
}

/// The configuration's process object as `exec` starts from it, with the flags laid over it, as runc does: a
/// terminal only if one is asked for now; capabilities into the bounding, effective and permitted sets only
/// (CVE-2022-29162).
#[must_use]
pub fn overlay(mut process: spec::Process, over: &ask::Overlay) -> spec::Process {
    if !over.args.is_empty() {
        process.args.clone_from(&over.args);
    }
    process.env.extend(over.env.iter().cloned());
    if let Some(cwd) = &over.cwd {
        process.cwd.clone_from(cwd);
    }
    if let Some((uid, gid)) = over.user {
        process.user.uid = uid;
        process.user.gid = gid.unwrap_or(process.user.gid);
    }
    process.user.additional_gids.extend(&over.additional_gids);
    process.terminal = over.terminal;
    if !over.caps.is_empty() {
        let sets = process.capabilities.get_or_insert_default();
        for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
            set.extend(over.caps.iter().cloned());
        }
    }
    process.no_new_privileges |= over.no_new_privileges;
    if over.apparmor.is_some() {
        process.apparmor_profile.clone_from(&over.apparmor);
    }
    if over.process_label.is_some() {
        process.selinux_label.clone_from(&over.process_label);
    }
    process
}

/// The compiled system call filter.
///
/// # Errors
/// Those of [`seccomp::compile`].
pub(crate) fn seccomp(
    spec: &Spec,
    obeyed: &AnnotationSettings,
    warnings: &mut Vec<String>,
) -> Result<Option<seccomp::Filter>> {
    if let Some(insns) = &obeyed.bpf {
        let insns = insns.clone();
        return Ok(Some(seccomp::Filter { insns, flags: 0, listener: None, unknown: Vec::new() }));
    }
    let Some(profile) = &spec.linux.seccomp else { return Ok(None) };
    let filter = match &obeyed.receiver {
        Some(receiver) if filled(profile.listener_path.as_deref()).is_none() => {
            seccomp::compile(&spec::Seccomp { listener_path: Some(receiver.clone()), ..profile.clone() })?
        }
        _ => seccomp::compile(profile)?,
    };
    let unknown = filter.as_ref().map_or(&[][..], |filter| &filter.unknown);
    if obeyed.fail_unknown && !unknown.is_empty() {
        let text = format!("unknown system calls: {}", printable(&unknown.join(", ")));
        return Err(Error::invalid("/linux/seccomp/syscalls", text));
    }
    if let Some(filter) = filter.as_ref().filter(|filter| !filter.unknown.is_empty()) {
        let names = printable(&filter.unknown.join(", ")).into_owned();
        warnings.push(format!("config.json /linux/seccomp: unknown system calls are ignored: {names}"));
    }
    Ok(filter)
}

/// What runc and crun set when the configuration says nothing; the specification would leave the caller's.
const UMASK: u32 = 0o022;

fn args(process: &spec::Process, at: &str) -> Result<Vec<String>> {
    if process.args.is_empty() {
        return Err(Error::invalid(format_args!("{at}/args"), "args must not be empty: name a program"));
    }
    let arg =
        |(index, arg): (usize, &String)| plain(format_args!("{at}/args/{index}"), arg).map(str::to_owned);
    process.args.iter().enumerate().map(arg).collect()
}

/// Where programs are looked for when the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The longest name of a file (NAME_MAX), path (PATH_MAX) and string for execve(2) (MAX_ARG_STRLEN, on pages of 4 KiB).
const NAME: usize = 255;
const PATH: usize = 4095;
const STRING: usize = 128 * 1024 - 1;

/// The files to try for `args[0]`: itself if it has a slash, else one in every directory of PATH. Never empty. What cannot
/// be a file is left out: a long name in many directories would be many times the configuration.
fn candidates(args: &[String], env: &[String], at: &str) -> Result<Vec<String>> {
    let name = args.first().map(String::as_str).unwrap_or_default();
    if name.contains('/') {
        return Ok(vec![name.to_owned()]);
    }
    let path = env.iter().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    if path.len() > STRING {
        let text = format!("PATH has {} bytes, more than execve(2) takes", path.len());
        return Err(Error::invalid(format_args!("{at}/env"), text));
    }
    // POSIX: an empty element means the working directory.
    let file = |dir: &str| if dir.is_empty() { format!("./{name}") } else { format!("{dir}/{name}") };
    let mut found = Vec::new();
    if !name.is_empty() && name.len() <= NAME && !path.is_empty() {
        let mut seen = BTreeSet::new();
        let directories = path.split(':').filter(|dir| dir.len() + name.len() < PATH && seen.insert(*dir));
        found.extend(directories.map(file));
    }
    if found.is_empty() {
        let text = format!("exec: {name:?}: executable file not found in $PATH");
        return Err(Error::invalid(format_args!("{at}/args/0"), text));
    }
    Ok(found)
}

/// The environment: every name once, its last value at its last place; socket activation appended; an empty HOME
/// dropped, because it is then to be looked up.
fn environment(process: &spec::Process, at: &str, listen_fds: u32) -> Result<Vec<String>> {
    let mut entries = Vec::with_capacity(process.env.len() + 2);
    for (index, entry) in process.env.iter().enumerate() {
        let at = format_args!("{at}/env/{index}");
        let name = match plain(at, entry)?.split_once('=') {
            Some((name, _)) if !name.is_empty() => name,
            Some(_) => return Err(Error::invalid(at, "invalid environment variable: name cannot be empty")),
            None => {
                return Err(Error::invalid(
                    at,
                    format!("invalid environment variable {entry:?}: missing '='"),
                ));
            }
        };
        entries.push((name, entry.clone()));
    }
    if listen_fds > 0 {
        // sd_listen_fds(3): the descriptors are for the process whose pid this is, and inside ours is 1.
        entries.push(("LISTEN_FDS", format!("LISTEN_FDS={listen_fds}")));
        entries.push(("LISTEN_PID", "LISTEN_PID=1".to_owned()));
    }
    let mut seen = BTreeSet::new();
    let mut env: Vec<String> = Vec::with_capacity(entries.len());
    for (name, entry) in entries.into_iter().rev() {
        if seen.insert(name) && entry != "HOME=" {
            env.push(entry);
        }
    }
    env.reverse();
    Ok(env)
}

fn cwd(process: &spec::Process, at: &str) -> Result<String> {
    let at = format!("{at}/cwd");
    if !process.cwd.starts_with('/') {
        return Err(Error::invalid(at, format!("Cwd must be an absolute path, not {:?}", process.cwd)));
    }
    plain(at, &process.cwd).map(clean)
}

/// The most supplementary groups a process can have (NGROUPS_MAX).
const GROUPS: usize = 65536;

/// Checks ids: 4294967295 means "leave as it is" to setresuid(2) and would keep root (CVE-2024-40635 and its kin),
/// and an unmapped one cannot be taken at all.
fn user(user: &spec::User, at: &str, ids: Option<&IdMaps>) -> Result<spec::User> {
    let check = |id: u32, at: String, word: &str, mapped: bool| match id {
        u32::MAX => Err(Error::invalid(at, format!("{id} is not a {word} id: 4294967294 is the last"))),
        _ if mapped => Ok(()),
        _ => Err(ids::unmapped(at, word, id)),
    };
    let group = |gid| ids.is_none_or(|ids| ids.host_gid(gid).is_some());
    check(user.uid, format!("{at}/uid"), "user", ids.is_none_or(|ids| ids.host_uid(user.uid).is_some()))?;
    check(user.gid, format!("{at}/gid"), "group", group(user.gid))?;
    if user.additional_gids.len() > GROUPS {
        let text = format!("{} groups are more than the kernel's {GROUPS}", user.additional_gids.len());
        return Err(Error::invalid(format_args!("{at}/additionalGids"), text));
    }
    for (index, gid) in user.additional_gids.iter().enumerate() {
        check(*gid, format!("{at}/additionalGids/{index}"), "group", group(*gid))?;
    }
    Ok(user.clone())
}

/// Its own group a process has anyway; another one it cannot be given.
fn without_setgroups(user: &mut spec::User, at: &str) -> Result<()> {
    user.additional_gids.retain(|gid| *gid != user.gid);
    if user.additional_gids.is_empty() {
        return Ok(());
    }
    let text = "cannot set any additional groups in a rootless container: setgroups(2) is denied in its user namespace";
    Err(Error::invalid(format_args!("{at}/additionalGids"), text).with_kind(Kind::Unsupported))
}

fn oom_score_adj(process: &spec::Process, at: &str) -> Result<Option<i32>> {
    match process.oom_score_adj.map(i32::try_from) {
        None => Ok(None),
        Some(Ok(value @ -1000..=1000)) => Ok(Some(value)),
        Some(_) => {
            let text = "oomScoreAdj is out of range (-1000 to 1000)";
            Err(Error::invalid(format_args!("{at}/oomScoreAdj"), text))
        }
    }
}

/// A label for the exec. One that nobody enforces must not seem to be (runc's words).
fn label(
    label: Option<&str>,
    at: &str,
    field: &str,
    refuse: Option<&'static str>,
) -> Result<Option<Field<String>>> {
    let Some(label) = filled(label) else { return Ok(None) };
    let at = format!("{at}/{field}");
    if let Some(text) = refuse {
        let advice = "take it out, or boot a kernel with that security module switched on (lsm=)";
        return Err(Error::invalid(at, text).with_kind(Kind::Unsupported).advise(advice));
    }
    let value = plain(&at, label)?.to_owned();
    Ok(Some(Field { at, value }))
}
