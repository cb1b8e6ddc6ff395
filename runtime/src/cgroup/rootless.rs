// SPDX-License-Identifier: Apache-2.0
//! Groups for those who may not make them everywhere: users, and root of a user namespace. Pure.
//!
//! Where nobody named a group, a lack of permission costs the container its group, not its life; unless a limit was
//! asked for, which must not be forgotten in silence. Which directories are delegated is among the facts
//! ([`Hierarchies::delegated`]).

#![forbid(unsafe_code)]

use super::decide::{DevicePlan, GroupPlan, Write};
use super::probe::{Hierarchies, Version};
use super::record::GroupDir;
use crate::error::{Error, Kind, Result};

impl GroupPlan {
    /// The plan for groups by default (no `cgroupsPath`) where only `delegated` directories take any: v1 hierarchies
    /// without permission are left out; on v2 the group goes beside our own or, where only that is delegated, below it.
    /// The second value says what is missing, for a warning.
    ///
    /// # Errors
    /// `Kind::Unsupported` for a limit on a group that cannot be made, in runc's words.
    pub(crate) fn where_delegated(
        mut self,
        h: &Hierarchies,
        delegated: &[String],
    ) -> Result<(GroupPlan, Option<&'static str>)> {
        // Beside v1 the unified hierarchy has no limits: it is not missed.
        let counted = |plan: &GroupPlan| {
            plan.record
                .groups
                .iter()
                .filter(|g| plan.record.version == Version::V2 || !g.is_unified())
                .count()
        };
        let before = counted(&self);
        let own = h.v2.as_ref().map_or("", |h| h.own.trim_end_matches('/')).to_owned();
        let v2 = self.record.version == Version::V2;
        let id = self.record.id.clone();
        self.record.groups.retain_mut(|group| {
            if takes(group, delegated) {
                return true;
            }
            if v2 {
                group.path = format!("{own}/{id}");
            }
            v2 && takes(group, delegated)
        });
        let lost = before - counted(&self);
        if lost == 0 {
            return Ok((self, None));
        }
        let lacks = |write: &Write| v2 || self.record.index_of(&write.controller).is_none();
        if let Some(write) = self.writes.iter().find(|write| !write.kernel_default && lacks(write)) {
            return Err(refuse(write, v2));
        }
        let mut writes = std::mem::take(&mut self.writes);
        writes.retain(|write| !v2 && self.record.index_of(&write.controller).is_some());
        self.writes = writes;
        if self.record.index_of("devices").is_none() {
            self.devices = DevicePlan::None;
        }
        if counted(&self) == 0 {
            self.record.groups.clear();
            self.record.version = Version::None;
            return Ok((
                self,
                Some("no permission for control groups here: the container has none of its own"),
            ));
        }
        Ok((self, Some("no permission for some control groups here: the container is not in those")))
    }
}

/// Whether the directory above a group is delegated.
fn takes(group: &GroupDir, delegated: &[String]) -> bool {
    let full = group.full();
    full.rsplit_once('/').is_some_and(|(above, _)| delegated.iter().any(|path| path == above))
}

fn refuse(write: &Write, v2: bool) -> Error {
    let text = if v2 {
        "rootless needs no limits + no cgrouppath when no permission is granted for cgroups".to_owned()
    } else {
        format!("cannot set {} limit: container could not join or create cgroup", write.controller)
    };
    Error::invalid(&write.at, text).with_kind(Kind::Unsupported)
}

#[cfg(test)]
mod tests {
    use super::super::{Hierarchy, decide_groups};
    use super::*;
    use crate::ask::Manager;
    use crate::spec::Resources;

    fn v2(own: &str) -> Hierarchies {
        let v2 = Hierarchy { mount: "/cg".into(), own: own.into(), controllers: Vec::new() };
        Hierarchies { v1: Vec::new(), v2: Some(v2), user: Some(1000) }
    }

    fn v1() -> Hierarchies {
        let of = |name: &str| Hierarchy {
            mount: format!("/cg/{name}"),
            own: "/user".into(),
            controllers: vec![name.to_owned()],
        };
        Hierarchies { v1: vec![of("pids"), of("name=systemd"), of("devices")], v2: None, user: Some(1000) }
    }

    fn plan(
        h: &Hierarchies,
        delegated: &[&str],
        resources: &str,
    ) -> Result<(GroupPlan, Option<&'static str>)> {
        let resources: Resources = serde_json::from_str(resources).unwrap();
        let delegated: Vec<String> = delegated.iter().map(|path| (*path).to_owned()).collect();
        decide_groups(h, Manager::Cgroupfs, "x", None, Some(&resources))?.where_delegated(h, &delegated)
    }

    fn paths(plan: &GroupPlan) -> Vec<String> {
        plan.record.groups.iter().map(GroupDir::full).collect()
    }

    const LIMIT: &str = r#"{"pids": {"limit": 5}}"#;
    const NONE: &str = r#"{"devices": [{"allow": false, "access": "rwm"}]}"#;

    #[test]
    fn v2_takes_what_is_delegated() {
        for (delegated, wanted) in [
            (&["/cg/u"][..], Some("/cg/u/x")),
            (&["/cg/u", "/cg/u/own"], Some("/cg/u/x")),
            (&["/cg/u/own"], Some("/cg/u/own/x")),
            (&[], None),
        ] {
            let (plan, warning) = plan(&v2("/u/own"), delegated, NONE).unwrap();
            assert_eq!(paths(&plan).first().map(String::as_str), wanted);
            assert_eq!(warning.is_some(), wanted.is_none());
            assert_eq!(plan.record.version == Version::None, wanted.is_none());
        }
        assert_eq!(paths(&plan(&v2("/"), &["/cg"], LIMIT).unwrap().0), ["/cg/x"]);
    }

    #[test]
    fn a_limit_is_never_forgotten() {
        assert!(plan(&v2("/u/own"), &["/cg/u"], LIMIT).is_ok());
        let refused =
            |h: &Hierarchies, delegated: &[&str]| plan(h, delegated, LIMIT).unwrap_err().to_string();
        let text = refused(&v2("/u/own"), &[]);
        assert!(text.contains("/linux/resources/pids/limit: rootless needs no limits"), "{text}");
        let text = refused(&v1(), &["/cg/name=systemd/user"]);
        assert!(text.contains("cannot set pids limit: container could not join or create cgroup"), "{text}");
    }

    #[test]
    fn v1_leaves_hierarchies_out_one_by_one() {
        let (some, warning) = plan(&v1(), &["/cg/pids/user"], LIMIT).unwrap();
        assert_eq!((paths(&some), warning.is_some()), (vec!["/cg/pids/user/x".to_owned()], true));
        assert_eq!((some.devices, some.writes.len()), (DevicePlan::None, 1));
        let (none, _) = plan(&v1(), &[], NONE).unwrap();
        assert_eq!((none.record.version, none.writes.len()), (Version::None, 0));
    }
}
