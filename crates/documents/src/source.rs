//! Files as text: limited in size, UTF-8, and kept for the excerpts in problem reports.

use std::{fs::File, io::Read, path::Path, sync::Arc};

use super::Problem;

/// Largest file that people write by hand.
pub const LARGEST_BYTES: u64 = 1 << 20;

/// A file that was read, kept for the excerpts in problem reports.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path as the user wrote it, or its place in the shipped pack.
    pub name: String,
    /// Content.
    pub text: String,
}

impl SourceFile {
    /// Reads a file: at most `most` bytes of UTF-8, and not nothing.
    pub fn read(path: &Path, most: u64) -> Result<Arc<Self>, Problem> {
        let name = path.display().to_string();
        let unreadable = |error: std::io::Error| {
            let message = format!("cannot be read: {error}");
            Problem::of_file(&name, message, "check the path and its permissions")
        };
        let file = File::open(path).map_err(unreadable)?;
        if file.metadata().map_err(unreadable)?.is_dir() {
            let help = "name a file; in a folder of rules rename the directory: names that end in .yaml are reserved for files";
            return Err(Problem::of_file(&name, "is a directory, not a file", help));
        }
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        Self::bounded(&name, bytes, most)
    }

    /// The same for a file that decides what vmgate runs or demands: only if nobody else could have written it.
    pub fn read_trusted(path: &Path, most: u64) -> Result<Arc<Self>, Problem> {
        if path.is_dir() {
            return Self::read(path, most);
        }
        let bytes = vmgate_trust::read(path, most).map_err(|why| Problem::of_untrusted(path, &why))?;
        Self::bounded(&path.display().to_string(), bytes, most)
    }

    /// The same checks for a file that people write and that is already in memory.
    pub fn new(name: &str, bytes: &[u8]) -> Result<Arc<Self>, Problem> {
        Self::bounded(name, bytes.to_vec(), LARGEST_BYTES)
    }

    /// The same for a file of at most `most` bytes, which a program may have written.
    pub fn bounded(name: &str, bytes: Vec<u8>, most: u64) -> Result<Arc<Self>, Problem> {
        if bytes.len() as u64 > most {
            let message = format!("is too large: more than {most} bytes");
            return Err(Problem::of_file(name, message, "split the file"));
        }
        let text = String::from_utf8(bytes).map_err(|error| {
            let message = format!("is not UTF-8: byte {} is wrong", error.utf8_error().valid_up_to());
            Problem::of_file(name, message, "save the file as UTF-8")
        })?;
        if text.starts_with('\u{feff}') {
            let help = "save the file as UTF-8 without a byte order mark";
            return Err(Problem::of_file(name, "begins with a byte order mark", help));
        }
        // A parser may take it for the end of the file, and read half a document without a word.
        if let Some(at) = text.find('\0') {
            let message = format!("is not text: byte {at} is zero");
            return Err(Problem::of_file(name, message, "save the file as UTF-8"));
        }
        Ok(Arc::new(Self { name: name.to_owned(), text }))
    }
}
