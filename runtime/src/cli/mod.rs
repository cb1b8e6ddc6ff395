// SPDX-License-Identifier: Apache-2.0
//! The command line: flags become requests, results become output and exit codes. No container logic stands here;
//! its counterpart is `corten::verbs`.

pub mod amounts;
pub mod command;
pub mod failure;
pub mod flags;
pub mod globals;
pub mod help;
pub mod log;
pub mod nearest;

pub mod root;
pub mod values;

mod console;
mod foreground;
mod output;

mod checkpoint;
mod create;
mod delete;
mod doctor;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod matching;
mod mounts;
mod pause;
mod plan;
mod ps;
mod restore;
mod resume;
mod run;
mod setup;
mod spec;
mod start;
mod state;
mod stats;
mod trace;
mod traced;
mod update;
