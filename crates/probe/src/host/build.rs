//! Builds of programs, by the id that the linker wrote into them. The programs are read, never run.

use std::{fmt::Write, fs::File, io::Read, path::Path};

use vmgate_facts::{Cause, Fact, ProgramBuild};

/// Beginning of a program in which its notes are; linkers put them before the code.
const NOTES_WITHIN: u64 = 64 << 10;

/// Longest id that is read; linkers write 8, 16 or 20 bytes.
const LONGEST_ID: usize = 32;

/// Builds of these programs; one that does not exist, or has no id, is left out.
pub(super) fn of(paths: &[String]) -> Vec<ProgramBuild> {
    let build = |path: &String| {
        Some(ProgramBuild { path: path.clone(), build: of_program(Path::new(path)).known()?.clone() })
    };
    paths.iter().filter_map(build).collect()
}

/// Build id of a program (NT_GNU_BUILD_ID).
pub(crate) fn of_program(path: &Path) -> Fact<String> {
    let mut start = Vec::new();
    // Opening a named pipe would wait for its writer.
    let read = std::fs::metadata(path)
        .and_then(|about| {
            if about.is_file() { File::open(path) } else { Err(std::io::ErrorKind::InvalidInput.into()) }
        })
        .and_then(|file| file.take(NOTES_WITHIN).read_to_end(&mut start));
    match read {
        Err(error) => Fact::unknown(Cause::PermissionDenied, format!("cannot read the VM's QEMU: {error}")),
        Ok(_) => build_id(&start)
            .map_or_else(|| Fact::unknown(Cause::NotSupported, "the VM's QEMU has no build id"), Fact::Known),
    }
}

/// The id in a note: length of the name, length of the id, type 3, name `GNU`, id.
fn build_id(start: &[u8]) -> Option<String> {
    if !start.starts_with(b"\x7fELF") {
        return None;
    }
    let big_endian = start.get(5) == Some(&2);
    let number = |bytes: &[u8]| {
        let bytes: [u8; 4] = bytes.try_into().ok()?;
        Some(if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    };
    let mut notes = start.windows(16).enumerate().step_by(4);
    notes.find_map(|(at, note)| {
        let [name, id, kind] = [note.get(..4)?, note.get(4..8)?, note.get(8..12)?].map(number);
        let length = usize::try_from(id?).ok().filter(|length| (1..=LONGEST_ID).contains(length))?;
        (name? == 4 && kind? == 3 && note.ends_with(b"GNU\0")).then_some(())?;
        let id = start.get(at.checked_add(16)?..)?.get(..length)?;
        let mut text = String::new();
        for byte in id {
            write!(text, "{byte:02x}").ok()?;
        }
        Some(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_tells_its_build_and_nothing_else_does() {
        let mut program = b"\x7fELF\x02\x01".to_vec();
        program.resize(64, 0);
        program.extend(b"\x04\0\0\0\x03\0\0\0\x03\0\0\0GNU\0\xab\xcd\xef");
        assert_eq!(build_id(&program).as_deref(), Some("abcdef"));
        assert_eq!(build_id(&program[..program.len() - 1]), None, "cut off");
        assert_eq!(build_id(b"#!/bin/sh"), None);
        let shell = of(&["/bin/sh".to_owned(), "/no/such".to_owned(), "/dev/null".to_owned()]);
        assert!(shell.iter().all(|program| program.path == "/bin/sh" && program.build.len() >= 16));
    }
}
