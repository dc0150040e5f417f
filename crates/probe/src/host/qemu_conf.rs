//! qemu.conf, the configuration of libvirt's QEMU driver: lines `name = "text"`, `name = 'text'` or `name = number`.

use std::{fs, io::ErrorKind};

use vmgate_facts::{Unknown, text::plain};

use crate::host::not_read;

/// As packages install it, only root may read its folder.
const PATH: &str = "/etc/libvirt/qemu.conf";

/// Settings of qemu.conf.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct QemuConf(String);

impl QemuConf {
    /// Reads the file; empty if it does not exist.
    pub(super) fn read() -> Result<Self, Unknown> {
        match fs::read_to_string(PATH) {
            Ok(text) => Ok(Self(text)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Ok(Self::default())
            }
            Err(error) => Err(not_read(PATH, &error)),
        }
    }

    /// Value of a setting; none where it is not set or empty. The last line with the name counts, as for libvirt.
    pub(super) fn get(&self, wanted: &str) -> Option<String> {
        let mut lines = self.0.lines().filter_map(|line| line.split_once('='));
        let (_, value) = lines.rfind(|(name, _)| name.trim() == wanted)?;
        Some(plain(unquoted(value.trim()))).filter(|value| !value.is_empty())
    }

    /// Texts of a setting that is a list, `name = [ "a", "b" ]`, over as many lines as it takes; empty where it is not set.
    pub(super) fn list(&self, wanted: &str) -> Vec<String> {
        let mut lines = self.0.lines();
        let mut found = Vec::new();
        while let Some(line) = lines.next() {
            let Some((_, value)) = line.split_once('=').filter(|(name, _)| name.trim() == wanted) else {
                continue;
            };
            let mut text = value.to_owned();
            // Within quotes neither bracket nor comment counts, but a path has none in practice.
            while !without_comment(&text).contains(']') {
                let Some(more) = lines.next() else { break };
                text = format!("{} {more}", without_comment(&text));
            }
            found = texts(without_comment(&text));
        }
        found
    }
}

fn without_comment(line: &str) -> &str {
    line.split('#').next().unwrap_or_default()
}

/// The quoted texts of a list.
fn texts(list: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = list;
    while let Some(at) = rest.find(['"', '\'']) {
        let (_, quoted) = rest.split_at(at);
        let mut letters = quoted.chars();
        let Some(quote) = letters.next() else { break };
        let Some((text, after)) = letters.as_str().split_once(quote) else { break };
        found.push(plain(text));
        rest = after;
    }
    found
}

/// The value without its quotes and without a comment after it. Within quotes `#` is a letter.
fn unquoted(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(quoted) = value.strip_prefix(quote) {
            return quoted.split(quote).next().unwrap_or_default();
        }
    }
    value.split('#').next().unwrap_or_default().trim()
}

#[cfg(any(test, feature = "fuzzing"))]
impl From<&str> for QemuConf {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_take_several_lines() {
        let conf = QemuConf::from(
            "#shared_filesystems = [ \"/no\" ]\nshared_filesystems = [\n  \"/srv/a\", # one\n  '/srv/b c'\n]\nx = 1\n",
        );
        assert_eq!(conf.list("shared_filesystems"), ["/srv/a", "/srv/b c"]);
        assert_eq!(QemuConf::from("shared_filesystems = [\"/a\"]\n").list("shared_filesystems"), ["/a"]);
        assert!(QemuConf::from("shared_filesystems = [ ]\n").list("shared_filesystems").is_empty());
        assert!(QemuConf::from("shared_filesystems = [ \"/a").list("shared_filesystems").is_empty());
    }

    #[test]
    fn comments_and_longer_names_are_not_the_setting() {
        let conf = QemuConf::from(
            "#lock_manager = \"lockd\"\nlock_manager_x = \"a\"\n lock_manager = \"sanlock\" # as on hv1\n\
             dir = '/etc/pki/#1'\nport = 50000 # mine\nempty = \"\"\n",
        );
        let values = ["lock_manager", "dir", "port", "empty", "none"].map(|name| conf.get(name));
        assert_eq!(
            values.each_ref().map(Option::as_deref),
            [Some("sanlock"), Some("/etc/pki/#1"), Some("50000"), None, None]
        );
    }
}
