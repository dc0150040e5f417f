//! Checks of the interface to capture on: it exists, is up and is Ethernet; and the end at which the guest is.

use std::{
    ffi::{c_char, c_ulong},
    io,
    os::fd::RawFd,
};

use crate::{
    flows::FlowError,
    netlink::{self, Interface},
};

/// Position of the guest, seen from the interface. It decides which direction counts as sent by the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestEnd {
    /// At the other end of the wire: tap, veth. Frames that the interface receives were sent by the guest.
    Peer,
    /// The interface is the guest's own: macvtap, ipvtap. Frames that the interface sends were sent by the guest.
    Interface,
}

/// Finds the interface and checks that it is up.
pub(crate) fn find(name: &str) -> Result<Interface, FlowError> {
    let failed = |source| FlowError::Interface { interface: shown(name), source };
    let mut all = netlink::interfaces().map_err(failed)?;
    let Some(at) = all.iter().position(|one| one.name == name) else {
        let others = all.into_iter().map(|one| one.name).take(64).collect::<Vec<_>>().join(", ");
        return Err(FlowError::NoSuchInterface { interface: shown(name), others });
    };
    let found = all.swap_remove(at);
    if found.up { Ok(found) } else { Err(FlowError::InterfaceDown { interface: found.name }) }
}

/// A name made safe to print: a caller may give any text.
fn shown(name: &str) -> String {
    name.chars().take(32).map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect()
}

/// Asks the driver at which end the guest is. `socket` is any socket of the interface's network namespace.
pub(crate) fn guest_end(socket: RawFd, interface: &Interface) -> Result<GuestEnd, FlowError> {
    let failed = |source| FlowError::Interface { interface: interface.name.clone(), source };
    let mut request = request(interface);
    ioctl(socket, libc::SIOCGIFHWADDR, &mut request).map_err(failed)?;
    // SAFETY: SIOCGIFHWADDR has filled this member of the union.
    let kind = unsafe { request.ifr_ifru.ifru_hwaddr.sa_family };
    if !matches!(kind, libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK) {
        return Err(FlowError::NotEthernet { interface: interface.name.clone() });
    }
    match driver(socket, interface).as_deref() {
        Ok("macvlan" | "ipvlan") => Ok(GuestEnd::Interface),
        Ok(_) => Ok(GuestEnd::Peer),
        // Drivers without ethtool operations are neither macvtap nor ipvtap.
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(GuestEnd::Peer),
        Err(error) => Err(failed(io::Error::from(error.kind()))),
    }
}

fn request(interface: &Interface) -> libc::ifreq {
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte less than there is room for: the name stays terminated.
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(interface.name.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    request
}

fn ioctl(socket: RawFd, number: c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: both requests made here take an ifreq, and its address, where it holds one, is of a live structure.
    let result = unsafe { libc::ioctl(socket, number as _, std::ptr::from_mut(request)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The driver's name (ethtool -i).
fn driver(socket: RawFd, interface: &Interface) -> io::Result<String> {
    const SIOCETHTOOL: c_ulong = 0x8946;
    const ETHTOOL_GDRVINFO: u32 = 3;
    /// struct ethtool_drvinfo of include/uapi/linux/ethtool.h.
    #[repr(C)]
    struct DriverInfo {
        command: u32,
        driver: [u8; 32],
        rest: [u8; 160],
    }
    let mut info = DriverInfo { command: ETHTOOL_GDRVINFO, driver: [0; 32], rest: [0; 160] };
    let mut request = request(interface);
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    ioctl(socket, SIOCETHTOOL, &mut request)?;
    let name = info.driver.iter().take_while(|&&byte| byte != 0).copied().collect::<Vec<_>>();
    Ok(String::from_utf8_lossy(&name).into_owned())
}
