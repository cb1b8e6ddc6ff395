// SPDX-License-Identifier: Apache-2.0
//! Values as D-Bus has them, and how they are written as text (GVariant text format) in annotations. Pure.
//!
//! Only what unit properties are made of: no dictionaries, no variants within values, no descriptors.

#![forbid(unsafe_code)]

/// One value (D-Bus specification, "Type system").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `b`
    Bool(bool),
    /// `y`
    Byte(u8),
    /// `n`
    I16(i16),
    /// `q`
    U16(u16),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `d`, by its bits.
    Double(u64),
    /// `s`
    Text(String),
    /// `o`
    Path(String),
    /// `a`, with the signature of what is in it.
    Array(String, Vec<Value>),
    /// `(…)`
    Tuple(Vec<Value>),
}

/// How deep a value may be nested; the specification allows 32 of each container type.
const DEPTH: u32 = 16;

impl Value {
    /// A text.
    #[must_use]
    pub fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    /// A list of texts.
    #[must_use]
    pub fn texts(list: &[&str]) -> Value {
        Value::Array("s".into(), list.iter().map(|text| Value::text(text)).collect())
    }

    /// A string of bytes.
    #[must_use]
    pub fn bytes(bytes: &[u8]) -> Value {
        Value::Array("y".into(), bytes.iter().map(|byte| Value::Byte(*byte)).collect())
    }

    /// Its D-Bus signature.
    #[must_use]
    pub fn signature(&self) -> String {
        match self {
            Value::Bool(_) => "b".into(),
            Value::Byte(_) => "y".into(),
            Value::I16(_) => "n".into(),
            Value::U16(_) => "q".into(),
            Value::I32(_) => "i".into(),
            Value::U32(_) => "u".into(),
            Value::I64(_) => "x".into(),
            Value::U64(_) => "t".into(),
            Value::Double(_) => "d".into(),
            Value::Text(_) => "s".into(),
            Value::Path(_) => "o".into(),
            Value::Array(of, _) => format!("a{of}"),
            Value::Tuple(items) => format!("({})", items.iter().map(Value::signature).collect::<String>()),
        }
    }

    /// Reads the GVariant text format: `true`, `uint64 5`, `-1`, `1.5`, `'a'`, `['a', 'b']`, `@as []`, `('/dev/x', 5)`.
    /// A number takes the type that is `wanted`, as far as the text leaves it open; without one it is an `i`.
    ///
    /// # Errors
    /// The reason, in words.
    pub fn parse(text: &str, wanted: &str) -> Result<Value, String> {
        let mut reader = Reader { rest: text.trim_start(), depth: 0 };
        let value = reader.value(wanted)?;
        match reader.rest {
            "" => Ok(value),
            rest => Err(format!("{:?} is left over", shown(rest))),
        }
    }
}

/// Of a long text, the beginning.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

struct Reader<'a> {
    rest: &'a str,
    depth: u32,
}

/// The type keywords of the text format.
const KEYWORDS: [(&str, &str); 11] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
];

