// SPDX-License-Identifier: Apache-2.0
//! `corten`, the command line: arguments become a [`Session`] and one verb's request, the verb is called, its
//! result becomes output and an exit code. One file per subcommand in `cli/`; what the verbs do is the library's.

#![forbid(unsafe_code)]

mod cli;

use cli::command::{self, Outcome, Session};
use cli::failure::{ERROR, EXEC_ERROR};
use cli::globals::{Argv, Globals};
use cli::log::Log;
use cli::root::RootDirectory;
use corten::ask::Home;
use corten::features::VERSION;

#[global_allocator]
static ALLOCATOR: corten::sys::bump::Bump = corten::sys::bump::Bump::new();

/// What launching the default bundle takes, rounded up.
const LAUNCH_MEMORY: usize = 176 * 1024;

fn main() {
    ALLOCATOR.own();
    let argv = Argv::read();
    // As is the code of every error; from the words alone, as what follows.
    ALLOCATOR.end_with(if argv.args.iter().any(|word| word == "exec") { EXEC_ERROR } else { ERROR });
    // A guess from the words alone, before anything else is done: all that depends on it is time.
    if argv.args.iter().any(|word| command::launches(word)) {
        ALLOCATOR.populate(LAUNCH_MEMORY);
    }
    let mut log = Log::default();
    let code = run(&argv, &mut log).unwrap_or_else(|failure| failure.report(&log));
    // Everything that is printed has been flushed, and `run` has dropped what needs it.
    corten::sys::wait::exit_at_once(code)
}

/// Everything between the arguments and the exit code.
fn run(argv: &Argv, log: &mut Log) -> Outcome {
    corten::sys::pages::protect_relocated()?;
    let (globals, words) = Globals::parse(argv)?;
    if globals.version {
        return command::version(&argv.name);
    }
    let Some((verb, args)) = words.split_first() else {
        return command::overview(&argv.name);
    };
    *log = globals.log()?;
    let root = RootDirectory::choose(globals.root.as_deref())?;
    let warn = |text: &str| log.warn(text);
    let home = Home {
        root: root.path.clone(),
        manager: globals.manager()?,
        rootless: globals.rootless()?,
        warn: &warn,
        trace: None,
    };
    globals.warn(log);
    log.debug(|| format!("corten {VERSION}: {} with root {}", verb.display(), root.path.display()));
    corten::sys::tty::keep_zombies();
    command::dispatch(&Session { name: &argv.name, home, root, log }, verb, args)
}
