//! YAML with positions: a tree in which every node knows its bytes in the file, so that an error can point at them.
//!
//! Written for hostile input: size and depth are bounded, anchors and aliases (the means of a YAML bomb) and
//! duplicate keys are refused, and the parser below is driven event by event, without recursion.

use std::{fs, ops::Range, path::Path, sync::Arc};

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

use super::diagnostic::{Problem, SourceFile};

/// Largest file that is read.
pub(crate) const LARGEST_FILE_BYTES: u64 = 1024 * 1024;
/// Deepest nesting of lists and mappings.
const DEEPEST: usize = 48;

/// A node of the tree.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Its bytes in the file; those of its first character for block lists and mappings.
    pub(crate) span: Range<usize>,
    /// Its tag without the exclamation mark, such as `unknown`.
    pub(crate) tag: Option<String>,
    /// What it holds.
    pub(crate) content: Content,
}

/// What a node holds.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// A scalar as it reads once quotes, escapes and folding are resolved.
    Scalar { text: String, style: ScalarStyle },
    /// A list.
    List(Vec<Node>),
    /// A mapping in the file's order.
    Map(Vec<(Node, Node)>),
}

impl Node {
    /// The text of a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The entries of a mapping; none for anything else.
    pub(crate) fn entries(&self) -> &[(Node, Node)] {
        match &self.content {
            Content::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; none for anything else.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.content {
            Content::List(items) => items,
            _ => &[],
        }
    }

    /// The value under `key` of a mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value)
    }

    /// The key node `key` of a mapping.
    pub(crate) fn key(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(name, _)| name.text() == Some(key)).map(|(name, _)| name)
    }

    /// The same document as JSON, with the scalar types of YAML 1.2's core schema. `!unknown "why"` becomes
    /// `{unknown: "why"}` and `!absent` becomes null.
    pub(crate) fn to_json(&self) -> Value {
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

    /// Where byte `offset` of a scalar's text stands in the file, through quotes, escapes, folding and indentation.
    ///
    /// Characters other than white space come in the same order in both, one for one or as an escape, so the two
    /// are walked side by side.
    pub(crate) fn locate(&self, file: &str, offset: usize) -> usize {
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

    /// Passes white space, and escapes that stand for it.
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

    /// Bytes of the file that stand for one character of the text.
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

/// A plain scalar by YAML 1.2's core schema.
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

/// Reads a file as text: bounded, UTF-8, not a directory, not empty, without a byte order mark.
pub(crate) fn read(path: &Path) -> Result<Arc<SourceFile>, Problem> {
    let name = path.display().to_string();
    let problem = |message: String, help: &str| Problem::of_file(&name, message, help);
    let meta = fs::metadata(path)
        .map_err(|e| problem(format!("cannot be read: {e}"), "check the path and its permissions"))?;
    if meta.is_dir() {
        return Err(problem(
            "is a directory, not a file".into(),
            "rename the directory: names that end in .yaml are for files",
        ));
    }
    if meta.len() > LARGEST_FILE_BYTES {
        let message = format!("is too large: {} bytes, at most {LARGEST_FILE_BYTES} are read", meta.len());
        return Err(problem(message, "split the file"));
    }
    let bytes = fs::read(path)
        .map_err(|e| problem(format!("cannot be read: {e}"), "check the path and its permissions"))?;
    source(name.clone(), &bytes)
}

/// The same checks for bytes that are already in memory.
pub(crate) fn source(name: String, bytes: &[u8]) -> Result<Arc<SourceFile>, Problem> {
    if bytes.len() as u64 > LARGEST_FILE_BYTES {
        let message = format!("is too large: {} bytes, at most {LARGEST_FILE_BYTES} are read", bytes.len());
        return Err(Problem::of_file(&name, message, "split the file"));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(e) => {
            let message = format!("is not UTF-8: byte {} is wrong", e.valid_up_to());
            return Err(Problem::of_file(&name, message, "save the file as UTF-8"));
        }
    };
    if text.starts_with('\u{feff}') {
        let message = "begins with a byte order mark".to_owned();
        return Err(Problem::of_file(&name, message, "save the file as UTF-8 without a byte order mark"));
    }
    Ok(Arc::new(SourceFile { name, text: text.to_owned() }))
}

/// Parses one document. The error is the first that the grammar finds; what follows could not be trusted.
pub(crate) fn parse(file: &Arc<SourceFile>) -> Result<Node, Problem> {
    Builder { file, offsets: char_offsets(&file.text), stack: Vec::new(), done: None }.run()
}

/// Byte offsets of the characters, needed only where the text is not ASCII.
fn char_offsets(text: &str) -> Option<Vec<usize>> {
    (!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).chain([text.len()]).collect())
}

/// An unfinished list or mapping.
struct Open {
    span: Range<usize>,
    tag: Option<String>,
    map: bool,
    nodes: Vec<Node>,
}

struct Builder<'a> {
    file: &'a Arc<SourceFile>,
    offsets: Option<Vec<usize>>,
    stack: Vec<Open>,
    done: Option<Node>,
}

