//! Rule files on disk and in the program: rules, tests, fixtures, profiles and catalogues.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use include_dir::{Dir, include_dir};
use vmgate_documents::{LARGEST_BYTES, Problem, SourceFile};

/// The shipped rules, with their tests, fixtures, profiles and catalogues.
static BUILTIN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../rules");

/// Limit on the depth of folders.
const DEEPEST: usize = 8;
/// Limit on the files of one folder of rules.
const MOST_FILES: usize = 10_000;

/// A source of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleSource {
    /// The pack inside the program.
    Builtin,
    /// A folder. Rules are anywhere below it, as `<id>.yaml` with `<id>.test.yaml` in the same folder; `fixtures/`,
    /// `profiles/` and `catalogues/` are special.
    Dir(PathBuf),
}

/// Purpose of a file, by its name and folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileRole {
    Rule,
    Test,
    Fixture,
    Profile,
    Catalogue,
    CatalogueTest,
}

#[cfg(test)]
impl FileRole {
    pub(crate) const ALL: [Self; 6] =
        [Self::Rule, Self::Test, Self::Fixture, Self::Profile, Self::Catalogue, Self::CatalogueTest];
}

/// A file of a source.
pub(crate) struct RuleFile {
    pub(crate) role: FileRole,
    /// File name without its endings.
    pub(crate) stem: String,
    /// True if the file is part of the program.
    pub(crate) builtin: bool,
    pub(crate) file: Arc<SourceFile>,
}

/// Returns all files of the sources that have one of these roles, in a stable order, and the problems of files that
/// cannot be read. A folder that cannot be read counts as a rule.
pub(crate) fn collect(sources: &[RuleSource], roles: &[FileRole]) -> (Vec<RuleFile>, Vec<Problem>) {
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

/// Names and contents of the files of a source that shape a judgement: rules, profiles and catalogues, by name. Files that
/// cannot be read are left out; loading the source reports them.
pub fn pack_files(source: &RuleSource) -> Vec<(String, String)> {
    let roles = [FileRole::Rule, FileRole::Profile, FileRole::Catalogue];
    let (files, _) = collect(std::slice::from_ref(source), &roles);
    let name = |file: &RuleFile| format!("{:?}/{}", file.role, file.stem);
    let mut files: Vec<_> = files.iter().map(|file| (name(file), file.file.text.clone())).collect();
    files.sort();
    files
}

/// Path of a file below its source, and its content.
type FoundFile = (PathBuf, FileContent);

/// Content of a file; read only if the file's role is asked for.
enum FileContent {
    Embedded(&'static [u8]),
    OnDisk(PathBuf),
    Unreadable(Problem),
}

impl FileContent {
    fn read(self, path: &Path) -> Result<Arc<SourceFile>, Problem> {
        match self {
            Self::Embedded(bytes) => SourceFile::new(&format!("rules/{}", path.display()), bytes),
            Self::OnDisk(place) => SourceFile::read_trusted(&place, LARGEST_BYTES),
            Self::Unreadable(problem) => Err(problem),
        }
    }
}

fn embedded(dir: &'static Dir<'_>, found: &mut Vec<FoundFile>) {
    let mut entries: Vec<_> = dir.entries().iter().collect();
    entries.sort_by_key(|entry| entry.path().to_owned());
    for entry in entries {
        if let Some(dir) = entry.as_dir() {
            embedded(dir, found);
        } else if let Some(file) = entry.as_file() {
            found.push((file.path().to_owned(), FileContent::Embedded(file.contents())));
        }
    }
}

/// Returns the files below a folder; their paths are relative to the folder.
fn folder(dir: &Path) -> Vec<FoundFile> {
    let mut found = Vec::new();
    if dir.is_dir() {
        walk(dir, Path::new(""), 0, &mut found);
    } else {
        let why = if dir.exists() { "is not a folder" } else { "does not exist" };
        let problem = Problem::of_file(
            &dir.display().to_string(),
            why,
            "name a folder that contains rules: `--rules FOLDER`",
        );
        found.push((PathBuf::from("x.yaml"), FileContent::Unreadable(problem)));
    }
    found
}

fn walk(dir: &Path, inner: &Path, depth: usize, found: &mut Vec<FoundFile>) {
    let problem = |message: String, help: &str| {
        let problem = Problem::of_file(&dir.display().to_string(), message, help);
        (PathBuf::from("x.yaml"), FileContent::Unreadable(problem))
    };
    if depth > DEEPEST {
        return found.push(problem(
            "is nested too deeply".into(),
            "keep rules at most 8 folders deep below `--rules`",
        ));
    }
    // Who can add or remove files in a folder of rules decides what is demanded.
    if let Err(why) = vmgate_trust::check_folder(dir) {
        return found
            .push((PathBuf::from("x.yaml"), FileContent::Unreadable(Problem::of_untrusted(dir, &why))));
    }
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => {
            return found
                .push(problem(format!("cannot be read: {error}"), "check the permissions of this folder"));
        }
    };
    let mut names: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.file_name()).collect();
    names.sort();
    for name in names {
        if found.len() > MOST_FILES {
            return found.push(problem(
                format!("contains more than {MOST_FILES} files"),
                "name a folder that contains only rules: `--rules FOLDER`",
            ));
        }
        let (path, inner) = (dir.join(&name), inner.join(&name));
        let hidden = name.to_string_lossy().starts_with('.');
        if hidden {
            continue;
        }
        if path.is_dir() && !is_yaml(&inner) {
            walk(&path, &inner, depth + 1, found);
        } else if is_yaml(&inner) {
            found.push((inner, FileContent::OnDisk(path)));
        }
    }
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// Role of a file by its path below the source's folder; none if the file is not YAML.
fn role(path: &Path) -> Option<(FileRole, String)> {
    if !is_yaml(path) {
        return None;
    }
    let stem = path.file_stem()?.to_str()?.to_owned();
    let folder = path.parent().and_then(|parent| parent.iter().next()).and_then(|first| first.to_str());
    match (folder, stem.strip_suffix(".test")) {
        (Some("catalogues"), None) => Some((FileRole::Catalogue, stem)),
        (Some("catalogues"), Some(catalogue)) => Some((FileRole::CatalogueTest, catalogue.to_owned())),
        (Some("fixtures"), _) => Some((FileRole::Fixture, stem)),
        (Some("profiles"), _) => Some((FileRole::Profile, stem)),
        (_, Some(rule)) => Some((FileRole::Test, rule.to_owned())),
        (_, None) => Some((FileRole::Rule, stem)),
    }
}
