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
    /// What is to be done.
    pub action: Action,
}

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
            let switch = matches!(name, "debug" | "v" | "version" | "info");
            if value.is_none() && !switch {
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
            "v" | "version" if on => self.action = Action::Version,
            "info" if on => self.action = Action::Info,
            // publish-binary, socket, debug-socket, and what is to come.
            _ => {}
        }
    }

    fn act(&mut self, word: &str) {
        if self.action == Action::None {
            self.action = Action::of(word);
        }
    }
}

impl Action {
    fn of(word: &str) -> Action {
        match word {
            "start" => Action::Start,
            "delete" => Action::Delete,
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
