// SPDX-License-Identifier: Apache-2.0
//! config-linux.md, "Network Devices": moved with their addresses, in network namespaces of the case's own.

#![forbid(unsafe_code)]

use std::fs::File;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};
use serde_json::{Value, json};

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case, same};
use crate::harness::test::Test;

const RUNC: &str = "netDevices came with runc 1.4";

/// The chapter.
pub fn cases() -> Vec<Case> {
    let mut all = moves();
    all.extend(refusals());
    let needless = "netdev/returned-after-a-failure";
    for case in all.iter_mut().filter(|case| case.name != needless) {
        case.differs("runc", RUNC);
    }
    all
}

/// ip(8), if this environment has it.
fn ip(words: &str) -> Result<String, Trouble> {
    let missing = |error: std::io::Error| Trouble::NotRun(format!("no ip(8) here: {error}"));
    let out = Command::new("ip").args(words.split_whitespace()).output().map_err(missing)?;
    let error = String::from_utf8_lossy(&out.stderr);
    check!(out.status.success(), "harness: ip {words}: {}", error.trim());
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// This thread, and what it starts, gets a network namespace of its own with a pair of devices, `one` with addresses.
fn own_network() -> Verdict {
    unshare(CloneFlags::CLONE_NEWNET)?;
    ip("link add one type veth peer name other")?;
    ip("link set one mtu 1400 address 02:00:00:00:00:17")?;
    ip("addr add 10.9.8.7/24 broadcast 10.9.8.255 dev one label one:x metric 77")?;
    ip("addr add 169.254.3.3/16 scope link dev one")?;
    ip("addr add fd00::7/64 dev one nodad noprefixroute")?;
    ip("link set other up")?;
    ip("link set one up").map(drop)
}

/// What ip(8) sees in the namespace of the container's first process.
fn inside(t: &Test, b: &Bundle) -> Result<Value, Trouble> {
    let file = File::open(format!("/proc/{}/ns/net", t.pid(b)?))?;
    let look = move || {
        setns(file, CloneFlags::CLONE_NEWNET)?;
        ip("-j addr")
    };
    let text = std::thread::spawn(look).join().unwrap_or_else(|_| Err("the thread panicked".into()))?;
    Ok(serde_json::from_str(&text)?)
}

fn device<'a>(all: &'a Value, name: &str) -> Result<&'a Value, Trouble> {
    let found = all.as_array().into_iter().flatten().find(|one| one["ifname"] == name);
    found.ok_or_else(|| format!("no device {name} in {all}").into())
}

fn addresses(device: &Value) -> Vec<&Value> {
    device["addr_info"].as_array().into_iter().flatten().filter(|one| one["scope"] == "global").collect()
}

fn is_up(device: &Value) -> bool {
    device["flags"].as_array().is_some_and(|flags| flags.iter().any(|flag| flag == "UP"))
}

/// The device as `own_network` made it.
fn as_before(one: &Value) -> Verdict {
    check!(is_up(one), "it is not up: {one}");
    same("mtu", (&one["mtu"], &one["address"]), (&json!(1400), &json!("02:00:00:00:00:17")))?;
    let global = addresses(one);
    same("global addresses", global.len(), 2)?;
    let (four, six) = (global[0], global[1]);
    same("IPv4", (&four["local"], &four["prefixlen"]), (&json!("10.9.8.7"), &json!(24)))?;
    same("broadcast", (&four["broadcast"], &four["metric"]), (&json!("10.9.8.255"), &json!(77)))?;
    same("IPv6", (&six["local"], &six["prefixlen"]), (&json!("fd00::7"), &json!(64)))?;
    same("flags", (&six["noprefixroute"], &six["nodad"]), (&json!(true), &json!(true)))
}

