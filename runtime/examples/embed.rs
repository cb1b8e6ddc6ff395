// SPDX-License-Identifier: Apache-2.0
//! embed STATE-ROOT BUNDLE ID: creates, starts, executes, waits and deletes, as docs/embedding.md tells.

#![forbid(unsafe_code)]

use std::os::fd::AsFd;
use std::path::PathBuf;

use corten::ask::{Create, Exec, Home, Manager, Overlay};
use corten::{Result, verbs};

fn whole_life(root: PathBuf, bundle: PathBuf, id: &str) -> Result<()> {
    let warn = |line: &str| eprintln!("warning: {line}");
    let home = Home { root, manager: Manager::Cgroupfs, rootless: None, warn: &warn, trace: None };
    let init = verbs::create(&home, Create { id: id.into(), bundle, ..Create::default() })?;
    println!("{id} is {} with pid {}", verbs::state(&home, id)?.status, init.pid);
    verbs::start(&home, id)?;
    let overlay = Overlay { args: vec!["/corten".into(), "--version".into()], ..Overlay::default() };
    let second = verbs::exec(&home, Exec { id: id.into(), overlay, ..Exec::default() })?;
    println!("the second process: {:?}", verbs::wait(second.pidfd.as_fd())?);
    verbs::kill(&home, id, 9, false)?;
    println!("the container: {:?}", verbs::wait(init.pidfd.as_fd())?);
    verbs::delete(&home, id, false)
}

fn main() -> std::process::ExitCode {
    let mut args = std::env::args().skip(1);
    let (Some(root), Some(bundle), Some(id)) = (args.next(), args.next(), args.next()) else {
        eprintln!("embed STATE-ROOT BUNDLE ID");
        return 2.into();
    };
    match whole_life(root.into(), bundle.into(), &id) {
        Ok(()) => 0.into(),
        Err(error) => {
            eprintln!("embed: {error}");
            1.into()
        }
    }
}
