// SPDX-License-Identifier: Apache-2.0
//! As much of rtnetlink(7) as moving a network device takes: finding links, changing them, copying addresses. And the way by which
//! nftables is spoken to.
//! A message is bytes in the machine's order; what comes back is read with bounds checked, and never believed further.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

use crate::error::{Context, Result};
use crate::sys::ns::in_network_namespace;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
/// The message wants an answer, also when all is well.
pub(super) const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE_EXCL: u16 = 0x600;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_LABEL: u16 = 3;
const IFA_FLAGS: u16 = 8;
/// What of an address is taken along: address, local, label, broadcast, flags, metric, protocol (linux/if_addr.h).
const IFA_KEPT: [u16; 7] = [1, 2, IFA_LABEL, 4, IFA_FLAGS, 9, 11];
const IFA_F_PERMANENT: u32 = 0x80;
/// What the kernel finds out by itself: secondary, failed and pending duplicate detection.
const IFA_F_FOUND: u32 = 0x01 | 0x08 | 0x40;
const RT_SCOPE_UNIVERSE: u8 = 0;
const IFF_UP: u32 = 1;
/// The head of every message: length, type, flags, sequence, port.
const HEAD: usize = 16;
/// struct ifinfomsg.
const LINK: usize = 16;
/// struct ifaddrmsg.
const ADDRESS: usize = 8;

/// A socket; it stays in the network namespace in which it was opened.
pub(super) struct Netlink(OwnedFd);

/// A network device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) up: bool,
}

