// SPDX-License-Identifier: Apache-2.0
//! The runtime's options, in either of the two messages that clients send.
//!
//! `containerd.runc.v1.Options` comes from clients that know the runtime as runc's; every other handler of the CRI and
//! Docker sends `runtimeoptions.v1.Options`, which carries the handler's table as TOML.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{CodedInputStream, Message};
use containerd_shim_protos::shim::oci;
use serde::{Deserialize, Serialize};

use crate::refusal::{Refusal, Result};

/// Where containers are kept when no option says otherwise; below it a directory per namespace.
const ROOT: &str = "/run/containerd/corten";

/// What may be set.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// MS_MOVE and chroot instead of pivot_root.
    pub no_pivot_root: bool,
    /// Keep the session keyring.
    pub no_new_keyring: bool,
    /// A control group for the shim itself.
    pub shim_cgroup: String,
    /// Owner of the container's pipes.
    pub io_uid: u32,
    /// Group of the container's pipes.
    pub io_gid: u32,
    /// Another OCI runtime, to be executed instead of the one inside.
    pub binary_name: String,
    /// State root.
    pub root: String,
    /// Let systemd manage the groups.
    pub systemd_cgroup: bool,
    /// Where CRIU keeps its log of a restore.
    pub criu_work_path: String,
    /// What is restored, should Create itself name nothing: containerd hands this on as Create's `checkpoint` for runc's type only.
    pub criu_image_path: String,
    /// Where a file is written for each create, start and exec that says what took how long; none, if empty. Only the handler's table
    /// has it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trace_directory: String,
}

impl Options {
    /// Reads either message; nothing at all means the defaults.
    ///
    /// # Errors
    /// InvalidArgument for any other type, a malformed message, an unknown or malformed setting.
    pub fn read(any: Option<&Any>) -> Result<Options> {
        let Some(any) = any.filter(|any| !any.type_url.is_empty() || !any.value.is_empty()) else {
            return Ok(Options::default());
        };
        let name = any.type_url.rsplit('/').next().unwrap_or_default();
        match name {
            "containerd.runc.v1.Options" => Options::of_runc(&any.value),
            "containerd.linux.runc.CreateOptions" => Options::of_older_type(&any.value),
            name if name.ends_with("runtimeoptions.v1.Options") => Options::of_any_runtime(&any.value),
            other => Err(Refusal::invalid(format!("runtime options of an unknown type {other:?}"))),
        }
    }

    fn of_runc(bytes: &[u8]) -> Result<Options> {
        let read = oci::Options::parse_from_bytes(bytes)
            .map_err(|error| Refusal::invalid(format!("containerd.runc.v1.Options: {error}")))?;
        Ok(Options {
            no_pivot_root: read.no_pivot_root,
            no_new_keyring: read.no_new_keyring,
            shim_cgroup: read.shim_cgroup,
            io_uid: read.io_uid,
            io_gid: read.io_gid,
            binary_name: read.binary_name,
            root: read.root,
            systemd_cgroup: read.systemd_cgroup,
            criu_work_path: read.criu_work_path,
            criu_image_path: read.criu_image_path,
            trace_directory: String::new(),
        })
    }

    /// `containerd.linux.runc.CreateOptions`: what clients of 1.x send with a checkpoint to any type but runc's. 1 no_pivot_root,
    /// 8 no_new_keyring, 9 shim_cgroup, 10 io_uid, 11 io_gid, 12 criu_work_path, 13 criu_image_path; 2 to 7 never had an effect on a
    /// restore.
    fn of_older_type(bytes: &[u8]) -> Result<Options> {
        let mut input = CodedInputStream::from_bytes(bytes);
        let mut options = Options::default();
        options
            .read_older(&mut input)
            .map_err(|error| Refusal::invalid(format!("containerd.linux.runc.CreateOptions: {error}")))?;
        Ok(options)
    }

    fn read_older(
        &mut self,
        input: &mut CodedInputStream<'_>,
    ) -> containerd_shim_protos::protobuf::Result<()> {
        while let Some(tag) = input.read_raw_tag_or_eof()? {
            match (tag >> 3, tag & 7) {
                (1, 0) => self.no_pivot_root = input.read_bool()?,
                (8, 0) => self.no_new_keyring = input.read_bool()?,
                (9, 2) => self.shim_cgroup = input.read_string()?,
                (10, 0) => self.io_uid = input.read_uint32()?,
                (11, 0) => self.io_gid = input.read_uint32()?,
                (12, 2) => self.criu_work_path = input.read_string()?,
                (13, 2) => self.criu_image_path = input.read_string()?,
                _ => containerd_shim_protos::protobuf::rt::skip_field_for_tag(tag, input)?,
            }
        }
        Ok(())
    }

