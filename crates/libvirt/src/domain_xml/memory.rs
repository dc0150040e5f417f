//! Pages that back a VM's memory, by guest NUMA node and memory device.

use std::collections::BTreeSet;

use roxmltree::Node;

use super::{Backing, bytes, child, children, hardware::numbers, unit};

/// Size of a page that is no huge page, on the architectures that QEMU runs on with huge pages: a configuration may name it.
const ORDINARY_PAGE_BYTES: u64 = 4096;

/// One kind of page; none for huge pages of the host's default size.
type PageSize = Option<u64>;

/// True if QEMU touches all memory at the start (`<allocation mode='immediate'/>`, `<locked/>`).
pub(super) fn is_populated(domain: Node) -> bool {
    let Some(backing) = child(domain, "memoryBacking") else { return false };
    let immediate =
        child(backing, "allocation").is_some_and(|node| node.attribute("mode") == Some("immediate"));
    immediate || child(backing, "locked").is_some()
}

/// Pages of the whole VM (qemuBuildMemoryBackendProps): a page size may be named for single guest nodes, or for the rest.
pub(super) fn backing(domain: Node) -> Backing {
    let memory_backing = child(domain, "memoryBacking");
    let huge = memory_backing.and_then(|backing| child(backing, "hugepages"));
    let pages: Vec<Node> = huge.into_iter().flat_map(|huge| children(huge, "page")).collect();
    let of_node = |node: u32| -> PageSize {
        let names =
            |page: &&Node| page.attribute("nodeset").is_some_and(|nodes| numbers(nodes).contains(&node));
        let rest = |page: &&Node| page.attribute("nodeset").is_none();
        match pages.iter().find(names).or_else(|| pages.iter().find(rest)) {
            Some(page) => Some(page_bytes(*page).unwrap_or(ORDINARY_PAGE_BYTES)),
            None if huge.is_some() && pages.is_empty() => None,
            None => Some(ORDINARY_PAGE_BYTES),
        }
    };
    let mut sizes: BTreeSet<PageSize> = guest_nodes(domain).into_iter().map(of_node).collect();
    let devices = child(domain, "devices");
    for device in devices.into_iter().flat_map(|devices| children(devices, "memory")) {
        let own = child(device, "source").and_then(|source| child(source, "pagesize")).and_then(bytes);
        let target = child(device, "target").and_then(|target| child(target, "node"));
        let node = target.and_then(|node| node.text()?.trim().parse().ok()).unwrap_or(0);
        sizes.insert(own.map_or_else(|| of_node(node), Some));
    }
    match sizes.into_iter().collect::<Vec<_>>().as_slice() {
        [None] => Backing::HugeOfDefaultSize,
        [Some(ORDINARY_PAGE_BYTES)] | [] => Backing::Ordinary,
        [Some(size)] => Backing::Huge(*size),
        _ => Backing::Mixed,
    }
}

fn page_bytes(page: Node) -> Option<u64> {
    let size: u64 = page.attribute("size")?.parse().ok()?;
    size.checked_mul(unit(page.attribute("unit").unwrap_or("KiB"))?)
}

/// Guest NUMA nodes; node 0 where the configuration has none.
fn guest_nodes(domain: Node) -> Vec<u32> {
    let numa = child(domain, "cpu").and_then(|cpu| child(cpu, "numa"));
    let cells = numa.into_iter().flat_map(|numa| children(numa, "cell"));
    let nodes: Vec<u32> = cells.zip(0..).map(|(_, number)| number).collect();
    if nodes.is_empty() { vec![0] } else { nodes }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn memory_is_populated_where_it_is_allocated_at_once_or_locked() {
        let populated = |backing: &str| {
            let xml = format!("<domain><memoryBacking>{backing}</memoryBacking></domain>");
            is_populated(vmgate_facts::xml::parse(&xml).unwrap().root_element())
        };
        assert!(populated("<allocation mode='immediate'/>") && populated("<locked/>"));
        assert!(!populated("<allocation mode='ondemand'/>") && !populated("<source type='memfd'/>"));
    }

    fn of(xml: &str) -> Backing {
        backing(vmgate_facts::xml::parse(xml).unwrap().root_element())
    }

    #[test]
    fn pages_are_those_of_every_guest_node() {
        let domain = |pages: &str, rest: &str| {
            format!("<domain><memoryBacking><hugepages>{pages}</hugepages></memoryBacking>{rest}</domain>")
        };
        let two_nodes = "<cpu><numa><cell id='0' memory='1'/><cell id='1' memory='1'/></numa></cpu>";
        assert_eq!(of("<domain/>"), Backing::Ordinary);
        assert_eq!(of(&domain("", two_nodes)), Backing::HugeOfDefaultSize);
        assert_eq!(of(&domain("<page size='4' unit='KiB'/>", "")), Backing::Ordinary);
        assert_eq!(of(&domain("<page size='1' unit='G'/>", two_nodes)), Backing::Huge(1 << 30));
        let mixed = "<page size='1' unit='G' nodeset='0'/><page size='2048'/>";
        assert_eq!(of(&domain(mixed, two_nodes)), Backing::Mixed);
        assert_eq!(of(&domain("<page size='1' unit='G' nodeset='0'/>", two_nodes)), Backing::Mixed);
        assert_eq!(of(&domain("<page size='2048' nodeset='0-1'/>", two_nodes)), Backing::Huge(2 << 20));
        let device = "<devices><memory model='dimm'><source><pagesize unit='KiB'>2048</pagesize></source></memory></devices>";
        assert_eq!(of(&format!("<domain>{device}</domain>")), Backing::Mixed);
        assert_eq!(of(&domain("<page size='2048'/>", device)), Backing::Huge(2 << 20));
    }
}
