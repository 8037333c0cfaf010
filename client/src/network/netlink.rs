//! The few questions to rtnetlink(7) that have no plugin: all concern the network namespace of the calling thread.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// The loopback device is the first one of every namespace.
const LOOPBACK: i32 = 1;

/// Sets the loopback device up.
pub(super) fn loopback_up() -> nix::Result<()> {
    let mut link = link_message(LOOPBACK);
    let up = u32::try_from(libc::IFF_UP).unwrap_or(1).to_ne_bytes();
    // Which flags are set, and which of them are meant.
    link[8..12].copy_from_slice(&up);
    link[12..16].copy_from_slice(&up);
    request(libc::RTM_NEWLINK, 0, &link)
}

/// Removes a device, and with it the other end of a pair.
pub(super) fn remove_link(index: u32) -> nix::Result<()> {
    let index = i32::try_from(index).map_err(|_| Errno::EINVAL)?;
    request(libc::RTM_DELLINK, 0, &link_message(index))
}

/// Lets the default route go over this gateway, instead of another if there is one.
pub(super) fn set_default_route(gateway: Ipv4Addr, index: u32) -> nix::Result<()> {
    // `struct rtmsg`: family, two prefix lengths, type of service, table, who says so, how far, the kind; flags.
    let mut route = vec![libc::AF_INET as u8, 0, 0, 0, libc::RT_TABLE_MAIN, libc::RTPROT_BOOT];
    route.extend([libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST, 0, 0, 0, 0]);
    attribute(&mut route, libc::RTA_GATEWAY, gateway.octets());
    attribute(&mut route, libc::RTA_OIF, index.to_ne_bytes());
    request(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &route)
}

/// `struct ifinfomsg` of this device.
fn link_message(index: i32) -> [u8; 16] {
    let mut message = [0; 16];
    message[4..8].copy_from_slice(&index.to_ne_bytes());
    message
}

/// `struct rtattr` and four bytes.
fn attribute(message: &mut Vec<u8>, kind: u16, value: [u8; 4]) {
    message.extend(8_u16.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
}

/// Sends one message and takes the answer, which is an error number.
fn request(kind: u16, flags: libc::c_int, body: &[u8]) -> nix::Result<()> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags).map_err(|_| Errno::EINVAL)?;
    let length = u32::try_from(HEADER + body.len()).map_err(|_| Errno::EMSGSIZE)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // The number of the message and who sends it: there is but one, and the kernel knows.
    message.extend([0; 8]);
    message.extend(body);
    send(socket.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let error = answer[..length].get(HEADER..HEADER + 4).and_then(|it| it.try_into().ok()).ok_or(Errno::EBADMSG)?;
    match i32::from_ne_bytes(error) {
        0 => Ok(()),
        negative => Err(Errno::from_raw(negative.saturating_neg())),
    }
}
