//! The reading of libvirt's other documents is complete as that of domains is: capabilities, networks, volumes, secrets.

use vmgate_libvirt::{
    accounts::{Document, place},
    capabilities, domain_capabilities, network_xml, secret_xml, volume_xml,
};

use crate::{
    reading::{differences, is_in},
    rng, source,
};

/// Schema, folders of libvirt's tests, root element, and the least number of samples.
fn material(document: Document) -> (&'static str, &'static [&'static str], &'static str, usize) {
    match document {
        Document::Capabilities => (
            "capability.rng",
            &["capabilityschemadata", "vircaps2xmldata", "qemucaps2xmloutdata"],
            "capabilities",
            25,
        ),
        Document::DomainCapabilities => ("domaincaps.rng", &["domaincapsdata"], "domainCapabilities", 80),
        Document::Network => ("network.rng", &["networkxml2xmlin"], "network", 40),
        Document::Volume => ("storagevol.rng", &["storagevolxml2xmlin"], "volume", 20),
        Document::Secret => ("secret.rng", &["secretxml2xmlin"], "secret", 5),
    }
}

/// Read by the reader, as text.
fn read(document: Document, xml: &str) -> Option<String> {
    match document {
        Document::Capabilities => capabilities::parse(xml).ok().map(|read| format!("{read:?}")),
        Document::DomainCapabilities => domain_capabilities::parse(xml).ok().map(|read| format!("{read:?}")),
        Document::Network => network_xml::parse(xml).ok().map(|read| format!("{read:?}")),
        Document::Volume => volume_xml::parse(xml).ok().map(|read| format!("{read:?}")),
        Document::Secret => secret_xml::names(xml).ok().map(|read| format!("{read:?}")),
    }
}

#[test]
#[ignore = "needs libvirt's source"]
fn every_element_and_attribute_has_an_account() {
    for document in Document::ALL {
        let (accounts, file) = (document.accounts(), material(document).0);
        let schemas = [source::schema(file), source::newer_schema(file)].map(|file| rng::read(&file, place));
        for schema in &schemas {
            assert!(schema.len() > 4, "{file} was read whole");
            for (path, attributes) in schema {
                assert!(path.is_empty() || accounts.element(path).is_some(), "{file}: {path}");
                for (name, values) in attributes {
                    assert!(accounts.attribute(path, name).is_some(), "{file}: {path}@{name}");
                    let told = values.listed.iter().find(|value| !accounts.has_value(path, name, value));
                    assert_eq!(told, None, "{file}: {path}@{name}");
                }
            }
        }
        let known = |key: &str| schemas.iter().any(|schema| is_in(schema, key));
        let gone: Vec<&str> =
            accounts.keys().map(|(key, _)| key).filter(|key| !key.contains('*') && !known(key)).collect();
        assert!(gone.is_empty(), "{file}: in the account, but not in libvirt's schema: {gone:?}");
    }
}

#[test]
#[ignore = "needs libvirt's source"]
fn what_the_accounts_call_read_makes_a_difference_and_no_sample_has_more() {
    for document in Document::ALL {
        let (file, folders, root, least) = material(document);
        let samples = source::documents(folders, root);
        assert!(samples.len() >= least, "{file}: {} samples", samples.len());
        for (name, xml) in &samples {
            assert_eq!(document.unread(xml), Vec::<String>::new(), "{name}");
        }
        let texts: Vec<String> = samples.into_iter().map(|(_, xml)| xml).collect();
        let schema = rng::read(&source::schema(file), place);
        let (read, unread) =
            differences(&texts, (document.accounts(), &schema, place), |xml| read(document, xml));
        println!("{file}: {} samples, {read} elements and attributes make a difference", texts.len());
        assert!(unread.is_empty(), "{file}: called read, but nothing changes with them: {unread:#?}");
    }
}
