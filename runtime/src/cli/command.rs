// SPDX-License-Identifier: Apache-2.0
//! Subcommands: what each is made of, the table of them, and the way from words to a running one.

use std::ffi::{OsStr, OsString};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory, FromArgMatches};

use corten::ask::Home;
use corten::features::{COMMIT, OCI_VERSION_MAX, VERSION};

use super::failure::Failure;
use super::flags::{self, Order};
use super::log::Log;
use super::root::RootDirectory;
use super::{
    checkpoint, create, delete, doctor, events, exec, features, kill, list, mounts, pause, plan, ps, restore,
    resume, run, setup, spec, start, state, trace, update,
};
use super::{help, nearest, output};

/// An exit code, or what went wrong.
pub type Outcome = Result<u8, Failure>;

/// What every subcommand is given besides its own flags.
pub struct Session<'a> {
    /// The program's name as it was called (`runc`, where a link of that name points at us).
    pub name: &'a str,
    /// The state root, the cgroup driver, the receiver of warnings.
    pub home: Home<'a>,
    /// Where the state root comes from.
    pub root: RootDirectory,
    /// Where messages go.
    pub log: &'a Log,
}

/// How many positional words a subcommand takes.
#[derive(Debug, Clone, Copy)]
pub struct Arity {
    /// At least this many.
    pub min: usize,
    /// At most this many.
    pub max: usize,
}

impl Arity {
    pub const fn exactly(count: usize) -> Self {
        Arity { min: count, max: count }
    }

    /// `"corten create" requires exactly 1 argument(s)`, when `count` is wrong.
    fn complaint(self, call: &str, count: usize) -> Option<String> {
        let (how, expected) = match self {
            Arity { min, max } if (min..=max).contains(&count) => return None,
            Arity { min, max } if min == max => ("exactly", min),
            Arity { min, .. } if count < min => ("a minimum of", min),
            Arity { max, .. } => ("a maximum of", max),
        };
        Some(format!("\"{call}\" requires {how} {expected} argument(s)"))
    }
}

/// A subcommand. Its flags are the fields of the implementing type, their texts its documentation.
pub trait Verb: CommandFactory + FromArgMatches {
    /// How it is called.
    const NAME: &'static str;
    /// What follows the name in the help's usage line.
    const USAGE: &'static str;
    /// How many positional words it takes.
    const ARITY: Arity;
    /// Whether its first positional word ends the flags.
    const ORDER: Order = Order::Mixed;

    /// Does it.
    ///
    /// # Errors
    /// What is to be reported; nothing of it has been logged.
    fn run(self, session: &Session<'_>) -> Outcome;
}

/// One line of the table: a [`Verb`] without its type.
pub struct Subcommand {
    /// How it is called.
    pub name: &'static str,
    /// Whether its first positional word ends the flags.
    pub order: Order,
    usage: &'static str,
    definition: fn() -> Command,
    run: fn(&Session<'_>, Order, &[OsString]) -> Outcome,
}

const fn subcommand<V: Verb>() -> Subcommand {
    Subcommand {
        name: V::NAME,
        order: V::ORDER,
        usage: V::USAGE,
        definition: definition::<V>,
        run: call::<V>,
    }
}

/// The subcommands, in the order of the help.
const SUBCOMMANDS: [Subcommand; 22] = [
    subcommand::<checkpoint::CheckpointCommand>(),
    subcommand::<create::CreateCommand>(),
    subcommand::<delete::DeleteCommand>(),
    subcommand::<doctor::DoctorCommand>(),
    subcommand::<events::EventsCommand>(),
    subcommand::<exec::ExecCommand>(),
    subcommand::<features::FeaturesCommand>(),
    subcommand::<kill::KillCommand>(),
    subcommand::<list::ListCommand>(),
    subcommand::<mounts::MountsCommand>(),
    subcommand::<pause::PauseCommand>(),
    subcommand::<plan::PlanCommand>(),
    subcommand::<ps::PsCommand>(),
    subcommand::<restore::RestoreCommand>(),
    subcommand::<resume::ResumeCommand>(),
    subcommand::<run::RunCommand>(),
    subcommand::<setup::SetupCommand>(),
    subcommand::<spec::SpecCommand>(),
    subcommand::<start::StartCommand>(),
    subcommand::<state::StateCommand>(),
    subcommand::<trace::TraceCommand>(),
    subcommand::<update::UpdateCommand>(),
];

impl Subcommand {
    /// Its flags and positional words.
    pub fn definition(&self) -> Command {
        (self.definition)()
    }
}

pub fn subcommands() -> &'static [Subcommand] {
    &SUBCOMMANDS
}

/// Whether this verb launches a process, and so takes memory.
pub fn launches(verb: &OsStr) -> bool {
    ["create", "exec", "restore", "run"].iter().any(|name| verb == *name)
}

/// Runs the subcommand called `verb`.
///
/// # Errors
/// Those of the subcommand, or that there is none of that name.
pub fn dispatch(session: &Session<'_>, verb: &OsStr, args: &[OsString]) -> Outcome {
    let verb = verb.to_string_lossy();
    if let Some(entry) = find(&verb) {
        return (entry.run)(session, entry.order, args);
    }
    match &*verb {
        "help" | "h" => match args.first().map(|topic| topic.to_string_lossy()) {
            None => overview(session.name),
            Some(topic) => explain(session.name, &topic),
        },
        "version" => version(session.name),
        verb => Err(nearest::unknown(session.name, verb)),
    }
}

/// Prints version, commit and the specification's version; clients read the first line (compatibility G11).
///
/// # Errors
/// Those of the output.
pub fn version(name: &str) -> Outcome {
    output::print(&format!("{name} version {VERSION}\ncommit: {COMMIT}\nspec: {OCI_VERSION_MAX}\n"))?;
    Ok(0)
}

/// Prints the general help.
///
/// # Errors
/// Those of the output.
pub fn overview(name: &str) -> Outcome {
    output::print(&overview_text(name))?;
    Ok(0)
}

/// The general help.
pub fn overview_text(name: &str) -> String {
    let about = |entry: &Subcommand| {
        let about = entry.definition().get_about().map(ToString::to_string);
        (entry.name.to_owned(), about.unwrap_or_default())
    };
    let mut commands: Vec<_> = subcommands().iter().map(about).collect();
    commands.push(("version".to_owned(), "prints the version".to_owned()));
    commands.push(("help, h".to_owned(), "shows a list of commands, or help for one command".to_owned()));
    help::overview(name, &commands, &super::globals::Globals::command())
}

fn explain(name: &str, topic: &str) -> Outcome {
    let Some(entry) = find(topic) else {
        return Err(nearest::unknown(name, topic));
    };
    output::print(&help::command(name, entry.usage, &entry.definition()))?;
    Ok(0)
}

fn find(name: &str) -> Option<&'static Subcommand> {
    subcommands().iter().find(|entry| entry.name == name)
}

