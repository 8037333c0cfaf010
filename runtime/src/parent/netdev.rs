//! Network devices of the host move into the container's network namespace, and keep what makes them useful: their
//! permanent global addresses and the routes through them, which the kernel drops when a device changes its namespace.
//!
//! All is done over two rtnetlink sockets, one made in each namespace; the process is in the container's network
//! namespace only for the call that makes its socket.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

use super::netlink::{Request, Socket, attributes, u32_at};
use crate::error::{Context, Error, Kind, Result};
use crate::log;
use crate::plan::netdev::{NetDevice, NewName};
use crate::sys::process::setns;

const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFINFOMSG: usize = 16;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFA_PROTO: u16 = 11;
const IFADDRMSG: usize = 8;

const RTA_OIF: u16 = 4;
const RTA_MULTIPATH: u16 = 9;
const RTA_CACHEINFO: u16 = 12;
const RTA_TABLE: u16 = 15;
const RTMSG: usize = 12;
/// A route of the kernel's cache, not of a table.
const RTM_F_CLONED: u32 = 0x200;
/// The gateway is taken to be on the link, whatever the addresses say.
const RTNH_F_ONLINK: u32 = 4;
/// A route that the kernel made from a router's advertisement, and will again.
const RTPROT_RA: u8 = 9;

/// A network namespace and a socket in it.
#[derive(Debug)]
struct Side {
    socket: Socket,
    namespace: OwnedFd,
}

/// What the kernel takes off a device that changes its namespace: bodies of messages, as dumped.
#[derive(Debug, Default)]
struct Baggage {
    addresses: Vec<Vec<u8>>,
    routes: Vec<Vec<u8>>,
}

/// A device that has moved, with what it takes to bring it back.
#[derive(Debug)]
struct Traveller {
    host: String,
    name: String,
    was_up: bool,
    baggage: Baggage,
}

/// The devices that have moved: a create that fails later gives them back with [`Moved::undo`].
#[derive(Debug)]
pub struct Moved {
    host: Side,
    container: Side,
    devices: Vec<Traveller>,
}

/// Moves every device into `netns`; `None` if there is none to move. If one cannot be moved, those before it are put
/// back where they were.
pub fn move_all(devices: &[NetDevice], netns: BorrowedFd<'_>) -> Result<Option<Moved>> {
    if devices.is_empty() {
        return Ok(None);
    }
    let (host, container) = sides(netns)?;
    let mut moved = Moved { host, container, devices: Vec::with_capacity(devices.len()) };
    for device in devices {
        if let Err(error) = moved.take(device) {
            moved.undo();
            return Err(error.within(format_args!("move network device {} into the container", device.host)));
        }
    }
    Ok(Some(moved))
}

impl Moved {
    fn take(&mut self, device: &NetDevice) -> Result<()> {
        let (host, container) = (&mut self.host, &mut self.container);
        let link = find(&mut host.socket, &device.host).on("find it", "on the host")?;
        let name = match &device.name {
            NewName::Exact(name) => name.clone(),
            NewName::Numbered(before, after) => free_name(&mut container.socket, before, after)?,
        };
        if find(&mut container.socket, &name).is_ok() {
            return Err(Error::new(Kind::Exists, format!("a device named {name} is there already")));
        }
        // Looked up before the move, which takes them off.
        let baggage = Baggage {
            addresses: addresses(&mut host.socket, link.index).on("read", "its addresses")?,
            routes: routes(&mut host.socket, link.index).on("read", "its routes")?,
        };
        relocate(&mut host.socket, link.index, container.namespace.as_fd(), &name).map_err(|errno| {
            let error = Error::sys("change its namespace", errno);
            match errno {
                // What the kernel says of a device that is bound to its namespace, such as lo.
                Errno::EINVAL => Error::caused(Kind::Unsupported, error.to_string(), "its kind may not move"),
                _ => error,
            }
        })?;
        let traveller = Traveller { host: device.host.clone(), name, was_up: link.up, baggage };
        self.devices.push(traveller);
        let traveller = &self.devices[self.devices.len() - 1];
        let index = find(&mut container.socket, &traveller.name).on("find it as", &traveller.name)?.index;
        // Routes need the device up and their addresses there.
        set_up(&mut container.socket, index).on("set it", "up")?;
        unpack(&mut container.socket, index, &traveller.baggage)
    }

