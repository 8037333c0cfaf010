//! Which cgroup hierarchies this host has, and where this process stands in them.
//!
//! Found in the mount table and in /proc/self/cgroup, never by a directory's name: a hierarchy may be mounted anywhere,
//! alone or with others, and a container may see only a part of one. Must not know what is done with a hierarchy.
//!
//! ```text
//! /proc/self/cgroup     4:cpu,cpuacct:/user/session      hierarchy id : controllers : own path
//! /proc/self/mountinfo  32 31 0:29 /user /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
//!                                  ^root ^mount point                     ^type         ^super-block options
//! ```

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::error::{Context, Result};

/// One mounted cgroup hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Its controllers as the kernel names them: `cpu`, `cpuacct`, `name=systemd`. Empty for the unified hierarchy.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The cgroup of this process, as an absolute path below the mount point.
    pub own: String,
    /// What the unified hierarchy was told at its mount, such as `nsdelegate`: it holds for all of the hierarchy, and until
    /// the host's cgroup namespace mounts it again.
    pub flags: Vec<String>,
}

/// Which version of cgroups manages the containers of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy a controller; a unified mount beside them (a hybrid host) is left as it is.
    V1,
    /// The unified hierarchy.
    V2,
    /// No hierarchy is mounted.
    Missing,
}

/// The mounted hierarchies of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The version 1 hierarchies, in the order of /proc/self/cgroup.
    pub v1: Vec<Hierarchy>,
    /// The unified hierarchy, on a version 2 or a hybrid host.
    pub v2: Option<Hierarchy>,
}

impl Layout {
    /// Reads the mount table and the cgroup membership of this process.
    pub fn detect() -> Result<Self> {
        Self::find(&slurp("/proc/self/cgroup").on("read", "/proc/self/cgroup")?)
    }

    /// Where a cgroup lies below the mount point that shows it: a container may see only a part of a hierarchy. `path` is that
    /// of another process in the unified hierarchy, or in the one named `systemd`.
    pub fn below_mount(path: &str) -> Result<String> {
        if path.trim_matches('/').is_empty() {
            return Ok(String::new());
        }
        let found = Self::find(format!("1:name=systemd:{path}\n0::{path}\n").as_bytes())?;
        let hierarchy = found.hierarchy("name=systemd").or(found.v2.as_ref());
        Ok(hierarchy.map_or_else(String::new, |hierarchy| hierarchy.own.clone()))
    }

    fn find(own: &[u8]) -> Result<Self> {
        let mut search = Search::new(own);
        // The mount table of a busy host is long and its cgroup mounts stand early: stop at the last one looked for.
        let mut table = File::open("/proc/self/mountinfo").on("open", "/proc/self/mountinfo")?;
        let mut text = Vec::with_capacity(8192);
        let mut buffer = [0_u8; 8192];
        let mut seen = 0;
        while !search.complete() {
            let count = table.read(&mut buffer).on("read", "/proc/self/mountinfo")?;
            text.extend_from_slice(&buffer[..count]);
            let whole = match count {
                0 => text.len(),
                _ => text.iter().rposition(|&byte| byte == b'\n').map_or(seen, |at| at + 1),
            };
            for line in text[seen..whole].split(|&byte| byte == b'\n') {
                search.look_at(line);
            }
            seen = whole;
            if count == 0 {
                break;
            }
        }
        Ok(search.finish())
    }

    /// The layout told by the texts of /proc/self/cgroup and /proc/self/mountinfo.
    pub fn parse(own: &[u8], mountinfo: &[u8]) -> Self {
        let mut search = Search::new(own);
        for line in mountinfo.split(|&byte| byte == b'\n') {
            search.look_at(line);
        }
        search.finish()
    }

    /// Which version manages containers here.
    ///
    /// A controller that only tags (`net_cls`, a named hierarchy) is at times mounted as version 1 on a host that is
    /// version 2 in all else; `devices` and `freezer` exist as version 1 hierarchies alone, so they decide.
    pub fn version(&self) -> Version {
        let decides = |hierarchy: &Hierarchy| hierarchy.has("devices") || hierarchy.has("freezer");
        match (&self.v2, self.v1.iter().any(decides)) {
            (Some(_), false) => Version::V2,
            (None, false) if self.v1.is_empty() => Version::Missing,
            _ => Version::V1,
        }
    }

