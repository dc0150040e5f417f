//! Catalogue of control protocols: what their packets do not tell, and the way out for the operator.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use vmgate_facts::{Cause, ControlBasis, ControlSession, Fact, FlowDirection};

use super::{Catalogues, Reference, check::EntryCheck};

/// Part of a time-out that is taken for one interval where no interval is known: protocols allow for at least two packets
/// that are lost.
const UNSEEN_INTERVAL: f64 = 1.0 / 3.0;

/// One protocol by which machines watch each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ControlEntry {
    /// Id of the protocol, as the capture names it.
    pub id: String,
    /// Name for people.
    pub title: String,
    /// Keep-alive intervals after which a silent end is given up, by the standard; left out where the packets state the
    /// time-out, or no standard says so.
    #[serde(default)]
    pub multiplier: Option<f64>,
    /// Silence in seconds that peers tolerate by default; left out where the packets state it, or no default exists.
    #[serde(default)]
    pub default_seconds: Option<f64>,
    /// Source of the default.
    #[serde(default)]
    pub default_source: Option<String>,
    /// UDP ports at which its speakers listen, where several programs speak it: the socket's owner tells whose session it is.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// Action of the peers when they declare the guest dead, as the end of "after that …".
    pub why: String,
    /// Way to take the guest out of service safely, or the setting to raise; a sentence without its full stop.
    pub way_out: String,
    /// Documents that prove it.
    pub references: Vec<Reference>,
}

/// Checks an entry for problems that its types cannot express.
pub(super) fn check(check: &mut EntryCheck<'_>) {
    check.referenced();
    check.seconds(check.entry.get("default_seconds"));
    check.seconds(check.entry.get("multiplier"));
    if let Some(node) = check.entry.get("default_seconds").cloned()
        && check.entry.get("default_source").is_none()
    {
        check.at(&node, "the default has no source", "this default", "add `default_source`");
    }
}

impl Catalogues {
    /// Fills in what the packets of a session do not tell: the standard's multiple of the interval, else the default; and
    /// the name and the way out.
    pub fn complete_control(&self, session: &mut ControlSession) {
        let entry = self.control_protocols().iter().find(|entry| entry.id == session.protocol);
        if let Some(entry) = entry {
            session.title.clone_from(&entry.title);
            session.why.clone_from(&entry.why);
            session.way_out.clone_from(&entry.way_out);
        } else if session.title.is_empty() {
            session.title.clone_from(&session.protocol);
        }
        if session.tolerated_seconds.known().is_some() {
            return;
        }
        session.tolerated_seconds = match entry {
            _ if session.direction == FlowDirection::ToGuest => {
                Fact::unknown(Cause::NotSupported, "the guest sends nothing in this session")
            }
            Some(entry) if session.timeout_seconds.known().is_none() => entry.tolerated(session),
            _ => tolerated(session),
        };
    }
}

/// Silence that passes unnoticed by the stated time-out.
fn tolerated(session: &ControlSession) -> Fact<f64> {
    session.timeout_seconds.clone().map(|timeout| {
        let interval = session.interval_seconds.known().copied().unwrap_or(timeout * UNSEEN_INTERVAL);
        (timeout - interval).max(0.0)
    })
}

impl ControlEntry {
    /// Silence that passes unnoticed where the packets state no time-out.
    fn tolerated(&self, session: &mut ControlSession) -> Fact<f64> {
        let timeout = self.multiplier.map(|multiplier| multiplier * session.keepalive_gap_seconds);
        let timeout = timeout.filter(|seconds| *seconds > 0.0);
        if let (Some(timeout), Some(multiplier)) = (timeout, self.multiplier) {
            session.basis = ControlBasis::Spacing;
            session.timeout_seconds = Fact::Known(timeout);
            session.source = format!(
                "at least {multiplier} × {:.3} s between its keep-alives ({})",
                session.keepalive_gap_seconds, session.source
            );
            return Fact::Known(timeout - session.keepalive_gap_seconds);
        }
        match (self.default_seconds, &self.default_source) {
            (Some(seconds), source) => {
                session.basis = ControlBasis::Default;
                session.timeout_seconds = Fact::Known(seconds);
                session.source = format!("default, {}", source.as_deref().unwrap_or("of the vendor"));
                Fact::Known(seconds)
            }
            (None, _) => Fact::unknown(
                Cause::NotSupported,
                format!(
                    "no time-out stands in the packets of {}, and no standard sets one: {}",
                    self.title, self.way_out
                ),
            ),
        }
    }
}