    /// Moves the devices back, last one first. What fails is a warning: there is an error already that matters more.
    pub fn undo(self) {
        let Self { mut host, mut container, devices } = self;
        for device in devices.iter().rev() {
            if let Err(error) = take_back(&mut host, &mut container, device) {
                log::warn(format_args!("move network device {} back to the host: {error}", device.host));
            }
        }
    }
}

fn take_back(host: &mut Side, container: &mut Side, device: &Traveller) -> Result<()> {
    let index = find(&mut container.socket, &device.name).on("find it as", &device.name)?.index;
    relocate(&mut container.socket, index, host.namespace.as_fd(), &device.host).on("change", "its namespace")?;
    let index = find(&mut host.socket, &device.host).on("find it", "on the host")?.index;
    if device.was_up {
        set_up(&mut host.socket, index).on("set it", "up")?;
    }
    unpack(&mut host.socket, index, &device.baggage)
}

/// Opens both sides. A socket belongs to the namespace it is made in, so this enters the container's for one call.
fn sides(netns: BorrowedFd<'_>) -> Result<(Side, Side)> {
    let own: OwnedFd = File::open("/proc/thread-self/ns/net").on("open", "/proc/thread-self/ns/net")?.into();
    let host = Side { socket: Socket::new().on("make", "a netlink socket")?, namespace: own };
    let target = netns.try_clone_to_owned().on("duplicate", "the container's network namespace")?;
    setns(netns, libc::CLONE_NEWNET).on("enter", "the container's network namespace")?;
    let socket = Socket::new();
    setns(&host.namespace, libc::CLONE_NEWNET).on("return to", "the host's network namespace")?;
    let socket = socket.on("make", "a netlink socket in the container's network namespace")?;
    Ok((host, Side { socket, namespace: target }))
}

/// What is known of a device.
#[derive(Clone, Copy, Debug)]
struct Link {
    index: i32,
    up: bool,
}

/// Finds a device by its name; `ENODEV` if there is none.
fn find(socket: &mut Socket, name: &str) -> Result<Link, Errno> {
    let answer = socket.ask(&Request::get(libc::RTM_GETLINK, &[0; IFINFOMSG]).text(IFLA_IFNAME, name)?)?;
    let body = answer.first().ok_or(Errno::ENODEV)?;
    let index = u32_at(body, 4).ok_or(Errno::EBADMSG)?.cast_signed();
    let flags = u32_at(body, 8).ok_or(Errno::EBADMSG)?;
    Ok(Link { index, up: flags & libc::IFF_UP as u32 != 0 })
}

/// The first name of a pattern that no device has.
fn free_name(socket: &mut Socket, before: &str, after: &str) -> Result<String> {
    for number in 0..10_000 {
        let name = format!("{before}{number}{after}");
        if name.len() >= libc::IFNAMSIZ {
            break;
        }
        match find(socket, &name) {
            Ok(_) => {}
            Err(Errno::ENODEV) => return Ok(name),
            Err(errno) => return Err(Error::sys(format!("look for {name}"), errno)),
        }
    }
    Err(Error::new(Kind::Exists, format!("no name of the pattern {before}%d{after} is free")))
}

/// Moves a device into a namespace under a name, in one step.
fn relocate(socket: &mut Socket, index: i32, namespace: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    let request = Request::change(libc::RTM_NEWLINK, 0, &link_body(index, 0, 0))
        .text(IFLA_IFNAME, name)?
        .attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes())?;
    socket.ask(&request).map(drop)
}

fn set_up(socket: &mut Socket, index: i32) -> Result<(), Errno> {
    let up = libc::IFF_UP as u32;
    socket.ask(&Request::change(libc::RTM_NEWLINK, 0, &link_body(index, up, up))).map(drop)
}

/// An `ifinfomsg` that sets the flags in `mask`.
fn link_body(index: i32, flags: u32, mask: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), mask.to_ne_bytes()].concat()
}

/// The permanent global addresses of a device: those the spec asks to keep.
fn addresses(socket: &mut Socket, index: i32) -> Result<Vec<Vec<u8>>, Errno> {
    let mut bodies = socket.ask(&Request::dump(libc::RTM_GETADDR, &[0; IFADDRMSG]))?;
    bodies.retain(|body| {
        let permanent = address_flags(body) & libc::IFA_F_PERMANENT != 0;
        let global = body.get(3) == Some(&libc::RT_SCOPE_UNIVERSE);
        permanent && global && u32_at(body, 4) == Some(index.cast_unsigned())
    });
    Ok(bodies)
}

