// SPDX-License-Identifier: Apache-2.0
//! state.json with the control group's record: what is believed of it may kill processes and remove directories.

use corten::cgroup::Version;
use corten::state::{State, hook_state};

use crate::holds;
use crate::mutate::Shape;
use crate::targets::Target;

pub const TARGET: Target = Target { name: "state", shape: Shape::Json, seeds, run, short: 6000 };

fn run(input: &[u8]) -> bool {
    let Some((_, json)) = input.split_first() else { return false };
    let state = match State::read(json) {
        Ok(state) => state,
        Err(error) => {
            holds::one_line(&error.to_string());
            return false;
        }
    };
    corten::state::check_id(&state.id).unwrap();
    if let Some(init) = &state.init {
        assert!(init.pid > 0, "{init:?}");
    }
    let record = &state.cgroup;
    match record.version {
        Version::None => assert!(record.groups.is_empty()),
        Version::V1 => assert!(!record.groups.is_empty()),
        Version::V2 => assert_eq!(record.groups.len(), 1),
    }
    for group in &record.groups {
        let path = group.full();
        assert!(group.mount.starts_with('/') && group.path.starts_with('/') && group.path != "/");
        assert!(path.len() > group.mount.len() && !path.contains('\0'), "{path:?}");
        assert!(path.split('/').skip(1).all(|part| !["", ".", ".."].contains(&part)), "{path:?}");
    }
    let _ = (record.v2_path(), record.v1_views());
    let again = State::read(&serde_json::to_vec(&state).unwrap()).unwrap();
    assert_eq!(again, state, "written and read, it is another one");
    let (before, after) = hook_state(&state.id, "stopped", &state.bundle, &state.annotations);
    let told: serde_json::Value = serde_json::from_str(&format!("{before}1{after}")).unwrap();
    assert_eq!(told["annotations"].as_object().map_or(0, serde_json::Map::len), state.annotations.len());
    true
}

fn seeds() -> Vec<Vec<u8>> {
    let v2 = r#"{"version":1,"id":"box","bundle":"/b","rootfs":"/b/rootfs","created":"2026-11-21T00:00:00.000000000Z","owner":0,
        "annotations":{"a":"b"},"cgroup":{"version":"v2","id":"box","groups":[{"mount":"/sys/fs/cgroup","path":"/box","inode":77}]},
        "noPivot":false,"noKeyring":true,"keepFds":1,"listenFds":1,"process":true,"poststart":true,"poststop":false,
        "init":{"pid":4242,"inode":9,"startTime":0,"bootId":"x"}}"#;
    let v1 = r#"{"version":1,"id":"box","bundle":"/b","rootfs":"/r","created":"","owner":4294967295,"cgroup":{"version":"v1","id":"box",
        "groups":[{"mount":"/sys/fs/cgroup/cpu,cpuacct","path":"/a/b","controllers":["cpu","cpuacct"]},
        {"mount":"/sys/fs/cgroup/freezer","path":"/a/b","controllers":["freezer"],"inode":18446744073709551615}]},"init":null}"#;
    let none = r#"{"version":1,"id":"..x","bundle":"","rootfs":"","created":"","owner":0,"cgroup":{"version":"none","id":"","groups":[]},"init":null}"#;
    [v2, v1, none].iter().map(|text| [b"0", text.as_bytes()].concat()).collect()
}
