// SPDX-License-Identifier: Apache-2.0
//! Fields that no specification knows: what `create` ignores without a word, as it must, and `plan` tells.

#![forbid(unsafe_code)]

use serde_json::Value;

use super::Spec;

/// Sections for other platforms (config.md, "Platform-specific configuration").
const ELSEWHERE: [&str; 5] = ["/freebsd", "/solaris", "/vm", "/windows", "/zos"];

/// The JSON pointers of the fields of a configuration that are in none of its structures, in order. `bytes` are what `spec` was
/// read from.
///
/// # Errors
/// A document that can be read without these fields only (nested too deep).
pub(crate) fn unknown_fields(spec: &Spec, bytes: &[u8]) -> serde_json::Result<Vec<String>> {
    // What is read is written with every key that there is; what was written and is not among them is unknown.
    let (written, known) = (serde_json::from_slice(bytes)?, serde_json::to_value(spec)?);
    let mut found = Vec::new();
    compare(&written, &known, "", &mut found);
    Ok(found)
}

fn compare(written: &Value, known: &Value, at: &str, found: &mut Vec<String>) {
    match (written, known) {
        (Value::Object(written), Value::Object(known)) => {
            for (key, value) in written {
                let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                match known.get(key) {
                    Some(known) => compare(value, known, &at, found),
                    None if ELSEWHERE.contains(&at.as_str()) => {}
                    None => found.push(at),
                }
            }
        }
        (Value::Array(written), Value::Array(known)) => {
            for (index, (written, known)) in written.iter().zip(known).enumerate() {
                compare(written, known, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let spec: Spec = read("config.json", text.as_bytes()).unwrap();
        unknown_fields(&spec, text.as_bytes()).unwrap()
    }

    #[test]
    fn typing_errors_are_found_where_they_are() {
        let text = r#"{"ociVersion":"1.3.0","hostnam":"x","process":{"arg":["x"],"user":{"Uid":1},"capabilities":{"bound":[]}},
            "mounts":[{"destination":"/a"},{"destination":"/b","options":null,"flags":["ro"]}],"windows":{"x":1},"vm":{},
            "annotations":{"any":"thing"},"linux":{"sysctl":{"net.x":"1"},"resources":{"memory":{"limits":1},"unified":{"a.b":"1"}},
            "a/b~":{"c":1}},"hooks":{"prestart":[{"path":"/x","arguments":[]}],"prestop":[]}}"#;
        let mut all = found(text);
        all.sort_unstable();
        let want = [
            "/hooks/prestart/0/arguments",
            "/hooks/prestop",
            "/hostnam",
            "/linux/a~1b~0",
            "/linux/resources/memory/limits",
            "/mounts/1/flags",
            "/process/arg",
            "/process/capabilities/bound",
            "/process/user/Uid",
        ];
        assert_eq!(all, want);
    }

    #[test]
    fn what_others_write_is_known() {
        for text in [
            include_str!("../../tests/data/plan/docker.json"),
            include_str!("../../tests/data/plan/userns.json"),
            include_str!("../../tests/data/plan/odd.json"),
        ] {
            assert_eq!(found(text), [""; 0]);
        }
    }
}
