// SPDX-License-Identifier: Apache-2.0
//! Flags as Go programs take them (compatibility G14), put into the one shape that clap reads without doubt:
//! `--long=value`, then `--`, then the positional words.
//!
//! `-long` is `--long`; `--bool=false` works; a value may be the next word, whatever it begins with; the last of
//! several wins. A command may let its first positional word end the flags (`exec ID ls -l`).

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Arg, ArgAction, Command};

use super::nearest::nearest;

/// A command line, taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// Flags in clap's shape.
    pub flags: Vec<OsString>,
    /// The positional words.
    pub words: Vec<OsString>,
    /// Whether help was asked for; then nothing else counts.
    pub help: bool,
}

/// Whether flags may follow positional words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// They may.
    Mixed,
    /// The first positional word ends the flags.
    FlagsFirst,
}

/// Takes `args` apart by the flags that `command` defines.
///
/// # Errors
/// In Go's words: `flag provided but not defined: -x`, `flag needs an argument: -x` …
pub fn split(command: &Command, args: &[OsString], order: Order) -> Result<CommandLine, String> {
    let mut parser = Parser { command, line: CommandLine::default(), switches: Vec::new() };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_bytes() {
            b"--" => {
                parser.line.words.extend(args.cloned());
                break;
            }
            [b'-', _, ..] => parser.flag(arg, &mut args)?,
            _ => {
                parser.line.words.push(arg.clone());
                if order == Order::FlagsFirst {
                    parser.line.words.extend(args.cloned());
                    break;
                }
            }
        }
        if parser.line.help {
            break;
        }
    }
    Ok(parser.finish())
}

struct Parser<'a> {
    command: &'a Command,
    line: CommandLine,
    /// Boolean flags as last set.
    switches: Vec<(&'a str, bool)>,
}

impl<'a> Parser<'a> {
    /// One word that begins with a dash.
    fn flag<'w>(
        &mut self,
        word: &OsStr,
        next: &mut impl Iterator<Item = &'w OsString>,
    ) -> Result<(), String> {
        let bytes = word.as_bytes();
        let body = bytes.strip_prefix(b"--").unwrap_or(&bytes[1..]);
        let (name, value) = match body.iter().position(|byte| *byte == b'=') {
            Some(at) => (&body[..at], Some(&body[at + 1..])),
            None => (body, None),
        };
        if name.is_empty() || name[0] == b'-' {
            return Err(format!("bad flag syntax: {}", word.display()));
        }
        if is_help(name) {
            self.line.help = true;
            return Ok(());
        }
        match self.find(name) {
            Some(arg) => self.set(arg, name, value.map(OsStr::from_bytes), next),
            None if !bytes.starts_with(b"--") => self.cluster(name, value, next),
            None => self.miss(name, value, next),
        }
    }

    /// A long name that no flag has: one that a peer spells otherwise, or an error with the nearest one.
    fn miss<'w>(
        &mut self,
        name: &[u8],
        value: Option<&[u8]>,
        next: &mut impl Iterator<Item = &'w OsString>,
    ) -> Result<(), String> {
        match spelled_otherwise(name).and_then(|ours| self.find(ours)) {
            Some(arg) => self.set(arg, name, value.map(OsStr::from_bytes), next),
            None => Err(self.unknown(name)),
        }
    }

    fn unknown(&self, name: &[u8]) -> String {
        let name = show(name);
        let known = self.command.get_arguments().filter_map(Arg::get_long).chain(["help"]);
        match nearest(&name, known) {
            Some(near) => format!("flag provided but not defined: -{name} (did you mean --{near}?)"),
            None => format!("flag provided but not defined: -{name}"),
        }
    }

    /// `-td`: short flags in one word. Only the last may take a value.
    fn cluster<'w>(
        &mut self,
        letters: &[u8],
        value: Option<&[u8]>,
        next: &mut impl Iterator<Item = &'w OsString>,
    ) -> Result<(), String> {
        let Some((last, switches)) = letters.split_last() else { return Err(self.unknown(letters)) };
        let all: Option<Vec<&Arg>> = switches.iter().map(|letter| self.find(&[*letter])).collect();
        let (Some(all), Some(arg)) = (all, self.find(&[*last])) else {
            return self.miss(letters, value, next);
        };
        if switches.is_empty() || !all.iter().all(|arg| is_switch(arg)) {
            return self.miss(letters, value, next);
        }
        for switch in all {
            self.set(switch, letters, None, next)?;
        }
        self.set(arg, letters, value.map(OsStr::from_bytes), next)
    }

    fn find(&self, name: &[u8]) -> Option<&'a Arg> {
        self.command.get_arguments().find(|arg| {
            arg.get_long().is_some_and(|long| long.as_bytes() == name)
                || arg.get_short().is_some_and(|short| name.len() == 1 && char::from(name[0]) == short)
        })
    }

    fn set<'w>(
        &mut self,
        arg: &'a Arg,
        name: &[u8],
        value: Option<&OsStr>,
        next: &mut impl Iterator<Item = &'w OsString>,
    ) -> Result<(), String> {
        let long = arg.get_long().unwrap_or_default();
        if is_switch(arg) {
            let on = boolean(name, value)?;
            self.switches.retain(|(known, _)| *known != long);
            self.switches.push((long, on));
            return Ok(());
        }
        let value = match value {
            Some(value) => value,
            None => next.next().ok_or_else(|| format!("flag needs an argument: -{}", show(name)))?,
        };
        let mut flag = OsString::from(format!("--{long}="));
        flag.push(value);
        self.line.flags.push(flag);
        Ok(())
    }

    fn finish(mut self) -> CommandLine {
        let on = self.switches.iter().filter(|(_, on)| *on);
        self.line.flags.extend(on.map(|(long, _)| OsString::from(format!("--{long}"))));
        self.line
    }
}

