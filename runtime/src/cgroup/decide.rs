// SPDX-License-Identifier: Apache-2.0
//! The decision: where the container's groups are, what is written into them, which devices it may use. Pure.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::devices::{Policy, Rule};
use super::devices_bpf;
use super::limits::{self, Convert, File, FileValue, Item, LIMITS, Limit, Way};
use super::probe::{Hierarchies, Hierarchy, Version};
use super::properties;
use super::record::{GroupDir, Record};
use super::unit::Unit;
use crate::ask::Manager;
use crate::error::{Error, Kind, Result};
use crate::spec::Resources;
use crate::sys::bpf::Insn;

/// Where /linux/resources is in config.json.
pub(super) const RESOURCES: &str = "/linux/resources";
/// Files of v2 that are no limits: they would move, kill or stop processes, or restructure the tree.
const NO_LIMITS: [&str; 6] = [
    "cgroup.procs",
    "cgroup.threads",
    "cgroup.kill",
    "cgroup.freeze",
    "cgroup.type",
    "cgroup.subtree_control",
];

/// From when on the device rules hold. Always before anything of the container's own runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RulesFrom {
    /// Before there is a process: on v1 they are a list that is written line by line, and in between too little is allowed.
    Birth,
    /// While the stage is at work, which costs no time.
    Meanwhile,
    /// After the container's nodes: they keep nodes from being made.
    Nodes,
}

/// Everything that is done to the container's groups at creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPlan {
    /// For State, to be persisted before [`Group::create`](super::Group::create).
    pub record: Record,
    /// Limits, in the order of their writing.
    pub writes: Vec<Write>,
    /// Devices.
    pub devices: DevicePlan,
    /// When they are put in force.
    pub device_rules: RulesFrom,
    /// The systemd unit that the group is, if systemd makes it.
    pub unit: Option<Unit>,
    /// What is passed over, with its JSON pointer: for the log.
    pub warnings: Vec<(String, String)>,
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// JSON pointer of the limit, from the root of config.json.
    pub at: String,
    /// Controller whose file it is.
    pub controller: Cow<'static, str>,
    /// File in the group's directory.
    pub file: String,
    /// What is written.
    pub value: String,
    /// It is what a new group has anyway: written only where the group was there before.
    pub kernel_default: bool,
    /// A missing file is passed over.
    pub optional: bool,
    /// File and value instead, where the first file is missing.
    pub or: Option<(&'static str, String)>,
}

/// How device rules are enforced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DevicePlan {
    /// Not at all.
    None,
    /// v2: a program on the group. Nothing is attached to a new group if the policy allows everything.
    Program {
        /// What it enforces.
        policy: Policy,
        /// The program.
        insns: Vec<Insn>,
    },
    /// v1: lines for the files of the devices controller.
    Lines(Vec<Line>),
}

/// One write to devices.allow or devices.deny.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// devices.allow or devices.deny.
    pub file: &'static str,
    /// `a`, or `c 1:3 rwm`.
    pub value: String,
    /// A built-in rule: may fail where the parent group has less.
    pub builtin: bool,
}

/// Decides on the groups of container `id`.
///
/// `cgroups_path` is found as by runc's cgroupfs driver: absolute is from the mount's root; relative is below this
/// process's own group (v1) or its parent (v2, where a group with processes cannot have limited children); absent is
/// the relative path `id`. With [`Manager::Systemd`] it is `slice:prefix:name` (see `unit`).
///
/// # Errors
/// `Kind::Invalid` with the JSON pointer for wrong values; `Kind::Unsupported` for a limit that this host's cgroups
/// do not have (on v2, whether a controller is there is only found by `Group::create`).
pub fn decide_groups(
    h: &Hierarchies,
    manager: Manager,
    id: &str,
    cgroups_path: Option<&str>,
    resources: Option<&Resources>,
) -> Result<GroupPlan> {
    let none = GroupPlan {
        record: Record { id: id.to_owned(), ..Record::default() },
        writes: Vec::new(),
        devices: DevicePlan::None,
        device_rules: RulesFrom::Meanwhile,
        unit: None,
        warnings: Vec::new(),
    };
    if manager == Manager::Disabled {
        return without_groups(none, resources);
    }
    let version = h.version();
    let nothing = Resources::default();
    let resources = resources.unwrap_or(&nothing);
    if version == Version::None {
        // Nothing asked, nothing missed.
        if *resources == nothing && manager == Manager::Cgroupfs {
            return Ok(none);
        }
        let why = "no cgroups are mounted (--cgroup-manager=disabled does without)";
        return Err(Error::new(Kind::Unsupported, why).at(format!("config.json {RESOURCES}")));
    }
    let (unit, path) = match manager {
        Manager::Systemd => Unit::decide(h, id, cgroups_path).map(|(unit, path)| (Some(unit), Some(path)))?,
        _ => (None, cgroups_path.map(str::to_owned)),
    };
    let groups = groups(h, version, id, path.as_deref())?;
    let of_unit = unit.as_ref().map(|unit| unit.record.clone());
    let record = Record { version, id: id.to_owned(), groups, unit: of_unit, ..Record::default() };
    let mut plan = GroupPlan::of(record, resources)?;
    if let (Some(unit), Some(own)) = (unit, &mut plan.unit) {
        *own = Unit { limits: std::mem::take(&mut own.limits), ..unit };
    }
    Ok(plan)
}