    fn of_any_runtime(bytes: &[u8]) -> Result<Options> {
        let malformed = |error| Refusal::invalid(format!("runtimeoptions.v1.Options: {error}"));
        let (path, body) = runtime_options(bytes).map_err(malformed)?;
        if !body.is_empty() {
            return Options::of_toml("the handler's options", &String::from_utf8_lossy(&body));
        }
        if path.is_empty() {
            return Ok(Options::default());
        }
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Refusal::invalid(format!("runtime options: open({path}): {error}")))?;
        Options::of_toml(&path, &text)
    }

    /// The part of TOML that a flat table of scalars needs.
    fn of_toml(name: &str, text: &str) -> Result<Options> {
        let mut options = Options::default();
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') || line == "[options]" {
                continue;
            }
            let at = |what: String| Refusal::invalid(format!("{name}, line {number}: {what}"));
            let Some((key, value)) = line.split_once('=') else {
                return Err(at(format!("{line:?} is no setting")));
            };
            options.set(key.trim().trim_matches('"'), value.trim()).map_err(at)?;
        }
        Ok(options)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let plain: String = key.chars().filter(|c| *c != '_').collect::<String>().to_ascii_lowercase();
        match plain.as_str() {
            "nopivotroot" => self.no_pivot_root = boolean(key, value)?,
            "nonewkeyring" => self.no_new_keyring = boolean(key, value)?,
            "systemdcgroup" => self.systemd_cgroup = boolean(key, value)?,
            "shimcgroup" => self.shim_cgroup = string(key, value)?,
            "binaryname" => self.binary_name = string(key, value)?,
            "root" => self.root = string(key, value)?,
            "iouid" => self.io_uid = parse_number(key, value)?,
            "iogid" => self.io_gid = parse_number(key, value)?,
            "criuworkpath" => self.criu_work_path = string(key, value)?,
            "tracedirectory" => self.trace_directory = absolute(key, string(key, value)?)?,
            // Of runc's options, about CRIU and about how to reach us: nothing of ours depends on them.
            "criupath" | "criuimagepath" | "taskapiaddress" | "taskapiversion" | "typeurl" | "configpath"
            | "runtimeroot" => {}
            _ => return Err(format!("{key:?} is not known")),
        }
        Ok(())
    }

    /// The state root of a namespace.
    pub fn root(&self, namespace: &str) -> PathBuf {
        let root = if self.root.is_empty() { ROOT } else { &self.root };
        Path::new(root).join(namespace)
    }

    /// The directory for traces, if there is one.
    pub fn traces(&self) -> Option<&Path> {
        (!self.trace_directory.is_empty()).then(|| Path::new(&self.trace_directory))
    }

    /// The other runtime, if one is named.
    pub fn binary(&self) -> Option<&Path> {
        let name = Path::new(&self.binary_name).file_name()?;
        (name != "corten").then(|| Path::new(&self.binary_name))
    }
}

/// runtimeoptions.v1.Options: 1 type_url, 2 config_path, 3 config_body. Its generated type is not in the crate of messages.
fn runtime_options(bytes: &[u8]) -> containerd_shim_protos::protobuf::Result<(String, Vec<u8>)> {
    let mut input = CodedInputStream::from_bytes(bytes);
    let (mut path, mut body) = (String::new(), Vec::new());
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        match tag >> 3 {
            2 if tag & 7 == 2 => path = input.read_string()?,
            3 if tag & 7 == 2 => body = input.read_bytes()?,
            _ => containerd_shim_protos::protobuf::rt::skip_field_for_tag(tag, &mut input)?,
        }
    }
    Ok((path, body))
}

fn boolean(key: &str, value: &str) -> Result<bool, String> {
    match bare(value) {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{key}: {value} is neither true nor false")),
    }
}

fn parse_number(key: &str, value: &str) -> Result<u32, String> {
    bare(value).replace('_', "").parse().map_err(|_| format!("{key}: {value} is no number of 32 bits"))
}

