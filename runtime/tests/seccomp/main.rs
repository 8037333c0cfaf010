//! The seccomp compiler against libseccomp, and its programs in the kernel.

mod bpf;
mod libseccomp;
mod random;

use libseccomp::Library;
use oci_spec::runtime::LinuxSeccomp;
use random::{Actions, Random};
use tare::plan::seccomp::lower;

#[test]
fn explore() {
    let Some(mut library) = Library::open("explore") else { return };
    let rounds: u64 = std::env::var("ROUNDS").map_or(300, |r| r.parse().unwrap());
    for actions in [Actions::OnePerCall, Actions::Mixed] {
        let (mut same, mut different, mut both_err, mut only_lib, mut only_us) = (0, 0, 0, 0, 0);
        let mut shown = 0;
        for seed in 0..rounds {
            let mut random = Random(seed);
            let profile = random::profile(&mut random, actions);
            let theirs = library.runc(&profile);
            let ours = lower(&profile);
            match (theirs, ours) {
                (Err(_), Err(_)) => both_err += 1,
                (Err(e), Ok(_)) => {
                    only_lib += 1;
                    if shown < 3 {
                        shown += 1;
                        println!("seed {seed} lib err {e}");
                    }
                }
                (Ok(_), Err(e)) => {
                    only_us += 1;
                    if shown < 3 {
                        shown += 1;
                        println!("seed {seed} us err {e}");
                    }
                }
                (Ok(theirs), Ok(ours)) => {
                    let calls = random::calls(&mut random, &mut library, &profile, 60);
                    let bad = calls.iter().find(|call| theirs.decide(call) != bpf::run(&ours.program, call).0);
                    match bad {
                        None => same += 1,
                        Some(call) => {
                            different += 1;
                            if shown < 3 {
                                shown += 1;
                                println!("default {:?} archs {:?}", profile.default_action(), profile.architectures());
                                for c in profile.syscalls().iter().flatten() {
                                    let n = library.resolve(&c.names()[0]);
                                    if n.iter().any(|&n| n == call.number as i32)
                                        || call.number == 102
                                        || call.number == 117
                                    {
                                        println!(
                                            "  {:?} {n:?} {} {:?} {}",
                                            c.names(),
                                            c.action(),
                                            c.errno_ret(),
                                            c.args()
                                                .iter()
                                                .flatten()
                                                .map(|a| format!(
                                                    "a{} {} {:x} {:x}",
                                                    a.index(),
                                                    a.op(),
                                                    a.value(),
                                                    a.value_two().unwrap()
                                                ))
                                                .collect::<Vec<_>>()
                                                .join(" && ")
                                        );
                                    }
                                }
                                println!(
                                    "seed {seed}: {call:x?}: theirs {:x} ours {:x}",
                                    theirs.decide(call),
                                    bpf::run(&ours.program, call).0
                                );
                            }
                        }
                    }
                }
            }
        }
        println!(
            "{}: same {same} different {different} both_err {both_err} only_lib {only_lib} only_us {only_us}",
            if actions == Actions::Mixed { "mixed" } else { "one" }
        );
    }
    let _: Option<LinuxSeccomp> = None;
}
