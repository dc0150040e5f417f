//! Software bridges from /sys/class/net/NAME/bridge.

use std::{fs, path::Path};

use super::not_read;
use crate::{
    collect::text::plain,
    fact::{Bridge, Unknown},
};

const CLASS_NET: &str = "/sys/class/net";
/// Intervals there are in hundredths of a second (USER_HZ), whatever the kernel's own clock.
const TICKS_PER_SECOND: f64 = 100.0;

/// Every bridge, by name.
pub(super) fn look() -> Result<Vec<Bridge>, Unknown> {
    let entries = fs::read_dir(CLASS_NET).map_err(|error| not_read(CLASS_NET, &error))?;
    let mut bridges: Vec<Bridge> = entries
        .flatten()
        .filter_map(|entry| bridge(&entry.path().join("bridge"), entry.file_name().to_str()?))
        .collect();
    bridges.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(bridges)
}

fn bridge(folder: &Path, name: &str) -> Option<Bridge> {
    let number = |file: &str| -> Option<u32> {
        fs::read_to_string(folder.join(file)).ok().and_then(|text| text.trim().parse().ok())
    };
    folder.is_dir().then(|| Bridge {
        name: plain(name),
        // A kernel without snooping sends everything everywhere and asks nobody.
        multicast_snooping: number("multicast_snooping") == Some(1),
        multicast_querier: number("multicast_querier") == Some(1),
        multicast_query_interval_seconds: f64::from(number("multicast_query_interval").unwrap_or(12_500))
            / TICKS_PER_SECOND,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_tells_whether_it_snoops_and_asks() {
        let folder = tempfile::tempdir().unwrap();
        for (name, value) in [
            ("multicast_snooping", "1\n"),
            ("multicast_querier", "1\n"),
            ("multicast_query_interval", "1000\n"),
        ] {
            fs::write(folder.path().join(name), value).unwrap();
        }
        let found = bridge(folder.path(), "br0").unwrap();
        assert_eq!((found.multicast_snooping, found.multicast_querier), (true, true));
        assert!((found.multicast_query_interval_seconds - 10.0).abs() < 1e-9);
        assert_eq!(bridge(&folder.path().join("none"), "eth0"), None);
        let silent = tempfile::tempdir().unwrap();
        assert!(!bridge(silent.path(), "br1").unwrap().multicast_snooping);
    }
}
