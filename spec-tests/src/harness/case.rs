// SPDX-License-Identifier: Apache-2.0
//! A case: its name, what it needs, which peers are known to fail it and why, and its body.

#![forbid(unsafe_code)]

use super::host::{Host, Need};
use super::test::Test;

/// Why a case did not pass.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// The runtime did something else than the case says.
    Fail(String),
    /// The environment cannot show it.
    NotRun(String),
}

impl From<String> for Trouble {
    fn from(text: String) -> Self {
        Self::Fail(text)
    }
}

impl From<&str> for Trouble {
    fn from(text: &str) -> Self {
        Self::Fail(text.to_owned())
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Fail(format!("harness: {error}"))
    }
}

impl From<nix::errno::Errno> for Trouble {
    fn from(error: nix::errno::Errno) -> Self {
        Self::Fail(format!("harness: {error}"))
    }
}

impl From<serde_json::Error> for Trouble {
    fn from(error: serde_json::Error) -> Self {
        Self::Fail(format!("not the expected JSON: {error}"))
    }
}

/// A peer's known difference: why the case fails there.
#[derive(Debug, Clone, Copy)]
pub struct Difference {
    /// The peer's name.
    pub peer: &'static str,
    /// The row of the feature table or the issue, and what it does instead.
    pub reason: &'static str,
    scope: Scope,
}

/// Where a difference shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Everywhere,
    /// In a race, or on a slow machine only: the case may pass.
    AtTimes,
    V1,
    V2,
    /// In environments whose name holds this.
    In(&'static str),
}

/// How a reason says where it holds.
const SCOPES: [(&str, Scope); 8] = [
    ("at times: ", Scope::AtTimes),
    ("on v1: ", Scope::V1),
    ("on v2: ", Scope::V2),
    ("in the guest: ", Scope::In("uml")),
    ("natively: ", Scope::In("native")),
    ("on v2 without controllers: ", Scope::In("native-v2")),
    ("with AppArmor: ", Scope::In("apparmor")),
    ("with SELinux: ", Scope::In("selinux")),
];

impl Difference {
    fn new(peer: &'static str, reason: &'static str) -> Self {
        let scope = SCOPES.iter().find(|(words, _)| reason.starts_with(words)).map(|(_, scope)| *scope);
        Self { peer, reason, scope: scope.unwrap_or(Scope::Everywhere) }
    }

    fn shows_on(&self, host: &Host) -> bool {
        match self.scope {
            Scope::Everywhere | Scope::AtTimes => true,
            Scope::V1 => !host.is_v2(),
            Scope::V2 => host.is_v2(),
            Scope::In(name) => host.env.contains(name),
        }
    }

    /// It shows every time.
    pub fn is_certain(&self) -> bool {
        self.scope != Scope::AtTimes
    }
}

/// What a case's body answers.
pub type Verdict = Result<(), Trouble>;

type Body = Box<dyn Fn(&Test) -> Verdict + Send + Sync>;

pub struct Case {
    pub name: String,
    pub needs: Vec<Need>,
    /// Peers that are known not to pass, each with the reason.
    pub peers: Vec<Difference>,
    pub body: Body,
    /// Seconds until it is given up, when it needs more than others.
    pub seconds: Option<f64>,
}

/// A case with nothing special about it.
pub fn case(name: impl Into<String>, body: impl Fn(&Test) -> Verdict + Send + Sync + 'static) -> Case {
    Case { name: name.into(), needs: Vec::new(), peers: Vec::new(), body: Box::new(body), seconds: None }
}

impl Case {
    /// Only where the host has all of these.
    pub fn needs(mut self, needs: &[Need]) -> Self {
        self.needs.extend_from_slice(needs);
        self
    }

    /// Takes up to so many seconds.
    pub fn takes(mut self, seconds: f64) -> Self {
        self.seconds = Some(seconds);
        self
    }

    /// runc is known not to pass, because of this.
    pub fn runc(self, reason: &'static str) -> Self {
        self.peer("runc", reason)
    }

    /// crun is known not to pass, because of this.
    pub fn crun(self, reason: &'static str) -> Self {
        self.peer("crun", reason)
    }

    /// Both peers are known not to pass.
    pub fn both(self, reason: &'static str) -> Self {
        self.runc(reason).crun(reason)
    }

    /// A peer is known not to pass; an empty reason means that it passes. A reason may begin with where it holds:
    /// `on v1: `, `on v2: `, `on v2 without controllers: `, `in the guest: `, `natively: `, `with AppArmor: `,
    /// `with SELinux: `, or `at times: ` for races; a bar with blanks parts one place from the next. Anywhere else, and
    /// everywhere without such words, a case that passes after all has failed.
    pub fn peer(mut self, name: &'static str, reason: &'static str) -> Self {
        self.differs(name, reason);
        self
    }

    /// Seconds until it is given up.
    pub fn patience(&self, host: &Host) -> f64 {
        self.seconds.unwrap_or(0.0).max(host.patience)
    }

    /// The same, with the hours that it was given on top of what it takes otherwise.
    pub fn time_limit(&self, host: &Host) -> f64 {
        self.patience(host) + host.hours.unwrap_or(0.0) * 3600.0
    }

    /// The same for a case in a list.
    pub fn differs(&mut self, name: &'static str, reason: &'static str) {
        if !reason.is_empty() {
            self.peers.extend(reason.split(" | ").map(|reason| Difference::new(name, reason)));
        }
    }

    /// Why this host cannot run the case, if so.
    pub fn obstacle(&self, host: &Host) -> Option<String> {
        self.needs.iter().find_map(|need| host.lacks(*need))
    }

    /// Why this runtime is known not to pass here, if so.
    pub fn excuse(&self, host: &Host) -> Option<&Difference> {
        self.peers.iter().find(|difference| difference.peer == host.name && difference.shows_on(host))
    }
}

/// Fails with the formatted text unless the condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($text:tt)+) => {
        {
            let holds: bool = $condition;
            if !holds {
                return Err($crate::harness::case::Trouble::Fail(format!($($text)+)));
            }
        }
    };
}

/// Fails unless both are the same.
pub fn same<A: PartialEq<B> + std::fmt::Debug, B: std::fmt::Debug>(what: &str, got: A, want: B) -> Verdict {
    check!(got == want, "{what} is {got:?}, not {want:?}");
    Ok(())
}
