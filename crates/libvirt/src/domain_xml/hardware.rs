//! Placement, firmware, TPM and boot files of a VM: the destination must match them to start the VM at all.

use roxmltree::Node;
use vmgate_facts::{BootFile, Firmware, Placement, Tpm, Uuid, text::plain};

use super::{child, children};

/// Folder of swtpm's state in libvirt, with one folder per VM.
const SWTPM_STATE: &str = "/var/lib/libvirt/swtpm";

/// Most numbers in a list such as `0-63`: libvirt's own limit is 16384 CPUs.
const LONGEST_LIST: usize = 16_384;

/// CPU features that the VM requires.
pub(super) fn demanded_features(cpu: Node) -> Vec<String> {
    children(cpu, "feature")
        .filter(|feature| matches!(feature.attribute("policy"), None | Some("require" | "force")))
        .filter_map(|feature| feature.attribute("name"))
        .map(plain)
        .collect()
}

/// Threads of one socket, by `<topology>`.
pub(super) fn threads_per_socket(cpu: Node) -> u32 {
    let Some(topology) = child(cpu, "topology") else { return 1 };
    let number = |name: &&str| topology.attribute(*name)?.parse::<u32>().ok();
    ["dies", "clusters", "cores", "threads"].iter().filter_map(number).fold(1, u32::saturating_mul)
}

/// Frequency in `<timer name='tsc' frequency=…>`, in hertz.
pub(super) fn tsc_frequency(domain: Node) -> Option<u64> {
    let clock = child(domain, "clock")?;
    let timer = children(clock, "timer").find(|timer| timer.attribute("name") == Some("tsc"))?;
    timer.attribute("frequency")?.parse().ok()
}

/// NUMA nodes and CPUs of the host that the configuration names.
pub(super) fn placement(domain: Node) -> Placement {
    let tune = child(domain, "numatune");
    let memory = tune.and_then(|tune| child(tune, "memory"));
    let cells = tune.into_iter().flat_map(|tune| children(tune, "memnode"));
    let policies: Vec<Node> = memory.into_iter().chain(cells).collect();
    let devices = child(domain, "devices").into_iter().flat_map(|devices| children(devices, "memory"));
    let device_nodes =
        devices.filter_map(|device| child(child(device, "source")?, "nodemask")?.text()).flat_map(numbers);
    let numa_nodes = policies.iter().filter_map(|node| node.attribute("nodeset")).flat_map(numbers);
    let numa_nodes = numa_nodes.chain(device_nodes).collect();
    let threads = child(domain, "cputune");
    let pins = threads.into_iter().flat_map(|tune| {
        ["vcpupin", "emulatorpin", "iothreadpin"].into_iter().flat_map(move |name| children(tune, name))
    });
    let everywhere = child(domain, "vcpu").and_then(|vcpu| vcpu.attribute("cpuset"));
    let pinned_cpus =
        pins.filter_map(|pin| pin.attribute("cpuset")).chain(everywhere).flat_map(numbers).collect();
    Placement {
        strict: policies.iter().any(|node| {
            // libvirt's default mode is strict.
            node.attribute("nodeset").is_some() && matches!(node.attribute("mode"), None | Some("strict"))
        }),
        numa_nodes: sorted(numa_nodes),
        pinned_cpus: sorted(pinned_cpus),
    }
}

fn sorted(mut list: Vec<u32>) -> Vec<u32> {
    list.sort_unstable();
    list.dedup();
    list
}

/// Parses a list of numbers such as `0-3,^2,8` (virBitmapParse).
pub(super) fn numbers(list: &str) -> Vec<u32> {
    let (mut named, mut excluded) = (Vec::new(), Vec::new());
    for part in list.split(',').map(str::trim) {
        if let Some(number) = part.strip_prefix('^') {
            excluded.extend(number.parse::<u32>());
            continue;
        }
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(from), Ok(to)) = (from.parse::<u32>(), to.parse::<u32>()) {
            named.extend((from..=to).take(LONGEST_LIST));
        }
    }
    named.retain(|number| !excluded.contains(number));
    named
}

/// The firmware image, where the configuration (or libvirt, from `firmware='efi'`) names one.
pub(super) fn firmware(domain: Node) -> Option<Firmware> {
    let os = child(domain, "os")?;
    let loader = child(os, "loader")?;
    let nvram = child(os, "nvram");
    // If the source is of another type than a file, the path is in a child element.
    let file = |node: Node| {
        let source = child(node, "source");
        let source = source.and_then(|source| source.attribute("file").or_else(|| source.attribute("dev")));
        node.text()
            .map(|text| plain(text.trim()))
            .filter(|text| !text.is_empty())
            .or_else(|| source.map(plain))
    };
    Some(Firmware {
        loader: file(loader)?,
        nvram: nvram.and_then(file),
        nvram_template: nvram.and_then(|nvram| nvram.attribute("template")).map(plain),
        secure: loader.attribute("secure") == Some("yes"),
    })
}

/// The trusted platform module. Of several (pseries guests have a proxy beside it) the one that binds the VM to its host.
pub(super) fn tpm<'a, 'input: 'a>(
    tpms: impl Iterator<Item = Node<'a, 'input>>,
    uuid: Option<&Uuid>,
) -> Option<Tpm> {
    tpms.map(|node| one_tpm(node, uuid)).max_by_key(|tpm| tpm.backend == "passthrough")
}

fn one_tpm(tpm: Node, uuid: Option<&Uuid>) -> Tpm {
    let backend = child(tpm, "backend");
    let attribute = |name: &str| backend.and_then(|backend| backend.attribute(name));
    let kind = attribute("type").map(plain).unwrap_or_default();
    let source = backend.and_then(|backend| child(backend, "source"));
    let named = source.and_then(|source| source.attribute("path")).map(plain);
    let usual = || uuid.map(|uuid| format!("{SWTPM_STATE}/{uuid}"));
    Tpm {
        model: tpm.attribute("model").map(plain).unwrap_or_default(),
        state_folder: if kind == "emulator" { named.or_else(usual) } else { None },
        backend: kind,
    }
}

/// Files that QEMU opens at its start, without disks and those of the firmware.
pub(super) fn boot_files(domain: Node) -> Vec<BootFile> {
    let devices = child(domain, "devices").into_iter();
    let of_os = child(domain, "os").into_iter().flat_map(|os| os.children()).flat_map(|node| {
        let purpose = node.tag_name().name();
        match purpose {
            "kernel" | "initrd" | "dtb" | "shim" => vec![(purpose, node.text())],
            "acpi" => children(node, "table").map(|table| (purpose, table.text())).collect(),
            _ => Vec::new(),
        }
    });
    let of_devices = devices.flat_map(|devices| devices.children()).flat_map(|device| {
        let rom = child(device, "rom").and_then(|rom| rom.attribute("file"));
        let own = match device.tag_name().name() {
            "emulator" => Some(("emulator", device.text())),
            "memory" => {
                let path = child(device, "source").and_then(|source| child(source, "path"));
                Some(("memory", path.and_then(|path| path.text())))
            }
            _ => None,
        };
        own.into_iter().chain([("rom", rom)])
    });
    let of_fw_cfg = children(domain, "sysinfo")
        .flat_map(|info| children(info, "entry"))
        .map(|entry| ("fwcfg", entry.attribute("file")));
    let all = of_devices.chain(of_os).chain(of_fw_cfg);
    all.filter_map(|(purpose, path)| {
        let path = plain(path?.trim());
        path.starts_with('/').then(|| BootFile { purpose: purpose.to_owned(), path })
    })
    .collect()
}
