//! Entry points for `fuzz/` and for tests (feature `fuzzing`) of what is private otherwise.

use vmgate_facts::{Fact, Vm};
use vmgate_libvirt::domain_xml::DomainConfig;

use crate::{needed_files, transport, vm};

/// Facts of a VM with this configuration, as a check has them before any host is asked.
pub fn vm(config: &DomainConfig) -> Vm {
    vm::of_configuration(&Fact::Known(config.clone()))
}

/// Facts of a VM whose configuration is this text.
pub fn vm_of_xml(xml: &str) -> Vm {
    vm::of_configuration(&vm::configuration(xml))
}

/// Paths that both hosts' probes inspect for a VM with this configuration.
pub fn needed_files(config: &DomainConfig) -> Vec<String> {
    needed_files::of([config])
}

/// Parses the answer of a guest probe, or of a host probe about the host, a VM's flows or its pages.
pub fn probe_answer(bytes: &[u8]) {
    transport::fuzz_answer(bytes);
}