fn string(key: &str, value: &str) -> Result<String, String> {
    let mut chars = value.chars();
    let quote =
        chars.next().filter(|c| matches!(c, '"' | '\'')).ok_or(format!("{key}: {value} is no string"))?;
    let mut text = String::new();
    loop {
        match chars.next() {
            Some(c) if c == quote => break,
            Some('\\') if quote == '"' => text.push(match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some(c @ ('"' | '\\')) => c,
                _ => return Err(format!("{key}: an escape of {value} is not known")),
            }),
            Some(c) => text.push(c),
            None => return Err(format!("{key}: {value} does not end")),
        }
    }
    let rest = chars.as_str().trim();
    if rest.is_empty() || rest.starts_with('#') { Ok(text) } else { Err(format!("{key}: {rest:?} follows")) }
}

/// The server's working directory is nobody's business.
fn absolute(key: &str, path: String) -> Result<String, String> {
    if path.is_empty() || path.starts_with('/') {
        Ok(path)
    } else {
        Err(format!("{key}: {path:?} is no absolute path"))
    }
}

/// Without a comment at its end.
fn bare(value: &str) -> &str {
    value.split('#').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(url: &str, value: &[u8]) -> Any {
        Any { type_url: url.into(), value: value.into(), ..Any::default() }
    }

    fn of_table(table: &str) -> Result<Options> {
        let mut bytes = vec![0x0a, 1, b'x', 0x1a, table.len() as u8];
        bytes.extend_from_slice(table.as_bytes());
        Options::read(Some(&any("type.googleapis.com/runtimeoptions.v1.Options", &bytes)))
    }

    #[test]
    fn both_types_read_with_any_prefix() {
        let runc = oci::Options { binary_name: "crun".into(), systemd_cgroup: true, ..Default::default() };
        let bytes = runc.write_to_bytes().unwrap();
        for prefix in ["", "type.googleapis.com/", "x/y/"] {
            let read =
                Options::read(Some(&any(&format!("{prefix}containerd.runc.v1.Options"), &bytes))).unwrap();
            assert!(read.systemd_cgroup && read.binary() == Some(Path::new("crun")));
        }
        let read = of_table("SystemdCgroup = true # yes\nBinaryName=\"/x/runc\"\nio_uid = 1_000\n").unwrap();
        assert_eq!((read.systemd_cgroup, read.io_uid, read.binary_name.as_str()), (true, 1000, "/x/runc"));
        let older = Options { io_uid: 7, criu_image_path: "/i".into(), ..Options::default() };
        let bytes = [0x10, 1, 0x50, 7, 0x6a, 2, b'/', b'i'];
        assert_eq!(Options::read(Some(&any("containerd.linux.runc.CreateOptions", &bytes))), Ok(older));
        assert!(Options::read(Some(&any("containerd.linux.runc.CreateOptions", &[0x6a, 9, b'/']))).is_err());
        assert_eq!(Options::read(None), Ok(Options::default()));
        assert_eq!(Options::read(Some(&Any::default())), Ok(Options::default()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (table, word) in [
            ("SystemdCgroup = 1", "SystemdCgroup"),
            ("Nonsense = true", "Nonsense"),
            ("[other]", "[other]"),
            ("Root = \"/x", "does not end"),
            ("IoUid = -1", "IoUid"),
            ("TraceDirectory = \"x\"", "no absolute path"),
        ] {
            let error = of_table(table).unwrap_err();
            assert!(error.text.contains(word), "{table}: {error}");
        }
        assert!(Options::read(Some(&any("some.Other", b""))).unwrap_err().text.contains("some.Other"));
        assert!(Options::read(Some(&any("containerd.runc.v1.Options", &[0x0a]))).is_err());
        assert!(Options::read(Some(&any("runtimeoptions.v1.Options", &[0x1a, 9, 1]))).is_err());
    }

    #[test]
    fn the_runtime_inside_is_the_default() {
        let named = |name: &str| Options { binary_name: name.into(), ..Default::default() };
        assert_eq!(named("").binary(), None);
        assert_eq!(named("/usr/bin/corten").binary(), None);
        assert_eq!(named("/usr/bin/runc").binary(), Some(Path::new("/usr/bin/runc")));
        assert_eq!(named("").root("ns"), Path::new("/run/containerd/corten/ns"));
        assert_eq!(named("").traces(), None);
        let traces = of_table("TraceDirectory = \"/t\"").unwrap();
        assert_eq!(traces.traces(), Some(Path::new("/t")));
    }
}
