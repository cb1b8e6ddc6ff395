// SPDX-License-Identifier: Apache-2.0
//! What a pod is to be: the few fields of the CRI's `PodSandboxConfig` (k8s.io/cri-api, runtime.v1) that its namespaces and
//! files depend on. Everything else in there is containerd's, or a container's.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use containerd_shim_protos::protobuf::CodedInputStream;
use containerd_shim_protos::protobuf::rt::skip_field_for_tag;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::refusal::{Refusal, Result};

const MESSAGE: &str = "PodSandboxConfig";

/// The pod, as it is asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodWish {
    pub hostname: String,
    pub dns: PodDns,
    pub sysctls: BTreeMap<String, String>,
    /// The network namespace; empty: the host's.
    pub network: String,
    /// Its containers are in one pid namespace.
    pub shares_pids: bool,
    /// Its containers are in the host's IPC namespace.
    pub host_ipc: bool,
    /// It has a user namespace, with these mappings.
    pub ids: Option<PodIds>,
}

/// What resolv.conf says; all empty: what the host's says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodDns {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

/// Mappings of a user namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodIds {
    pub uids: Vec<IdRange>,
    pub gids: Vec<IdRange>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IdRange {
    pub host: u32,
    pub container: u32,
    pub length: u32,
}

/// NamespaceMode of the CRI.
const POD: u64 = 0;
const NODE: u64 = 2;

/// The parts of a message that are put together: `NamespaceOption` and `UserNamespace`.
#[derive(Default)]
struct NamespaceModes {
    network: u64,
    pid: u64,
    ipc: u64,
    /// There are options for the user namespace, of this mode.
    user: Option<u64>,
    ids: PodIds,
}

impl PodWish {
    /// Reads CreateSandbox's options; without any, a pod has namespaces of its own but for the pids'.
    ///
    /// # Errors
    /// InvalidArgument for another type, a malformed message, and what the kernel would refuse whatever happens.
    pub fn read(any: Option<&Any>, network: &str) -> Result<PodWish> {
        let mut wish = PodWish { network: network.to_owned(), ..PodWish::default() };
        let Some(any) = any.filter(|any| !any.type_url.is_empty() || !any.value.is_empty()) else {
            return Ok(wish);
        };
        let name = any.type_url.rsplit(['/', '.']).next().unwrap_or_default();
        if name != MESSAGE {
            return Err(Refusal::invalid(format!("options of an unknown type {:?}", any.type_url)));
        }
        let mut modes = NamespaceModes::default();
        wish.config(&any.value, &mut modes)?;
        wish.shares_pids = modes.pid == POD;
        wish.host_ipc = modes.ipc == NODE;
        wish.ids = modes.user.filter(|mode| *mode == POD).map(|_| modes.ids);
        if modes.network == NODE {
            wish.network.clear();
        }
        wish.check().map(|()| wish)
    }

    fn check(&self) -> Result<()> {
        let strange = |text: &&String| text.contains(['\n', '\0']);
        let lists = self.dns.servers.iter().chain(&self.dns.searches).chain(&self.dns.options);
        if let Some(text) = lists.chain([&self.hostname]).find(strange) {
            return Err(Refusal::invalid(format!("{MESSAGE}: {text:?} is more than a line")));
        }
        if self.ids.as_ref().is_some_and(|ids| ids.root().is_none()) {
            return Err(Refusal::invalid(format!("{MESSAGE}: the user namespace maps no root")));
        }
        Ok(())
    }

    /// `PodSandboxConfig`: 2 hostname, 4 dns_config, 8 linux.
    fn config(&mut self, bytes: &[u8], modes: &mut NamespaceModes) -> Result<()> {
        each_field(bytes, &mut |number, field| {
            match (number, field) {
                (2, Field::Bytes(name)) => self.hostname = text(name)?,
                (4, Field::Bytes(dns)) => self.dns = PodDns::read(dns)?,
                (8, Field::Bytes(linux)) => self.linux(linux, modes)?,
                _ => {}
            }
            Ok(())
        })
    }

    /// `LinuxPodSandboxConfig`: 2 security_context (in it 1 namespace_options), 3 sysctls.
    fn linux(&mut self, bytes: &[u8], modes: &mut NamespaceModes) -> Result<()> {
        each_field(bytes, &mut |number, field| match (number, field) {
            (2, Field::Bytes(context)) => each_field(context, &mut |number, field| match (number, field) {
                (1, Field::Bytes(options)) => modes.read(options),
                _ => Ok(()),
            }),
            (3, Field::Bytes(entry)) => {
                let (mut key, mut value) = (String::new(), String::new());
                each_field(entry, &mut |number, field| {
                    match (number, field) {
                        (1, Field::Bytes(bytes)) => key = text(bytes)?,
                        (2, Field::Bytes(bytes)) => value = text(bytes)?,
                        _ => {}
                    }
                    Ok(())
                })?;
                self.sysctls.insert(key, value);
                Ok(())
            }
            _ => Ok(()),
        })
    }

