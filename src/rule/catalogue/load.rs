//! Catalogues from the same sources as rules: shipped with the program, and `catalogues/` in a user's folder.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use thiserror::Error;

use super::{CatalogueError, Catalogues};
use crate::rule::RuleSource;

/// Catalogues that cannot be used, with everything that is wrong with them.
#[derive(Debug, Error)]
pub enum CataloguesError {
    /// A file or folder cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Files say what cannot be.
    #[error("{}", listed(.0))]
    Invalid(Vec<CatalogueError>),
}

impl Catalogues {
    /// Every catalogue of the sources; entries of a user's folder come after the shipped ones.
    pub fn load(sources: &[RuleSource]) -> Result<Self, CataloguesError> {
        // Software is recognised by the shipped catalogue even where the shipped rules are left out.
        let mut catalogues = Self::shipped().map_err(CataloguesError::Invalid)?;
        for source in sources {
            if let RuleSource::Dir(folder) = source {
                for path in files(&folder.join("catalogues"))? {
                    let text = fs::read_to_string(&path)
                        .map_err(|source| CataloguesError::Unreadable { path: path.clone(), source })?;
                    catalogues.add(&path.display().to_string(), &text).map_err(CataloguesError::Invalid)?;
                }
            }
        }
        Ok(catalogues)
    }
}

/// The YAML files of a folder, in the order of their names; none where there is no such folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>, CataloguesError> {
    let unreadable = |source| CataloguesError::Unreadable { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn listed(errors: &[CatalogueError]) -> String {
    errors.iter().map(|error| crate::error::with_causes(error)).collect::<Vec<_>>().join("\n")
}
