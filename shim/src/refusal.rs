// SPDX-License-Identifier: Apache-2.0
//! The shim's one error: what a caller is told, with the code that containerd maps to its own errors.

#![forbid(unsafe_code)]

use std::fmt;

use containerd_shim_protos::ttrpc::{Code, Status};
use corten::error::{Error, Kind};

/// Shorthand.
pub type Result<T, E = Refusal> = std::result::Result<T, E>;

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// gRPC's code.
    pub code: Code,
    /// One line for people, in the words that clients look for.
    pub text: String,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident $code:ident),*) => {
        impl Refusal {
            $($(#[$doc])* pub fn $name(text: impl Into<String>) -> Refusal {
                Refusal { code: Code::$code, text: text.into() }
            })*
        }
    };
}

kinds! {
    /// No such container, process or group.
    not_found NOT_FOUND,
    /// The id is taken.
    exists ALREADY_EXISTS,
    /// The request cannot be meant.
    invalid INVALID_ARGUMENT,
    /// Its state forbids it.
    state FAILED_PRECONDITION,
    /// The caller may not.
    denied PERMISSION_DENIED,
    /// We do not have that.
    unimplemented UNIMPLEMENTED,
    /// Anything else: containerd hands the text on as it is.
    unknown UNKNOWN,
    /// The caller's time is over; the work goes on.
    late DEADLINE_EXCEEDED,
    /// Too much at once.
    exhausted RESOURCE_EXHAUSTED
}

impl Refusal {
    /// The same, reached through `context`.
    #[must_use]
    pub fn at(mut self, context: &str) -> Refusal {
        self.text.insert_str(0, ": ");
        self.text.insert_str(0, context);
        self
    }

    /// As it goes over the wire.
    pub fn status(self) -> Status {
        let mut status = Status::new();
        status.set_code(self.code);
        status.message = self.text;
        status
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        let code = match error.kind() {
            Kind::Invalid => Code::INVALID_ARGUMENT,
            Kind::NotFound => Code::NOT_FOUND,
            Kind::Exists => Code::ALREADY_EXISTS,
            Kind::Status => Code::FAILED_PRECONDITION,
            Kind::Unsupported => Code::UNIMPLEMENTED,
            Kind::Os | Kind::Peer => Code::UNKNOWN,
        };
        Refusal { code, text: error.to_string() }
    }
}
