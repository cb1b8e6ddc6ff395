// SPDX-License-Identifier: Apache-2.0
//! Inputs that are large in one way each: works, or one clear error, within a second and in 64 MiB (unoptimised: four).

use std::time::Duration;

use corten::cgroup::Hierarchies;
use corten::facts::Facts;
use corten::program::compile;
use corten::spec::{self, Spec};
use serde_json::{Value, json};

use crate::{counters, holds, hosts};

/// A list of so many.
pub fn list(count: usize, item: impl Fn(usize) -> Value) -> Value {
    (0..count).map(item).collect()
}

/// The default configuration with the value at `pointer`.
fn large(what: &str, pointer: &str, value: Value) {
    let mut config: Value = serde_json::from_str(include_str!("../data/plan/default.json")).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    if !config.pointer(parent).is_some_and(Value::is_object) {
        let (above, name) = parent.rsplit_once('/').unwrap();
        config.pointer_mut(above).unwrap()[name] = json!({});
    }
    config.pointer_mut(parent).unwrap()[key] = value;
    measure(what, &config, &[hosts::v2(), hosts::v1()]);
}

/// How long it takes to plan and compile this on these hosts.
pub fn measure(what: &str, config: &Value, hosts: &[Facts]) -> Duration {
    let text = config.to_string();
    let mut sum = Duration::ZERO;
    for facts in hosts {
        counters::start_counting();
        let start = counters::time();
        let spec: Spec = spec::read("config.json", text.as_bytes()).unwrap();
        let outcome = match hosts::plan(&spec, facts) {
            Ok(plan) => {
                let program = compile::create(&plan, 40);
                corten::program::check::check(&program).unwrap();
                let fds: Vec<i32> = (0..program.sources.len() as i32).collect();
                format!("{} bytes", corten::program::encode::encode(&program, &fds, &[], 3).bytes.len())
            }
            Err(error) => {
                holds::one_line(&error.to_string());
                error.to_string().chars().take(100).collect()
            }
        };
        let (took, held) = (counters::time() - start, counters::most_held() >> 20);
        println!("{what}, {} KiB: {took:.1?}, {held} MiB, {outcome}", text.len() >> 10);
        assert!(
            took < Duration::from_secs(if cfg!(debug_assertions) { 12 } else { 1 }),
            "{what} took {took:?}"
        );
        assert!(held < 64, "{what} took {held} MiB");
        sum += took;
    }
    sum
}

#[test]
fn a_megabyte_of_everything() {
    const MUCH: usize = 1 << 20;
    let long = |text: &str| text.repeat(MUCH / text.len());
    large("environment", "/process/env", list(MUCH / 100, |n| json!(format!("V{n}={}", "x".repeat(90)))));
    large("the same variable", "/process/env", list(MUCH / 8, |n| json!(format!("V={n}"))));
    large("arguments", "/process/args", list(MUCH / 4, |_| json!("a")));
    large("one argument", "/process/args", json!(["/a", long("x")]));
    large(
        "PATH of slashes",
        "/process",
        json!({"cwd": "/", "args": ["x".repeat(200)], "env": [format!("PATH={}", long("/:"))]}),
    );
    large(
        "PATH",
        "/process",
        json!({"cwd": "/", "args": ["x".repeat(500_000)], "env": [format!("PATH={}", long(":"))]}),
    );
    let directories: String = (0..MUCH / 7).map(|n| format!("{n:06}:")).collect();
    large(
        "PATH of many directories",
        "/process",
        json!({"cwd": "/", "args": ["x".repeat(250)], "env": [format!("PATH={directories}")]}),
    );
    large("cwd", "/process/cwd", json!(long("/a/..")));
    large("destination", "/mounts", json!([{"destination": long("/a"), "type": "tmpfs"}]));
    large("source", "/mounts", json!([{"destination": "/a", "source": long("/a"), "options": ["bind"]}]));
    large("one option", "/mounts", json!([{"destination": "/a", "type": "tmpfs", "options": [long("a,")]}]));
    large(
        "one option of a bind",
        "/mounts",
        json!([{"destination": "/a", "source": "/", "options": ["bind", long("a,")]}]),
    );
    large("masked path", "/linux/maskedPaths", json!([long("/a")]));
    large("cgroups path", "/linux/cgroupsPath", json!(long("/a")));
    large("cpus", "/linux/resources/cpu", json!({"cpus": long("1,")}));
    large("affinity", "/process/execCPUAffinity", json!({"initial": long("0-1,"), "final": long("7,")}));
    large("hostname", "/hostname", json!(long("a")));
    large("label", "/process/selinuxLabel", json!(long("a")));
    large("annotation", "/annotations", json!({"a": long("\u{0}")}));
    large("version", "/ociVersion", json!(format!("1.0.{}", long("0."))));
}

#[test]
fn large_filters() {
    let rules = |count: usize, names: &dyn Fn(usize) -> Value| {
        json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": list(count, |n| json!({"names": names(n), "action": "SCMP_ACT_ALLOW", "args": [{"index": n % 6, "value": n, "op": "SCMP_CMP_EQ"}]}))})
    };
    large("rules for one call", "/linux/seccomp", rules(10_000, &|_| json!(["read"])));
    large("unknown names", "/linux/seccomp", rules(1, &|_| list(100_000, |n| json!(format!("call{n}")))));
    large("one name, often", "/linux/seccomp", rules(1, &|_| list(100_000, |_| json!("read"))));
    large(
        "architectures",
        "/linux/seccomp",
        json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": list(100_000, |_| json!("SCMP_ARCH_X86_64")), "syscalls": []}),
    );
    let some: Vec<&str> = vec!["read", "write", "close", "openat", "socket", "clone", "mmap", "ioctl"];
    large("rules for many calls", "/linux/seccomp", rules(2_000, &|n| json!([some[n % 8], some[n / 8 % 8]])));
}

/// Found by the fuzzer: every mount of a control group was looked up in the whole of /proc/self/cgroup.
#[test]
fn a_host_of_many_mounts_and_groups() {
    let mounts = "40 31 0:37 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    let own = "9:name=other:/\n".repeat(30_000) + "4:memory:/a\n0::/b\n";
    let start = counters::time();
    let found = Hierarchies::parse(&mounts.repeat(5_000), &own);
    let took = counters::time() - start;
    assert_eq!((found.v1[0].own.as_str(), found.v2.unwrap().own.as_str()), ("/a", "/b"));
    assert!(took < Duration::from_secs(1), "{took:?}");
}