impl Builder<'_> {
    fn byte(&self, index: usize) -> usize {
        match &self.offsets {
            Some(offsets) => offsets.get(index).copied().unwrap_or(self.file.text.len()),
            None => index.min(self.file.text.len()),
        }
    }

    fn fail<T>(&self, span: Range<usize>, message: &str, label: &str, help: &str) -> Result<T, Problem> {
        Err(Problem::at(self.file, span, message).label(label).help(help))
    }

    fn run(mut self) -> Result<Node, Problem> {
        let file = Arc::clone(self.file);
        let mut documents = 0;
        for event in Parser::new_from_str(&file.text) {
            let (event, span) = match event {
                Ok(event) => event,
                Err(error) => {
                    let at = self.byte(error.marker().index());
                    if error.info().contains("recursion limit") {
                        return self.too_deep(at..at + 1);
                    }
                    let message = format!("this is not YAML: {}", error.info());
                    let help = "indent with spaces, and quote a text that contains `: `, ` #`, or starts with `{`, `[`, `!` or `\"`";
                    return self.fail(at..at + 1, &message, "the parser stopped here", help);
                }
            };
            let span = self.byte(span.start.index())..self.byte(span.end.index());
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        return self.fail(
                            span,
                            "a second document in one file",
                            "it starts here",
                            "one file, one document: put it in a file of its own",
                        );
                    }
                }
                Event::Alias(_) => return self.no_anchors(span),
                Event::Scalar(_, _, anchor, _)
                | Event::SequenceStart(anchor, _)
                | Event::MappingStart(anchor, _)
                    if anchor != 0 =>
                {
                    return self.no_anchors(span);
                }
                Event::Scalar(text, style, _, tag) => {
                    let tag = tag.map(|tag| tag.suffix.clone());
                    self.add(Node {
                        span,
                        tag,
                        content: Content::Scalar { text: text.into_owned(), style },
                    })?;
                }
                Event::SequenceStart(_, tag) => self.open(span, tag.map(|tag| tag.suffix.clone()), false)?,
                Event::MappingStart(_, tag) => self.open(span, tag.map(|tag| tag.suffix.clone()), true)?,
                Event::SequenceEnd | Event::MappingEnd => self.close()?,
                _ => {}
            }
        }
        match self.done.take() {
            Some(node) => Ok(node),
            None => Err(Problem::of_file(&file.name, "is empty", "write something into it, or remove it")),
        }
    }

    fn too_deep<T>(&self, span: Range<usize>) -> Result<T, Problem> {
        let message = format!("nested too deeply: at most {DEEPEST} levels are read");
        self.fail(span, &message, "this level is one too many", "flatten the document")
    }

    fn no_anchors<T>(&self, span: Range<usize>) -> Result<T, Problem> {
        self.fail(
            span,
            "anchors and aliases are not read",
            "an anchor or alias",
            "write the value out where it is needed: files that expand themselves are how YAML bombs are made",
        )
    }

    fn open(&mut self, span: Range<usize>, tag: Option<String>, map: bool) -> Result<(), Problem> {
        if self.stack.len() >= DEEPEST {
            return self.too_deep(span);
        }
        let first = span.start..span.end.max(span.start + 1).min(self.file.text.len());
        self.stack.push(Open { span: first, tag, map, nodes: Vec::new() });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Problem> {
        let Some(open) = self.stack.pop() else { return Ok(()) };
        let content = if open.map {
            let mut entries = Vec::with_capacity(open.nodes.len() / 2);
            let mut nodes = open.nodes.into_iter();
            while let (Some(key), Some(value)) = (nodes.next(), nodes.next()) {
                entries.push((key, value));
            }
            Content::Map(entries)
        } else {
            Content::List(open.nodes)
        };
        self.add(Node { span: open.span, tag: open.tag, content })
    }

    fn add(&mut self, node: Node) -> Result<(), Problem> {
        let Some(open) = self.stack.last_mut() else {
            self.done = Some(node);
            return Ok(());
        };
        let is_key = open.map && open.nodes.len().is_multiple_of(2);
        if is_key {
            let Some(key) = node.text() else {
                return self.fail(
                    node.span,
                    "a key must be a plain word",
                    "this is a list or mapping",
                    "keys are names; quote text that starts with `{` or `[`",
                );
            };
            let before = open.nodes.iter().step_by(2).find(|other| other.text() == Some(key));
            if let Some(before) = before {
                let problem =
                    Problem::at(self.file, node.span.clone(), format!("the key `{key}` is given twice"))
                        .label("again here")
                        .related(before.span.clone(), "first here")
                        .help("remove one of them: which one counts would be a matter of luck");
                return Err(problem);
            }
        }
        open.nodes.push(node);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Arc<SourceFile> {
        source("x.yaml".into(), text.as_bytes()).unwrap()
    }

    fn error(text: &str) -> String {
        match source("x.yaml".into(), text.as_bytes()).and_then(|file| parse(&file)) {
            Ok(node) => panic!("accepted {node:?}"),
            Err(problem) => problem.render(false),
        }
    }

    #[test]
    fn scalars_have_the_types_of_the_core_schema() {
        let file = file(
            "{a: 1, b: -2.5, c: yes, d: true, e: null, f: \"1\", g: 1e3, h: 7.2.22, i: 2026-11-23T01:00:00Z, j: , k: !absent , l: !unknown \"no agent\"}",
        );
        let json = parse(&file).unwrap().to_json();
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
            let node = parse(&file).unwrap();
            let value = node.get("µ").unwrap();
            for word in ["aa", "bb", "==", "cc"] {
                let found = value.locate(&file.text, value.text().unwrap().find(word).unwrap());
                assert_eq!(file.text.get(found..found + 2), Some(word), "{text}");
            }
        }
    }

    #[test]
    fn hostile_documents_are_refused_in_words() {
        let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n";
        assert!(error(bomb).contains("anchors and aliases are not read"));
        assert!(error(&"[".repeat(100_000)).contains("nested too deeply"));
        assert!(error(&"- ".repeat(100_000)).contains("nested too deeply"));
        assert!(error(&"a:\n ".repeat(3)).contains("not YAML") || !error(&"{a: ".repeat(100_000)).is_empty());
        assert!(error("a: 1\nb: 2\na: 3\n").contains("given twice"));
        assert!(error("a:\n\tb: c\n").contains("tabs"));
        assert!(error("\u{feff}a: b").contains("byte order mark"));
        assert!(error("").contains("is empty"));
        assert!(error("# nothing\n").contains("is empty"));
        assert!(error("a: 1\n---\nb: 2\n").contains("second document"));
        assert!(error("{[a]: b}").contains("a key must be a plain word"));
        assert!(source("x".into(), &[b'a', 0xff]).unwrap_err().render(false).contains("byte 1"));
        let huge = vec![b'a'; 1024 * 1024 + 1];
        assert!(source("x".into(), &huge).unwrap_err().render(false).contains("too large"));
    }
}
