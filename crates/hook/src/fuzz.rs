//! Entry points for `fuzz/` (feature `fuzzing`) of parsers that are private otherwise.

use crate::{config::HookConfig, incoming, requests::HookRequest};

/// Finds the VM in the domain XML that libvirt hands to the hook.
pub fn domain(bytes: &[u8]) {
    drop(incoming::read("fuzz", bytes));
}

/// Reads hook.yaml, and a request about the hook.
pub fn documents(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    drop((HookConfig::parse(&text), serde_json::from_str::<HookRequest>(&text)));
}
