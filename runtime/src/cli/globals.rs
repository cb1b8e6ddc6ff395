// SPDX-License-Identifier: Apache-2.0
//! The flags before the subcommand (compatibility G1 to G11).

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser};

use corten::ask::Manager;

use super::command;
use super::failure::Failure;
use super::flags::{self, Order};
use super::log::{Format, Level, Log};

/// What the program was called with.
pub struct Argv {
    /// The last part of argv\[0\].
    pub name: String,
    /// The rest.
    pub args: Vec<OsString>,
}

impl Argv {
    /// Of this process.
    pub fn read() -> Self {
        let mut args = std::env::args_os();
        let called = args.next().unwrap_or_default();
        let name = std::path::Path::new(&called).file_name().map(|name| name.to_string_lossy().into_owned());
        Argv { name: name.unwrap_or_else(|| "corten".to_owned()), args: args.collect() }
    }
}

/// Open Container Initiative runtime
#[derive(Debug, Parser)]
pub struct Globals {
    /// enable debug logging
    #[arg(long)]
    debug: bool,
    /// where messages go: a file, file:FILE, journald:IDENTIFIER or syslog:IDENTIFIER (default: stderr)
    #[arg(long)]
    log: Option<OsString>,
    /// the messages' format: text or json (default: "text")
    #[arg(long)]
    log_format: Option<String>,
    /// the least level that is logged: debug, info, warning or error (default: "info")
    #[arg(long)]
    log_level: Option<String>,
    /// directory of the containers' state, which should be on tmpfs (default: "/run/corten")
    #[arg(long)]
    pub root: Option<OsString>,
    /// accepted and ignored: criu is found through PATH
    #[arg(long)]
    criu: Option<OsString>,
    /// use systemd's cgroup driver; cgroupsPath is then "slice:prefix:name"
    #[arg(long)]
    systemd_cgroup: bool,
    /// the cgroup driver: cgroupfs, systemd or disabled (default: "cgroupfs")
    #[arg(long)]
    cgroup_manager: Option<String>,
    /// ignore cgroup permission errors: true, false or auto (default: "auto")
    #[arg(long)]
    rootless: Option<String>,
    /// print the version
    #[arg(long, short)]
    pub version: bool,
}

impl Globals {
    /// Reads the flags up to the first positional word; the words from there on are the subcommand's. There are
    /// none when help is wanted.
    ///
    /// # Errors
    /// Usage errors.
    pub fn parse(argv: &Argv) -> Result<(Globals, Vec<OsString>), Failure> {
        let usage = |message| Failure::Usage { message, help: command::overview_text(&argv.name) };
        let mut definition = command::bare(Globals::command());
        let line = flags::split(&definition, &argv.args, Order::FlagsFirst).map_err(usage)?;
        let words = if line.help { Vec::new() } else { line.words };
        let globals = definition
            .try_get_matches_from_mut(line.flags)
            .and_then(|mut matches| Globals::from_arg_matches_mut(&mut matches))
            .map_err(|error| usage(command::complaint(&error)))?;
        Ok((globals, words))
    }

    /// Opens the log.
    ///
    /// # Errors
    /// An unknown format or level, a file that does not open.
    pub fn log(&self) -> Result<Log, Failure> {
        let format = match self.log_format.as_deref() {
            None | Some("" | "text") => Format::Text,
            Some("json") => Format::Json,
            Some(other) => return Err(Failure::new(format!("invalid log-format: {other}"))),
        };
        let level = match self.log_level.as_deref() {
            _ if self.debug => Level::Debug,
            None | Some("" | "info") => Level::Info,
            Some("debug" | "trace") => Level::Debug,
            Some("warning" | "warn") => Level::Warning,
            Some("error" | "fatal" | "panic") => Level::Error,
            Some(other) => return Err(Failure::new(format!("invalid log-level: {other}"))),
        };
        Log::open(self.log.as_deref(), format, level)
    }

    /// The cgroup driver.
    ///
    /// # Errors
    /// An unknown one, or two different ones.
    pub fn manager(&self) -> Result<Manager, Failure> {
        let manager = match self.cgroup_manager.as_deref() {
            None | Some("") if self.systemd_cgroup => Manager::Systemd,
            None | Some("" | "cgroupfs") => Manager::Cgroupfs,
            Some("systemd") => Manager::Systemd,
            Some("disabled") => Manager::Disabled,
            Some(other) => return Err(Failure::new(format!("invalid cgroup-manager: {other}"))),
        };
        if self.systemd_cgroup && manager != Manager::Systemd {
            return Err(Failure::new("--systemd-cgroup contradicts --cgroup-manager"));
        }
        Ok(manager)
    }

    /// Whether a lack of permission for cgroups is put up with; `None`: as the situation is.
    ///
    /// # Errors
    /// Anything but a Boolean of Go's and `auto`.
    pub fn rootless(&self) -> Result<Option<bool>, Failure> {
        match self.rootless.as_deref() {
            None | Some("" | "auto") => Ok(None),
            Some("true" | "1" | "t" | "T" | "TRUE" | "True") => Ok(Some(true)),
            Some("false" | "0" | "f" | "F" | "FALSE" | "False") => Ok(Some(false)),
            Some(other) => Err(Failure::new(format!("invalid rootless: {other}"))),
        }
    }

    /// Warns about flags that were given and change nothing.
    pub fn warn(&self, log: &Log) {
        if self.criu.as_ref().is_some_and(|path| !path.is_empty()) {
            log.warn("--criu is ignored: criu is found through PATH");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<(Globals, Vec<OsString>), Failure> {
        Globals::parse(&Argv { name: "corten".into(), args: words.iter().map(OsString::from).collect() })
    }

    #[test]
    fn the_subcommand_and_its_flags_are_left_alone() {
        let (globals, words) = parse(&["--root", "/r", "-debug", "exec", "--root", "x"]).unwrap();
        assert_eq!(globals.root.as_deref(), Some("/r".as_ref()));
        assert!(globals.debug);
        assert_eq!(words, ["exec", "--root", "x"]);
        assert!(parse(&["-h", "create"]).unwrap().1.is_empty());
        assert!(parse(&["-v"]).unwrap().0.version);
        assert!(matches!(parse(&["--nope"]), Err(Failure::Usage { .. })));
    }

    #[test]
    fn the_driver() {
        let manager = |words: &[&str]| parse(words).unwrap().0.manager().ok();
        assert_eq!(manager(&[]), Some(Manager::Cgroupfs));
        assert_eq!(manager(&["--systemd-cgroup"]), Some(Manager::Systemd));
        assert_eq!(manager(&["--systemd-cgroup=false"]), Some(Manager::Cgroupfs));
        assert_eq!(manager(&["--cgroup-manager", "disabled"]), Some(Manager::Disabled));
        assert_eq!(manager(&["--cgroup-manager=systemd", "--systemd-cgroup"]), Some(Manager::Systemd));
        assert_eq!(manager(&["--cgroup-manager=disabled", "--systemd-cgroup"]), None);
        assert_eq!(manager(&["--cgroup-manager=x"]), None);
    }

    #[test]
    fn rootless() {
        let rootless = |words: &[&str]| parse(words).unwrap().0.rootless().ok();
        assert_eq!(rootless(&[]), Some(None));
        assert_eq!(rootless(&["--rootless", "auto"]), Some(None));
        assert_eq!(rootless(&["--rootless=true"]), Some(Some(true)));
        assert_eq!(rootless(&["--rootless=0"]), Some(Some(false)));
        assert_eq!(rootless(&["--rootless=maybe"]), None);
    }
}
