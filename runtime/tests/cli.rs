// SPDX-License-Identifier: Apache-2.0
//! The command line from outside, without root and without containers: texts, exit codes, the log, the help.
//!
//! What needs a container is tested by `spec-tests`.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "clippy knows the functions marked as tests, not their helpers")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const CORTEN: &str = env!("CARGO_BIN_EXE_corten");
const VERBS: [&str; 13] = [
    "create", "delete", "doctor", "exec", "features", "kill", "list", "plan", "ps", "run", "spec", "start",
    "state",
];

/// A directory that goes away with its test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("corten-cli-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A test that failed has more to say than this.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a call did.
struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Said {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn call(words: &[&str]) -> Said {
    Command::new(CORTEN).args(words).stdin(Stdio::null()).output().unwrap().into()
}

/// Calls, and checks the exit code, what stderr contains, and that it is one line of level error.
fn refused(words: &[&str], code: i32, text: &str) -> Said {
    let said = call(words);
    assert_eq!(said.code, code, "{words:?}: {}", said.stderr);
    assert!(said.stderr.contains(text), "{words:?}: {}", said.stderr);
    assert!(
        said.stderr.starts_with("time=\"") && said.stderr.contains("Z\" level=error msg="),
        "{}",
        said.stderr
    );
    assert_eq!(said.stderr.matches('\n').count(), 1, "{words:?}: {}", said.stderr);
    said
}

#[test]
fn the_version_bears_the_name_it_was_called_by() {
    for words in [["--version"], ["-v"], ["-version"], ["version"]] {
        let said = call(&words);
        let lines: Vec<&str> = said.stdout.lines().collect();
        assert_eq!((said.code, lines[0]), (0, concat!("corten version ", env!("CARGO_PKG_VERSION"))));
        assert!(lines[1].starts_with("commit: ") && lines[2] == "spec: 1.3.0", "{lines:?}");
    }
    let scratch = Scratch::new("version");
    let runc = scratch.path("runc");
    symlink(CORTEN, &runc).unwrap();
    let said = Said::from(Command::new(&runc).arg("--version").output().unwrap());
    assert!(said.stdout.starts_with("runc version "), "{}", said.stdout);
    let said = Said::from(Command::new(&runc).args(["create", "/"]).output().unwrap());
    assert!(said.stderr.contains("runc create failed: invalid container ID format"), "{}", said.stderr);
}

#[test]
fn help_has_runcs_shape() {
    for words in [
        &[][..],
        &["-h"],
        &["--help"],
        &["help"],
        &["h"],
        &["--root", "/x", "help"],
        &["--debug", "-h", "list"],
    ] {
        let said = call(words);
        assert_eq!((said.code, &*said.stderr), (0, ""), "{words:?}");
        assert!(
            said.stdout.starts_with("NAME:\n   corten - Open Container Initiative runtime\n"),
            "{}",
            said.stdout
        );
        for verb in VERBS {
            assert!(said.stdout.contains(&format!("\n   {verb} ")), "{verb}");
        }
    }
    for verb in VERBS {
        for words in [[verb, "-h"], [verb, "--help"], ["help", verb]] {
            let said = call(&words);
            assert_eq!((said.code, &*said.stderr), (0, ""), "{words:?}");
            assert!(said.stdout.starts_with(&format!("NAME:\n   corten {verb} - ")), "{}", said.stdout);
            assert!(said.stdout.contains("\n   --help, -h"), "{}", said.stdout);
        }
    }
}

#[test]
fn wrong_calls_end_with_1_and_show_the_help() {
    for (words, text) in [
        (&["create"][..], r#"\"corten create\" requires exactly 1 argument(s)"#),
        (&["create", "a", "b"], r#"\"corten create\" requires exactly 1 argument(s)"#),
        (&["start"], r#"\"corten start\" requires exactly 1 argument(s)"#),
        (&["run"], r#"\"corten run\" requires exactly 1 argument(s)"#),
        (&["state", "a", "b"], r#"\"corten state\" requires exactly 1 argument(s)"#),
        (&["delete"], r#"\"corten delete\" requires exactly 1 argument(s)"#),
        (&["list", "x"], r#"\"corten list\" requires exactly 0 argument(s)"#),
        (&["spec", "x"], r#"\"corten spec\" requires exactly 0 argument(s)"#),
        (&["features", "x"], r#"\"corten features\" requires exactly 0 argument(s)"#),
        (&["kill"], r#"\"corten kill\" requires a minimum of 1 argument(s)"#),
        (&["kill", "a", "9", "x"], r#"\"corten kill\" requires a maximum of 2 argument(s)"#),
        (&["exec"], r#"\"corten exec\" requires a minimum of 1 argument(s)"#),
        (&["ps"], r#"\"corten ps\" requires a minimum of 1 argument(s)"#),
        (&["plan", "a", "b"], r#"\"corten plan\" requires a maximum of 1 argument(s)"#),
        (&["create", "--foo", "a"], "flag provided but not defined: -foo"),
        (&["create", "a", "--foo"], "flag provided but not defined: -foo"),
        (&["create", "a", "--bundle"], "flag needs an argument: -bundle"),
        (&["--foo", "create"], "flag provided but not defined: -foo"),
        (&["run", "--keep=maybe", "a"], "invalid boolean value"),
        (&["run", "--preserve-fds=x", "a"], "for flag -preserve-fds: invalid digit found in string"),
    ] {
        let said = refused(words, 1, text);
        assert!(
            said.stdout.starts_with("Incorrect Usage: ") && said.stdout.contains("\n\nNAME:\n   corten "),
            "{words:?}: {}",
            said.stdout
        );
    }
    refused(&["nonsense"], 1, "No help topic for 'nonsense': 'corten help' lists the commands");
    refused(&["help", "nonsense"], 1, "No help topic for 'nonsense'");
}

/// The first line of all says what is wrong, and what was probably meant.
#[test]
fn what_was_probably_meant_is_named_first() {
    for (words, text) in [
        (&["--rot", "/r", "list"][..], "flag provided but not defined: -rot (did you mean --root?)"),
        (
            &["create", "--bundel", "b", "x"],
            "flag provided but not defined: -bundel (did you mean --bundle?)",
        ),
        (&["run", "-detach=1", "--consol-socket=s", "x"], "-consol-socket (did you mean --console-socket?)"),
        (&["exec", "--no-new-priv", "x", "ls"], "-no-new-priv (did you mean --no-new-privs?)"),
        (&["list", "--a\nb"], "flag provided but not defined: -a\\nb"),
    ] {
        let said = call(words);
        let first = said.stdout.lines().next().unwrap();
        assert!(first.starts_with("Incorrect Usage: ") && first.ends_with(text), "{words:?}: {first}");
    }
    refused(&["craete"], 1, "No help topic for 'craete': did you mean 'create'?");
    refused(&["help", "resmue"], 1, "No help topic for 'resmue': did you mean 'resume'?");
}

/// crun's flags that runc has not.
#[test]
fn flags_of_crun() {
    for words in [&["-V"][..], &["--usage"], &["-?"], &["create", "--usage"], &["kill", "-?"]] {
        let said = call(words);
        assert_eq!((said.code, &*said.stderr), (0, ""), "{words:?}");
    }
    let scratch = Scratch::new("crun");
    let root = scratch.0.to_str().unwrap();
    for verb in ["kill", "delete"] {
        let pattern = "--regex \"a(\" is no POSIX extended regular expression";
        refused(&["--root", root, verb, "-r", "a("], 1, &pattern.replace('"', "\\\""));
        assert_eq!(call(&["--root", root, verb, "--regex", "^none-such.*"]).code, 0);
    }
    // Taken, and so the next complaint is another one.
    refused(
        &["--root", root, "create", "--no-subreaper", "-b", "/nonexistent", "x"],
        1,
        "bundle: open(/nonexistent)",
    );
    assert_eq!(call(&["spec", "-b", root, "--file", "other.json"]).code, 0);
    assert!(scratch.path("other.json").exists() && !scratch.path("config.json").exists());
    refused(&["spec", "-b", root, "-f", "other.json"], 1, "File other.json exists. Remove it first");
}

#[test]
fn ids_are_checked_before_anything_is_touched() {
    let scratch = Scratch::new("ids");
    let root = scratch.path("root");
    let root = root.to_str().unwrap();
    for id in ["a/b", "..", ".", "a b", "é", &"x".repeat(300)] {
        for (verb, code, text) in [
            ("create", 1, "corten create failed: invalid container ID format"),
            ("run", 1, "corten run failed: invalid container ID format"),
            ("exec", 255, "\"exec failed: invalid container ID format"),
            ("start", 1, "\"invalid container ID format"),
            ("state", 1, "\"invalid container ID format"),
            ("delete", 1, "\"invalid container ID format"),
            ("kill", 1, "\"invalid container ID format"),
            ("ps", 1, "\"invalid container ID format"),
            ("checkpoint", 1, "\"invalid container ID format"),
            ("restore", 1, "corten restore failed: invalid container ID format"),
            ("plan", 1, "\"invalid container ID format"),
        ] {
            refused(&["--root", root, verb, id], code, text);
        }
    }
    refused(&["--root", root, "state", ""], 1, "container id cannot be empty");
    assert!(!Path::new(root).exists());
}

#[test]
fn exec_refuses_with_255() {
    for (words, text) in [
        (&["exec", "-u", "", "x", "ls", "-l"][..], ""),
        (&["exec", "-u", "1:", "x", "ls"], "invalid user"),
        (&["exec", "-user=4294967295", "x", "ls"], "invalid user"),
        (&["exec", "-g", "-1", "x", "ls"], "invalid group id"),
        (&["exec", "-e", "A", "x", "ls"], "missing '='"),
        (&["exec", "-e", "=b", "x", "ls"], "name cannot be empty"),
        (
            &["exec", "-td", "x", "ls"],
            "cannot allocate tty if runc will detach without setting console socket",
        ),
        (
            &["exec", "--console-socket=s", "-t", "x", "ls"],
            "cannot use console socket if runc will not detach or allocate tty",
        ),
        (
            &["exec", "--console-socket=s", "-d", "x", "ls"],
            "cannot use console socket if runc will not detach or allocate tty",
        ),
        (&["exec", "--preserve-fds=1", "x", "ls"], "descriptor 3 (1 of 1) is not open"),
    ] {
        refused(words, 255, text);
    }
}

#[test]
fn run_and_create_check_their_flags() {
    refused(
        &["run", "--console-socket", "s", "x"],
        1,
        "corten run failed: cannot use console socket if runc will not detach or allocate tty",
    );
    for verb in ["run", "create"] {
        refused(&[verb, "--preserve-fds", "2", "x"], 1, "--preserve-fds: descriptor 3 (1 of 2) is not open");
    }
    refused(&["kill", "x", "NOSUCH"], 1, "unknown signal");
    refused(&["kill", "x", "-9"], 1, "unknown signal");
}

#[test]
fn global_flags_are_checked() {
    refused(&["--root", "/", "state", "x"], 1, "--root argument should not be set to /");
    refused(&["--root", "", "state", "x"], 1, "--root argument should not be set to /");
    refused(&["--log-format", "xml", "state", "x"], 1, "invalid log-format: xml");
    refused(&["--log-level", "loud", "state", "x"], 1, "invalid log-level: loud");
    refused(&["--cgroup-manager", "k8s", "state", "x"], 1, "invalid cgroup-manager: k8s");
    refused(&["--rootless", "maybe", "state", "x"], 1, "invalid rootless: maybe");
    refused(
        &["--log", "/nonexistent/dir/log", "state", "x"],
        1,
        "open /nonexistent/dir/log: no such file or directory",
    );
    let said = call(&["--criu", "/sbin/criu", "--log-level=error", "state", "a/b"]);
    assert_eq!(said.stderr.matches('\n').count(), 1);
    let said = call(&["--criu", "/sbin/criu", "--debug", "state", "a/b"]);
    let levels: Vec<&str> =
        said.stderr.lines().filter_map(|line| line.split(" level=").nth(1)?.split(' ').next()).collect();
    assert_eq!(levels, ["warning", "debug", "error"], "{}", said.stderr);
}

#[test]
fn the_log_file_is_made_appended_and_well_formed() {
    let scratch = Scratch::new("log");
    let log = scratch.path("log.json");
    let path = log.to_str().unwrap();
    assert_eq!(call(&["--log", path, "--log-format=json", "features"]).code, 0);
    assert_eq!(fs::read_to_string(&log).unwrap(), "");
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o7133, 0);
    for criu in ["/sbin/criu", ""] {
        let said = call(&["--log", path, "--log-format", "json", "--criu", criu, "kill", "x", "a\"\nb"]);
        // The log has the line; people get the words alone.
        assert_eq!((said.code, &*said.stderr), (1, "unknown signal \"a\\\"\\nb\"\n"));
    }
    let text = fs::read_to_string(&log).unwrap();
    let entries: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let levels: Vec<&str> = entries.iter().filter_map(|entry| entry["level"].as_str()).collect();
    assert_eq!(levels, ["warning", "error", "error"]);
    for entry in &entries {
        assert_eq!(entry.as_object().unwrap().len(), 3);
        assert_eq!(entry["time"].as_str().unwrap().len(), "2026-01-02T03:04:05Z".len());
    }
    assert_eq!(entries[2]["msg"], "unknown signal \"a\\\"\\nb\"");
    // Without a file, stderr itself has the format.
    let said = call(&["--log-format", "json", "kill", "x", "NOSUCH"]);
    let entry: serde_json::Value = serde_json::from_str(&said.stderr).unwrap();
    assert_eq!(entry["level"], "error");
}

#[test]
fn crun_log_prefixes_are_understood() {
    let scratch = Scratch::new("prefix");
    let log = scratch.path("log");
    let file = format!("file:{}", log.display());
    assert_eq!(call(&["--log", &file, "kill", "x", "NOSUCH"]).code, 1);
    assert!(fs::read_to_string(&log).unwrap().contains("level=error msg=\"unknown signal"));
    for daemon in ["journald:corten-test", "syslog:corten-test"] {
        let said = call(&["--log", daemon, "kill", "x", "NOSUCH"]);
        assert_eq!(said.code, 1);
        assert!(said.stderr.contains("unknown signal"), "{}", said.stderr);
    }
}

#[test]
fn a_root_that_was_named_must_be_there_and_is_not_made() {
    let scratch = Scratch::new("root");
    let root = scratch.path("none");
    let said = call(&["--root", root.to_str().unwrap(), "list"]);
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("no such file or directory"), "{}", said.stderr);
    assert_eq!(call(&["--root", root.to_str().unwrap(), "state", "x"]).code, 1);
    assert!(!root.exists());
}

#[test]
fn an_empty_environment_is_enough() {
    let said: Said = Command::new(CORTEN).env_clear().args(["state", "x"]).output().unwrap().into();
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("level=error"), "{}", said.stderr);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(CORTEN).arg("features").stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code().or(output.status.signal()), Some(141));
    assert_eq!(output.stderr, b"");
}

#[test]
fn a_full_disk_is_one() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let said: Said =
        Command::new(CORTEN).arg("features").stdout(full).stderr(Stdio::piped()).output().unwrap().into();
    assert_eq!(said.code, 1);
    assert!(said.stderr.contains("no space left on device"), "{}", said.stderr);
}

#[test]
fn spec_writes_once() {
    let scratch = Scratch::new("spec");
    let bundle = scratch.0.to_str().unwrap();
    let said = call(&["spec", "-b", bundle]);
    assert_eq!((said.code, &*said.stdout, &*said.stderr), (0, "", ""));
    let text = fs::read_to_string(scratch.path("config.json")).unwrap();
    assert!(text.starts_with("{\n\t\"ociVersion\": \"1.3.0\",\n\t\"process\": {\n"), "{text}");
    refused(&["spec", "--bundle", bundle], 1, "File config.json exists. Remove it first");
    assert_eq!(fs::read_to_string(scratch.path("config.json")).unwrap(), text);
    fs::remove_file(scratch.path("config.json")).unwrap();
    assert_eq!(call(&["spec", "--rootless", "-bundle", bundle]).code, 0);
    let spec = oci_spec::runtime::Spec::load(scratch.path("config.json")).unwrap();
    assert_eq!(spec.linux().as_ref().unwrap().uid_mappings().as_ref().unwrap()[0].size(), 1);
    refused(&["spec", "-b", "/nonexistent"], 1, "open(/nonexistent/config.json): no such file or directory");
}

#[test]
fn features_are_json_with_runcs_indent() {
    let said = call(&["features"]);
    assert!(
        said.stdout.starts_with("{\n    \"ociVersionMin\": \"1.0.0\",\n    \"ociVersionMax\": \"1.3.0\",\n")
    );
    let features: oci_spec::runtime::Features = serde_json::from_str(&said.stdout).unwrap();
    assert!(features.mount_options().as_ref().unwrap().iter().any(|option| option == "ridmap"));
}
