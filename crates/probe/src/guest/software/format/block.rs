//! Parser of configuration with statements in braces: corosync.conf, keepalived.conf, drbd.conf, HCL.
//!
//! A statement ends with its line or with `;`, and may have a block of statements. `=` and `:` between words count as
//! blanks; `#`, `!` and `//` at the start of a word begin a comment.

/// Deepest nesting that is read; deeper statements are left out.
const DEEPEST: usize = 12;
/// Most statements of one file.
const MOST: usize = 20_000;

/// One statement with its block.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Statement {
    /// The words before the block.
    pub(crate) words: Vec<String>,
    /// The statements in the block.
    pub(crate) block: Vec<Statement>,
}

impl Statement {
    /// The first word.
    pub(crate) fn name(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The second word.
    pub(crate) fn argument(&self) -> Option<&str> {
        self.words.get(1).map(String::as_str)
    }
}

/// The argument of the last statement with that name: later statements override earlier ones.
pub(crate) fn value<'a>(statements: &'a [Statement], name: &str) -> Option<&'a str> {
    named(statements, name).filter_map(Statement::argument).last()
}

/// The statements with that name, at this level.
pub(crate) fn named<'a>(statements: &'a [Statement], name: &str) -> impl Iterator<Item = &'a Statement> {
    statements.iter().filter(move |statement| statement.name() == name)
}

/// Parses a text into statements.
pub(crate) fn parse(text: &str) -> Vec<Statement> {
    let mut open: Vec<Statement> = vec![Statement::default()];
    let mut words: Vec<String> = Vec::new();
    let (mut count, mut too_deep) = (0_usize, 0_usize);
    for token in Tokens(text) {
        if count > MOST {
            break;
        }
        match token {
            Token::Word(word) => words.push(word),
            Token::Close if too_deep > 0 => too_deep -= 1,
            _ if too_deep > 0 => too_deep += usize::from(token == Token::Open),
            Token::Open if open.len() > DEEPEST => too_deep = 1,
            Token::Open => {
                // A brace on a line of its own belongs to the statement before it.
                let before = open
                    .last_mut()
                    .and_then(|parent| parent.block.pop_if(|s| words.is_empty() && s.block.is_empty()));
                let begun = before
                    .unwrap_or_else(|| Statement { words: std::mem::take(&mut words), block: Vec::new() });
                open.push(begun);
                count += 1;
            }
            Token::End | Token::Close => {
                count += 1;
                if let (false, Some(parent)) = (words.is_empty(), open.last_mut()) {
                    parent.block.push(Statement { words: std::mem::take(&mut words), block: Vec::new() });
                }
                if token == Token::Close {
                    close(&mut open);
                }
            }
        }
        // Words in a block that is too deep are dropped.
        if too_deep > 0 {
            words.clear();
        }
    }
    if let (false, Some(parent)) = (words.is_empty(), open.last_mut()) {
        parent.block.push(Statement { words, block: Vec::new() });
    }
    while open.len() > 1 {
        close(&mut open);
    }
    open.pop().map(|root| root.block).unwrap_or_default()
}

/// Closes the innermost block. A surplus closing brace changes nothing.
fn close(open: &mut Vec<Statement>) {
    if open.len() < 2 {
        return;
    }
    if let Some(done) = open.pop()
        && let Some(parent) = open.last_mut()
    {
        parent.block.push(done);
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Open,
    Close,
    End,
}

struct Tokens<'a>(&'a str);

impl Iterator for Tokens<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        loop {
            self.0 = self.0.trim_start_matches([' ', '\t', '\r', '=', ':', '\u{feff}']);
            let first = self.0.chars().next()?;
            let rest = self.0.get(first.len_utf8()..).unwrap_or_default();
            match first {
                '{' | '}' | '\n' | ';' => {
                    self.0 = rest;
                    return Some(match first {
                        '{' => Token::Open,
                        '}' => Token::Close,
                        _ => Token::End,
                    });
                }
                '"' => {
                    let end = rest.find(['"', '\n']).unwrap_or(rest.len());
                    let word = rest.get(..end).unwrap_or_default().to_owned();
                    self.0 = rest.get(end..).unwrap_or_default();
                    self.0 = self.0.strip_prefix('"').unwrap_or(self.0);
                    return Some(Token::Word(word));
                }
                '#' | '!' => self.skip_line(),
                '/' if rest.starts_with('/') => self.skip_line(),
                _ => {
                    let ends = |c: char| c.is_whitespace() || matches!(c, '{' | '}' | ';' | '=' | ':' | '"');
                    let end = self.0.find(ends).unwrap_or(self.0.len());
                    if end == 0 {
                        // Some other white space.
                        self.0 = rest;
                        continue;
                    }
                    let (word, rest) = self.0.split_at_checked(end)?;
                    self.0 = rest;
                    return Some(Token::Word(word.to_owned()));
                }
            }
        }
    }
}

impl Tokens<'_> {
    fn skip_line(&mut self) {
        let end = self.0.find('\n').unwrap_or(self.0.len());
        self.0 = self.0.get(end..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::guest::software::format::block::*;

    #[test]
    fn every_dialect_is_read() {
        for text in [
            "totem {\n\ttoken: 3000 # ms\n}\n",
            "totem\n{\n token 1000\n token 3000\n}",
            "# token 1\ntotem { token 3000; }",
            "totem = {\n token = \"3000\"\n}",
            "! a comment\ntotem {\n//token 4\ntoken:3000}",
        ] {
            let statements = parse(text);
            let totem = named(&statements, "totem").next().unwrap();
            assert_eq!(value(&totem.block, "token"), Some("3000"), "{text}");
        }
    }

    #[test]
    fn blocks_nest_and_braces_need_not_match() {
        let statements = parse("a { b x { c 1 } d 2\n }\n}\n}\n e 3 { f");
        let a = named(&statements, "a").next().unwrap();
        let b = named(&a.block, "b").next().unwrap();
        assert_eq!(
            (b.argument(), value(&b.block, "c"), value(&a.block, "d")),
            (Some("x"), Some("1"), Some("2"))
        );
        assert_eq!(named(&statements, "e").next().unwrap().block[0].name(), "f");
    }

    #[test]
    fn what_is_too_deep_or_too_long_is_left_out() {
        let deep = format!("{} token 1 {} after 2", "x {".repeat(5000), "}".repeat(5000));
        assert_eq!(value(&parse(&deep), "after"), Some("2"));
        assert!(parse(&"a 1\n".repeat(100_000)).len() <= MOST + 1);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,100}", braces in "[a-c{}\";:=#!/\n é]{0,200}") {
            let _ = parse(&text);
            let _ = parse(&braces);
        }
    }
}
