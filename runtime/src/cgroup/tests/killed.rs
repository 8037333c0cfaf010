//! What `kill` answers for a container without a pid namespace of its own, whose processes have to be ended one by one.

use std::os::unix::process::ExitStatusExt as _;

use nix::libc::SIGKILL;

use super::*;
use crate::kill::signal_init;
use crate::state::{Init, State};

/// Whoever waits for init may have it reaped, and have removed all there is of the container, before the last one is killed.
#[test]
fn who_ends_the_container_has_killed_it_and_who_comes_later_has_not() {
    let v1 = v1_host();
    let v2 = v2_host();
    for layout in v1.into_iter().chain(v2) {
        // One round proves little: the process has to be gone between two system calls.
        for _ in 0..20 {
            let mut area = Area::new(layout.clone());
            area.create("{}").unwrap();
            let pid = area.spawn("for i in $(seq 30); do sleep 1000 & done; echo ready.; wait");
            area.go();
            area.hear();
            let mut state = State::new("c1", Path::new("/"), Path::new("/"), area.cgroup().saved());
            state.init = Some(Init::of(pid.cast_signed()).unwrap());
            let mut init = area.children.pop().unwrap();
            std::thread::scope(|scope| {
                let reaper = scope.spawn(|| init.wait().unwrap());
                signal_init(&state, SIGKILL).unwrap();
                assert_eq!(reaper.join().unwrap().signal(), Some(SIGKILL));
            });
            let late = signal_init(&state, nix::libc::SIGTERM).unwrap_err();
            assert_eq!(late.kind(), Kind::State, "{late}");
        }
    }
}