/// The flags of an address: an attribute, since its body has room for eight only.
fn address_flags(body: &[u8]) -> u32 {
    let wide = attributes(body, IFADDRMSG).find(|(kind, _)| *kind == IFA_FLAGS);
    let narrow = || u32::from(body.get(2).copied().unwrap_or_default());
    wide.and_then(|(_, payload)| u32_at(payload, 0)).unwrap_or_else(narrow)
}

/// The routes of the main tables through a device that somebody made; the kernel makes its own again.
fn routes(socket: &mut Socket, index: i32) -> Result<Vec<Vec<u8>>, Errno> {
    let mut bodies = socket.ask(&Request::dump(libc::RTM_GETROUTE, &[0; RTMSG]))?;
    bodies.retain(|body| {
        let [family, _, _, _, _, protocol, _, kind, ..] = body[..] else { return false };
        let number = |wanted| attributes(body, RTMSG).find(|(kind, _)| *kind == wanted).and_then(|(_, p)| u32_at(p, 0));
        let table = number(RTA_TABLE).unwrap_or_else(|| u32::from(body[4]));
        i32::from(family) != libc::AF_UNSPEC
            && kind == libc::RTN_UNICAST
            && protocol != libc::RTPROT_KERNEL
            && protocol != RTPROT_RA
            && table == u32::from(libc::RT_TABLE_MAIN)
            && u32_at(body, 8).is_some_and(|flags| flags & RTM_F_CLONED == 0)
            && number(RTA_OIF) == Some(index.cast_unsigned())
            && attributes(body, RTMSG).all(|(kind, _)| kind != RTA_MULTIPATH)
    });
    // A gateway must be reachable when its route is made, so routes of the narrower scope come first.
    bodies.sort_by_key(|body| std::cmp::Reverse(body[6]));
    Ok(bodies)
}

/// Gives a device its addresses and routes back under its new number.
fn unpack(socket: &mut Socket, index: i32, baggage: &Baggage) -> Result<()> {
    for body in &baggage.addresses {
        let again = address_again(body, index).and_then(|request| socket.ask(&request));
        match again {
            // The kernel may have kept an address of IPv6.
            Ok(_) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(Error::sys("give it back an address", errno)),
        }
    }
    for body in &baggage.routes {
        let again = route_again(body, index).and_then(|request| socket.ask(&request));
        match again {
            // A namespace that is joined has routes of its own, which win.
            Ok(_) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(Error::sys("give it back a route", errno)),
        }
    }
    Ok(())
}

/// The request that makes a dumped address again on the device `index`.
fn address_again(body: &[u8], index: i32) -> Result<Request, Errno> {
    let head = body.first_chunk::<4>().ok_or(Errno::EBADMSG)?;
    let [family, prefix, _, scope] = *head;
    // It was found unique on the host already, and a route may need it at once.
    let detected = libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED | libc::IFA_F_PERMANENT;
    let flags = address_flags(body) & !detected | libc::IFA_F_NODAD;
    let fixed = [[family, prefix, 0, scope], index.to_ne_bytes()].concat();
    let flag_bits = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut request =
        Request::change(libc::RTM_NEWADDR, flag_bits, &fixed).attribute(IFA_FLAGS, &flags.to_ne_bytes())?;
    for (kind, payload) in attributes(body, IFADDRMSG) {
        // The label is the old name, the rest is of the kernel's making.
        if matches!(kind, IFA_ADDRESS | IFA_LOCAL | IFA_BROADCAST | IFA_RT_PRIORITY | IFA_PROTO) {
            request = request.attribute(kind, payload)?;
        }
    }
    Ok(request)
}

