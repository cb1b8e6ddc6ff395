// SPDX-License-Identifier: Apache-2.0
//! The systemd unit of a container: its name, its slice, its place in the tree, and all that systemd is told of it. Pure.
//!
//! `systemd` does it. Names and defaults are runc's (its docs/systemd.md): cgroupsPath is `slice:prefix:name`.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use corten_dbus::Value;

use super::devices::Policy;
use super::probe::Hierarchies;
use super::properties::{self, Property};
use super::record;
use crate::error::{Error, Kind, Result};

/// A unit to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Its name and manager, for State.
    pub record: record::UnitRecord,
    /// The slice it is in: a name without slashes.
    pub slice: String,
    /// What every container's unit has; for a scope the process comes on top (`PIDs`).
    pub base: Vec<Property>,
    /// What the limits and the device rules are to systemd; also what an update sets.
    pub limits: Vec<Property>,
}

/// Where cgroupsPath stands.
const AT: &str = "/linux/cgroupsPath";
/// systemd's limit (UNIT_NAME_MAX).
const LONGEST: usize = 255;

/// A warning, if this path, which is none of systemd's driver, has the form of one.
pub(crate) fn reads_like_a_unit(path: &str) -> Option<String> {
    let unit = !path.contains('/') && path.matches(':').count() == 2;
    unit.then(|| format!("config.json {AT}: {path:?} is taken for a path; as systemd's slice:prefix:name it takes --systemd-cgroup"))
}

impl Unit {
    /// The unit of container `id`, and the path of its group below the mount.
    ///
    /// # Errors
    /// `Kind::Invalid` for a path of another form, or what is no name of a unit.
    pub(super) fn decide(h: &Hierarchies, id: &str, cgroups_path: Option<&str>) -> Result<(Unit, String)> {
        let user = h.user.is_some();
        let (slice, name) = match cgroups_path.filter(|path| !path.is_empty()) {
            None => ("", format!("corten-{}.scope", escape(id))),
            Some(path) => {
                let parts: Vec<&str> = path.split(':').collect();
                let [slice, prefix, name] = parts[..] else {
                    let why = format!(
                        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, \
                         got {path:?} instead"
                    );
                    return Err(Error::invalid(AT, why));
                };
                match name.ends_with(".slice") {
                    true => (slice, name.to_owned()),
                    false => (slice, format!("{prefix}-{name}.scope")),
                }
            }
        };
        let slice = match slice {
            "" if user => "user.slice",
            "" => "system.slice",
            // runc's manual says `-`, its code `-.slice`.
            "-" => "-.slice",
            given => given,
        };
        check(&name).map_err(|why| Error::invalid(AT, why))?;
        check(slice).map_err(|why| Error::invalid(AT, why))?;
        let expanded = expand(slice)?;
        // A slice's place follows from its own name, whatever the parent that was named beside it.
        let path = if name.ends_with(".slice") { expand(&name)? } else { format!("{expanded}/{name}") };
        let base = base(&name, slice, id, h);
        let record = record::UnitRecord { name, user, keeps_failed: false };
        let path = format!("{}{path}", manager_group(h));
        Ok((Unit { record, slice: slice.to_owned(), base, limits: Vec::new() }, path))
    }

    /// A unit that was started before: only its limits are decided on.
    pub(super) fn known(record: record::UnitRecord) -> Unit {
        Unit { record, slice: String::new(), base: Vec::new(), limits: Vec::new() }
    }

    /// Adds the properties that annotations ask for; one that is there already gives way.
    ///
    /// # Errors
    /// `Kind::Invalid` for a property that is not allowed or whose value does not read.
    pub(super) fn annotate(&mut self, annotations: &BTreeMap<String, Option<String>>) -> Result<()> {
        for (key, value) in annotations {
            let Some(name) = key.strip_prefix(properties::ANNOTATION) else { continue };
            let property =
                properties::of_annotation(name, value.as_deref().unwrap_or_default()).map_err(|why| {
                    Error::new(Kind::Invalid, why)
                        .at(format!("config.json /annotations/{}", key.replace('/', "~1")))
                })?;
            if property.name == "CollectMode" {
                self.record.keeps_failed = property.value != Value::text("inactive-or-failed");
            }
            self.base.retain(|base| base.name != property.name);
            self.base.push(property);
        }
        Ok(())
    }

