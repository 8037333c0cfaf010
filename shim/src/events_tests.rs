use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tare_proto::forward_ttrpc::{Events, create_events};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use ttrpc::r#async::{Server, TtrpcContext};
use ttrpc::get_status;

use super::*;

fn run<F: Future>(what: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // What never comes shall be a failure, not a test that hangs.
    let what = async { timeout(Duration::from_secs(120), what).await.expect("an event that does not come") };
    tokio::task::LocalSet::new().block_on(&runtime, what)
}

/// A daemon that notes what it is told, and refuses the first few.
struct Told {
    to: UnboundedSender<Envelope>,
    refuses: AtomicU32,
    code: Code,
    /// What it takes for each.
    takes: Duration,
}

#[async_trait::async_trait]
impl Events for Told {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<tare_proto::Empty> {
        tokio::time::sleep(self.takes).await;
        let refuses = self.refuses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if refuses.is_ok() {
            return Err(ttrpc::Error::RpcStatus(get_status(self.code, "not this one")));
        }
        self.to.send(request.envelope.unwrap()).unwrap();
        Ok(tare_proto::Empty::default())
    }
}

async fn daemon(path: &Path, refuses: u32, code: Code) -> (Server, UnboundedReceiver<Envelope>) {
    let (to, told) = unbounded_channel();
    (served(path, Told { to, refuses: AtomicU32::new(refuses), code, takes: Duration::ZERO }).await, told)
}

async fn served(path: &Path, told: Told) -> Server {
    // The one before died, its socket is still there.
    let _ = std::fs::remove_file(path);
    let services: HashMap<_, _> = create_events(Arc::new(told));
    let listener = UnixListener::bind(path).unwrap();
    let mut server = Server::new().add_listener(listener.try_into().unwrap()).register_service(services);
    server.start().await.unwrap();
    server
}

fn publisher(daemon: Daemon) -> Publisher {
    Publisher::new(PublisherConfig { daemon, namespace: "ns".into() }, Rc::default())
}

fn event(number: usize) -> Any {
    Any { type_url: "test".into(), value: number.to_string().into_bytes(), ..Any::default() }
}

fn number(event: &Envelope) -> usize {
    std::str::from_utf8(&event.event.value).unwrap().parse().unwrap()
}

async fn numbers(told: &mut UnboundedReceiver<Envelope>, count: usize) -> Vec<usize> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        numbers.push(number(&told.recv().await.unwrap()));
    }
    numbers
}

#[test]
fn an_envelope_says_all() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        let (_server, mut told) = daemon(&path, 0, Code::OK).await;
        let publisher = publisher(Daemon::Ttrpc(format!("unix://{}", path.display())));
        let before = Timestamp::from(SystemTime::now());
        publisher.publish("/tasks/exit", event(7));
        let envelope = told.recv().await.unwrap();
        assert_eq!((envelope.namespace.as_str(), envelope.topic.as_str()), ("ns", "/tasks/exit"));
        assert_eq!(*envelope.event, event(7));
        assert!((before.seconds, before.nanos) <= (envelope.timestamp.seconds, envelope.timestamp.nanos));
        publisher.flush(Duration::from_secs(60)).await;
        assert_eq!(publisher.queued(), 0);
    });
}

#[test]
fn a_daemon_that_goes_and_comes_back_gets_all_once_and_in_order() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        let publisher = publisher(Daemon::Ttrpc(path.display().to_string()));
        let mut next = 0;
        let mut publish = |count: usize| {
            for _ in 0..count {
                publisher.publish("/t", event(next));
                next += 1;
            }
        };
        // Before it was ever there, three lives of it, and a gap after each.
        publish(10);
        let mut seen = Vec::new();
        for life in 0..3 {
            let (mut server, mut told) = daemon(&path, 0, Code::OK).await;
            publish(5);
            seen.extend(numbers(&mut told, if life == 0 { 15 } else { 10 }).await);
            publisher.flush(Duration::from_secs(60)).await;
            server.shutdown().await.unwrap();
            assert!(told.try_recv().is_err(), "the daemon was told more than there was");
            publish(5);
            assert_eq!(publisher.queued(), 5);
        }
        assert_eq!(seen, (0..35).collect::<Vec<_>>());
    });
}

