// SPDX-License-Identifier: Apache-2.0
//! `list` (compatibility S7).

use corten::error::Words;
use corten::state::Status;
use corten::verbs;

use super::command::{Arity, Outcome, Session, Verb};
use super::failure::Failure;
use super::output;

/// list the containers of the given root
#[derive(Debug, clap::Parser)]
pub struct ListCommand {
    /// select one of: table or json (default: "table")
    #[arg(long, short)]
    format: Option<String>,
    /// display only container IDs
    #[arg(long, short)]
    quiet: bool,
}

impl Verb for ListCommand {
    const NAME: &'static str = "list";
    const USAGE: &'static str = "[command options]";
    const ARITY: Arity = Arity::exactly(0);

    fn run(self, session: &Session<'_>) -> Outcome {
        let containers = containers(session)?;
        match self.format.as_deref() {
            _ if self.quiet => {
                let ids = containers.iter().flatten().map(|status| format!("{}\n", status.id));
                output::print(&ids.collect::<String>())?;
            }
            None | Some("table") => output::print(&table(containers.as_deref().unwrap_or_default()))?,
            Some("json") => output::print_json(&containers.filter(|all| !all.is_empty()))?,
            Some(_) => return Err(Failure::new("invalid format option")),
        }
        Ok(0)
    }
}

/// The containers; none when nobody has made the default root yet. A root that the caller named must be there.
fn containers(session: &Session<'_>) -> Result<Option<Vec<Status>>, Failure> {
    let root = &session.root;
    match std::fs::symlink_metadata(&root.path) {
        Ok(_) => Ok(Some(verbs::list(&session.home)?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !root.given => Ok(None),
        Err(error) => {
            let why = Words(error.raw_os_error().unwrap_or_default());
            Err(Failure::new(format!("open {}: {why}", root.path.display())))
        }
    }
}

fn table(containers: &[Status]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned).to_vec();
    let rows = containers.iter().map(|status| {
        let Status { id, pid, status, bundle, created, owner, .. } = status.clone();
        vec![id, pid.to_string(), status.to_owned(), bundle, created, owner]
    });
    output::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}