/// `disabled`: nothing that would need a group is passed over in silence, but for device rules: every configuration has
/// some, and device nodes are all that a container then gets.
fn without_groups(none: GroupPlan, resources: Option<&Resources>) -> Result<GroupPlan> {
    let nothing = Resources::default();
    let asked = resources.unwrap_or(&nothing);
    let first =
        LIMITS.iter().find_map(|limit| (limit.items)(asked).into_iter().next().map(|item| (limit, item)));
    match first {
        None => Ok(none),
        Some((limit, item)) => {
            let at = item.at.as_deref().unwrap_or(limit.at);
            let why = "a limit needs a control group, and --cgroup-manager=disabled makes none";
            Err(unsupported(&format!("{RESOURCES}{at}"), why))
        }
    }
}

fn groups(h: &Hierarchies, version: Version, id: &str, path: Option<&str>) -> Result<Vec<GroupDir>> {
    let (path, at) = match path {
        Some(path) if !path.is_empty() => (path, "/linux/cgroupsPath"),
        _ => (id, "the container's id"),
    };
    let parts = parts(path).map_err(|why| match at {
        "/linux/cgroupsPath" => Error::invalid(at, why),
        id => Error::new(Kind::Invalid, why).at(id),
    })?;
    let below = |base: &str| {
        let base = if path.starts_with('/') { "" } else { base.trim_end_matches('/') };
        format!("{base}/{}", parts.join("/"))
    };
    let group = |h: &Hierarchy, base: &str| GroupDir {
        mount: h.mount.clone(),
        path: below(base),
        controllers: h.controllers.clone(),
        ..GroupDir::default()
    };
    Ok(match version {
        Version::V2 => h.v2.iter().map(|h| group(h, parent(&h.own))).collect(),
        // systemd's own hierarchy is joined too, lest it take the processes for those of the service that runs us.
        _ => {
            h.v1.iter()
                .filter(|h| h.controllers.iter().all(|c| !c.starts_with("name=") || c == "name=systemd"))
                // Where the unified hierarchy is mounted beside them (hybrid), programs and BPF filters tell containers
                // apart by their group there.
                .chain(&h.v2)
                .map(|h| group(h, &h.own))
                .collect()
        }
    })
}

fn parent(group: &str) -> &str {
    group.trim_end_matches('/').rsplit_once('/').map_or("/", |(parent, _)| parent)
}

/// The names in a path. `..` is refused rather than resolved: no honest client sends it.
fn parts(path: &str) -> Result<Vec<&str>, String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.is_empty() {
        return Err(format!("{path:?} is the root cgroup, which is nobody's own"));
    }
    for part in &parts {
        if *part == ".." {
            return Err(format!("{path:?} leads upwards"));
        }
        if part.len() > 255 {
            return Err(format!("{path:?} has a name of more than 255 bytes"));
        }
        // The kernel refuses line feeds; it would take other control characters, which make logs lie.
        if part.contains(|c: char| c.is_control()) {
            return Err(format!("{path:?} has a control character in it"));
        }
    }
    Ok(parts)
}