impl<'a> Reader<'a> {
    fn value(&mut self, wanted: &str) -> Result<Value, String> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err("it is nested too deeply".into());
        }
        let value = match self.rest.chars().next() {
            None => return Err("a value is missing".into()),
            Some('@') => {
                self.eat("@");
                let signature = self.word(|c| !c.is_whitespace());
                match one_type(signature) {
                    Some("") if !signature.is_empty() => self.value(signature)?,
                    _ => return Err(format!("{:?} is no type", shown(signature))),
                }
            }
            Some('\'' | '"') => text(self.quoted()?, wanted),
            Some('[') => self.array(wanted)?,
            Some('(') => self.tuple(wanted)?,
            Some(c) if c.is_ascii_digit() || "+-.".contains(c) => {
                let word = self.word(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
                parse_number(word, wanted)?
            }
            Some(_) => self.keyword()?,
        };
        self.depth -= 1;
        Ok(value)
    }

    fn keyword(&mut self) -> Result<Value, String> {
        let word = self.word(|c| c.is_ascii_alphanumeric());
        match word {
            "true" => return Ok(Value::Bool(true)),
            "false" => return Ok(Value::Bool(false)),
            _ => {}
        }
        match KEYWORDS.iter().find(|(name, _)| *name == word) {
            Some((_, signature)) => {
                let value = self.value(signature)?;
                let fits = value.signature() == *signature;
                if fits { Ok(value) } else { Err(format!("what follows {word} is something else")) }
            }
            None => Err(format!(
                "{:?} is no value (texts are quoted)",
                shown(if word.is_empty() { self.rest } else { word })
            )),
        }
    }

    fn array(&mut self, wanted: &str) -> Result<Value, String> {
        let mut of = wanted.strip_prefix('a').unwrap_or_default().to_owned();
        let items = self.items("[", "]", |_| of.clone())?;
        match items.first() {
            Some(first) => of = first.signature(),
            None if of.is_empty() => {
                return Err("the type of an empty array is not known: write @as []".into());
            }
            None => {}
        }
        match items.iter().find(|item| item.signature() != of) {
            Some(other) => Err(format!("an array holds {of} and {}", other.signature())),
            None => Ok(Value::Array(of, items)),
        }
    }

    fn tuple(&mut self, wanted: &str) -> Result<Value, String> {
        let inside = wanted.strip_prefix('(').and_then(|w| w.strip_suffix(')')).unwrap_or_default();
        let types = types(inside);
        let items = self.items("(", ")", |index| types.get(index).copied().unwrap_or_default().to_owned())?;
        if items.is_empty() { Err("an empty tuple is no value".into()) } else { Ok(Value::Tuple(items)) }
    }

    fn items(
        &mut self,
        open: &str,
        close: &str,
        wanted: impl Fn(usize) -> String,
    ) -> Result<Vec<Value>, String> {
        self.eat(open);
        let mut items = Vec::new();
        while !self.eat(close) {
            items.push(self.value(&wanted(items.len()))?);
            if !self.eat(",") && !self.rest.starts_with(close) {
                return Err(format!("a comma or {close:?} is missing before {:?}", shown(self.rest)));
            }
        }
        Ok(items)
    }

    /// Takes `token` and the spaces after it, if it is there.
    fn eat(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn word(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        word
    }

    fn quoted(&mut self) -> Result<String, String> {
        let mut chars = self.rest.chars();
        let quote = chars.next();
        let mut text = String::new();
        loop {
            match chars.next() {
                None => return Err("a text does not end".into()),
                c if c == quote => break,
                Some('\0') => return Err("a text holds a zero byte".into()),
                Some('\\') => text.push(match chars.next() {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some(c @ ('\\' | '\'' | '"')) => c,
                    _ => return Err("an escape is not known (\\n \\t \\\\ \\' \\\")".into()),
                }),
                Some(c) => text.push(c),
            }
        }
        self.rest = chars.as_str().trim_start();
        Ok(text)
    }
}

fn text(text: String, wanted: &str) -> Value {
    if wanted == "o" { Value::Path(text) } else { Value::Text(text) }
}

fn parse_number(word: &str, wanted: &str) -> Result<Value, String> {
    let no = |_| {
        format!("{:?} is no number of type {}", shown(word), if wanted.is_empty() { "i" } else { wanted })
    };
    let plain = word.strip_prefix('+').unwrap_or(word);
    let hexadecimal = plain.strip_prefix("0x").and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let plain = hexadecimal.map_or_else(|| plain.to_owned(), |n| n.to_string());
    let integer = plain.strip_prefix('-').unwrap_or(&plain).bytes().all(|b| b.is_ascii_digit());
    Ok(match wanted {
        "y" => Value::Byte(plain.parse().map_err(|_| no(()))?),
        "n" => Value::I16(plain.parse().map_err(|_| no(()))?),
        "q" => Value::U16(plain.parse().map_err(|_| no(()))?),
        "u" => Value::U32(plain.parse().map_err(|_| no(()))?),
        "x" => Value::I64(plain.parse().map_err(|_| no(()))?),
        "t" => Value::U64(plain.parse().map_err(|_| no(()))?),
        _ if wanted == "d" || !integer => {
            let number: f64 = plain.parse().map_err(|_| no(()))?;
            Value::Double(number.to_bits())
        }
        _ => Value::I32(plain.parse().map_err(|_| no(()))?),
    })
}

