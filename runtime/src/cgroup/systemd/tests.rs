//! The conversation with a systemd that a mock plays: what is asked, in which order, and what comes of each answer.

use std::sync::Mutex;
use std::thread;

use super::*;
use crate::dbus::Link;
use crate::dbus::mock::{Mock, Side};
use crate::plan::cgroup::systemd::{Property, UnitPlan};

const UNIT: &str = "tare-c1.scope";

fn candidate(mock: &Mock, bus: bool) -> Candidate {
    let link = if bus { Link::Bus { rule: "r".into() } } else { Link::Peer };
    Candidate { socket: mock.socket(), link }
}

fn property(name: &'static str, since: u16) -> Property {
    Property { name: name.into(), value: Value::U64(5), since }
}

fn plan() -> UnitPlan {
    UnitPlan {
        domain: Domain::System,
        name: UNIT.into(),
        slice: "system.slice".into(),
        properties: vec![property("MemoryMax", 0), property("AllowedCPUs", 244)],
        asked: vec![property("TimeoutStopUSec", 0)],
    }
}

fn saved() -> SavedUnit {
    SavedUnit { name: UNIT.into(), domain: Domain::System }
}

/// Lets `ask` talk to what `play` plays; returns what came of it, and the methods that were called.
fn talk<T: Send>(
    bus: bool,
    mut play: impl FnMut(&mut Side, &Message) + Send,
    ask: impl FnOnce(&mut Systemd) -> Result<T> + Send,
) -> (Result<T>, Vec<String>) {
    let mock = Mock::new();
    let called = Mutex::new(Vec::new());
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            let mut side = if bus { mock.greet_as_bus() } else { mock.greet() };
            while let Some(call) = side.next_call() {
                called.lock().unwrap().push(call.member.clone());
                play(&mut side, &call);
            }
        });
        let mut systemd = Systemd::connect_to(Domain::System, &[candidate(&mock, bus)], Duration::from_secs(1))?;
        ask(&mut systemd)
    });
    (result, called.into_inner().unwrap())
}

fn start(play: impl FnMut(&mut Side, &Message) + Send) -> (Result<(), String>, Vec<String>) {
    let (result, called) = talk(false, play, |systemd| systemd.start(&plan(), &[property("DevicePolicy", 0)], 42));
    (result.map_err(|error| error.to_string()), called)
}

fn job(side: &mut Side, call: &Message, result: &str) {
    side.answer(call, &[Value::Path("/job/1".into())]);
    side.job_removed("/job/1", UNIT, result);
}

#[test]
fn a_create_is_one_call_and_the_end_of_its_job() {
    for bus in [false, true] {
        let (result, called) = talk(
            bus,
            |side, call| {
                let has = |text: &str| call.holds(text.as_bytes());
                assert_eq!(call.signature, "ssa(sv)a(sa(sv))");
                assert!(has(UNIT) && has("replace") && has("MemoryMax") && has("AllowedCPUs") && has("DevicePolicy"));
                assert!(has("TimeoutStopUSec") && has("PIDs") && call.holds(&[b'a', b'u', 0]));
                // Others' jobs end too, and before the answer.
                side.job_removed("/job/7", "other.scope", "failed");
                job(side, call, "done");
            },
            |systemd| systemd.start(&plan(), &[property("DevicePolicy", 0)], 42),
        );
        result.unwrap();
        assert_eq!(called, ["StartTransientUnit"]);
    }
}

#[test]
fn a_job_that_ended_before_the_answer_came_is_not_waited_for() {
    let (result, _) = start(|side, call| {
        side.job_removed("/job/1", UNIT, "done");
        side.answer(call, &[Value::Path("/job/1".into())]);
    });
    result.unwrap();
}