    /// The configuration of what holds its namespaces. `user`: the namespace that owns the network's, where it has one.
    pub fn configuration(&self, user: Option<&str>) -> Value {
        let mut namespaces = Vec::new();
        let mut add = |kind: &str, path: Option<&str>| {
            namespaces.push(match path {
                Some(path) => json!({"type": kind, "path": path}),
                None => json!({"type": kind}),
            });
        };
        let mut linux = json!({"sysctl": self.parameters()});
        if let Some(ids) = &self.ids {
            add("user", user);
            linux["uidMappings"] = mappings(&ids.uids);
            linux["gidMappings"] = mappings(&ids.gids);
        }
        if !self.network.is_empty() {
            add("network", Some(&self.network));
            add("uts", None);
        }
        if !self.host_ipc {
            add("ipc", None);
        }
        if self.shares_pids {
            // Who is seen must have nothing that can be reached through it.
            add("pid", None);
            add("mount", None);
        }
        linux["namespaces"] = namespaces.into();
        let mut config = json!({"ociVersion": "1.2.0", "root": {"path": "/"}, "linux": linux});
        if !self.network.is_empty() && !self.hostname.is_empty() {
            config["hostname"] = self.hostname.clone().into();
        }
        config
    }

    /// The pod's, and the two that containerd 2's pause controller sets unless it is told otherwise: its CRI table says nothing
    /// of that to us.
    fn parameters(&self) -> BTreeMap<String, String> {
        let mut parameters = self.sysctls.clone();
        if !self.network.is_empty() {
            let mut default = |key: &str, value: &str| {
                parameters.entry(key.to_owned()).or_insert_with(|| value.to_owned());
            };
            default("net.ipv4.ip_unprivileged_port_start", "0");
            if self.ids.is_none() {
                default("net.ipv4.ping_group_range", "0 2147483647");
            }
        }
        parameters
    }
}

impl NamespaceModes {
    /// `NamespaceOption`: 1 network, 2 pid, 3 ipc, 5 userns_options.
    fn read(&mut self, bytes: &[u8]) -> Result<()> {
        each_field(bytes, &mut |number, field| {
            match (number, field) {
                (1, Field::Number(mode)) => self.network = mode,
                (2, Field::Number(mode)) => self.pid = mode,
                (3, Field::Number(mode)) => self.ipc = mode,
                (5, Field::Bytes(options)) => self.read_user(options)?,
                _ => {}
            }
            Ok(())
        })
    }

    /// `UserNamespace`: 1 mode, 2 uids, 3 gids.
    fn read_user(&mut self, bytes: &[u8]) -> Result<()> {
        self.user = Some(POD);
        each_field(bytes, &mut |number, field| {
            match (number, field) {
                (1, Field::Number(mode)) => self.user = Some(mode),
                (2, Field::Bytes(range)) => self.ids.uids.push(IdRange::read(range)?),
                (3, Field::Bytes(range)) => self.ids.gids.push(IdRange::read(range)?),
                _ => {}
            }
            Ok(())
        })
    }
}

impl PodDns {
    /// `DNSConfig`: 1 servers, 2 searches, 3 options.
    fn read(bytes: &[u8]) -> Result<PodDns> {
        let mut dns = PodDns::default();
        each_field(bytes, &mut |number, field| {
            match (number, field) {
                (1, Field::Bytes(server)) => dns.servers.push(text(server)?),
                (2, Field::Bytes(search)) => dns.searches.push(text(search)?),
                (3, Field::Bytes(option)) => dns.options.push(text(option)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(dns)
    }
}

impl PodIds {
    /// Who on the host is root in there.
    pub fn root(&self) -> Option<(u32, u32)> {
        let root = |ranges: &[IdRange]| {
            let range = ranges.iter().find(|range| range.container == 0 && range.length > 0);
            range.map(|range| range.host)
        };
        root(&self.uids).zip(root(&self.gids))
    }
}

impl IdRange {
    /// `IDMapping`: 1 host_id, 2 container_id, 3 length.
    fn read(bytes: &[u8]) -> Result<IdRange> {
        let mut range = IdRange::default();
        each_field(bytes, &mut |number, field| {
            let Field::Number(value) = field else { return Ok(()) };
            let value = u32::try_from(value)
                .map_err(|_| Refusal::invalid(format!("{MESSAGE}: {value} is no user id")))?;
            match number {
                1 => range.host = value,
                2 => range.container = value,
                3 => range.length = value,
                _ => {}
            }
            Ok(())
        })?;
        Ok(range)
    }
}

fn mappings(ranges: &[IdRange]) -> Value {
    let range =
        |range: &IdRange| json!({"hostID": range.host, "containerID": range.container, "size": range.length});
    ranges.iter().map(range).collect::<Vec<_>>().into()
}

/// A field of a message, as far as these messages have any.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn each_field(bytes: &[u8], take: &mut dyn FnMut(u32, Field<'_>) -> Result<()>) -> Result<()> {
    let malformed = |error| Refusal::invalid(format!("malformed {MESSAGE}: {error}"));
    let mut input = CodedInputStream::from_bytes(bytes);
    while let Some(tag) = input.read_raw_tag_or_eof().map_err(malformed)? {
        match tag & 7 {
            0 => take(tag >> 3, Field::Number(input.read_raw_varint64().map_err(malformed)?))?,
            2 => take(tag >> 3, Field::Bytes(&input.read_bytes().map_err(malformed)?))?,
            _ => skip_field_for_tag(tag, &mut input).map_err(malformed)?,
        }
    }
    Ok(())
}

fn text(bytes: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(bytes).map_err(|error| Refusal::invalid(format!("{MESSAGE}: {error}")))?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of bytes, of fewer than 128.
    fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, value.len() as u8], value].concat()
    }

