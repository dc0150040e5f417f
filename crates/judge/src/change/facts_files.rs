//! Facts files for the moves of a change: collected near the hypervisors, judged where the change is reviewed.
//!
//! A file is used for a move only if it is about the same VM and the same two hosts: facts about another destination
//! could give GO to a move that was never checked.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use thiserror::Error;
use vmgate_attest::PublicKey;
use vmgate_facts::{Fact, Facts, Host, HostUri, Uri, Vm};

use super::{ChangeFile, PlannedMove};
use crate::evidence::{self, EvidenceError, EvidenceOrigin};

/// All facts files of a folder, in memory.
#[derive(Debug)]
pub struct FactsFiles {
    files: Vec<(PathBuf, Facts, EvidenceOrigin)>,
}

/// Facts files that cannot be used.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum FactsFilesError {
    /// The folder, or the one file, cannot be read.
    #[error("{}: cannot be read: {source}; name a facts file, or a folder of them", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// One of the files has problems.
    #[error(transparent)]
    Document(#[from] EvidenceError),
    /// Two files are about the same move, so the choice between them would be chance.
    #[error("{} and {} are both about the move of {vm}: keep the later one", first.display(), second.display())]
    SameMove { vm: String, first: PathBuf, second: PathBuf },
}

impl FactsFiles {
    /// Reads a facts file, or all files of a folder with the ending yaml, yml or json. Signed ones must be signed by one of
    /// `keys`, if there are any.
    pub fn read(path: &Path, keys: &[PublicKey]) -> Result<Self, FactsFilesError> {
        let unreadable = |source| FactsFilesError::Unreadable { path: path.to_owned(), source };
        let mut files = vec![path.to_owned()];
        if path.is_dir() {
            let entries = fs::read_dir(path).map_err(unreadable)?;
            files = entries.map(|entry| Ok(entry?.path())).collect::<Result<_, _>>().map_err(unreadable)?;
            files.retain(|file| {
                let extension = file.extension().and_then(|extension| extension.to_str());
                extension.is_some_and(|extension| matches!(extension, "yaml" | "yml" | "json"))
            });
            files.sort();
        }
        let read = |file: PathBuf| {
            let (facts, origin) = evidence::read_facts(&file, keys)?;
            Ok((file, facts, origin))
        };
        Ok(Self { files: files.into_iter().map(read).collect::<Result<_, FactsFilesError>>()? })
    }

    /// Returns all facts, without the names of their files.
    pub fn into_facts(self) -> Vec<Facts> {
        self.files.into_iter().map(|(_, facts, _)| facts).collect()
    }

    /// Returns the facts of a move of `change`, and their origin. If no file is about the move, all facts are unknown, which leads to a verdict
    /// too.
    pub fn facts_of(
        &self,
        change: &ChangeFile,
        planned: &PlannedMove,
    ) -> Result<(Facts, EvidenceOrigin), FactsFilesError> {
        let mut about = self.files.iter().filter(|(_, facts, _)| is_about(facts, planned));
        let (mut facts, origin) = match (about.next(), about.next()) {
            (Some((first, ..)), Some((second, ..))) => {
                let (first, second) = (first.clone(), second.clone());
                return Err(FactsFilesError::SameMove { vm: planned.vm.clone(), first, second });
            }
            (Some((_, facts, origin)), None) => (facts.clone(), origin.clone()),
            (None, _) => (facts_without_evidence(planned), EvidenceOrigin::default()),
        };
        facts.change = change.to_fact(planned);
        Ok((facts, origin))
    }
}

fn is_about(facts: &Facts, planned: &PlannedMove) -> bool {
    let is_vm = facts.vm.known().is_some_and(|vm| vm.is_called(&planned.vm));
    is_vm && is_host(&facts.source, &planned.from) && is_host(&facts.destination, &planned.to)
}

/// True if a host is the one that `named` names: it was reached by the same name, or, if it was reached by no name, has
/// that name itself. The URI in the facts is compared, and never connected to.
pub fn is_host(host: &Fact<Host>, named: &HostUri) -> bool {
    let Some(host) = host.known() else { return false };
    let reached_by = host.uri.known().and_then(|text| Uri::from_operator(text).ok());
    match reached_by {
        Some(uri) if uri.host.is_some() || named.host().is_none() => named.is_reached_by(&uri),
        _ => host.hostname.known().is_some_and(|name| Some(name.as_str()) == named.host()),
    }
}

/// Facts with only the names of VM and hosts, so that the verdict can name the move.
fn facts_without_evidence(planned: &PlannedMove) -> Facts {
    let host = |uri: &HostUri| {
        let hostname = uri.host().map_or_else(Fact::default, |host| Fact::Known(host.to_owned()));
        Fact::Known(Host { uri: Fact::Known(uri.to_string()), hostname, ..Host::default() })
    };
    let mut facts = Facts::empty(jiff::Timestamp::UNIX_EPOCH);
    facts.vm = Fact::Known(Vm { name: Fact::Known(planned.vm.clone()), ..Vm::default() });
    facts.source = host(&planned.from);
    facts.destination = host(&planned.to);
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: &str = include_str!("../../../../rules/fixtures/idle-vm.yaml");

    fn change(to: &str) -> ChangeFile {
        let text = format!(
            "schema: vmgate/change/v1\nid: CHG-1\nmoves:\n  - vm: web1\n    from: qemu+ssh://root@hv1/system\n    to: {to}\n"
        );
        ChangeFile::parse("c.yaml", text.as_bytes()).unwrap()
    }

    fn evidence(files: &[(&str, &str)]) -> FactsFiles {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        FactsFiles::read(folder.path(), &[]).unwrap()
    }

    #[test]
    fn a_file_is_evidence_for_the_move_that_it_is_about() {
        let evidence = evidence(&[("web1.yaml", IDLE), ("notes.txt", "not facts")]);
        let change = change("qemu+ssh://root@hv2/system");
        let (facts, origin) = evidence.facts_of(&change, &change.moves[0]).unwrap();
        assert!(matches!(origin, EvidenceOrigin::File(Some(name)) if name.ends_with("web1.yaml")));
        assert!(facts.guest.known().is_some());
        assert_eq!(facts.change.id.as_deref(), Some("CHG-1"));
    }

    #[test]
    fn facts_about_another_destination_are_no_evidence() {
        let evidence = evidence(&[("web1.yaml", IDLE)]);
        let change = change("qemu+ssh://root@hv3/system");
        let (facts, _) = evidence.facts_of(&change, &change.moves[0]).unwrap();
        assert_eq!(facts.guest.known(), None);
        assert_eq!(facts.destination.known().unwrap().hostname, Fact::Known("hv3".to_owned()));
    }

    #[test]
    fn two_files_about_one_move_are_refused() {
        let evidence = evidence(&[("a.yaml", IDLE), ("b.yaml", IDLE)]);
        let change = change("qemu+ssh://root@hv2/system");
        let error = evidence.facts_of(&change, &change.moves[0]).unwrap_err().to_string();
        assert!(error.contains("a.yaml") && error.contains("b.yaml") && error.contains("web1"), "{error}");
    }
}
