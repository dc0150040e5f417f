//! Facts that the agent itself reports for any guest system: guest-get-osinfo, guest-get-host-name and
//! guest-network-get-interfaces (qemu/qga/qapi-schema.json). Windows and RHEL's agents answer these, too.

use std::{net::IpAddr, time::Duration};

use serde::Deserialize;
use serde_json::json;
use vmgate_facts::{Cause, Fact, Unknown, text::plain};
use vmgate_probe::guest::GuestHints;
use vmgate_reach::agent::{Agent, AgentChannel};

/// Most addresses that are accepted; no real guest has more.
const MOST: usize = 4096;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct OsInfo {
    #[serde(default)]
    id: String,
    #[serde(default)]
    pretty_name: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    kernel_release: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct HostName {
    host_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Interface {
    #[serde(default)]
    ip_addresses: Vec<Address>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Address {
    ip_address: String,
}

/// Operating system of the guest, as its agent reports it.
pub(super) struct GuestSystem {
    info: Fact<OsInfo>,
    patience: Duration,
    /// Reason for which the agent did not answer a question: it is then asked no other.
    silent: Option<Unknown>,
}

impl GuestSystem {
    /// Asks which system it is, for at most `patience`.
    pub(super) fn ask<C: AgentChannel>(agent: &Agent<C>, patience: Duration) -> Self {
        let mut silent = None;
        let info = ask_once(agent, "guest-get-osinfo", patience, &mut silent).into();
        Self { info, patience, silent }
    }

    /// Reason why nothing can be read in it: it has no /proc.
    pub(super) fn foreign(&self) -> Option<Unknown> {
        let info = self.info.known().filter(|info| info.id == "mswindows")?;
        let why = format!("the guest runs {}: vmgate can look into Linux guests only", info.pretty());
        Some(Unknown::new(Cause::ForeignGuest, why))
    }

    /// Asks for its names and addresses, too.
    pub(super) fn hints<C: AgentChannel>(&mut self, agent: &Agent<C>) -> GuestHints {
        let (patience, silent) = (self.patience, &mut self.silent);
        let host: Fact<HostName> = ask_once(agent, "guest-get-host-name", patience, silent).into();
        let interfaces: Fact<Vec<Interface>> =
            ask_once(agent, "guest-network-get-interfaces", patience, silent).into();
        let info = || self.info.as_ref();
        GuestHints {
            os: info().and_then(|info| not_empty("guest-get-osinfo", &info.pretty())),
            kernel_release: info()
                .and_then(|info| not_empty("guest-get-osinfo", &plain(&info.kernel_release))),
            hostname: host.and_then(|host| not_empty("guest-get-host-name", &plain(&host.host_name))),
            addresses: interfaces.and_then(addresses),
        }
    }
}

fn ask_once<C: AgentChannel, T: serde::de::DeserializeOwned>(
    agent: &Agent<C>,
    command: &str,
    patience: Duration,
    silent: &mut Option<Unknown>,
) -> Result<T, Unknown> {
    if let Some(why) = silent {
        return Err(why.clone());
    }
    agent.require_enabled(&[command])?;
    agent.ask(command, &json!({}), patience).inspect_err(|why| {
        if matches!(why.cause, Cause::TimedOut | Cause::NoGuestAgent) {
            *silent = Some(why.clone());
        }
    })
}

impl OsInfo {
    fn pretty(&self) -> String {
        let composed = format!("{} {}", self.name, self.version);
        plain(if self.pretty_name.is_empty() { &composed } else { &self.pretty_name })
    }
}

fn not_empty(command: &str, text: &str) -> Fact<String> {
    if text.is_empty() {
        Fact::unknown(Cause::Malformed, format!("the guest agent's answer to {command} is empty"))
    } else {
        Fact::Known(text.to_owned())
    }
}

/// Addresses of the guest, without loopback addresses.
fn addresses(interfaces: Vec<Interface>) -> Fact<Vec<String>> {
    let texts: Vec<String> = interfaces
        .into_iter()
        .flat_map(|one| one.ip_addresses)
        .map(|one| one.ip_address)
        .take(MOST + 1)
        .collect();
    // Windows writes the interface's number after a link-local address.
    let parsed: Option<Vec<IpAddr>> =
        texts.iter().map(|text| text.split('%').next().unwrap_or_default().parse().ok()).collect();
    match parsed {
        Some(parsed) if parsed.len() <= MOST => {
            Fact::Known(parsed.iter().filter(|one| !one.is_loopback()).map(ToString::to_string).collect())
        }
        _ => Fact::unknown(
            Cause::Malformed,
            "the guest agent's answer to guest-network-get-interfaces contains an invalid address or too many",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vmgate_facts::{Cause, Fact, Guest};
    use vmgate_probe::guest::look;
    use vmgate_reach::canned::Canned;

    use super::super::AgentGuest;

    /// Written by hand in the form of qemu-ga's schema, not recorded from a Windows guest.
    const INFO: &str = r#"{"return": {"version": "109.0.0", "supported_commands": [
        {"enabled": true, "name": "guest-get-osinfo", "success-response": true},
        {"enabled": true, "name": "guest-get-host-name", "success-response": true},
        {"enabled": true, "name": "guest-network-get-interfaces", "success-response": true},
        {"enabled": true, "name": "guest-exec", "success-response": true},
        {"enabled": true, "name": "guest-exec-status", "success-response": true},
        {"enabled": true, "name": "guest-file-open", "success-response": true},
        {"enabled": true, "name": "guest-file-read", "success-response": true},
        {"enabled": true, "name": "guest-file-close", "success-response": true}]}}"#;
    const OS: &str = r#"{"return": {"name": "Microsoft Windows", "kernel-release": "17763",
        "version": "Microsoft Windows Server 2019", "variant": "server", "pretty-name": "Windows Server 2019 Standard",
        "version-id": "2019", "variant-id": "server", "kernel-version": "10.0", "machine": "x86_64", "id": "mswindows"}}"#;
    const HOST: &str = r#"{"return": {"host-name": "WIN-SQL1"}}"#;
    const NET: &str = r#"{"return": [
        {"name": "Ethernet Instance 0", "ip-addresses": [
            {"ip-address-type": "ipv6", "ip-address": "fe80::5c1d:9a2f:1c7e:6b02%6", "prefix": 64},
            {"ip-address-type": "ipv4", "ip-address": "10.0.0.21", "prefix": 24}],
         "statistics": {"tx-packets": 4410, "tx-errs": 0, "rx-bytes": 19340022, "rx-dropped": 0, "rx-packets": 21340,
            "rx-errs": 0, "tx-bytes": 402833, "tx-dropped": 0}, "hardware-address": "52:54:00:aa:bb:cc"},
        {"name": "Loopback Pseudo-Interface 1", "ip-addresses": [
            {"ip-address-type": "ipv6", "ip-address": "::1", "prefix": 128},
            {"ip-address-type": "ipv4", "ip-address": "127.0.0.1", "prefix": 8}]}]}"#;

    fn windows(os: &str, host: &str, net: &str) -> Guest {
        let canned = Canned::new(&[
            ("guest-ping", &[r#"{"return":{}}"#]),
            ("guest-info", &[INFO]),
            ("guest-get-osinfo", &[os]),
            ("guest-get-host-name", &[host]),
            ("guest-network-get-interfaces", &[net]),
        ]);
        look(&AgentGuest::open(canned, Duration::from_secs(5)).unwrap())
    }

    fn cause<T: std::fmt::Debug>(fact: &Fact<T>) -> Cause {
        match fact {
            Fact::Unknown(why) => why.cause,
            Fact::Known(value) => panic!("known: {value:?}"),
        }
    }

    #[test]
    fn of_windows_is_known_what_its_agent_tells_and_the_rest_says_why_not() {
        let guest = windows(OS, HOST, NET);
        assert_eq!(guest.os, Fact::Known("Windows Server 2019 Standard".into()));
        assert_eq!(guest.hostname, Fact::Known("WIN-SQL1".into()));
        assert_eq!(guest.kernel_release, Fact::Known("17763".into()));
        assert_eq!(
            guest.addresses,
            Fact::Known(vec!["fe80::5c1d:9a2f:1c7e:6b02".to_owned(), "10.0.0.21".to_owned()])
        );
        assert_eq!(cause(&guest.processes), Cause::ForeignGuest);
        assert_eq!(cause(&guest.sysctl.known().unwrap().tcp_retries2), Cause::ForeignGuest);
        assert_eq!(cause(&guest.tcp.known().unwrap().connections), Cause::ForeignGuest);
        assert_eq!(cause(&guest.udp.known().unwrap().sockets), Cause::ForeignGuest);
        assert_eq!(cause(&guest.detectors), Cause::ForeignGuest);
        assert_eq!(cause(&guest.memory.known().unwrap().available_bytes), Cause::ForeignGuest);
        assert_eq!(cause(&guest.kernel_bypass.known().unwrap().rdma_devices), Cause::ForeignGuest);
        assert_eq!(cause(&guest.clock.known().unwrap().source), Cause::ForeignGuest);
        assert_eq!(cause(&guest.sctp.known().unwrap().associations), Cause::ForeignGuest);
        assert_eq!(cause(&guest.multicast_groups), Cause::ForeignGuest);
    }

    #[test]
    fn what_is_crafted_is_disarmed_or_unknown() {
        let evil = OS.replace("Windows Server 2019 Standard", "\\u001b[2J\\u202eevil");
        assert_eq!(windows(&evil, HOST, NET).os, Fact::Known("?[2J?evil".into()));
        let guest = windows("[]", r#"{"return": {"host-name": ""}}"#, &NET.replace("10.0.0.21", "\\u001b"));
        assert_eq!(guest.hostname.known(), None);
        assert_eq!((cause(&guest.os), cause(&guest.addresses)), (Cause::Malformed, Cause::Malformed));
    }
}
