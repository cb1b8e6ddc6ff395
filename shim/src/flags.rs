// SPDX-License-Identifier: Apache-2.0
//! The command line that containerd gives: Go's single-dash flags, then an action.
//!
//! A flag that we do not know is passed over: a newer containerd may have more of them, and failing would cost every
//! container on the machine.

#![forbid(unsafe_code)]

use std::path::PathBuf;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    /// Nothing was asked: usage.
    #[default]
    None,
    /// Have a server for the container and tell its address.
    Start,
    /// Clean up after a container whose server is gone.
    Delete,
    /// Tell what the runtime can do.
    Info,
    /// Tell our version.
    Version,
    /// Have servers that run go on as another program.
    Upgrade,
    /// Tell whether we could go on with what another program hands over.
    UpgradeCheck,
    /// Go on with it.
    TakeOver,
}

/// The flags (containerd: pkg/shim, `parseFlags`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Flags {
    /// containerd's namespace.
    pub namespace: String,
    /// containerd's gRPC socket; part of the server's name.
    pub address: String,
    /// The container.
    pub id: String,
    /// Its bundle; only with `delete`, else it is the working directory.
    pub bundle: Option<PathBuf>,
    /// Verbose log.
    pub debug: bool,
    /// `upgrade`: all servers.
    pub all: bool,
    /// `upgrade`: the program to go on as, if it is not this one.
    pub binary: Option<PathBuf>,
    /// `upgrade`: where servers' sockets are, if they are not where containerd has them.
    pub socket_dir: Option<PathBuf>,
    /// `take-over`: why the program after us has not taken over.
    pub refused: Option<String>,
    /// What is to be done.
    pub action: Action,
    /// What follows the action.
    pub operands: Vec<String>,
}

/// Flags that have a value, whatever that looks like: a container may be called as an action is.
const VALUED: [&str; 10] = [
    "namespace",
    "address",
    "id",
    "bundle",
    "publish-binary",
    "socket",
    "debug-socket",
    "binary",
    "socket-dir",
    "refused",
];

impl Flags {
    /// Reads the arguments (without the program's name).
    pub fn parse(args: impl IntoIterator<Item = String>) -> Flags {
        let mut flags = Flags::default();
        let mut args = args.into_iter().peekable();
        while let Some(arg) = args.next() {
            let Some(flag) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) else {
                flags.act(&arg);
                continue;
            };
            let (name, mut value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let switch = matches!(name, "debug" | "v" | "version" | "info" | "all");
            if value.is_none() && VALUED.contains(&name) {
                value = args.next();
            } else if value.is_none() && !switch {
                value = args.next_if(|next| !next.starts_with('-') && Action::of(next) == Action::None);
            }
            flags.set(name, value);
        }
        flags
    }

    fn set(&mut self, name: &str, value: Option<String>) {
        let on = value.as_deref().is_none_or(|value| matches!(value, "true" | "1" | "t" | "T" | "TRUE"));
        let text = value.unwrap_or_default();
        match name {
            "namespace" => self.namespace = text,
            "address" => self.address = text,
            "id" => self.id = text,
            "bundle" => self.bundle = Some(text).filter(|text| !text.is_empty()).map(PathBuf::from),
            "debug" => self.debug = on,
            "all" => self.all = on,
            "binary" => self.binary = Some(PathBuf::from(text)),
            "socket-dir" => self.socket_dir = Some(PathBuf::from(text)),
            "refused" => self.refused = Some(text),
            "v" | "version" if on => self.action = Action::Version,
            "info" if on => self.action = Action::Info,
            // publish-binary, socket, debug-socket, and what is to come.
            _ => {}
        }
    }

    fn act(&mut self, word: &str) {
        match self.action {
            Action::None => self.action = Action::of(word),
            _ => self.operands.push(word.to_owned()),
        }
    }
}

impl Action {
    fn of(word: &str) -> Action {
        match word {
            "start" => Action::Start,
            "delete" => Action::Delete,
            "upgrade" => Action::Upgrade,
            "upgrade-check" => Action::UpgradeCheck,
            "take-over" => Action::TakeOver,
            _ => Action::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Flags {
        Flags::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_lines_of_containerd_read() {
        let start = parse("-namespace n -address /a.sock -publish-binary /usr/bin/containerd -id c1 start");
        assert_eq!(
            (start.namespace.as_str(), start.address.as_str(), start.id.as_str()),
            ("n", "/a.sock", "c1")
        );
        assert_eq!((start.action, start.debug, start.bundle), (Action::Start, false, None));
        let delete = parse("-namespace n -address a -id c1 -bundle /b -debug delete");
        assert_eq!((delete.action, delete.debug), (Action::Delete, true));
        assert_eq!(delete.bundle, Some("/b".into()));
        assert_eq!(parse("-v").action, Action::Version);
        assert_eq!(parse("--version").action, Action::Version);
        assert_eq!(parse("-info").action, Action::Info);
        assert_eq!(parse("").action, Action::None);
    }

    #[test]
    fn a_container_may_be_called_as_an_action() {
        let flags = parse("-namespace delete -id upgrade -publish-binary start start");
        assert_eq!((flags.namespace.as_str(), flags.id.as_str()), ("delete", "upgrade"));
        assert_eq!(flags.action, Action::Start);
        let flags = parse("upgrade --all -binary /x");
        assert_eq!((flags.action, flags.all, flags.binary), (Action::Upgrade, true, Some("/x".into())));
        let flags = parse("-id c take-over 17 -refused no");
        assert_eq!(
            (flags.action, flags.operands, flags.refused),
            (Action::TakeOver, vec!["17".into()], Some("no".into()))
        );
    }

    #[test]
    fn both_dashes_and_equal_signs() {
        let flags = parse("--namespace=n -id=x --debug=false start");
        assert_eq!((flags.namespace.as_str(), flags.id.as_str(), flags.debug), ("n", "x", false));
        assert_eq!(flags.action, Action::Start);
    }

    #[test]
    fn an_unknown_flag_is_passed_over_with_its_value() {
        let flags = parse("-future start -id x");
        assert_eq!((flags.action, flags.id.as_str()), (Action::Start, "x"));
        let flags = parse("-future some/value -future2=3 -id x start");
        assert_eq!((flags.action, flags.id.as_str()), (Action::Start, "x"));
    }
}
