//! A client of the CRI, as the kubelet is one: gRPC with one answer a call, over containerd's unix socket.
//!
//! ```no_run
//! # use integration::{cri_client::Cri, shim_client::block_on};
//! # use tare_proto::cri::StopPodSandboxRequest;
//! block_on(async {
//!     let cri = Cri::connect("/run/containerd/containerd.sock".as_ref()).await.unwrap();
//!     cri.call(StopPodSandboxRequest { pod_sandbox_id: "some-id".into(), ..Default::default() }).await.unwrap();
//! });
//! ```
//!
//! On the wire a call is one HTTP/2 stream: a POST to `/runtime.v1.SERVICE/METHOD` whose body is a byte (0: not compressed), the
//! length in four bytes, and the message; an answer comes in the same form, and the trailers say how the call ended. A refusal may
//! have nothing but headers, which then say so. Every call has the deadline of [`crate::wait`].

use std::path::Path;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, StatusCode};
use tare_proto::Message;
use tare_proto::cri::*;
use tokio::net::UnixStream;
use tokio::time::timeout_at;

use crate::wait;

/// A connection. It ends with the event loop it was made in.
pub struct Cri {
    requests: SendRequest<Bytes>,
}

/// What a method of the CRI is asked.
pub trait Call: Message {
    /// The method's service.
    const SERVICE: &'static str;
    /// What it answers.
    type Answer: Message;
}

macro_rules! calls {
    ($($service:literal: $($request:ident -> $answer:ident),*;)*) => {
        $($(impl Call for $request {
            const SERVICE: &'static str = $service;
            type Answer = $answer;
        })*)*
    };
}

calls! {
    "RuntimeService":
        RunPodSandboxRequest -> RunPodSandboxResponse,
        StopPodSandboxRequest -> StopPodSandboxResponse,
        RemovePodSandboxRequest -> RemovePodSandboxResponse,
        CreateContainerRequest -> CreateContainerResponse,
        StartContainerRequest -> StartContainerResponse,
        StopContainerRequest -> StopContainerResponse,
        RemoveContainerRequest -> RemoveContainerResponse,
        UpdateContainerResourcesRequest -> UpdateContainerResourcesResponse,
        ContainerStatusRequest -> ContainerStatusResponse,
        ContainerStatsRequest -> ContainerStatsResponse,
        ExecSyncRequest -> ExecSyncResponse,
        ExecRequest -> ExecResponse,
        AttachRequest -> AttachResponse,
        PortForwardRequest -> PortForwardResponse;
    "ImageService":
        ImageStatusRequest -> ImageStatusResponse;
}

impl Cri {
    /// Connects to the socket of a containerd.
    pub async fn connect(socket: &Path) -> Result<Cri, String> {
        let stream = UnixStream::connect(socket).await.map_err(|e| format!("connect to {}: {e}", socket.display()))?;
        let (requests, connection) =
            h2::client::handshake(stream).await.map_err(|e| format!("open {}: {e}", socket.display()))?;
        // A broken connection fails the calls, which say it.
        tokio::spawn(connection);
        Ok(Cri { requests })
    }

    /// Calls the method whose request this is.
    pub async fn call<Q: Call>(&self, request: Q) -> Result<Q::Answer, String> {
        let method = Q::NAME.trim_end_matches("Request");
        match timeout_at(wait::deadline().into(), self.exchange(method, &request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(problem)) => Err(format!("{method}: {problem}")),
            Err(_) => Err(format!("{method}: the deadline passed")),
        }
    }

    async fn exchange<Q: Call>(&self, method: &str, request: &Q) -> Result<Q::Answer, String> {
        let failed = |e: h2::Error| e.to_string();
        let head = Request::post(format!("http://localhost/runtime.v1.{}/{method}", Q::SERVICE))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("a request");
        let mut requests = self.requests.clone().ready().await.map_err(failed)?;
        let (answer, mut body) = requests.send_request(head, false).map_err(failed)?;
        body.send_data(frame(request), true).map_err(failed)?;

        let answer = answer.await.map_err(failed)?;
        if answer.status() != StatusCode::OK {
            return Err(format!("HTTP status {}", answer.status()));
        }
        let (head, mut body) = answer.into_parts();
        let mut bytes = Vec::new();
        while let Some(part) = body.data().await {
            let part = part.map_err(failed)?;
            body.flow_control().release_capacity(part.len()).map_err(failed)?;
            bytes.extend_from_slice(&part);
        }
        let trailers = body.trailers().await.map_err(failed)?;
        check(trailers.as_ref().unwrap_or(&head.headers))?;
        Q::Answer::parse_from_bytes(content(&bytes)?).map_err(|e| e.to_string())
    }
}

fn frame(message: &impl Message) -> Bytes {
    let message = message.write_to_bytes().expect("a message of proto3 can be written");
    let length = u32::try_from(message.len()).expect("a test's message is short");
    [&[0], &length.to_be_bytes()[..], &message].concat().into()
}

/// The one message of an answer.
fn content(bytes: &[u8]) -> Result<&[u8], String> {
    let (head, message) = bytes.split_at_checked(5).ok_or("an answer without a message")?;
    if head[0] != 0 || usize::try_from(u32::from_be_bytes([head[1], head[2], head[3], head[4]])) != Ok(message.len()) {
        return Err(format!("not one uncompressed message: {head:?} before {} bytes", message.len()));
    }
    Ok(message)
}

fn check(end: &HeaderMap) -> Result<(), String> {
    let field = |name| end.get(name).map_or("", |value| value.to_str().unwrap_or("not text"));
    match field("grpc-status") {
        "0" => Ok(()),
        status => Err(format!("gRPC status {status}: {}", field("grpc-message"))),
    }
}
