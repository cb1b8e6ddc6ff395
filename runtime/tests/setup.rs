// SPDX-License-Identifier: Apache-2.0
//! `corten setup` from outside, on files of its own: what a file is besides its text stays, what is not ours is refused, and what
//! an engine cannot read never comes into its place. The engines' programs are scripts; the real ones are in `make docs-test`.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "clippy knows the functions marked as tests, not their helpers")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One after the other: a script that is written while another test forks cannot be executed (ETXTBSY).
static TURN: Mutex<()> = Mutex::new(());

/// A directory with an engine's programs in it; gone when dropped.
struct Scratch {
    dir: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("corten-setup-{name}-{}", std::process::id()));
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let scratch = Scratch { dir: path, _turn };
        fs::create_dir_all(scratch.path("bin")).unwrap();
        scratch.program("containerd-shim-corten-v2", "echo v0");
        scratch.program("containerd", "case $* in --version) echo containerd x v1.7.24 y ;; esac");
        scratch
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// Exit code, stdout and stderr.
    fn setup(&self, words: &[&str], config: &Path) -> (i32, String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_corten"))
            .arg("setup")
            .args(words)
            .arg("--config")
            .arg(config)
            .env("PATH", self.path("bin"))
            .env("HOME", &self.dir)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    /// What `words` refuse, without a change of anything.
    fn refuses(&self, words: &[&str], config: &Path, said: &str) {
        let names =
            || fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        let before = (fs::read(config).ok(), names());
        let (code, out, err) = self.setup(words, config);
        assert_eq!((code, err.lines().count()), (1, 1), "{words:?}: {out}{err}");
        assert!(err.contains(said), "{words:?}: {err}");
        assert_eq!((fs::read(config).ok(), names()), before, "{words:?}");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn a_file_stays_what_it_is_besides_its_text() {
    let scratch = Scratch::new("stays");
    let (file, link) = (scratch.path("real.toml"), scratch.path("config.toml"));
    let text = "version = 2 # mine\n";
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
    symlink("real.toml", &link).unwrap();
    let (code, out, err) = scratch.setup(&["containerd", "--dry-run"], &link);
    assert_eq!((code, fs::read_to_string(&file).unwrap().as_str()), (0, text), "{out}{err}");
    assert!(out.contains("@@ -1,1 +1,5 @@") && out.ends_with("would be changed\n"), "{out}");
    let (code, out, err) = scratch.setup(&["--default", "containerd"], &link);
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("+runtime_type = \"io.containerd.corten.v2\"\n") && out.contains("next: systemctl"),
        "{out}"
    );
    assert!(out.contains("not checked: "), "{out}");
    let meta = file.symlink_metadata().unwrap();
    assert_eq!((meta.mode() & 0o7777, link.is_symlink()), (0o640, true));
    let (code, out, _) = scratch.setup(&["containerd"], &link);
    assert!(code == 0 && out.contains("already set up") && !out.contains("@@"), "{out}");
    assert_eq!(meta.ino(), file.symlink_metadata().unwrap().ino(), "it was written again");
    let (code, ..) = scratch.setup(&["containerd", "--undo"], &link);
    assert_eq!((code, fs::read_to_string(&file).unwrap().as_str()), (0, text));
    let (code, out, _) = scratch.setup(&["containerd", "--undo"], &link);
    assert!(code == 0 && out.contains("nothing of setup's is in it"), "{out}");
    let names = fs::read_dir(&scratch.dir).unwrap().count();
    assert_eq!(names, 3, "something is left");
}

#[test]
fn what_was_not_there_goes_again() {
    let scratch = Scratch::new("goes");
    for (engine, name) in
        [("containerd", "new/config.toml"), ("docker", "daemon.json"), ("podman", "conf.d/corten.conf")]
    {
        let file = scratch.path(name);
        let (code, out, err) = scratch.setup(&[engine, "--default"], &file);
        assert!(code == 0 && out.starts_with("--- /dev/null\n"), "{out}{err}");
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o644);
        let (code, out, _) = scratch.setup(&[engine, "--default"], &file);
        assert!(code == 0 && out.contains("already set up"), "{out}");
        let (code, out, err) = scratch.setup(&[engine, "--undo"], &file);
        assert!(code == 0 && !file.exists(), "{out}{err}");
    }
}

#[test]
fn what_is_not_ours_is_refused() {
    let scratch = Scratch::new("refused");
    let file = scratch.path("config.toml");
    fs::write(&file, "version = 2\n").unwrap();
    scratch.refuses(&["cri-o"], &file, "unknown engine");
    scratch.refuses(&["docker", "--undo", "--default"], &file, "exclude each other");
    scratch.refuses(&["docker"], &file, "not JSON");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o444)).unwrap();
    scratch.refuses(&["containerd"], &file, "is read-only (mode 444)");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    fs::hard_link(&file, scratch.path("other")).unwrap();
    scratch.refuses(&["containerd"], &file, "has 2 names");
    fs::remove_file(scratch.path("other")).unwrap();
    scratch.refuses(&["containerd"], &scratch.path("bin"), "is no regular file");
    symlink("nowhere", scratch.path("link")).unwrap();
    scratch.refuses(&["containerd"], &scratch.path("link"), "realpath(");
    match chown(&file, Some(12_345), None) {
        Ok(()) => scratch.refuses(&["containerd"], &file, "belongs to user 12345"),
        Err(_) => println!("not run: another user's file: needs root"),
    }
}

#[test]
fn what_the_engine_cannot_read_is_not_put_in_place() {
    let scratch = Scratch::new("judged");
    let (toml, json) = (scratch.path("config.toml"), scratch.path("daemon.json"));
    fs::write(&toml, "version = 2\n").unwrap();
    fs::write(&json, "{}\n").unwrap();
    scratch.program("containerd", "case $* in --version) echo containerd x v1.7.24 y ;; *) echo containerd: no such table; exit 1 ;; esac");
    scratch.refuses(
        &["containerd"],
        &toml,
        "containerd cannot read what it would be: containerd: no such table",
    );
    scratch.program(
        "dockerd",
        "case $* in --version) echo Docker version 28.5.2, build 1 ;; *) echo no; exit 1 ;; esac",
    );
    scratch.refuses(&["docker"], &json, "dockerd cannot read what it would be: no");
    fs::remove_file(scratch.path("bin/containerd-shim-corten-v2")).unwrap();
    scratch.refuses(
        &["containerd"],
        &toml,
        "containerd-shim-corten-v2 is neither in PATH nor beside containerd",
    );
}
