//! YAML parser that keeps the position of every node.
//!
//! Safe for hostile input: depth is limited, anchors and aliases (used in YAML bombs) and duplicate keys are refused,
//! and the underlying parser is driven event by event, without recursion.

use std::{
    collections::{HashMap, hash_map::Entry},
    ops::Range,
    sync::Arc,
};

use saphyr_parser::{Event, Parser, Tag};

use super::{Content, MOST_PROBLEMS, Node, Problem, SourceFile};

/// Maximum depth of nested lists and mappings.
const DEEPEST: usize = 48;

/// A document as far as it could be read, and all that is wrong with it as YAML.
pub struct Parsed {
    /// The tree; absent where the file cannot be read to its end.
    pub node: Option<Node>,
    /// Problems of the YAML itself.
    pub problems: Vec<Problem>,
}

/// Parses one document. After an error of the grammar what follows could not be trusted, so the first is the last.
pub fn parse(file: &Arc<SourceFile>) -> Parsed {
    let mut builder = Builder {
        file,
        offsets: ByteOffsets { text: &file.text, ascii: file.text.is_ascii(), character: 0, byte: 0 },
        stack: Vec::new(),
        done: None,
        problems: Vec::new(),
        anchor_reported: false,
    };
    if let Err(problem) = builder.run() {
        builder.problems.push(*problem);
        builder.done = None;
    }
    Parsed { node: builder.done, problems: builder.problems }
}

/// Translates character positions to byte offsets; fast for positions in nearly rising order.
struct ByteOffsets<'a> {
    text: &'a str,
    ascii: bool,
    character: usize,
    byte: usize,
}

impl ByteOffsets<'_> {
    fn byte(&mut self, character: usize) -> usize {
        if self.ascii {
            return character.min(self.text.len());
        }
        let (before, after) = self.text.split_at(self.byte);
        if character >= self.character {
            let ahead = character - self.character;
            self.byte += after.char_indices().nth(ahead).map_or(after.len(), |(at, _)| at);
        } else {
            let back = self.character - character;
            self.byte = before.char_indices().rev().nth(back - 1).map_or(0, |(at, _)| at);
        }
        self.character = character;
        self.byte
    }
}

/// List or mapping that is not complete yet.
struct OpenNode {
    span: Range<usize>,
    tag: Option<String>,
    content: OpenContent,
}

enum OpenContent {
    List(Vec<Node>),
    Map {
        entries: Vec<(Node, Node)>,
        /// The key whose value comes next.
        key: Option<Node>,
        /// First position of each key.
        seen: HashMap<String, Range<usize>>,
    },
}

struct Builder<'a> {
    file: &'a Arc<SourceFile>,
    offsets: ByteOffsets<'a>,
    stack: Vec<OpenNode>,
    done: Option<Node>,
    problems: Vec<Problem>,
    /// True once a problem about anchors was reported: one is enough.
    anchor_reported: bool,
}

impl Builder<'_> {
    fn problem(&self, span: Range<usize>, message: &str, label: &str, help: &str) -> Problem {
        Problem::at(self.file, span, message).label(label).help(help)
    }

    /// Builds the tree; returns an error after which parsing cannot continue.
    fn run(&mut self) -> Result<(), Box<Problem>> {
        let file = Arc::clone(self.file);
        let mut documents = 0;
        for event in Parser::new_from_str(&file.text) {
            let (event, span) = match event {
                Ok(event) => event,
                Err(error) => {
                    let at = self.offsets.byte(error.marker().index());
                    return Err(Box::new(self.grammar(at..at + 1, error.info())));
                }
            };
            let span = self.offsets.byte(span.start.index())..self.offsets.byte(span.end.index());
            match event {
                Event::DocumentStart(_) => {
                    documents += 1;
                    if documents > 1 {
                        let help =
                            "a file may contain only one document: move this document to a file of its own";
                        let problem =
                            self.problem(span, "a second document in one file", "it starts here", help);
                        return Err(Box::new(problem));
                    }
                }
                Event::Alias(_) => {
                    self.no_anchors(&span);
                    self.add(Node::null(span));
                }
                Event::Scalar(text, style, anchor, tag) => {
                    self.no_anchor(anchor, &span);
                    let content = Content::Scalar { text: text.into_owned(), style };
                    self.add(Node { span, tag: suffix(tag.as_deref()), content });
                }
                Event::SequenceStart(anchor, tag) => {
                    self.no_anchor(anchor, &span);
                    self.open(span, suffix(tag.as_deref()), OpenContent::List(Vec::new()))?;
                }
                Event::MappingStart(anchor, tag) => {
                    self.no_anchor(anchor, &span);
                    let content = OpenContent::Map { entries: Vec::new(), key: None, seen: HashMap::new() };
                    self.open(span, suffix(tag.as_deref()), content)?;
                }
                Event::SequenceEnd | Event::MappingEnd => self.close(),
                _ => {}
            }
        }
        if self.done.is_some() {
            return Ok(());
        }
        Err(Box::new(Problem::of_file(
            &file.name,
            "is empty",
            "write a document into the file, or remove the file",
        )))
    }

    fn grammar(&self, span: Range<usize>, info: &str) -> Problem {
        if info.contains("recursion limit") {
            return self.too_deep(span);
        }
        let message = format!("this is not YAML: {info}");
        let help = "indent with spaces, and quote a text that contains `: `, ` #`, or starts with `{`, `[`, `*`, `&`, `!` or `\"`";
        self.problem(span, &message, "the parser stopped here", help)
    }

    fn too_deep(&self, span: Range<usize>) -> Problem {
        let message = format!("nested too deeply: at most {DEEPEST} levels are read");
        self.problem(span, &message, "this level is one too many", "flatten the document")
    }

    fn no_anchor(&mut self, anchor: usize, span: &Range<usize>) {
        if anchor != 0 {
            self.no_anchors(span);
        }
    }

    fn no_anchors(&mut self, span: &Range<usize>) {
        if !std::mem::replace(&mut self.anchor_reported, true) {
            let help = "quote a text that begins with `*` or `&`; a value that is meant to be repeated must be written out";
            let problem = self.problem(
                span.clone(),
                "anchors and aliases are not supported",
                "an anchor or alias",
                help,
            );
            self.problems.push(problem);
        }
    }

    fn open(
        &mut self,
        span: Range<usize>,
        tag: Option<String>,
        content: OpenContent,
    ) -> Result<(), Box<Problem>> {
        if self.stack.len() >= DEEPEST {
            return Err(Box::new(self.too_deep(span)));
        }
        let first = span.start..span.end.max(span.start + 1).min(self.file.text.len());
        self.stack.push(OpenNode { span: first, tag, content });
        Ok(())
    }

    fn close(&mut self) {
        let Some(OpenNode { span, tag, content }) = self.stack.pop() else { return };
        let content = match content {
            OpenContent::List(items) => Content::List(items),
            OpenContent::Map { entries, .. } => Content::Map(entries),
        };
        self.add(Node { span, tag, content });
    }

    fn add(&mut self, node: Node) {
        let file = self.file;
        match self.stack.last_mut().map(|open| &mut open.content) {
            None => self.done = Some(node),
            Some(OpenContent::List(items)) => items.push(node),
            Some(OpenContent::Map { entries, key, seen }) => {
                if let Some(name) = key.take() {
                    entries.push((name, node));
                    return;
                }
                if let Some(problem) = wrong_key(file, &node, seen)
                    && self.problems.len() < MOST_PROBLEMS
                {
                    self.problems.push(problem);
                }
                *key = Some(node);
            }
        }
    }
}

