//! Questions to the kernel of this machine over netlink(7).

mod message;
mod socket;

pub(super) use message::{NotNetlink, attributes, messages, number32};
pub(super) use socket::Netlink;

/// nlmsg_type of a refusal, or of an acknowledgement where its code is 0.
pub(super) const NLMSG_ERROR: u16 = 2;
/// nlmsg_type of the end of a dump.
pub(super) const NLMSG_DONE: u16 = 3;
