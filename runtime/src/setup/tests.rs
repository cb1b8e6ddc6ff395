// SPDX-License-Identifier: Apache-2.0
//! Configurations as people have them. Of each: what setup writes is taken out again to the byte, also after edits elsewhere; called
//! again it changes nothing; and what is in the way is refused.

use super::*;

const CRI: &str = "io.containerd.grpc.v1.cri";

fn host() -> SetupHost {
    SetupHost {
        corten: "/usr/bin/corten".into(),
        shim: "/usr/bin/containerd-shim-corten-v2".into(),
        has_containerd: true,
        containerd: Some((1, 7)),
        docker: Some((28, 5)),
        docker_by_type: true,
        ..SetupHost::default()
    }
}

fn set(engine: SetupEngine, text: Option<&str>, default: bool, host: &SetupHost) -> Result<String, String> {
    let ask = SetupAsk { engine, default, undo: false, config: None };
    let file = SetupFile { path: "/nowhere/config".into(), text: text.map(str::to_owned) };
    set_up(&ask, &file, host)
}

/// A file in pieces of its own, behind and before ours.
fn others(engine: SetupEngine) -> (&'static str, &'static str) {
    match engine {
        SetupEngine::Docker => ("", ""),
        _ => ("# mine\n", "\n[debug]\n  level = \"debug\" # mine\n"),
    }
}

/// All that is promised of a text.
fn holds(engine: SetupEngine, text: Option<&str>) {
    for default in [false, true] {
        let Ok(after) = set(engine, text, default, &host()) else { continue };
        let name = format!("{engine:?} {default} {text:?} -> {after}");
        match take_out(engine, &after) {
            // It was so before, and no engine would start.
            Err(said) if said.contains("change it first") => continue,
            back => assert_eq!(back.unwrap().as_deref(), text, "{name}"),
        }
        assert_eq!(set(engine, Some(&after), default, &host()).as_ref(), Ok(&after), "{name}");
        // What is the default stays it.
        assert_eq!(set(engine, Some(&after), false, &host()).as_ref(), Ok(&after), "{name}");
        let both = set(engine, Some(&after), true, &host());
        if let Ok(both) = both {
            assert_eq!(take_out(engine, &both).unwrap().as_deref(), text, "{name}");
        }
        let (before, behind) = others(engine);
        let edited = format!("{before}{after}{behind}");
        if text.is_some() && engine != SetupEngine::Docker {
            // What is added is of the version that setup has given a file that said nothing.
            let said = toml::read(text.unwrap_or_default()).unwrap();
            let version =
                if said.is_empty() && engine == SetupEngine::Containerd { "version = 2\n" } else { "" };
            let wanted = format!("{version}{before}{}{behind}", text.unwrap_or_default());
            // A line without an end gets one from whoever writes below it.
            let lines = |text: &str| {
                text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
            };
            let back = take_out(engine, &edited).unwrap().unwrap_or_default();
            assert_eq!(lines(&back), lines(&wanted), "{name}");
            assert_eq!(set(engine, Some(&edited), default, &host()).as_ref(), Ok(&edited), "{name}");
        }
    }
}

fn containerds() -> Vec<Option<String>> {
    let header = format!("[plugins.\"{CRI}\".containerd]");
    let mut all = vec![None];
    let texts = [
        String::new(),
        "\n\n".into(),
        "# nothing yet".into(),
        "version = 2\n".into(),
        "version = 2".into(),
        "version = 1\nroot = \"/x\"\n".into(),
        "root = \"/x\"\n".into(),
        format!("version = 2\n\n[plugins]\n  [plugins.\"{CRI}\"]\n    [plugins.\"{CRI}\".cni]\n      bin_dir = \"/usr/lib/cni\"\n"),
        format!("version = 2\n{header}\n  default_runtime_name = \"runc\" # as ever\n  snapshotter = 'overlayfs'\n"),
        format!("version = 2\n{header}\n  default_runtime_name = \"runc\""),
        format!("version = 2\n{header}"),
        format!("version = 2\n  {header} # here\n\n  [plugins.\"{CRI}\".containerd.runtimes.runc]\n    runtime_type = 'io.containerd.runc.v2'\n"),
        "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\n  enable_selinux = false\n  [plugins.'io.containerd.cri.v1.runtime'.containerd]\n      default_runtime_name = 'runc'\n      ignore_blockio_not_enabled_errors = false\n".into(),
        "version = 4\nroot = '/var/lib/containerd'\n# the end, without one".into(),
    ];
    all.extend(texts.iter().cloned().map(Some));
    all.extend(texts.iter().map(|text| Some(text.replace('\n', "\r\n"))));
    all
}

