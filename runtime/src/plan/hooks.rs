// SPDX-License-Identifier: Apache-2.0
//! Hooks (config.md#posix-platform-hooks). Counterparts: `host/hooks.rs` runs those of the runtime's namespaces,
//! the stage's `hook` operation those of the container's.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::text::{absolute, plain};
use crate::error::{Error, Result};
use crate::spec;

/// One hook, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// JSON pointer, `/hooks/prestart/0`.
    pub at: String,
    /// Absolute path.
    pub path: String,
    /// argv, never empty (the path alone when the configuration gives none).
    pub args: Vec<String>,
    /// The whole environment, if it has one of its own; else that of whoever runs it: the runtime, or inside the user's
    /// program (decisions/0074).
    pub env: Option<Vec<String>>,
    /// Positive, or none.
    pub timeout: Option<Duration>,
    /// Files that stdout and stderr are appended to (see `annotations`); what has none is kept for messages. Only for
    /// hooks of the runtime's namespaces.
    pub output: Output,
}

/// Files for the output of all hooks, stdout's and stderr's, if there are any.
pub(crate) type Output = Option<Arc<[Option<PathBuf>; 2]>>;

/// Hooks by kind, each in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooks {
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
}

/// Checks the hooks.
///
/// # Errors
/// A relative path, a timeout that is not positive, a NUL byte.
pub(crate) fn decide_hooks(hooks: &spec::Hooks, output: &Output) -> Result<Hooks> {
    let inside = |hooks: &[spec::Hook], kind| each(hooks, kind, &None);
    // It has the host's privileges, and must not get what an image says; and nothing of ours goes inside.
    let closed = |mut hook: Hook| {
        hook.env.get_or_insert_default();
        hook
    };
    let each = |hooks: &[spec::Hook], kind| each(hooks, kind, output);
    Ok(Hooks {
        prestart: each(&hooks.prestart, "prestart")?,
        create_runtime: each(&hooks.create_runtime, "createRuntime")?,
        create_container: inside(&hooks.create_container, "createContainer")?
            .into_iter()
            .map(closed)
            .collect(),
        start_container: inside(&hooks.start_container, "startContainer")?,
        poststart: each(&hooks.poststart, "poststart")?,
        poststop: each(&hooks.poststop, "poststop")?,
    })
}

fn each(hooks: &[spec::Hook], kind: &str, output: &Output) -> Result<Vec<Hook>> {
    let read = |(index, hook)| read_hook(hook, format!("/hooks/{kind}/{index}"), output);
    hooks.iter().enumerate().map(read).collect()
}

fn read_hook(hook: &spec::Hook, at: String, output: &Output) -> Result<Hook> {
    let path = absolute(format_args!("{at}/path"), &hook.path)?.to_owned();
    let timeout = match hook.timeout {
        None => None,
        Some(seconds) => match u64::try_from(seconds) {
            Ok(seconds @ 1..) => Some(Duration::from_secs(seconds)),
            _ => {
                return Err(Error::invalid(
                    format_args!("{at}/timeout"),
                    format!("{seconds} is not positive"),
                ));
            }
        },
    };
    let strings = |strings: &[String], field: &str| -> Result<Vec<String>> {
        let one = |(index, text): (usize, &String)| {
            plain(format_args!("{at}/{field}/{index}"), text).map(str::to_owned)
        };
        strings.iter().enumerate().map(one).collect()
    };
    let mut args = strings(&hook.args, "args")?;
    if args.is_empty() {
        args.push(path.clone());
    }
    let env = hook.env.as_ref().map(|env| strings(env, "env")).transpose()?;
    Ok(Hook { at, path, args, env, timeout, output: output.clone() })
}