/// What follows the first complete type of a signature; `None` if there is none.
fn one_type(signature: &str) -> Option<&str> {
    let mut chars = signature.chars();
    match chars.next()? {
        'b' | 'y' | 'n' | 'q' | 'i' | 'u' | 'x' | 't' | 'd' | 's' | 'o' => Some(chars.as_str()),
        'a' => one_type(chars.as_str()),
        '(' => {
            let mut rest = chars.as_str();
            loop {
                rest = one_type(rest)?;
                if let Some(after) = rest.strip_prefix(')') {
                    return Some(after);
                }
            }
        }
        _ => None,
    }
}

/// The types that a signature consists of.
fn types(mut signature: &str) -> Vec<&str> {
    let mut all = Vec::new();
    while let Some(rest) = one_type(signature) {
        all.push(&signature[..signature.len() - rest.len()]);
        signature = rest;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_format_is_read() {
        for (text, wanted, value) in [
            ("true", "", Value::Bool(true)),
            (" uint64 123456789 ", "", Value::U64(123_456_789)),
            ("5", "t", Value::U64(5)),
            ("-7", "", Value::I32(-7)),
            ("byte 0x10", "", Value::Byte(16)),
            ("1.5", "", Value::Double(1.5f64.to_bits())),
            ("'inactive-or-failed'", "s", Value::text("inactive-or-failed")),
            ("\"a\\n\\\"b\"", "", Value::text("a\n\"b")),
            ("['a.service', 'b']", "as", Value::texts(&["a.service", "b"])),
            ("@as []", "", Value::texts(&[])),
            ("[]", "as", Value::texts(&[])),
            ("objectpath '/a'", "", Value::Path("/a".into())),
            (
                "[('/dev/sda', 5)]",
                "a(st)",
                Value::Array("(st)".into(), vec![Value::Tuple(vec![Value::text("/dev/sda"), Value::U64(5)])]),
            ),
            ("@ay [1, 2]", "", Value::bytes(&[1, 2])),
        ] {
            let read = Value::parse(text, wanted);
            assert_eq!(read.as_ref(), Ok(&value), "{text}");
        }
        assert_eq!(Value::parse("[('/dev/sda', 5)]", "a(st)").unwrap().signature(), "a(st)");
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let deep = "[".repeat(100);
        for text in [
            "",
            "tru",
            "'open",
            "uint64 -1",
            "byte 256",
            "['a', 5]",
            "[]",
            "()",
            "5 6",
            "@ []",
            "@aas [[]",
            "{'a': 5}",
            "<5>",
            "uint64 'x'",
            "99999999999",
            "'\\q'",
            "a\0",
            "[1,,2]",
            "@(s 5",
            "--5",
            "1e999x",
            &deep,
        ] {
            assert!(Value::parse(text, "").is_err(), "{text}");
        }
    }

    /// Whatever the text: an answer, and no panic.
    #[test]
    fn nothing_makes_it_panic() {
        let alphabet = b"@as[](),'\"\\ 05-+.xtuint64byte<>{}true\xc3\xa9";
        let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
        for _ in 0..200_000 {
            let mut bytes = Vec::new();
            for _ in 0..(seed % 24) {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                bytes.push(alphabet[(seed >> 33) as usize % alphabet.len()]);
            }
            seed = seed.wrapping_add(0x1234_5678_9ABC_DEF1);
            let text = String::from_utf8_lossy(&bytes);
            for wanted in ["", "t", "as", "a(st)"] {
                if let Ok(value) = Value::parse(&text, wanted) {
                    assert_eq!(one_type(&value.signature()), Some(""), "{text}");
                }
            }
        }
    }
}