impl CommandLine {
    /// The line as clap takes it.
    pub fn into_args(self) -> Vec<OsString> {
        let mut args = self.flags;
        args.push(OsString::from("--"));
        args.extend(self.words);
        args
    }
}

fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

/// Go's strconv.ParseBool; a flag alone is true.
fn boolean(name: &[u8], value: Option<&OsStr>) -> Result<bool, String> {
    match value.map(OsStr::as_bytes) {
        None | Some(b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True") => Ok(true),
        Some(b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False") => Ok(false),
        Some(other) => {
            Err(format!("invalid boolean value {:?} for -{}: parse error", show(other), show(name)))
        }
    }
}

/// Go's names of help, and those of argp, which crun has.
fn is_help(name: &[u8]) -> bool {
    matches!(name, b"help" | b"h" | b"?" | b"usage")
}

/// Our name of a flag that crun calls `name`.
fn spelled_otherwise(name: &[u8]) -> Option<&'static [u8]> {
    (name == b"V").then_some(b"version")
}

fn show(bytes: &[u8]) -> String {
    OsString::from_vec(bytes.to_vec()).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        Command::new("t")
            .arg(Arg::new("bundle").long("bundle").short('b').action(ArgAction::Set))
            .arg(Arg::new("env").long("env").short('e').action(ArgAction::Append))
            .arg(Arg::new("detach").long("detach").short('d').action(ArgAction::SetTrue))
            .arg(Arg::new("tty").long("tty").short('t').action(ArgAction::SetTrue))
            .arg(Arg::new("id").num_args(0..))
    }

    /// `words` → flags | positional words, or the error.
    fn check(order: Order, words: &str, expected: &str) {
        let args: Vec<OsString> = words.split(' ').filter(|w| !w.is_empty()).map(OsString::from).collect();
        let shown = match split(&command(), &args, order) {
            Ok(CommandLine { help: true, .. }) => "help".to_owned(),
            Ok(line) => {
                let join = |words: &[OsString]| {
                    words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
                };
                format!("{}|{}", join(&line.flags), join(&line.words))
            }
            Err(error) => error,
        };
        assert_eq!(shown, expected, "{words}");
    }

    #[test]
    fn go_style_flags() {
        for (words, expected) in [
            ("", "|"),
            ("-bundle x id", "--bundle=x|id"),
            ("--bundle=x id", "--bundle=x|id"),
            ("-b=x id", "--bundle=x|id"),
            ("-b x id", "--bundle=x|id"),
            ("--b x id", "--bundle=x|id"),
            ("-b -d id", "--bundle=-d|id"),
            ("--bundle= id", "--bundle=|id"),
            ("-e A=1 --env B=2=3", "--env=A=1 --env=B=2=3|"),
            ("--detach --detach=false", "|"),
            ("--detach=false -detach", "--detach|"),
            ("-d=1 id", "--detach|id"),
            ("-td id", "--tty --detach|id"),
            ("-tb x id", "--bundle=x --tty|id"),
            ("-tb=x id", "--bundle=x --tty|id"),
            ("id -d", "--detach|id"),
            ("id -- -d", "|id -d"),
            ("- id", "|- id"),
            ("id --help -x", "help"),
            ("-h", "help"),
            ("-?", "help"),
            ("--usage", "help"),
            ("-x", "flag provided but not defined: -x"),
            ("--foo=1", "flag provided but not defined: -foo"),
            ("--bundel=1", "flag provided but not defined: -bundel (did you mean --bundle?)"),
            ("-detatch", "flag provided but not defined: -detatch (did you mean --detach?)"),
            ("--Env x", "flag provided but not defined: -Env (did you mean --env?)"),
            ("-bt x", "flag provided but not defined: -bt"),
            ("-b", "flag needs an argument: -b"),
            ("--detach=maybe", "invalid boolean value \"maybe\" for -detach: parse error"),
            ("---b", "bad flag syntax: ---b"),
            ("--=b", "bad flag syntax: --=b"),
        ] {
            check(Order::Mixed, words, expected);
        }
    }

    #[test]
    fn the_first_positional_word_may_end_the_flags() {
        for (words, expected) in [
            ("-t id ls -l", "--tty|id ls -l"),
            ("-t -- id ls -l", "--tty|id ls -l"),
            ("id -h", "|id -h"),
            ("id -- ls", "|id -- ls"),
            ("id --tty=x", "|id --tty=x"),
        ] {
            check(Order::FlagsFirst, words, expected);
        }
    }

    #[test]
    fn a_value_need_not_be_utf8() {
        let args = [OsString::from("-b"), OsString::from_vec(vec![b'/', 0xff])];
        let line = split(&command(), &args, Order::Mixed).unwrap();
        assert_eq!(line.flags, [OsString::from_vec(b"--bundle=/\xff".to_vec())]);
    }
}
