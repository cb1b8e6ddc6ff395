// SPDX-License-Identifier: Apache-2.0
//! The table of commands and flags in docs/compatibility.md, beside runc's and crun's: what a peer has, Corten has, or refuses by name.
//!
//! `make flags` (`CORTEN_BLESS=1`) writes the table anew and, where the lab's peers are, first what their helps say (`tests/data/flags/`).

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "clippy knows the functions marked as tests, not their helpers")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

const CORTEN: &str = env!("CARGO_BIN_EXE_corten");
const PEERS: [&str; 2] = ["runc", "crun"];
/// The lines of docs/compatibility.md between which the table stands.
const BEGIN: &str = "<!-- flags: written by `make flags` -->";
const END: &str = "<!-- /flags -->";

/// argp's spellings of --help, which Corten takes without listing them.
const UNLISTED: [&str; 2] = ["--usage", "-?"];
/// What a peer has and Corten refuses: command, flag (or none: the whole command), and words of the refusal.
const REFUSED: [(&str, &str, &str); 0] = [];
/// What is taken and does nothing, or not the same.
const DIFFERENT: [(&str, &str, &str); 8] = [
    ("", "--criu", "ignored, with a warning"),
    ("create", "--no-subreaper", "nothing to do: create is no subreaper"),
    ("exec", "--tty", "as a value true and false, not crun's no"),
    ("kill", "--all", "runc takes it without listing it"),
    ("kill", "--regex", "a failure for one is told, keeps it from no other, and ends with 1"),
    ("delete", "--regex", "a failure for one is told, keeps it from no other, and ends with 1"),
    ("update", "--kernel-memory", "ignored, with a warning: the kernel has no such limit any more"),
    ("update", "--kernel-memory-tcp", "as --kernel-memory"),
];

/// By command ("" is none: what all have), each flag's long name (or its only one) with its short ones.
type Flags = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn data(peer: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/flags").join(peer)
}

fn said(program: &Path, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output().unwrap();
    assert!(output.status.success(), "{} {words:?}: {output:?}", program.display());
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that a help lists.
fn commands(help: &str) -> Vec<String> {
    let listed = help.split("\nCOMMANDS:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    names.map(|name| name.trim_end_matches(',').to_owned()).filter(|name| name != "help").collect()
}

/// The flags that a help lists: lines that begin with them. Names are what begins with a dash before the explanation.
fn flags(help: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut all = BTreeMap::new();
    for line in help.lines().map(str::trim_start).filter(|line| line.starts_with('-')) {
        let name = |word: &str| {
            let end = word.find(['=', '[', ',']).unwrap_or(word.len());
            word[..end].to_owned()
        };
        // An explanation is two blanks away, or behind a lone word for the value.
        let words = line.split("  ").next().unwrap().split_whitespace();
        let names: BTreeSet<String> = words.filter(|word| word.starts_with('-')).map(name).collect();
        let (long, short): (BTreeSet<String>, BTreeSet<String>) =
            names.into_iter().partition(|name| name.starts_with("--"));
        let chief = long.first().or(short.first()).unwrap().clone();
        all.insert(chief, short);
    }
    all
}

fn flags_of(program: &Path) -> Flags {
    let help = said(program, &["--help"]);
    let global = help.split("GLOBAL OPTIONS:").nth(1).unwrap_or(help.split("\n\n").nth(2).unwrap_or(&help));
    let mut all = Flags::from([(String::new(), flags(global))]);
    for command in commands(&help) {
        let flags =
            if command == "version" { BTreeMap::new() } else { flags(&said(program, &[&command, "--help"])) };
        all.insert(command, flags);
    }
    all
}

/// A peer's flags as they are kept: its version, then a line for each command.
fn kept(version: &str, all: &Flags) -> String {
    let mut text = format!("{version}\n");
    for (command, flags) in all {
        text += if command.is_empty() { "*" } else { command };
        for (long, short) in flags {
            text +=
                &format!(" {}", std::iter::once(long).chain(short).cloned().collect::<Vec<_>>().join(","));
        }
        text += "\n";
    }
    text
}

fn read(peer: &str) -> (String, Flags) {
    let text = std::fs::read_to_string(data(peer)).unwrap();
    let (version, lines) = text.split_once('\n').unwrap();
    let flags = |words: std::str::SplitWhitespace<'_>| {
        let names = words.map(|word| word.split(',').map(str::to_owned).collect::<Vec<_>>());
        names.map(|names| (names[0].clone(), names[1..].iter().cloned().collect())).collect()
    };
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next().unwrap().replace('*', ""), flags(words))
    };
    (version.to_owned(), lines.lines().map(line).collect())
}

