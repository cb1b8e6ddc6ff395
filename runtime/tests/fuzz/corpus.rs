// SPDX-License-Identifier: Apache-2.0
//! Inputs that are kept: `tests/data/fuzz/TARGET`, one a line, in printable ASCII with the rest as `\xNN`.

use std::collections::HashSet;
use std::path::PathBuf;

/// The committed corpus holds at most this much of each target.
const MOST: usize = 24 * 1024;

fn path(target: &str) -> PathBuf {
    // From both workspaces that have this file.
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../runtime/tests/data/fuzz").join(target)
}

/// The committed inputs.
pub fn load(target: &str) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(path(target)).unwrap_or_default();
    text.lines().map(unescape).collect()
}

/// Replaces the committed inputs.
pub fn save(target: &str, inputs: &[Vec<u8>]) {
    let mut text = String::new();
    for input in inputs {
        escape(input, &mut text);
        text.push('\n');
    }
    std::fs::create_dir_all(path(target).parent().unwrap()).unwrap();
    std::fs::write(path(target), text).unwrap();
}

fn escape(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
}

fn unescape(line: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(line.len());
    let mut rest = line.as_bytes();
    while let [first, tail @ ..] = rest {
        let (byte, tail) = match (first, tail) {
            (b'\\', [b'x', a, b, tail @ ..]) => {
                let digits = [*a, *b];
                let digits = std::str::from_utf8(&digits).unwrap();
                (u8::from_str_radix(digits, 16).unwrap(), tail)
            }
            (b'\\', [_, tail @ ..]) => (b'\\', tail),
            _ => (*first, tail),
        };
        bytes.push(byte);
        rest = tail;
    }
    bytes
}

/// Of inputs with what each reaches, few and short ones that reach the same, up to the bound: always the one next that
/// reaches most for its length.
pub fn smallest_cover(inputs: Vec<(Vec<u8>, Vec<u32>)>, known: &HashSet<u32>) -> Vec<Vec<u8>> {
    let mut left: Vec<(Vec<u8>, HashSet<u32>)> = inputs
        .into_iter()
        .map(|(input, reached)| (input, reached.into_iter().filter(|edge| !known.contains(edge)).collect()))
        .collect();
    let (mut chosen, mut size) = (Vec::new(), 0);
    loop {
        left.retain(|(input, new)| !new.is_empty() && size + input.len() < MOST);
        let worth = |(input, new): &(Vec<u8>, HashSet<u32>)| new.len() * 1_000_000 / (input.len() + 40);
        let Some(best) = (0..left.len()).max_by_key(|index| worth(&left[*index])) else { break };
        let (input, new) = left.swap_remove(best);
        size += input.len();
        chosen.push(input);
        left.iter_mut().for_each(|(_, reached)| reached.retain(|edge| !new.contains(edge)));
    }
    chosen.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
    chosen
}

#[test]
fn any_bytes_survive_the_file() {
    let all: Vec<u8> = (0..=255).chain(*b"\\x41\\\\").collect();
    let mut text = String::new();
    escape(&all, &mut text);
    assert!(text.is_ascii() && !text.contains('\n'));
    assert_eq!(unescape(&text), all);
}

#[test]
fn the_corpus_is_small() {
    let folder = path("");
    let sizes = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    let size: u64 = sizes.sum();
    println!("{size} bytes");
    assert!(size <= 300 * 1024, "the corpus has {size} bytes");
}
