//! Parsers of addresses in migration URIs and routes.

use std::net::IpAddr;

/// Prefix length of a route's destination, if the destination contains the address.
pub(super) fn prefix_match(destination: &str, address: IpAddr) -> Option<u8> {
    let (network, prefix) = split_prefix(destination)?;
    let same = match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32_u32.checked_sub(prefix.into())?).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128_u32.checked_sub(prefix.into())?).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        _ => false,
    };
    same.then_some(prefix)
}

/// Parses an address with its prefix length.
pub(super) fn split_prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    Some((address.parse().ok()?, prefix.parse().ok()?))
}

/// The host of a migration address: `10.77.1.2`, `hv2-mig`, `tcp://10.77.1.2:49152`, `tcp:[fd00::2]` alike.
pub fn host_of_address(text: &str) -> &str {
    let text = text
        .split_once(':')
        .filter(|(scheme, _)| matches!(*scheme, "tcp" | "tls" | "rdma"))
        .map_or(text, |(_, rest)| rest);
    let text = text.strip_prefix("//").unwrap_or(text);
    let text = text.split('/').next().unwrap_or(text);
    if let Some((host, _)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return host;
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => host,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use crate::path::address::*;

    #[test]
    fn an_address_is_found_in_every_shape() {
        for (text, host) in [
            ("10.77.1.2", "10.77.1.2"),
            ("tcp:10.77.1.2", "10.77.1.2"),
            ("tcp://10.77.1.2:49152", "10.77.1.2"),
            ("tcp://[fd00::2]:49152/", "fd00::2"),
            ("tcp:[fd00::2]", "fd00::2"),
            ("fd00::2", "fd00::2"),
            ("hv2-mig", "hv2-mig"),
            ("tls:hv2-mig:49152", "hv2-mig"),
        ] {
            assert_eq!(host_of_address(text), host, "{text}");
        }
    }
}