const DOCKERS: [Option<&str>; 14] = [
    None,
    Some(""),
    Some(" \n"),
    Some("{}"),
    Some("{}\n"),
    Some("{ }"),
    Some("{\n}\n"),
    Some("{\"debug\": true}"),
    Some("{\n  \"debug\": true,\n  \"unknown\": [1.50, {\"a\": \"}\\\"\"}]\n}\n"),
    Some("{\r\n\t\"runtimes\" : { } ,\r\n\t\"debug\": false\r\n}\r\n"),
    Some("{\n    \"default-runtime\": \"runc\"\n}"),
    Some("{\"runtimes\": {}, \"default-runtime\" : \"nvidia\"}"),
    Some(
        "{\"runtimes\":{\"nvidia\":{\"path\":\"nvidia-container-runtime\",\"args\":[]}},\"default-runtime\":\"nvidia\"}",
    ),
    Some("{\n  \"runtimes\": {\n    \"a\": {\n      \"path\": \"/a\"\n    }\n  }\n}\n"),
];

const PODMANS: [Option<&str>; 5] = [
    None,
    Some(""),
    Some("[containers]\nnetns = \"none\"\n"),
    Some("[engine]\nruntime = \"crun\"\n\n[engine.runtimes]\nkata = [\n  \"/usr/bin/kata\",\n]"),
    Some("[engine.runtimes]\r\n# none\r\n[engine]\r\nruntime_supports_json = [\"crun\"] # few\r\n"),
];

#[test]
fn every_way_there_is_one_back() {
    for text in containerds() {
        assert!(set(SetupEngine::Containerd, text.as_deref(), true, &host()).is_ok(), "{text:?}");
        holds(SetupEngine::Containerd, text.as_deref());
    }
    for text in DOCKERS {
        assert!(set(SetupEngine::Docker, text, true, &host()).is_ok(), "{text:?}");
        holds(SetupEngine::Docker, text);
    }
    for text in PODMANS {
        assert!(set(SetupEngine::Podman, text, true, &host()).is_ok(), "{text:?}");
        holds(SetupEngine::Podman, text);
    }
}

/// Whatever stands in a file: it is refused, or all that is promised holds.
#[test]
fn of_whatever_stands_there() {
    let pieces = [
        "version = 2\n",
        "version = 3\n",
        "\n",
        "# c\n",
        "# c",
        "\r\n",
        "root = '/x'\n",
        "[plugins]\n",
        "plugins = {}\n",
        "[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n",
        "[plugins.\"io.containerd.cri.v1.runtime\".containerd]",
        "[plugins.cri.containerd]\r\n",
        "  default_runtime_name = \"runc\"\n",
        "containerd.default_runtime_name = 'x'\n",
        "[plugins.\"io.containerd.grpc.v1.cri\"]\n",
        "[engine]\n",
        "runtime = \"crun\"\n",
        "[engine.runtimes]\n",
        "corten = [\"/x\"]\n",
        "a = \"\"\"\n# corten setup: end\n\"\"\"\n",
        "# corten setup: begin 00000000\n",
        "# corten setup: end\n",
        "runtime_supports_json = [\n  \"a\",\n]\n",
        "[[plugins]]\n",
        "b = {c = 1}\n",
    ];
    let jsons = [
        "{",
        "}",
        ",",
        ":",
        "\"runtimes\"",
        "\"default-runtime\"",
        "\"corten\"",
        "{}",
        "\"x\"",
        " ",
        "\n",
        "1",
        "null",
        "[",
        "]",
        "\"runtimes\": {",
        "\"corten\": {",
        "\"path\": \"/usr/bin/corten\"",
        "\"a\": 1,",
        "\"default-runtime\": \"x\"",
    ];
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed >> 33) as usize % below
    };
    for _ in 0..4_000 {
        let text: String = (0..next(9)).map(|_| pieces[next(pieces.len())]).collect();
        holds(SetupEngine::Containerd, Some(&text));
        holds(SetupEngine::Podman, Some(&text));
        let text: String = (0..next(12)).map(|_| jsons[next(jsons.len())]).collect();
        holds(SetupEngine::Docker, Some(&text));
        holds(SetupEngine::Docker, Some(&format!("{{{text}}}")));
    }
}

