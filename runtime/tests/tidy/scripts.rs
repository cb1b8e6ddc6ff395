// SPDX-License-Identifier: Apache-2.0
//! How the shell scripts are written.

use super::{File, assert_none, tracked};

/// Commands that end before they have read everything.
const ENDS_EARLY: [&str; 3] = ["| head ", "| grep -q", "| grep -m"];

fn is_strict_script(file: &&File) -> bool {
    file.text.starts_with("#!") && file.text.contains("pipefail")
}

/// Under `pipefail` a writer whose reader ends early dies of SIGPIPE, and the script with it: but only if it was not done
/// writing by then, so that it fails once in some runs. `sed -n 1p` reads to the end.
#[test]
fn scripts_read_a_pipe_to_its_end() {
    let mut broken = Vec::new();
    for file in tracked().iter().filter(is_strict_script) {
        let joined = file.text.replace("|\n", "| ");
        let lines = joined.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        let early = lines.filter(|line| ENDS_EARLY.iter().any(|end| line.contains(end)));
        broken.extend(early.map(|line| format!("{}: {line}", file.path)));
    }
    assert_none("a pipe's reader that ends early", broken);
}
