//! Rate limits on this host's interfaces: queueing disciplines and policers (RTM_GETQDISC and related messages).
//!
//! The result is the maximum rate of one TCP stream to a given address: all of a `tbf` or `cake`, one flow's share of
//! `fq`, and for `htb` the class that packets to that address fall into. If a filter is not understood (classifiers
//! other than u32, keys other than addresses), the largest class that could match counts, so that a limit is never
//! estimated too low.

mod filter;
mod htb;
mod qdisc;

use std::{
    collections::BTreeMap,
    io::{Error, ErrorKind},
    net::IpAddr,
};

use serde::{Deserialize, Serialize};
use vmgate_facts::{Cause, ShaperKind, Unknown};

use crate::{
    host::shaper::qdisc::{INGRESS, Qdisc, ROOT},
    netlink::{Request, dump},
};

const RTM_GETQDISC: u16 = 38;
const RTM_GETTCLASS: u16 = 42;
const RTM_GETTFILTER: u16 = 46;
/// Parents of filters for incoming packets: of `ingress` and of `clsact`.
const INGRESS_FILTERS: u32 = 0xffff_0000;
const CLSACT_INGRESS_FILTERS: u32 = 0xffff_fff2;

/// Rate limits on the host's traffic.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Shapers {
    /// Limits on packets sent to the address in the question, or to any address if none was given.
    pub sent: Vec<RateLimit>,
    /// Limits on received packets.
    pub received: Vec<RateLimit>,
}

/// Rate limit of one interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Name of the interface.
    pub nic: String,
    /// Kind of the shaper.
    pub kind: ShaperKind,
    /// Maximum rate.
    pub rate_bytes_per_second: u64,
}

/// Reads the limits of every interface; `to` is the address that packets are sent to.
pub(super) fn look(to: Option<IpAddr>) -> Result<Shapers, Unknown> {
    gather(to, &crate::host::path::interface_names()).map_err(|error| {
        let cause = match error.kind() {
            ErrorKind::PermissionDenied => Cause::PermissionDenied,
            _ => Cause::NotSupported,
        };
        Unknown::new(cause, format!("the host's kernel does not list its qdiscs: {error}"))
    })
}

fn gather(to: Option<IpAddr>, names: &BTreeMap<u32, String>) -> Result<Shapers, Error> {
    let qdiscs: Vec<Qdisc> = dump(libc::NETLINK_ROUTE, &Request::new(RTM_GETQDISC, &qdisc::fixed(0, 0)))?
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

/// Maximum rate of a stream through the root qdisc of an interface.
fn sent(
    root: &Qdisc,
    all: &[&Qdisc],
    index: u32,
    to: Option<IpAddr>,
) -> Result<Option<(ShaperKind, u64)>, Error> {
    if root.kind == "htb" {
        let classes = dump(libc::NETLINK_ROUTE, &Request::new(RTM_GETTCLASS, &qdisc::fixed(index, 0)))?;
        let filters = filters(index, root.handle)?;
        let rate = htb::rate(root, &classes, &filters, to);
        return Ok(rate.map(|rate| (ShaperKind::Htb, rate)));
    }
    if root.kind == "mq" {
        // One qdisc per hardware queue; a stream may use any of them.
        let queues =
            all.iter().filter(|qdisc| qdisc.parent >> 16 == root.handle >> 16 && qdisc.parent != ROOT);
        let rates: Option<Vec<_>> = queues.map(|queue| queue.rate()).collect();
        return Ok(rates.and_then(|rates| rates.into_iter().max_by_key(|(_, rate)| *rate)));
    }
    Ok(root.rate())
}

/// Lowest rate of a policer that all received packets pass, in bytes per second.
fn received(index: u32, from: Option<IpAddr>) -> Result<Option<u64>, Error> {
    let mut found = filters(index, INGRESS_FILTERS)?;
    found.extend(filters(index, CLSACT_INGRESS_FILTERS)?);
    Ok(found.iter().filter_map(|payload| filter::policed(payload, from)).min())
}

fn filters(index: u32, parent: u32) -> Result<Vec<Vec<u8>>, Error> {
    match dump(libc::NETLINK_ROUTE, &Request::new(RTM_GETTFILTER, &qdisc::fixed(index, parent))) {
        // The qdisc does not support filters at this parent.
        Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(Vec::new()),
        other => other,
    }
}
