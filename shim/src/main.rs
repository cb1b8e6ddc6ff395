// SPDX-License-Identifier: Apache-2.0
//! `containerd-shim-corten-v2`: containerd's runtime `io.containerd.corten.v2`, with Corten inside.
//!
//! ```text
//! entry/   start, delete, -info: what containerd executes us for; start goes on as the server
//! server   connections ─> rpc ─> pod/ ─> threads ─> driver ─> the runtime's verbs
//! upgrade  the server goes on as another program, in the same process
//! reaper   pidfds ─> pod/watch ─> events (one queue) ─> containerd
//! io/      the container's descriptors ─> FIFOs, files, loggers
//! ```
//! One thread serves a pod; it never waits for a verb. Containers outlive containerd, not the shim: when that dies,
//! `delete` ends what it left, from the records in the bundles.

#![forbid(unsafe_code)]

mod clock;
mod driver;
mod entry;
mod events;
mod flags;
mod handover;
mod idle;
mod io;
mod log;
mod mounts;
mod options;
mod pod;
mod process;
mod ready;
mod reaper;
mod record;
mod refusal;
mod rpc;
mod sandbox;
mod server;
mod stats;
mod task;
mod threads;
mod traces;
mod ttrpc;
mod upgrade;
mod work;

use std::io::Write;
use std::process::ExitCode;

use corten::features::{COMMIT, VERSION};
use corten::sys::kept::Keeping;
use corten::sys::pages::protect_relocated;

use self::flags::{Action, Flags};
use self::refusal::{Refusal, Result};

/// Buffers of one request are kept for the next (`runtime/src/sys/kept.rs`).
#[global_allocator]
static ALLOCATOR: Keeping = Keeping;

fn main() -> ExitCode {
    let flags = Flags::parse(std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()));
    match protect_relocated().map_err(Refusal::from).and_then(|()| act(&flags)) {
        Ok(code) => code,
        Err(refusal) => {
            eprintln!("containerd-shim-corten-v2: {refusal}");
            ExitCode::FAILURE
        }
    }
}

/// Each in a frame of its own: that of `start` stays on the stack as long as the server lives, and the others' locals with it
/// were two pages of each shim.
fn act(flags: &Flags) -> Result<ExitCode> {
    match flags.action {
        Action::Start => entry::start::start(flags)?,
        Action::Delete => entry::delete::delete(flags)?,
        Action::Info => info()?,
        Action::Upgrade => upgrade::ask::upgrade(flags).and_then(print)?,
        Action::UpgradeCheck => upgrade::check(flags).and_then(print)?,
        Action::TakeOver => entry::take_over::take_over(flags)?,
        Action::Version => {
            print(format!("containerd-shim-corten-v2\n  Version: {VERSION}\n  Revision: {COMMIT}\n"))?;
        }
        Action::None => {
            eprintln!(
                "containerd-shim-corten-v2 is executed by containerd: start, delete, -info or -v; by root: upgrade"
            );
            return Ok(ExitCode::from(2));
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[inline(never)]
fn info() -> Result<()> {
    // Whatever it is, the answer is the same but for its echo.
    print(entry::info::info(&entry::bootstrap::input().unwrap_or_default()))
}

fn print(bytes: impl AsRef<[u8]>) -> Result<()> {
    use corten::error::Context;
    Ok(std::io::stdout().write_all(bytes.as_ref()).call(|| "write(stdout)")?)
}
