//! Software that synchronises memory or leases with other servers: recognised by process, command line or port.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Catalogues, Pattern, Reference, check::Check};
use vmgate_facts::{Cause, Fact, Guest, MemorySync, Process};

/// How the source of a time-out begins that nobody read. Rules look for it.
const VENDOR_DEFAULT: &str = "vendor default";

/// A catalogue file of software whose members watch each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemorySyncCatalogue {
    /// Names this format.
    pub schema: MemorySyncSchema,
    /// The software.
    pub entries: Vec<MemorySyncEntry>,
}

/// The names of this format that this version reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MemorySyncSchema {
    /// The first format.
    #[serde(rename = "vmgate/catalogue/memory-sync/v1")]
    V1,
}

impl MemorySyncCatalogue {
    /// The name of this format.
    pub const SCHEMA: &'static str = "vmgate/catalogue/memory-sync/v1";
}

/// One kind of software whose members watch each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemorySyncEntry {
    /// Its id in rules and reports.
    pub id: String,
    /// Its name for people.
    pub title: String,
    /// The kernel's names of its processes (15 characters at most); one that ends in `*` stands for all that begin so.
    #[serde(default)]
    pub names: Vec<String>,
    /// Patterns that are looked for anywhere in a command line.
    #[serde(default)]
    pub commands: Vec<Pattern>,
    /// Ports on which nothing else listens: a listener proves it, unless its owner is known to be something else.
    #[serde(default)]
    pub ports: Vec<ListenerPort>,
    /// Process names that may own such a port without being enough by themselves, such as `java`.
    #[serde(default)]
    pub port_owners: Vec<String>,
    /// How long peers bear silence by the vendor's default; absent where the vendor names none.
    pub detector_default_seconds: Option<f64>,
    /// Which setting or mechanism that is.
    pub detector: String,
    /// How its command line sets another value than the default.
    #[serde(default)]
    pub command_line: Vec<Setting>,
    /// Files of the guest in which another value would stand.
    #[serde(default)]
    pub files: Vec<FileSetting>,
    /// What takes it out of service for the time of a move.
    pub stop: String,
    /// What puts it back.
    pub start: String,
    /// The vendor's documentation.
    pub references: Vec<Reference>,
}

/// A port that gives a software away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerPort {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its number.
    #[schemars(range(min = 1))]
    pub port: u16,
}

/// Protocols that have ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// How a failure detector's time-out stands on a command line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// The option's name.
    pub key: String,
    /// A pattern with one group, around the number.
    pub pattern: Pattern,
    /// What one of that number means: 0.001 for milliseconds, 3.0 where peers wait for three intervals.
    pub seconds_each: f64,
}

/// Where a failure detector's time-out is configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSetting {
    /// The configuration file in the guest.
    pub file: String,
    /// The setting's name.
    pub key: String,
}

impl Setting {
    /// The shortest time that the text sets; nothing where it does not set one.
    pub fn read(&self, text: &str) -> Option<f64> {
        self.pattern
            .captures(text)
            .filter_map(|digits| digits.parse::<f64>().ok())
            .map(|number| number * self.seconds_each)
            .filter(|seconds| seconds.is_finite() && *seconds > 0.0)
            .min_by(f64::total_cmp)
    }
}

impl MemorySyncEntry {
    fn is_process(&self, process: &Process) -> bool {
        self.is_name(&process.name) || self.commands.iter().any(|command| command.is_in(&process.command))
    }

