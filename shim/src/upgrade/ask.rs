// SPDX-License-Identifier: Apache-2.0
//! `upgrade [--all | ID]`: asks servers that run to go on as this program, or as that of `-binary`.
//!
//! Servers are found by their sockets, which lie in one directory. Other runtimes' shims have theirs there, too: who
//! listens is asked of the kernel, and whoever is no shim of Corten's is left alone.

#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::ttrpc::{Code, Request, Response};
use corten::error::Context;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{UpgradeWish, Upgraded, is_removed};
use crate::flags::Flags;
use crate::refusal::{Refusal, Result};
use crate::{rpc, ttrpc};

/// Where containerd has them (`entry/socket.rs`).
const SOCKETS: &str = "/run/containerd/s";
/// Longer than a server tries.
const PATIENCE: Duration = Duration::from_secs(40);
/// How our shims' programs are called, whatever follows.
const NAME: &str = "containerd-shim-corten";

/// `upgrade`. Returns what is to be printed.
///
/// # Errors
/// Usage; the servers that go on as they are, and why.
#[inline(never)]
pub fn upgrade(flags: &Flags) -> Result<String> {
    let id = match (flags.all, flags.operands.as_slice()) {
        (true, []) => None,
        (false, [id]) => Some(id.clone()),
        _ => {
            return Err(Refusal::invalid(
                "usage: upgrade [-binary PATH] [-namespace NS] [-socket-dir DIR] --all | ID",
            ));
        }
    };
    if !rustix::process::geteuid().is_root() {
        return Err(Refusal::denied("only root may have shims go on as another program"));
    }
    let wish = UpgradeWish {
        binary: binary(flags)?,
        id,
        namespace: Some(flags.namespace.clone()).filter(|namespace| !namespace.is_empty()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.call(|| "epoll_create")?;
    runtime.block_on(ask_all(flags.socket_dir.as_deref().unwrap_or(Path::new(SOCKETS)), &wish))
}

/// `-binary`, or this very program: it must still be where it was executed from.
fn binary(flags: &Flags) -> Result<PathBuf> {
    if let Some(path) = &flags.binary {
        return Ok(std::path::absolute(path).call(|| format!("open({})", path.display()))?);
    }
    let path = std::fs::read_link("/proc/self/exe").call(|| "readlink(/proc/self/exe)")?;
    match is_removed(&path) {
        true => Err(Refusal::invalid(format!("{}: name the program by -binary", path.display()))),
        false => Ok(path),
    }
}

async fn ask_all(dir: &Path, wish: &UpgradeWish) -> Result<String> {
    let (mut told, mut failed) = (String::new(), Vec::new());
    let mut paths: Vec<_> =
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        // A socket that nobody listens on any more.
        let Ok(stream) = UnixStream::connect(&path).await else { continue };
        let Some(pid) = shim(&stream) else { continue };
        match ask(stream, wish).await {
            Ok(done) => told.push_str(&line(&done)),
            // Another one may have the container.
            Err(refusal) if refusal.code == Code::NOT_FOUND => {}
            Err(refusal) => failed.push(format!("shim {pid} goes on as it is: {refusal}")),
        }
    }
    if let Some(id) = wish.id.as_ref().filter(|_| told.is_empty() && failed.is_empty()) {
        failed.push(format!("no shim has container {id}"));
    }
    match failed.is_empty() {
        true => Ok(told),
        false => Err(Refusal::state(format!("{told}{}", failed.join("\n")))),
    }
}

/// The pid of the shim of ours that listens there.
fn shim(stream: &UnixStream) -> Option<i32> {
    let pid = stream.peer_cred().ok()?.pid()?;
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    // One that went on as a program of another name is still called by its first one.
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let called = Path::new(OsStr::from_bytes(words.split(|byte| *byte == 0).next()?));
    let is_ours = |path: &Path| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(NAME.as_bytes()))
    };
    (is_ours(&program) || is_ours(called)).then_some(pid)
}

fn line(done: &Upgraded) -> String {
    let Upgraded { pid, from, to, paused_us, containers } = done;
    let (whole, part) = (paused_us / 1000, paused_us % 1000 / 100);
    format!("shim {pid} ({}): {from} -> {to}, paused for {whole}.{part} ms\n", containers.join(" "))
}

async fn ask(mut stream: UnixStream, wish: &UpgradeWish) -> Result<Upgraded> {
    let (service, method) = rpc::UPGRADE;
    let request = Request {
        service: service.to_owned(),
        method: method.to_owned(),
        payload: serde_json::to_vec(wish).map_err(|error| Refusal::unknown(error.to_string()))?,
        ..Default::default()
    };
    let asked = async {
        stream.write_all(&ttrpc::frame(ttrpc::REQUEST, 1, &request)).await?;
        ttrpc::read(&mut stream).await
    };
    let answer = timeout(PATIENCE, asked).await.map_err(|_| Refusal::late("no answer"))?;
    let Some((_, Ok(message))) = answer.call(|| "read(socket)")? else {
        return Err(Refusal::unknown("it has closed the connection"));
    };
    let response = Response::parse_from_bytes(&message)
        .map_err(|error| Refusal::unknown(format!("malformed answer: {error}")))?;
    match response.status.into_option().filter(|status| status.code.value() != 0) {
        Some(status)
            if status.code.enum_value() == Ok(Code::UNIMPLEMENTED)
                && status.message.starts_with("service") =>
        {
            Err(Refusal::state("its program is too old to go on as another one"))
        }
        Some(status) => Err(Refusal { code: status.code.enum_value_or_default(), text: status.message }),
        None => serde_json::from_slice(&response.payload)
            .map_err(|error| Refusal::unknown(format!("malformed answer: {error}"))),
    }
}
