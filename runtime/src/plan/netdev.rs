// SPDX-License-Identifier: Apache-2.0
//! Network devices to move into the container (config-linux.md#network-devices). Counterpart: `host/netdev.rs`.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use super::namespaces::{Namespaces, NsKind};
use super::text::{escape, filled, printable};
use crate::error::{Error, Result};
use crate::spec::Spec;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetDevice {
    /// JSON pointer, `/linux/netDevices/eth0`.
    pub at: String,
    /// Its name on the host.
    pub host: String,
    /// Its name inside; one `%d` stands for the first free number.
    pub inside: String,
}

/// IFNAMSIZ without the NUL (linux/if.h).
const LONGEST: usize = 15;

/// The devices, by name.
///
/// # Errors
/// No network namespace, names that no device can have, two devices of one name.
pub(crate) fn decide_network_devices(spec: &Spec, namespaces: &Namespaces) -> Result<Vec<NetDevice>> {
    let devices = &spec.linux.net_devices;
    if !devices.is_empty() && !namespaces.has(NsKind::Network) {
        let text = "unable to move network devices without a NET namespace";
        return Err(Error::invalid("/linux/netDevices", text));
    }
    let mut decided: Vec<NetDevice> = Vec::with_capacity(devices.len());
    let mut names = BTreeMap::new();
    for (host, asked) in devices {
        let at = format!("/linux/netDevices/{}", escape(host));
        if !valid(host) || host.contains('%') {
            return Err(Error::invalid(&at, format!("invalid network device name {}", printable(host))));
        }
        let inside = asked.as_ref().and_then(|asked| filled(asked.name.as_deref())).unwrap_or(host);
        if !valid(inside) || !template(inside) {
            let text = format!("invalid network device name {}", printable(inside));
            return Err(Error::invalid(format_args!("{at}/name"), text));
        }
        let twin = names.insert(inside, host).filter(|_| !inside.contains('%'));
        if let Some(twin) = twin {
            let text = format!("{inside:?} is the name of {twin} already");
            return Err(Error::invalid(format_args!("{at}/name"), text));
        }
        decided.push(NetDevice { at, host: host.clone(), inside: inside.to_owned() });
    }
    Ok(decided)
}

/// The kernel's dev_valid_name (net/core/dev.c).
fn valid(name: &str) -> bool {
    let bad =
        |byte: u8| byte == b'/' || byte == b':' || byte.is_ascii_whitespace() || byte == 0 || byte == 0x0b;
    !name.is_empty() && name.len() <= LONGEST && name != "." && name != ".." && !name.bytes().any(bad)
}

/// At most one `%`, and that as `%d` (net/core/dev.c: __dev_alloc_name).
fn template(name: &str) -> bool {
    match name.split_once('%') {
        None => true,
        Some((_, rest)) => rest.starts_with('d') && !rest.contains('%'),
    }
}
