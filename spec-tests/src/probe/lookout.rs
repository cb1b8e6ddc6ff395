// SPDX-License-Identifier: Apache-2.0
//! What attackers that lie in wait have in common: they look again and again, and tell whoever began it what they have seen.

#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Looks until the file `DIR/stop` exists; writes what was seen to `DIR/result` as it changes, and forgets it when `DIR/forget` exists.
pub fn watch<Seen: Default + Clone + PartialEq>(
    dir: &str,
    mut look: impl FnMut(&mut Seen),
    shown: impl Fn(&Seen) -> Value,
) -> Result<(), String> {
    let at = |name: &str| Path::new(dir).join(name);
    let (mut seen, mut told) = (Seen::default(), None);
    while !at("stop").exists() {
        if at("forget").exists() {
            (seen, told) = (Seen::default(), None);
            fs::remove_file(at("result")).ok();
            fs::remove_file(at("forget")).map_err(|error| error.to_string())?;
        }
        // Most rounds only look.
        for _ in 0..200 {
            look(&mut seen);
        }
        if told.as_ref() != Some(&seen) {
            fs::write(at("new"), shown(&seen).to_string()).map_err(|error| error.to_string())?;
            fs::rename(at("new"), at("result")).map_err(|error| error.to_string())?;
            told = Some(seen.clone());
        }
    }
    Ok(())
}
