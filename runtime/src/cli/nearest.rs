// SPDX-License-Identifier: Apache-2.0
//! What somebody has probably meant by a word that is none of ours.

use super::command;
use super::failure::Failure;

/// runc's words (its test suite reads them), and what would be right: the nearest command, or where the list is.
pub fn unknown(name: &str, verb: &str) -> Failure {
    let known = command::subcommands().iter().map(|entry| entry.name).chain(["version", "help"]);
    let meant = nearest(verb, known).map(|near| format!("did you mean '{near}'?"));
    let advice = meant.unwrap_or_else(|| format!("'{name} help' lists the commands"));
    Failure::new(format!("No help topic for '{verb}': {advice}"))
}

/// The one of `known` that is at most a third of the word's letters away from it (but one letter of two, and of a
/// longer word two), or that it is the beginning of; the nearest, of several the first.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let word = word.to_lowercase();
    let letters = word.chars().count();
    let mut best: Option<(usize, &str)> = None;
    for candidate in known {
        let begins = letters >= 3 && candidate.starts_with(&word);
        let away = if begins { 1 } else { distance(&word, candidate) };
        if away <= (letters / 3).max(usize::from(letters > 2)) && best.is_none_or(|(least, _)| away < least) {
            best = Some((away, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// How many letters are to be put in, left out, replaced or swapped with their neighbour to make one of the other.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let (mut before, mut above) = (Vec::new(), (0..=other.len()).collect::<Vec<usize>>());
    for (row, letter) in one.iter().enumerate() {
        let mut line = vec![row + 1];
        for (column, wanted) in other.iter().enumerate() {
            let replaced = above[column] + usize::from(letter != wanted);
            let mut least = replaced.min(above[column + 1] + 1).min(line[column] + 1);
            if row > 0 && column > 0 && one[row - 1] == *wanted && *letter == other[column - 1] {
                let swapped: usize = before[column - 1];
                least = least.min(swapped + 1);
            }
            line.push(least);
        }
        (before, above) = (above, line);
    }
    above.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant() {
        let known =
            ["create", "delete", "exec", "kill", "list", "pause", "ps", "restore", "resume", "run", "start"];
        for (word, meant) in [
            ("creat", Some("create")),
            ("craete", Some("create")),
            ("DELETE", Some("delete")),
            ("remove", None),
            ("strat", Some("start")),
            ("stop", None),
            ("execute", None),
            ("res", Some("restore")),
            ("ls", None),
            ("x", None),
            ("", None),
            ("runn", Some("run")),
            ("nonsense", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word:?}");
        }
    }

    #[test]
    fn distances() {
        for (one, other, away) in
            [("", "abc", 3), ("abc", "abc", 0), ("abc", "acb", 1), ("kitten", "sitting", 3), ("é", "e", 1)]
        {
            assert_eq!((distance(one, other), distance(other, one)), (away, away), "{one} {other}");
        }
    }
}
