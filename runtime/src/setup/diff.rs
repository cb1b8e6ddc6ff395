// SPDX-License-Identifier: Apache-2.0
//! The difference of two texts as `diff -u` tells it. Pure.

#![forbid(unsafe_code)]

use std::fmt::Write;
use std::path::Path;

/// Unchanged lines around a change.
const AROUND: usize = 3;
/// Above this many pairs of lines no common ones are looked for between the first and the last difference.
const PAIRS: usize = 4 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum DiffSide {
    Both,
    Old,
    New,
}

/// From `old` to `new`; `None` is a file that is not there.
pub(super) fn unified(path: &Path, old: Option<&str>, new: Option<&str>) -> String {
    let name = |text: Option<&str>| text.map_or("/dev/null".to_owned(), |_| path.display().to_string());
    let (before, after): (Vec<&str>, Vec<&str>) = (
        old.unwrap_or_default().split_inclusive('\n').collect(),
        new.unwrap_or_default().split_inclusive('\n').collect(),
    );
    let lines = compared(&before, &after);
    let mut text = format!("--- {}\n+++ {}\n", name(old), name(new));
    let changed = |at: usize| lines.get(at).is_some_and(|(side, _)| *side != DiffSide::Both);
    let mut at = 0;
    while let Some(first) = (at..lines.len()).find(|at| changed(*at)) {
        let start = first.saturating_sub(AROUND).max(at);
        let mut end = first;
        // Changes with few lines between them are told in one piece.
        while let Some(next) = (end..lines.len().min(end + 2 * AROUND + 1)).find(|at| changed(*at)) {
            end = next + 1;
        }
        end = (end + AROUND).min(lines.len());
        piece(&mut text, &lines, start, end);
        at = end;
    }
    text
}

fn piece(text: &mut String, lines: &[(DiffSide, &str)], start: usize, end: usize) {
    let count = |range: std::ops::Range<usize>, other: DiffSide| {
        lines.get(range).unwrap_or_default().iter().filter(|(side, _)| *side != other).count()
    };
    let place = |other| {
        let (before, length) = (count(0..start, other), count(start..end, other));
        // Of no lines the number is that of the line before.
        format!("{},{length}", before + usize::from(length > 0))
    };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "@@ -{} +{} @@", place(DiffSide::New), place(DiffSide::Old));
    for (side, line) in lines.get(start..end).unwrap_or_default() {
        text.push(match side {
            DiffSide::Both => ' ',
            DiffSide::Old => '-',
            DiffSide::New => '+',
        });
        text.push_str(line);
        if !line.ends_with('\n') {
            text.push_str("\n\\ No newline at end of file\n");
        }
    }
}

/// The longest common lines, between what is the same at the beginning and at the end.
fn compared<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(DiffSide, &'a str)> {
    let start = old.iter().zip(new).take_while(|(one, other)| one == other).count();
    let (rest, other) = (&old[start..], &new[start..]);
    let end = rest.iter().rev().zip(other.iter().rev()).take_while(|(one, other)| one == other).count();
    let (one, two) = (&rest[..rest.len() - end], &other[..other.len() - end]);
    let both = |lines: &[&'a str]| lines.iter().map(|line| (DiffSide::Both, *line)).collect::<Vec<_>>();
    let mut all = both(&old[..start]);
    if one.len().saturating_mul(two.len()) > PAIRS {
        all.extend(one.iter().map(|line| (DiffSide::Old, *line)));
        all.extend(two.iter().map(|line| (DiffSide::New, *line)));
    } else {
        all.extend(common(one, two));
    }
    all.extend(both(&rest[rest.len() - end..]));
    all
}

fn common<'a>(one: &[&'a str], two: &[&'a str]) -> Vec<(DiffSide, &'a str)> {
    // How many lines are common from here on.
    let width = two.len() + 1;
    let mut longest = vec![0_u32; (one.len() + 1) * width];
    for at in (0..one.len()).rev() {
        for to in (0..two.len()).rev() {
            longest[at * width + to] = match one[at] == two[to] {
                true => longest[(at + 1) * width + to + 1] + 1,
                false => longest[(at + 1) * width + to].max(longest[at * width + to + 1]),
            };
        }
    }
    let (mut at, mut to, mut all) = (0, 0, Vec::new());
    while at < one.len() || to < two.len() {
        let old = at < one.len();
        if old && to < two.len() && one[at] == two[to] {
            all.push((DiffSide::Both, one[at]));
            (at, to) = (at + 1, to + 1);
        } else if old && (to == two.len() || longest[(at + 1) * width + to] >= longest[at * width + to + 1]) {
            all.push((DiffSide::Old, one[at]));
            at += 1;
        } else {
            all.push((DiffSide::New, two[to]));
            to += 1;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_like_diff_u() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl";
        let new = "a\nb\nc\nD\ne\nf\ng\nh\ni\nj\nk\nl\nm\n";
        let wanted = "--- /f\n+++ /f\n@@ -1,7 +1,7 @@\n a\n b\n c\n-d\n+D\n e\n f\n g\n@@ -9,4 +9,5 @@\n i\n j\n k\n-l\n\\ No newline at end of file\n+l\n+m\n";
        assert_eq!(unified(Path::new("/f"), Some(old), Some(new)), wanted);
        let made = "--- /dev/null\n+++ /f\n@@ -0,0 +1,1 @@\n+a\n";
        assert_eq!(unified(Path::new("/f"), None, Some("a\n")), made);
        let gone = "--- /f\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-a\n";
        assert_eq!(unified(Path::new("/f"), Some("a\n"), None), gone);
    }
}
