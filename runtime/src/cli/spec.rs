// SPDX-License-Identifier: Apache-2.0
//! `spec` (compatibility S18): a configuration to begin with.
//!
//! The two configurations are data: `default.json` and, for users other than root, `rootless.json`.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};

use corten::error::Context;
use rustix::fs::{FsWord, statfs};
use rustix::process::{getegid, geteuid};

use super::command::{Arity, Outcome, Session, Verb};
use super::failure::Failure;
use super::values;

const NAME: &str = "config.json";
const DEFAULT: &str = include_str!("default.json");
const ROOTLESS: &str = include_str!("rootless.json");
/// linux/magic.h
const CGROUP2_SUPER_MAGIC: FsWord = 0x6367_7270;

/// create a new specification file
///
/// The file is named "config.json" and is a starter only: its process is "sh", its root
/// filesystem the directory "rootfs" beside it.
#[derive(Debug, clap::Parser)]
#[command(verbatim_doc_comment)]
pub struct SpecCommand {
    /// path to the root of the bundle directory, defaults to the current directory
    #[arg(long, short)]
    bundle: Option<OsString>,
    /// name of the file, relative to the bundle (default: "config.json")
    #[arg(long, short = 'f')]
    file: Option<OsString>,
    /// generate a configuration for a rootless container
    #[arg(long)]
    rootless: bool,
}

impl Verb for SpecCommand {
    const NAME: &'static str = "spec";
    const USAGE: &'static str = "[command options]";
    const ARITY: Arity = Arity::exactly(0);

    fn run(self, _: &Session<'_>) -> Outcome {
        let name = values::path(self.file).unwrap_or_else(|| NAME.into());
        let path = values::path(self.bundle).unwrap_or_default().join(&name);
        let unified = statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.f_type == CGROUP2_SUPER_MAGIC);
        let text = configuration(self.rootless, unified, geteuid().as_raw(), getegid().as_raw());
        let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(Failure::new(format!("File {} exists. Remove it first", name.display())));
            }
            opened => opened.call(|| format!("open({})", path.display()))?,
        };
        file.write_all(text.as_bytes()).call(|| format!("write({})", path.display()))?;
        Ok(0)
    }
}

/// The configuration's text. On a unified hierarchy a container gets a cgroup namespace of its own.
fn configuration(rootless: bool, unified: bool, uid: u32, gid: u32) -> String {
    let text = if rootless { ROOTLESS } else { DEFAULT };
    let cgroup = if unified { ",\n\t\t\t{\n\t\t\t\t\"type\": \"cgroup\"\n\t\t\t}" } else { "" };
    text.trim_end()
        .replace(",\"@CGROUP@\"", cgroup)
        .replace("\"@UID@\"", &uid.to_string())
        .replace("\"@GID@\"", &gid.to_string())
}

#[cfg(test)]
mod tests {
    use corten::spec::{self, Spec};

    use super::*;

    fn read(text: &str) -> Spec {
        spec::read("config.json", text.as_bytes()).unwrap()
    }

    #[test]
    fn the_default_one() {
        for (unified, namespaces) in [(false, 5), (true, 6)] {
            let text = configuration(false, unified, 0, 0);
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(!text.contains('@') && text.contains("\n\t\"process\": {\n\t\t\"terminal\": true,"));
            assert_eq!(value["ociVersion"], corten::features::OCI_VERSION_MAX);
            let spec = read(&text);
            assert_eq!(spec.linux.namespaces.len(), namespaces);
            assert_eq!(spec.mounts.len(), 7);
            assert_eq!(spec.process.unwrap().args, ["sh"]);
        }
    }

    /// What may differ, and nothing else.
    #[test]
    fn the_rootless_one_differs_where_it_must() {
        let (mut rooted, rootless) =
            (read(&configuration(false, true, 0, 0)), read(&configuration(true, true, 7, 8)));
        let map = |host_id| vec![spec::IdMapping { container_id: 0, host_id, size: 1 }];
        (rooted.linux.uid_mappings, rooted.linux.gid_mappings) = (map(7), map(8));
        rooted.linux.resources = None;
        rooted.linux.namespaces.retain(|namespace| namespace.kind != "network");
        rooted.linux.namespaces.push(spec::Namespace { kind: "user".into(), path: None });
        for mount in &mut rooted.mounts {
            mount.options.retain(|option| !option.starts_with("gid="));
            if mount.destination == "/sys" {
                (mount.kind, mount.source) = (Some("none".into()), Some("/sys".into()));
                mount.options.insert(0, "rbind".into());
            }
        }
        assert_eq!(rooted, rootless);
    }
}