#[test]
fn containerds_lines_are_those_of_the_pages() {
    let text = |text, default, host: &SetupHost| set(SetupEngine::Containerd, text, default, host).unwrap();
    assert_eq!(
        text(None, false, &host()),
        "# corten setup: begin d8b2b2ad, a file of its own\nversion = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.corten]\nruntime_type = \"io.containerd.corten.v2\"\n# corten setup: end\n"
    );
    let three =
        "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd]\n  default_runtime_name = 'runc'\n";
    assert_eq!(
        text(Some(three), true, &host()),
        "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd]\n# corten setup: begin 704dd001, instead of the next line\n#  default_runtime_name = 'runc'\n  default_runtime_name = \"corten\"\n# corten setup: end\n# corten setup: begin fa75b5cc\n[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.corten]\nruntime_type = \"io.containerd.corten.v2\"\n# corten setup: end\n"
    );
    // 2.0 to 2.2 tell a kubelet of features by path alone, and of the driver by runc's options.
    let by_path = SetupHost { containerd: Some((2, 1)), kubelet_systemd: true, ..host() };
    let after = text(Some("version = 3\n"), false, &by_path);
    for line in [
        "runtime_type = \"io.containerd.runc.v2\"\nruntime_path = \"/usr/bin/containerd-shim-corten-v2\"\n\n[",
        "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.corten.options]\nSystemdCgroup = true\n",
    ] {
        assert!(after.contains(line), "{after}");
    }
    assert!(
        text(Some("version = 1\n"), false, &host()).contains("[plugins.cri.containerd.runtimes.corten]\n")
    );
    // Another containerd has come meanwhile.
    let newer = text(Some(&after), false, &SetupHost { containerd: Some((2, 3)), ..host() });
    assert!(newer.contains("io.containerd.corten.v2") && !newer.contains("runtime_path"), "{newer}");
    assert_eq!(take_out(SetupEngine::Containerd, &newer), Ok(Some("version = 3\n".into())));
    // Of a file of our own that somebody has written into, the version stays.
    let own = text(None, true, &host()) + "[debug]\nlevel = \"debug\"\n";
    assert_eq!(text(Some(&own), true, &host()), own);
    let rest = take_out(SetupEngine::Containerd, &own).unwrap().unwrap();
    assert_eq!(rest, "version = 2\n[debug]\nlevel = \"debug\"\n");
}

#[test]
fn dockers_and_podmans_lines_are_those_of_the_pages() {
    let docker = |text, default, host: &SetupHost| set(SetupEngine::Docker, text, default, host).unwrap();
    let by_type = docker(None, true, &host());
    let said: serde_json::Value = serde_json::from_str(&by_type).unwrap();
    assert_eq!(said["runtimes"]["corten"]["runtimeType"], "io.containerd.corten.v2", "{by_type}");
    assert_eq!(said["default-runtime"], "corten", "{by_type}");
    let old = SetupHost { docker: Some((20, 10)), docker_by_type: false, ..host() };
    let by_path = docker(Some("{}"), false, &old);
    assert_eq!(
        by_path,
        "{\n  \"runtimes\": {\"corten\": {\"corten-setup\": {\"made\": \"runtimes\"}, \"path\": \"/usr/bin/corten\"}}\n}"
    );
    // A formatter has been at work, and another runtime was added.
    let mut said: serde_json::Value = serde_json::from_str(&docker(DOCKERS[11], true, &host())).unwrap();
    said["runtimes"]["b"] = serde_json::json!({"path": "/b"});
    let rest = take_out(SetupEngine::Docker, &serde_json::to_string_pretty(&said).unwrap()).unwrap().unwrap();
    let rest: serde_json::Value = serde_json::from_str(&rest).unwrap();
    assert_eq!(rest, serde_json::json!({"runtimes": {"b": {"path": "/b"}}, "default-runtime": "nvidia"}));
    let podman = set(SetupEngine::Podman, None, true, &host()).unwrap();
    let lines = "[engine]\nruntime = \"corten\"\nruntime_supports_nocgroup = [\"crun\", \"krun\", \"corten\"]\nruntime_supports_json = [\"crun\", \"runc\", \"kata\", \"runsc\", \"youki\", \"krun\", \"corten\"]\n\n[engine.runtimes]\ncorten = [\"/usr/bin/corten\"]\n";
    assert!(podman.contains(lines), "{podman}");
    // What another file has put into the list is not lost.
    let others =
        SetupHost { podman: toml::read("[engine]\nruntime_supports_json = [\"x\"]\n").unwrap(), ..host() };
    let podman = set(SetupEngine::Podman, None, false, &others).unwrap();
    assert!(podman.contains("runtime_supports_json = [\"x\", \"corten\"]\n"), "{podman}");
}