#[test]
fn on_a_bus_only_systemd_tells_the_end_of_a_job() {
    let (result, _) = talk(
        true,
        |side, call| {
            side.answer(call, &[Value::Path("/job/1".into())]);
            // Anybody may send a signal to anybody.
            side.name = ":1.66".into();
            side.job_removed("/job/1", UNIT, "done");
            side.name = ":1.1".into();
            side.job_removed("/job/1", UNIT, "timeout");
        },
        |systemd| systemd.start(&plan(), &[], 42),
    );
    let error = result.unwrap_err().to_string();
    assert!(error.contains("ended with \"timeout\""), "{error}");
}

#[test]
fn a_failed_job_is_told_and_its_unit_reset() {
    let (result, called) = start(|side, call| match &*call.member {
        "StartTransientUnit" => job(side, call, "failed"),
        _ => side.answer(call, &[]),
    });
    assert_eq!(
        result.unwrap_err(),
        "start the systemd unit tare-c1.scope: its job ended with \"failed\"; systemctl status tare-c1.scope or the journal \
         says why"
    );
    assert_eq!(called, ["StartTransientUnit", "ResetFailedUnit"]);
}

#[test]
fn a_unit_that_failed_makes_room() {
    let mut times = 0;
    let (result, called) = start(move |side, call| match &*call.member {
        "StartTransientUnit" if times == 0 => {
            times += 1;
            side.refuse(call, "org.freedesktop.systemd1.UnitExists", "Unit tare-c1.scope already exists.");
        }
        "StartTransientUnit" => job(side, call, "done"),
        _ => side.answer(call, &[]),
    });
    result.unwrap();
    assert_eq!(called, ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]);
    // One that runs does not.
    let (result, called) = talk(
        false,
        |side, call| match &*call.member {
            "StartTransientUnit" => side.refuse(call, "org.freedesktop.systemd1.UnitExists", "Unit exists."),
            _ => side.refuse(call, "org.freedesktop.systemd1.NoSuchUnit", "Unit not loaded."),
        },
        |systemd| systemd.start(&plan(), &[], 42),
    );
    let error = result.unwrap_err();
    assert_eq!(error.kind(), Kind::Exists);
    assert!(error.to_string().contains("a unit of that name is there already; stop it (systemctl stop tare-c1.scope)"));
    assert_eq!(called, ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]);
}

#[test]
fn what_an_older_systemd_lacks_is_left_out() {
    for (version, kept) in [("239 (239-82.el8)", false), ("v244-1", true)] {
        let mut times = 0;
        let (result, called) = start(move |side, call| match (&*call.member, times) {
            ("StartTransientUnit", 0) => {
                times += 1;
                assert!(call.holds(b"AllowedCPUs"));
                let text = "Cannot set property X, or unknown property.";
                side.refuse(call, "org.freedesktop.DBus.Error.PropertyReadOnly", text);
            }
            ("Get", _) => side.answer(call, &[Value::variant(Value::text(version))]),
            _ => {
                assert_eq!((call.holds(b"AllowedCPUs"), call.holds(b"MemoryMax")), (kept, true), "{version}");
                job(side, call, "done");
            }
        });
        result.unwrap();
        assert_eq!(called, ["StartTransientUnit", "Get", "StartTransientUnit"]);
    }
    // What it refuses again is not ours to leave out.
    let (result, _) = start(|side, call| match &*call.member {
        "Get" => side.answer(call, &[Value::variant(Value::text("252"))]),
        _ => side.refuse(call, "org.freedesktop.DBus.Error.PropertyReadOnly", "Cannot set property Nonsense."),
    });
    assert_eq!(result.unwrap_err(), "start the systemd unit tare-c1.scope: Cannot set property Nonsense.");
}

#[test]
fn a_refusal_says_what_helps() {
    for (name, part) in [
        ("org.freedesktop.DBus.Error.AccessDenied", "no; this user may not manage units there: be root"),
        ("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", "no; this user may not manage units there"),
        ("org.freedesktop.DBus.Error.ServiceUnknown", "no; no systemd is on the bus"),
    ] {
        let (result, _) = start(move |side, call| side.refuse(call, name, "no"));
        let error = result.unwrap_err();
        assert!(error.starts_with("start the systemd unit tare-c1.scope: ") && error.contains(part), "{error}");
    }
}

