//! Where rules come from: the pack inside the program, and folders of the user's.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use include_dir::{Dir, include_dir};

use vmgate_documents::{LARGEST_BYTES, Problem, SourceFile};

/// The shipped rules, with their tests, fixtures, profiles and catalogues.
static BUILTIN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../rules");

/// Deepest folder that is looked into.
const DEEPEST: usize = 8;
/// Most files of one folder of rules.
const MOST_FILES: usize = 10_000;

/// A place that rules come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleSource {
    /// The pack inside the program.
    Builtin,
    /// A folder: rules anywhere below it, `<id>.yaml` with `<id>.test.yaml` beside; and `fixtures/`, `profiles/`,
    /// `catalogues/`.
    Dir(PathBuf),
}

/// What a file is for, by its name and folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Rule,
    Test,
    Fixture,
    Profile,
    Catalogue,
    CatalogueTest,
}

#[cfg(test)]
impl Role {
    pub(crate) const ALL: [Self; 6] =
        [Self::Rule, Self::Test, Self::Fixture, Self::Profile, Self::Catalogue, Self::CatalogueTest];
}

/// A file of a source.
pub(crate) struct RuleFile {
    pub(crate) role: Role,
    /// The file's name without its endings.
    pub(crate) stem: String,
    /// Whether it is shipped.
    pub(crate) builtin: bool,
    pub(crate) file: Arc<SourceFile>,
}

/// All files of the sources that are for one of these uses, in a stable order, and what of them could not be read. A
/// folder that cannot be read counts as a rule.
pub(crate) fn collect(sources: &[RuleSource], roles: &[Role]) -> (Vec<RuleFile>, Vec<Problem>) {
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    for source in sources {
        let found = match source {
            RuleSource::Builtin => {
                let mut found = Vec::new();
                embedded(&BUILTIN, &mut found);
                found
            }
            RuleSource::Dir(dir) => folder(dir),
        };
        for (path, content) in found {
            let Some((role, stem)) = role(&path).filter(|(role, _)| roles.contains(role)) else { continue };
            match content.read(&path) {
                Ok(file) => {
                    files.push(RuleFile { role, stem, builtin: *source == RuleSource::Builtin, file });
                }
                Err(problem) => problems.push(problem),
            }
        }
    }
    (files, problems)
}

/// A file's path below its source, and what it holds.
type Found = (PathBuf, Content);

/// What a file holds, which is only read where its use is wanted.
enum Content {
    Embedded(&'static [u8]),
    OnDisk(PathBuf),
    Unreadable(Problem),
}

impl Content {
    fn read(self, path: &Path) -> Result<Arc<SourceFile>, Problem> {
        match self {
            Self::Embedded(bytes) => SourceFile::new(&format!("rules/{}", path.display()), bytes),
            Self::OnDisk(place) => SourceFile::read(&place, LARGEST_BYTES),
            Self::Unreadable(problem) => Err(problem),
        }
    }
}

fn embedded(dir: &'static Dir<'_>, found: &mut Vec<Found>) {
    let mut entries: Vec<_> = dir.entries().iter().collect();
    entries.sort_by_key(|entry| entry.path().to_owned());
    for entry in entries {
        if let Some(dir) = entry.as_dir() {
            embedded(dir, found);
        } else if let Some(file) = entry.as_file() {
            found.push((file.path().to_owned(), Content::Embedded(file.contents())));
        }
    }
}

/// The files below a folder; the folder itself is not part of their paths.
fn folder(dir: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    if dir.is_dir() {
        walk(dir, Path::new(""), 0, &mut found);
    } else {
        let why = if dir.exists() { "is not a folder" } else { "does not exist" };
        let problem =
            Problem::of_file(&dir.display().to_string(), why, "give --rules a folder with rules in it");
        found.push((PathBuf::from("x.yaml"), Content::Unreadable(problem)));
    }
    found
}

fn walk(dir: &Path, inner: &Path, depth: usize, found: &mut Vec<Found>) {
    let problem = |message: String, help: &str| {
        let problem = Problem::of_file(&dir.display().to_string(), message, help);
        (PathBuf::from("x.yaml"), Content::Unreadable(problem))
    };
    if depth > DEEPEST {
        return found.push(problem("is nested too deeply".into(), "keep rules at most 8 folders deep"));
    }
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            return found.push(problem(format!("cannot be read: {error}"), "check its permissions"));
        }
    };
    let mut names: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.file_name()).collect();
    names.sort();
    for name in names {
        if found.len() > MOST_FILES {
            return found
                .push(problem("holds too many files".into(), "give --rules a folder with only rules in it"));
        }
        let (path, inner) = (dir.join(&name), inner.join(&name));
        let hidden = name.to_string_lossy().starts_with('.');
        if hidden {
            continue;
        }
        if path.is_dir() && !is_yaml(&inner) {
            walk(&path, &inner, depth + 1, found);
        } else if is_yaml(&inner) {
            found.push((inner, Content::OnDisk(path)));
        }
    }
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// What a path below a source's folder is for; nothing for what is not YAML.
fn role(path: &Path) -> Option<(Role, String)> {
    if !is_yaml(path) {
        return None;
    }
    let stem = path.file_stem()?.to_str()?.to_owned();
    let folder = path.parent().and_then(|parent| parent.iter().next()).and_then(|first| first.to_str());
    match (folder, stem.strip_suffix(".test")) {
        (Some("catalogues"), None) => Some((Role::Catalogue, stem)),
        (Some("catalogues"), Some(catalogue)) => Some((Role::CatalogueTest, catalogue.to_owned())),
        (Some("fixtures"), _) => Some((Role::Fixture, stem)),
        (Some("profiles"), _) => Some((Role::Profile, stem)),
        (_, Some(rule)) => Some((Role::Test, rule.to_owned())),
        (_, None) => Some((Role::Rule, stem)),
    }
}
