//! The streams of exec, attach and portforward: a WebSocket to where the CRI said, on the loopback of a [`World`].
//!
//! Each message is of one channel, whose number is its first byte (Kubernetes' subprotocol `v4.channel.k8s.io`):
//!
//! | | 0 | 1 | 2 | 3 | 4 |
//! |---|---|---|---|---|---|
//! | exec, attach | standard input | output | errors | how it ended, as JSON | the terminal's size, as JSON |
//! | portforward, first port | data | what went wrong | | | |
//!
//! A forwarded port's two channels begin with the port, in two bytes. No channel can be ended alone.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::time::Instant;

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::{Message, WebSocket};

use crate::wait;
use crate::world::World;

/// The standard input, or a forwarded port's data.
pub const INPUT: u8 = 0;
/// The standard output.
pub const OUTPUT: u8 = 1;
/// The standard error.
pub const ERRORS: u8 = 2;
/// How it ended.
pub const STATUS: u8 = 3;
const SIZE: u8 = 4;

/// An open connection, and what has come through it so far.
pub struct Channels {
    socket: WebSocket<TcpStream>,
    came: BTreeMap<u8, Vec<u8>>,
}

impl Channels {
    /// Connects to a URL that the CRI answered.
    pub fn open(world: &World, url: &str) -> Result<Channels, String> {
        let failed = |problem: String| format!("open {url}: {problem}");
        let rest = url.strip_prefix("http://127.0.0.1:").ok_or_else(|| failed("not on the loopback".into()))?;
        let port = rest.split('/').next().unwrap_or_default().parse().map_err(|_| failed("no port".into()))?;
        let stream = world.connect(port).map_err(|e| failed(e.to_string()))?;
        let left = wait::deadline().saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(left)).map_err(|e| failed(e.to_string()))?;
        let mut request = format!("ws://127.0.0.1:{rest}").into_client_request().map_err(|e| failed(e.to_string()))?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static("v4.channel.k8s.io"));
        let (socket, _) = tungstenite::client(request, stream).map_err(|e| failed(e.to_string()))?;
        Ok(Channels { socket, came: BTreeMap::new() })
    }

    /// Sends to a channel.
    pub fn send(&mut self, channel: u8, bytes: &[u8]) -> Result<(), String> {
        let message = Message::binary([&[channel], bytes].concat());
        self.socket.send(message).map_err(|e| format!("send to channel {channel}: {e}"))
    }

    /// Tells the terminal's size.
    pub fn resize(&mut self, rows: u16, columns: u16) -> Result<(), String> {
        self.send(SIZE, json!({"Width": columns, "Height": rows}).to_string().as_bytes())
    }

    /// Reads until this has come through the channel; returns all that has.
    pub fn until(&mut self, channel: u8, ending: &str) -> Result<String, String> {
        loop {
            let text = self.text(channel);
            if text.ends_with(ending) {
                return Ok(text);
            }
            if !self.read()? {
                return Err(format!("channel {channel} ended without {ending:?}: {:?}", self.came));
            }
        }
    }

    /// Reads to the end; returns all that came through the outputs' channels, and how it ended.
    pub fn finish(mut self) -> Result<(String, String, Value), String> {
        while self.read()? {}
        let status = self.text(STATUS);
        let status = serde_json::from_str(&status).map_err(|e| format!("{e} in the status {status:?}"))?;
        Ok((self.text(OUTPUT), self.text(ERRORS), status))
    }

    /// What has come through the channel.
    pub fn text(&self, channel: u8) -> String {
        String::from_utf8_lossy(self.came.get(&channel).map_or(&[], Vec::as_slice)).into_owned()
    }

    /// Reads a message; false is the end.
    fn read(&mut self) -> Result<bool, String> {
        match self.socket.read() {
            Ok(Message::Binary(bytes)) => {
                let (channel, bytes) = bytes.split_first().ok_or("a message without a channel")?;
                self.came.entry(*channel).or_default().extend_from_slice(bytes);
                Ok(true)
            }
            Ok(Message::Close(_)) => Ok(false),
            Ok(_) => Ok(true),
            // The server closes the connection without many words.
            Err(tungstenite::Error::ConnectionClosed) => Ok(false),
            Err(problem) => Err(format!("read from the stream: {problem}; {:?}", self.came)),
        }
    }
}

/// The exit status in how an exec ended.
pub fn exit_status(status: &Value) -> Option<u32> {
    if status["status"] == "Success" {
        return Some(0);
    }
    let causes = status["details"]["causes"].as_array()?;
    causes.iter().find(|it| it["reason"] == "ExitCode")?["message"].as_str()?.parse().ok()
}