#[test]
fn a_systemd_that_hangs_is_not_waited_for_without_end() {
    let (result, _) = start(|_, _| {});
    let error = result.unwrap_err();
    assert!(error.starts_with("start the systemd unit tare-c1.scope ("), "{error}");
    assert!(error.ends_with("): no answer came within 1 s"), "{error}");
    // A job without an end as well.
    let (result, called) = start(|side, call| side.answer(call, &[Value::Path("/job/1".into())]));
    assert!(result.unwrap_err().ends_with("): no answer came within 1 s"));
    assert_eq!(called, ["StartTransientUnit", "ResetFailedUnit"]);
}

#[test]
fn a_stop_leaves_nothing_and_works_twice() {
    let (result, called) = talk(
        false,
        |side, call| match &*call.member {
            "StopUnit" => job(side, call, "done"),
            _ => side.refuse(call, "org.freedesktop.systemd1.NoSuchUnit", "Unit not loaded."),
        },
        |systemd| systemd.stop(&saved()),
    );
    result.unwrap();
    assert_eq!(called, ["StopUnit", "ResetFailedUnit"]);
    let gone = |side: &mut Side, call: &Message| side.refuse(call, "org.freedesktop.systemd1.NoSuchUnit", "no");
    let (result, called) = talk(false, gone, |systemd| systemd.stop(&saved()));
    result.unwrap();
    assert_eq!(called, ["StopUnit"]);
}

#[test]
fn a_change_and_a_further_process_are_one_call() {
    let (result, called) = talk(
        false,
        |side, call| {
            let expected = if call.member == "SetUnitProperties" { "sba(sv)" } else { "ssau" };
            assert_eq!(call.signature, expected);
            side.answer(call, &[]);
        },
        |systemd| systemd.set(&saved(), vec![property("TasksMax", 0)]).and_then(|()| systemd.attach(&saved(), 7)),
    );
    result.unwrap();
    assert_eq!(called, ["SetUnitProperties", "AttachProcessesToUnit"]);
}

#[test]
fn without_a_systemd_it_is_said_where_it_was_looked_for() {
    let nowhere = |path: &str| Candidate { socket: crate::dbus::address::Socket::Path(path.into()), link: Link::Peer };
    let candidates = [nowhere("/nonexistent/a"), nowhere("/nonexistent/b")];
    let error = Systemd::connect_to(Domain::System, &candidates, PATIENCE).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert_eq!(
        error.to_string(),
        "ask the host's systemd for a cgroup (/nonexistent/a: no such file or directory; /nonexistent/b: no such file or \
         directory): it does not run here; or use --cgroup-manager cgroupfs"
    );
    let error = Systemd::connect_to(Domain::User, &candidates, PATIENCE).unwrap_err().to_string();
    assert!(error.contains("the user's systemd") && error.contains("loginctl enable-linger"), "{error}");
    // The second is asked where the first is not there.
    let mock = Mock::new();
    let found = Systemd::connect_to(Domain::System, &[nowhere("/nonexistent/a"), candidate(&mock, false)], PATIENCE);
    assert_eq!(found.unwrap().socket, mock.socket().to_string());
}

#[test]
fn the_user_s_units_lie_below_what_the_manager_says() {
    let (result, _) = talk(
        true,
        |side, call| side.answer(call, &[Value::variant(Value::text("/"))]),
        |systemd| {
            systemd.domain = Domain::User;
            systemd.site()
        },
    );
    assert_eq!(result.unwrap(), Site { domain: Domain::User, base: String::new() });
    for (text, expected) in [
        ("0::/user.slice/user@7.service/init.scope\n", Some("/user.slice/user@7.service/init.scope")),
        ("4:cpu:/x\n1:name=systemd:/init.scope\n0::/y\n", Some("/init.scope")),
        ("4:cpu:/x\n", None),
    ] {
        assert_eq!(own_cgroup(text), expected);
    }
}
