// SPDX-License-Identifier: Apache-2.0
//! What the programs print does not speak of runc as if they were it. Its words that clients match stay, and are listed here.

use super::{assert_none, tracked};

/// Literals with the word, by what is in them, and why they stay.
const STAYS: [(&str, &str); 11] = [
    ("cannot allocate tty if runc will detach", "compatibility E15"),
    ("cannot use console socket if runc will not detach", "compatibility E15"),
    ("io.containerd.runc.v2", "containerd's name of a runtime type"),
    ("containerd-shim-runc-v2", "a program's name"),
    ("runc.v1.", "containerd's name of a message"),
    ("linux.runc.", "containerd's name of a message"),
    ("org.opencontainers.runc.", "an annotation's name"),
    ("/etc/criu/runc.conf", "a file of runc's that CRIU reads"),
    ("the handler is runc's", "doctor speaks of a configuration of that runtime"),
    ("containerd takes only runc's", "doctor speaks of containerd's options"),
    ("asks only the type of runc", "doctor speaks of containerd's types"),
];

/// The string literals of a line that is no comment. One over several lines is seen line by line.
fn literals(line: &str) -> Vec<String> {
    if line.trim_start().starts_with("//") {
        return Vec::new();
    }
    let (mut all, mut open) = (Vec::new(), None::<String>);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (letter, &mut open) {
            ('\\', Some(text)) => text.extend([letter, letters.next().unwrap_or(' ')]),
            ('"', Some(_)) => all.extend(open.take()),
            (other, Some(text)) => text.push(other),
            ('"', None) => open = Some(String::new()),
            _ => {}
        }
    }
    all.extend(open);
    all
}

#[test]
fn no_message_speaks_of_runc() {
    let programs = ["runtime/src/", "runtime/stage/", "runtime/dbus/", "shim/src/"];
    let mut broken = Vec::new();
    let of_programs = |path: &str| programs.iter().any(|program| path.starts_with(program));
    for file in tracked().iter().filter(|file| file.is_program() && of_programs(&file.path)) {
        let code = file.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        for (line, number) in code.lines().zip(1..) {
            let speaks = |literal: &String| {
                // The name itself is compared with.
                let name = ["runc", "/runc"].contains(&literal.as_str());
                let stays = name || STAYS.iter().any(|(part, _)| literal.contains(part));
                literal.to_lowercase().contains("runc") && !literal.contains("trunc") && !stays
            };
            let found = literals(line).into_iter().filter(speaks);
            broken.extend(found.map(|literal| format!("{}:{number}: {literal:?}", file.path)));
        }
    }
    assert_none("messages that speak of runc", broken);
}

#[test]
fn literals_are_seen() {
    assert_eq!(literals(r#"    a("x \" y", b"z") // no"#), [r#"x \" y"#, "z"]);
    assert_eq!(literals(r#"/// "x""#), [""; 0]);
}
