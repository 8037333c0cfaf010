//! A mock: the other end of a connection, played by a test. It knows the handshake, reads calls and answers what it is told
//! to; it is no bus and no systemd, and what those do is shown where they run (`integration`).

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use super::address::Socket;
use super::reading::{FIXED, Message, whole_length};
use super::value::Value;
use super::wire::{self, field};

/// A socket that waits for a connection; removed at the end.
pub(crate) struct Mock {
    listener: UnixListener,
    path: PathBuf,
}

/// An accepted connection.
pub(crate) struct Side {
    /// The bytes themselves.
    pub stream: UnixStream,
    /// What it calls itself; nothing for a peer.
    pub name: String,
    serial: u32,
}

impl Mock {
    pub(crate) fn new() -> Self {
        let path = crate::testing::unique_path("bus");
        Self { listener: UnixListener::bind(&path).unwrap(), path }
    }

    pub(crate) fn socket(&self) -> Socket {
        Socket::Path(self.path.clone())
    }

    /// Takes a connection, and says nothing.
    pub(crate) fn accept(&self) -> Side {
        Side { stream: self.listener.accept().unwrap().0, name: String::new(), serial: 0 }
    }

    /// Takes a connection and believes it.
    pub(crate) fn greet(&self) -> Side {
        let mut side = self.accept();
        side.introduced();
        side
    }

    /// The same as a bus, which is greeted and asked for signals; calls itself what its systemd would be called.
    pub(crate) fn greet_as_bus(&self) -> Side {
        let mut side = self.greet();
        side.name = ":1.1".to_owned();
        for member in ["Hello", "AddMatch"] {
            let call = side.call();
            assert_eq!((&*call.interface, &*call.member), ("org.freedesktop.DBus", member));
            side.answer(&call, &[]);
        }
        side
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Side {
    /// Reads who is there, and answers as a bus does: nothing before it has been told to begin.
    fn introduced(&mut self) {
        let answers: &[u8] = match self.line().as_str() {
            "\0AUTH EXTERNAL" => {
                assert_eq!(self.line(), "DATA");
                b"DATA\r\nOK 1234\r\n"
            }
            line => {
                assert!(line.starts_with("\0AUTH EXTERNAL "), "{line}");
                b"OK 1234\r\n"
            }
        };
        assert_eq!(self.line(), "BEGIN");
        // A systemd that reads more than that in one go leaves the rest until there is still more.
        self.stream.set_nonblocking(true).unwrap();
        assert!(self.stream.read(&mut [0]).is_err(), "a message came before the answer");
        self.stream.set_nonblocking(false).unwrap();
        self.stream.write_all(answers).unwrap();
    }

    /// A line of the handshake, without its end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).unwrap();
            line.extend(byte);
        }
        String::from_utf8(line[..line.len() - 2].to_vec()).unwrap()
    }

    /// The next call.
    pub(crate) fn call(&mut self) -> Message {
        self.next_call().expect("a call was expected")
    }

    /// The next call; none at the end of the connection.
    pub(crate) fn next_call(&mut self) -> Option<Message> {
        let mut bytes = vec![0; FIXED];
        self.stream.read_exact(&mut bytes).ok()?;
        let length = whole_length(bytes.first_chunk().unwrap()).unwrap();
        bytes.resize(length, 0);
        self.stream.read_exact(&mut bytes[FIXED..]).unwrap();
        Message::parse(&bytes)
    }

    pub(crate) fn answer(&mut self, call: &Message, arguments: &[Value]) {
        self.send(2, vec![(field::REPLY_SERIAL, Value::U32(call.serial))], arguments);
    }

    pub(crate) fn refuse(&mut self, call: &Message, name: &str, text: &str) {
        let fields = vec![(field::REPLY_SERIAL, Value::U32(call.serial)), (field::ERROR_NAME, Value::text(name))];
        self.send(3, fields, &[Value::text(text)]);
    }

    /// Tells the end of a job.
    pub(crate) fn job_removed(&mut self, job: &str, unit: &str, result: &str) {
        let fields = vec![
            (field::PATH, Value::Path("/org/freedesktop/systemd1".into())),
            (field::INTERFACE, Value::text("org.freedesktop.systemd1.Manager")),
            (field::MEMBER, Value::text("JobRemoved")),
        ];
        let arguments = [Value::U32(1), Value::Path(job.into()), Value::text(unit), Value::text(result)];
        self.send(4, fields, &arguments);
    }

    fn send(&mut self, typ: u8, mut fields: Vec<(u8, Value)>, arguments: &[Value]) {
        if !self.name.is_empty() {
            fields.push((field::SENDER, Value::text(&*self.name)));
        }
        self.serial += 1;
        // Whoever has hung up is not told.
        let _ = self.stream.write_all(&wire::message(typ, self.serial, &fields, arguments));
    }
}
