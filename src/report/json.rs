//! The verdict document as it is, for programs: `vmgate/verdict/v1`, or `vmgate/verdicts/v1` for several.
//!
//! Control and hidden characters, and one character of each command of a CI runner, are written as JSON's own `\u`
//! escapes: the bytes are harmless in a terminal and in a log, and the values are unchanged.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};
use vmgate_facts::text::{command_marks, is_control_or_hidden, is_printable_ascii};
use vmgate_verdict::{Verdict, VerdictsSchema};

/// Borrowed form of [`crate::verdict::Verdicts`].
#[derive(Serialize)]
pub(super) struct VerdictList<'a> {
    pub(super) schema: VerdictsSchema,
    pub(super) verdicts: &'a [Verdict],
}

impl<'a> VerdictList<'a> {
    pub(super) fn new(verdicts: &'a [Verdict]) -> Self {
        Self { schema: VerdictsSchema::V1, verdicts }
    }
}

pub(super) fn write(verdicts: &[Verdict], sink: &mut dyn Write) -> io::Result<()> {
    match verdicts {
        [verdict] => pretty(verdict, sink),
        several => pretty(&VerdictList::new(several), sink),
    }
}

/// Writes any document in the layout of all JSON reports.
pub(super) fn pretty(document: &impl Serialize, sink: &mut dyn Write) -> io::Result<()> {
    let mut sink = io::BufWriter::new(sink);
    let formatter = Harmless(PrettyFormatter::new());
    document.serialize(&mut Serializer::with_formatter(&mut sink, formatter)).map_err(io::Error::from)?;
    sink.write_all(b"\n")?;
    sink.flush()
}

/// Writes any document on one line.
pub(super) fn line(document: &impl Serialize, sink: &mut dyn Write) -> io::Result<()> {
    let mut sink = io::BufWriter::new(sink);
    document
        .serialize(&mut Serializer::with_formatter(&mut sink, Harmless(CompactFormatter)))
        .map_err(io::Error::from)?;
    sink.write_all(b"\n")?;
    sink.flush()
}

/// JSON in a layout, with escapes for what a terminal or a runner obeys.
struct Harmless<Layout>(Layout);

impl<Layout: Formatter> Formatter for Harmless<Layout> {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let marks = command_marks(fragment);
        if marks.is_empty() && is_printable_ascii(fragment) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut written = 0;
        let obeyed = |(at, c): &(usize, char)| is_control_or_hidden(*c) || marks.contains(at);
        for (at, character) in fragment.char_indices().filter(obeyed) {
            writer.write_all(fragment.get(written..at).unwrap_or_default().as_bytes())?;
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            written = at + character.len_utf8();
        }
        writer.write_all(fragment.get(written..).unwrap_or_default().as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use vmgate_verdict::{read, sample};

    use super::*;

    fn written(verdicts: &[Verdict]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(verdicts, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn one_verdict_and_several_are_read_back_unchanged() {
        let verdicts = vec![sample::no_go(), sample::go()];
        assert_eq!(read("v", &written(&verdicts)).unwrap(), verdicts);
        assert_eq!(read("v", &written(&verdicts[..1])).unwrap(), verdicts[..1]);
        assert_eq!(read("v", &written(&[])).unwrap(), []);
    }

    #[test]
    fn no_byte_of_it_is_obeyed_by_a_terminal() {
        let text = String::from_utf8(written(&[sample::no_go()])).unwrap();
        assert!(text.contains(r"\u001b]0;owned\u0007") && text.contains(r"\u202egpj.exe"));
        assert!(!text.chars().any(|c| c != '\n' && is_control_or_hidden(c)));
        let mut tag = Vec::new();
        pretty(&"\u{e0041}\u{9b}", &mut tag).unwrap();
        assert_eq!(tag, b"\"\\udb40\\udc41\\u009b\"\n");
        assert_eq!(serde_json::from_slice::<String>(&tag).unwrap(), "\u{e0041}\u{9b}");
    }

    #[test]
    fn no_byte_of_it_is_obeyed_by_a_runner_and_the_value_stays() {
        let hostile = "::error::a ##vso[b] ##[c] section_start:1:d";
        let mut out = Vec::new();
        line(&hostile, &mut out).unwrap();
        assert_eq!(
            out,
            br#"":\u003aerror::a ##vso\u005bb] ##\u005bc] section_start\u003a1:d"
"#
        );
        assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), hostile);
    }
}
