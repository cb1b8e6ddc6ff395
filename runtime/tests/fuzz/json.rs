// SPDX-License-Identifier: Apache-2.0
//! JSON as a fuzzer needs it: duplicate keys, numbers of any length and strings as they are written all survive.

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Json {
    /// `null`, `true`, a number, or whatever else stands bare.
    Word(String),
    /// What stands between the quotes, escapes and all.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object, in its order.
    Map(Vec<(String, Json)>),
}

/// Deeper texts are left to the mutations of bytes: serde_json refuses more than 128 levels.
const DEPTH: usize = 400;

impl Json {
    /// Reads a text that is nothing but a value.
    pub fn read(text: &[u8]) -> Option<Json> {
        let text = std::str::from_utf8(text).ok()?;
        let mut reader = Reader { rest: text };
        let value = reader.value(0)?;
        reader.rest.trim_ascii().is_empty().then_some(value)
    }

    /// Writes it, without spaces.
    pub fn write(&self, out: &mut Vec<u8>) {
        let quote = |out: &mut Vec<u8>, text: &str| {
            out.push(b'"');
            out.extend_from_slice(text.as_bytes());
            out.push(b'"');
        };
        match self {
            Json::Word(word) => out.extend_from_slice(word.as_bytes()),
            Json::Text(text) => quote(out, text),
            Json::List(list) => {
                out.push(b'[');
                for (at, value) in list.iter().enumerate() {
                    out.extend_from_slice(if at > 0 { b"," } else { b"" });
                    value.write(out);
                }
                out.push(b']');
            }
            Json::Map(map) => {
                out.push(b'{');
                for (at, (key, value)) in map.iter().enumerate() {
                    out.extend_from_slice(if at > 0 { b"," } else { b"" });
                    quote(out, key);
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }

    /// How many values it is, itself among them.
    pub fn count(&self) -> usize {
        1 + match self {
            Json::Word(_) | Json::Text(_) => 0,
            Json::List(list) => list.iter().map(Json::count).sum(),
            Json::Map(map) => map.iter().map(|(_, value)| value.count()).sum(),
        }
    }

    /// How many values it has directly.
    pub fn length(&self) -> usize {
        match self {
            Json::Word(_) | Json::Text(_) => 0,
            Json::List(list) => list.len(),
            Json::Map(map) => map.len(),
        }
    }

    /// The `n`th of the values it has directly, and its key.
    pub fn child(&mut self, n: usize) -> Option<(&str, &mut Json)> {
        match self {
            Json::Word(_) | Json::Text(_) => None,
            Json::List(list) => list.get_mut(n).map(|value| ("", value)),
            Json::Map(map) => map.get_mut(n).map(|(key, value)| (key.as_str(), value)),
        }
    }

    /// Takes the `n`th of these out.
    pub fn remove(&mut self, n: usize) {
        match self {
            Json::Word(_) | Json::Text(_) => {}
            Json::List(list) => drop(list.remove(n)),
            Json::Map(map) => drop(map.remove(n)),
        }
    }

    /// Every value with its key, from the top.
    pub fn visit(&self, key: &str, each: &mut impl FnMut(&str, &Json)) {
        each(key, self);
        match self {
            Json::Word(_) | Json::Text(_) => {}
            Json::List(list) => list.iter().for_each(|value| value.visit(key, each)),
            Json::Map(map) => map.iter().for_each(|(key, value)| value.visit(key, each)),
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn skip(&mut self, c: char) -> bool {
        self.rest = self.rest.trim_ascii_start();
        let rest = self.rest.strip_prefix(c);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        if depth > DEPTH {
            return None;
        }
        if self.skip('[') {
            let mut list = Vec::new();
            while !self.skip(']') {
                if !list.is_empty() && !self.skip(',') {
                    return None;
                }
                list.push(self.value(depth + 1)?);
            }
            return Some(Json::List(list));
        }
        if self.skip('{') {
            let mut map = Vec::new();
            while !self.skip('}') {
                if !map.is_empty() && !self.skip(',') {
                    return None;
                }
                let key = self.quoted()?;
                map.push((key, self.skip(':').then(|| self.value(depth + 1))??));
            }
            return Some(Json::Map(map));
        }
        if self.rest.starts_with('"') {
            return self.quoted().map(Json::Text);
        }
        let end = self.rest.find([',', ']', '}', '"', '{', '[', ':', ' ', '\n', '\t', '\r']);
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        (!word.is_empty()).then(|| Json::Word(word.to_owned()))
    }

    fn quoted(&mut self) -> Option<String> {
        if !self.skip('"') {
            return None;
        }
        let mut escaped = false;
        let end = self.rest.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })?;
        let text = self.rest[..end].to_owned();
        self.rest = &self.rest[end + 1..];
        Some(text)
    }
}

#[test]
fn odd_texts_survive() {
    let text = br#"{"a":[1e999,-0,null,{"b":"\u0000\"\\"}],"a":00x,"":[]}"#;
    let json = Json::read(text).unwrap();
    let mut out = Vec::new();
    json.write(&mut out);
    assert_eq!(out, text);
    assert_eq!((json.count(), json.length()), (9, 3));
    assert!(
        Json::read(b"{\"a\":}").is_none() && Json::read(b"[1 2]").is_none() && Json::read(b"1,").is_none()
    );
}