/// The request that makes a dumped route again through the device `index`.
fn route_again(body: &[u8], index: i32) -> Result<Request, Errno> {
    let fixed = body.get(..RTMSG).ok_or(Errno::EBADMSG)?;
    // The flags of a dumped route are its state (such as "link down"), all but "on link".
    let flags = u32_at(fixed, 8).unwrap_or_default() & RTNH_F_ONLINK;
    let fixed = [&fixed[..8], &flags.to_ne_bytes()].concat();
    let flag_bits = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut request = Request::change(libc::RTM_NEWROUTE, flag_bits, &fixed);
    for (kind, payload) in attributes(body, RTMSG) {
        request = match kind {
            RTA_OIF => request.attribute(kind, &index.to_ne_bytes())?,
            RTA_CACHEINFO => request,
            _ => request.attribute(kind, payload)?,
        };
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::sys::process::unshare;

    fn ip(line: &str) -> String {
        let output = Command::new("ip").args(line.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a test on a thread with a network namespace of its own, and gives it a second one. Nothing of the host is
    /// touched. Without the privilege or ip(8) the test is skipped with its reason.
    fn in_namespaces(test: impl FnOnce(OwnedFd) + Send + 'static) {
        if !nix::unistd::geteuid().is_root() || Command::new("ip").arg("-V").output().is_err() {
            crate::testing::skip("needs root and ip(8)");
            return;
        }
        let body = move || {
            unshare(libc::CLONE_NEWNET).unwrap();
            let container = File::open("/proc/thread-self/ns/net").unwrap();
            unshare(libc::CLONE_NEWNET).unwrap();
            test(container.into());
        };
        #[expect(clippy::disallowed_methods, reason = "a network namespace is a thread's own")]
        std::thread::spawn(body).join().unwrap();
    }

    fn device(host: &str, name: NewName) -> NetDevice {
        NetDevice { host: host.to_owned(), name }
    }

    fn exact(host: &str, name: &str) -> NetDevice {
        device(host, NewName::Exact(name.to_owned()))
    }

    #[test]
    fn a_device_takes_its_addresses_and_routes_along() {
        in_namespaces(|container| {
            ip("link add v0 mtu 1400 type veth peer name v1");
            ip("link set v1 up");
            ip("link set v0 up");
            ip("address add 10.1.2.3/24 dev v0");
            ip("address add fd00::3/64 dev v0 nodad");
            ip("address add 10.9.9.9/32 scope host dev v0");
            ip("route add 10.7.0.0/16 via 10.1.2.1 dev v0");
            ip("route add default via 10.1.2.1 dev v0 src 10.1.2.3 metric 7");
            ip("route add fd07::/16 via fd00::1 dev v0");
            let moved = move_all(&[exact("v0", "eth7")], container.as_fd()).unwrap().unwrap();
            assert!(!ip("link show").contains("v0@"), "{}", ip("link show"));

            setns(&container, libc::CLONE_NEWNET).unwrap();
            let link = ip("link show eth7");
            assert!(link.contains("mtu 1400") && link.contains(",UP"), "{link}");
            let addresses = ip("-o address show dev eth7 scope global");
            assert!(addresses.contains("10.1.2.3/24") && addresses.contains("fd00::3/64"), "{addresses}");
            assert!(!addresses.contains("tentative") && !addresses.contains("10.9.9.9"), "{addresses}");
            let routes = ip("route show") + &ip("-6 route show");
            for route in [
                "10.7.0.0/16 via 10.1.2.1 dev eth7",
                "default via 10.1.2.1 dev eth7 src 10.1.2.3 metric 7",
                "10.1.2.0/24 dev eth7 proto kernel",
                "fd07::/16 via fd00::1 dev eth7",
            ] {
                assert!(routes.contains(route), "{route}: {routes}");
            }

            // And everything back, as if it had never moved.
            setns(&moved.host.namespace, libc::CLONE_NEWNET).unwrap();
            moved.undo();
            assert!(ip("link show v0").contains(",UP"));
            assert!(ip("address show v0").contains("10.1.2.3/24"));
            assert!(ip("route show").contains("default via 10.1.2.1 dev v0 src 10.1.2.3 metric 7"));
        });
    }

    #[test]
    fn a_pattern_finds_a_free_name() {
        in_namespaces(|container| {
            ip("link add v0 type veth peer name v1");
            let name = NewName::Numbered("e".to_owned(), "x".to_owned());
            move_all(&[device("v0", name.clone()), device("v1", name)], container.as_fd()).unwrap();
            setns(&container, libc::CLONE_NEWNET).unwrap();
            let links = ip("-o link show");
            assert!(links.contains(" e0x@") && links.contains(" e1x@"), "{links}");
        });
    }

    #[test]
    fn a_failure_leaves_the_host_as_it_was() {
        in_namespaces(|container| {
            ip("link add v0 type veth peer name v1");
            ip("address add 10.1.2.3/24 dev v0");
            for (second, expected) in [
                (exact("nowhere", "x"), "find it on the host: no such device"),
                (exact("v1", "x"), "a device named x is there already"),
                (exact("lo", "y"), "change its namespace: invalid argument: its kind may not move"),
            ] {
                let host = second.host.clone();
                let error = move_all(&[exact("v0", "x"), second], container.as_fd()).unwrap_err();
                assert_eq!(error.to_string(), format!("move network device {host} into the container: {expected}"));
                assert!(ip("address show v0").contains("10.1.2.3/24"));
            }
        });
    }
}
