use std::time::Duration;

use super::*;
use crate::testing::{Child, OwnCgroup, skip};

/// Time enough on any machine; a test that waits this long has failed.
const LONG: Duration = Duration::from_secs(60);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LONG, future).await.expect("an event that never came") })
}

/// A cgroup with so little memory that [`greedy`] cannot live in it.
fn small() -> Option<OwnCgroup> {
    let own = OwnCgroup::make()?;
    let limits: &[&str] = match own.cgroup() {
        Cgroup::V1(_) => &["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"],
        Cgroup::V2(_) => &["memory.max", "memory.swap.max"],
    };
    let directory = own.cgroup().controller("memory").unwrap();
    if let Err(error) = std::fs::write(directory.join(limits[0]), "16777216") {
        return skip(&format!("a limit of memory in {}: {error}", directory.display()));
    }
    // Absent where swap is not counted.
    let _ = std::fs::write(directory.join(limits[1]), "16777216");
    Some(own)
}

/// Wants 64 MiB.
fn greedy(own: &OwnCgroup) -> Child {
    own.run("exec dd if=/dev/zero of=/dev/null bs=64M count=1 2>/dev/null")
}

#[test]
fn each_kill_is_told_and_then_the_end() {
    let Some(own) = small() else { return };
    block_on(async {
        // It is there before the watch begins and stays, as init does.
        let init = own.child();
        let mut watch = OomWatch::new(own.cgroup()).unwrap();
        assert!(!watch.check());
        for _ in 0..3 {
            let killed = greedy(&own);
            assert_eq!(watch.next().await, Some(()));
            assert_eq!(killed.wait(), Some(9));
        }
        init.kill();
        own.remove();
        // A kill may have raised two events; no more can come.
        while watch.next().await.is_some() {}
        assert_eq!(watch.next().await, None);
    });
}

#[test]
fn a_kill_is_known_at_the_exit_of_what_it_killed() {
    let Some(own) = small() else { return };
    block_on(async {
        let mut watch = OomWatch::new(own.cgroup()).unwrap();
        assert_eq!(greedy(&own).wait(), Some(9));
        assert!(watch.check(), "the process is dead, and its kill is not known");
        while watch.check() {}
        own.child().kill();
        assert!(!watch.check(), "an ordinary death is no OOM kill");
    });
}

#[test]
fn who_waits_learns_that_the_cgroup_is_gone() {
    let Some(own) = small() else { return };
    block_on(async {
        let init = own.child();
        let mut watch = OomWatch::new(own.cgroup()).unwrap();
        let (end, ()) = tokio::join!(watch.next(), async {
            // The watch waits by now.
            tokio::task::yield_now().await;
            init.kill();
            // With version 2 nothing tells of the removal, but that nobody is left.
            if let Cgroup::V1(_) = own.cgroup() {
                own.remove();
            }
        });
        assert_eq!(end, None);
    });
}

/// The unified hierarchy of a hybrid host has no memory, but what wakes the watch at the end.
#[test]
fn a_version_2_cgroup_that_empties_wakes_the_watch() {
    let Some(own) = OwnCgroup::make_unified() else { return };
    let Cgroup::V2(directory) = own.cgroup() else { panic!("the unified hierarchy's cgroup is of version 1") };
    block_on(async {
        let child = own.child();
        let open = |name: &str| watch(File::open(directory.join(name)).unwrap().into(), Interest::PRIORITY);
        let (memory, processes) = (open("cgroup.events").unwrap(), open("cgroup.events").unwrap());
        let mut watch = OomWatch(Watch::V2(V2 { memory, processes, told: 0 }));
        let (end, ()) = tokio::join!(watch.next(), async {
            tokio::task::yield_now().await;
            child.kill();
        });
        assert_eq!(end, None);
    });
}

#[test]
fn without_memory_counted_there_is_nothing_to_watch() {
    let error = |cgroup| OomWatch::new(&cgroup).unwrap_err();
    let none = error(Cgroup::V1(vec![("cpu".to_owned(), "/sys/fs/cgroup/cpu".into())]));
    assert_eq!(none.kind, crate::error::Kind::NotFound);
    assert!(none.message.contains("no memory controller"), "{none}");
    assert_eq!(error(Cgroup::V2("/nowhere".into())).kind, crate::error::Kind::NotFound);
}

#[test]
fn a_field_is_a_whole_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("memory.events");
    let table = [
        ("low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 1\n", Some(2)),
        ("oom_kill_disable 1\nunder_oom 0\noom_kill 5\n", Some(5)),
        ("oom_kill_disable 1\nunder_oom 0\n", None),
        ("oom_kill x\n", None),
        ("", None),
    ];
    for (text, expected) in table {
        std::fs::write(&path, text).unwrap();
        assert_eq!(kills(open(&path).unwrap()), expected, "{text:?}");
    }
}
