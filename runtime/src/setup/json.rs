// SPDX-License-Identifier: Apache-2.0
//! Members of a JSON object, put into a text and taken out of it again; everything else stays byte for byte. The text has been
//! read by serde_json before: what is not JSON never comes here. Pure.

#![forbid(unsafe_code)]

use std::ops::Range;

/// A member and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JsonMember {
    pub(super) name: String,
    key: usize,
    pub(super) value: Range<usize>,
}

/// An object and where its members stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JsonObject {
    open: usize,
    close: usize,
    pub(super) members: Vec<JsonMember>,
}

impl JsonObject {
    /// The object whose `{` is the first thing from `at` on.
    pub(super) fn read(text: &str, at: usize) -> Option<JsonObject> {
        let open = blanks(text, at);
        let mut at = blanks(text, after(text, open, "{")?);
        let mut members = Vec::new();
        loop {
            if after(text, at, "}").is_some() {
                return Some(JsonObject { open, close: at, members });
            }
            let key = at;
            let end = value(text, key)?;
            let name = serde_json::from_str(text.get(key..end)?).ok()?;
            let start = blanks(text, after(text, blanks(text, end), ":")?);
            let end = value(text, start)?;
            members.push(JsonMember { name, key, value: start..end });
            at = blanks(text, end);
            at = after(text, at, ",").map_or(at, |next| blanks(text, next));
        }
    }

    /// The last of that name, which is the one that counts.
    pub(super) fn member(&self, name: &str) -> Option<&JsonMember> {
        self.members.iter().rfind(|member| member.name == name)
    }

    /// The text with one more member, as the last. An object that had none is `wide`, of lines, or as it was.
    pub(super) fn with(&self, text: &str, name: &str, value: &str, wide: Option<&str>) -> String {
        let inside = text.get(self.open + 1..self.close).unwrap_or_default();
        let (at, new) = match (self.members.first(), self.members.last()) {
            (Some(first), Some(last)) => {
                let gap = text.get(self.open + 1..first.key).unwrap_or_default();
                let gap = if gap.is_empty() { " " } else { gap };
                (last.value.end, format!(",{gap}\"{name}\": {value}"))
            }
            _ => match wide.filter(|_| inside.is_empty()) {
                Some(gap) => (self.close, format!("{gap}\"{name}\": {value}\n")),
                None => (self.close, format!("\"{name}\": {value}")),
            },
        };
        let mut text = text.to_owned();
        text.insert_str(at, &new);
        text
    }

    /// The text without that member; of an object of one, as [`JsonObject::with`] found it.
    pub(super) fn without(&self, text: &str, name: &str, wide: Option<&str>) -> String {
        let Some(at) = self.members.iter().rposition(|member| member.name == name) else {
            return text.to_owned();
        };
        let member = &self.members[at];
        let gap = text.get(self.open + 1..member.key).unwrap_or_default();
        let rest = text.get(member.value.end..self.close).unwrap_or_default();
        let span =
            match (at.checked_sub(1).and_then(|before| self.members.get(before)), self.members.get(at + 1)) {
                (Some(before), _) => before.value.end..member.value.end,
                (None, Some(next)) => member.key..next.key,
                (None, None) if wide == Some(gap) && rest == "\n" => self.open + 1..self.close,
                (None, None) => member.key..member.value.end,
            };
        let mut text = text.to_owned();
        text.replace_range(span, "");
        text
    }
}

fn blanks(text: &str, at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    text.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len()
}

fn after(text: &str, at: usize, word: &str) -> Option<usize> {
    text.get(at..)?.starts_with(word).then_some(at + word.len())
}

/// Where the value that begins here ends.
fn value(text: &str, start: usize) -> Option<usize> {
    let (mut deep, mut quoted, mut escaped) = (0_u32, false, false);
    for (at, byte) in text.bytes().enumerate().skip(start) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => {
                quoted = !quoted;
                if !quoted && deep == 0 {
                    return Some(at + 1);
                }
            }
            _ if quoted => {}
            b'{' | b'[' => deep += 1,
            b'}' | b']' if deep > 1 => deep -= 1,
            b'}' | b']' if deep == 1 => return Some(at + 1),
            b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n' if deep == 0 => return Some(at),
            _ => {}
        }
    }
    None
}