fn definition<V: Verb>() -> Command {
    bare(V::command()).name(V::NAME)
}

/// A clap command without clap's own help, version and usage.
pub fn bare(command: Command) -> Command {
    command.no_binary_name(true).disable_help_flag(true).disable_version_flag(true).args_override_self(true)
}

/// Words → flags → the verb.
fn call<V: Verb>(session: &Session<'_>, order: Order, args: &[OsString]) -> Outcome {
    let mut definition = definition::<V>();
    let line = match flags::split(&definition, args, order) {
        Ok(line) => line,
        Err(message) => return Err(usage::<V>(session.name, message)),
    };
    if line.help {
        return explain(session.name, V::NAME);
    }
    let called = format!("{} {}", session.name, V::NAME);
    if let Some(message) = V::ARITY.complaint(&called, line.words.len()) {
        return Err(usage::<V>(session.name, message));
    }
    let parsed = definition
        .try_get_matches_from_mut(line.into_args())
        .and_then(|mut matches| V::from_arg_matches_mut(&mut matches));
    match parsed {
        Ok(verb) => verb.run(session),
        Err(error) => Err(usage::<V>(session.name, complaint(&error))),
    }
}

fn usage<V: Verb>(name: &str, message: String) -> Failure {
    Failure::Usage { message, help: help::command(name, V::USAGE, &definition::<V>()) }
}

/// What clap refuses, in Go's words. After [`flags::split`] only values are left to refuse.
pub fn complaint(error: &clap::Error) -> String {
    if error.kind() == ErrorKind::InvalidUtf8 {
        return "a path may be any bytes, every other argument must be UTF-8".to_owned();
    }
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    let flag = text(ContextKind::InvalidArg);
    // `--preserve-fds <PRESERVE_FDS>` → `preserve-fds`
    let flag = flag.split(' ').next().unwrap_or_default().trim_start_matches('-');
    let why = std::error::Error::source(error).map_or("parse error".to_owned(), ToString::to_string);
    format!("invalid value {:?} for flag -{flag}: {why}", text(ContextKind::InvalidValue))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_definition_is_sound() {
        for entry in subcommands() {
            let definition = entry.definition();
            assert!(definition.get_about().is_some(), "{} says what it does", entry.name);
            for arg in definition.get_arguments().filter(|arg| !arg.is_positional()) {
                assert!(arg.get_long().is_some(), "{}: {} has a long name", entry.name, arg.get_id());
                assert!(arg.get_help().is_some(), "{}: {} is explained", entry.name, arg.get_id());
            }
            definition.debug_assert();
        }
    }

    #[test]
    fn wrong_counts_read_like_runcs() {
        let check = |min, max, count| Arity { min, max }.complaint("runc x", count);
        assert_eq!(check(1, 1, 1), None);
        assert_eq!(check(1, 1, 2).unwrap(), "\"runc x\" requires exactly 1 argument(s)");
        assert_eq!(check(1, 2, 0).unwrap(), "\"runc x\" requires a minimum of 1 argument(s)");
        assert_eq!(check(1, 2, 3).unwrap(), "\"runc x\" requires a maximum of 2 argument(s)");
        assert_eq!(check(1, usize::MAX, 300), None);
    }
}
