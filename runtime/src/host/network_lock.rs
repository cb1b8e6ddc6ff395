// SPDX-License-Identifier: Apache-2.0
//! What holds off a container's packets while CRIU is at work on it.
//!
//! CRIU locks with nftables, by a table of its own, or with iptables-restore(8), by a chain called CRIU. Both are in the network
//! namespace, which lives on: when CRIU dies, they are taken away here. A lock of ours stands from before the hooks give a restored
//! container its network until its sockets are there: CRIU's comes later, and a packet in between is answered with a reset.

#![forbid(unsafe_code)]

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use super::netlink::{NLM_F_ACK, Netlink, attribute, message};
use crate::error::{Context, Error, Kind, RawErrno, Result};
use crate::sys::ns::in_network_namespace;

/// Takes away what a CRIU that is gone has left in this namespace: nftables' tables of these names, and iptables' chain.
///
/// # Errors
/// When something is left that cannot be taken away.
pub(crate) fn unlock(namespace: BorrowedFd<'_>, tables: &[String]) -> Result<()> {
    in_network_namespace(namespace, || {
        for name in tables {
            delete_table(name)?;
        }
        ["iptables", "ip6tables"].into_iter().try_for_each(unlock_iptables)
    })
}

/// Ours.
pub(super) const TABLE: &str = "corten-restore";

/// Lets no packet in. A kernel without nftables lets them in: then the connections are as with any other runtime.
///
/// # Errors
/// Those of nftables, but for its absence.
pub(super) fn hold(namespace: BorrowedFd<'_>) -> Result<()> {
    in_network_namespace(namespace, || {
        let Some(nftables) = Netlink::open_netfilter()? else { return Ok(()) };
        match nftables.exchange(&lock(TABLE)) {
            // EINVAL, EOPNOTSUPP, ENOENT: no nftables, or none for both families.
            Ok(_) | Err(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOENT) => Ok(()),
            Err(errno) => Err(RawErrno(errno)).call(|| format!("NFT_MSG_NEWCHAIN({TABLE})")),
        }
    })
}

/// Takes a table away that holds packets off, if it is there.
///
/// # Errors
/// Those of nftables.
pub(super) fn let_in(namespace: BorrowedFd<'_>, table: &str) -> Result<()> {
    in_network_namespace(namespace, || delete_table(table))
}

/// linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8;
const NFT_MSG_DELTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8 | 2;
const NFT_MSG_NEWCHAIN: u16 = NFNL_SUBSYS_NFTABLES << 8 | 3;
const NLM_F_CREATE: u16 = 0x400;
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
/// Nested: NLA_F_NESTED is set.
const NFTA_CHAIN_HOOK: u16 = 4 | 0x8000;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
/// NF_INET_LOCAL_IN
const LOCAL_IN: u32 = 1;
/// linux/netfilter_ipv4.h: NF_IP_PRI_FILTER
const PRIORITY: u32 = 0;
const NF_DROP: u32 = 0;
const NFPROTO_UNSPEC: u8 = 0;
const NFPROTO_INET: u8 = 1;

/// Deletes nftables' `table inet NAME`, if there is one.
fn delete_table(name: &str) -> Result<()> {
    let Some(nftables) = Netlink::open_netfilter()? else { return Ok(()) };
    match nftables.exchange(&table_deletion(name)) {
        // ENOENT: there is none; EINVAL, EOPNOTSUPP: nor nftables.
        Ok(_) | Err(libc::ENOENT | libc::EINVAL | libc::EOPNOTSUPP) => Ok(()),
        Err(errno) => Err(RawErrno(errno)).call(|| format!("NFT_MSG_DELTABLE({name})")),
    }
}

/// One transaction: begin, delete, end.
fn table_deletion(name: &str) -> Vec<u8> {
    let mut deletion = general(NFPROTO_INET, 0);
    attribute(&mut deletion, NFTA_TABLE_NAME, &terminated(name));
    transaction(&message(NFT_MSG_DELTABLE, NLM_F_ACK, &deletion))
}

/// `table inet NAME { chain input { type filter hook input priority 0; policy drop; } }`
fn lock(name: &str) -> Vec<u8> {
    let mut table = general(NFPROTO_INET, 0);
    attribute(&mut table, NFTA_TABLE_NAME, &terminated(name));
    let mut hook = Vec::new();
    attribute(&mut hook, NFTA_HOOK_HOOKNUM, &LOCAL_IN.to_be_bytes());
    attribute(&mut hook, NFTA_HOOK_PRIORITY, &PRIORITY.to_be_bytes());
    let mut chain = general(NFPROTO_INET, 0);
    attribute(&mut chain, NFTA_CHAIN_TABLE, &terminated(name));
    attribute(&mut chain, NFTA_CHAIN_NAME, &terminated("input"));
    attribute(&mut chain, NFTA_CHAIN_HOOK, &hook);
    attribute(&mut chain, NFTA_CHAIN_POLICY, &NF_DROP.to_be_bytes());
    attribute(&mut chain, NFTA_CHAIN_TYPE, &terminated("filter"));
    let table = message(NFT_MSG_NEWTABLE, NLM_F_CREATE, &table);
    transaction(&[table, message(NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_ACK, &chain)].concat())
}

