// SPDX-License-Identifier: Apache-2.0
//! Changing inputs: JSON by its structure, with values that were seen under the same key elsewhere, and anything by its
//! bytes.

use std::collections::BTreeMap;

use crate::json::Json;
use crate::random::Random;

/// What a target's inputs look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One byte that chooses the circumstances, and JSON.
    Json,
    /// Anything, with words that are likely to mean something.
    Bytes(&'static [&'static str]),
}

/// Longer inputs are not made: the bound of the promise "a second and 64 MiB for 1 MiB of input".
pub const LONGEST: usize = 1 << 20;

/// Bare values around which readings go wrong.
const NUMBERS: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "2",
    "3",
    "7",
    "255",
    "256",
    "340",
    "341",
    "1000",
    "1001",
    "4095",
    "4096",
    "65535",
    "65536",
    "65537",
    "1048575",
    "1048576",
    "2147483647",
    "2147483648",
    "-2147483648",
    "4294967294",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e3",
    "1.0",
    "0.5",
    "-0",
    "1e400",
    "-1e-400",
    "00",
    "0x10",
    "NaN",
    "123456789012345678901234567890",
];

/// Texts that mean trouble somewhere, as they are written in JSON.
const TEXTS: &[&str] = &[
    "",
    "/",
    "..",
    "../..",
    "/..",
    "/.",
    ".",
    "//",
    "/a/../..",
    "/proc",
    "/proc/",
    "/proc/self/fd/7",
    "/proc/cpuinfo",
    "/proc/sys/kernel/core_pattern",
    "/sys",
    "/sys/fs/cgroup",
    "/dev",
    "/dev/pts",
    "/dev/console",
    "a",
    "a/b",
    "\\u0000",
    "/a\\u0000b",
    "a\\nb",
    "\\u001b[2J",
    "%s%n",
    "\\u202e",
    "\\ud800",
    "\\udfff\\ud800",
    "é",
    "a=b",
    "=",
    "=b",
    "A=",
    "HOME=",
    "PATH=",
    "PATH=:::",
    "-1",
    "0",
    "4294967295",
    "0-",
    "0-3,7",
    "3-1",
    "0-99999999",
    "max",
    "*",
    ",",
    ":",
    "a:b:c",
    "\\\"",
    "\\\\",
    "a,b=c",
    "~0~1",
    "size=64k",
    "uid=0",
    "gid=5",
    "mode=755",
    "lowerdir=/a:/b",
    "context=\\\"a,b\\\"",
];

/// Keys and the values that were seen under them.
#[derive(Default)]
pub struct Words {
    by_key: BTreeMap<String, Vec<Json>>,
    keys: Vec<String>,
}

impl Words {
    /// Learns from an input.
    pub fn learn(&mut self, json: &Json) {
        json.visit("", &mut |key, value| {
            if value.count() > 60 {
                return;
            }
            let known = self.by_key.entry(key.to_owned()).or_default();
            if known.len() < 400 && !known.contains(value) {
                known.push(value.clone());
            }
        });
        self.keys = self.by_key.keys().cloned().collect();
    }

    fn any_value_of(&self, key: &str, random: &mut Random) -> Option<Json> {
        let known = self.by_key.get(key).filter(|known| !known.is_empty())?;
        Some(random.pick(known).clone())
    }

    fn any(&self, random: &mut Random) -> Option<(String, Json)> {
        let key = random.pick(self.keys.get(..).filter(|keys| !keys.is_empty())?);
        Some((key.clone(), self.any_value_of(key, random)?))
    }
}

/// Some changes of an input of that shape; `json` is what it reads as, if it does, `other` another input.
pub fn input(
    shape: Shape,
    input: &mut Vec<u8>,
    json: Option<&Json>,
    words: &Words,
    other: &[u8],
    random: &mut Random,
) {
    match (shape, json) {
        (Shape::Bytes(words), _) => bytes(input, words, other, random),
        (Shape::Json, Some(json)) if !random.one_in(10) => {
            let mut json = Json::clone(json);
            change_json(&mut json, words, random);
            let first = if random.one_in(8) { random.next() as u8 } else { input[0] };
            input.clear();
            input.push(first);
            json.write(input);
            input.truncate(LONGEST);
        }
        _ => bytes(input, &[], other, random),
    }
}

/// Some changes of a JSON text.
fn change_json(json: &mut Json, words: &Words, random: &mut Random) {
    for _ in 0..1 + random.small(6) {
        // Either all values are alike, or all the levels of the text are.
        let mut steps = if random.one_in(2) { random.below(json.count()) } else { usize::MAX };
        change(json, "", &mut steps, words, random);
    }
}

/// Goes down to a value and changes it; `steps` is how many values to pass in order, or `usize::MAX` for a walk that may end
/// at each.
fn change(json: &mut Json, key: &str, steps: &mut usize, words: &Words, random: &mut Random) {
    let length = json.length();
    if *steps == usize::MAX {
        if length == 0 || random.one_in(5) {
            return here(json, key, words, random);
        }
        if let Some((below, child)) = json.child(random.below(length)) {
            let below = if below.is_empty() { key.to_owned() } else { below.to_owned() };
            change(child, &below, steps, words, random);
        }
        return;
    }
    if *steps == 0 {
        return here(json, key, words, random);
    }
    *steps -= 1;
    for n in 0..length {
        let Some((below, child)) = json.child(n) else { return };
        let count = child.count();
        if *steps < count {
            let below = if below.is_empty() { key.to_owned() } else { below.to_owned() };
            return change(child, &below, steps, words, random);
        }
        *steps -= count;
    }
}

