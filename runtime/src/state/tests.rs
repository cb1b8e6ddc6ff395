// SPDX-License-Identifier: Apache-2.0
//! What may be read from a state.json, and what may not.

#![forbid(unsafe_code)]

use super::*;

#[test]
fn dates_are_those_of_the_calendar() {
    for (seconds, date) in [
        (0, "1970-01-01T00:00:00.000000007Z"),
        (951_782_399, "2000-02-28T23:59:59.000000007Z"),
        (951_782_400, "2000-02-29T00:00:00.000000007Z"),
        (1_798_761_599, "2026-12-31T23:59:59.000000007Z"),
        (4_107_542_400, "2100-03-01T00:00:00.000000007Z"),
    ] {
        assert_eq!(rfc3339(seconds, 7), date);
    }
}

/// What 0.1.0 wrote is read; the fields that it had are not asked for anew.
#[test]
fn a_record_of_0_1_0() {
    let state =
        State::read(include_bytes!("../../../spec-tests/state-records/0.1.0/of-0.1.0/state.json")).unwrap();
    assert_eq!((state.id.as_str(), state.owner, state.process), ("of-0.1.0", 0, true));
    assert_eq!(state.annotations["org.example.kept"], "yes");
    assert_eq!(
        state.resources.and_then(|resources| resources.memory?.limit),
        Some(33_554_432),
        "as update left it"
    );
    assert_eq!(state.init.map(|init| init.pid), Some(39));
}

/// Found by the fuzzer and by review: what none of these may be believed to be.
#[test]
fn states_that_nobody_wrote_are_refused() {
    let good = r#"{"version":1,"id":"box","bundle":"/b","rootfs":"/r","created":"","owner":0,"keepFds":2,"listenFds":1,
        "cgroup":{"version":"v2","id":"box","groups":[{"mount":"/sys/fs/cgroup","path":"/box"}]},
        "init":{"pid":7,"inode":1,"startTime":0,"bootId":"x"}}"#;
    assert!(State::read(good.as_bytes()).is_ok());
    for (from, to, field) in [
        ("\"version\":1", "\"version\":2", "/version"),
        ("\"id\":\"box\",\"bundle", "\"id\":\"../x\",\"bundle", "/id"),
        ("\"pid\":7", "\"pid\":-1", "/init/pid"),
        ("\"pid\":7", "\"pid\":0", "/init/pid"),
        // keep_fds - listen_fds is taken by `start`.
        ("\"listenFds\":1", "\"listenFds\":3", "/listenFds"),
        // No group at all was a panic of `kill` and `exec`; others would be emptied and removed.
        ("[{\"mount\":\"/sys/fs/cgroup\",\"path\":\"/box\"}]", "[]", "/cgroup"),
        ("\"path\":\"/box\"", "\"path\":\"/\"", "/cgroup"),
        ("\"path\":\"/box\"", "\"path\":\"/../../../home\"", "/cgroup"),
        ("\"path\":\"/box\"", "\"path\":\"box\"", "/cgroup"),
        ("\"mount\":\"/sys/fs/cgroup\"", "\"mount\":\"\"", "/cgroup"),
    ] {
        assert!(good.contains(from), "{from}");
        let error = State::read(good.replace(from, to).as_bytes()).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{field}: ")), "{to}: {error}");
    }
}

#[test]
fn a_hook_reads_the_state_as_json() {
    let annotations = BTreeMap::from([("a\"b".to_owned(), "c\nd".to_owned())]);
    let (before, after) = hook_state("id", "creating", Path::new("/b \"x\""), &annotations);
    let state: serde_json::Value = serde_json::from_str(&format!("{before}42{after}")).unwrap();
    assert_eq!(state["pid"], 42);
    assert_eq!(state["status"], "creating");
    assert_eq!(state["bundle"], "/b \"x\"");
    assert_eq!(state["annotations"]["a\"b"], "c\nd");
}
