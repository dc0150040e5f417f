//! Port ranges: one port, or several in a row.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use thiserror::Error;

/// Ports from the first to the last, both included; written `"53"` or `"67-68"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String", inline, extend("pattern" = r"^\d{1,5}(-\d{1,5})?$"))]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// A text that is neither a port nor a range of ports.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is neither a port from 1 to 65535 nor a range such as `67-68`")]
pub struct InvalidPorts(String);

impl PortRange {
    /// True if the range contains the port.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl FromStr for PortRange {
    type Err = InvalidPorts;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidPorts(text.to_owned());
        let port = |digits: &str| digits.parse::<u16>().ok().filter(|&port| port > 0).ok_or_else(invalid);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let range = Self { first: port(first)?, last: port(last)? };
        if range.first <= range.last { Ok(range) } else { Err(invalid()) }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last } = self;
        if first == last { write!(f, "{first}") } else { write!(f, "{first}-{last}") }
    }
}

vmgate_facts::serde_by_text!(PortRange);
