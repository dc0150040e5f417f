//! NUMA nodes of the host: memory, CPUs and huge pages of each.

use std::{fs, path::Path};

use vmgate_facts::{Cause, NumaNode, Unknown};

use crate::host::{memory, not_read, text};

const NODES: &str = "/sys/devices/system/node";
const ONLINE_CPUS: &str = "/sys/devices/system/cpu/online";

/// All nodes, by number. A kernel without NUMA counts as one node, as in libvirt.
pub(super) fn nodes() -> Result<Vec<NumaNode>, Unknown> {
    let entries = match fs::read_dir(NODES) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return only_node().map(|node| vec![node]);
        }
        Err(error) => return Err(not_read(NODES, &error)),
    };
    let mut nodes = Vec::new();
    for entry in entries.flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.strip_prefix("node")?.parse().ok());
        if let Some(id) = number {
            nodes.push(node(id, &entry.path())?);
        }
    }
    nodes.sort_by_key(|node| node.id);
    Ok(nodes)
}

fn node(id: u32, folder: &Path) -> Result<NumaNode, Unknown> {
    let shown = folder.join("meminfo").display().to_string();
    let info = fs::read_to_string(folder.join("meminfo")).map_err(|error| not_read(&shown, &error))?;
    let figure = |name: &str| figure(&info, name).unwrap_or(0);
    let total_bytes = crate::host::numa::figure(&info, "MemTotal")
        .ok_or_else(|| Unknown::new(Cause::Malformed, format!("{shown} has no MemTotal")))?;
    let files = figure("Active(file)").saturating_add(figure("Inactive(file)"));
    let clean = files.saturating_sub(figure("Dirty")).saturating_sub(figure("Writeback"));
    let cpus = text(&folder.join("cpulist").display().to_string())?;
    Ok(NumaNode {
        id,
        total_bytes,
        available_bytes: figure("MemFree").saturating_add(clean).min(total_bytes),
        cpus: memory::numbers_in_list(&cpus).unwrap_or_default(),
        huge_pages: memory::huge_pages_in(&folder.join("hugepages"))?,
    })
}

/// One figure of a node's meminfo, in bytes, from lines such as `Node 0 MemFree:  1234 kB`.
fn figure(info: &str, name: &str) -> Option<u64> {
    info.lines().find_map(|line| {
        let (label, value) = line.split_once(':')?;
        if label.rsplit(' ').next() != Some(name) {
            return None;
        }
        value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    })
}

fn only_node() -> Result<NumaNode, Unknown> {
    let memory = memory::memory()?;
    Ok(NumaNode {
        id: 0,
        total_bytes: memory.total_bytes,
        available_bytes: memory.available_bytes,
        cpus: memory::numbers_in_list(&text(ONLINE_CPUS)?).unwrap_or_default(),
        huge_pages: memory::huge_pages()?,
    })
}

#[cfg(test)]
mod tests {
    use crate::host::numa::*;

    #[test]
    fn this_machine_has_a_node_with_memory_and_cpus() {
        for nodes in [nodes().unwrap(), vec![only_node().unwrap()]] {
            assert!(nodes.iter().any(|node| !node.cpus.is_empty()));
            assert!(nodes.iter().all(|node| node.available_bytes <= node.total_bytes));
            assert!(nodes.iter().any(|node| node.total_bytes > 0));
        }
    }

    #[test]
    fn figures_are_told_apart_by_their_whole_name() {
        let info = "Node 0 MemTotal:       16 kB\nNode 0 Active:    3 kB\nNode 0 Active(file):       2 kB\n";
        assert_eq!(figure(info, "MemTotal"), Some(16 << 10));
        assert_eq!(figure(info, "Active(file)"), Some(2 << 10));
        assert_eq!(figure(info, "MemFree"), None);
    }
}
