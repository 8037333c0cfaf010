//! The network namespace of a container, kept by a file it is bound to: it is there before the first process and after the last.

use std::fs::{self, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use super::netlink;
use crate::disk::make_private;
use crate::error::{Context, Error, Result};

/// What docker sets in each namespace it makes: no privilege is needed for low ports and for ping, and devices have no
/// IPv6 address where the network has none.
const SETTINGS: [(&str, &str); 3] = [
    ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
    ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
    ("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1"),
];

/// Makes a namespace with nothing but loopback in it, and binds it to `path`, where none is yet.
pub(super) fn make(path: &Path) -> Result<()> {
    make_private(path.parent().unwrap_or(path))?;
    let what = || format!("make the network namespace {}", path.display());
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).context(what)?;
    let made = in_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        netlink::loopback_up()?;
        for (file, value) in SETTINGS {
            match fs::write(file, value) {
                // A kernel without IPv6.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        mount(Some("/proc/thread-self/ns/net"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        Ok(())
    });
    made.context(what).inspect_err(|_| {
        // The first failure is the one to tell.
        let _ = remove(path);
    })
}

/// Does something inside the namespace.
pub(super) fn inside<T: Send>(path: &Path, act: impl FnOnce() -> io::Result<T> + Send) -> Result<T> {
    let enter = || {
        setns(fs::File::open(path)?, CloneFlags::CLONE_NEWNET)?;
        act()
    };
    in_thread(enter).context(|| format!("act in the network namespace {}", path.display()))
}

/// Takes it away; once nobody else is in it, the kernel removes it with its devices. That it is gone already is as well.
pub(super) fn remove(path: &Path) -> Result<()> {
    let what = || format!("remove the network namespace {}", path.display());
    loop {
        match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Nothing is mounted there any more; nothing is there at all.
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            failed => return failed.context(what),
        }
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).context(what),
        _ => Ok(()),
    }
}

/// A namespace belongs to a thread: one of its own may go elsewhere without the others, and ends there.
fn in_thread<T: Send>(act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, act)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other(Error::failed("the thread has panicked"))))
    })
}

/// Makes this the way to everywhere.
pub(super) fn set_default_route(path: &Path, interface: &str, gateway: Ipv4Addr) -> Result<()> {
    inside(path, || {
        let index = nix::net::if_::if_nametoindex(interface)?;
        Ok(netlink::set_default_route(gateway, index)?)
    })
}
