//! Location of a ledger: file or database URL. A URL may contain a password, so Display and Debug never show the
//! password.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    path::PathBuf,
};

use serde::Deserialize;

/// Location of a ledger: path of a SQLite file, or URL of a PostgreSQL database.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum LedgerUrl {
    /// A SQLite file, created if it does not exist.
    File(PathBuf),
    /// A PostgreSQL database, as `postgres://USER@HOST:PORT/NAME`.
    Database(String),
}

impl<T: AsRef<OsStr> + ?Sized> From<&T> for LedgerUrl {
    fn from(text: &T) -> Self {
        let text = text.as_ref();
        match text.to_str() {
            Some(url) if url.contains("://") => Self::Database(url.to_owned()),
            _ => Self::File(text.into()),
        }
    }
}

impl From<String> for LedgerUrl {
    fn from(text: String) -> Self {
        Self::from(&text)
    }
}

impl From<OsString> for LedgerUrl {
    fn from(text: OsString) -> Self {
        Self::from(&text)
    }
}

impl From<PathBuf> for LedgerUrl {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl LedgerUrl {
    /// True if the URL contains a password, so that the file that contains the URL is a secret. A URL that cannot be split may
    /// contain one.
    pub fn has_password(&self) -> bool {
        let Self::Database(url) = self else { return false };
        url_parts(url).is_none_or(|(_, who, _, parameters)| {
            who.contains(':') || parameters.split('&').any(|parameter| parameter.starts_with("password="))
        })
    }
}

/// Splits a URL into scheme; user and password; host, port and database; parameters. None if the split would be
/// ambiguous, as with an `@` in a password.
pub(crate) fn url_parts(url: &str) -> Option<(&str, &str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let (who, at) = rest.split_once('@').unwrap_or(("", rest));
    (!at.contains('@') && !parameters.contains('@')).then_some((scheme, who, at, parameters))
}

impl fmt::Display for LedgerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Database(url) => match url_parts(url) {
                Some((scheme, "", at, _)) => write!(f, "{scheme}://{at}"),
                Some((scheme, who, at, _)) => {
                    let user = who.split(':').next().unwrap_or_default();
                    write!(f, "{scheme}://{user}@{at}")
                }
                None => f.write_str("the ledger's URL"),
            },
        }
    }
}

impl fmt::Debug for LedgerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LedgerUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown_wherever_it_stands() {
        for (url, shown) in [
            ("postgres://ann@db:5432/vmgate", "postgres://ann@db:5432/vmgate"),
            ("postgres://ann:secret@db/vmgate?sslmode=verify-full", "postgres://ann@db/vmgate"),
            ("postgres://ann:sec/ret@db/vmgate", "postgres://ann@db/vmgate"),
            ("postgres://db/vmgate?user=ann&password=secret", "postgres://db/vmgate"),
            ("postgres://ann:sec@ret@db/vmgate", "the ledger's URL"),
            ("postgres://ann:sec?ret@db/vmgate", "the ledger's URL"),
            ("postgres://db/vmgate?password=sec@ret", "the ledger's URL"),
        ] {
            let place = LedgerUrl::from(url);
            assert_eq!(place.to_string(), shown);
            assert!(!format!("{place:?}").contains("sec"), "{place:?}");
        }
        assert_eq!(LedgerUrl::from("a/ledger.db"), LedgerUrl::File("a/ledger.db".into()));
    }
}