    /// Adds the device rules.
    pub(super) fn add_devices(&mut self, devices: &Policy) {
        self.limits.extend(properties::devices(devices));
    }

    /// Whether it is a scope: a slice has no processes of its own as far as systemd is concerned.
    pub(super) fn is_scope(&self) -> bool {
        self.record.name.ends_with(".scope")
    }

    /// In words, for `corten plan`.
    pub(super) fn explain(&self) -> String {
        let names: Vec<&str> = self.base.iter().chain(&self.limits).map(|property| property.name).collect();
        let whose = if self.record.user { "the user's" } else { "the system's" };
        format!("have {whose} systemd start {} in {} with {}", self.record.name, self.slice, names.join(", "))
    }
}

fn base(name: &str, slice: &str, id: &str, h: &Hierarchies) -> Vec<Property> {
    let property = |name, value| Property { name, value, newer: false };
    let on = |name| property(name, Value::Bool(true));
    let mut base = vec![property("Description", Value::Text(format!("Corten container {id}")))];
    if name.ends_with(".slice") {
        base.push(property("Wants", Value::texts(&[slice])));
    } else {
        base.push(property("Slice", Value::text(slice)));
        base.push(on("Delegate"));
        // A unit whose container was killed for its memory counts as failed, and would stay, and hold the name.
        base.push(property("CollectMode", Value::text("inactive-or-failed")));
    }
    let io = if h.version() == super::probe::Version::V1 { "BlockIOAccounting" } else { "IOAccounting" };
    base.extend([on("MemoryAccounting"), on("CPUAccounting"), on(io), on("TasksAccounting")]);
    base.push(property("DefaultDependencies", Value::Bool(false)));
    base
}

/// The group of the manager itself. That of a user's is found in our own path (we run below it, or below the same
/// user's session); whether it is right shows once the unit is there.
fn manager_group(h: &Hierarchies) -> String {
    let Some(uid) = h.user else { return String::new() };
    let own = h.v2.as_ref().map_or("", |v2| v2.own.as_str());
    let parts: Vec<&str> = own.split('/').collect();
    if let Some(end) = parts.iter().position(|p| p.starts_with("user@") && p.ends_with(".service")) {
        return parts[..=end].join("/");
    }
    let number = |part: &&str| part.strip_prefix("user-")?.strip_suffix(".slice")?.parse::<u32>().ok();
    let uid = parts.iter().find_map(number).unwrap_or(uid);
    format!("/user.slice/user-{uid}.slice/user@{uid}.service")
}

/// systemd.unit(5): what a name may consist of.
fn check(name: &str) -> Result<(), String> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    if name.len() > LONGEST {
        return Err(format!("the unit name {name:?} has more than {LONGEST} bytes"));
    }
    if !name.bytes().all(fine) {
        return Err(format!("{name:?} is no name of a unit: letters, digits and : - _ . \\ @"));
    }
    Ok(())
}

/// A container's id may hold a `+`, which a unit's name may not (systemd-escape(1)).
fn escape(id: &str) -> String {
    id.replace('+', "\\x2b")
}

