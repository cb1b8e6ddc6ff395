// SPDX-License-Identifier: Apache-2.0
//! The command line: words (one a line) → global flags, subcommand, its flags, and the strict readings of values.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crate::cli::command::{complaint, subcommands};
use crate::cli::failure::Failure;
use crate::cli::flags::{self, Order};
use crate::cli::globals::{Argv, Globals};
use crate::cli::values;
use crate::mutate::Shape;
use crate::targets::Target;

pub const TARGET: Target = Target { name: "arguments", shape: Shape::Bytes(WORDS), seeds, run, short: 1500 };
pub const VALUES: Target = Target {
    name: "values",
    shape: Shape::Bytes(VALUE_WORDS),
    seeds: value_seeds,
    run: values_run,
    short: 30_000,
};

const WORDS: &[&str] = &[
    "\n",
    "--",
    "-",
    "=",
    "\ncreate\n",
    "\nrun\n",
    "\nexec\n",
    "\nkill\n",
    "\nstart\n",
    "\ndelete\n",
    "\nlist\n",
    "\nps\n",
    "\nplan\n",
    "\nspec\n",
    "\nstate\n",
    "\nfeatures\n",
    "--root",
    "--log",
    "--log-format=json",
    "--debug",
    "-debug=false",
    "--bundle",
    "-b",
    "--config",
    "-f",
    "--console-socket",
    "--pid-file",
    "--no-pivot",
    "--preserve-fds",
    "-d",
    "-t",
    "-td",
    "-e",
    "A=b",
    "-u",
    "--user=1:2",
    "-g",
    "--cap",
    "--cwd",
    "--process",
    "-p",
    "--cgroup",
    "--all",
    "-a",
    "--force",
    "--help",
    "-h",
    "--version",
    "--systemd-cgroup",
    "--cgroup-manager",
    "disabled",
    "--rootless",
    "true",
    "4294967296",
    "-1",
];

fn message(text: &str) {
    // Words of the caller's are told as they are, but for what a terminal would do with them: the log quotes.
    assert!(!text.is_empty() && text.len() < 4 << 20);
}

fn failed(failure: &Failure) {
    match failure {
        Failure::Usage { message: text, help } => {
            message(text);
            assert!(help.starts_with("NAME:"));
        }
        Failure::Fatal { message: text, code } => {
            message(text);
            assert_ne!(*code, 0);
        }
        Failure::BrokenPipe => panic!("nothing was written"),
    }
}

fn run(input: &[u8]) -> bool {
    let args = input.split(|byte| *byte == b'\n').filter(|word| !word.contains(&0));
    let args: Vec<OsString> = args.map(|word| OsString::from_vec(word.to_vec())).collect();
    // execve(2) takes no more: words with their ends and pointers, in a quarter of the usual stack.
    if args.iter().map(|word| word.len() + 9).sum::<usize>() > 2 << 20 {
        return false;
    }
    let (globals, words) = match Globals::parse(&Argv { name: "corten".to_owned(), args }) {
        Ok(parsed) => parsed,
        Err(failure) => {
            failed(&failure);
            return false;
        }
    };
    if let Err(failure) = globals.manager() {
        failed(&failure);
    }
    let Some((verb, args)) = words.split_first() else { return false };
    let verb = verb.to_string_lossy();
    let Some(entry) = subcommands().iter().find(|entry| entry.name == verb) else { return false };
    let mut definition = entry.definition();
    let line = match flags::split(&definition, args, entry.order) {
        Ok(line) => line,
        Err(text) => {
            message(&text);
            return false;
        }
    };
    if line.help {
        return true;
    }
    // Nothing is lost on the way: each positional word is one of the arguments, in its order.
    let mut left = args.iter();
    assert!(line.words.iter().all(|word| left.any(|arg| arg == word)), "{:?} of {args:?}", line.words);
    if entry.order == Order::FlagsFirst && !line.words.is_empty() {
        assert!(args.ends_with(&line.words), "{:?} of {args:?}", line.words);
    }
    match definition.try_get_matches_from_mut(line.into_args()) {
        Ok(_) => true,
        Err(error) => {
            message(&complaint(&error));
            false
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = vec![
        b"--root\n/r\n-debug\nexec\n-t\n-e\nA=b\nbox\nls\n-l".to_vec(),
        b"run\n-b=/b\n--no-pivot\n--preserve-fds\n3\n--\nbox".to_vec(),
        b"kill\n--all\nbox\nSIGKILL".to_vec(),
    ];
    for entry in subcommands() {
        let mut line = format!("{}\nbox", entry.name);
        for arg in entry.definition().get_arguments().filter(|arg| !arg.is_positional()) {
            line.push_str(&format!("\n--{}=1", arg.get_long().unwrap_or_default()));
            seeds.push(line.clone().into_bytes());
        }
    }
    seeds
}

const VALUE_WORDS: &[&str] = &[
    "0",
    "1",
    ":",
    "+",
    "-",
    "SIG",
    "sig",
    "RTMIN",
    "RTMAX",
    "+30",
    "-31",
    "KILL",
    "term",
    "IOT",
    "cld",
    "=",
    "4294967295",
    "4294967294",
    "64",
    "65",
    " ",
    "0x",
    "\u{0661}",
];

/// The readings of single values, against what may pass at all.
fn values_run(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let id =
        |text: &str| digits(text).then(|| text.parse::<u128>().ok()).flatten().filter(|id| *id < 0xffff_ffff);
    let wide = |id: u32| Some(u128::from(id));
    match (values::user(text), text.split_once(':')) {
        (Ok((uid, None)), None) => assert_eq!(wide(uid), id(text), "{text:?}"),
        (Ok((uid, Some(gid))), Some((a, b))) => {
            assert_eq!((wide(uid), wide(gid)), (id(a), id(b)), "{text:?}")
        }
        (Ok(other), _) => panic!("{text:?} is {other:?}"),
        (Err(failure), split) => {
            failed(&failure);
            // More digits than any id has are an error as well.
            let good = |text: &str| id(text).is_some();
            assert!(!split.map_or(good(text), |(a, b)| good(a) && good(b)), "{text:?} was refused");
        }
    }
    assert_eq!(values::group(text).ok().map(u128::from), id(text), "{text:?}");
    let signal = values::signal(text);
    match &signal {
        Ok(number) => {
            assert!((0..=64).contains(number), "{text:?} is {number}");
            assert_eq!(values::signal(&text.to_ascii_lowercase()), Ok(*number), "in lower case");
            if digits(text) {
                assert_eq!(text.parse::<u128>(), Ok(number.unsigned_abs().into()));
            } else {
                assert!(text.is_ascii(), "{text:?}");
                let twin = text.to_ascii_uppercase();
                let twin = twin.strip_prefix("SIG").map_or(format!("SIG{twin}"), str::to_owned);
                assert_eq!(values::signal(&twin), Ok(*number), "with and without SIG");
            }
        }
        Err(failure) => failed(failure),
    }
    let variable = values::variable(text.to_owned());
    assert_eq!(variable.is_ok(), text.find('=').is_some_and(|at| at > 0), "{text:?}");
    assert_eq!(values::path(Some(text.into())).is_some(), !text.is_empty());
    assert_eq!(values::text(Some(text.to_owned())).is_some(), !text.is_empty());
    signal.is_ok() || values::user(text).is_ok()
}

fn value_seeds() -> Vec<Vec<u8>> {
    ["0", "1:2", "4294967294", "SIGKILL", "rtmin+3", "RTMAX-30", "A=b", "64"]
        .iter()
        .map(|text| text.as_bytes().to_vec())
        .collect()
}