impl GroupPlan {
    /// What `resources` mean for the groups of `record`, which are those of this host or were when they were made.
    ///
    /// # Errors
    /// As [`decide_groups`].
    pub(super) fn of(record: Record, resources: &Resources) -> Result<GroupPlan> {
        let unit = record.unit.clone().map(Unit::known);
        let policy = Policy::of(&resources.devices)?;
        let device_rules = match record.version {
            _ if !policy.lets_make_nodes() => RulesFrom::Nodes,
            Version::V1 => RulesFrom::Birth,
            _ => RulesFrom::Meanwhile,
        };
        let mut plan = GroupPlan {
            record,
            writes: Vec::new(),
            devices: DevicePlan::None,
            device_rules,
            unit,
            warnings: Vec::new(),
        };
        for limit in LIMITS {
            for item in (limit.items)(resources) {
                plan.add(limit, resources, &item)?;
            }
        }
        if resources.cpu.as_ref().is_some_and(|cpu| cpu.idle == Some(1) && cpu.shares.is_some_and(|s| s != 0))
        {
            // The words that runc's clients look for; the kernel refuses a weight for an idle group.
            let words = "unable to apply both cpu idle and shares: the shares count once idle is 0";
            plan.warnings.push((format!("{RESOURCES}/cpu/shares"), words.to_owned()));
        }
        plan.devices = plan.devices_of(&policy)?;
        if let Some(unit) = &mut plan.unit {
            unit.add_devices(&policy);
            for write in &mut plan.writes {
                if let Some(kept) = properties::kept_quota(resources, &write.file, &write.value) {
                    write.value = kept;
                }
            }
        }
        Ok(plan)
    }

    /// Adds the properties that annotations set on the systemd unit (`org.systemd.property.*`); without one they mean
    /// nothing.
    ///
    /// # Errors
    /// `Kind::Invalid` with the annotation's JSON pointer.
    pub(crate) fn annotate(&mut self, annotations: &BTreeMap<String, Option<String>>) -> Result<()> {
        let Some(unit) = &mut self.unit else { return Ok(()) };
        unit.annotate(annotations)?;
        self.record.unit = Some(unit.record.clone());
        Ok(())
    }

    /// Every step but those for devices, with the JSON pointer it comes from, for `corten plan`.
    #[must_use]
    pub fn explain(&self) -> Vec<(String, String)> {
        let mut steps: Vec<(String, String)> = Vec::new();
        if let Some(unit) = &self.unit {
            steps.push(("/linux/cgroupsPath".into(), unit.explain()));
        }
        for group in &self.record.groups {
            steps.push(("/linux/cgroupsPath".into(), format!("make the cgroup {}", group.full())));
        }
        for (controller, write) in self.needs() {
            if self.record.version == Version::V2 {
                steps.push((write.at.clone(), format!("enable {controller} in the groups above")));
            }
        }
        for write in &self.writes {
            let mut step = format!("write {:?} to {}", write.value, write.file);
            if let Some((file, value)) = &write.or {
                step += &format!(", or else {value:?} to {file}");
            }
            if write.kernel_default {
                step += ", if the group was there before";
            }
            steps.push((write.at.clone(), step));
        }
        steps
    }

    /// The steps for devices, likewise.
    #[must_use]
    pub(crate) fn explain_devices(&self) -> Vec<(String, String)> {
        let mut steps: Vec<(String, String)> = Vec::new();
        let at = || format!("{RESOURCES}/devices");
        match &self.devices {
            DevicePlan::None => {}
            DevicePlan::Program { policy, .. } if policy.allows_everything() => {
                steps.push((at(), "allow every device: no program".into()));
            }
            DevicePlan::Program { policy, insns } => {
                let otherwise = if policy.otherwise { "allow" } else { "deny" };
                let rules: Vec<String> = policy.rules.iter().map(rule_in_words).collect();
                let rules = rules.join("; ");
                steps.push((
                    at(),
                    format!(
                        "attach an eBPF program of {} instructions: {rules}; else {otherwise}",
                        insns.len()
                    ),
                ));
            }
            DevicePlan::Lines(lines) => {
                steps.extend(lines.iter().map(|l| (at(), format!("write {:?} to {}", l.value, l.file))));
            }
        }
        steps
    }

    /// The controllers that must be there, each with the limit that needs it.
    pub(super) fn needs(&self) -> Vec<(&str, &Write)> {
        let mut needs: Vec<(&str, &Write)> = Vec::new();
        for write in self.writes.iter().filter(|w| !w.kernel_default && w.controller != "cgroup") {
            if !needs.iter().any(|(controller, _)| *controller == write.controller) {
                needs.push((&write.controller, write));
            }
        }
        needs
    }

    fn add(&mut self, limit: &Limit, r: &Resources, item: &Item) -> Result<()> {
        let at = format!("{RESOURCES}{}", item.at.as_deref().unwrap_or(limit.at));
        let v1 = self.record.version == Version::V1;
        match if v1 { &limit.v1 } else { &limit.v2 } {
            Way::Files(files) => {
                for file in *files {
                    self.add_file(&at, file, r, item)?;
                }
            }
            Way::Check(check) => check(item).map_err(|why| unsupported(&at, why))?,
            Way::Warn(why) => self.warnings.push((at, (*why).to_owned())),
            Way::Unified => self.add_unified(&at, r, item)?,
            Way::Later => {}
        }
        Ok(())
    }

