// SPDX-License-Identifier: Apache-2.0
//! The walks of docs/ARCHITECTURE.md: every file of one exists, none stands twice in it, and it is as short as it says;
//! and the glossary's words are in the code.

use std::collections::BTreeSet;

use super::{File, assert_none, root, tracked};

/// What a newcomer asks first.
const WALKS: [&str; 7] = ["create", "subjects", "exec", "limit", "exit", "sandbox", "upgrade"];

struct Walk {
    name: String,
    most_files: usize,
    most_lines: usize,
    files: Vec<String>,
}

/// The blocks `walk NAME: at most N files, N lines`: a file on each line, and what it does.
fn walks(text: &str) -> Vec<Walk> {
    let walk = |block: &str| {
        let (head, rest) = block.split_once('\n')?;
        let (name, bounds) = head.split_once(':')?;
        let mut numbers = bounds.split(' ').filter_map(|word| word.parse().ok());
        let body = rest.split("```").next()?;
        let files = body.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned);
        Some(Walk {
            name: name.to_owned(),
            most_files: numbers.next()?,
            most_lines: numbers.next()?,
            files: files.collect(),
        })
    };
    text.split("```walk ").skip(1).filter_map(walk).collect()
}

#[test]
fn walks_lead_through_what_exists_and_are_short() {
    let text = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let walks = walks(&text);
    let names: Vec<&str> = walks.iter().map(|walk| walk.name.as_str()).collect();
    assert_eq!(names, WALKS, "the walks of docs/ARCHITECTURE.md");
    let mut broken = Vec::new();
    for Walk { name, most_files, most_lines, files } in &walks {
        let mut seen = BTreeSet::new();
        broken.extend(files.iter().filter(|file| !seen.insert(*file)).map(|f| format!("{name}: {f} twice")));
        let read =
            |file: &String| std::fs::read_to_string(root().join(file)).map(|text| text.lines().count());
        let counts: Vec<_> = files.iter().map(|file| (file, read(file))).collect();
        let missing = counts.iter().filter(|(_, count)| count.is_err());
        broken.extend(missing.map(|(file, _)| format!("{name}: {file} is not there")));
        let lines: usize = counts.iter().filter_map(|(_, count)| count.as_ref().ok()).sum();
        println!("yardstick: {name} {} / {lines}", files.len());
        if files.len() > *most_files || lines > *most_lines {
            let has = format!("{} files, {lines} lines", files.len());
            broken.push(format!("{name}: {has}, at most {most_files} and {most_lines}"));
        }
        // A bound that is far off says nothing.
        if lines * 4 < most_lines * 3 {
            broken.push(format!("{name}: {lines} lines, and the bound is still {most_lines}"));
        }
    }
    assert_none("walks of docs/ARCHITECTURE.md", broken);
}

/// The table of our own words: what its last column names stands in the file that it names, or anywhere in the code.
#[test]
fn the_glossary_names_what_is_in_the_code() {
    let text = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let section = text.split("## Words that are ours").nth(1).and_then(|rest| rest.split("\n## ").next());
    let rows = section.unwrap_or_default().lines().filter(|line| line.starts_with("| "));
    let code: Vec<File> = tracked().into_iter().filter(|file| file.is_rust() && file.is_program()).collect();
    let mut broken = Vec::new();
    let mut count = 0;
    for row in rows.skip(1) {
        count += 1;
        let place = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap_or_default();
        let (paths, names): (Vec<&str>, Vec<&str>) =
            place.split('`').skip(1).step_by(2).partition(|word| word.contains('/'));
        let named = |file: &&File| paths.is_empty() || paths.iter().any(|path| file.path.contains(path));
        for name in names.iter().filter_map(|name| name.rsplit("::").next()) {
            let defines = |file: &File| {
                file.text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
            };
            if !code.iter().filter(named).any(defines) {
                broken.push(format!("{name} of {place}"));
            }
        }
    }
    assert!(count > 20 || code.is_empty(), "the glossary has {count} rows");
    assert_none("the glossary names what is not in the code", broken);
}

#[test]
fn walks_are_read() {
    let text = "x\n```walk a: at most 2 files, 30 lines\nsrc/a.rs  does\nsrc/b.rs  too\n```\ny";
    let [walk] = &walks(text)[..] else { panic!("one walk") };
    assert_eq!((walk.name.as_str(), walk.most_files, walk.most_lines), ("a", 2, 30));
    assert_eq!(walk.files, ["src/a.rs", "src/b.rs"]);
}
