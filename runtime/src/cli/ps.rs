// SPDX-License-Identifier: Apache-2.0
//! `ps` (compatibility S11): the host's ps(1), reduced to the container's processes.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::process::{Command, Output, Stdio};

use corten::error::Words;
use corten::{state, verbs};

use super::command::{Arity, Outcome, Session, Verb};
use super::failure::Failure;
use super::flags::Order;
use super::output;

/// display the processes running inside a container
///
/// The options are those of the host's ps, whose output must have a PID column. Default: -ef; where the host has no ps, the
/// pids alone are printed.
#[derive(Debug, clap::Parser)]
#[command(verbatim_doc_comment)]
pub struct PsCommand {
    /// select one of: table or json (default: "table")
    #[arg(long, short)]
    format: Option<String>,
    id: String,
    options: Vec<OsString>,
}

impl Verb for PsCommand {
    const NAME: &'static str = "ps";
    const USAGE: &'static str = "[command options] <container-id> [ps options]";
    const ARITY: Arity = Arity { min: 1, max: usize::MAX };
    const ORDER: Order = Order::FlagsFirst;

    fn run(self, session: &Session<'_>) -> Outcome {
        state::check_id(&self.id)?;
        let pids = verbs::pids(&session.home, &self.id)?;
        match self.format.as_deref() {
            None | Some("table") => output::print(&table(self.options, &pids)?)?,
            Some("json") => output::print_json(&pids)?,
            Some(_) => return Err(Failure::new("invalid format option")),
        }
        Ok(0)
    }
}

/// What the host's ps says of `pids`; without one and without options for it, the pids.
fn table(mut options: Vec<OsString>, pids: &[i32]) -> Result<String, Failure> {
    let asked = !options.is_empty();
    if !asked {
        options.push("-ef".into());
    }
    match Command::new("ps").args(options).stdin(Stdio::null()).output() {
        Ok(output) => lines_of(&processes(&output)?, pids),
        Err(error) if error.kind() == ErrorKind::NotFound && !asked => Ok(alone(pids)),
        Err(error) => {
            let errno = Words(error.raw_os_error().unwrap_or_default());
            Err(Failure::new(format!("exec ps: {errno}")))
        }
    }
}

fn alone(pids: &[i32]) -> String {
    pids.iter().fold("PID\n".to_owned(), |text, pid| text + &format!("{pid}\n"))
}

fn processes(output: &Output) -> Result<String, Failure> {
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Failure::new(format!("ps: {}: {said}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The head of `table`, and those of its lines whose PID is one of `pids`.
fn lines_of(table: &str, pids: &[i32]) -> Result<String, Failure> {
    let mut lines = table.lines();
    let head = lines.next().unwrap_or_default();
    let Some(column) = head.split_whitespace().position(|title| title == "PID") else {
        return Err(Failure::new("couldn't find PID field in ps output"));
    };
    let mut text = format!("{head}\n");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_their_pid_column() {
        let table = "UID   PID PPID CMD\nroot    1    0 init 7\nroot    7    1 sh\n\nroot   17    7 7\n";
        assert_eq!(lines_of(table, &[7]).unwrap(), "UID   PID PPID CMD\nroot    7    1 sh\n");
        assert_eq!(lines_of(table, &[]).unwrap(), "UID   PID PPID CMD\n");
        assert!(lines_of("CMD\nx\n", &[1]).is_err());
        assert!(lines_of("", &[1]).is_err());
        assert_eq!(alone(&[7, 17]), "PID\n7\n17\n");
    }
}
