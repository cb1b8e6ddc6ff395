// SPDX-License-Identifier: Apache-2.0
//! The shells' completions (docs/completions/): written from today's help, and what they answer.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "clippy knows the functions marked as tests, not their helpers")]

use std::path::{Path, PathBuf};
use std::process::Command;

const CORTEN: &str = env!("CARGO_BIN_EXE_corten");

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/completions")
}

/// A directory of this test's own; gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("corten-completions-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// `make completions` writes them anew.
#[test]
fn they_are_what_the_help_says() {
    if !has("bash") {
        return println!("not run: bash is not installed");
    }
    let scratch = Scratch::new("make");
    let made = Command::new(folder().join("make")).arg(CORTEN).arg(&scratch.0).status().unwrap();
    assert!(made.success());
    for name in ["corten.bash", "_corten", "corten.fish"] {
        let read = |folder: &Path| std::fs::read_to_string(folder.join(name)).unwrap();
        assert!(read(&folder()) == read(&scratch.0), "{name} and the help differ: make completions");
    }
}

/// What bash proposes for the last of `words`.
fn proposed(words: &[&str]) -> Vec<String> {
    let script =
        r#". "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _corten; printf '%s\n' "${COMPREPLY[@]}""#;
    let output = Command::new("bash")
        .args(["-c", script])
        .arg(folder().join("corten.bash"))
        .arg(CORTEN)
        .args(words)
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn bash_completes() {
    if !has("bash") {
        return println!("not run: bash is not installed");
    }
    let scratch = Scratch::new("root");
    for id in ["web1", "web2", "db"] {
        let folder = scratch.0.join(id);
        std::fs::create_dir(&folder).unwrap();
        let state = format!(
            r#"{{"version":1,"id":"{id}","bundle":"/b","rootfs":"/b/r","created":"","owner":0,"cgroup":{{"version":"none","id":"{id}","groups":[]}},"init":null}}"#
        );
        std::fs::write(folder.join("state.json"), state).unwrap();
    }
    let root = scratch.0.to_str().unwrap();
    for (words, want) in [
        (&["st"][..], &["start", "state"][..]),
        (&["--log-"], &["--log-format", "--log-level"]),
        (&["--log-format", ""], &["text", "json"]),
        (&["--log-format", "=", "j"], &["json"]),
        (&["--log-format", "="], &["text", "json"]),
        (&["--root", root, "delete", ""], &["db", "web1", "web2"]),
        (&["--root", "=", root, "exec", "-t", "w"], &["web1", "web2"]),
        (&["--root", root, "--debug", "kill", "db", "K"], &["KILL"]),
        (&["kill", "db", "SIGT"], &["SIGTRAP", "SIGTERM", "SIGTSTP", "SIGTTIN", "SIGTTOU"]),
        (&["exec", "--pro"], &["--process", "--process-label"]),
        (&["exec", "db", "/proc/self/mountinf"], &["/proc/self/mountinfo"]),
        (&["exec", "--user", ""], &[]),
        (&["--root", root, "create", ""], &[]),
        (&["list", "--format", ""], &["table", "json"]),
        (&["setup", "--default", "d"], &["docker"]),
        (&["help", "re"], &["restore", "resume"]),
    ] {
        let (mut found, mut want) = (proposed(words), want.to_vec());
        found.sort_unstable();
        want.sort_unstable();
        assert_eq!(found, want, "{words:?}");
    }
}

#[test]
fn other_shells_read_theirs() {
    for (shell, name) in [("zsh", "_corten"), ("fish", "corten.fish")] {
        if !has(shell) {
            println!("not run: {shell} is not installed");
            continue;
        }
        let checked = Command::new(shell).arg("-n").arg(folder().join(name)).output().unwrap();
        assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
    }
}
