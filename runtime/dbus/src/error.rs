// SPDX-License-Identifier: Apache-2.0
//! What may go wrong on the way to systemd and back. A refused call is none of it: that is an answer.

#![forbid(unsafe_code)]

use std::fmt;

use rustix::io::Errno;

use crate::Address;

/// Shorthand for results of this crate.
pub type Result<T, E = BusError> = std::result::Result<T, E>;

/// Why systemd could not be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusError {
    /// Nobody listens at any of these addresses; without any, the environment named none.
    Absent {
        /// Where it was tried.
        addresses: Vec<Address>,
    },
    /// The other side says what it may not.
    Peer {
        /// Its address.
        name: String,
        /// What it says, in words.
        text: String,
    },
    /// A system call failed. ETIMEDOUT: the other side did not answer in time.
    Call {
        /// As strace would print it, `recv(/run/systemd/private, StopUnit)`.
        call: String,
        /// Why.
        errno: Errno,
    },
}

impl BusError {
    pub(crate) fn call(call: String, errno: Errno) -> BusError {
        BusError::Call { call, errno }
    }

    pub(crate) fn peer(name: &str, text: impl Into<String>) -> BusError {
        BusError::Peer { name: name.to_owned(), text: text.into() }
    }
}

impl fmt::Display for BusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BusError::Absent { addresses } if addresses.is_empty() => {
                f.write_str("XDG_RUNTIME_DIR and DBUS_SESSION_BUS_ADDRESS are not set")
            }
            BusError::Absent { addresses } => {
                let names: Vec<String> = addresses.iter().map(Address::to_string).collect();
                write!(f, "nobody listens at {}", names.join(" or "))
            }
            BusError::Peer { name, text } => write!(f, "{name}: {text}"),
            BusError::Call { call, errno } => write!(f, "{call}: {errno}"),
        }
    }
}

impl std::error::Error for BusError {}

/// Adds the call to a failing result.
pub(crate) trait NameCall<T> {
    fn name_call(self, call: impl FnOnce() -> String) -> Result<T>;
}

impl<T> NameCall<T> for std::result::Result<T, Errno> {
    fn name_call(self, call: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| BusError::call(call(), errno))
    }
}