fn suffix(tag: Option<&Tag>) -> Option<String> {
    tag.map(|tag| tag.suffix.clone())
}

/// Problem of a key: not a plain word, or a duplicate of an earlier key.
fn wrong_key(
    file: &Arc<SourceFile>,
    node: &Node,
    seen: &mut HashMap<String, Range<usize>>,
) -> Option<Problem> {
    let Some(key) = node.text() else {
        let help = "keys are names; quote text that starts with `{` or `[`";
        let problem = Problem::at(file, node.span.clone(), "a key must be a plain word");
        return Some(problem.label("this is a list or mapping").help(help));
    };
    match seen.entry(key.to_owned()) {
        Entry::Vacant(entry) => {
            entry.insert(node.span.clone());
            None
        }
        Entry::Occupied(first) => Some(
            Problem::at(file, node.span.clone(), format!("the key `{key}` is given twice"))
                .label("second occurrence")
                .related(first.get().clone(), "first occurrence")
                .help("remove one of the two entries"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        match SourceFile::new("x.yaml", text.as_bytes()) {
            Err(problem) => vec![problem.render(false)],
            Ok(file) => parse(&file).problems.iter().map(|problem| problem.render(false)).collect(),
        }
    }

    #[test]
    fn hostile_documents_are_refused_in_words() {
        let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n";
        for (text, words) in [
            (bomb, "anchors and aliases are not supported"),
            (&"[".repeat(100_000), "nested too deeply"),
            (&"- ".repeat(100_000), "nested too deeply"),
            (&"{a: ".repeat(100_000), "nested too deeply"),
            ("a: b: c", "this is not YAML"),
            ("a: 1\nb: 2\na: 3\n", "given twice"),
            ("a:\n\tb: c\n", "tabs"),
            ("\u{feff}a: b", "byte order mark"),
            ("", "is empty"),
            ("# nothing\n", "is empty"),
            ("a: 1\n---\nb: 2\n", "second document"),
            ("{[a]: b}", "a key must be a plain word"),
        ] {
            let found = problems(text);
            let start: String = text.chars().take(40).collect();
            assert!(found.len() == 1 && found[0].contains(words), "{start}: {found:?}");
        }
        let refused = |bytes: &[u8]| SourceFile::new("x", bytes).unwrap_err().render(false);
        assert!(refused(&[b'a', 0xff]).contains("byte 1"));
        assert!(refused(&vec![b'a'; 1024 * 1024 + 1]).contains("too large"));
    }

    #[test]
    fn what_can_be_read_on_is_read_on() {
        let found = problems("a: 1\na: 2\nb: &x 3\nc: *x\n{d: e}: f\nb: 4\n");
        let told = ["`a` is given twice", "anchors and aliases", "a key must be", "`b` is given twice"];
        assert_eq!(found.len(), told.len(), "{found:?}");
        assert!(found.iter().zip(told).all(|(problem, words)| problem.contains(words)), "{found:?}");
    }

    #[test]
    fn of_countless_mistakes_some_are_told() {
        assert_eq!(problems(&"a: 1\n".repeat(50_000)).len(), MOST_PROBLEMS);
    }

    #[test]
    fn places_are_found_among_characters_of_any_length() {
        let file = SourceFile::new("x.yaml", "µ: [ä, \"€\"]\n\u{1f600}: b\n".as_bytes()).unwrap();
        let node = parse(&file).node.unwrap();
        let under = |node: &Node| file.text.get(node.span.clone()).unwrap().to_owned();
        let entries = node.entries();
        assert_eq!((under(&entries[0].0), under(&entries[1].0)), ("µ".to_owned(), "\u{1f600}".to_owned()));
        let items = entries[0].1.items();
        assert_eq!((under(&items[0]), under(&items[1])), ("ä".to_owned(), "\"€\"".to_owned()));
    }
}
