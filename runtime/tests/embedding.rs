// SPDX-License-Identifier: Apache-2.0
//! The crate in somebody else's process (docs/embedding.md): a whole life, several at once, and what of the caller's own must be
//! afterwards what it was.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy knows the functions marked as tests, not their helpers"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use corten::ask::{Create, Exec, Home, Manager, Overlay};
use corten::verbs::{self, Exit};
use serde_json::json;

/// Not a test: what runs in the containers. This program is static, and so it is there without a root file system of anybody's.
#[test]
#[ignore = "what runs in the containers"]
fn stays() {
    while std::process::id() == 1 {
        std::thread::park();
    }
}

/// A bundle below a directory that goes away with it.
struct Bundle {
    dir: PathBuf,
    id: String,
}

impl Bundle {
    fn new(name: &str) -> Bundle {
        let id = format!("corten-test-{name}-{}", std::process::id());
        let dir = std::env::temp_dir().join(&id);
        let root = dir.join("bundle/rootfs");
        for sub in ["proc", "dev"] {
            fs::create_dir_all(root.join(sub)).unwrap();
        }
        fs::copy(std::env::current_exe().unwrap(), root.join("stays")).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_corten"), root.join("corten")).unwrap();
        let kinds = ["pid", "mount", "ipc", "uts", "network"];
        let config = json!({
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": {"cwd": "/", "args": ["/stays", "--ignored", "--exact", "stays"], "user": {"uid": 0, "gid": 0}},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {
                "cgroupsPath": format!("/{id}"),
                "namespaces": kinds.map(|kind| json!({"type": kind})),
            },
        });
        fs::write(dir.join("bundle/config.json"), config.to_string()).unwrap();
        Bundle { dir, id }
    }

    fn bundle(&self) -> PathBuf {
        self.dir.join("bundle")
    }

    fn state_root(&self) -> PathBuf {
        self.dir.join("state")
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.dir).ok();
    }
}

fn can_run() -> bool {
    let root = rustix::process::geteuid().is_root();
    // With another C library they would need its loader, which no container of ours has.
    let is_static = cfg!(target_env = "musl");
    match (root, is_static) {
        (false, _) => println!("not run: containers by the library: needs root"),
        (_, false) => println!("not run: containers by the library: these tests are linked dynamically"),
        _ => return true,
    }
    false
}

#[test]
fn the_example_lives_a_whole_life() {
    if !can_run() {
        return;
    }
    let example = Path::new(env!("CARGO_BIN_EXE_corten")).with_file_name("examples").join("embed");
    if !example.exists() {
        return println!(
            "not run: the example: cargo builds it with all tests, or by `cargo build --example embed`"
        );
    }
    let it = Bundle::new("embed");
    let output = Command::new(example).arg(it.state_root()).arg(it.bundle()).arg(&it.id).output().unwrap();
    let (told, words) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && words.is_empty(), "{told}{words}");
    let lines: Vec<_> = told.lines().collect();
    assert!(lines.iter().any(|line| line.starts_with(&format!("{} is created with pid ", it.id))), "{told}");
    assert!(lines.contains(&"the second process: Code(0)"), "{told}");
    assert!(lines.contains(&"the container: Signal(9)"), "{told}");
    assert_eq!(fs::read_dir(it.state_root()).unwrap().count(), 0, "it is still there");
}

#[test]
fn the_page_shows_the_example() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let example = fs::read_to_string(root.join("runtime/examples/embed.rs")).unwrap();
    let page = fs::read_to_string(root.join("docs/embedding.md")).unwrap();
    let shown = page.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert!(
        example.contains(shown),
        "docs/embedding.md shows another example than runtime/examples/embed.rs"
    );
}

/// What belongs to the whole process, and not to a caller's library.
fn of_the_process() -> BTreeMap<String, String> {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let wanted =
        ["Umask", "SigBlk", "SigIgn", "SigCgt", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Groups"];
    let mut all: BTreeMap<String, String> = status
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| wanted.contains(name))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    all.insert("limits".into(), fs::read_to_string("/proc/self/limits").unwrap());
    for link in ["cwd", "root", "ns/mnt", "ns/net", "ns/pid_for_children", "ns/uts"] {
        let target = fs::read_link(format!("/proc/self/{link}")).unwrap();
        all.insert(link.into(), target.to_string_lossy().into_owned());
    }
    all.insert("environment".into(), format!("{:?}", std::env::vars_os().collect::<Vec<_>>()));
    all
}

fn life(it: &Bundle) -> corten::Result<()> {
    let warn = |line: &str| panic!("a warning: {line}");
    let home =
        Home { root: it.state_root(), manager: Manager::Cgroupfs, rootless: None, warn: &warn, trace: None };
    let id = it.id.as_str();
    let null = || fs::File::options().read(true).write(true).open("/dev/null").unwrap().into();
    let stdio = || corten::ask::Stdio::Fds([null(), null(), null()]);
    let ask = Create { id: id.into(), bundle: it.bundle(), stdio: stdio(), ..Create::default() };
    let init = verbs::create(&home, ask)?;
    assert_eq!((verbs::state(&home, id)?.status, verbs::state(&home, id)?.pid), ("created", init.pid));
    verbs::start(&home, id)?;
    let overlay = Overlay { args: vec!["/corten".into(), "no-such-command".into()], ..Overlay::default() };
    let second = verbs::exec(&home, Exec { id: id.into(), overlay, stdio: stdio(), ..Exec::default() })?;
    assert!(matches!(verbs::wait(second.pidfd.as_fd())?, Exit::Code(code) if code != 0));
    verbs::kill(&home, id, 9, false)?;
    assert_eq!(verbs::wait(init.pidfd.as_fd())?, Exit::Signal(9));
    assert_eq!(verbs::state(&home, id)?.status, "stopped");
    verbs::delete(&home, id, false)?;
    let gone = verbs::state(&home, id).unwrap_err();
    assert_eq!(gone.kind(), corten::Kind::NotFound, "{gone}");
    Ok(())
}

#[test]
fn several_threads_live_lives_and_the_process_stays_what_it_was() {
    if !can_run() {
        return;
    }
    let bundles: Vec<_> = (0..4).map(|number| Bundle::new(&format!("embed-{number}"))).collect();
    let before = of_the_process();
    std::thread::scope(|scope| {
        for it in &bundles {
            scope.spawn(move || (0..3).try_for_each(|_| life(it)).unwrap());
        }
    });
    // A mistake of the caller's is an error, and changes as little.
    let warn = |_: &str| {};
    let root = bundles[0].state_root();
    let home = Home { root, manager: Manager::Cgroupfs, rootless: None, warn: &warn, trace: None };
    let nowhere = Create { id: "corten-test-nowhere".into(), bundle: "/nowhere".into(), ..Create::default() };
    let error = verbs::create(&home, nowhere).unwrap_err();
    assert!(error.to_string().contains("/nowhere"), "{error}");
    assert_eq!(of_the_process(), before);
}
