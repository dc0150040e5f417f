//! Parser of expressions: text to the `cel` crate's syntax tree, with limits on the text and the place of every node.

use std::{cell::RefCell, collections::HashMap, io, ops::Range, panic::resume_unwind, rc::Rc, thread};

use cel::{
    Env,
    common::ast::{Expr as CelExpr, IdedExpr, LiteralValue, SourceInfo},
};

use super::{ExprProblem, unquoted};

/// Limit on the length of an expression, in bytes.
const LONGEST: usize = 4_000;
/// Limit on operators, dots and brackets in one expression: each may be one level of the parser's recursion.
const MOST_OPERATORS: usize = 240;
/// Stack for the parser, whose frames are large: 96 nested brackets take 20 MiB in a debug build.
const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Runs all of this work, which parses expressions, at the same time, each on a thread with enough stack for every expression
/// that is accepted.
pub(crate) fn with_stacks<T: Send, W: FnOnce() -> T + Send>(
    work: impl Iterator<Item = W>,
) -> io::Result<Vec<T>> {
    let thread = || thread::Builder::new().name("rules".to_owned()).stack_size(STACK_BYTES);
    thread::scope(|scope| {
        let threads: Vec<_> =
            work.map(|work| thread().spawn_scoped(scope, work)).collect::<io::Result<_>>()?;
        let done =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        Ok(done.collect())
    })
}

#[cfg(test)]
pub(crate) fn with_stack<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    with_stacks(std::iter::once(work)).map(|mut done| done.remove(0))
}

/// Parser that remembers its results: rules contain the same texts many times, and parsing is most of the time to load a pack.
#[derive(Default)]
pub(crate) struct Parser {
    parsed: RefCell<HashMap<String, Parse>>,
}

type Parse = Result<Rc<Parsed>, Vec<ExprProblem>>;

impl Parser {
    pub(crate) fn parse(&self, text: &str) -> Parse {
        if let Some(known) = self.parsed.borrow().get(text) {
            return known.clone();
        }
        let parsed = parse(text).map(Rc::new);
        self.parsed.borrow_mut().insert(text.to_owned(), parsed.clone());
        parsed
    }
}

/// A parsed expression.
pub(crate) struct Parsed {
    pub(crate) expr: IdedExpr,
    info: SourceInfo,
    text: String,
}

/// Parses without macro expansion: `all`, `has` and the other macros stay calls.
fn parse(text: &str) -> Result<Parsed, Vec<ExprProblem>> {
    let whole = |message: String, help: &str| {
        vec![ExprProblem {
            span: 0..text.len(),
            message,
            label: "this expression".into(),
            help: Some(help.into()),
        }]
    };
    if text.trim().is_empty() {
        return Err(whole(
            "the expression is empty".into(),
            "write a condition, such as `vm.state == \"running\"`",
        ));
    }
    if text.len() > LONGEST {
        let message = format!("the expression is too long: {} bytes, at most {LONGEST}", text.len());
        return Err(whole(message, "split it with `let`"));
    }
    let operators = count_operators(text);
    if operators > MOST_OPERATORS {
        let message = format!("the expression is too large: {operators} operators, at most {MOST_OPERATORS}");
        return Err(whole(message, "split it with `let`"));
    }
    match Env::default().parser().parse_with_source_info(text) {
        Ok((expr, info)) => Ok(Parsed { expr, info, text: text.to_owned() }),
        Err(errors) => {
            let mut problems: Vec<_> =
                errors.errors.iter().map(|error| syntax_problem(text, error.pos, &error.msg)).collect();
            problems.dedup_by(|a, b| a.span == b.span);
            problems.truncate(1);
            Err(problems)
        }
    }
}

/// Number of operators outside of quoted texts.
fn count_operators(text: &str) -> usize {
    unquoted::bytes_outside_quotes(text).filter(|(_, byte)| b".[({?+-*/%<>=!|&".contains(byte)).count()
}