#[test]
fn one_without_an_answer_is_sent_again_before_the_next() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        // A daemon that dies with the first request half read.
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let publisher = publisher(Daemon::Ttrpc(path.display().to_string()));
        publisher.publish("/t", event(0));
        publisher.publish("/t", event(1));
        let (mut peer, _) = listener.accept().await.unwrap();
        tokio::io::AsyncReadExt::read_exact(&mut peer, &mut [0; 12]).await.unwrap();
        drop((peer, listener));
        let (_server, mut told) = daemon(&path, 0, Code::OK).await;
        assert_eq!(numbers(&mut told, 2).await, [0, 1]);
    });
}

#[test]
fn a_refusal_does_not_stop_the_rest() {
    let cases = [
        // Wrong once is wrong for ever.
        (1, Code::INVALID_ARGUMENT, vec![1, 2]),
        // A failure of the daemon passes.
        (REFUSALS - 1, Code::UNAVAILABLE, vec![0, 1, 2]),
        (REFUSALS, Code::INTERNAL, vec![1, 2]),
    ];
    for (refuses, code, expected) in cases {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("d");
            let (_server, mut told) = daemon(&path, refuses, code).await;
            let publisher = publisher(Daemon::Ttrpc(path.display().to_string()));
            (0..3).for_each(|number| publisher.publish("/t", event(number)));
            assert_eq!(numbers(&mut told, expected.len()).await, expected, "{code:?}");
        });
    }
}

#[test]
fn beyond_the_limit_the_oldest_go() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        let publisher = publisher(Daemon::Ttrpc(path.display().to_string()));
        publisher.publish("/t", event(0));
        // It is in flight, so it stays.
        while publisher.queue.as_ref().is_some_and(|queue| !queue.in_flight.get()) {
            tokio::task::yield_now().await;
        }
        (1..=LIMIT + 3).for_each(|number| publisher.publish("/t", event(number)));
        assert_eq!(publisher.queued(), LIMIT + 1);
        publisher.flush(Duration::from_millis(1)).await;
        let (_server, mut told) = daemon(&path, 0, Code::OK).await;
        let expected: Vec<usize> = [0].into_iter().chain(4..=LIMIT + 3).collect();
        assert_eq!(numbers(&mut told, LIMIT + 1).await, expected);
    });
}

#[test]
fn a_slow_daemon_gets_all_before_the_end_and_one_that_takes_none_holds_nobody() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        let (to, mut told) = unbounded_channel();
        let slow = Told { to, refuses: AtomicU32::new(0), code: Code::OK, takes: Duration::from_millis(300) };
        let mut server = served(&path, slow).await;
        let publisher = publisher(Daemon::Ttrpc(path.display().to_string()));
        (0..10).for_each(|number| publisher.publish("/t", event(number)));
        // More than one takes, less than all take.
        publisher.flush(Duration::from_secs(2)).await;
        assert_eq!(publisher.queued(), 0);
        assert_eq!(numbers(&mut told, 10).await, (0..10).collect::<Vec<_>>());
        server.shutdown().await.unwrap();
        publisher.publish("/t", event(10));
        publisher.flush(Duration::from_millis(1)).await;
        assert_eq!(publisher.queued(), 1);
    });
}

#[test]
fn a_program_is_told_one_by_one_until_it_takes_it() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("publish");
        // Fails the first time; then notes its arguments and the number at the end of the event.
        let script = "#!/bin/sh\ncd \"${0%/*}\" || exit\n[ -e again ] || { : >again; exit 1; }\n\
                      { echo \"$@\"; tail -c 1; echo; } >>told\n";
        std::fs::write(&binary, script).unwrap();
        std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
        let publisher = publisher(Daemon::Binary { binary, address: "/run/d.sock".into() });
        publisher.publish("/tasks/start", event(1));
        publisher.publish("/tasks/exit", event(2));
        publisher.flush(Duration::from_secs(60)).await;
        assert_eq!(
            std::fs::read_to_string(dir.path().join("told")).unwrap(),
            "--address /run/d.sock publish --topic /tasks/start --namespace ns\n1\n\
             --address /run/d.sock publish --topic /tasks/exit --namespace ns\n2\n"
        );
    });
}

#[test]
fn nobody_is_told_nothing() {
    run(async {
        let publisher = publisher(Daemon::Nobody);
        publisher.publish("/t", event(1));
        assert_eq!(publisher.queued(), 0);
        publisher.flush(Duration::from_secs(60)).await;
    });
}