    /// The version 1 hierarchy that holds `controller`.
    pub fn hierarchy(&self, controller: &str) -> Option<&Hierarchy> {
        self.v1.iter().find(|hierarchy| hierarchy.has(controller))
    }
}

impl Hierarchy {
    /// Whether it holds `controller`.
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }
}

/// A line of /proc/self/cgroup and, once found, the mount of its hierarchy.
struct Sought {
    controllers: Vec<String>,
    path: String,
    found: Option<Mounted>,
}

struct Mounted {
    root: String,
    mount: PathBuf,
    flags: Vec<String>,
}

struct Search(Vec<Sought>);

impl Search {
    fn new(own: &[u8]) -> Self {
        let text = String::from_utf8_lossy(own);
        let sought = text.lines().filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let controllers = controllers.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
            Some(Sought { controllers, path: path.to_owned(), found: None })
        });
        Self(sought.collect())
    }

    fn complete(&self) -> bool {
        self.0.iter().all(|sought| sought.found.is_some())
    }

    /// Takes one line of the mount table; the first mount of a hierarchy is the one used.
    fn look_at(&mut self, line: &[u8]) {
        // The file system's type stands behind a lone dash; optional fields make its column vary.
        let Some(dash) = line.windows(3).position(|three| three == b" - ") else { return };
        let Some(rest) = line[dash + 3..].strip_prefix(b"cgroup") else { return };
        let unified = match rest.first() {
            Some(b' ') => false,
            Some(b'2') => true,
            _ => return,
        };
        let options =
            String::from_utf8_lossy(rest.rsplit(|&byte| byte == b' ').next().unwrap_or_default()).into_owned();
        let mut columns = line[..dash].split(|&byte| byte == b' ').skip(3);
        let (Some(root), Some(mount)) = (columns.next(), columns.next()) else { return };
        let wanted = self.0.iter_mut().find(|sought| match sought.controllers.first() {
            None => unified,
            Some(first) => !unified && options.split(',').any(|option| option == first),
        });
        if let Some(sought) = wanted.filter(|sought| sought.found.is_none()) {
            let root = String::from_utf8_lossy(&unescape(root)).into_owned();
            let flags = options.split(',').filter(|option| unified && is_flag(option)).map(str::to_owned).collect();
            sought.found = Some(Mounted { root, mount: OsString::from_vec(unescape(mount)).into(), flags });
        }
    }

    fn finish(self) -> Layout {
        let mut layout = Layout { v1: Vec::new(), v2: None };
        for sought in self.0 {
            let Some(Mounted { root, mount, flags }) = sought.found else { continue };
            let own = below(&root, &sought.path);
            let hierarchy = Hierarchy { controllers: sought.controllers, mount, own, flags };
            match hierarchy.controllers.is_empty() {
                true => layout.v2 = Some(hierarchy),
                false => layout.v1.push(hierarchy),
            }
        }
        layout
    }
}

/// Whether a super-block option is one of the hierarchy's own: all of those are single words.
fn is_flag(option: &str) -> bool {
    !matches!(option, "rw" | "ro" | "seclabel") && !option.contains('=')
}

/// The path of a cgroup below a mount that shows the hierarchy from `root` on; the mount point where it lies outside.
fn below(root: &str, path: &str) -> String {
    let rest = match root {
        "/" => path,
        _ => path.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or("/"),
    };
    match rest.is_empty() || rest.split('/').any(|part| part == "..") {
        true => "/".to_owned(),
        false => rest.to_owned(),
    }
}

/// Undoes the mount table's octal escapes of space, tab, newline and backslash.
pub(crate) fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        let octal =
            tail.get(..3).filter(|digits| first == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        match octal {
            Some(digits) => {
                plain.push(digits.iter().fold(0_u8, |value, digit| value.wrapping_mul(8).wrapping_add(digit - b'0')));
                rest = &tail[3..];
            }
            None => {
                plain.push(first);
                rest = tail;
            }
        }
    }
    plain
}

