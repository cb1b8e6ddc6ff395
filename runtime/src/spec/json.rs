// SPDX-License-Identifier: Apache-2.0
//! Reading a configuration's JSON: what a structure's keys are, and where in the document an error stands.
//!
//! serde's derived readers are left out here, for their size: they also read lists as structures, one by one for every
//! field and every kind of source, and were a third of the program (docs/decisions/0041).

#![forbid(unsafe_code)]

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Visitor};

use crate::error::{Error, Kind, Result};

/// Reads a configuration. `name` is the file's name for messages.
///
/// # Errors
/// `Kind::Invalid` with the JSON pointer of the first value that does not read, or the line and column of the
/// first byte that is not JSON.
pub fn read<T: for<'de> Deserialize<'de>>(name: &str, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| describe(name, bytes, &error))
}

fn describe(name: &str, bytes: &[u8], error: &serde_json::Error) -> Error {
    if error.classify() != serde_json::error::Category::Data {
        let error = Error::new(Kind::Invalid, format!("malformed JSON: {error}")).at(name.to_owned());
        return error.advise("JSON has no comments, and no comma before a closing bracket");
    }
    let pointer = pointer(before(bytes, error.line(), error.column()));
    let at = if pointer.is_empty() { name.to_owned() } else { format!("{name} {pointer}") };
    Error::new(Kind::Invalid, error.to_string()).at(at)
}

/// The bytes that had been read at this line and column, both as serde_json counts them: the column is a number of bytes.
fn before(bytes: &[u8], line: usize, column: usize) -> &[u8] {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1));
    let start: usize = lines.map(<[u8]>::len).sum();
    &bytes[..bytes.len().min(start.saturating_add(column))]
}

/// Where in a document its first bytes end, which are JSON as far as they go (RFC 6901: `/mounts/3/options`).
fn pointer(read: &[u8]) -> String {
    // Of the outermost structure or list on: the key or the index that is being read.
    let mut path: Vec<Nesting> = Vec::new();
    let mut rest = read;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b'{' => path.push(Nesting::Key(None)),
            b'[' => path.push(Nesting::Index(0)),
            b'}' | b']' => drop(path.pop()),
            b',' => match path.last_mut() {
                Some(Nesting::Index(index)) => *index += 1,
                Some(Nesting::Key(key)) => *key = None,
                None => {}
            },
            b'"' => {
                let length = string_length(tail);
                if let Some(Nesting::Key(key @ None)) = path.last_mut() {
                    *key = Some(&read[read.len() - tail.len() - 1..][..(length + 2).min(tail.len() + 1)]);
                }
                rest = tail.get(length + 1..).unwrap_or_default();
            }
            _ => {}
        }
    }
    path.iter().filter_map(Nesting::segment).fold(String::new(), |pointer, segment| pointer + "/" + &segment)
}

/// How many bytes are before the quote that ends a string.
fn string_length(text: &[u8]) -> usize {
    let mut escaped = false;
    let end = text.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    });
    end.unwrap_or(text.len())
}

/// Where in the text: one level of nesting.
enum Nesting<'a> {
    /// In a structure: the key with its quotes, once it has been read.
    Key(Option<&'a [u8]>),
    Index(usize),
}

impl Nesting<'_> {
    fn segment(&self) -> Option<String> {
        match self {
            Nesting::Index(index) => Some(index.to_string()),
            Nesting::Key(None) => None,
            Nesting::Key(Some(quoted)) => {
                let key: String = serde_json::from_slice(quoted).ok()?;
                Some(key.replace('~', "~0").replace('/', "~1"))
            }
        }
    }
}

/// Reads a key as its index among these; any other is unknown.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyOf(pub &'static [&'static str]);

