// SPDX-License-Identifier: Apache-2.0
//! Where the managers listen: the system's, and the user's own.

#![forbid(unsafe_code)]

use std::fmt;

/// A socket of a manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Its path; an abstract name begins with `@`.
    pub name: String,
    /// systemd itself listens there, not a bus.
    pub direct: bool,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Where the system's manager (or the user's, with `user`) may be found, the first one first.
pub fn addresses(user: bool) -> Vec<Address> {
    let direct = |name: String| Address { name, direct: true };
    let bus = |name: String| Address { name, direct: false };
    if !user {
        return vec![direct("/run/systemd/private".into()), bus("/run/dbus/system_bus_socket".into())];
    }
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let home = set("XDG_RUNTIME_DIR").filter(|path| path.starts_with('/'));
    let mut all = Vec::new();
    all.extend(home.iter().map(|home| direct(format!("{home}/systemd/private"))));
    all.extend(set("DBUS_SESSION_BUS_ADDRESS").iter().flat_map(|text| parse(text)).map(bus));
    all.extend(home.iter().map(|home| bus(format!("{home}/bus"))));
    all
}

/// The unix sockets in a list of addresses (D-Bus specification, "Server Addresses"):
/// `unix:path=/a;unix:abstract=/b,guid=…`.
fn parse(text: &str) -> Vec<String> {
    let unix = text.split(';').filter_map(|address| address.strip_prefix("unix:"));
    unix.flat_map(|pairs| pairs.split(','))
        .filter_map(|pair| match pair.split_once('=')? {
            ("path", path) => unescape(path),
            ("abstract", name) => Some(format!("@{}", unescape(name)?)),
            _ => None,
        })
        .collect()
}

/// `%20` is a space.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            0 => return None,
            other => other,
        });
    }
    String::from_utf8(bytes).ok().filter(|name| !name.is_empty() && !name.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_session() {
        for (text, names) in [
            ("unix:path=/run/user/1000/bus", &["/run/user/1000/bus"][..]),
            ("unix:abstract=/tmp/x,guid=5;unix:path=/a%20b", &["@/tmp/x", "/a b"]),
            ("tcp:host=h,port=5;unix:runtime=yes", &[]),
            ("unix:path=%zz;unix:path=;unix:path=%", &[]),
            ("unix:path=%00", &[]),
            ("", &[]),
        ] {
            assert_eq!(parse(text), names, "{text}");
        }
        assert_eq!(addresses(false)[0].name, "/run/systemd/private");
    }
}
