// SPDX-License-Identifier: Apache-2.0
//! How a call ends when it does not end well: what is said, where, and the exit code (compatibility G5, G12, G16).

use super::log::Log;
use super::output;

/// The exit code of every error but those of `exec`.
pub const ERROR: u8 = 1;
/// The exit code of the runtime's own errors in `exec`: the user's program may well use 1.
pub const EXEC_ERROR: u8 = 255;

/// An unsuccessful end. It is reported once, by [`Failure::report`], as the last thing a call does.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The call itself is wrong: `help` goes to stdout, `message` is logged.
    Usage {
        /// What is wrong.
        message: String,
        /// How it would be right.
        help: String,
    },
    /// The call failed.
    Fatal {
        /// Why.
        message: String,
        /// The exit code.
        code: u8,
    },
    /// Whoever read our output went away: nothing to say, and nobody to say it to.
    BrokenPipe,
}

impl Failure {
    /// A failure with the ordinary exit code.
    pub fn new(message: impl Into<String>) -> Self {
        Failure::Fatal { message: message.into(), code: ERROR }
    }

    /// The same failure, introduced by `prefix` (`runc create failed`).
    #[must_use]
    pub fn under(self, prefix: &str) -> Self {
        match self {
            Failure::Fatal { message, code } => {
                Failure::Fatal { message: format!("{prefix}: {message}"), code }
            }
            other => other,
        }
    }

    /// The same failure with another exit code.
    #[must_use]
    pub fn exiting(self, code: u8) -> Self {
        match self {
            Failure::Fatal { message, .. } => Failure::Fatal { message, code },
            other => other,
        }
    }

    /// Says it, and gives the exit code.
    pub fn report(&self, log: &Log) -> u8 {
        match self {
            Failure::Usage { message, help } => {
                // What is wrong comes first: the help is longer than a screen. A reader that is gone misses the help; the message still goes to the log.
                let _ = output::print(&format!("Incorrect Usage: {}\n\n{help}", output::one_line(message)));
                log.fatal(message);
                ERROR
            }
            Failure::Fatal { message, code } => {
                log.fatal(message);
                *code
            }
            Failure::BrokenPipe => output::SIGPIPE_CODE,
        }
    }
}

impl From<corten::Error> for Failure {
    fn from(error: corten::Error) -> Self {
        Failure::new(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_and_code_are_added_to_fatal_failures_only() {
        let failure = Failure::new("container does not exist").under("exec failed").exiting(EXEC_ERROR);
        let message = "exec failed: container does not exist".to_owned();
        assert_eq!(failure, Failure::Fatal { message, code: 255 });
        assert_eq!(Failure::BrokenPipe.under("x").exiting(9), Failure::BrokenPipe);
    }
}