impl<'de> DeserializeSeed<'de> for KeyOf {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<usize>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyOf {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Option<usize>, E> {
        Ok(self.0.iter().position(|known| *known == key))
    }
}

/// Declares structures of the specification, each field with its key: every one optional, `null` accepted, of two
/// values of a key the last counts, as for Go and jq, whose configurations others can read (RFC 8259, section 4).
macro_rules! lenient {
    ($($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $key:literal $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct $name {$(
            $(#[$fdoc])*
            pub $field: $type,
        )*}

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Object;

                impl<'de> serde::de::Visitor<'de> for Object {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$name, A::Error> {
                        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
                        enum At { $($field,)* }
                        let mut read = $name::default();
                        while let Some(key) = map.next_key_seed($crate::spec::json::KeyOf(&[$($key),*]))? {
                            match key {
                                $(Some(at) if at == At::$field as usize => {
                                    read.$field = map.next_value::<Option<$type>>()?.unwrap_or_default();
                                })*
                                _ => drop(map.next_value::<serde::de::IgnoredAny>()?),
                            }
                        }
                        Ok(read)
                    }
                }

                deserializer.deserialize_map(Object)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                $(serde::ser::SerializeMap::serialize_entry(&mut map, $key, &self.$field)?;)*
                serde::ser::SerializeMap::end(map)
            }
        }
    )*};
}
pub(super) use lenient;

#[cfg(test)]
mod tests {
    use super::super::{Process, Spec};
    use super::*;

    #[test]
    fn nulls_and_unknown_fields_are_accepted() {
        let spec: Spec = read(
            "config.json",
            br#"{"ociVersion":"1.3.0","process":null,"mounts":null,"vm":{"x":1},
                 "linux":{"resources":{"pids":{},"devices":null},"seccomp":null}}"#,
        )
        .unwrap();
        assert_eq!(spec.process, None);
        assert!(spec.mounts.is_empty());
        assert_eq!(spec.linux.resources.unwrap().pids.unwrap().limit, None);
    }

    #[test]
    fn keys_may_be_escaped() {
        let process: Process = read("process", br#"{"\u0063wd":"/a\n","args":["\"b\""]}"#).unwrap();
        assert_eq!((process.cwd.as_str(), process.args), ("/a\n", vec!["\"b\"".to_owned()]));
    }

    #[test]
    fn of_two_values_the_last_wins() {
        let json =
            br#"{"hostname":"a","linux":{"maskedPaths":["/x"]},"hostname":"b","linux":{"cgroupsPath":"/c"}}"#;
        let spec: Spec = read("config.json", json).unwrap();
        assert_eq!(spec.hostname.as_deref(), Some("b"));
        assert_eq!((spec.linux.cgroups_path.as_deref(), spec.linux.masked_paths.len()), (Some("/c"), 0));
        let error = read::<Spec>("config.json", br#"{"hostname":"a","hostname":7}"#).unwrap_err();
        assert!(error.to_string().starts_with("config.json /hostname: "), "{error}");
    }

    #[test]
    fn a_wrong_type_names_its_pointer() {
        for (json, pointer) in [
            (r#"{"mounts":[{},{"options":["ro",7]}]}"#, "/mounts/1/options/1"),
            (r#"{"mounts":[{},{"options":{}}]}"#, "/mounts/1/options"),
            (r#"{"mounts":[[]]}"#, "/mounts/0"),
            (
                "{\"a\":[\"]\\\"}{\\\\\", {}],\n\"mounts\":\n[{\"options\":\n [\"\\\\\",null ] }]}",
                "/mounts/0/options/1",
            ),
            (r#"{"linux":{"sysctl":{"a/b~":"","c\"\u002f~":[]}}}"#, r#"/linux/sysctl/c"~1~0"#),
            (r#"{"process":{"user":{"uid":-1}}}"#, "/process/user/uid"),
            (r#"{"process":{"consoleSize":{"width":1,"height":70000}}}"#, "/process/consoleSize/height"),
            (r#"{"root":[]}"#, "/root"),
            (r#"{"root":"x","process":7}"#, "/root"),
        ] {
            let error = read::<Spec>("config.json", json.as_bytes()).unwrap_err();
            assert!(error.to_string().starts_with(&format!("config.json {pointer}: ")), "{json}: {error}");
            assert_eq!(error.kind(), Kind::Invalid);
        }
    }

    #[test]
    fn a_document_that_is_no_object() {
        for json in ["[]", " 7\n", "null", "\"\""] {
            let error = read::<Spec>("config.json", json.as_bytes()).unwrap_err();
            assert!(error.to_string().starts_with("config.json: invalid type: "), "{json}: {error}");
        }
    }

    #[test]
    fn broken_json_names_line_and_column() {
        let error = read::<Spec>("config.json", b"{\"root\":").unwrap_err();
        assert!(error.to_string().contains("line 1 column 8"), "{error}");
    }
}