/// The peers' helps, read anew where the lab has them.
fn renew() {
    let lab = std::env::var_os("CORTEN_LAB").map(PathBuf::from);
    let lab =
        lab.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/corten-lab"))).unwrap();
    for peer in PEERS {
        let program = lab.join("peers").join(peer);
        if !program.exists() {
            println!("not run: no {peer} in the lab, its flags stay as they are kept");
            continue;
        }
        let version = said(&program, &["--version"]);
        let version = version.lines().next().unwrap().replace("version ", "");
        std::fs::write(data(peer), kept(&version, &flags_of(&program))).unwrap();
    }
}

/// What is to be said of a flag, as the end of its row.
fn note(command: &str, flag: &str) -> String {
    let found = DIFFERENT.iter().find(|(of, name, _)| *of == command && *name == flag);
    found.map_or(" |".to_owned(), |(_, _, text)| format!(" {text} |"))
}

/// One row for each command and for each flag that one of the three has.
fn table(ours: &Flags, peers: &[(String, Flags)]) -> String {
    let mut text = format!(
        "| command | flag | corten | {} | {} | |\n|---|---|---|---|---|---|\n",
        peers[0].0, peers[1].0
    );
    let everybody = || std::iter::once(ours).chain(peers.iter().map(|(_, flags)| flags));
    let commands: BTreeSet<&String> = everybody().flat_map(Flags::keys).collect();
    let empty = BTreeMap::new();
    for command in commands {
        let name = if command.is_empty() { "global".to_owned() } else { format!("`{command}`") };
        let cell = |has: bool| if has { "yes" } else { "–" };
        if !command.is_empty() {
            let has: Vec<_> = everybody().map(|flags| cell(flags.contains_key(command))).collect();
            let refused = REFUSED.iter().any(|(of, flag, _)| of == command && flag.is_empty());
            text += &format!(
                "| {name} | | {} |{}\n",
                has.join(" | "),
                if refused { " refused by name |" } else { " |" }
            );
        }
        let of = |flags: &Flags| flags.get(command).unwrap_or(&empty).clone();
        let flags: BTreeSet<String> = everybody().flat_map(|flags| of(flags).into_keys()).collect();
        let everywhere = |flag: &String| flag == "--help" || UNLISTED.contains(&flag.as_str());
        for flag in flags.into_iter().filter(|flag| !everywhere(flag)) {
            let short: BTreeSet<String> =
                everybody().flat_map(|flags| of(flags).remove(&flag).unwrap_or_default()).collect();
            let names =
                std::iter::once(&flag).chain(&short).map(|name| format!("`{name}`")).collect::<Vec<_>>();
            let has = |flags: &Flags| of(flags).contains_key(&flag);
            let cells: Vec<_> = everybody().map(|flags| cell(has(flags))).collect();
            let note = note(command, &flag);
            text += &format!("| {name} | {} | {} |{note}\n", names.join(" "), cells.join(" | "));
        }
    }
    text
}

#[test]
fn the_table_is_what_the_helps_say() {
    let bless = std::env::var_os("CORTEN_BLESS").is_some();
    if bless {
        renew();
    }
    let page = root().join("docs/compatibility.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (stands, after) = rest.split_once(END).unwrap();
    let table = table(&flags_of(Path::new(CORTEN)), &PEERS.map(read));
    if bless {
        std::fs::write(&page, format!("{before}{BEGIN}\n\n{table}\n{END}{after}")).unwrap();
        return;
    }
    assert!(stands.trim() == table.trim(), "docs/compatibility.md and the help differ: make flags");
}

/// What a peer has, Corten has or refuses by name.
#[test]
fn no_peer_has_more() {
    let ours = flags_of(Path::new(CORTEN));
    let mut missing = Vec::new();
    for peer in PEERS {
        for (command, flags) in read(peer).1 {
            let Some(of_ours) = ours.get(&command) else {
                if !REFUSED.iter().any(|(of, flag, _)| *of == command && flag.is_empty()) {
                    missing.push(format!("{peer} {command}"));
                }
                continue;
            };
            for (long, short) in flags {
                let names = short.iter().chain([&long]);
                let has = |name: &String| {
                    UNLISTED.contains(&name.as_str())
                        || of_ours.contains_key(name)
                        || of_ours.get(&long).is_some_and(|short| short.contains(name))
                        // crun's second spelling of -v.
                        || command.is_empty() && name == "-V"
                };
                missing
                    .extend(names.filter(|name| !has(name)).map(|name| format!("{peer} {command} {name}")));
            }
        }
    }
    assert_eq!(missing, [""; 0], "neither taken nor refused by name");
}

#[test]
fn refusals_name_the_reason() {
    for (command, flag, words) in REFUSED {
        let output = Command::new(CORTEN)
            .args([command, flag].iter().filter(|word| !word.is_empty()))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{command} {flag}");
        assert!(
            text.contains(words) && text.contains(command) && text.lines().count() == 1,
            "{command} {flag}: {text}"
        );
    }
}
