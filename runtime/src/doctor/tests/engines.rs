// SPDX-License-Identifier: Apache-2.0
//! Engines' configurations as people write them: right ones, and each way to be wrong.

use super::*;

const SHIM: &str = "/usr/local/bin/containerd-shim-corten-v2";
const CRI: &str = "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.corten]\n";
const OLD_CRI: &str = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.corten]\n";
const TYPE: &str = "runtime_type = \"io.containerd.corten.v2\"\n";

fn file(path: &str, text: &str) -> ConfigFile {
    ConfigFile { path: path.to_owned(), text: text.to_owned() }
}

pub(super) fn well_configured() -> EngineSigns {
    let docker = r#"{"runtimes": {"corten": {"runtimeType": "io.containerd.corten.v2"}, "by-path": {"path": "/usr/local/bin/corten"}}}"#;
    let podman = "[engine]\nruntime = \"corten\"\nruntime_supports_nocgroup = [\"crun\", \"corten\"]\n[engine.runtimes]\ncorten = [\n \"/nowhere/corten\",\n \"/usr/local/bin/corten\",\n]\n";
    EngineSigns {
        containerd: vec![vec![file("/etc/containerd/config.toml", &format!("version = 3\n{CRI}{TYPE}"))]],
        docker: Some(file("/etc/docker/daemon.json", docker)),
        podman: vec![file("/etc/containers/containers.conf", podman)],
        crio: vec![file(
            "/etc/crio/crio.conf",
            "[crio.runtime.runtimes.corten]\nruntime_path = \"/usr/local/bin/corten\"\n",
        )],
        kubelet_driver: Some("systemd".into()),
        executable: ["/usr/local/bin/corten", SHIM].map(String::from).into(),
    }
}

/// A check, how it goes, which containerd there is, and its configuration.
type Containerd = (&'static str, Health, &'static str, String);

fn containerds() -> Vec<Containerd> {
    let by_path =
        |path: &str| format!("runtime_type = \"io.containerd.runc.v2\"\nruntime_path = \"{path}\"\n");
    let three = |table: &str| format!("version = 3\n{CRI}{table}");
    let two = |table: &str| format!("version = 2\n{OLD_CRI}{table}");
    let options = "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.corten.options]\nSystemdCgroup = true\n";
    let binary = |name: &str| {
        format!(
            "runtime_type = \"io.containerd.runc.v2\"\n[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.corten.options]\nBinaryName = \"{name}\"\n"
        )
    };
    vec![
        ("containerd.config", Health::Fail, "v2.3.0", "version = \"3\n".into()),
        ("containerd.config", Health::Fail, "v1.7.1", three(TYPE)),
        ("containerd.config", Health::Fail, "v2.1.0", format!("version = 3\n{OLD_CRI}{TYPE}")),
        ("containerd.config", Health::Fail, "v1.7.1", format!("version = 2\n{CRI}{TYPE}")),
        ("containerd.config", Health::Fail, "v1.7.1", format!("{OLD_CRI}{TYPE}")),
        ("containerd.config", Health::Warn, "v1.7.1", format!("disabled_plugins = [\"cri\"]\n{}", two(TYPE))),
        ("containerd.config", Health::Ok, "v1.7.1", two(TYPE)),
        ("containerd.handler", Health::Note, "v2.3.0", "version = 3\n".into()),
        ("containerd.handler", Health::Fail, "v2.3.0", three(&by_path("/nowhere/containerd-shim-corten-v2"))),
        ("containerd.handler", Health::Fail, "v2.3.0", three("runtime_type = \"io.containerd.corten.v1\"\n")),
        ("containerd.handler", Health::Fail, "v2.3.0", three(&binary("/nowhere/corten"))),
        ("containerd.handler", Health::Fail, "v2.3.0", three(&binary(SHIM))),
        ("containerd.handler", Health::Ok, "v2.3.0", three(&binary("/usr/local/bin/corten"))),
        ("containerd.handler", Health::Warn, "v1.6.20", two(&by_path(SHIM))),
        ("containerd.handler", Health::Warn, "v1.7.1", two(&format!("{TYPE}sandboxer = \"shim\"\n"))),
        (
            "containerd.handler",
            Health::Warn,
            "v2.1.9",
            three(&format!("{}sandboxer = \"shim\"\n", by_path(SHIM))),
        ),
        ("containerd.handler", Health::Ok, "v2.1.9", three(&format!("{TYPE}sandboxer = \"shim\"\n"))),
        ("containerd.features", Health::Warn, "v2.1.9", three(TYPE)),
        ("containerd.features", Health::Warn, "v2.3.0", three(&format!("{TYPE}{options}"))),
        ("containerd.features", Health::Note, "v1.7.1", two(TYPE)),
        ("containerd.features", Health::Unknown, "", three(TYPE)),
        ("containerd.features", Health::Ok, "v2.1.9", three(&by_path(SHIM))),
        (
            "containerd.cgroup-driver",
            Health::Warn,
            "v2.3.0",
            three(&format!(
                "{TYPE}[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n"
            )),
        ),
    ]
}

