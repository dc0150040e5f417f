//! Catalogue of software that synchronises memory or leases with other servers, recognised by process, command line or port.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vmgate_facts::{Cause, Fact, Guest, LiveMoveSupport, MemorySync, Process, Udp};

use super::{Catalogues, Pattern, Reference, check::EntryCheck};

/// First words of the source of a time-out that was not read in the guest. Rules look for these words.
const VENDOR_DEFAULT: &str = "vendor default";

/// One kind of software whose members monitor each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemorySyncEntry {
    /// Id in rules and reports.
    pub id: String,
    /// Name for people.
    pub title: String,
    /// Process names as the kernel has them (at most 15 characters); a name that ends in `*` matches every name with this beginning.
    #[serde(default)]
    pub names: Vec<String>,
    /// Patterns that may match anywhere in a command line.
    #[serde(default)]
    pub commands: Vec<Pattern>,
    /// Ports that only this software uses: a listener proves that it runs, unless the listener's owner is known to be another program.
    #[serde(default)]
    pub ports: Vec<ListenerPort>,
    /// Process names that may own such a port but do not identify the software alone, such as `java`.
    #[serde(default)]
    pub port_owners: Vec<String>,
    /// Control protocols whose sessions are this software's failure detector, beside the protocol of its own id.
    #[serde(default)]
    pub protocols: Vec<String>,
    /// Vendor's default of the time in seconds after which peers declare a silent member dead; absent if the vendor names none.
    pub detector_default_seconds: Option<f64>,
    /// Setting or mechanism of that time-out.
    pub detector: String,
    /// Options of the command line that change the time-out.
    #[serde(default)]
    pub command_line: Vec<CommandLineSetting>,
    /// Files of the guest that can change the time-out.
    #[serde(default)]
    pub files: Vec<FileSetting>,
    /// Word of the vendor on a live move of an active member; absent if the vendor says nothing about it.
    pub live_move: Option<LiveMove>,
    /// Sign that the others can do without this member now, as the end of "take the member out when …".
    #[serde(default)]
    pub ready: String,
    /// Command or action that takes the software out of service during a move, without that anything moves or is lost.
    pub stop: String,
    /// Command or action that puts the software back into service.
    pub start: String,
    /// Scripts by which vmgate itself takes the member out for the time of a move; absent where only people can.
    pub take_out: Option<TakeOut>,
    /// Id of the entry whose `take_out` takes this software out too: one cluster stack has several programs.
    pub taken_out_with: Option<String>,
    /// Documentation of the vendor.
    pub references: Vec<Reference>,
}

/// Scripts that take a member out of its cluster and bring it back, run by /bin/sh in the guest as root. `within SECONDS COMMAND` waits
/// until a command succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TakeOut {
    /// Script that only reads: it succeeds while the others can do without this member, and otherwise says why they cannot.
    pub proof: String,
    /// Script that takes the member out, so that it ends and nothing is lost.
    pub stop: String,
    /// Script that brings the member back and waits until it is one again. It may run twice, also after half of `stop`.
    pub start: String,
    /// Names of the processes that end with `stop`, in the form of `names`.
    pub ends: Vec<String>,
}

/// Word of a vendor on moving an active member live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LiveMove {
    /// The vendor's answer.
    pub support: LiveMoveSupport,
    /// Source of the statement and its words, in one sentence.
    pub why: String,
    /// Document of the vendor.
    pub reference: Reference,
}

/// A port that identifies software.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerPort {
    /// Protocol of the port.
    pub protocol: Protocol,
    /// Number of the port.
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

/// Option of a command line that sets a failure detector's time-out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandLineSetting {
    /// Name of the option.
    pub key: String,
    /// Pattern with one capture group, around the number.
    pub pattern: Pattern,
    /// Seconds for each unit of that number: 0.001 for milliseconds, 3.0 if peers wait for three intervals.
    pub seconds_each: f64,
}

/// Setting of a configuration file that sets a failure detector's time-out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSetting {
    /// Configuration file in the guest.
    pub file: String,
    /// Name of the setting.
    pub key: String,
}

impl CommandLineSetting {
    /// Shortest time that the text sets, in seconds; none if the text sets none.
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