/// Converts an error of the parser to a message without the names of its grammar.
fn syntax_problem(text: &str, (line, column): (isize, isize), message: &str) -> ExprProblem {
    let line_start: usize =
        text.split_inclusive('\n').take(usize::try_from(line - 1).unwrap_or(0)).map(str::len).sum();
    let rest = text.get(line_start..).unwrap_or_default();
    let column = usize::try_from(column - 1).unwrap_or(0);
    let at = line_start + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at);
    let message = message.trim_start_matches("Syntax error: ");
    let (message, help) = if message.contains("<EOF>'") || message.contains("'<EOF>") {
        (
            "the expression ends too early".to_owned(),
            Some("an operand or a closing bracket is missing".to_owned()),
        )
    } else if message.starts_with("token recognition error") {
        let what = message.rsplit_once("at: ").map_or(message, |(_, what)| what);
        (
            format!("{what} does not belong in an expression"),
            Some("a text must begin and end with the same quote".to_owned()),
        )
    } else {
        let plain = message.split(" expecting").next().unwrap_or(message);
        let plain =
            plain.replace("mismatched input", "did not expect").replace("extraneous input", "did not expect");
        let plain = plain.replace("no viable alternative at input", "cannot understand");
        (plain, Some("operators are && || ! == != < <= > >= + - * / % in ?:".to_owned()))
    };
    let len = text.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
    ExprProblem { span: at..at + len, message, label: "here".to_owned(), help }
}

impl Parsed {
    /// Place of a node in the text, in bytes.
    pub(crate) fn span(&self, expr: &IdedExpr) -> Range<usize> {
        let (start, stop) = self.info.offset_for(expr.id).unwrap_or((0, 0));
        let (start, stop) = (start as usize, stop as usize);
        match &expr.expr {
            CelExpr::Literal(literal) => {
                let negative = match literal {
                    LiteralValue::Int(value) => *value.inner() < 0,
                    LiteralValue::Double(value) => *value.inner() < 0.0,
                    _ => false,
                };
                let signed = negative && start > 0 && self.text.as_bytes().get(start - 1) == Some(&b'-');
                start - usize::from(signed)..stop + 1
            }
            CelExpr::Ident(name) => start..start + name.len(),
            CelExpr::Select(select) => self.span(&select.operand).start..self.word_end(start + 1),
            CelExpr::List(_) | CelExpr::Map(_) | CelExpr::Struct(_) => start..self.bracket_end(start),
            CelExpr::Call(call) => self.call_span(call, start),
            _ => start..stop + 1,
        }
    }

    /// Place of the field name of a selection, or of the function name of a call.
    pub(crate) fn name_span(&self, expr: &IdedExpr) -> Range<usize> {
        let (start, _) = self.info.offset_for(expr.id).unwrap_or((0, 0));
        let start = start as usize;
        match &expr.expr {
            CelExpr::Select(_) => {
                let end = self.word_end(start + 1);
                self.word_start(end)..end
            }
            CelExpr::Call(call) if call.func_name == "_?._" => {
                let end = self.word_end(start + 1);
                self.word_start(end)..end
            }
            CelExpr::Call(call) if is_word(&call.func_name) => self.word_start(start)..start,
            _ => self.span(expr),
        }
    }

    fn call_span(&self, call: &cel::common::ast::CallExpr, start: usize) -> Range<usize> {
        let operand = call.target.as_deref().or_else(|| call.args.first()).map(|expr| self.span(expr));
        match call.func_name.as_str() {
            "_?._" => operand.map_or(start, |span| span.start)..self.word_end(start + 1),
            "_[_]" | "_[?_]" => operand.map_or(start, |span| span.start)..self.bracket_end(start),
            name if is_word(name) => match &call.target {
                Some(target) => self.span(target).start..self.bracket_end(start),
                None => self.word_start(start)..self.bracket_end(start),
            },
            _ => {
                let mut span = start..start + 1;
                for arg in &call.args {
                    let arg = self.span(arg);
                    span = span.start.min(arg.start)..span.end.max(arg.end);
                }
                span
            }
        }
    }

