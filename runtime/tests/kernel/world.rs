//! A host for one case: a mount namespace with a tmpfs in which the bundle, its root and files of the host lie; and the
//! steps by which the runtime makes a container of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use tare::error::Result;
use tare::init::rootfs::Root;
use tare::init::{devices, mask, mounts, rootfs};
use tare::parent::mount_source::{self, Binds, By, Opened, Sources, Wanted};
use tare::plan::cgroup_view::{CgroupView, Scope, Version};
use tare::plan::devices::Devices;
use tare::plan::mounts::{Masks, Mount, RootChange, RootfsPlan, Source};
use tare::plan::namespaces::Namespaces;

/// What a file of a tree is.
pub(crate) enum Node<'a> {
    /// A directory.
    Dir,
    /// A file with this text.
    File(&'a str),
    /// A symbolic link with this text.
    Link(&'a str),
}

/// The host.
pub(crate) struct World {
    /// Where everything of this case is: gone with the namespace.
    pub(crate) place: PathBuf,
}

impl World {
    /// A host whose mounts are private, with an empty root in `bundle/root`.
    pub(crate) fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        change("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        let place = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("host");
        fs::create_dir_all(&place).unwrap();
        mount(Some("host"), &place, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("a tmpfs");
        fs::create_dir_all(place.join("bundle/root")).unwrap();
        Self { place }
    }

    /// A path of the container's root, as the host sees it.
    pub(crate) fn root(&self, path: &str) -> PathBuf {
        self.place.join("bundle/root").join(path.trim_start_matches('/'))
    }

    /// A path of the host's own, outside of the root.
    pub(crate) fn host(&self, path: &str) -> PathBuf {
        self.place.join(path.trim_start_matches('/'))
    }

    /// Makes files below the root.
    pub(crate) fn tree(&self, nodes: &[(&str, Node<'_>)]) {
        for (path, node) in nodes {
            make(&self.root(path), node);
        }
    }

    /// Makes files of the host.
    pub(crate) fn host_tree(&self, nodes: &[(&str, Node<'_>)]) {
        for (path, node) in nodes {
            make(&self.host(path), node);
        }
    }

    /// Lowers a configuration: `mounts` and `linux` as in config.json.
    pub(crate) fn plan(&self, mounts: Value, linux: Value) -> Plan {
        self.plan_with(json!({"mounts": mounts, "linux": linux, "root": {"path": "root"}}))
    }

    /// Lowers a whole configuration.
    pub(crate) fn plan_with(&self, mut config: Value) -> Plan {
        config["ociVersion"] = json!("1.3.0");
        if config["linux"]["namespaces"].is_null() {
            config["linux"]["namespaces"] = json!([{"type": "mount"}]);
        }
        let spec = serde_json::from_value(config).unwrap();
        let bundle = self.place.join("bundle");
        let namespaces = tare::plan::namespaces::lower(&spec).unwrap();
        let mounts = tare::plan::mounts::lower(&spec, &bundle, &namespaces).unwrap();
        let devices = tare::plan::devices::lower(&spec, &mounts).unwrap();
        Plan {
            rootfs: tare::plan::mounts::lower_rootfs(&spec, &bundle, RootChange::Pivot, &namespaces).unwrap(),
            masks: tare::plan::mounts::lower_masks(&spec, &namespaces).unwrap(),
            cgroups: CgroupView { version: Version::Legacy, scope: Scope::Host, hierarchies: Vec::new() },
            mounts,
            devices,
            namespaces,
        }
    }
}

fn make(path: &Path, node: &Node<'_>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    match node {
        Node::Dir => fs::create_dir_all(path).unwrap(),
        Node::File(text) => fs::write(path, text).unwrap(),
        Node::Link(text) => symlink(text, path).unwrap(),
    }
}

/// Changes the propagation of a mount.
pub(crate) fn change(path: impl AsRef<Path>, flags: MsFlags) {
    mount(None::<&str>, path.as_ref(), None::<&str>, flags, None::<&str>).expect("a change of propagation");
}

/// What the host's side opened.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) sources: Sources,
    binds: Binds,
    opened: Vec<Opened>,
}

/// The plan of a container.
pub(crate) struct Plan {
    pub(crate) rootfs: RootfsPlan,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) devices: Devices,
    pub(crate) masks: Masks,
    pub(crate) namespaces: Namespaces,
    /// Nothing, unless the case says otherwise.
    pub(crate) cgroups: CgroupView,
}

impl Plan {
    pub(crate) fn wanted(&self) -> Wanted<'_> {
        Wanted {
            rootfs: &self.rootfs,
            mounts: &self.mounts,
            devices: &self.devices.nodes,
            namespaces: &self.namespaces,
        }
    }

    /// The host's side. The sources of bind mounts, which init asks for one after the other, are opened now: afterwards
    /// this process is init.
    pub(crate) fn open(&self) -> Result<Opening> {
        let sources = mount_source::open(self.wanted())?;
        let mut binds = Binds::new(&self.rootfs);
        let mut opened = Vec::new();
        if sources.by() == By::Parent {
            for mount in self.mounts.iter().filter(|mount| matches!(mount.source, Source::Bind(_))) {
                opened.extend(binds.open(std::slice::from_ref(mount))?);
            }
        }
        Ok(Opening { sources, binds, opened })
    }

    /// Everything up to the mounts, in a new mount namespace.
    pub(crate) fn mounted(&self) -> Result<Root> {
        self.mounted_with(self.open()?, || Ok(Vec::new()))
    }

    pub(crate) fn mounted_with(
        &self,
        mut opening: Opening,
        cgroups: impl FnMut() -> Result<Vec<OwnedFd>>,
    ) -> Result<Root> {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        self.set_up(&mut opening, cgroups)
    }

    /// What init does in its namespaces, up to the mounts.
    pub(crate) fn set_up(&self, opening: &mut Opening, cgroups: impl FnMut() -> Result<Vec<OwnedFd>>) -> Result<Root> {
        let Opening { sources, binds, opened } = opening;
        sources.complete(self.wanted())?;
        let by = sources.by();
        let open = |range: std::ops::Range<usize>| match by {
            By::Init => binds.open(&self.mounts[range]),
            By::Parent => {
                // As they come through the channel.
                let asked: Vec<_> = opened.drain(..range.len()).collect();
                let (kinds, fds) = mount_source::pack(&asked);
                let fds = fds.into_iter().map(|fd| fd.try_clone().unwrap()).collect();
                mount_source::unpack(kinds, fds, &self.mounts[range], &self.rootfs)
            }
        };
        let mut root = rootfs::attach(&self.rootfs, sources)?;
        mounts::mount_all(&mut root, &self.mounts, sources, &self.cgroups, cgroups, open, |_| ())?;
        devices::create(&mut root, &self.devices, sources)?;
        Ok(root)
    }

    /// Goes all the way into the container.
    pub(crate) fn enter(&self) -> Result<()> {
        self.finish(self.mounted()?)
    }

    pub(crate) fn finish(&self, root: Root) -> Result<()> {
        rootfs::pivot(&root, &self.rootfs)?;
        mask::apply(&root, &self.masks)?;
        rootfs::finish(&root, &self.rootfs)
    }

    /// The sentence with which the container fails.
    pub(crate) fn failure(&self) -> String {
        match self.mounted() {
            Ok(_) => panic!("the container was set up"),
            Err(error) => error.to_string(),
        }
    }
}

/// A line of the mount table.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) options: String,
    pub(crate) optional: String,
    pub(crate) kind: String,
    pub(crate) source: String,
}

impl Line {
    pub(crate) fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|word| word == option)
    }
}

/// The mount table, by mount point: the last one where there are several.
pub(crate) fn table() -> BTreeMap<String, Line> {
    parse(&fs::read_to_string("/proc/self/mountinfo").expect("a mount table: is there a /proc in this case?"))
}

/// Reads a mount table.
pub(crate) fn parse(text: &str) -> BTreeMap<String, Line> {
    text.lines()
        .map(|line| {
            let (before, after) = line.split_once(" - ").unwrap();
            let before: Vec<&str> = before.split(' ').collect();
            let after: Vec<&str> = after.split(' ').collect();
            let line = Line {
                options: before[5].into(),
                optional: before[6..].join(" "),
                kind: after[0].into(),
                source: after[1].into(),
            };
            (before[4].to_owned(), line)
        })
        .collect()
}

/// A procfs for the container's table of mounts.
pub(crate) fn proc_mount() -> Value {
    json!({"destination": "/proc", "type": "proc", "source": "proc"})
}

/// A bind mount.
pub(crate) fn bind(source: impl AsRef<Path>, destination: &str, options: &[&str]) -> Value {
    let options: Vec<&str> = ["rbind"].iter().chain(options).copied().collect();
    json!({"destination": destination, "type": "bind", "source": source.as_ref(), "options": options})
}
