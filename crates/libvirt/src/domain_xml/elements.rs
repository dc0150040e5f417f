//! Elements and attributes of a domain XML that are accounted for: read into facts, or without effect on a migration.
//!
//! Anything in none of these tables is told by its path: a newer libvirt may have elements that stop a migration. Names
//! are those of libvirt 11.3's schema (domaincommon.rng).

use std::collections::BTreeSet;

use roxmltree::Node;
use vmgate_facts::text::plain;

/// Namespace of elements that go to QEMU without libvirt knowing what they mean.
pub(super) const QEMU_NAMESPACE: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

/// Most unread elements that are told; a domain with more is not read any better by naming them.
const MOST_UNREAD: usize = 64;

/// Elements by path below `<domain>`, with the reason for which nothing more needs to be known of them. `*` is any one
/// element, a final `**` an element with all that it holds.
const ACCOUNTED_FOR: &[(&str, &[&str])] = &[
    (
        "read into facts of its own",
        &[
            "name",
            "uuid",
            "memory",
            "currentMemory",
            "maxMemory",
            "vcpu",
            "memoryBacking",
            "memoryBacking/hugepages/**",
            "memtune",
            "memtune/hard_limit",
            "numatune/**",
            "cputune",
            "cputune/vcpupin",
            "cputune/emulatorpin",
            "cputune/iothreadpin",
            "os",
            "os/type",
            "os/loader/**",
            "os/nvram/**",
            "os/kernel",
            "os/initrd",
            "os/dtb",
            "os/shim",
            "os/acpi/**",
            "cpu/**",
            "clock/**",
            "features",
            "features/hyperv/**",
            "launchSecurity/**",
            "sysinfo/entry",
            "seclabel/**",
            "devices",
            "devices/emulator",
            "devices/disk/**",
            "devices/interface/**",
            "devices/filesystem/**",
            "devices/hostdev/**",
            "devices/shmem/**",
            "devices/tpm/**",
            "devices/memory/**",
            "devices/graphics/**",
            "devices/channel/**",
            "devices/console/**",
            "devices/serial/**",
            "devices/parallel/**",
            "devices/vsock/**",
            "devices/rng/**",
            "devices/input/**",
            "devices/video/**",
        ],
    ),
    (
        "its model is a component, and libvirt sends the rest as it is",
        &[
            "devices/controller/**",
            "devices/crypto/**",
            "devices/hub/**",
            "devices/iommu/**",
            "devices/memballoon/**",
            "devices/nvram/**",
            "devices/panic/**",
            "devices/pstore/**",
            "devices/redirdev/**",
            "devices/redirfilter/**",
            "devices/smartcard/**",
            "devices/sound/**",
            "devices/watchdog/**",
            "devices/lease/**",
            "features/**",
            "genid",
        ],
    ),
    ("text for people and programs", &["title", "description", "metadata/**"]),
    (
        "what happens at an event of the guest",
        &["on_poweroff", "on_reboot", "on_crash", "on_lockfailure", "pm/**"],
    ),
    (
        "only used when the guest boots",
        &[
            "bootloader",
            "bootloader_args",
            "os/boot",
            "os/bootmenu",
            "os/bios",
            "os/smbios",
            "os/cmdline",
            "os/firmware/**",
            "os/loadparm",
            "sysinfo/**",
        ],
    ),
    (
        "scheduling by the host, which libvirt sets up again at the destination",
        &[
            "cputune/**",
            "memtune/**",
            "blkiotune/**",
            "throttlegroups/**",
            "iothreads",
            "iothreadids/**",
            "defaultiothread",
            "vcpus/**",
            "resource/**",
            "perf/**",
            "memoryBacking/**",
        ],
    ),
    ("the host's end of sound", &["devices/audio/**"]),
    ("only for other hypervisors than QEMU", &["idmap/**", "keywrap/**"]),
];

/// Names of elements and attributes in libvirt's schema for domains: `/**` above accounts for no others.
const ELEMENT_NAMES: &str = include_str!("elements.txt");
const ATTRIBUTE_NAMES: &str = include_str!("attributes.txt");

/// Paths of elements and attributes that are not accounted for, each once, in the order of the paths.
pub(super) fn unread(domain: Node) -> Vec<String> {
    let mut found = BTreeSet::new();
    collect(domain, &mut Vec::new(), &mut found);
    found.into_iter().take(MOST_UNREAD).collect()
}

fn collect<'a>(parent: Node<'a, '_>, path: &mut Vec<&'a str>, found: &mut BTreeSet<String>) {
    // Depth is bounded by the parser's own limit on nesting.
    for node in parent.children().filter(Node::is_element) {
        let tag = node.tag_name();
        // Elements for QEMU are components by themselves; others of foreign namespaces are for other programs.
        if tag.namespace().is_some() || found.len() > MOST_UNREAD {
            continue;
        }
        path.push(tag.name());
        // Anybody may write anything into the metadata.
        if path.as_slice() != ["metadata"] {
            if is_accounted_for(path) {
                let unknown = node.attributes().filter(|attribute| {
                    attribute.namespace().is_none() && !is_listed(ATTRIBUTE_NAMES, attribute.name())
                });
                let named = |name: &str| plain(&format!("{}/@{name}", path.join("/")));
                found.extend(unknown.map(|attribute| named(attribute.name())));
                collect(node, path, found);
            } else {
                found.insert(plain(&path.join("/")));
            }
        }
        path.pop();
    }
}

fn is_accounted_for(path: &[&str]) -> bool {
    path.last().is_some_and(|name| is_listed(ELEMENT_NAMES, name))
        && ACCOUNTED_FOR
            .iter()
            .flat_map(|(_, patterns)| patterns.iter())
            .any(|pattern| matches(pattern, path))
}

fn is_listed(names: &str, name: &str) -> bool {
    names.split_whitespace().any(|listed| listed == name)
}

fn matches(pattern: &str, path: &[&str]) -> bool {
    let (pattern, whole) = pattern.strip_suffix("/**").map_or((pattern, false), |pattern| (pattern, true));
    let parts: Vec<&str> = pattern.split('/').collect();
    let long_enough = if whole { path.len() >= parts.len() } else { path.len() == parts.len() };
    long_enough && parts.iter().zip(path).all(|(part, name)| *part == "*" || part == name)
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn what_is_not_accounted_for_is_told_by_its_path() {
        let xml = "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>a</name>
            <metadata><anything><at all='1'/></anything></metadata><hyperspace on='yes'><inner/></hyperspace>
            <devices><disk type='file'><source file='/a' teleport='yes'/><wormhole/></disk><flux model='x'/></devices>
            <qemu:commandline><qemu:arg value='-x'/></qemu:commandline></domain>";
        let document = vmgate_facts::xml::parse(xml).unwrap();
        assert_eq!(
            unread(document.root_element()),
            ["devices/disk/source/@teleport", "devices/disk/wormhole", "devices/flux", "hyperspace"]
        );
    }

    #[test]
    fn thousands_of_unread_elements_are_cut() {
        let many = (0..5000).map(|number| format!("<x{number}/>")).collect::<Vec<_>>().concat();
        let xml = format!("<domain>{many}</domain>");
        assert_eq!(unread(vmgate_facts::xml::parse(&xml).unwrap().root_element()).len(), MOST_UNREAD);
    }
}
