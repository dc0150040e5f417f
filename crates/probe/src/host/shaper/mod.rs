//! What holds back the traffic of this host's interfaces: queueing disciplines and policers (RTM_GETQDISC and its kin).
//!
//! What is looked for is the rate that one TCP stream to a given address gets at the most: all of a `tbf` or `cake`,
//! one flow's share of `fq`, and of `htb` the class that packets to that address fall into. Where filters cannot be
//! foretold (other classifiers than u32, other keys than addresses), the largest class that could take them counts,
//! so that a limit is never thought lower than it is.

mod filter;
mod htb;
mod qdisc;

use std::{
    collections::BTreeMap,
    io::{Error, ErrorKind},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};

use crate::host::shaper::message::{INGRESS, Qdisc, ROOT};
use crate::netlink::{Request, dump};
use vmgate_facts::{Cause, ShaperKind, Unknown};

const RTM_GETQDISC: u16 = 38;
const RTM_GETTCLASS: u16 = 42;
const RTM_GETTFILTER: u16 = 46;
/// Where filters of incoming packets hang: `ingress` and `clsact` alike.
const INGRESS_FILTERS: u32 = 0xffff_0000;
const CLSACT_INGRESS_FILTERS: u32 = 0xffff_fff2;

/// What holds the host's traffic back.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Shapers {
    /// What is sent to the address that was asked for, or to anywhere where none was.
    pub sent: Vec<RateLimit>,
    /// What is received.
    pub received: Vec<RateLimit>,
}

/// The rate that one interface holds traffic to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// The interface.
    pub nic: String,
    /// By what.
    pub kind: ShaperKind,
    /// The rate.
    pub rate_bytes_per_second: u64,
}

/// Looks at every interface; `to` is where packets are meant to go.
pub(super) fn look(to: Option<IpAddr>) -> Result<Shapers, Unknown> {
    gather(to, &super::path::names()).map_err(|error| {
        let cause = match error.kind() {
            ErrorKind::PermissionDenied => Cause::PermissionDenied,
            _ => Cause::NotSupported,
        };
        Unknown::new(cause, format!("the host's kernel does not list its qdiscs: {error}"))
    })
}

fn gather(to: Option<IpAddr>, names: &BTreeMap<u32, String>) -> Result<Shapers, Error> {
    let qdiscs: Vec<Qdisc> = dump(libc::NETLINK_ROUTE, &Request::new(RTM_GETQDISC, &message::fixed(0, 0)))?
        .iter()
        .filter_map(|payload| Qdisc::parse(payload))
        .collect();
    let mut shapers = Shapers::default();
    for (index, nic) in names {
        let here = || qdiscs.iter().filter(|qdisc| qdisc.interface == *index);
        if let Some(root) = here().find(|qdisc| qdisc.parent == ROOT)
            && let Some((kind, rate)) = sent(root, &here().collect::<Vec<_>>(), *index, to)?
        {
            shapers.sent.push(RateLimit { nic: nic.clone(), kind, rate_bytes_per_second: rate });
        }
        if here().any(|qdisc| qdisc.parent == INGRESS)
            && let Some(rate) = received(*index, to)?
        {
            let kind = ShaperKind::Police;
            shapers.received.push(RateLimit { nic: nic.clone(), kind, rate_bytes_per_second: rate });
        }
    }
    Ok(shapers)
}

/// What the root qdisc of an interface lets a stream have.
fn sent(
    root: &Qdisc,
    all: &[&Qdisc],
    index: u32,
    to: Option<IpAddr>,
) -> Result<Option<(ShaperKind, u64)>, Error> {
    if root.kind == "htb" {
        let classes = dump(libc::NETLINK_ROUTE, &Request::new(RTM_GETTCLASS, &message::fixed(index, 0)))?;
        let filters = filters(index, root.handle)?;
        let rate = htb::rate(root, &classes, &filters, to);
        return Ok(rate.map(|rate| (ShaperKind::Htb, rate)));
    }
    if root.kind == "mq" {
        // One discipline a hardware queue; a stream may get into any of them.
        let queues =
            all.iter().filter(|qdisc| qdisc.parent >> 16 == root.handle >> 16 && qdisc.parent != ROOT);
        let rates: Option<Vec<_>> = queues.map(|queue| queue.rate()).collect();
        return Ok(rates.and_then(|rates| rates.into_iter().max_by_key(|(_, rate)| *rate)));
    }
    Ok(root.rate())
}

/// What a policer lets in of packets from anywhere.
fn received(index: u32, from: Option<IpAddr>) -> Result<Option<u64>, Error> {
    let mut found = filters(index, INGRESS_FILTERS)?;
    found.extend(filters(index, CLSACT_INGRESS_FILTERS)?);
    Ok(found.iter().filter_map(|payload| filter::policed(payload, from)).min())
}

fn filters(index: u32, parent: u32) -> Result<Vec<Vec<u8>>, Error> {
    match dump(libc::NETLINK_ROUTE, &Request::new(RTM_GETTFILTER, &message::fixed(index, parent))) {
        // A qdisc without such a place for filters has none there.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(Vec::new()),
        other => other,
    }
}