/// systemd.slice(5): `a-b.slice` lies in `a.slice`; `-.slice` is the root.
fn expand(slice: &str) -> Result<String> {
    let invalid = || Error::invalid(AT, format!("invalid slice name: {slice}"));
    let name = slice.strip_suffix(".slice").filter(|name| !name.is_empty()).ok_or_else(invalid)?;
    let mut path = String::new();
    if name == "-" {
        return Ok(path);
    }
    for (end, _) in name.match_indices('-').chain([(name.len(), "")]) {
        if name[..end].is_empty() || name[..end].ends_with('-') {
            return Err(invalid());
        }
        path += &format!("/{}.slice", &name[..end]);
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(own: &str, user: Option<u32>) -> Hierarchies {
        let mut h =
            Hierarchies::parse("47 46 0:38 / /sys/fs/cgroup rw - cgroup2 none rw\n", &format!("0::{own}\n"));
        h.user = user;
        h
    }

    fn place(path: Option<&str>) -> Result<(String, String, String)> {
        let (unit, path) = Unit::decide(&host("/", None), "id+1", path)?;
        Ok((unit.record.name, unit.slice, path))
    }

    #[test]
    fn names_slices_and_paths() {
        for (path, name, slice, full) in [
            (None, "corten-id\\x2b1.scope", "system.slice", "/system.slice/corten-id\\x2b1.scope"),
            (Some(""), "corten-id\\x2b1.scope", "system.slice", "/system.slice/corten-id\\x2b1.scope"),
            (Some("system.slice:docker:1"), "docker-1.scope", "system.slice", "/system.slice/docker-1.scope"),
            (Some(":p:n"), "p-n.scope", "system.slice", "/system.slice/p-n.scope"),
            (Some("-.slice:p:n"), "p-n.scope", "-.slice", "/p-n.scope"),
            (Some("-:p:n"), "p-n.scope", "-.slice", "/p-n.scope"),
            (Some("::n"), "-n.scope", "system.slice", "/system.slice/-n.scope"),
            (
                Some("kube-pods-pod1.slice:cri:x"),
                "cri-x.scope",
                "kube-pods-pod1.slice",
                "/kube.slice/kube-pods.slice/kube-pods-pod1.slice/cri-x.scope",
            ),
            (Some("a.slice:p:a-b.slice"), "a-b.slice", "a.slice", "/a.slice/a-b.slice"),
        ] {
            let got = place(path).unwrap();
            assert_eq!(got, (name.to_owned(), slice.to_owned(), full.to_owned()), "{path:?}");
        }
    }

    #[test]
    fn paths_that_are_refused() {
        for (path, words) in [
            (
                "/a/b",
                "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/a/b\" instead",
            ),
            ("a:b", "slice:prefix:name"),
            ("a.slice:b:c:d", "slice:prefix:name"),
            ("a:b:c", "invalid slice name: a"),
            (".slice:b:c", "invalid slice name"),
            ("a--b.slice:b:c", "invalid slice name"),
            ("-a.slice:b:c", "invalid slice name"),
            ("a-.slice:b:c", "invalid slice name"),
            ("a.slice/b.slice:b:c", "no name of a unit"),
            ("a.slice:../b:c", "no name of a unit"),
            ("a.slice:b:c d", "no name of a unit"),
            ("a.slice:b:--.slice", "invalid slice name"),
        ] {
            let error = place(Some(path)).unwrap_err().to_string();
            assert!(
                error.starts_with("config.json /linux/cgroupsPath: ") && error.contains(words),
                "{error}"
            );
        }
        assert!(place(Some(&format!(":p:{}", "x".repeat(250)))).is_err());
    }

    #[test]
    fn a_users_units_lie_below_his_manager() {
        for (own, group) in [
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/a.scope",
                "/user.slice/user-1000.slice/user@1000.service",
            ),
            ("/user.slice/user-7.slice/session-3.scope", "/user.slice/user-7.slice/user@7.service"),
            ("/", "/user.slice/user-5.slice/user@5.service"),
        ] {
            let (unit, path) = Unit::decide(&host(own, Some(5)), "id", None).unwrap();
            assert_eq!(path, format!("{group}/user.slice/corten-id.scope"), "{own}");
            assert!(unit.record.user);
        }
    }

    #[test]
    fn annotations_add_and_replace() {
        let (mut unit, _) = Unit::decide(&host("/", None), "id", None).unwrap();
        let count = unit.base.len();
        let annotations = [("TimeoutStopSec", "uint64 5"), ("CollectMode", "'inactive'")];
        let annotations = annotations.map(|(k, v)| (format!("org.systemd.property.{k}"), Some(v.to_owned())));
        unit.annotate(&annotations.into()).unwrap();
        assert_eq!(unit.base.len(), count + 1);
        assert!(unit.record.keeps_failed);
        let bad = [("org.systemd.property.ExecStartPre".to_owned(), Some("'x'".to_owned()))];
        let error = unit.annotate(&bad.into()).unwrap_err().to_string();
        assert!(error.starts_with("config.json /annotations/org.systemd.property.ExecStartPre: "), "{error}");
    }
}
