// SPDX-License-Identifier: Apache-2.0
//! The container's /etc/passwd, the one thing that the stage reads there, against a reading by lines and fields. The first
//! four bytes are the user's id.

use crate::line::{HOME, PasswdHome, PasswdLine};
use crate::mutate::Shape;
use crate::targets::Target;

pub const TARGET: Target = Target { name: "passwd", shape: Shape::Bytes(WORDS), seeds, run, short: 20_000 };

const WORDS: &[&str] = &[
    ":",
    "\n",
    "::",
    "0",
    "1000",
    "root",
    "/root",
    "/home/me",
    ":x:",
    "\0",
    "4294967295",
    "18446744073709551616",
];

/// Longer homes are cut here.
const CUT: usize = HOME - 16;

fn run(input: &[u8]) -> bool {
    let Some((id, text)) = input.split_at_checked(4) else { return false };
    let uid = u32::from_le_bytes(id.try_into().unwrap());
    let mut home = PasswdHome::default();
    let mut line = PasswdLine::default();
    let found = text.iter().any(|byte| line.push(*byte, uid, &mut home)) || line.end(uid);
    let expected = expected(text, uid);
    let read = found.then(|| home.bytes());
    assert_eq!(read, expected.as_deref(), "{uid} in {:?}", text.escape_ascii().to_string());
    assert!(!home.bytes().contains(&0));
    found
}

/// Of the first line whose third field is the number and that has a sixth: that one.
fn expected(text: &[u8], uid: u32) -> Option<Vec<u8>> {
    let number = |field: &[u8]| {
        let digits = !field.is_empty() && field.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(field).ok().filter(|_| digits)?.trim_start_matches('0');
        if text.is_empty() { Some(0) } else { text.parse::<u32>().ok() }
    };
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let fields: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
        let home = fields.get(5).filter(|_| number(fields[2]) == Some(uid))?;
        Some(home.iter().copied().filter(|byte| *byte != 0).take(CUT).collect())
    })
}

fn seeds() -> Vec<Vec<u8>> {
    let text = b"root:x:0:0:root:/root:/bin/sh\n\nbad\nx:x:1x:1::/wrong:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\nlast:x:7:7::/end";
    [0_u32, 1000, 7, 1, u32::MAX].iter().map(|uid| [&uid.to_le_bytes()[..], text].concat()).collect()
}
