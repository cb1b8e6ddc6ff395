// SPDX-License-Identifier: Apache-2.0
//! The house rules as tests, over every tracked file. A rule here fails with the list of what breaks it.
//!
//! Judged is what git tracks (in a tree without git: nothing, and the test says so). Rust is read by line and by
//! indentation, which rustfmt guarantees; no parser is worth its dependency here.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "clippy knows the functions marked as tests, not their helpers")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "tidy/commits.rs"]
mod commits;
#[path = "tidy/entries.rs"]
mod entries;
#[path = "tidy/lists.rs"]
mod lists;
#[path = "tidy/names.rs"]
mod names;
#[path = "tidy/scripts.rs"]
mod scripts;
#[path = "tidy/walks.rs"]
mod walks;
#[path = "tidy/words.rs"]
mod words;

const MAX_LINES: usize = 500;
const FUNCTION_WARNING: usize = 60;
const FUNCTION_MAX: usize = 80;
/// Crates that the two programs link, and all others of the lockfile: macros and generators at build time, oracles, tools of tests.
const MAX_LINKED: usize = 60;
const MAX_TOOLS: usize = 100;

/// Files that may be longer, each of which says why at its top ("longer ... because").
const LONGER: [&str; 5] = [
    "spec-tests/containerd-test",
    "runtime/src/program/op.rs",
    "runtime/src/seccomp/names.rs",
    "runtime/src/spec.rs",
    "runtime/stage/sys.rs",
];
/// Files that break a rule of form and still owe the repair: told as a warning. This list may only shrink.
const OWING: [&str; 1] = ["spec-tests/src/cases/bad_input.rs"];

/// The rooms in which `unsafe` may be written.
const UNSAFE_ROOMS: [&str; 6] = [
    "runtime/src/sys/",
    "runtime/stage/",
    "spec-tests/src/sys.rs",
    "spec-tests/src/sys/",
    "runtime/tests/cgroup_cases/children.rs",
    "runtime/tests/fuzz/counters.rs",
];
/// Roots of crates that hold such a room: a `forbid` there would reach into it.
const UNSAFE_ROOTS: [&str; 2] = ["runtime/src/lib.rs", "spec-tests/src/main.rs"];

