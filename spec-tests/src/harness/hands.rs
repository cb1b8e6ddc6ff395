// SPDX-License-Identifier: Apache-2.0
//! In whose hands the runtime is when it is attacked: root's, root's who gives the container a user namespace, or those of somebody
//! without privileges. Whoever it is owns the bundle and the canary tree, so that nothing but the runtime's care keeps it off.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use nix::mount::MsFlags;
use serde_json::Value;

use super::bundle::Bundle;
use super::case::{Case, Trouble, Verdict, case};
use super::done::Done;
use super::host::Need;
use super::report::Report;
use super::test::Test;
use super::user::{ID, User, give_to};
use crate::check;

/// Where the ids of [`Bundle::user_namespace`] begin.
const FIRST: u32 = 100_000;

/// Whose they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hands {
    Root,
    UserNamespace,
    Rootless,
}

/// Everybody but root, as most that is attacked is in the first place.
pub const OTHERS: [Hands; 2] = [Hands::UserNamespace, Hands::Rootless];

/// The case for root, and the same for each of `others`, whose names end in whose they are. What peers differ in is known for root only.
pub fn in_all_hands(
    name: impl Into<String>,
    others: &[Hands],
    body: impl Fn(&Attacked) -> Verdict + Send + Sync + 'static,
) -> Vec<Case> {
    let (name, body) = (name.into(), Arc::new(body));
    let of = |hands: Hands| {
        let (ending, needs): (_, &[Need]) = match hands {
            Hands::Root => ("", &[]),
            Hands::UserNamespace => ("-in-a-user-namespace", &[Need::Runtime("corten")]),
            Hands::Rootless => ("-without-root", &[Need::Runtime("corten")]),
        };
        let body = body.clone();
        case(format!("{name}{ending}"), move |t: &Test| body(&Attacked::begin(t, hands)?)).needs(needs)
    };
    [Hands::Root].into_iter().chain(others.iter().copied()).map(of).collect()
}

/// The tools of a case in somebody's hands.
pub struct Attacked<'t> {
    pub t: &'t Test,
    pub hands: Hands,
    user: Option<User<'t>>,
}

impl<'t> Attacked<'t> {
    fn begin(t: &'t Test, hands: Hands) -> Result<Self, Trouble> {
        let user = if hands == Hands::Rootless { Some(User::new(t)?) } else { None };
        let this = Self { t, hands, user };
        if let Some(owner) = this.owner() {
            let outside = t.place.outside();
            t.mount("tmpfs", "tmpfs", &outside, MsFlags::empty(), "mode=755")?;
            fs::create_dir(outside.join("sub"))?;
            for name in ["null", "ptmx", "console", "fd", "marker", "sub/marker"] {
                fs::write(outside.join(name), "untouched")?;
            }
            give_to(&outside, owner)?;
        }
        Ok(this)
    }

    /// Who owns what the container may write to, if not root.
    fn owner(&self) -> Option<u32> {
        match self.hands {
            Hands::Root => None,
            Hands::UserNamespace => Some(FIRST),
            Hands::Rootless => Some(ID),
        }
    }

    /// A bundle of theirs.
    pub fn bundle(&self) -> Result<Bundle, Trouble> {
        match &self.user {
            Some(user) => user.bundle(),
            None if self.hands == Hands::UserNamespace => Ok(self.t.bundle()?.user_namespace()),
            None => self.t.bundle(),
        }
    }

    /// A new directory of theirs beside the bundles.
    pub fn dir(&self, name: &str) -> Result<PathBuf, Trouble> {
        let dir = self.t.path(name);
        fs::create_dir(&dir)?;
        if let Some(owner) = self.owner() {
            chown(&dir, Some(owner), Some(owner))?;
        }
        Ok(dir)
    }

    /// The runtime's words.
    pub fn cli(&self, words: &str) -> Result<Done, Trouble> {
        self.user.as_ref().map_or_else(|| self.t.cli(words), |user| user.cli(words))
    }

    /// `VERB [options] -b BUNDLE ID`, with a rootfs that is theirs.
    pub fn bundle_command(&self, verb: &str, bundle: &Bundle) -> Result<Command, Trouble> {
        if let Some(owner) = self.owner() {
            give_to(&bundle.rootfs(""), owner)?;
        }
        match &self.user {
            Some(user) => user.bundle_command(verb, bundle),
            None => self.t.bundle_command(verb, bundle),
        }
    }

    /// `run` to its end, whatever that is.
    pub fn run(&self, bundle: &Bundle) -> Result<Done, Trouble> {
        self.t.complete(self.bundle_command("run", bundle)?)
    }

    /// The same of a bundle that is theirs, and complete, already.
    pub fn run_as_it_is(&self, bundle: &Bundle) -> Result<Done, Trouble> {
        let mut command = self.user.as_ref().map_or_else(|| self.t.runtime(), User::runtime);
        command.arg("run").arg("--bundle").arg(&bundle.dir).arg(&bundle.id);
        self.t.complete(command)
    }

    /// `run` of a probe that reports; it must succeed.
    pub fn report(&self, bundle: &Bundle) -> Result<Report, Trouble> {
        Report::read(&self.run(bundle)?.ok()?.stdout)
    }

    /// Runs the container with these operations; each must have the outcome beside it.
    pub fn expect(&self, bundle: Bundle, table: &[(&str, &str)]) -> Result<Vec<Value>, Trouble> {
        let bundle = bundle.tries(table.iter().map(|(op, _)| *op));
        self.t.compare(&self.run(&bundle)?.ok()?.stdout, table)
    }

    /// A successful `create`, and `start`.
    pub fn launch(&self, bundle: &Bundle) -> Verdict {
        self.t.complete(self.bundle_command("create", bundle)?)?.ok()?;
        self.cli(&format!("start {}", bundle.id))?.ok().map(drop)
    }

    /// Ends well or with one line of error; in no case is anything changed outside (also checked by the warden).
    pub fn contained(&self, b: &Bundle) -> Verdict {
        let before = self.t.snapshot();
        let done = self.run(b)?;
        if done.code != 0 {
            check!(done.errors().len() == 1, "{done}");
        }
        self.t.unchanged_since(&before)
    }
}
