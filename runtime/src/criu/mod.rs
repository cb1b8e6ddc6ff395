// SPDX-License-Identifier: Apache-2.0
//! CRIU, the program that writes processes into files and makes them again: how it is found, started and spoken to.
//!
//! `criu swrk N` serves one client on descriptor N, an AF_UNIX SEQPACKET socket: a request, then notifications that wait for
//! an answer, then the response (criu.org/RPC). What is asked is the verbs' business; here are the words for it.

#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;
use std::path::Path;

use crate::error::{Error, Kind};

mod client;
pub(crate) mod images;
pub(crate) mod log;
mod messages;
mod pages;
mod protobuf;
pub(crate) mod room;

pub(crate) use client::{CriuProcess, CriuSetup, INHERITED, find, in_path};
/// The error as CRIU's log explains it; or that CRIU does not like this kernel.
pub(crate) fn explain(error: Error, program: &Path, logs: BorrowedFd<'_>, name: &str) -> Error {
    match log::complaints(logs, name) {
        Some(words) if error.kind() == Kind::Peer => Error::new(Kind::Peer, words).at("criu"),
        Some(_) => error,
        None if error.kind() == Kind::Peer && !client::is_content(program) => {
            error.at("`criu check` finds this kernel unfit")
        }
        None => error,
    }
}

pub(crate) use messages::{CriuFeature, CriuOptions, CriuResponse, RequestKind};
