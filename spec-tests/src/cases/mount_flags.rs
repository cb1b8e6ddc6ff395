// SPDX-License-Identifier: Apache-2.0
//! Flags of bind mounts: docs/mount-flags.md, every cell of both tables.

#![forbid(unsafe_code)]

use std::fs;

use nix::mount::{MsFlags, mount};

use crate::check;
use crate::harness::bundle::Bundle;
use crate::harness::case::{Case, Trouble, Verdict, case};
use crate::harness::host::Need;
use crate::harness::report::Report;
use crate::harness::test::Test;

const TABLES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/mount-flags.md"));

/// One cell: the flags of the source, the options of the bind, and what comes of it.
struct Cell {
    source: &'static str,
    options: Vec<&'static str>,
    want: &'static str,
}

/// The chapter: a case for each source and either half of the document.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (heading, userns) in [("## Without a user namespace", false), ("## In a user namespace", true)] {
        for source in sources() {
            let word = if source.is_empty() { "nothing".to_owned() } else { source.replace(' ', "-") };
            let place = if userns { "-in-a-user-namespace" } else { "" };
            let row = move |t: &Test| column(t, source, &cells(heading, source), userns);
            all.push(
                case(format!("mount-flags/{word}{place}"), row)
                    .needs(&[Need::Kernel("attributes of a whole tree", 5, 12)])
                    .runc(runc(source, userns))
                    .crun(
                        "clears every flag unless `ro` is given, knows no symfollow and takes no option back",
                    ),
            );
        }
    }
    all
}

/// Why runc differs, if it does.
fn runc(source: &str, userns: bool) -> &'static str {
    let atime = ["noatime", "nodiratime", "strictatime"].iter().any(|flag| source.contains(flag));
    match userns {
        _ if atime => "an access time that is declined stays",
        true if ["nosuid", "nodev", "noexec", "ro"].contains(&source) => {
            "refuses norelatime once another flag is locked, and `rw` beside `rro`"
        }
        true => "does not say what of `rnoatime` is locked",
        _ => "",
    }
}

fn rows(heading: &str) -> impl Iterator<Item = Vec<&'static str>> {
    let lines = TABLES.lines().skip_while(move |line| *line != heading).skip(2);
    let lines = lines.take_while(|line| line.starts_with('|'));
    lines.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect())
}

fn sources() -> Vec<&'static str> {
    let head = rows("## Without a user namespace").next().unwrap_or_default();
    head.into_iter().skip(1).map(|source| if source == "nothing" { "" } else { source }).collect()
}

fn cells(heading: &'static str, source: &'static str) -> Vec<Cell> {
    let column = sources().iter().position(|other| *other == source).map_or(0, |index| index + 1);
    let cell = |row: Vec<&'static str>| Cell {
        source,
        options: if row[0] == "none" { Vec::new() } else { row[0].split(' ').collect() },
        want: row.get(column).copied().unwrap_or("?"),
    };
    rows(heading).skip(2).map(cell).collect()
}

/// All that can be had in one container; what is refused, each by itself.
fn column(t: &Test, source: &str, cells: &[Cell], userns: bool) -> Verdict {
    check!(cells.len() > 30, "{} rows are not the document's", cells.len());
    fs::create_dir(t.path("src"))?;
    t.mount("tmpfs", "tmpfs", &t.path("src"), MsFlags::empty(), "")?;
    if !source.is_empty() {
        // A bind remount changes the mount, and says all of it.
        mount(None::<&str>, &t.path("src"), None::<&str>, flags(source)?, None::<&str>)?;
    }
    let at = |index: usize| format!("/m/{index}");
    let with = |b: Bundle, index: usize, cell: &Cell| {
        let options: Vec<&str> = ["bind"].iter().chain(&cell.options).copied().collect();
        b.mount("bind", &t.file("src"), &at(index), &options)
    };
    // Root of a user namespace may not make them in the host's directory.
    let bundle = || {
        let b = t.bundle().map(|b| if userns { b.user_namespace() } else { b })?;
        (0..cells.len()).try_fold(b, |b, index| b.dir(&at(index), 0o755))
    };
    let (refused, had): (Vec<_>, Vec<_>) =
        cells.iter().enumerate().partition(|(_, cell)| cell.want.starts_with('✗'));
    let all = had.iter().try_fold(bundle()?, |b, (index, cell)| Ok::<_, Trouble>(with(b, *index, cell)))?;
    let report = t.report(&all)?;
    let wrong = had.iter().filter_map(|(index, cell)| differs(&report, &at(*index), cell));
    let mut wrong: Vec<String> = wrong.collect();
    for (index, cell) in refused {
        let done = t.run(&with(bundle()?, index, cell))?;
        let names = cell.want.trim_start_matches('✗').split(',').map(str::trim);
        let unnamed = names.filter(|name| !says(&done.stderr, name)).count();
        if done.code == 0 || unnamed != 0 || done.errors().len() != 1 {
            wrong.push(format!("{} on {}: {done}", cell.options.join(","), cell.source));
        }
    }
    check!(wrong.is_empty(), "{} of {}: {}", wrong.len(), cells.len(), wrong.join("; "));
    Ok(())
}

/// By our name or by the kernel's, in which runc lists them.
fn says(text: &str, name: &str) -> bool {
    let kernel = match name {
        "ro" => "MS_RDONLY",
        "the access time" | "nodiratime" => "ATIME",
        _ => "",
    };
    let upper = format!("MS_{}", name.to_uppercase());
    text.contains(name) || text.contains(&upper) || (!kernel.is_empty() && text.contains(kernel))
}

fn differs(report: &Report, at: &str, cell: &Cell) -> Option<String> {
    const FLAGS: [&str; 7] = ["ro", "nosuid", "nodev", "noexec", "nosymfollow", "noatime", "nodiratime"];
    let what = format!("{} on {}", cell.options.join(","), cell.source);
    let Ok(mount) = report.mount(at) else { return Some(format!("{what}: not mounted")) };
    let held: Vec<&str> =
        mount.0["options"].as_array().into_iter().flatten().filter_map(|one| one.as_str()).collect();
    // mountinfo does not say strictatime.
    let strict = !held.contains(&"noatime") && !held.contains(&"relatime");
    let mut got: Vec<&str> = FLAGS.iter().filter(|flag| held.contains(flag)).copied().collect();
    got.extend(strict.then_some("strictatime"));
    let mut want: Vec<&str> = cell.want.split(' ').filter(|flag| *flag != "·").collect();
    got.sort_unstable();
    want.sort_unstable();
    (got != want).then(|| format!("{what}: {got:?}, not {want:?}"))
}

fn flags(words: &str) -> Result<MsFlags, Trouble> {
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    for word in words.split(' ') {
        flags |= match word {
            "ro" => MsFlags::MS_RDONLY,
            "nosuid" => MsFlags::MS_NOSUID,
            "nodev" => MsFlags::MS_NODEV,
            "noexec" => MsFlags::MS_NOEXEC,
            "noatime" => MsFlags::MS_NOATIME,
            "nodiratime" => MsFlags::MS_NODIRATIME,
            "strictatime" => MsFlags::MS_STRICTATIME,
            "nosymfollow" => MsFlags::from_bits_retain(0x100),
            other => return Err(format!("no flag {other}").into()),
        };
    }
    Ok(flags)
}
