// SPDX-License-Identifier: Apache-2.0
//! Every profile that is refused, with the words and the place; and what the values that are not rules come to.

use corten::error::Kind;
use corten::seccomp::{
    Host, Listener, compile, compile_for, known_actions, known_archs, known_flags, known_operators,
};
use corten::spec::{Seccomp, Syscall, SyscallArg};

use crate::bpf::{Call, verdict};
use crate::{compile_json, profile};

/// Profile, place, words.
const REFUSED: &[(&str, &str, &str)] = &[
    (r#"{"defaultAction":"ALLOW"}"#, "defaultAction", "string ALLOW is not a valid action for seccomp"),
    (r#"{"syscalls":[{}]}"#, "defaultAction", "string  is not a valid action for seccomp"),
    (
        r#"{"defaultAction":"SCMP_ACT_NOTIFY","listenerPath":"/a"}"#,
        "defaultAction",
        "SCMP_ACT_NOTIFY cannot be used as default action",
    ),
    (
        r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":1}"#,
        "defaultErrnoRet",
        "SCMP_ACT_ALLOW cannot carry an errno",
    ),
    (
        r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":65536}"#,
        "defaultErrnoRet",
        "65536 does not fit into 16 bits",
    ),
    (
        r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86","SCMP_ARCH_VAX"]}"#,
        "architectures/1",
        "string SCMP_ARCH_VAX is not a valid arch for seccomp",
    ),
    (
        r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_FAST"]}"#,
        "flags/1",
        "seccomp flag SECCOMP_FILTER_FLAG_FAST is not known",
    ),
    (
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_LOG"},{"names":["read"]}]}"#,
        "syscalls/1/action",
        "string  is not a valid action for seccomp",
    ),
    (
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_LOG","errnoRet":0}]}"#,
        "syscalls/0/errnoRet",
        "SCMP_ACT_LOG cannot carry an errno",
    ),
    (
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_TRACE","errnoRet":70000}]}"#,
        "syscalls/0/errnoRet",
        "70000 does not fit into 16 bits",
    ),
    (
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read",""],"action":"SCMP_ACT_LOG"}]}"#,
        "syscalls/0/names/1",
        "empty string is not a valid syscall",
    ),
    (
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_LOG",
            "args":[{"index":0,"op":"SCMP_CMP_EQ"},{"index":1,"op":"EQ"}]}]}"#,
        "syscalls/0/args/1/op",
        "string EQ is not a valid operator for seccomp",
    ),
    (
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_LOG",
            "args":[{"index":6,"op":"SCMP_CMP_EQ"}]}]}"#,
        "syscalls/0/args/0/index",
        "a system call has 6 arguments",
    ),
    (
        r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/a","syscalls":[{"names":["read","write"],"action":"SCMP_ACT_NOTIFY"}]}"#,
        "syscalls/0/names/1",
        "SCMP_ACT_NOTIFY cannot be used for the write syscall",
    ),
    (
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]}"#,
        "listenerPath",
        "not set, but a rule has SCMP_ACT_NOTIFY",
    ),
    (
        r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerMetadata":"x"}"#,
        "listenerMetadata",
        "set without listenerPath",
    ),
];

#[test]
fn errors_name_their_place() {
    for (json, at, words) in REFUSED {
        let error = compile(&profile(json)).expect_err(json);
        let (said, want) = (error.to_string(), format!("config.json /linux/seccomp/{at}: {words}"));
        // What to do may follow.
        assert!(said == want || said.starts_with(&format!("{want}; ")), "{json}: {said}");
        assert_eq!(error.kind(), Kind::Invalid, "{json}");
    }
}

#[test]
fn more_than_the_kernel_takes_is_refused() {
    let rule = |value| Syscall {
        names: vec!["read".into()],
        action: "SCMP_ACT_LOG".into(),
        args: vec![SyscallArg { index: 0, value, value_two: value << 32, op: "SCMP_CMP_MASKED_EQ".into() }],
        ..Syscall::default()
    };
    let syscalls = (1..900).map(|value| rule(value << 32 | value)).collect();
    let profile = Seccomp { default_action: "SCMP_ACT_ALLOW".into(), syscalls, ..Seccomp::default() };
    let error = compile_for(Host::X86_64, &profile).unwrap_err().to_string();
    let words = error.strip_prefix("config.json /linux/seccomp: the filter has ").expect(&error);
    assert!(words.ends_with(" instructions, the kernel takes 4096"), "{error}");
}