fn moves() -> Vec<Case> {
    vec![
        case("netdev/moved-with-addresses", |t| {
            own_network()?;
            let b = t.bundle()?.set("/linux/netDevices", json!({"one": {}})).probe("forever");
            t.launch(&b)?;
            let all = inside(t, &b)?;
            let one = device(&all, "one")?;
            as_before(one)?;
            same("label", &addresses(one)[0]["label"], "one:x")?;
            let linked =
                one["addr_info"].as_array().into_iter().flatten().any(|a| a["local"] == "169.254.3.3");
            check!(!linked, "an address of link scope came along");
            check!(!ip("-j link")?.contains("\"one\""), "it is still here");
            Ok(())
        }),
        case("netdev/renamed", |t| {
            own_network()?;
            let b = t.bundle()?.set("/linux/netDevices", json!({"one": {"name": "eth0"}})).probe("forever");
            t.launch(&b)?;
            let all = inside(t, &b)?;
            as_before(device(&all, "eth0")?)?;
            same("label", &addresses(device(&all, "eth0")?)[0]["label"], "eth0:x")
        })
        .crun("the label keeps the old name"),
        case("netdev/a-template-of-a-name", |t| {
            own_network()?;
            let devices = json!({"one": {"name": "net%d"}, "other": {"name": "net%d"}});
            let b = t.bundle()?.set("/linux/netDevices", devices).probe("forever");
            t.launch(&b)?;
            let all = inside(t, &b)?;
            check!(is_up(device(&all, "net0")?) && is_up(device(&all, "net1")?), "not up: {all}");
            as_before(device(&all, "net0")?)
        })
        .crun("looks for a device of the template's name, as a24"),
        case("netdev/a-number-that-is-taken", |t| {
            own_network()?;
            // The next namespace has devices of the same numbers.
            let first = t.bundle()?.set("/linux/netDevices", json!({"other": {}})).probe("forever");
            t.launch(&first)?;
            let path = format!("/proc/{}/ns/net", t.pid(&first)?);
            let b =
                t.bundle()?.namespace("network", Some(&path)).set("/linux/netDevices", json!({"one": null}));
            t.launch(&b.clone().probe("forever"))?;
            as_before(device(&inside(t, &b)?, "one")?)
        })
        .crun("says nothing of a value that is null"),
        case("netdev/a-dummy-and-a-tap", |t| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            ip("tuntap add mode tap name tap7").map_err(|_| Trouble::NotRun("no tap devices here".into()))?;
            ip("addr add 10.1.2.3/32 dev tap7")?;
            let dummy = ip("link add dummy7 type dummy").is_ok();
            let mut b = t.bundle()?.set("/linux/netDevices/tap7", json!({})).probe("forever");
            if dummy {
                ip("addr add 169.254.169.13/32 dev dummy7")?;
                b = b.set("/linux/netDevices/dummy7", json!({"name": "ctr_dummy7"}));
            }
            t.launch(&b)?;
            let all = inside(t, &b)?;
            same("tap's address", &addresses(device(&all, "tap7")?)[0]["local"], "10.1.2.3")?;
            if dummy {
                same("dummy's", &addresses(device(&all, "ctr_dummy7")?)[0]["local"], "169.254.169.13")?;
            }
            Ok(())
        }),
        case("netdev/into-a-user-namespace", |t| {
            own_network()?;
            let b =
                t.bundle()?.user_namespace().set("/linux/netDevices", json!({"one": {}})).probe("forever");
            t.launch(&b)?;
            as_before(device(&inside(t, &b)?, "one")?)
        }),
    ]
}

fn refusals() -> Vec<Case> {
    vec![
        case("netdev/returned-after-a-failure", |t| {
            own_network()?;
            let before = ip("-j addr show dev one")?;
            let b = t.bundle()?.set("/linux/netDevices", json!({"one": {"name": "eth0"}, "other": {}}));
            t.run(&b.args(&["/nothing"]))?.refuses(&["/nothing"])?;
            let (before, after): (Value, Value) =
                (serde_json::from_str(&before)?, serde_json::from_str(&ip("-j addr show dev one")?)?);
            as_before(&after[0])?;
            same("label", &addresses(&after[0])[0]["label"], &addresses(&before[0])[0]["label"])?;
            let other: Value = serde_json::from_str(&ip("-j addr show dev other")?)?;
            check!(is_up(&other[0]), "the other one is not up any more");
            Ok(())
        })
        .crun("the devices go with the namespace"),
        case("netdev/a-name-that-is-taken", |t| {
            own_network()?;
            let b = t.bundle()?.set("/linux/netDevices", json!({"one": {"name": "lo"}}));
            t.run(&b)?.refuses(&["/linux/netDevices/one", "lo", "exists"])?;
            as_before(&serde_json::from_str::<Value>(&ip("-j addr show dev one")?)?[0])
        })
        .crun("does not name the device"),
        case("netdev/no-such-device", |t| {
            own_network()?;
            let b = t.bundle()?.set("/linux/netDevices", json!({"one": {}, "zero": {}}));
            t.run(&b)?.refuses(&["zero"])?;
            as_before(&serde_json::from_str::<Value>(&ip("-j addr show dev one")?)?[0])
        })
        .crun("the first one is gone"),
        case("netdev/without-a-network-namespace", |t| {
            own_network()?;
            let b = t.bundle()?.without_namespace("network").set("/linux/netDevices", json!({"one": {}}));
            t.run(&b)?.refuses(&["without a NET namespace|network namespace"])?;
            as_before(&serde_json::from_str::<Value>(&ip("-j addr show dev one")?)?[0])
        })
        .crun("takes it"),
        case("netdev/names-that-no-device-can-have", |t| {
            for name in ["a/b", "a b", "sixteen-letters-x", ".", "%x", "a%d%d"] {
                let b = t.bundle()?.set("/linux/netDevices", json!({"one": {"name": name}}));
                t.run(&b)?.refuses(&["/linux/netDevices/one/name"])?;
            }
            let b = t.bundle()?.set("/linux/netDevices", json!({"one": {"name": "x"}, "two": {"name": "x"}}));
            t.run(&b)?.refuses(&["/linux/netDevices/two/name", "one"]).map(drop)
        })
        .crun("leaves it to the kernel"),
    ]
}
