//! Requests to the kernel of this machine over netlink(7).

mod forwarding;
mod interface;
mod message;
mod request;
mod socket;

pub(super) use forwarding::tunnel_remotes;
pub(super) use interface::{Interface, address, interfaces};
pub(super) use message::{NetlinkParseError, attribute, attributes, messages, number32, number64, text};
#[cfg(test)]
pub(super) use request::encoded;
pub(super) use request::{Request, dump, query};
pub(super) use socket::Netlink;

/// nlmsg_type of an error, or of an acknowledgement if its code is 0.
pub(super) const NLMSG_ERROR: u16 = 2;
/// nlmsg_type of the end of a dump.
pub(super) const NLMSG_DONE: u16 = 3;