    /// Finds a listener on a port of this software, unless another program is known to own the port.
    fn matching_port<'a>(&self, listeners: &[OpenPort<'a>]) -> Option<OpenPort<'a>> {
        listeners.iter().copied().find(|open| self.ports.contains(&open.port) && self.may_own(open.owner))
    }

    fn may_own(&self, owner: Option<&str>) -> bool {
        owner.is_none_or(|owner| self.is_name(owner) || self.port_owners.iter().any(|name| name == owner))
    }

    /// True if this software is known to own a socket at one of the ports.
    fn listens(&self, udp: &Fact<Udp>, ports: &[u16]) -> bool {
        let sockets = udp.known().and_then(|udp| udp.sockets.known()).into_iter().flatten();
        let mut owners = sockets.filter(|socket| ports.contains(&socket.port)).map(|socket| &socket.owner);
        owners.any(|owner| matches!(owner, Fact::Known(Some(owner)) if self.is_name(owner)))
    }

    /// True if a process of this name is the software.
    pub fn is_name(&self, process: &str) -> bool {
        self.names.iter().any(|name| is_process_name(name, process))
    }

    /// Hint for operators: the file and setting that change the time-out.
    fn setting_hint(&self) -> String {
        self.files.first().map_or_else(String::new, |set| format!("; {} in {} sets it", set.key, set.file))
    }

    fn to_fact(&self, seen: String, command: &str) -> MemorySync {
        let from_command = self
            .command_line
            .iter()
            .find_map(|setting| Some((setting.read(command)?, format!("command line {}", setting.key))));
        let (detector_seconds, detector_source) = match (from_command, self.detector_default_seconds) {
            (Some((seconds, source)), _) => (Fact::Known(seconds), source),
            (None, Some(seconds)) => {
                (Fact::Known(seconds), format!("{VENDOR_DEFAULT} ({}){}", self.detector, self.setting_hint()))
            }
            (None, None) => (
                Fact::unknown(Cause::NotSupported, "the vendor names no default"),
                format!("not known ({}){}", self.detector, self.setting_hint()),
            ),
        };
        MemorySync { seen, detector_seconds, detector_source, ..self.handling() }
    }

    /// The software with all that does not depend on the guest.
    pub(super) fn handling(&self) -> MemorySync {
        let live_move = self.live_move.as_ref();
        MemorySync {
            id: self.id.clone(),
            title: self.title.clone(),
            seen: String::new(),
            detector_seconds: Fact::default(),
            detector_source: String::new(),
            heartbeat_seconds: 0.0,
            live_move: Fact::Known(live_move.map(|live_move| live_move.support).unwrap_or_default()),
            live_move_why: live_move.map(|live_move| live_move.why.clone()),
            ready: self.ready.clone(),
            stop: self.stop.clone(),
            start: self.start.clone(),
            take_out: match (&self.take_out, &self.taken_out_with) {
                (Some(_), _) => Some(self.id.clone()),
                (None, other) => other.clone(),
            },
        }
    }
}

/// True if a process has this name, which may end in `*` for every name with this beginning.
pub fn is_process_name(name: &str, process: &str) -> bool {
    match name.strip_suffix('*') {
        Some(start) => process.starts_with(start),
        None => process == name,
    }
}

/// Checks an entry for problems that its types cannot express.
pub(super) fn check(check: &mut EntryCheck<'_>) {
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
    if let Some(take_out) = check.entry.get("take_out").cloned() {
        check.names_of(&take_out, "ends");
    }
}

/// A port with a listener in the guest.
#[derive(Clone, Copy)]
struct OpenPort<'a> {
    port: ListenerPort,
    /// Owner of the port; absent if the kernel owns it or the owner is not known.
    owner: Option<&'a str>,
}

impl Catalogues {
    /// Recognises the software in the guest that monitors its peers.
    ///
    /// Unknown if the processes are unknown: ports can prove that software runs, but never that none runs. Software that
    /// ports prove is named in the reason.
    pub fn recognise(&self, guest: &Guest) -> Fact<Vec<MemorySync>> {
        let open = open_ports(guest);
        let processes = match &guest.processes {
            Fact::Known(processes) => processes,
            Fact::Unknown(why) => {
                let mut why = why.clone();
                let titles: Vec<&str> = self
                    .memory_sync()
                    .iter()
                    .filter(|entry| entry.matching_port(&open).is_some())
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
                    entry.to_fact(format!("{} (pid {})", process.name, process.pid), &process.command),
                );
            }
            let ListenerPort { protocol, port } = entry.matching_port(&open)?.port;
            let protocol = if protocol == Protocol::Tcp { "tcp" } else { "udp" };
            Some(entry.to_fact(format!("listener on port {port}/{protocol}"), ""))
        });
        Fact::Known(found.collect())
    }

    /// Software whose failure detector speaks this control protocol in a guest with these sockets.
    pub fn speaker(&self, protocol: &str, udp: &Fact<Udp>) -> Option<&MemorySyncEntry> {
        let ports = self.control_protocols().iter().find(|entry| entry.id == protocol);
        let ports = ports.map_or(&[][..], |entry| &entry.ports);
        let speaks = |entry: &&MemorySyncEntry| {
            entry.id == protocol
                || entry.protocols.iter().any(|one| one == protocol)
                    && (ports.is_empty() || entry.listens(udp, ports))
        };
        self.memory_sync().iter().find(speaks)
    }

    /// Software of this id, recognised by something else than processes and ports; none if no entry has the id.
    pub fn member(&self, id: &str, seen: String) -> Option<MemorySync> {
        self.memory_sync().iter().find(|entry| entry.id == id).map(|entry| entry.to_fact(seen, ""))
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
