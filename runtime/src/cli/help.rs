// SPDX-License-Identifier: Apache-2.0
//! The help's shape (compatibility G12): runc's headings, because its test suite reads the first two lines.

use clap::{Arg, ArgAction, Command};

/// The general help.
pub fn overview(name: &str, commands: &[(String, String)], globals: &Command) -> String {
    let mut text = format!(
        "NAME:\n   {name} - Open Container Initiative runtime\n\n\
         {name} creates and runs containers from OCI bundles: a directory with a specification file named\n\
         \"config.json\" and a root filesystem. To start a container from a bundle:\n\n    \
         # {name} run [ -b bundle ] <container-id>\n\n\
         USAGE:\n   {name} [global options] command [command options] [arguments...]\n\nCOMMANDS:\n"
    );
    columns(&mut text, commands);
    text.push_str("\nGLOBAL OPTIONS:\n");
    columns(&mut text, &options(globals));
    text
}

/// The help of one subcommand.
pub fn command(name: &str, usage: &str, command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let verb = command.get_name();
    let usage = format!("{name} {verb} {usage}");
    let mut text = format!("NAME:\n   {name} {verb} - {about}\n\nUSAGE:\n   {}\n", usage.trim_end());
    // The documentation's first paragraph is `about` again.
    let long = command.get_long_about().map(ToString::to_string).unwrap_or_default();
    if let Some((_, description)) = long.split_once("\n\n") {
        text.push_str("\nDESCRIPTION:\n");
        for line in description.lines() {
            text.push_str(format!("   {line}").trim_end());
            text.push('\n');
        }
    }
    text.push_str("\nOPTIONS:\n");
    columns(&mut text, &options(command));
    text
}

/// Every flag with its explanation, and help itself.
fn options(command: &Command) -> Vec<(String, String)> {
    let mut options: Vec<_> = command
        .get_arguments()
        .filter(|arg| !arg.is_positional())
        .map(|arg| (flag(arg), arg.get_help().map(ToString::to_string).unwrap_or_default()))
        .collect();
    options.push(("--help, -h".to_owned(), "show help".to_owned()));
    options
}

/// `--bundle value, -b value`
fn flag(arg: &Arg) -> String {
    let value = if matches!(arg.get_action(), ArgAction::SetTrue) { "" } else { " value" };
    let mut text = format!("--{}{value}", arg.get_long().unwrap_or_default());
    if let Some(short) = arg.get_short() {
        text.push_str(&format!(", -{short}{value}"));
    }
    text
}

fn columns(text: &mut String, rows: &[(String, String)]) {
    let width = rows.iter().map(|(left, _)| left.len()).max().unwrap_or(0);
    for (left, right) in rows {
        text.push_str(format!("   {left:width$}  {right}").trim_end());
        text.push('\n');
    }
}