/// Between a begin and an end: all of it or nothing.
fn transaction(messages: &[u8]) -> Vec<u8> {
    let bounds = general(NFPROTO_UNSPEC, NFNL_SUBSYS_NFTABLES);
    let (begin, end) = (message(NFNL_MSG_BATCH_BEGIN, 0, &bounds), message(NFNL_MSG_BATCH_END, 0, &bounds));
    [&begin, messages, &end].concat()
}

/// struct nfgenmsg: a family, a version, a number in the network's order.
fn general(family: u8, number: u16) -> Vec<u8> {
    [&[family, 0][..], &number.to_be_bytes()].concat()
}

fn terminated(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

/// Takes the chain away, and what leads to it.
fn unlock_iptables(family: &str) -> Result<()> {
    let (save, restore) = (format!("{family}-save"), format!("{family}-restore"));
    // Without these programs CRIU cannot have locked this way.
    let (Some(save), Some(restore)) = (crate::criu::in_path(&save), crate::criu::in_path(&restore)) else {
        return Ok(());
    };
    let rules =
        Command::new(&save).args(["-t", "filter"]).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let rules = rules.call(|| format!("execve({})", save.display()))?;
    let rules = String::from_utf8_lossy(&rules.stdout);
    let script = chain_deletion(&rules);
    if script.is_empty() { Ok(()) } else { run_with(&restore, &script) }
}

/// What undoes the lock, in the words of iptables-save(8), which told of these rules; nothing where there is no lock.
fn chain_deletion(rules: &str) -> String {
    let has_chain = rules.lines().any(|line| line.starts_with(":CRIU "));
    if !has_chain {
        return String::new();
    }
    let jumps =
        rules.lines().filter_map(|line| line.strip_prefix("-A ").filter(|rule| rule.ends_with(" -j CRIU")));
    let jumps: String = jumps.map(|rule| format!("-D {rule}\n")).collect();
    format!("*filter\n{jumps}-F CRIU\n-X CRIU\nCOMMIT\n")
}

fn run_with(program: &Path, input: &str) -> Result<()> {
    let name = program.display();
    let mut child = Command::new(program)
        .args(["-w", "--noflush"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .call(|| format!("execve({name})"))?;
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let status = child.wait().call(|| format!("wait({name})"))?;
    written.call(|| format!("write({name})"))?;
    if status.success() { Ok(()) } else { Err(Error::new(Kind::Peer, format!("{name}: {status}"))) }
}

/// Takes the lock away in the namespace of a process that CRIU was at work on, as far as its log tells that it was CRIU's.
///
/// # Errors
/// Those of [`unlock`].
pub(crate) fn unlock_of(pid: i32, logs: BorrowedFd<'_>, log: &str) -> Result<()> {
    let path = format!("/proc/{pid}/ns/net");
    let namespace = std::fs::File::open(&path).call(|| format!("open({path})"))?;
    // Before CRIU 4 a table was called by the pid.
    let tables: Vec<String> = std::iter::once(format!("CRIU-{pid}")).chain(tables(logs, log)).collect();
    unlock(namespace.as_fd(), &tables)
}

/// What the tables are called that CRIU's log tells of. CRIU 4.2.1 has room for 31 bytes of `inet CRIU-ID`, the rest is cut off.
pub(crate) fn tables(logs: BorrowedFd<'_>, log: &str) -> Vec<String> {
    const ROOM: usize = 31 - "inet ".len();
    let names = crate::criu::log::run_ids(logs, log).into_iter().map(|id| format!("CRIU-{id}"));
    names.flat_map(|name| [name.chars().take(ROOM).collect(), name]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_has_three_messages_of_whole_words() {
        let bytes = table_deletion("CRIU-ab");
        let mut kinds = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let length = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
            assert_eq!(length % 4, 0);
            kinds.push(u16::from_ne_bytes(rest[4..6].try_into().unwrap()));
            rest = &rest[length..];
        }
        assert_eq!(kinds, [16, 0xa02, 17]);
    }

    #[test]
    fn only_what_leads_to_the_chain_is_taken_away() {
        let rules = "*filter\n:INPUT ACCEPT [0:0]\n:CRIU - [0:0]\n-A INPUT -j CRIU\n-A INPUT -i lo -j ACCEPT\n-A OUTPUT -j CRIU\n-A CRIU -j DROP\nCOMMIT\n";
        let wanted = "*filter\n-D INPUT -j CRIU\n-D OUTPUT -j CRIU\n-F CRIU\n-X CRIU\nCOMMIT\n";
        assert_eq!(chain_deletion(rules), wanted);
        assert_eq!(chain_deletion("*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n"), "");
    }
}
