//! Every parser of bytes that strangers write: guests, hosts, networks, files and databases of others.
//!
//! fuzz/run fuzzes each of them; tests/authority/parsers.rs tries each seed, and changes of it. None may panic, and none may
//! take memory or time out of proportion.

#![allow(missing_docs, unreachable_pub, reason = "a program for tests")]

mod agent;
mod documents;
mod guest;
mod rule;

use vmgate_execute::isolate;
use vmgate_facts::{Day, GuestAddress, HostUri, Uri, Version, trace::DirtyTrace};
use vmgate_ledger::LedgerUrl;
use vmgate_libvirt::{capabilities, domain_capabilities, domain_xml, network_xml, secret_xml, volume_xml};
use vmgate_probe::wire::Question;
use vmgate_reach::SshTarget;

/// A parser: its name, which is that of its folder of seeds, and what it does with the bytes.
pub type Parser = (&'static str, fn(&[u8]));

/// All parsers.
pub const PARSERS: &[Parser] = &[
    ("agent", agent::ask),
    ("audit", documents::audit),
    ("capabilities", |data| drop(capabilities::parse(&text(data)))),
    ("certificate", |data| vmgate_probe::host::fuzz_files(data)),
    ("change", documents::change),
    ("config", documents::config),
    ("domain", domain),
    ("domain_capabilities", |data| drop(domain_capabilities::parse(&text(data)))),
    ("envelope", documents::envelope),
    ("facts", documents::facts),
    ("frames", |data| vmgate_probe::flows::fuzz_frames(data)),
    ("guest", guest::look_at),
    ("hook", |data| vmgate_hook::fuzz::documents(data)),
    ("inventory", documents::inventory),
    ("key", documents::key),
    ("ledger", documents::ledger),
    ("maps", |data| vmgate_probe::trace::fuzz_maps(data)),
    ("netlink", netlink),
    ("network", network),
    ("probe", |data| vmgate_collect::fuzz::probe_answer(data)),
    ("question", |data| drop(serde_json::from_slice::<Question>(data))),
    ("rule", rule::load),
    ("switches", |data| vmgate_probe::host::fuzz_switches(data)),
    ("trace", trace),
    ("uri", uri),
    ("verdict", documents::verdict),
    ("waiver", documents::waiver),
];

fn text(data: &[u8]) -> String {
    String::from_utf8_lossy(data).into_owned()
}

/// The XML of a VM, as collection, isolation and the hook read it.
fn domain(data: &[u8]) {
    drop(domain_xml::parse(&text(data)));
    isolate::fuzz_links(&text(data));
    vmgate_hook::fuzz::domain(data);
}

fn netlink(data: &[u8]) {
    vmgate_probe::guest::fuzz_netlink(data);
    vmgate_probe::host::fuzz_filters(data);
}

fn trace(data: &[u8]) {
    if let Ok(trace) = serde_json::from_slice::<DirtyTrace>(data)
        && trace.check().is_ok()
    {
        drop((trace.dirty_windows(), trace.weights()));
    }
}

/// XML of networks, volumes and secrets.
fn network(data: &[u8]) {
    let text = text(data);
    drop((network_xml::parse(&text), volume_xml::parse(&text), secret_xml::names(&text)));
}

/// Addresses of hosts and ledgers, and what else is a word with a meaning.
fn uri(data: &[u8]) {
    let text = text(data);
    if let Ok(uri) = Uri::from_operator(&text) {
        assert_eq!(Uri::from_operator(&uri.to_string()).as_ref(), Ok(&uri), "{text:?}");
        drop(uri.for_libvirt(None));
    }
    drop((text.parse::<HostUri>(), text.parse::<GuestAddress>()));
    drop(SshTarget::from_operator(&text).map(|target| target.to_string()));
    drop((LedgerUrl::from(text.clone()), text.parse::<Day>(), text.parse::<Version>()));
}
