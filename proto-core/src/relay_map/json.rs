//! JSON with line numbers: `serde_json` says whether a text is JSON and reads its strings, this walks it once
//! more and notes where everything stands, two fields of one name included.

use super::Problem;
use crate::limits;

/// A value and the line it begins on, from 1.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    pub(super) line: usize,
    pub(super) value: Value<'a>,
}

#[derive(Clone, Debug)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    /// Its text.
    Number(&'a str),
    String(String),
    Array(Vec<Node<'a>>),
    /// In the text's order; names may repeat.
    Object(Vec<(String, Node<'a>)>),
}

impl Value<'_> {
    /// What it is, in words.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::String(_) => "a text",
            Self::Array(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// Reads a whole document; if it is none, the line and what is wrong there.
pub(super) fn read(text: &[u8]) -> Result<Node<'_>, (usize, Problem)> {
    let checked: Result<serde::de::IgnoredAny, _> = serde_json::from_slice(text);
    if let Err(error) = checked {
        let words = error.to_string();
        // The line is told by the caller; the column helps in a document of one line.
        let why = words.split(" at line ").next().unwrap_or_default();
        let problem = Problem::NotJson(format!("{why} at column {}", error.column()));
        return Err((error.line().max(1), problem));
    }
    let text = core::str::from_utf8(text).map_err(|_| (1, Problem::NotJson("not UTF-8".into())))?;
    let mut walker = Walker { text, at: 0, line: 1 };
    walker.value(0).ok_or((walker.line, Problem::TooDeep))
}

struct Walker<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

/// Every function here relies on the text being JSON, and gives `None` where it is not or where it is nested
/// too deep.
impl<'a> Walker<'a> {
    fn value(&mut self, depth: usize) -> Option<Node<'a>> {
        if depth > limits::RELAY_MAP_DEPTH_MAX {
            return None;
        }
        let first = self.peek()?;
        let line = self.line;
        let value = match first {
            b'{' => Value::Object(self.object(depth)?),
            b'[' => Value::Array(self.array(depth)?),
            b'"' => Value::String(self.string()?),
            _ => match self.word() {
                "null" => Value::Null,
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                number => Value::Number(number),
            },
        };
        Some(Node { line, value })
    }

    fn object(&mut self, depth: usize) -> Option<Vec<(String, Node<'a>)>> {
        let mut fields = Vec::new();
        self.at += 1;
        while self.peek()? != b'}' {
            let name = self.string()?;
            self.peek()?;
            self.at += 1; // the colon
            fields.push((name, self.value(depth + 1)?));
            self.comma()?;
        }
        self.at += 1;
        Some(fields)
    }

    fn array(&mut self, depth: usize) -> Option<Vec<Node<'a>>> {
        let mut items = Vec::new();
        self.at += 1;
        while self.peek()? != b']' {
            items.push(self.value(depth + 1)?);
            self.comma()?;
        }
        self.at += 1;
        Some(items)
    }

    fn comma(&mut self) -> Option<()> {
        if self.peek()? == b',' {
            self.at += 1;
        }
        Some(())
    }

    fn string(&mut self) -> Option<String> {
        let rest = self.text.get(self.at..)?;
        let mut escaped = false;
        let length = rest.bytes().skip(1).position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        })?;
        let literal = rest.get(..length + 2)?;
        self.at += literal.len();
        serde_json::from_str(literal).ok()
    }

    fn word(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let length =
            rest.find(|c: char| c.is_whitespace() || matches!(c, ',' | ']' | '}')).unwrap_or(rest.len());
        self.at += length;
        &rest[..length]
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.as_bytes().get(self.at)?;
            match byte {
                b'\n' => self.line += 1,
                b' ' | b'\t' | b'\r' => {}
                _ => return Some(byte),
            }
            self.at += 1;
        }
    }
}