    /// End of the word at or after `at`, after white space and a question mark.
    fn word_end(&self, at: usize) -> usize {
        let rest = self.text.get(at..).unwrap_or_default();
        let skipped = rest.len() - rest.trim_start_matches(|c: char| c.is_whitespace() || c == '?').len();
        let word = rest.get(skipped..).unwrap_or_default();
        at + skipped + word.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(word.len())
    }

    /// Start of the word that ends before `at`.
    fn word_start(&self, at: usize) -> usize {
        let head = self.text.get(..at).unwrap_or_default();
        head.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |before| {
            before + head.get(before..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8)
        })
    }

    /// Offset after the bracket that closes the one at `at`.
    fn bracket_end(&self, at: usize) -> usize {
        let mut depth = 0_usize;
        let rest = self.text.get(at..).unwrap_or_default();
        for (offset, byte) in unquoted::bytes_outside_quotes(rest) {
            match byte {
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return at + offset + 1;
                    }
                }
                _ => {}
            }
        }
        self.text.len()
    }
}

fn is_word(name: &str) -> bool {
    name.starts_with(|c: char| c.is_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(text: &str) -> Vec<String> {
        fn visit(parsed: &Parsed, expr: &IdedExpr, text: &str, found: &mut Vec<String>) {
            found.push(text.get(parsed.span(expr)).unwrap_or("<outside>").to_owned());
            match &expr.expr {
                CelExpr::Call(call) => {
                    for inner in call.target.as_deref().into_iter().chain(&call.args) {
                        visit(parsed, inner, text, found);
                    }
                }
                CelExpr::Select(select) => visit(parsed, &select.operand, text, found),
                CelExpr::List(list) => list.elements.iter().for_each(|e| visit(parsed, e, text, found)),
                _ => {}
            }
        }
        let parsed = parse(text).unwrap();
        let mut found = Vec::new();
        visit(&parsed, &parsed.expr, text, &mut found);
        found
    }

    #[test]
    fn every_node_knows_its_text() {
        assert_eq!(spans("a.b  >  -2"), ["a.b  >  -2", "a.b", "a", "-2"]);
        assert_eq!(spans("x.all(c, c in ['µ)', \"y\"])")[0], "x.all(c, c in ['µ)', \"y\"])");
        assert_eq!(spans("'µµ' == b.cc"), ["'µµ' == b.cc", "'µµ'", "b.cc", "b"]);
        assert_eq!(spans("size(a [ 1 ])"), ["size(a [ 1 ])", "a [ 1 ]", "a", "1"]);
        assert_eq!(spans("a.?b.orValue(3)")[1], "a.?b");
    }

    #[test]
    fn syntax_errors_are_told_in_words() {
        let message = |text: &str| parse(text).err().unwrap().remove(0).message;
        assert_eq!(message("a +"), "the expression ends too early");
        assert_eq!(message("vm.name matches 'x'"), "did not expect 'matches'");
        assert_eq!(message(""), "the expression is empty");
        assert!(message("a == 'x").contains("does not belong"));
        assert!(message("a = b").contains("does not belong"));
    }

    #[test]
    fn large_expressions_are_refused_before_they_cost_anything() {
        with_stack(large_expressions).unwrap();
    }

    fn large_expressions() {
        for unit in ["(", "[", "!", "-", "a.", "a+", "a[", "a?b:", "{", "a&&"] {
            assert!(parse(&unit.repeat(200_000)).is_err());
            for count in [20, 100, 119, 239] {
                let _ = parse(&unit.repeat(count));
                let _ = parse(&format!("{}a", unit.repeat(count)));
                let _ = parse(&format!("{}a{}", unit.repeat(count), ")".repeat(count)));
            }
        }
    }
}