/// Which engine, what stands there, whether the default is asked for, and a part of what is said.
const REFUSED: [(SetupEngine, &str, bool, &str); 15] = [
    (SetupEngine::Containerd, "version = \"2\n", false, "line 1: a text does not end"),
    (SetupEngine::Containerd, "version = 5\n", false, "is not known here"),
    (
        SetupEngine::Containerd,
        "version = 2\nplugins = {}\n",
        false,
        "line 2 has an inline table; to be said by hand: [plugins.",
    ),
    (
        SetupEngine::Containerd,
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.corten]\nruntime_type = \"io.containerd.kata.v2\"\n",
        false,
        "is another runtime's; to be said by hand, under another name: runtime_type = \"io.containerd.corten.v2\"",
    ),
    (
        SetupEngine::Containerd,
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\ncontainerd.snapshotter = \"x\"\n",
        true,
        "without a header of its own; to be said by hand",
    ),
    (
        SetupEngine::Containerd,
        "version = 2\n# corten setup: begin 12345678\n",
        false,
        "a mark of corten setup without its end",
    ),
    (
        SetupEngine::Containerd,
        "# corten setup: begin 12345678\n# corten setup: end\n",
        false,
        "not as that wrote it",
    ),
    (SetupEngine::Docker, "{", false, "not JSON"),
    (SetupEngine::Docker, "[]", false, "not an object with an object runtimes"),
    (SetupEngine::Docker, r#"{"runtimes": []}"#, false, "not an object with an object runtimes"),
    (
        SetupEngine::Docker,
        r#"{"runtimes": {"corten": {"path": "/usr/bin/runc"}}}"#,
        false,
        "is another's; to be said by hand",
    ),
    (
        SetupEngine::Docker,
        r#"{"runtimes": {"corten": {"path": "/usr/bin/corten"}}}"#,
        true,
        "changes no default; to be said by hand",
    ),
    (
        SetupEngine::Docker,
        r#"{"a": 1, "runtimes": {}, "runtimes": {"b": {}}, "a": 2, "default-runtime": "\u0078"}"#,
        true,
        "told apart",
    ),
    (SetupEngine::Podman, "[engine]\nruntimes = {}\n", false, "line 2 has an inline table"),
    (
        SetupEngine::Podman,
        "[engine.runtimes]\ncorten = [\"/bin/false\"]\n",
        false,
        "line 2 says otherwise; to be said by hand: [engine.runtimes] corten = [\"/usr/bin/corten\"]",
    ),
];

#[test]
fn what_is_in_the_way_is_told() {
    for (engine, text, default, said) in REFUSED {
        let refused = set(engine, Some(text), default, &host()).unwrap_err();
        assert!(refused.contains(said), "{text:?}: {refused}");
    }
    // By other hands: nothing to do, and nothing to take back.
    for (engine, text) in [
        (SetupEngine::Docker, r#"{"runtimes": {"corten": {"runtimeType": "io.containerd.corten.v2"}}}"#),
        (
            SetupEngine::Containerd,
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.corten]\n  runtime_type = \"io.containerd.corten.v2\"\n",
        ),
    ] {
        assert_eq!(set(engine, Some(text), false, &host()), Ok(text.to_owned()));
        assert_eq!(take_out(engine, text), Ok(Some(text.to_owned())));
    }
}

/// What would leave an engine that does not start, or somebody's lines in another table, is not taken back.
#[test]
fn what_hangs_on_it_stays_and_is_told() {
    let handler = set(SetupEngine::Containerd, Some("version = 2\n"), false, &host()).unwrap();
    let below = format!("{handler}privileged_without_host_devices = true\n");
    assert!(take_out(SetupEngine::Containerd, &below).unwrap_err().contains("take it out by hand first"));
    let default = format!("{handler}[plugins.\"{CRI}\".containerd]\ndefault_runtime_name = \"corten\"\n");
    assert!(
        take_out(SetupEngine::Containerd, &default).unwrap_err().contains("is not setup's: change it first")
    );
    let inside = handler.replace("corten.v2", "other.v2");
    assert!(take_out(SetupEngine::Containerd, &inside).unwrap_err().contains("not as that wrote it"));
    let docker = set(SetupEngine::Docker, Some("{\"debug\": true}"), false, &host()).unwrap();
    let default = docker.replace("\"debug\": true", "\"default-runtime\": \"corten\"");
    assert!(take_out(SetupEngine::Docker, &default).unwrap_err().contains("change it first"));
}
