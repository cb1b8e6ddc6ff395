// SPDX-License-Identifier: Apache-2.0
//! What can be said of docs/engines/ and docs/packages.md without an engine: that `make docs-test` knows each block, that the files in them can be read, and that links
//! lead somewhere. What the blocks do is said by spec-tests/docs-test.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The pages whose blocks are executed.
fn pages() -> Vec<PathBuf> {
    let engines = fs::read_dir(root().join("docs/engines")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> = engines.filter(|page| !page.ends_with("README.md")).collect();
    pages.push(root().join("docs/packages.md"));
    pages
}

/// What stands behind a block's opening, and its lines.
fn blocks(page: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(page).unwrap();
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => found.push(block),
            (Some(info), None) => open = Some((info.to_owned(), String::new())),
            (None, Some((info, body))) => open = Some((info, body + line + "\n")),
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{}: a block without an end", page.display());
    found
}

/// The marks of a block, the reason of `not-run` as one.
fn marks(info: &str) -> Vec<String> {
    let (mut marks, mut quoted) = (vec![String::new()], false);
    for letter in info.chars() {
        quoted ^= letter == '"';
        match letter {
            ' ' if !quoted => marks.push(String::new()),
            _ => marks.last_mut().expect("never empty").push(letter),
        }
    }
    marks
}

fn is_mark(mark: &str) -> bool {
    let suites = |list: &str| list.split(',').all(|suite| ["bookworm", "trixie", "sid"].contains(&suite));
    mark == "user"
        || mark.strip_prefix("on=").is_some_and(suites)
        || mark.strip_prefix("exit=").is_some_and(|code| code.parse::<u8>().is_ok())
        || mark.strip_prefix("not-run=\"").is_some_and(|reason| reason.len() > 1 && reason.ends_with('"'))
        || mark.starts_with('/')
        || mark.starts_with("~/")
}

/// Whether a shell can read it; it executes nothing.
fn assert_shell(name: &str, script: &str) {
    let mut shell =
        Command::new("bash").arg("-n").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = shell.wait_with_output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn blocks_are_executed_or_say_why_not() {
    for page in pages() {
        let mut before = String::new();
        for (info, body) in blocks(&page) {
            let name = format!("{}: ```{info}", page.display());
            let marks = marks(&info);
            let is = |start: &str| marks.iter().any(|mark| mark.starts_with(start));
            assert!(marks.iter().skip(1).all(|mark| is_mark(mark)), "{name}: an unknown mark");
            match marks[0].as_str() {
                "text" => assert!(before.starts_with("sh"), "{name}: nothing has printed this"),
                "sh" => assert_shell(&name, &body),
                _ => assert!(is("/") || is("~/") || is("not-run"), "{name}: neither a file nor a reason"),
            }
            if marks[0] == "json" {
                serde_json::from_str::<serde_json::Value>(&body).expect(&name);
            }
            before = info;
        }
    }
}

/// The places that a page's links name, without what is elsewhere.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let ends = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    ends.filter(|to| !to.contains("://"))
}

/// Every page of Markdown there.
fn below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let (dirs, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let pages = files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "md"));
    pages.chain(dirs.iter().flat_map(|dir| below(dir))).collect()
}

/// The text without its blocks, and without what stands between single marks of code.
fn without_code(text: &str) -> String {
    let outside = text.split("```").step_by(2).collect::<String>();
    outside.split('`').step_by(2).collect()
}

/// As GitHub makes them of headings.
fn anchors(text: &str) -> Vec<String> {
    let kept = |letter: &char| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter);
    let anchor = |heading: &str| {
        heading.trim_start_matches(['#', ' ']).to_lowercase().chars().filter(kept).collect::<String>()
    };
    text.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line).replace(' ', "-")).collect()
}

#[test]
fn links_lead_somewhere() {
    let more = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "lab/README.md", "spec-tests/README.md"];
    let pages = below(&root().join("docs")).into_iter().chain(more.map(|page| root().join(page)));
    for page in pages {
        let text = without_code(&fs::read_to_string(&page).unwrap());
        for link in links(&text) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let to = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            assert!(to.exists(), "{}: {link} leads nowhere", page.display());
            let known = anchor.is_empty()
                || anchors(&fs::read_to_string(&to).unwrap()).iter().any(|known| known == anchor);
            assert!(known, "{}: {link}: no such heading", page.display());
        }
    }
}

/// Every literal of the two programs' sources, tests aside, as one text.
fn printed(dir: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            all += &printed(&entry);
        } else if entry.extension().is_some_and(|end| end == "rs") && !entry.ends_with("tests.rs") {
            let text = fs::read_to_string(&entry).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            all.extend(
                code.lines()
                    .filter(|line| !line.trim_start().starts_with("//"))
                    .map(|line| format!("{line}\n")),
            );
        }
    }
    all
}

/// docs/troubleshooting.md quotes what is really printed: the words between its `…` stand in the sources.
#[test]
fn quoted_errors_are_printed() {
    let page = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let ours = page.split("## Engines' lines").next().unwrap();
    let sources = ["runtime/src", "shim/src"].map(|dir| printed(&root().join(dir))).concat();
    let quoted: Vec<&str> =
        ours.lines().filter_map(|line| line.strip_prefix("| `")?.split("` |").next()).collect();
    assert!(quoted.len() > 20, "the table is not found: {quoted:?}");
    let mut missing = Vec::new();
    for line in quoted {
        let words =
            line.split('…').map(|words| words.trim_matches([' ', ':'])).filter(|words| !words.is_empty());
        missing.extend(words.filter(|words| !sources.contains(words)));
    }
    assert!(missing.is_empty(), "nothing prints: {missing:#?}");
}