const DOCKER: [(Health, &str); 9] = [
    (Health::Fail, "{\"runtimes\": {}"),
    (Health::Note, "{}"),
    (Health::Fail, r#"{"default-runtime": "corten"}"#),
    (Health::Fail, r#"{"runtimes": {"c": {"path": "/nowhere/corten"}}}"#),
    (Health::Fail, r#"{"runtimes": {"c": {"path": "/usr/local/bin/containerd-shim-corten-v2"}}}"#),
    (
        Health::Fail,
        r#"{"runtimes": {"c": {"path": "/usr/local/bin/corten", "runtimeType": "io.containerd.corten.v2"}}}"#,
    ),
    (Health::Fail, r#"{"runtimes": {"c": {"runtimeType": "io.containerd.corten"}}}"#),
    (Health::Fail, r#"{"runtimes": {"c": {"runtimeType": "/nowhere/containerd-shim-corten-v2"}}}"#),
    (Health::Ok, r#"{"default-runtime": "c", "runtimes": {"c": {"path": "/usr/local/bin/corten"}}}"#),
];

const PODMAN: [(&str, Health, &str); 7] = [
    ("podman.runtime", Health::Fail, "[engine\n"),
    ("podman.runtime", Health::Fail, "[engine]\nruntime = \"corten\"\n"),
    ("podman.runtime", Health::Fail, "[engine]\nruntime = \"/nowhere/corten\"\n"),
    ("podman.runtime", Health::Fail, "[engine]\nruntime = \"/usr/local/bin/containerd-shim-corten-v2\"\n"),
    ("podman.runtime", Health::Fail, "[engine.runtimes]\ncorten = [\"/nowhere/corten\"]\n"),
    ("podman.runtime", Health::Note, "[engine]\n"),
    ("podman.nocgroup", Health::Warn, "[engine.runtimes]\ncorten = [\"/usr/local/bin/corten\"]\n"),
];

const CRIO: [(Health, &str); 5] = [
    (Health::Fail, "[crio.runtime]\ndefault_runtime = \"corten\"\n"),
    (Health::Fail, "[crio.runtime.runtimes.c]\nruntime_path = \"/nowhere/corten\"\n"),
    (
        Health::Fail,
        "[crio.runtime.runtimes.c]\nruntime_path = \"/usr/local/bin/containerd-shim-corten-v2\"\n",
    ),
    (Health::Fail, "[crio"),
    (Health::Note, "[crio.runtime]\n"),
];

/// The checks that failed.
pub(super) fn every_one_fails() -> BTreeSet<&'static str> {
    let mut failed = BTreeSet::new();
    let mut look = |id: &'static str, wanted: Health, text: &str, signs: &Signs| {
        let checks = examine(signs);
        assert_eq!(health(&checks, id), Some(wanted), "{id} of {text}: {:?}", of(&checks, id));
        if ![Health::Ok, Health::Unknown].contains(&wanted) {
            failed.insert(id);
        }
    };
    for (id, wanted, version, text) in containerds() {
        let mut signs = healthy();
        signs.programs.containerd =
            (!version.is_empty()).then(|| program("/bin/containerd", &format!("containerd x {version} y")));
        signs.engines.containerd = vec![vec![file("/etc/containerd/config.toml", &text)]];
        look(id, wanted, &text, &signs);
    }
    for (wanted, text) in DOCKER {
        let mut signs = healthy();
        signs.engines.docker = Some(file("/etc/docker/daemon.json", text));
        look("docker.runtime", wanted, text, &signs);
    }
    for (id, wanted, text) in PODMAN {
        let mut signs = healthy();
        signs.engines.podman = vec![file("/etc/containers/containers.conf", text)];
        look(id, wanted, text, &signs);
    }
    for (wanted, text) in CRIO {
        let mut signs = healthy();
        signs.engines.crio = vec![file("/etc/crio/crio.conf", text)];
        look("crio.runtime", wanted, text, &signs);
    }
    // Without the shim's program a type leads nowhere; before Docker 23 there are no types; a kubelet has another driver.
    let mut signs = healthy();
    signs.programs.shim.clear();
    look("containerd.handler", Health::Fail, "no shim", &signs);
    look("docker.runtime", Health::Fail, "no shim", &signs);
    look("programs.shim", Health::Note, "no shim", &signs);
    let mut signs = healthy();
    signs.programs.dockerd = Some(program("/bin/dockerd", "Docker version 20.10.24, build x"));
    look("docker.runtime", Health::Fail, "Docker 20.10", &signs);
    failed
}