    /// A listener on a port of its own that nothing else is known to own.
    fn listens<'a>(&self, listeners: &[OpenPort<'a>]) -> Option<OpenPort<'a>> {
        listeners.iter().copied().find(|open| self.ports.contains(&open.port) && self.may_own(open.owner))
    }

    fn may_own(&self, owner: Option<&str>) -> bool {
        owner.is_none_or(|owner| self.is_name(owner) || self.port_owners.iter().any(|name| name == owner))
    }

    fn is_name(&self, process: &str) -> bool {
        self.names.iter().any(|name| match name.strip_suffix('*') {
            Some(start) => process.starts_with(start),
            None => process == name,
        })
    }

    /// Where somebody who wants another value sets it.
    fn set_where(&self) -> String {
        self.files.first().map_or_else(String::new, |set| format!("; {} in {} sets it", set.key, set.file))
    }

    fn found(&self, seen: String, command: &str) -> MemorySync {
        let from_command = self
            .command_line
            .iter()
            .find_map(|setting| Some((setting.read(command)?, format!("command line {}", setting.key))));
        let (detector_seconds, detector_source) = match (from_command, self.detector_default_seconds) {
            (Some((seconds, source)), _) => (Fact::Known(seconds), source),
            (None, Some(seconds)) => {
                (Fact::Known(seconds), format!("{VENDOR_DEFAULT} ({}){}", self.detector, self.set_where()))
            }
            (None, None) => (
                Fact::unknown(Cause::NotSupported, "the vendor names no default"),
                format!("not known ({}){}", self.detector, self.set_where()),
            ),
        };
        MemorySync {
            id: self.id.clone(),
            title: self.title.clone(),
            seen,
            detector_seconds,
            detector_source,
            stop: self.stop.clone(),
        }
    }
}

/// What is wrong with an entry beyond its shape.
pub(super) fn check(check: &mut Check<'_>) {
    check.referenced();
    check.recognisable(&["names", "commands", "ports"]);
    check.names("names");
    check.names("port_owners");
    for pattern in check.items("commands") {
        check.pattern(&pattern, 0);
    }
    for setting in check.items("command_line") {
        check.seconds(setting.get("seconds_each"));
        if let Some(pattern) = setting.get("pattern") {
            check.pattern(pattern, 1);
        }
    }
    check.seconds(check.entry.get("detector_default_seconds"));
}

/// A port on which something in the guest listens.
#[derive(Clone, Copy)]
struct OpenPort<'a> {
    port: ListenerPort,
    /// Absent where the kernel owns it or nobody knows.
    owner: Option<&'a str>,
}

impl Catalogues {
    /// The software in the guest that watches its peers.
    ///
    /// Unknown where the processes are: ports alone prove that something is there, never that nothing is. What they
    /// prove stands in the reason, so that it is not lost.
    pub fn recognise(&self, guest: &Guest) -> Fact<Vec<MemorySync>> {
        let open = open_ports(guest);
        let processes = match &guest.processes {
            Fact::Known(processes) => processes,
            Fact::Unknown(why) => {
                let mut why = why.clone();
                let titles: Vec<&str> = self
                    .memory_sync()
                    .iter()
                    .filter(|entry| entry.listens(&open).is_some())
                    .map(|entry| entry.title.as_str())
                    .collect();
                if !titles.is_empty() {
                    why.reason = format!("{}; open ports show {}", why.reason, titles.join(", "));
                }
                return Fact::Unknown(why);
            }
        };
        let found = self.memory_sync().iter().filter_map(|entry| {
            if let Some(process) = processes.iter().find(|process| entry.is_process(process)) {
                return Some(
                    entry.found(format!("{} (pid {})", process.name, process.pid), &process.command),
                );
            }
            let ListenerPort { protocol, port } = entry.listens(&open)?.port;
            let protocol = if protocol == Protocol::Tcp { "tcp" } else { "udp" };
            Some(entry.found(format!("listener on port {port}/{protocol}"), ""))
        });
        Fact::Known(found.collect())
    }
}

fn open_ports(guest: &Guest) -> Vec<OpenPort<'_>> {
    fn owner(owner: &Fact<Option<String>>) -> Option<&str> {
        owner.known()?.as_deref()
    }
    let tcp = guest.tcp.known().and_then(|tcp| tcp.listeners.known()).into_iter().flatten().map(|listener| {
        OpenPort {
            port: ListenerPort { protocol: Protocol::Tcp, port: listener.port },
            owner: owner(&listener.owner),
        }
    });
    let udp = guest
        .udp
        .known()
        .and_then(|udp| udp.sockets.known())
        .into_iter()
        .flatten()
        .filter(|socket| socket.remote.is_none())
        .map(|socket| OpenPort {
            port: ListenerPort { protocol: Protocol::Udp, port: socket.port },
            owner: owner(&socket.owner),
        });
    tcp.chain(udp).collect()
}
