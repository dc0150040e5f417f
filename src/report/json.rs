//! The verdict document as it is, for programs: `vmgate/verdict/v1`, or `vmgate/verdicts/v1` for several.
//!
//! Control and hidden characters are written as JSON's own `\u` escapes, so that the bytes are harmless on a
//! terminal and the values are unchanged.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use vmgate_verdict::{Verdict, VerdictsSchema};

use super::visible::{is_control_or_hidden, is_plain};

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
    let formatter = TerminalSafe(PrettyFormatter::new());
    document.serialize(&mut Serializer::with_formatter(&mut sink, formatter)).map_err(io::Error::from)?;
    sink.write_all(b"\n")?;
    sink.flush()
}

/// Indented JSON without control or hidden characters.
struct TerminalSafe(PrettyFormatter<'static>);

impl Formatter for TerminalSafe {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if is_plain(fragment) {
            return writer.write_all(fragment.as_bytes());
        }
        let mut rest = fragment;
        while let Some((position, character)) = rest.char_indices().find(|(_, c)| is_control_or_hidden(*c)) {
            let (before, after) = rest.split_at(position);
            writer.write_all(before.as_bytes())?;
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = after.get(character.len_utf8()..).unwrap_or_default();
        }
        writer.write_all(rest.as_bytes())
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
}
