//! What clients write to a process.

use super::*;

#[test]
fn input_ends_when_closed_and_the_clients_are_gone() {
    run(async {
        let client = Client::new();
        let (mut io, mut child) = client.open().await;
        io.start().unwrap();
        let process = stdin(&mut child);

        let first = End::writer(client.path("stdin"));
        first.write("first ").await;
        drop(first);
        assert_eq!(process.exactly(6).await, b"first ", "and a client that detaches does not end it");
        assert!(pending(async { drop(process.exactly(1).await) }).await);

        let second = End::writer(client.path("stdin"));
        second.write("second ").await;
        io.close_stdin();
        second.write("third").await;
        assert_eq!(process.exactly(12).await, b"second third");
        assert!(pending(async { drop(process.exactly(1).await) }).await, "a client is still there");
        drop(second);
        assert_eq!(process.text().await, "");
        io.close_stdin();
    });
}

#[test]
fn input_written_before_the_start_is_not_lost() {
    run(async {
        let client = Client::new();
        let (mut io, mut child) = client.open().await;
        End::writer(client.path("stdin")).write("early").await;
        io.close_stdin();
        io.start().unwrap();
        assert_eq!(stdin(&mut child).text().await, "early");
    });
}

#[test]
fn a_process_that_does_not_read_stops_the_client_only() {
    run(async {
        let client = Client::new();
        let (mut io, mut child) = client.open().await;
        let out = End::reader(client.path("stdout"));
        io.start().unwrap();
        let (process, writer) = (stdin(&mut child), End::writer(client.path("stdin")));
        let text = (0..100_000).map(|number| format!("{number}\n")).collect::<String>().into_bytes();
        let typing = async {
            writer.write(&text).await;
            drop(writer);
            io.close_stdin();
        };
        let working = async {
            stdout(&mut child).write("busy").await;
            assert_eq!(out.text().await, "busy");
            process.all().await
        };
        let ((), read) = tokio::join!(typing, working);
        assert!(read == text);
    });
}

#[test]
fn a_process_that_closes_its_input_ends_it_for_the_client() {
    run(async {
        let client = Client::new();
        let (mut io, mut child) = client.open().await;
        io.start().unwrap();
        drop(stdin(&mut child));
        let writer = End::writer(client.path("stdin"));
        loop {
            match writer.try_write(b"nobody reads this").await {
                Ok(()) => tokio::task::yield_now().await,
                Err(error) => break assert_eq!(error, Errno::EPIPE),
            }
        }
    });
}
