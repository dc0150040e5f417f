//! Tree of a parsed document, in which every node knows its position in the file.

use std::ops::Range;

use saphyr_parser::ScalarStyle;
use serde_json::{Map, Number, Value};

/// Node of the tree.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its bytes in the file; those of its first character for block lists and mappings.
    pub span: Range<usize>,
    /// Its tag without the exclamation mark, such as `unknown`.
    pub tag: Option<String>,
    /// Content.
    pub content: Content,
}

/// Content of a node.
#[derive(Debug, Clone)]
pub enum Content {
    /// A scalar as it reads once quotes, escapes and folding are resolved.
    Scalar {
        /// The text.
        text: String,
        /// Plain, quoted or a block.
        style: ScalarStyle,
    },
    /// A list.
    List(Vec<Node>),
    /// A mapping in the file's order.
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// Nothing, where something could not be read.
    pub fn null(span: Range<usize>) -> Self {
        Self { span, tag: None, content: Content::Scalar { text: String::new(), style: ScalarStyle::Plain } }
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The entries of a mapping; none for anything else.
    pub fn entries(&self) -> &[(Node, Node)] {
        match &self.content {
            Content::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; none for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.content {
            Content::List(items) => items,
            _ => &[],
        }
    }

    /// The value under `key` of a mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value)
    }

    /// The key node `key` of a mapping.
    pub fn key(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(name, _)| name.text() == Some(key)).map(|(name, _)| name)
    }

    /// The same document as JSON, with the scalar types of YAML 1.2's core schema. `!unknown "why"` becomes
    /// `{unknown: "why"}` and `!absent` becomes null.
    pub fn to_json(&self) -> Value {
        match (&self.content, self.tag.as_deref()) {
            (Content::Scalar { text, .. }, Some("unknown")) => {
                Value::Object(Map::from_iter([("unknown".to_owned(), Value::String(text.clone()))]))
            }
            (_, Some("absent")) => Value::Null,
            (Content::Scalar { text, style: ScalarStyle::Plain }, _) => plain(text),
            (Content::Scalar { text, .. }, _) => Value::String(text.clone()),
            (Content::List(items), _) => items.iter().map(Self::to_json).collect(),
            (Content::Map(entries), _) => Value::Object(
                entries
                    .iter()
                    .map(|(key, value)| (key.text().unwrap_or_default().to_owned(), value.to_json()))
                    .collect(),
            ),
        }
    }

    /// Position in the file of byte `offset` of a scalar's text, through quotes, escapes, folding and indentation.
    ///
    /// Characters other than white space come in the same order in both, one for one or as an escape, so the two
    /// are walked side by side.
    pub fn locate(&self, file: &str, offset: usize) -> usize {
        let Content::Scalar { text, style } = &self.content else { return self.span.start };
        let mut source = Cursor { file, at: self.span.start, style: *style };
        if matches!(style, ScalarStyle::DoubleQuoted | ScalarStyle::SingleQuoted) {
            source.at += 1;
        }
        for (at, character) in text.char_indices() {
            if character.is_whitespace() {
                if at >= offset {
                    break;
                }
                continue;
            }
            source.skip_white();
            if at >= offset {
                break;
            }
            source.at += source.unit_len();
        }
        source.at.min(file.len())
    }
}

/// A position in the source of a scalar.
struct Cursor<'a> {
    file: &'a str,
    at: usize,
    style: ScalarStyle,
}

impl Cursor<'_> {
    fn rest(&self) -> &str {
        self.file.get(self.at..).unwrap_or_default()
    }

    /// Skips white space, and escapes that stand for white space.
    fn skip_white(&mut self) {
        loop {
            let rest = self.rest();
            let Some(next) = rest.chars().next() else { return };
            if next.is_whitespace() {
                self.at += next.len_utf8();
            } else if self.style == ScalarStyle::DoubleQuoted
                && next == '\\'
                && rest.chars().nth(1).is_some_and(|c| "nrtLPNve_ 0\n\r\t".contains(c))
            {
                self.at += 2;
            } else {
                return;
            }
        }
    }

    /// Number of bytes in the file that stand for one character of the text.
    fn unit_len(&self) -> usize {
        let rest = self.rest();
        let first = rest.chars().next().map_or(1, char::len_utf8);
        match self.style {
            ScalarStyle::SingleQuoted if rest.starts_with("''") => 2,
            ScalarStyle::DoubleQuoted if rest.starts_with('\\') => match rest.as_bytes().get(1) {
                Some(b'x') => 4,
                Some(b'u') => 6,
                Some(b'U') => 10,
                _ => 2,
            },
            _ => first,
        }
    }
}

/// Value of a plain scalar by YAML 1.2's core schema.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Value::String(text.to_owned());
    }
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    if let Ok(number) = unsigned.parse::<i64>() {
        return Value::Number(number.into());
    }
    if let Ok(number) = unsigned.parse::<u64>() {
        return Value::Number(number.into());
    }
    let number = digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    match unsigned.parse::<f64>().ok().filter(|_| number).and_then(Number::from_f64) {
        Some(number) => Value::Number(number),
        None => Value::String(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::{SourceFile, yaml::parse};

    fn file(text: &str) -> Arc<SourceFile> {
        SourceFile::new("x.yaml", text.as_bytes()).unwrap()
    }

    #[test]
    fn scalars_have_the_types_of_the_core_schema() {
        let file = file(
            "{a: 1, b: -2.5, c: yes, d: true, e: null, f: \"1\", g: 1e3, h: 7.2.22, i: 2026-11-23T01:00:00Z, j: , k: !absent , l: !unknown \"no agent\"}",
        );
        let json = parse(&file).node.unwrap().to_json();
        let expected = serde_json::json!({
            "a": 1, "b": -2.5, "c": "yes", "d": true, "e": null, "f": "1", "g": 1000.0, "h": "7.2.22",
            "i": "2026-11-23T01:00:00Z", "j": null, "k": null, "l": {"unknown": "no agent"}
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn every_style_of_scalar_finds_its_way_back_to_the_file() {
        let texts = [
            "µ: aa bb == cc",
            "µ: 'aa '' bb == cc'",
            "µ: \"aa \\\" \\x41 \\n bb == cc\"",
            "µ: >-\n  aa\n  bb\n     == cc\n",
            "µ: |\n    aa\n    bb == cc\n",
            "µ: aa\n  bb ==\n  cc",
        ];
        for text in texts {
            let file = file(text);
            let node = parse(&file).node.unwrap();
            let value = node.get("µ").unwrap();
            for word in ["aa", "bb", "==", "cc"] {
                let found = value.locate(&file.text, value.text().unwrap().find(word).unwrap());
                assert_eq!(file.text.get(found..found + 2), Some(word), "{text}");
            }
        }
    }
}