    fn add_file(&mut self, at: &str, file: &File, r: &Resources, item: &Item) -> Result<()> {
        let Some((value, kernel_default)) = make(at, file.value, r, item)? else { return Ok(()) };
        let or = match file.or {
            Some((name, convert)) => make(at, convert, r, item)?.map(|(value, _)| (name, value)),
            None => None,
        };
        let write = Write {
            at: at.to_owned(),
            controller: Cow::Borrowed(file.controller),
            file: file.name.replace("{}", &item.key),
            value,
            kernel_default,
            optional: file.optional,
            or,
        };
        if self.record.index_of(file.controller).is_none() {
            return if kernel_default { Ok(()) } else { Err(missing(&write, "it is not mounted")) };
        }
        if let (Some(unit), Some(convert)) = (&mut self.unit, file.unit) {
            unit.limits.extend(convert(r, &write.value));
        }
        self.writes.push(write);
        Ok(())
    }

    fn add_unified(&mut self, at: &str, r: &Resources, item: &Item) -> Result<()> {
        let file = item.key.as_str();
        if file.contains('/') {
            return Err(Error::invalid(
                at,
                format!("unified resource {file:?} must be a file name (no slashes)"),
            ));
        }
        let Some((controller, _)) = file.split_once('.').filter(|(c, p)| !c.is_empty() && !p.is_empty())
        else {
            let why = format!("unified resource {file:?} must be in the form CONTROLLER.PARAMETER");
            return Err(Error::invalid(at, why));
        };
        if NO_LIMITS.contains(&file) || file.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(Error::invalid(at, format!("unified resource {file:?} is no limit")));
        }
        // Files such as io.max take one line at a time.
        for line in item.text.lines() {
            if let (Some(unit), Some(convert)) = (&mut self.unit, limits::unit_of(file)) {
                unit.limits.extend(convert(r, line));
            }
            self.writes.push(Write {
                at: at.to_owned(),
                controller: Cow::Owned(controller.to_owned()),
                file: file.to_owned(),
                value: line.to_owned(),
                kernel_default: false,
                optional: false,
                or: None,
            });
        }
        Ok(())
    }

    fn devices_of(&self, policy: &Policy) -> Result<DevicePlan> {
        if self.record.version == Version::V2 {
            return Ok(DevicePlan::Program { policy: policy.clone(), insns: devices_bpf::compile(policy) });
        }
        if self.record.index_of("devices").is_none() {
            return Err(unsupported("/linux/resources/devices", "the devices controller is not mounted"));
        }
        // `a` makes a group forget what it inherited from its parent.
        let (all, exception) = if policy.otherwise {
            ("devices.allow", "devices.deny")
        } else {
            ("devices.deny", "devices.allow")
        };
        let mut lines = vec![Line { file: all, value: "a".into(), builtin: false }];
        lines.extend(policy.exceptions()?.iter().map(|rule| Line {
            file: exception,
            value: rule.to_string(),
            builtin: rule.builtin,
        }));
        Ok(DevicePlan::Lines(lines))
    }
}

fn rule_in_words(rule: &Rule) -> String {
    format!("{} {rule}", if rule.allow { "allow" } else { "deny" })
}

/// The value and whether it is the kernel's default; `None` to write nothing.
fn make(at: &str, convert: Convert, r: &Resources, item: &Item) -> Result<Option<(String, bool)>> {
    match convert(r, item) {
        Ok(FileValue::Set(value)) => Ok(Some((value, false))),
        Ok(FileValue::KernelDefault(value)) => Ok(Some((value, true))),
        Ok(FileValue::Skip) => Ok(None),
        Err(why) => Err(Error::invalid(at, why)),
    }
}

/// The error for a limit whose controller is not to be had. The first words are those that clients and runc's own
/// tests look for.
pub(super) fn missing(write: &Write, why: &str) -> Error {
    let Write { controller, file, .. } = write;
    let text = format!(
        "cannot set {controller} limit: container could not join or create cgroup: \
         {controller} controller is not available for {file} ({why})"
    );
    Error::new(Kind::Unsupported, text).at(format!("config.json {}", write.at))
}

fn unsupported(at: &str, why: &'static str) -> Error {
    Error::new(Kind::Unsupported, why).at(format!("config.json {at}"))
}

#[cfg(test)]
mod tests;