#[test]
fn nothing_asked_for_is_no_filter() {
    for json in
        ["{}", r#"{"flags":["?"],"architectures":["?"],"listenerMetadata":"x"}"#, r#"{"syscalls":[]}"#]
    {
        assert_eq!(compile(&profile(json)).unwrap(), None, "{json}");
    }
}

#[test]
fn flags() {
    let notify = r#","listenerPath":"/run/agent","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]"#;
    let all = r#","flags":["SECCOMP_FILTER_FLAG_TSYNC","SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]"#;
    for (flags, listener, expected) in [
        ("", "", 0b100),
        (r#","flags":[]"#, "", 0),
        (r#","flags":["SECCOMP_FILTER_FLAG_TSYNC"]"#, "", 0b1),
        (r#","flags":["SECCOMP_FILTER_FLAG_LOG"]"#, "", 0b10),
        // WAIT_KILLABLE_RECV means nothing without a listener, and the kernel refuses it.
        (all, "", 0b111),
        ("", notify, 0b1100),
        (r#","flags":[]"#, notify, 0b1000),
        // The kernel wants TSYNC_ESRCH when there are TSYNC and a listener.
        (all, notify, 0b11_1111),
    ] {
        let json = format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW"{flags}{listener}}}"#);
        assert_eq!(compile_json(&json).flags, expected, "{json}");
    }
}

#[test]
fn the_listener_is_there_when_a_rule_notifies() {
    let head = r#""defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/run/agent""#;
    let listener = |metadata: &str| Some(Listener { path: "/run/agent".into(), metadata: metadata.into() });
    for (rest, expected) in [
        ("", None),
        (r#","listenerMetadata":"m""#, None),
        (r#","syscalls":[{"names":[],"action":"SCMP_ACT_NOTIFY"}]"#, None),
        (r#","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]"#, listener("")),
        (r#","syscalls":[{"names":["no such call"],"action":"SCMP_ACT_NOTIFY"}]"#, listener("")),
        (
            r#","listenerMetadata":"m","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]"#,
            listener("m"),
        ),
    ] {
        assert_eq!(compile_json(&format!("{{{head}{rest}}}")).listener, expected, "{rest}");
    }
}

#[test]
fn unknown_names_are_skipped_and_reported_once() {
    let filter = compile_json(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["nosuch","read","s390_runtime_instr"],"action":"SCMP_ACT_LOG"},
            {"names":["other","nosuch"],"action":"SCMP_ACT_TRAP"}]}"#,
    );
    assert_eq!(filter.unknown, ["nosuch", "other"]);
    assert_eq!(verdict(&filter.insns, &Call { arch: 0xc000_003e, nr: 0, args: [0; 6] }), 0x7ffc_0000);
}

#[test]
fn actions_and_their_data() {
    for (action, errno, expected) in [
        ("SCMP_ACT_KILL", None, 0),
        ("SCMP_ACT_KILL_THREAD", None, 0),
        ("SCMP_ACT_KILL_PROCESS", None, 0x8000_0000),
        ("SCMP_ACT_TRAP", None, 0x0003_0000),
        ("SCMP_ACT_ERRNO", None, 0x0005_0001),
        ("SCMP_ACT_ERRNO", Some(0), 0x0005_0000),
        ("SCMP_ACT_ERRNO", Some(65535), 0x0005_ffff),
        ("SCMP_ACT_TRACE", None, 0x7ff0_0001),
        ("SCMP_ACT_TRACE", Some(9), 0x7ff0_0009),
        ("SCMP_ACT_LOG", None, 0x7ffc_0000),
        ("SCMP_ACT_ALLOW", None, 0x7fff_0000),
    ] {
        let profile =
            Seccomp { default_action: action.into(), default_errno_ret: errno, ..Seccomp::default() };
        let filter = compile_for(Host::X86_64, &profile).unwrap().unwrap();
        let ask = |arch, nr| verdict(&filter.insns, &Call { arch, nr, args: [0; 6] });
        assert_eq!(ask(0xc000_003e, 0), expected, "{action} {errno:?}");
        // A tracer's way to have no call made; x32, i386 and what else is not listed.
        assert_eq!(ask(0xc000_003e, u32::MAX), expected, "{action} {errno:?}");
        assert_eq!(ask(0xc000_003e, 0x4000_0000), 0);
        assert_eq!(ask(0x4000_0003, 0), 0);
        assert_eq!(ask(0xc000_00b7, 0), 0);
    }
}

#[test]
fn x32_does_not_slip_past_a_list_of_what_is_forbidden() {
    let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["getpid","execve"],"action":"SCMP_ACT_ERRNO"}]"#;
    let ask = |filter: &corten::seccomp::Filter, nr| {
        verdict(&filter.insns, &Call { arch: 0xc000_003e, nr, args: [0; 6] })
    };
    let without = compile_json(&format!("{json}}}"));
    assert_eq!(ask(&without, 0x4000_0000 + 39), 0);
    assert_eq!(ask(&without, 0x4000_0000 + 520), 0);
    let with = compile_json(&format!(r#"{json},"architectures":["SCMP_ARCH_X32"]}}"#));
    assert_eq!(ask(&with, 39), 0x0005_0001);
    assert_eq!(ask(&with, 0x4000_0000 + 39), 0x0005_0001);
    assert_eq!(ask(&with, 0x4000_0000 + 520), 0x0005_0001);
    assert_eq!(ask(&with, 0x4000_0000 + 59), 0x7fff_0000);
    assert_eq!(ask(&with, 0x4000_0000), 0x7fff_0000);
}

#[test]
fn what_the_author_cannot_have_known_fails_with_enosys() {
    let ask = |default: &str, names: &str, nr| {
        let json = format!(
            r#"{{"defaultAction":"{default}","syscalls":[{{"names":[{names}],"action":"SCMP_ACT_TRAP"}}]}}"#
        );
        verdict(&compile_json(&json).insns, &Call { arch: 0xc000_003e, nr, args: [0; 6] })
    };
    const ENOSYS: u32 = 0x0005_0026;
    for default in ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS"] {
        let own = ask(default, r#""faccessat2""#, 1);
        assert_ne!(own, ENOSYS);
        assert_eq!(ask(default, r#""faccessat2""#, 440), ENOSYS, "above the highest named (439)");
        assert_eq!(ask(default, r#""faccessat2""#, 400), ENOSYS, "a hole below it");
        assert_eq!(ask(default, r#""faccessat2""#, 438), own, "a call that is merely not named");
        assert_eq!(ask(default, r#""waitpid""#, 440), own, "no name of this ABI at all");
    }
    for default in ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"] {
        assert_eq!(ask(default, r#""faccessat2""#, 440), ask(default, r#""faccessat2""#, 1), "{default}");
    }
}

#[test]
fn known_values_are_complete_and_sorted() {
    for (list, count) in
        [(known_actions(), 9), (known_operators(), 7), (known_archs(), 23), (known_flags(), 4)]
    {
        assert_eq!(list.len(), count);
        assert!(list.is_sorted_by(|a, b| a < b), "{list:?}");
    }
    let archs = known_archs().iter().map(|arch| (*arch).to_owned()).collect();
    let profile =
        Seccomp { default_action: "SCMP_ACT_ALLOW".into(), architectures: archs, ..Seccomp::default() };
    for host in [Host::X86_64, Host::Aarch64, Host::Riscv64] {
        assert!(compile_for(host, &profile).unwrap().is_some());
    }
}

#[test]
fn a_contradiction_matters_only_where_the_call_exists() {
    let rule = |action| {
        format!(
            r#"{{"names":["waitpid"],"action":"{action}","args":[{{"index":0,"value":1,"op":"SCMP_CMP_EQ"}}]}}"#
        )
    };
    let rules = [rule("SCMP_ACT_LOG"), rule("SCMP_ACT_TRAP")].join(",");
    let json = |arch| {
        format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","architectures":["{arch}"],"syscalls":[{rules}]}}"#)
    };
    assert!(compile_for(Host::X86_64, &profile(&json("SCMP_ARCH_X32"))).is_ok());
    let error = compile_for(Host::X86_64, &profile(&json("SCMP_ARCH_X86"))).unwrap_err();
    let text =
        "config.json /linux/seccomp/syscalls/1: contradicts an earlier rule for waitpid (SCMP_ARCH_X86)";
    assert_eq!(error.to_string(), text);
}

#[test]
fn of_contradicting_rules_for_a_multiplexed_call_the_stricter_stands() {
    let rule = |action, value| {
        format!(
            r#"{{"names":["socket"],"action":"{action}","args":[{{"index":0,"value":{value},"op":"SCMP_CMP_EQ"}}]}}"#
        )
    };
    let rules = [rule("SCMP_ACT_ALLOW", 1), rule("SCMP_ACT_TRAP", 38), rule("SCMP_ACT_LOG", 2)].join(",");
    let filter = compile_json(&format!(
        r#"{{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86"],"syscalls":[{rules}]}}"#
    ));
    let ask = |nr, arg| verdict(&filter.insns, &Call { arch: 0x4000_0003, nr, args: [arg, 0, 0, 0, 0, 0] });
    assert_eq!(ask(359, 1), 0x7fff_0000);
    assert_eq!(ask(359, 38), 0x0003_0000);
    assert_eq!(ask(102, 1), 0x0003_0000, "socketcall(SYS_SOCKET)");
    assert_eq!(ask(102, 2), 0x0005_0001, "socketcall(SYS_BIND)");
}
