//! Files in a directory that stands for a cgroup, with what kernels write into them; and a real cgroup of this host.

use std::fs;
use std::path::PathBuf;

use tare_proto::{cgroups_v1, cgroups_v2};

use super::*;
use crate::error::Kind;
use crate::testing::OwnCgroup;

fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (file, content) in files {
        fs::write(directory.path().join(file), content).unwrap();
    }
    directory
}

fn all_of(directory: &Path) -> Vec<(String, PathBuf)> {
    let controllers = ["cpu", "cpuacct", "memory", "pids", "blkio", "hugetlb", "rdma", "name=systemd"];
    controllers.iter().map(|name| ((*name).to_owned(), directory.to_owned())).collect()
}

#[test]
fn version_1_is_read_from_its_files() {
    let tree = tree(&[
        ("pids.current", "7\n"),
        ("pids.max", "100\n"),
        ("cpuacct.usage", "378587841\n"),
        ("cpuacct.usage_percpu", "5 378587836 \n"),
        ("cpuacct.stat", "user 35\nsystem 2\n"),
        ("cpu.stat", "nr_periods 24\nnr_throttled 15\nthrottled_time 462862296\nnr_bursts 0\n"),
        (
            "memory.stat",
            "cache 1\nrss 2\npgpgin 3\nhierarchical_memory_limit 67108864\ntotal_cache 4\nworkingset_x 5\n",
        ),
        ("memory.limit_in_bytes", "67108864\n"),
        ("memory.usage_in_bytes", "21835776\n"),
        ("memory.max_usage_in_bytes", "23097344\n"),
        ("memory.failcnt", "9\n"),
        ("memory.kmem.usage_in_bytes", "811008\n"),
        ("memory.kmem.tcp.limit_in_bytes", "9223372036854771712\n"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 1\noom_kill 3\n"),
        ("rdma.current", "mlx4_0 hca_handle=2 hca_object=2000\nocrdma1 hca_handle=3 hca_object=max\n"),
        ("rdma.max", "mlx4_0 hca_handle=max hca_object=7\n"),
    ]);
    let metrics = v1::metrics(&all_of(tree.path()));
    let pids = metrics.pids.as_ref().unwrap();
    assert_eq!((pids.current, pids.limit), (7, 100));
    let usage = &metrics.cpu.usage;
    assert_eq!((usage.total, usage.user, usage.kernel), (378_587_841, 350_000_000, 20_000_000));
    assert_eq!(usage.per_cpu, [5, 378_587_836]);
    let throttling = &metrics.cpu.throttling;
    assert_eq!((throttling.periods, throttling.throttled_periods, throttling.throttled_time), (24, 15, 462_862_296));
    let memory = metrics.memory.as_ref().unwrap();
    assert_eq!((memory.cache, memory.rss, memory.pg_pg_in, memory.total_cache), (1, 2, 3, 4));
    assert_eq!(memory.hierarchical_memory_limit, 67_108_864);
    let entry = &memory.usage;
    assert_eq!((entry.limit, entry.usage, entry.max, entry.failcnt), (67_108_864, 21_835_776, 23_097_344, 9));
    assert_eq!((memory.kernel.usage, memory.kernel_tcp.limit), (811_008, 9_223_372_036_854_771_712));
    assert_eq!(memory.swap.as_ref(), Some(&cgroups_v1::MemoryEntry::default()));
    let oom = metrics.memory_oom_control.as_ref().unwrap();
    assert_eq!((oom.oom_kill_disable, oom.under_oom, oom.oom_kill), (0, 1, 3));
    let rdma = metrics.rdma.as_ref().unwrap();
    let handles: Vec<_> =
        rdma.current.iter().map(|entry| (entry.device.as_str(), entry.hca_handles, entry.hca_objects)).collect();
    assert_eq!(handles, [("mlx4_0", 2, 2000), ("ocrdma1", 3, u32::MAX)]);
    assert_eq!((rdma.limit[0].hca_handles, rdma.limit[0].hca_objects), (u32::MAX, 7));
}

#[test]
fn block_devices_are_counted_by_their_scheduler_or_else_by_the_throttle() {
    let entries = |entries: &[cgroups_v1::BlkIOEntry]| -> Vec<(String, u64, u64, u64)> {
        entries.iter().map(|entry| (entry.op.clone(), entry.major, entry.minor, entry.value)).collect()
    };
    let throttled = ("blkio.throttle.io_serviced_recursive", "253:0 Read 5\n253:0 Total 5\nTotal 5\n");
    let of_throttle = tree(&[throttled, ("blkio.io_serviced_recursive", "Total 0\n"), ("blkio.time_recursive", "")]);
    let blkio = v1::metrics(&all_of(of_throttle.path())).blkio.unwrap();
    let expected = vec![("Read".to_owned(), 253, 0, 5), ("Total".to_owned(), 253, 0, 5)];
    assert_eq!(entries(&blkio.io_serviced_recursive), expected);

    let of_scheduler = tree(&[throttled, ("blkio.sectors_recursive", "8:0 6\n")]);
    let blkio = v1::metrics(&all_of(of_scheduler.path())).blkio.unwrap();
    assert_eq!(entries(&blkio.sectors_recursive), [(String::new(), 8, 0, 6)]);
    assert_eq!(blkio.io_serviced_recursive, []);
}

/// Some device this host has gets its name; one it has not gets none.
#[test]
fn a_block_device_is_named() {
    let partitions = fs::read_to_string("/proc/partitions").unwrap();
    let Some(line) = partitions.lines().nth(2) else {
        let _: Option<()> = crate::testing::skip("no block device");
        return;
    };
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let table = format!("{}:{} Read 1\n4095:1048575 Read 1\n", fields[0], fields[1]);
    let tree = tree(&[("blkio.io_merged_recursive", &table)]);
    let blkio = v1::metrics(&all_of(tree.path())).blkio.unwrap();
    let names: Vec<&str> = blkio.io_merged_recursive.iter().map(|entry| entry.device.as_str()).collect();
    assert_eq!(names, [&format!("/dev/{}", fields[3]), ""]);
}

#[test]
fn version_2_is_read_from_its_files() {
    let tree = tree(&[
        ("pids.current", "3\n"),
        ("pids.max", "max\n"),
        (
            "cpu.stat",
            "usage_usec 100\nuser_usec 60\nsystem_usec 40\nnr_periods 5\nnr_throttled 4\nthrottled_usec 3\nnr_bursts 2\nburst_usec 1\n",
        ),
        ("cpu.pressure", "some avg10=1.50 avg60=0.25 avg300=0.10 total=77\n"),
        ("memory.current", "4096\n"),
        ("memory.max", "max\n"),
        ("memory.peak", "8192\n"),
        ("memory.swap.current", "0\n"),
        ("memory.swap.max", "1048576\n"),
        (
            "memory.stat",
            "anon 1\nfile 2\nsock 3\nworkingset_refault_anon 4\npgsteal 5\nthp_collapse_alloc 6\nzswap 7\n",
        ),
        (
            "memory.pressure",
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\nfull avg10=99.99 avg60=0.00 avg300=0.00 total=6\n",
        ),
        ("memory.events", "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n"),
        ("io.stat", "253:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n7:0 \n8:16\n8:0 rbytes=9\n"),
        ("rdma.current", "mlx5_0 hca_handle=1 hca_object=2\n"),
    ]);
    let metrics = v2::metrics(tree.path());
    assert_eq!((metrics.pids.current, metrics.pids.limit), (3, u64::MAX));
    let cpu = metrics.cpu.as_ref().unwrap();
    assert_eq!((cpu.usage_usec, cpu.user_usec, cpu.system_usec), (100, 60, 40));
    assert_eq!((cpu.nr_periods, cpu.nr_throttled, cpu.throttled_usec, cpu.nr_bursts, cpu.burst_usec), (5, 4, 3, 2, 1));
    let some = cpu.psi.some.as_ref().unwrap();
    assert_eq!((some.avg10, some.avg60, some.avg300, some.total), (1.5, 0.25, 0.1, 77));
    assert!(cpu.psi.full.is_none());
    let memory = metrics.memory.as_ref().unwrap();
    assert_eq!((memory.usage, memory.usage_limit, memory.max_usage), (4096, u64::MAX, 8192));
    assert_eq!((memory.swap_usage, memory.swap_limit, memory.swap_max_usage), (0, 1 << 20, 0));
    assert_eq!((memory.anon, memory.file, memory.sock, memory.workingset_refault_anon), (1, 2, 3, 4));
    assert_eq!((memory.pgsteal, memory.thp_collapse_alloc), (5, 6));
    assert_eq!((memory.psi.full.avg10, memory.psi.full.total, memory.psi.some.total), (99.99, 6, 5));
    let events = metrics.memory_events.as_ref().unwrap();
    assert_eq!((events.low, events.high, events.max), (1, 2, 3));
    assert_eq!((events.oom, events.oom_kill, events.oom_group_kill), (4, 5, 6));
    let io: Vec<_> =
        metrics.io.usage.iter().map(|io| (io.major, io.minor, io.rbytes, io.wbytes, io.rios, io.wios)).collect();
    assert_eq!(io, [(253, 0, 1, 2, 3, 4), (7, 0, 0, 0, 0, 0), (8, 0, 9, 0, 0, 0)]);
    assert!(metrics.io.psi.is_none());
    assert_eq!(metrics.rdma.current[0].hca_objects, 2);
    assert_eq!(metrics.rdma.limit, []);
}

#[test]
fn huge_pages_are_named_as_the_kernel_names_their_files() {
    let table = [(64, "64KB"), (2048, "2MB"), (32 << 10, "32MB"), (1 << 20, "1GB"), (16 << 20, "16GB")];
    for (kilobytes, name) in table {
        assert_eq!(huge_page_size(kilobytes), name);
    }
    let Some(size) = huge_page_sizes().into_iter().next() else {
        let _: Option<()> = crate::testing::skip("no huge pages");
        return;
    };
    let name = |file: &str| format!("hugetlb.{size}.{file}");
    let v1_tree =
        tree(&[(&name("usage_in_bytes"), "1\n"), (&name("max_usage_in_bytes"), "2\n"), (&name("failcnt"), "3\n")]);
    let stat = &v1::metrics(&all_of(v1_tree.path())).hugetlb[0];
    assert_eq!((stat.usage, stat.max, stat.failcnt, &stat.pagesize), (1, 2, 3, &size));
    let v2_tree = tree(&[(&name("current"), "1\n"), (&name("max"), "max\n"), (&name("events"), "max 3\n")]);
    let stat = &v2::metrics(v2_tree.path()).hugetlb[0];
    assert_eq!((stat.current, stat.max, stat.failcnt, &stat.pagesize), (1, u64::MAX, 3, &size));
}

/// Clients of containerd read these without asking whether they are there.
#[test]
fn what_the_host_does_not_count_is_left_out() {
    let empty = tree(&[]);
    let v1 = v1::metrics(&[]);
    assert!(v1.cpu.usage.is_some() && v1.cpu.throttling.is_some());
    assert!(v1.pids.is_none() && v1.memory.is_none() && v1.blkio.is_none() && v1.memory_oom_control.is_none());
    assert!(v1.hugetlb.is_empty() && v1.rdma.is_none());
    assert_eq!(
        v1::metrics(&all_of(empty.path())),
        cgroups_v1::Metrics { blkio: Some(Default::default()).into(), ..v1 }
    );

    let v2 = v2::metrics(empty.path());
    assert!(v2.pids.is_some() && v2.cpu.is_some() && v2.memory.is_some() && v2.io.is_some() && v2.rdma.is_some());
    assert!(v2.memory_events.is_none() && v2.hugetlb.is_empty() && v2.cpu.psi.is_none() && v2.memory.psi.is_none());
}

#[test]
fn what_cannot_be_read_is_left_out() {
    let garbage = tree(&[
        ("pids.current", "many\n"),
        ("pids.max", "-1\n"),
        ("memory.current", ""),
        ("cpu.stat", "usage_usec\n\nuser_usec x\nsystem_usec 5\n 7\n"),
        ("cpu.pressure", "some\nfull avg10 total=x\nnone total=1\n"),
        ("io.stat", "x:y rbytes=1\n8 rbytes=1\n8:0 rbytes=x\n"),
        ("rdma.current", "\nmlx\nmlx hca_handle hca_object=-1\n"),
        ("blkio.sectors_recursive", "8:0\n8 1\n:\n8:0 x\n"),
        ("cpuacct.usage_percpu", "1 x 2\n"),
    ]);
    let v2 = v2::metrics(garbage.path());
    assert_eq!((v2.pids.current, v2.pids.limit, v2.cpu.system_usec), (0, 0, 5));
    assert_eq!(v2.cpu.psi.full.total, 0);
    assert_eq!(v2.io.usage.len(), 1);
    let v1 = v1::metrics(&all_of(garbage.path()));
    assert!(v1.pids.is_none());
    assert_eq!(v1.cpu.usage.per_cpu, [1, 2]);
}

#[test]
fn a_real_cgroup_has_used_something_until_it_is_gone() {
    let Some(own) = OwnCgroup::make() else { return };
    let child = own.child();
    let any = stats(own.cgroup()).unwrap();
    match own.cgroup() {
        Cgroup::V1(_) => {
            assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
            let metrics = any::unpack::<cgroups_v1::Metrics>(&any).unwrap().unwrap();
            assert!(metrics.memory.usage.limit > 0);
            assert!(metrics.pids.is_none() || metrics.pids.current == 1);
            assert!(!metrics.cpu.usage.per_cpu.is_empty());
        }
        Cgroup::V2(directory) => {
            assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
            let metrics = any::unpack::<cgroups_v2::Metrics>(&any).unwrap().unwrap();
            assert_eq!(metrics.memory.usage_limit > 0, directory.join("memory.max").is_file());
        }
    }
    child.kill();
    own.remove();
    assert_eq!(stats(own.cgroup()).unwrap_err().kind, Kind::NotFound);
}
