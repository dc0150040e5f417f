//! Content of one packet of a control protocol.

/// A time-out of sessions that are never given up.
pub(super) const NEVER: f64 = 1e9;

/// Statement of one packet about its session. Times are in seconds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Statement {
    /// Id of the protocol.
    pub(super) protocol: &'static str,
    /// Names of the session that its packets carry in both directions.
    pub(super) identity: String,
    /// Port of the service, if it tells the ends apart.
    pub(super) port: Option<u16>,
    /// Role of the sender.
    pub(super) role: Option<&'static str>,
    /// False if the session is not up, so that nobody relies on it.
    pub(super) active: bool,
    /// True if the sender sends such packets when it has nothing else to say: the time before it is the interval.
    pub(super) keepalive: bool,
    /// Time between two packets of the sender.
    pub(super) interval: Option<f64>,
    /// Shortest interval that the sender accepts from the other end.
    pub(super) least_interval: Option<f64>,
    /// Intervals after which the other end gives the sender up.
    pub(super) multiplier: Option<u32>,
    /// Time after which the other end gives the sender up.
    pub(super) timeout: Option<f64>,
    /// Time after which the sender gives the other end up.
    pub(super) patience: Option<f64>,
    /// Standard that gives these fields their meaning.
    pub(super) reference: &'static str,
}

impl Statement {
    /// A packet that states no times.
    pub(super) fn of(protocol: &'static str, reference: &'static str) -> Self {
        Self {
            protocol,
            identity: String::new(),
            port: None,
            role: None,
            active: true,
            keepalive: true,
            interval: None,
            least_interval: None,
            multiplier: None,
            timeout: None,
            patience: None,
            reference,
        }
    }

    pub(super) fn named(self, identity: String) -> Self {
        Self { identity, ..self }
    }

    /// A time-out that both ends use for each other.
    pub(super) fn hold(self, seconds: f64) -> Self {
        Self { timeout: Some(seconds), patience: Some(seconds), ..self }
    }

    /// An interval, and the number of them that the other end waits.
    pub(super) fn every(self, seconds: f64, multiplier: u32) -> Self {
        Self { interval: Some(seconds), multiplier: Some(multiplier), ..self }
    }
}

pub(super) fn milliseconds(value: u32) -> f64 {
    f64::from(value) / 1e3
}

pub(super) fn microseconds(value: u32) -> f64 {
    f64::from(value) / 1e6
}