/// Reads a small file of /proc whole.
fn slurp(path: &str) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut text = vec![0_u8; 4096];
    let mut length = 0;
    loop {
        let count = file.read(&mut text[length..])?;
        if count == 0 {
            text.truncate(length);
            return Ok(text);
        }
        length += count;
        if length == text.len() {
            text.resize(length * 2, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID_MEMBERSHIP: &[u8] =
        b"12:pids:/\n4:cpu,cpuacct:/a/b\n3:memory:/job\n1:name=systemd:/\n5:devices:/\n0::/u\n";
    const HYBRID_MOUNTS: &[u8] = b"\
22 1 8:1 / / rw - ext4 /dev/root rw
31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9 - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:1 master:2 - cgroup cgroup rw,cpu,cpuacct
33 31 0:33 /job /odd\\040place/mem rw,relatime - cgroup cgroup rw,memory
34 31 0:34 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
35 31 0:35 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
36 31 0:36 / /sys/fs/cgroup/devices rw - cgroup none rw,devices
37 31 0:36 / /second/devices rw - cgroup none rw,devices
";

    fn hierarchy(controllers: &[&str], mount: &str, own: &str) -> Hierarchy {
        let controllers = controllers.iter().map(|name| (*name).to_owned()).collect();
        Hierarchy { controllers, mount: mount.into(), own: own.into(), flags: Vec::new() }
    }

    #[test]
    fn a_hybrid_host_is_read_from_the_mount_table() {
        let layout = Layout::parse(HYBRID_MEMBERSHIP, HYBRID_MOUNTS);
        assert_eq!(layout.version(), Version::V1);
        assert_eq!(
            layout.v1,
            [
                hierarchy(&["cpu", "cpuacct"], "/sys/fs/cgroup/cpu,cpuacct", "/a/b"),
                hierarchy(&["memory"], "/odd place/mem", "/"),
                hierarchy(&["name=systemd"], "/sys/fs/cgroup/systemd", "/"),
                hierarchy(&["devices"], "/sys/fs/cgroup/devices", "/"),
            ]
        );
        let unified = hierarchy(&[], "/sys/fs/cgroup/unified", "/u");
        assert_eq!(layout.v2, Some(Hierarchy { flags: vec!["nsdelegate".to_owned()], ..unified }));
        assert_eq!(layout.hierarchy("cpuacct"), Some(&layout.v1[0]));
        assert_eq!(layout.hierarchy("hugetlb"), None);
    }

    #[test]
    fn what_is_mounted_decides_the_version() {
        let unified = "35 31 0:35 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let tag = "36 31 0:36 / /run/net_cls rw - cgroup none rw,net_cls\n";
        let named = "37 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup none rw,name=systemd\n";
        let freezer = "38 31 0:38 / /sys/fs/cgroup/freezer rw - cgroup none rw,freezer\n";
        let membership = b"3:net_cls:/\n2:freezer:/\n1:name=systemd:/\n0::/\n";
        for (mounts, version) in [
            (String::new(), Version::Missing),
            (unified.to_owned(), Version::V2),
            (format!("{unified}{tag}{named}"), Version::V2),
            (format!("{unified}{freezer}"), Version::V1),
            (freezer.to_owned(), Version::V1),
            (named.to_owned(), Version::V1),
        ] {
            assert_eq!(Layout::parse(membership, mounts.as_bytes()).version(), version, "{mounts}");
        }
    }

    #[test]
    fn the_own_cgroup_is_told_below_the_mount() {
        for (root, path, expected) in [
            ("/", "/a", "/a"),
            ("/docker/x", "/docker/x", "/"),
            ("/docker/x", "/docker/x/y", "/y"),
            ("/docker/x", "/docker/xy", "/"),
            ("/..", "/", "/"),
            ("/", "/../other", "/"),
        ] {
            assert_eq!(below(root, path), expected, "{root} {path}");
        }
    }

    #[test]
    fn this_host_has_a_layout() {
        let layout = Layout::detect().unwrap();
        for hierarchy in layout.v1.iter().chain(&layout.v2) {
            assert!(hierarchy.mount.is_absolute() && hierarchy.own.starts_with('/'), "{hierarchy:?}");
        }
    }
}
