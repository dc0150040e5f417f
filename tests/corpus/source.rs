//! The material: fetched once, read as files.

use std::{fs, path::PathBuf, process::Command, sync::LazyLock};

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/fetch");
    let output = Command::new(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
});

/// A schema of the libvirt whose tests are used.
pub(crate) fn schema(name: &str) -> PathBuf {
    FOLDER.join("source/src/conf/schemas").join(name)
}

/// A schema of a newer libvirt.
pub(crate) fn newer_schema(name: &str) -> PathBuf {
    FOLDER.join("newer").join(name)
}

/// Text of a domain in libvirt's tests.
pub(crate) struct Sample {
    /// File below libvirt's folder of tests.
    pub(crate) name: String,
    /// The domain's XML.
    pub(crate) xml: String,
}

/// Every domain in libvirt's tests for QEMU, in the order of their names. Of the documents that hold a domain (status,
/// snapshots, cookies) it is the domain.
pub(crate) fn domains() -> Vec<Sample> {
    let tests = FOLDER.join("source/tests");
    // A network has a <domain>, too: of names.
    let elsewhere =
        ["networkxml2xmlin", "storagevolxml2xmlin", "secretxml2xmlin"].map(|name| tests.join(name));
    let mut folders: Vec<PathBuf> = vec![tests.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                folders.extend((!elsewhere.contains(&path)).then_some(path));
            } else if path.extension().is_some_and(|ending| ending == "xml") {
                files.push(path);
            }
        }
    }
    files.sort();
    let found = files.into_iter().filter_map(|file| {
        let text = fs::read_to_string(&file).ok()?;
        let document = vmgate_facts::xml::parse(&text).ok()?;
        let domain =
            document.descendants().find(|node| node.has_tag_name("domain") && node.has_children())?;
        // What a document around it declares is not declared in the part.
        let xml = text.get(domain.range())?;
        vmgate_facts::xml::parse(xml).ok()?;
        Some(Sample { name: file.strip_prefix(&tests).unwrap().display().to_string(), xml: xml.to_owned() })
    });
    found.collect()
}

/// Every document with this root in folders of libvirt's tests, with the names of their files.
pub(crate) fn documents(folders: &[&str], root: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(FOLDER.join("source/tests").join(folder)).unwrap() {
            let file = entry.unwrap().path();
            let Ok(text) = fs::read_to_string(&file) else { continue };
            let is_wanted =
                vmgate_facts::xml::parse(&text).is_ok_and(|xml| xml.root_element().has_tag_name(root));
            if is_wanted {
                found.push((file.display().to_string(), text));
            }
        }
    }
    found.sort();
    found
}

/// Domain capabilities in libvirt's tests, with the names of their files.
pub(crate) fn domain_capabilities() -> Vec<(String, String)> {
    documents(&["domaincapsdata"], "domainCapabilities")
}
