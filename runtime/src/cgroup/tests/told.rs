//! What is told of a cgroup: what is kept of it, what it uses, what happens in it.

use super::*;

#[test]
fn what_is_kept_reads_back() {
    let layout = Layout::parse(
        b"2:memory:/\n1:devices:/\n",
        b"1 1 0:1 / /m rw - cgroup c rw,memory\n2 1 0:2 / /d rw - cgroup c rw,devices\n",
    );
    let plan = lower(&spec("{}"), "c1", Manager::Cgroupfs, &layout, Privilege::Root).unwrap();
    let text = serde_json::to_string(&plan.saved()).unwrap();
    assert_eq!(
        text,
        r#"{"version":"v1","made":false,"directories":[{"controllers":["memory"],"path":"/m/c1"},{"controllers":["devices"],"path":"/d/c1"}]}"#
    );
    assert_eq!(serde_json::from_str::<SavedCgroup>(&text).unwrap(), plan.saved());
}

#[test]
fn a_number_of_bytes_is_written_for_a_person() {
    for (bytes, text) in
        [(4 << 20, "4 MiB"), (3 << 10, "3 KiB"), (1000, "1000 bytes"), ((4 << 20) + 1, "4194305 bytes")]
    {
        assert_eq!(size(bytes), text);
    }
}

#[test]
fn what_a_container_uses_is_told_on_version_1() {
    let Some(layout) = v1_host() else { return };
    let mut area = Area::new(layout);
    area.create(r#"{"pids": {"limit": 9}, "memory": {"limit": 33554432}, "cpu": {"cpus": "0"}}"#).unwrap();
    area.spawn("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo worked; read end");
    area.go();
    area.hear();
    let stats = area.cgroup().stats().unwrap();
    assert_eq!((stats.pids.current, stats.pids.limit), (1, 9));
    assert_eq!(stats.memory.usage.limit, 33_554_432);
    assert!(stats.memory.usage.usage > 0 && stats.memory.raw.contains_key("cache"), "{stats:?}");
    assert!(stats.cpu.usage.total > 0 && !stats.cpu.usage.percpu.is_empty(), "{stats:?}");
    assert_eq!(stats.cpuset.cpus, [0]);
}

#[test]
fn a_lack_of_memory_is_told_when_it_happens() {
    let Some(layout) = v1_host() else { return };
    let mut area = Area::new(layout);
    area.create(r#"{"memory": {"limit": 8388608}}"#).unwrap();
    let mut watch = area.cgroup().watch_oom().unwrap();
    assert_eq!(watch.count().unwrap(), 0);
    area.spawn("exec tail /dev/zero");
    area.go();
    let mut fds = [nix::poll::PollFd::new(watch.as_fd(), watch.flags())];
    assert_eq!(nix::poll::poll(&mut fds, 20_000_u16).unwrap(), 1, "no event within 20 s");
    assert!(watch.count().unwrap() > 0);
    assert!(!area.wait().success());
    assert_eq!(watch.count().unwrap(), 0);
    // The end of the cgroup is none.
    let (cgroup, _) = (area.cgroup.take().unwrap(), area.children.clear());
    cgroup.destroy().unwrap();
    assert_eq!(watch.count().unwrap(), 0);
}

#[test]
fn an_event_file_is_waited_for() {
    let Some(layout) = v2_host() else { return };
    let mut area = Area::new(layout);
    area.create("{}").unwrap();
    let events = files::Watched::open(&area.at(""), "cgroup.events").unwrap();
    let soon = || std::time::Instant::now() + std::time::Duration::from_millis(1);
    assert_eq!(files::value(&events.read().unwrap(), "populated"), Some(0));
    assert!(!events.wait(soon()).unwrap());
    area.spawn(":");
    assert!(events.wait(std::time::Instant::now() + std::time::Duration::from_secs(20)).unwrap());
    assert_eq!(files::value(&events.read().unwrap(), "populated"), Some(1));
    assert!(!events.wait(soon()).unwrap());
}
