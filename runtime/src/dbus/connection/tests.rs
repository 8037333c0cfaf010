//! A connection to a peer that behaves, and to those that do not.

use std::io::{Read, Write};
use std::thread;

use super::super::mock::{Mock, Side};
use super::super::reading::MAX_MESSAGE;
use super::*;

const SOON: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(20);

fn open(mock: &Mock, mapped: bool, patience: Duration) -> Result<Connection, Broken> {
    Connection::open(&mock.socket(), Link::Peer, 1000, mapped, Deadline::within(patience))
}

fn ask(connection: &mut Connection, patience: Duration) -> Result<Message, Failure> {
    let call = Call { destination: "d.d", path: "/p", interface: "i.i", member: "M", arguments: &[Value::U32(4)] };
    connection.call(&call, |signal| signal.member == "JobRemoved", Deadline::within(patience))
}

/// Connects to what `play` plays, and asks.
fn asked(mapped: bool, patience: Duration, play: impl FnOnce(&Mock) + Send) -> Result<Message, Failure> {
    let mock = Mock::new();
    thread::scope(|scope| {
        scope.spawn(|| play(&mock));
        ask(&mut open(&mock, mapped, patience)?, patience)
    })
}

#[test]
fn a_call_is_answered_or_refused() {
    let answer = asked(false, LONG, |mock| {
        let mut side = mock.greet();
        let call = side.call();
        assert_eq!((&*call.interface, &*call.member, &*call.signature), ("i.i", "M", "u"));
        side.answer(&call, &[Value::text("yes")]);
    });
    assert_eq!(answer.unwrap().body().text().as_deref(), Some("yes"));
    let refused = asked(false, LONG, |mock| {
        let mut side = mock.greet();
        let call = side.call();
        side.refuse(&call, "a.b.No", "not today");
    });
    let refusal = Refusal { name: "a.b.No".into(), message: "not today".into() };
    assert_eq!(refused, Err(Failure::Refused(refusal)));
}

#[test]
fn who_we_are_is_said_and_accepted_or_not() {
    for mapped in [false, true] {
        let answer = asked(mapped, LONG, |mock| {
            let mut side = mock.greet();
            let call = side.call();
            side.answer(&call, &[]);
        });
        assert!(answer.is_ok(), "{mapped}: {answer:?}");
        let stranger = asked(mapped, LONG, |mock| {
            let mut side = mock.accept();
            side.stream.write_all(b"REJECTED EXTERNAL\r\n").unwrap();
            linger(side);
        });
        assert_eq!(stranger, Err(Failure::Broken(Broken::Stranger)));
    }
}

#[test]
fn a_bus_is_greeted_and_asked_for_signals_in_the_same_breath() {
    let mock = Mock::new();
    let link = Link::Bus { rule: "type='signal'".into() };
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut side = mock.greet_as_bus();
            let call = side.call();
            assert_eq!(call.member, "M");
            side.answer(&call, &[]);
        });
        let mut connection = Connection::open(&mock.socket(), link.clone(), 0, false, Deadline::within(LONG)).unwrap();
        assert_eq!(ask(&mut connection, LONG).unwrap().sender, ":1.1");
    });
    // A rule that is refused is not passed over: its signals would be waited for in vain.
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut side = mock.greet();
            let (hello, rule) = (side.call(), side.call());
            side.answer(&hello, &[]);
            side.refuse(&rule, "a.b.LimitsExceeded", "too many rules");
        });
        let mut connection = Connection::open(&mock.socket(), link, 0, false, Deadline::within(LONG)).unwrap();
        assert!(
            matches!(ask(&mut connection, LONG), Err(Failure::Refused(refusal)) if refusal.message == "too many rules")
        );
    });
}

#[test]
fn signals_before_an_answer_are_kept() {
    let mock = Mock::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut side = mock.greet();
            let call = side.call();
            // More than are kept: the last ones are.
            for number in 0..KEPT + 5 {
                side.job_removed(&format!("/{number}"), "u", "done");
            }
            side.answer(&call, &[]);
            side.job_removed("/late", "u", "done");
        });
        let mut connection = open(&mock, false, LONG).unwrap();
        ask(&mut connection, LONG).unwrap();
        let job = |message: &Message| {
            let mut body = message.body();
            body.number().and_then(|_| body.text()).unwrap()
        };
        for wanted in ["/20", "/5", "/late"] {
            let signal = connection.signal(|signal| job(signal) == wanted, Deadline::within(LONG)).unwrap();
            assert_eq!(job(&signal), wanted);
        }
    });
}

/// Keeps a connection until the other end hangs up.
fn linger(mut side: Side) {
    let _ = side.stream.read_to_end(&mut Vec::new());
}

#[test]
fn who_hangs_or_babbles_is_left() {
    let silent = || Err(Failure::Broken(Broken::Silent(SOON)));
    let nonsense = || Err(Failure::Broken(Broken::Nonsense));
    assert_eq!(asked(false, SOON, |mock| linger(mock.accept())), silent(), "no handshake");
    assert_eq!(asked(false, SOON, |mock| linger(mock.greet())), silent(), "no answer");
    // A byte at a time is no way to be waited for without end.
    let dripping = asked(false, SOON, |mock| {
        let mut side = mock.accept();
        while side.stream.write_all(b"x").is_ok() {
            let pause = nix::sys::time::TimeSpec::from_duration(Duration::from_millis(20));
            let _ = nix::poll::ppoll(&mut [], Some(pause), None);
        }
    });
    assert_eq!(dripping, silent());
    let closed = asked(false, LONG, |mock| drop(mock.greet()));
    assert_eq!(closed, Err(Failure::Broken(Broken::Closed)));
    for (what, bytes) in [
        ("no message", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("a message that is too long", {
            let mut start = vec![b'l', 4, 0, 1];
            start.extend((MAX_MESSAGE as u32).to_le_bytes());
            start.extend([1, 0, 0, 0, 0, 0, 0, 0]);
            start
        }),
    ] {
        let babble = asked(false, LONG, move |mock| {
            let mut side = mock.greet();
            side.stream.write_all(&bytes).unwrap();
            linger(side);
        });
        assert_eq!(babble, nonsense(), "{what}");
    }
    let endless = asked(false, LONG, |mock| {
        let mut side = mock.accept();
        while side.stream.write_all(&[b'x'; 512]).is_ok() {}
    });
    assert_eq!(endless, nonsense(), "a line without an end");
}

#[test]
fn nobody_there_is_told() {
    let socket = Socket::Path("/nonexistent/bus".into());
    let error = Connection::open(&socket, Link::Peer, 0, false, Deadline::within(SOON)).unwrap_err();
    assert_eq!(error, Broken::System(Errno::ENOENT));
}
