//! Resolution of a host name with this host's own name service.
//!
//! By getent(1) and not in this process: the probe is a static binary without a name service, and the answer must be
//! the one that libvirtd on this host gets.

use std::{
    io,
    net::IpAddr,
    process::{Command, Stdio},
    time::Duration,
};

use vmgate_facts::{Cause, Fact, Unknown};
use vmgate_process::{ChildFailure, run};

/// Most bytes of getent's answer.
const ANSWER_LIMIT: usize = 64 << 10;

/// Addresses of a name, each once, in the resolver's order; empty if the host does not know the name.
pub(super) fn resolve(name: &str, limit: Duration) -> Result<Vec<IpAddr>, Unknown> {
    let sound = !name.is_empty()
        && name.len() <= 253
        && !name.starts_with('-')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c));
    if !sound {
        return Err(Unknown::new(Cause::Malformed, "the destination's name is not a valid host name"));
    }
    let mut command = Command::new("getent");
    command.args(["ahosts", name]).stdin(Stdio::null());
    let output = match run(command, io::empty(), limit, ANSWER_LIMIT) {
        // getent(1): exit status 2 means that the name was not found.
        Err(ChildFailure::Failed { code: 2, .. }) => return Ok(Vec::new()),
        other => other,
    };
    let output = output.map_err(|failure| match failure {
        ChildFailure::TimedOut => {
            Unknown::new(Cause::TimedOut, format!("the host did not resolve `{name}` in time"))
        }
        ChildFailure::NotStarted(why) => {
            Unknown::new(Cause::NotSupported, format!("cannot run getent on the host: {why}"))
        }
        other => Unknown::new(Cause::NotCollected, format!("getent failed on the host: {other}")),
    })?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some(address) = line.split_whitespace().next().and_then(|word| word.parse().ok())
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// The first address, to which a connection to the name goes.
pub(super) fn first(resolved: &Fact<Vec<IpAddr>>) -> Fact<IpAddr> {
    resolved.as_ref().and_then(|addresses| match addresses.first() {
        Some(address) => Fact::Known(*address),
        None => Fact::unknown(Cause::NotSupported, "the host cannot resolve the name"),
    })
}

#[cfg(test)]
mod tests {
    use crate::host::resolve::*;

    #[test]
    fn names_are_resolved_and_options_are_not_names() {
        let limit = Duration::from_secs(10);
        assert!(resolve("localhost", limit).unwrap().iter().all(IpAddr::is_loopback));
        assert_eq!(resolve("192.0.2.1", limit).unwrap(), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        for name in ["", "-s", "a b", "$(id)", "a\u{1b}"] {
            assert_eq!(resolve(name, limit).unwrap_err().cause, Cause::Malformed, "{name}");
        }
        assert!(resolve("no-such-host.invalid", limit).unwrap().is_empty());
    }
}
