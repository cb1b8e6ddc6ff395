// SPDX-License-Identifier: Apache-2.0
//! What `start` reads and what it answers, in the dialects of containerd 1.6 to 2.4.
//!
//! Up to 2.2 stdin holds the runtime options as an `Any`, or nothing; the answer is the plain address, which every
//! one of them takes (and which means version 2), or JSON. From 2.3 on stdin holds BootstrapParams and the answer is a
//! BootstrapResult. Nothing but the answer may be printed: containerd merges stderr into it.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use containerd_shim_protos::bootstrap_api::{BootstrapParams, BootstrapResult};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use corten::error::Context;

use crate::flags::Flags;
use crate::refusal::{Refusal, Result};

/// How much is read of stdin.
const MOST: u64 = 10 << 20;
/// Set to 3 in the shim manager's environment, a containerd 2.0 to 2.2 is told version 3.
const VERSION_VARIABLE: &str = "CORTEN_SHIM_VERSION";

/// How the answer is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The address alone.
    Plain,
    /// JSON with version 3.
    Json,
    /// BootstrapResult with version 3.
    Bootstrap,
}

/// What stdin said.
#[derive(Debug, Clone, PartialEq)]
pub struct Boot {
    /// How to answer.
    pub dialect: Dialect,
    /// The runtime options.
    pub options: Option<Any>,
    /// Where events go; overrides the environment.
    pub ttrpc_address: String,
    /// Where our socket is to be.
    pub socket_dir: Option<PathBuf>,
    /// Verbose log.
    pub debug: bool,
}

impl Boot {
    /// Tells the forms apart: an `Any` also decodes as BootstrapParams, with its URL as the instance's id.
    ///
    /// # Errors
    /// InvalidArgument when it is neither.
    pub fn read(bytes: &[u8], flags: &Flags) -> Result<Boot> {
        let json = std::env::var(VERSION_VARIABLE).is_ok_and(|version| version == "3");
        let dialect = if json { Dialect::Json } else { Dialect::Plain };
        let mut boot = Boot {
            dialect,
            options: None,
            ttrpc_address: std::env::var("TTRPC_ADDRESS").unwrap_or_default(),
            socket_dir: None,
            debug: flags.debug,
        };
        if bytes.is_empty() {
            return Ok(boot);
        }
        match BootstrapParams::parse_from_bytes(bytes) {
            Ok(params) if params.instance_id == flags.id && params.namespace == flags.namespace => {
                boot.dialect = Dialect::Bootstrap;
                boot.debug |= params.log_level.value() < 0;
                boot.options = options(&params);
                if !params.containerd_ttrpc_address.is_empty() {
                    boot.ttrpc_address = params.containerd_ttrpc_address;
                }
                boot.socket_dir = params.socket_dir.filter(|dir| !dir.is_empty()).map(PathBuf::from);
            }
            _ => {
                let any = Any::parse_from_bytes(bytes);
                boot.options = Some(
                    any.map_err(|error| Refusal::invalid(format!("runtime options on stdin: {error}")))?,
                );
            }
        }
        Ok(boot)
    }
}

impl Boot {
    /// The bundle has no configuration: it is a sandbox's, and whoever asks is a containerd 2.0 or newer. With version 3 that
    /// executes neither `start` nor `delete` for the pod's containers.
    pub fn is_for_a_sandbox(&mut self) {
        if self.dialect == Dialect::Plain {
            self.dialect = Dialect::Json;
        }
    }
}

/// What stdin holds. Not read through std's handle: the server would keep its buffer of two pages.
///
/// # Errors
/// Those of read(2).
pub fn input() -> corten::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let stdin = rustix::stdio::stdin().try_clone_to_owned().map(File::from);
    stdin.and_then(|stdin| stdin.take(MOST).read_to_end(&mut bytes)).call(|| "read(stdin)")?;
    Ok(bytes)
}

/// The extension that is a runtime's options.
fn options(params: &BootstrapParams) -> Option<Any> {
    let values = params.extensions.iter().filter_map(|extension| extension.value.as_ref());
    values.into_iter().find(|any| any.type_url.ends_with(".v1.Options")).cloned()
}

/// The answer. No newline: 2.3 decodes it as it is.
pub fn reply(dialect: Dialect, address: &str) -> Vec<u8> {
    match dialect {
        Dialect::Plain => address.as_bytes().to_vec(),
        Dialect::Json => {
            let address = serde_json::Value::from(address);
            format!("{{\"version\":3,\"address\":{address},\"protocol\":\"ttrpc\"}}").into_bytes()
        }
        Dialect::Bootstrap => {
            let result = BootstrapResult {
                version: 3,
                address: address.to_owned(),
                protocol: "ttrpc".to_owned(),
                ..Default::default()
            };
            result.write_to_bytes().unwrap_or_default()
        }
    }
}

#[cfg(test)]
mod tests {
    use containerd_shim_protos::bootstrap_api::Extension;
    use containerd_shim_protos::protobuf::MessageField;

    use super::*;

    fn flags() -> Flags {
        Flags { id: "c1".into(), namespace: "n".into(), ..Default::default() }
    }

    fn any() -> Any {
        Any { type_url: "containerd.runc.v1.Options".into(), value: vec![0x08, 1], ..Default::default() }
    }

    #[test]
    fn an_any_is_not_taken_for_bootstrap_parameters() {
        let boot = Boot::read(&any().write_to_bytes().unwrap(), &flags()).unwrap();
        assert_eq!((boot.dialect, boot.options), (Dialect::Plain, Some(any())));
        let empty = Boot::read(b"", &flags()).unwrap();
        assert_eq!((empty.dialect, empty.options), (Dialect::Plain, None));
        assert!(Boot::read(&[0xff, 0xff], &flags()).is_err());
    }

    #[test]
    fn bootstrap_parameters_carry_options_and_addresses() {
        let params = BootstrapParams {
            instance_id: "c1".into(),
            namespace: "n".into(),
            containerd_ttrpc_address: "unix:///t".into(),
            socket_dir: Some("/s".into()),
            extensions: vec![Extension { value: MessageField::some(any()), ..Default::default() }],
            ..Default::default()
        };
        let boot = Boot::read(&params.write_to_bytes().unwrap(), &flags()).unwrap();
        assert_eq!((boot.dialect, boot.options.as_ref()), (Dialect::Bootstrap, Some(&any())));
        assert_eq!((boot.ttrpc_address.as_str(), boot.socket_dir), ("unix:///t", Some("/s".into())));
    }

    #[test]
    fn answers_have_no_newline() {
        assert_eq!(reply(Dialect::Plain, "unix:///a"), b"unix:///a");
        let json: serde_json::Value = serde_json::from_slice(&reply(Dialect::Json, "unix:///a")).unwrap();
        assert_eq!((json["version"].as_i64(), json["address"].as_str()), (Some(3), Some("unix:///a")));
        let result = BootstrapResult::parse_from_bytes(&reply(Dialect::Bootstrap, "unix:///a")).unwrap();
        assert_eq!(
            (result.version, result.address.as_str(), result.protocol.as_str()),
            (3, "unix:///a", "ttrpc")
        );
    }
}
