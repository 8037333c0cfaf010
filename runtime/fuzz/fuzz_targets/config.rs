//! config.json, to the plan: everything a user writes ends in a plan or in one sentence.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tare::bundle::parse_spec;
use tare::cgroup::Layout;
use tare::plan::cgroup::systemd::{Domain, Site};
use tare::plan::cgroup::{Manager, Privilege};
use tare::plan::process::{Call, Keyring};
use tare::plan::{Options, Plan, cgroup, devices, hooks, mounts, namespaces, netdev, process, rdt, seccomp, sysctl};

const CALL: Call<'_> = Call { container: "c", keyring: Keyring::New, preserve_fds: 0, listen_fds: 0 };

/// A hybrid host, so that both versions' limits are lowered.
static LAYOUT: LazyLock<Layout> = LazyLock::new(|| {
    Layout::parse(
        b"4:memory:/\n3:cpu,cpuacct:/\n2:pids:/\n1:devices:/\n0::/\n",
        b"30 20 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
          31 20 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
          32 20 0:32 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
          33 20 0:33 / /sys/fs/cgroup/devices rw - cgroup cgroup rw,devices\n\
          34 20 0:34 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
    )
});

// Each part is lowered even where another one has an error, which would end the whole plan first.
fuzz_target!(|bytes: &[u8]| {
    let Ok(spec) = parse_spec(bytes) else { return };
    let Ok(namespaces) = namespaces::lower(&spec) else { return };
    let linux = spec.linux().as_ref();
    if let Some(given) = spec.process() {
        let _ = process::lower(given, linux, &CALL);
    }
    if let Ok(mounts) = mounts::lower(&spec, Path::new("/bundle"), &namespaces) {
        let _ = devices::lower(&spec, &mounts);
    }
    if let Some(given) = linux.and_then(|linux| linux.seccomp().as_ref())
        && let Ok(filter) = seccomp::lower(given)
    {
        let kept = seccomp::Seccomp::from_bytes(&filter.to_bytes()).expect("what was kept for exec is read again");
        assert_eq!(kept, filter);
    }
    let site = Site { domain: Domain::System, base: String::new() };
    for manager in [Manager::Cgroupfs, Manager::Systemd(site), Manager::Disabled] {
        let _ = cgroup::lower(&spec, "c", manager.clone(), &LAYOUT, Privilege::Root);
        let options = Options { manager, privilege: Privilege::Auto, change: mounts::RootChange::Pivot, call: CALL };
        let _ = Plan::from_spec(&spec, Path::new("/bundle"), &options, &LAYOUT);
    }
    let _ = mounts::lower_masks(&spec, &namespaces);
    let _ = hooks::lower(&spec);
    let _ = netdev::lower(&spec, &namespaces);
    let _ = rdt::lower(&spec, "c");
    let _ = sysctl::lower(&spec, &namespaces);
});
