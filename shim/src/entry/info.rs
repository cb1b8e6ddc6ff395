// SPDX-License-Identifier: Apache-2.0
//! `-info`: what this runtime can do, as RuntimeInfo on stdout. containerd asks at every start, some versions at every
//! create; the answer is a table of ours, no runtime is executed for it. No mount types are claimed beyond the kernel's, so
//! containerd's mount manager keeps its own.

#![forbid(unsafe_code)]

use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use corten::features::{COMMIT, VERSION, features};

const NAME: &str = "io.containerd.corten.v2";
/// The features' type; its value is JSON (containerd: typeurl of the specification's structure).
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// The message; `options` as they came on stdin.
pub fn info(options: &[u8]) -> Vec<u8> {
    let json = serde_json::to_vec(&features()).unwrap_or_default();
    let version = RuntimeVersion { version: VERSION.into(), revision: COMMIT.into(), ..Default::default() };
    let mut info = RuntimeInfo {
        name: NAME.into(),
        version: MessageField::some(version),
        features: MessageField::some(Any { type_url: FEATURES.into(), value: json, ..Default::default() }),
        ..Default::default()
    };
    if let Ok(any) = Any::parse_from_bytes(options)
        && !any.type_url.is_empty()
    {
        info.options = MessageField::some(any);
    }
    info.write_to_bytes().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_bare_message_with_json_inside() {
        let info = RuntimeInfo::parse_from_bytes(&info(b"")).unwrap();
        assert_eq!(info.name, NAME);
        let features: serde_json::Value = serde_json::from_slice(&info.features.value).unwrap();
        assert!(features["mountOptions"].as_array().unwrap().iter().any(|option| option == "rro"));
    }
}