fn here(json: &mut Json, key: &str, words: &Words, random: &mut Random) {
    match random.below(16) {
        0 => *json = Json::Word(random.word(NUMBERS).to_owned()),
        1 => *json = Json::Text(random.word(TEXTS).to_owned()),
        2 => *json = Json::List(Vec::new()),
        3 => *json = Json::Map(Vec::new()),
        4..=6 => *json = words.any_value_of(key, random).unwrap_or_else(|| Json::Word("null".to_owned())),
        7 => nest(json, random),
        _ => match json {
            Json::Word(word) => change_number(word, random),
            Json::Text(text) => letters(text, random),
            Json::List(list) => elements(list, key, words, random),
            Json::Map(map) => members(map, words, random),
        },
    }
}

/// The value becomes an element, or an element of an element of …
fn nest(json: &mut Json, random: &mut Random) {
    let depth = if random.one_in(8) { 100 + random.below(60) } else { 1 + random.below(3) };
    for _ in 0..depth {
        let inner = std::mem::replace(json, Json::List(Vec::new()));
        *json = match random.one_in(2) {
            true => Json::List(vec![inner]),
            false => Json::Map(vec![("a".to_owned(), inner)]),
        };
    }
}

fn change_number(word: &mut String, random: &mut Random) {
    match (word.parse::<i128>(), random.below(6)) {
        (Ok(n), 0) => *word = (n + 1).to_string(),
        (Ok(n), 1) => *word = (n - 1).to_string(),
        (Ok(n), 2) => *word = n.wrapping_neg().to_string(),
        (Ok(n), 3) => *word = (n ^ (1 << random.below(64))).to_string(),
        (_, 4) => *word = random.next().to_string(),
        _ => *word = random.word(NUMBERS).to_owned(),
    }
}

fn letters(text: &mut String, random: &mut Random) {
    let at = (0..=random.below(text.len() + 1)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    match random.below(8) {
        0 => text.truncate(at),
        1 => drop(text.drain(..at)),
        2 => text.insert_str(at, random.word(TEXTS)),
        3 => text.insert(at, char::from(*random.pick(b"/.,:=-+_ aA0\\\"\n~*"))),
        4 => *text = text.repeat(2 + random.below(4)),
        // A backslash cut in half is a mutation of its own.
        5 if random.one_in(12) => *text = text.repeat((1 + random.small(100_000)) / text.len().max(1) + 1),
        6 => *text = if random.one_in(2) { text.to_uppercase() } else { text.to_lowercase() },
        _ => text.push_str(random.word(TEXTS)),
    }
}

fn elements(list: &mut Vec<Json>, key: &str, words: &Words, random: &mut Random) {
    let at = random.below(list.len());
    match random.below(6) {
        0 if !list.is_empty() => drop(list.remove(at)),
        1 if !list.is_empty() => {
            let other = random.below(list.len());
            list.swap(at, other);
        }
        2 if !list.is_empty() => list.insert(random.below(list.len() + 1), list[at].clone()),
        // 10,000 mounts …
        3 if !list.is_empty() && random.one_in(6) => {
            let value = list[at].clone();
            let most = if value.count() > 4 { 2000 } else { 20_000 };
            let many = 1 + random.small(most);
            list.extend(std::iter::repeat_n(value, many));
        }
        4 => list.truncate(at),
        _ => {
            let value = words.any_value_of(key, random).unwrap_or_else(|| Json::List(Vec::new()));
            match value {
                Json::List(values) if !values.is_empty() => list.push(random.pick(&values).clone()),
                value => list.push(value),
            }
        }
    }
}

fn members(map: &mut Vec<(String, Json)>, words: &Words, random: &mut Random) {
    let at = random.below(map.len());
    match random.below(6) {
        0 if !map.is_empty() => drop(map.remove(at)),
        1 if !map.is_empty() => map.push(map[at].clone()),
        2 if !map.is_empty() => letters(&mut map[at].0, random),
        3 if !map.is_empty() => {
            if let Some((key, _)) = words.any(random) {
                map[at].0 = key;
            }
        }
        _ => map.extend(words.any(random)),
    }
}

/// Some changes of bytes.
fn bytes(bytes: &mut Vec<u8>, words: &[&str], other: &[u8], random: &mut Random) {
    for _ in 0..1 + random.small(8) {
        let (at, length) = (random.below(bytes.len() + 1), random.small(bytes.len()));
        let end = (at + length).min(bytes.len());
        match random.below(10) {
            0 => drop(bytes.drain(at..end)),
            1 => bytes.truncate(at),
            2 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            3 if at < bytes.len() => bytes[at] = random.next() as u8,
            4 => bytes.insert(at, random.next() as u8),
            5 => {
                let copied = bytes[at..end].to_vec();
                let many = if random.one_in(40) { random.small(1000) } else { 1 };
                (0..many).for_each(|_| drop(bytes.splice(at..at, copied.iter().copied())));
            }
            6 if !other.is_empty() => {
                let from = random.below(other.len());
                let to = (from + 1 + random.small(other.len())).min(other.len());
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            _ if !words.is_empty() => {
                let word = random.pick(words);
                let end = if random.one_in(2) { at } else { (at + word.len()).min(bytes.len()) };
                bytes.splice(at..end, word.bytes());
            }
            _ => {}
        }
        if bytes.len() > LONGEST {
            bytes.truncate(LONGEST);
        }
    }
}