/// Hosts that tracked files may name: specifications, sources, tools, the loopback, and the namespace of SVG. No registry, mirror or proxy.
const HOSTS: [&str; 11] = [
    "127.0.0.1",
    "github.com",
    "www.apache.org",
    "www.debian.org",
    "keepachangelog.com",
    "semver.org",
    "man7.org",
    "docs.kernel.org",
    "specs.opencontainers.org",
    "systemd.io",
    "www.w3.org",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A tracked file: its path from the root, and its text.
struct File {
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// In one of the programs (or the harness): not a test's table of cases.
    fn is_program(&self) -> bool {
        self.is_rust() && !self.path.contains("/tests") && !self.path.contains("/cases/")
    }

    /// A source: what a licence line belongs into.
    fn is_source(&self) -> bool {
        let ends = [".rs", ".c", ".h", ".py", ".sh", ".toml", "Makefile"];
        ends.iter().any(|end| self.path.ends_with(end)) || self.text.starts_with("#!")
    }

    /// The lines before the first that is neither a comment nor empty.
    fn head(&self) -> impl Iterator<Item = &str> {
        let comment =
            |line: &&str| line.is_empty() || ["//", "#", "/*", " *"].iter().any(|c| line.starts_with(c));
        self.text.lines().take_while(comment)
    }
}

/// Every tracked text file; none where this is no checkout.
fn tracked() -> Vec<File> {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    let listed = listed.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    let Some(listed) = listed.filter(|listed| !listed.is_empty()) else {
        println!("not run: this is no git checkout");
        return Vec::new();
    };
    let names = listed.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    let read = |name: &[u8]| {
        let path = String::from_utf8_lossy(name).into_owned();
        Some(File { text: std::fs::read_to_string(root().join(&path)).ok()?, path })
    };
    names.filter_map(read).collect()
}

fn assert_none(rule: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn sources_name_their_licence_first() {
    let files = tracked();
    let lacks = |file: &&File| {
        !file.text.lines().take(3).any(|line| line.contains("SPDX-License-Identifier: Apache-2.0"))
    };
    let broken =
        files.iter().filter(|file| file.is_source()).filter(lacks).map(|file| file.path.clone()).collect();
    assert_none("no SPDX line at the top", broken);
}

#[test]
fn files_are_short_or_say_why() {
    let mut broken = Vec::new();
    for file in tracked().iter().filter(|file| file.is_source()) {
        let lines = file.text.lines().count();
        let path = file.path.as_str();
        if lines <= MAX_LINES {
            continue;
        }
        let head: String = file.head().collect();
        match (LONGER.contains(&path), head.contains("longer") && head.contains("because")) {
            (true, true) => {}
            _ if OWING.contains(&path) => {
                println!("tidy: {path} has {lines} lines and owes the reason at its top")
            }
            (true, false) => broken.push(format!("{path}: {lines} lines, and its top does not say why")),
            (false, _) => broken.push(format!("{path}: {lines} lines, and not in the list of longer files")),
        }
    }
    assert_none("files are to have at most 500 lines", broken);
}

#[test]
fn unsafe_stays_in_its_rooms() {
    let mut broken = Vec::new();
    let in_room = |path: &str| UNSAFE_ROOMS.iter().any(|room| path.starts_with(room));
    for file in tracked().iter().filter(|file| file.is_rust() && !in_room(&file.path)) {
        for (line, number) in file.text.lines().zip(1..) {
            let code = line.split("//").next().unwrap_or_default();
            let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            if words.clone().any(|word| word == "unsafe") && !code.contains('"') {
                broken.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    assert_none("`unsafe` outside of its rooms", broken);
}

#[test]
fn files_forbid_unsafe_code() {
    let forbids = |file: &File| file.text.contains("#![forbid(unsafe_code)]");
    let files = tracked();
    let exempt = |path: &str| {
        UNSAFE_ROOMS.iter().any(|room| path.starts_with(room))
            || UNSAFE_ROOTS.contains(&path)
            || path.ends_with("build.rs")
    };
    // `forbid` is inherited: the modules of the binary lean on its main.rs, a test's on the file that declares them.
    // An entry of cargo-fuzz is a function that C++ calls.
    let covered = |path: &str| {
        ["/cli/", "/tests/", "/tests.rs", "/fuzz_targets/"].iter().any(|part| path.contains(part))
    };
    let mut broken = Vec::new();
    for file in files.iter().filter(|file| file.is_rust() && !exempt(&file.path) && !forbids(file)) {
        let path = file.path.as_str();
        match OWING.contains(&path) {
            _ if covered(path) => {}
            true => println!("tidy: {path} lacks #![forbid(unsafe_code)]"),
            false => broken.push(path.to_owned()),
        }
    }
    assert_none("#![forbid(unsafe_code)] is missing", broken);
}

/// Where it is decided whether something lives, whose it is, and what is done to it: there an error is handed on, lest it
/// pass for "gone", "nobody's" or "done".
const DECIDING: [&str; 8] = [
    "runtime/src/cgroup/own.rs",
    "runtime/src/container.rs",
    "runtime/src/host/identity.rs",
    "runtime/src/host/members.rs",
    "runtime/src/verbs/kill.rs",
    "runtime/src/verbs/pause.rs",
    "runtime/src/verbs/query.rs",
    "runtime/src/verbs/update.rs",
];

#[test]
fn an_error_is_no_answer() {
    let swallows = [".is_ok", ".is_err", ".ok()", "Err(_)", "let _ ="];
    let mut broken = Vec::new();
    for file in tracked().iter().filter(|file| DECIDING.contains(&file.path.as_str())) {
        let program = file.text.split("#[cfg(test)]").next().unwrap_or_default();
        for (line, number) in program.lines().zip(1..).filter(|(line, _)| !line.contains(".parse")) {
            if swallows.iter().any(|swallow| line.contains(swallow)) {
                broken.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    assert_none("an error is swallowed where it would be taken for an answer", broken);
}

/// Functions from `fn` to the brace at the same indentation.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        let Some((before, after)) = code.split_once("fn ") else { continue };
        let starts = before.is_empty() || before.ends_with(' ');
        let modifiers = before.split(' ').all(|word| {
            word.is_empty()
                || word.starts_with("pub")
                || ["const", "unsafe", "extern", "\"C\"", "in"].contains(&word)
        });
        if !starts || !modifiers || code.ends_with(';') {
            continue;
        }
        let end = lines[start..].iter().position(|line| line.strip_prefix(indent) == Some("}"));
        let name = after.split(['(', '<']).next().unwrap_or_default();
        found.extend(end.map(|length| (name.to_owned(), length + 1)));
    }
    found
}

#[test]
fn functions_are_short() {
    let mut broken = Vec::new();
    for file in tracked().iter().filter(|file| file.is_program()) {
        for (name, lines) in functions(&file.text).into_iter().filter(|(_, lines)| *lines > FUNCTION_WARNING)
        {
            let text = format!("{}: fn {name} has {lines} lines", file.path);
            match lines > FUNCTION_MAX {
                true => broken.push(text),
                false => println!("tidy: {text}"),
            }
        }
    }
    assert_none("functions are to have at most 60 lines, 80 with a reason", broken);
}

#[test]
fn functions_are_counted() {
    let text = "impl X {\n    pub(super) const fn one() -> u8 {\n        1\n    }\n\n    fn two(\n    ) {\n    }\n}\nfn three() {}\nlet fn_x = 1;\n";
    assert_eq!(functions(text), [("one".to_owned(), 3), ("two".to_owned(), 3)]);
}

#[test]
fn few_crates() {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    // What tokio brings for Windows and WASI is in the lockfile and in no program of ours.
    let elsewhere = ["name = \"windows", "name = \"wasi\""];
    let ours =
        |line: &&str| line.starts_with("name = ") && !elsewhere.iter().any(|name| line.starts_with(name));
    let all = lock.lines().filter(ours).count();
    let linked = linked().len();
    println!("{linked} crates are linked, {} are tools", all - linked);
    assert!(linked <= MAX_LINKED, "the programs link {linked} crates, at most {MAX_LINKED}");
    assert!(all - linked <= MAX_TOOLS, "{} crates of tools in Cargo.lock, at most {MAX_TOOLS}", all - linked);
}

/// What the two programs link, their own crates included, as cargo resolves it: no macros, nothing of builds and tests.
fn linked() -> BTreeSet<String> {
    let words = "tree --locked --offline --edges normal,no-proc-macro --prefix none --format {p} -p corten -p containerd-shim-corten-v2";
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(words.split(' ')).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let name = |line: &str| {
        Some(line.split(' ').take(2).collect::<Vec<_>>().join(" ")).filter(|name| !name.is_empty())
    };
    String::from_utf8_lossy(&output.stdout).lines().filter_map(name).collect()
}

/// Nothing in the tree may depend on where it was written: no registry or mirror but the default one's name in the
/// lockfile, no path of somebody's machine.
#[test]
fn no_hosts_and_no_machine_paths() {
    let machine = [
        concat!("/work", "/main"),
        concat!("/work", "/shared"),
        concat!("/tmp", "/wt"),
        concat!("/root", "/."),
        concat!("/.cargo", "/registry"),
    ];
    let mut broken = Vec::new();
    for file in tracked().iter().filter(|file| file.path != "Cargo.lock" && file.path != "LICENSE") {
        for (line, number) in file.text.lines().zip(1..) {
            let mut say = |what: &str| broken.push(format!("{}:{number}: {what}", file.path));
            machine.iter().filter(|path| line.contains(*path)).for_each(|path| say(path));
            for rest in line.split("://").skip(1).filter(|_| line.contains("http")) {
                let host: String =
                    rest.chars().take_while(|c| c.is_alphanumeric() || "-.".contains(*c)).collect();
                if host.contains('.') && !HOSTS.contains(&host.as_str()) {
                    say(&host);
                }
            }
        }
    }
    assert_none("hosts and machine paths", broken);
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let foreign =
        |line: &&str| line.starts_with("source = ") && !line.contains("github.com/rust-lang/crates.io-index");
    assert_none("foreign sources in Cargo.lock", lock.lines().filter(foreign).map(str::to_owned).collect());
}

/// `docs/decisions/NNNN-title.md`: "# NNNN: Title", then "Date: YYYY-MM-DD".
#[test]
fn decisions_have_number_title_and_date() {
    let mut broken = Vec::new();
    let mut numbers = BTreeSet::new();
    for file in tracked().iter().filter(|file| file.path.starts_with("docs/decisions/")) {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        let number = name.get(..4).unwrap_or_default();
        let mut lines = file.text.lines().filter(|line| !line.is_empty());
        let title = lines.next().unwrap_or_default();
        let date = lines.next().and_then(|line| line.strip_prefix("Date: ")).unwrap_or_default();
        let dated = date.len() == 10 && date.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let numbered =
            number.bytes().all(|byte| byte.is_ascii_digit()) && name.as_bytes().get(4) == Some(&b'-');
        if !numbered
            || !title.starts_with(&format!("# {number}: "))
            || !dated
            || !numbers.insert(number.to_owned())
        {
            broken.push(file.path.clone());
        }
    }
    assert_none("decisions need their own number, a title and a date", broken);
}

/// What documents name must exist: files of the tree, and cases of spec-tests (`chapter/what-holds`).
#[test]
fn documents_name_what_exists() {
    let files = tracked();
    let code = |file: &&File| {
        let rooms = ["spec-tests/", "runtime/"];
        file.is_rust() && rooms.iter().any(|room| file.path.starts_with(room)) || file.path == ".ci/kernels"
    };
    let sources: String = files.iter().filter(code).map(|file| file.text.as_str()).collect();
    let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let exists = |path: &str| {
        let path = path.trim_start_matches("./").trim_end_matches('/');
        let found = |base: &str| {
            paths.iter().any(|file| {
                file.strip_prefix(base).is_some_and(|f| f == path || f.starts_with(&format!("{path}/")))
            })
        };
        let somewhere = !path.contains('/') && paths.iter().any(|file| file.ends_with(&format!("/{path}")));
        somewhere
            || ["", "runtime/", "runtime/src/", "docs/", "spec-tests/src/"].iter().any(|base| found(base))
    };
    let mut broken = Vec::new();
    for file in files.iter().filter(|file| {
        file.path.ends_with(".md") && (file.path.starts_with("docs/") || file.path == "README.md")
    }) {
        for word in file.text.split('`').skip(1).step_by(2) {
            let plain = !word.is_empty()
                && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte));
            let is_path = plain
                && (word.ends_with(".rs") || word.ends_with(".md") || word.ends_with('/'))
                && !word.starts_with('/');
            let is_case = plain
                && word.starts_with(|c: char| c.is_ascii_lowercase())
                && word.split('/').count() == 2
                && !is_path
                && word.contains('-')
                && !word.contains('.')
                && !exists(word);
            if is_path && !exists(word) || is_case && !is_case_of(&sources, word) {
                broken.push(format!("{}: `{word}`", file.path));
            }
        }
    }
    assert_none("documents name what is not there", broken);
}

/// Whether a case has this name: as it stands, or made of a row's name (`format!("mounts/option-{name}")`, `"ro"`), or of
/// several (`format!("mount-flags/{flags}")`), of which the chapter is enough, or told by .ci/kernels (`FAIL twins/x: …`).
fn is_case_of(sources: &str, word: &str) -> bool {
    let made = |(dash, _): (usize, &str)| {
        let (start, row) = word.split_at(dash + 1);
        let in_a_table = start.ends_with('/') || sources.contains(&format!("\"{row}\""));
        sources.contains(&format!("\"{start}{{")) && in_a_table
    };
    let quoted = [format!("\"{word}\""), format!("FAIL {word}:")];
    quoted.iter().any(|name| sources.contains(name)) || word.match_indices(['-', '/']).any(made)
}

/// What the code cites by number, `compatibility E5`, must be a row of docs/compatibility.md; nothing cites what is not in the tree.
#[test]
fn citations_lead_somewhere() {
    let files = tracked();
    let text = &files.iter().find(|file| file.path == "docs/compatibility.md").expect("the list").text;
    let rows: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()).collect();
    let mut broken = Vec::new();
    for file in files.iter().filter(|file| file.is_rust() && !file.path.ends_with("tests/tidy.rs")) {
        for (number, line) in file.text.lines().enumerate() {
            let comment = line.split_once("//").map_or("", |(_, comment)| comment);
            let cited = comment.split("compatibility ").skip(1).flat_map(|rest| {
                let rest = rest.split(')').next().unwrap_or_default();
                rest.split([',', ' ']).filter(|word| word.starts_with(|c: char| c.is_ascii_uppercase()))
            });
            let at = |what: &str| format!("{}:{}: {what}", file.path, number + 1);
            broken.extend(cited.filter(|id| !rows.contains(id)).map(at));
            broken.extend(comment.contains("(reference ").then(|| at("a reference that is not in the tree")));
        }
    }
    assert_none("citations lead nowhere", broken);
}

/// Each command has a page, each of its options stands in it, and a page promises none that is not there. `make man`
/// writes them anew.
#[test]
fn man_pages_and_help_agree() {
    let help = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_corten")).args(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let overview = help(&["--help"]);
    let commands =
        overview.lines().skip_while(|line| *line != "COMMANDS:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<&str> = commands
        .filter_map(|line| line.split_whitespace().next())
        .map(|word| word.trim_end_matches(','))
        .collect();
    assert!(commands.len() > 8, "the overview has no commands: {overview}");
    let mut broken = Vec::new();
    let mut pages = vec![("corten.8".to_owned(), overview.clone())];
    for command in commands.iter().filter(|command| !["help", "version"].contains(command)) {
        pages.push((format!("corten-{command}.8"), help(&[command, "--help"])));
    }
    for (name, help) in &pages {
        let Ok(page) = std::fs::read_to_string(root().join("docs/man").join(name)) else {
            broken.push(format!("{name} is missing"));
            continue;
        };
        let (has, wants) = (options(&page.replace("\\-", "-")), options(help));
        broken.extend(wants.difference(&has).map(|option| format!("{name} lacks {option}")));
        broken.extend(
            has.difference(&wants).map(|option| format!("{name} has {option}, which the program has not")),
        );
    }
    let known: BTreeSet<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
    for file in
        tracked().iter().filter(|file| file.path.starts_with("docs/man/") && file.path.ends_with(".8"))
    {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        // The shim's page is written by hand: its command line is containerd's.
        if name.starts_with("corten") && !known.contains(name) {
            broken.push(format!("{name}: the program has no such command"));
        }
    }
    assert_none("manual pages and help differ", broken);
}

/// The options that a help text or a page defines: words with dashes at the start of a line (after `.B` or `.BR`).
fn options(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let line = line.trim_start().trim_start_matches(".BR ").trim_start_matches(".B ");
        if !line.starts_with('-') {
            continue;
        }
        let defined = line.split("  ").next().unwrap_or_default();
        let words =
            defined.split([' ', ',', '"', '=']).filter(|word| word.len() > 1 && word.starts_with('-'));
        found.extend(words.map(str::to_owned));
    }
    found
}