/// A permanent address of global scope, as the kernel told it.
#[derive(Debug, Clone)]
pub(super) struct InterfaceAddress {
    head: [u8; ADDRESS],
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Netlink {
    /// In our own network namespace.
    pub(super) fn open() -> Result<Netlink> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        // NETLINK_ROUTE is protocol 0.
        rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)
            .call(|| "socket(NETLINK_ROUTE)")
            .map(Netlink)
    }

    /// In another one: a thread enters it and comes back with the socket.
    pub(super) fn open_in(namespace: BorrowedFd<'_>) -> Result<Netlink> {
        in_network_namespace(namespace, Netlink::open)
    }

    /// To nftables of our own network namespace; `None` where the kernel has no such thing.
    pub(super) fn open_netfilter() -> Result<Option<Netlink>> {
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        match rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(netlink::NETFILTER)) {
            Err(rustix::io::Errno::PROTONOSUPPORT) => Ok(None),
            other => other.call(|| "socket(NETLINK_NETFILTER)").map(|socket| Some(Netlink(socket))),
        }
    }

    /// All devices.
    pub(super) fn links(&self) -> Result<Vec<Link>> {
        let answers = self.talk(RTM_GETLINK, NLM_F_DUMP, &[0; LINK]).call(|| "RTM_GETLINK")?;
        Ok(answers.iter().filter_map(|answer| link(answer)).collect())
    }

    /// The permanent addresses of global scope of a device, in the kernel's order.
    pub(super) fn addresses(&self, index: u32) -> Result<Vec<InterfaceAddress>> {
        let answers = self.talk(RTM_GETADDR, NLM_F_DUMP, &[0; ADDRESS]).call(|| "RTM_GETADDR")?;
        Ok(answers.iter().filter_map(|answer| address(answer, index)).collect())
    }

    /// Moves the device `index` to another namespace, under this name (a template if it holds `%d`).
    pub(super) fn send_away(&self, index: u32, name: &str, to: BorrowedFd<'_>) -> Result<()> {
        let mut message = change(index, 0, 0);
        attribute(&mut message, IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
        attribute(&mut message, IFLA_NET_NS_FD, &to.as_raw_fd().to_ne_bytes());
        self.talk(RTM_NEWLINK, NLM_F_ACK, &message)
            .call(|| format!("RTM_NEWLINK({name}, IFLA_NET_NS_FD)"))
            .map(drop)
    }

    /// Sets the device up.
    pub(super) fn up(&self, index: u32) -> Result<()> {
        self.talk(RTM_NEWLINK, NLM_F_ACK, &change(index, IFF_UP, IFF_UP))
            .call(|| "RTM_NEWLINK(IFF_UP)")
            .map(drop)
    }

    /// Gives the device an address that it had under the name `old`.
    pub(super) fn add(&self, link: &Link, old: &str, address: &InterfaceAddress) -> Result<()> {
        let mut message = address.head.to_vec();
        message[4..].copy_from_slice(&link.index.to_ne_bytes());
        for (kind, value) in &address.attributes {
            match *kind {
                IFA_LABEL => {
                    // `eth0:1` of eth0 is `net1:1` of net1.
                    let label = String::from_utf8_lossy(value).trim_end_matches('\0').to_owned();
                    let label =
                        label.strip_prefix(old).map_or(label.clone(), |rest| format!("{}{rest}", link.name));
                    if label.len() <= 15 {
                        attribute(&mut message, IFA_LABEL, &[label.as_bytes(), &[0]].concat());
                    }
                }
                IFA_FLAGS => {
                    attribute(&mut message, IFA_FLAGS, &(read_u32(value, 0) & !IFA_F_FOUND).to_ne_bytes())
                }
                kind => attribute(&mut message, kind, value),
            }
        }
        match self.talk(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE_EXCL, &message) {
            Err(libc::EEXIST) => Ok(()),
            other => other.call(|| format!("RTM_NEWADDR({})", link.name)).map(drop),
        }
    }

    /// Asks, and reads answers until the last; each without its head.
    fn talk(&self, kind: u16, flags: u16, body: &[u8]) -> Result<Vec<Vec<u8>>, i32> {
        self.exchange(&message(kind, flags, body))
    }

    /// Sends messages, of which one wants an answer, and reads answers until the last; each without its head.
    pub(super) fn exchange(&self, messages: &[u8]) -> Result<Vec<Vec<u8>>, i32> {
        rustix::net::send(self.0.as_fd(), messages, SendFlags::empty())
            .map_err(|errno| errno.raw_os_error())?;
        let mut answers = Vec::new();
        // The kernel's dumps come in pieces of at most 32 KiB.
        let mut room = vec![0; 1 << 16];
        loop {
            let (_, length) = rustix::net::recv(self.0.as_fd(), &mut room[..], RecvFlags::empty())
                .map_err(|errno| errno.raw_os_error())?;
            let mut rest = room.get(..length).unwrap_or_default();
            while rest.len() >= HEAD {
                let size = read_u32(rest, 0) as usize;
                let Some(one) = rest.get(..size).filter(|_| size >= HEAD) else { return Err(libc::EBADMSG) };
                let (head, payload) = one.split_at(HEAD);
                match read_u16(head, 4) {
                    NLMSG_DONE => return Ok(answers),
                    NLMSG_ERROR => match read_u32(payload, 0) as i32 {
                        0 => return Ok(answers),
                        errno => return Err(errno.saturating_neg()),
                    },
                    _ => answers.push(payload.to_vec()),
                }
                rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// A message: its head (struct nlmsghdr) and what follows, which is padded already.
pub(super) fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEAD + body.len());
    message.extend(((HEAD + body.len()) as u32).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((flags | NLM_F_REQUEST).to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn read_u16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_ne_bytes(b.try_into().unwrap_or_default()))
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes(b.try_into().unwrap_or_default()))
}

/// struct ifinfomsg that changes flags.
fn change(index: u32, flags: u32, mask: u32) -> Vec<u8> {
    let mut message = vec![0; 4];
    [index, flags, mask].iter().for_each(|word| message.extend(word.to_ne_bytes()));
    message
}

/// Appends an attribute, padded to four bytes (struct rtattr).
pub(super) fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend((4 + value.len() as u16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// The attributes in `bytes`; what is cut short ends them.
fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut all = Vec::new();
    while bytes.len() >= 4 {
        let length = usize::from(read_u16(bytes, 0));
        let Some(value) = bytes.get(4..length) else { break };
        // The upper bits say how the value is laid out (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
        all.push((read_u16(bytes, 2) & 0x3fff, value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    all
}

fn link(answer: &[u8]) -> Option<Link> {
    let name = attributes(answer.get(LINK..)?).into_iter().find(|(kind, _)| *kind == IFLA_IFNAME)?.1;
    let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
    Some(Link { index: read_u32(answer, 4), name, up: read_u32(answer, 8) & IFF_UP != 0 })
}

fn address(answer: &[u8], index: u32) -> Option<InterfaceAddress> {
    let head: [u8; ADDRESS] = answer.get(..ADDRESS)?.try_into().ok()?;
    if read_u32(&head, 4) != index || head[3] != RT_SCOPE_UNIVERSE {
        return None;
    }
    let all = attributes(&answer[ADDRESS..]);
    let flags =
        all.iter().find(|(kind, _)| *kind == IFA_FLAGS).map_or(u32::from(head[2]), |(_, v)| read_u32(v, 0));
    if flags & IFA_F_PERMANENT == 0 {
        return None;
    }
    let kept = all.into_iter().filter(|(kind, _)| IFA_KEPT.contains(kind));
    Some(InterfaceAddress { head, attributes: kept.map(|(kind, value)| (kind, value.to_vec())).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_end_where_they_are_cut_short() {
        let mut bytes = Vec::new();
        attribute(&mut bytes, 3, b"lo\0");
        attribute(&mut bytes, 8, &7_u32.to_ne_bytes());
        assert_eq!(attributes(&bytes), [(3, &b"lo\0"[..]), (8, &7_u32.to_ne_bytes()[..])]);
        for length in 0..bytes.len() {
            assert!(attributes(&bytes[..length]).len() < 2);
        }
        assert!(attributes(&[0; 8]).is_empty());
        assert!(attributes(&[2, 0, 1, 0]).is_empty());
        for length in 0..64 {
            assert!(link(&vec![0xff; length]).is_none() && address(&vec![0; length], 1).is_none());
        }
    }

    /// Whatever else there is here, there is `lo`.
    #[test]
    fn the_kernel_tells_of_lo() {
        let links = Netlink::open().unwrap().links().unwrap();
        let lo = links.iter().find(|link| link.name == "lo").unwrap();
        // Its addresses are of host scope.
        assert_eq!((lo.index, Netlink::open().unwrap().addresses(1).unwrap().len()), (1, 0));
    }
}