    fn number(number: u8, value: u8) -> Vec<u8> {
        vec![number << 3, value]
    }

    fn read(config: &[Vec<u8>], network: &str) -> Result<PodWish> {
        let any = Any {
            type_url: "runtime.v1.PodSandboxConfig".into(),
            value: config.concat(),
            ..Default::default()
        };
        PodWish::read(Some(&any), network)
    }

    fn linux(options: &[Vec<u8>]) -> Vec<u8> {
        let context = bytes(2, &bytes(1, &options.concat()));
        let sysctl = bytes(3, &[bytes(1, b"kernel.shm_rmid_forced"), bytes(2, b"1")].concat());
        bytes(8, &[bytes(1, b"/kubepods/pod1"), context, sysctl].concat())
    }

    #[test]
    fn the_fields_are_found() {
        let dns =
            [bytes(1, b"10.0.0.1"), bytes(1, b"10.0.0.2"), bytes(2, b"a.b"), bytes(3, b"ndots:5")].concat();
        let config = [
            bytes(1, &bytes(1, b"name")),
            bytes(2, b"box"),
            bytes(4, &dns),
            linux(&[number(2, 1), number(3, 2)]),
        ];
        let wish = read(&config, "/n").unwrap();
        assert_eq!((wish.hostname.as_str(), wish.network.as_str()), ("box", "/n"));
        assert_eq!(wish.dns.servers, ["10.0.0.1", "10.0.0.2"]);
        assert_eq!((wish.dns.searches.len(), wish.dns.options.len()), (1, 1));
        assert!(!wish.shares_pids && wish.host_ipc && wish.ids.is_none());
        assert_eq!(wish.sysctls["kernel.shm_rmid_forced"], "1");
        let again: PodWish = serde_json::from_value(serde_json::to_value(&wish).unwrap()).unwrap();
        assert_eq!(again, wish);
    }

    /// The CRI's zero is POD: who says nothing of pids shares them.
    #[test]
    fn what_is_not_said_is_the_pods() {
        let wish = read(&[linux(&[])], "/n").unwrap();
        assert!(wish.shares_pids && !wish.host_ipc);
        let config = wish.configuration(None);
        let kinds: Vec<_> =
            config["linux"]["namespaces"].as_array().unwrap().iter().map(|ns| &ns["type"]).collect();
        assert_eq!(kinds, ["network", "uts", "ipc", "pid", "mount"]);
        assert_eq!(config["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"], "0");
        let host = read(&[linux(&[number(1, 2), number(2, 2)])], "/n").unwrap().configuration(None);
        assert_eq!(host["linux"]["namespaces"], json!([{"type": "ipc"}]));
        assert_eq!(host["linux"]["sysctl"], json!({"kernel.shm_rmid_forced": "1"}));
        assert!(!PodWish::read(None, "").unwrap().shares_pids);
    }

    #[test]
    fn a_user_namespace_is_the_networks_owner() {
        let range = |host: u8| [number(1, host), number(3, 100)].concat();
        let options = |first: u8| {
            linux(&[number(2, 1), bytes(5, &[bytes(2, &range(first)), bytes(3, &range(first + 1))].concat())])
        };
        let wish = read(&[options(60)], "/n").unwrap();
        assert_eq!(wish.ids.as_ref().unwrap().root(), Some((60, 61)));
        let config = wish.configuration(Some("/u"));
        assert_eq!(config["linux"]["namespaces"][0], json!({"type": "user", "path": "/u"}));
        assert_eq!(config["linux"]["uidMappings"], json!([{"hostID": 60, "containerID": 0, "size": 100}]));
        let none = read(&[linux(&[bytes(5, &number(1, 0))])], "/n");
        assert!(none.unwrap_err().text.contains("maps no root"));
        assert!(read(&[linux(&[bytes(5, &number(1, 2))])], "/n").unwrap().ids.is_none());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |config: &[Vec<u8>], what: &str| {
            let refusal = read(config, "").unwrap_err();
            assert!(refusal.text.contains(what), "{refusal}");
        };
        refused(&[vec![0x12, 9, b'x']], "malformed PodSandboxConfig");
        refused(&[bytes(2, b"a\nb")], "is more than a line");
        refused(&[bytes(2, &[0xff])], "PodSandboxConfig: ");
        let other = Any { type_url: "runtime.v1.Pod".into(), ..Default::default() };
        assert!(PodWish::read(Some(&other), "").unwrap_err().text.contains("unknown type"));
    }
}
