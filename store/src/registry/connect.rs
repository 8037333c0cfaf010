//! One connection: resolved, through a proxy if the environment says so, with TLS if the address does.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::registry::proxies::Routes;
use crate::registry::{dns, tls};

/// After how long the next address is tried beside the last one (RFC 8305, 5).
const STAGGER: Duration = Duration::from_millis(250);
/// What a proxy's answer to CONNECT may have, in bytes.
const PROXY_ANSWER: usize = 8 << 10;

/// Why there is no connection.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) why: Why,
    pub(super) message: String,
}

/// What can be done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// Perhaps later.
    Unreachable,
    /// There is no such host.
    Unknown,
    /// The peer does not speak TLS.
    NotTls,
    /// A certificate is not believed.
    Certificate,
    /// Something must be configured differently.
    Configuration,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refused {}

fn refused(why: Why, message: impl Into<String>) -> Refused {
    Refused { why, message: message.into() }
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection, whatever it is made of.
pub(super) struct Stream {
    io: TokioIo<Box<dyn Duplex>>,
    /// Requests name the whole address: a proxy forwards them.
    forwarded: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.forwarded)
    }
}

impl Read for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }
}

/// Makes the connections of one [`tls::Trust`].
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) tls: Arc<ClientConfig>,
    pub(super) proxies: Arc<Routes>,
    pub(super) patience: Duration,
}

impl tower_service::Service<Uri> for Connector {
    type Response = Stream;
    type Error = Refused;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Refused>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Refused>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let late = |_| refused(Why::Unreachable, format!("no connection came about in {:?}", this.patience));
            tokio::time::timeout(this.patience, this.connect(&uri)).await.map_err(late)?
        })
    }
}

impl Connector {
    async fn connect(&self, uri: &Uri) -> Result<Stream, Refused> {
        let host = uri.host().ok_or_else(|| refused(Why::Configuration, "the address has no host"))?;
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let Some(proxy) = self.proxies.to(uri) else {
            let tcp: Box<dyn Duplex> = Box::new(dial(host, port).await?);
            let io = if secure { self.handshake(tcp, host).await? } else { tcp };
            return Ok(Stream { io: TokioIo::new(io), forwarded: false });
        };
        let mut io = self.to_proxy(&proxy).await?;
        if !secure {
            return Ok(Stream { io: TokioIo::new(io), forwarded: true });
        }
        tunnel(&mut io, &proxy, host, port).await?;
        Ok(Stream { io: TokioIo::new(self.handshake(io, host).await?), forwarded: false })
    }

    async fn to_proxy(&self, proxy: &Intercept) -> Result<Box<dyn Duplex>, Refused> {
        let uri = proxy.uri();
        let host = uri.host().unwrap_or_default();
        let (secure, port) = match uri.scheme_str() {
            Some("http") | None => (false, 80),
            Some("https") => (true, 443),
            Some(other) => {
                return Err(refused(
                    Why::Configuration,
                    format!("the proxy {host} is one of {other}, and only those of http and https are spoken to"),
                ));
            }
        };
        let within = |it: Refused| refused(it.why, format!("the proxy {host}: {it}"));
        let tcp: Box<dyn Duplex> = Box::new(dial(host, uri.port_u16().unwrap_or(port)).await.map_err(within)?);
        if secure { self.handshake(tcp, host).await.map_err(within) } else { Ok(tcp) }
    }

    async fn handshake(&self, io: Box<dyn Duplex>, host: &str) -> Result<Box<dyn Duplex>, Refused> {
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare)
            .map_err(|_| refused(Why::Configuration, format!("{host} cannot be the name in a certificate")))?;
        match TlsConnector::from(Arc::clone(&self.tls)).connect(name, io).await {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) if tls::is_no_tls(&error) => Err(refused(Why::NotTls, "it does not speak TLS")),
            Err(error) if tls::is_certificate(&error) => Err(refused(Why::Certificate, format!("TLS: {error}"))),
            Err(error) => Err(refused(Why::Unreachable, format!("TLS: {error}"))),
        }
    }
}

/// Whether this is surely this very host, by its name alone.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    dns::is_localhost(bare) || bare.parse::<IpAddr>().is_ok_and(|it| it.is_loopback())
}

/// The first of a host's addresses that answers; each has a head start on the next.
async fn dial(host: &str, port: u16) -> Result<TcpStream, Refused> {
    let addresses = dns::resolve(host).await.map_err(|error| {
        let why = if error.kind() == io::ErrorKind::NotFound { Why::Unknown } else { Why::Unreachable };
        refused(why, format!("its name cannot be resolved: {error}"))
    })?;
    let mut addresses = alternating(addresses).into_iter();
    let mut tries = JoinSet::new();
    let mut failure: Option<(SocketAddr, io::Error)> = None;
    loop {
        let next = addresses.next();
        let is_last = next.is_none();
        if let Some(address) = next {
            let address = SocketAddr::from((address, port));
            tries.spawn(async move { TcpStream::connect(address).await.map_err(|error| (address, error)) });
        }
        let ended = if is_last {
            tries.join_next().await
        } else {
            match tokio::time::timeout(STAGGER, tries.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            }
        };
        match ended {
            Some(Ok(Ok(stream))) => {
                // Requests are small, and whole.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Some(Ok(Err(error))) => failure = failure.or(Some(error)),
            Some(Err(error)) => return Err(refused(Why::Unreachable, error.to_string())),
            None if is_last => break,
            None => {}
        }
    }
    Err(match failure {
        Some((address, error)) => refused(Why::Unreachable, format!("connect to {address}: {error}")),
        None => refused(Why::Unknown, "it has no address"),
    })
}

/// Families in turn, so that a broken one costs one head start.
fn alternating(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let (first, second): (Vec<_>, Vec<_>) = {
        let leading = addresses.first().is_some_and(IpAddr::is_ipv4);
        addresses.into_iter().partition(|it| it.is_ipv4() == leading)
    };
    let mut second = second.into_iter();
    let mut found: Vec<IpAddr> = first.into_iter().flat_map(|it| std::iter::once(it).chain(second.next())).collect();
    found.extend(second);
    found
}

/// Asks a proxy for a connection to the registry (RFC 9110, 9.3.6).
async fn tunnel(io: &mut Box<dyn Duplex>, proxy: &Intercept, host: &str, port: u16) -> Result<(), Refused> {
    let name = proxy.uri().host().unwrap_or_default().to_owned();
    let cut = |error: io::Error| refused(Why::Unreachable, format!("the proxy {name}: {error}"));
    let authorization = proxy.basic_auth().and_then(|it: &HeaderValue| it.to_str().ok().map(str::to_owned));
    let authorization = authorization.map(|it| format!("Proxy-Authorization: {it}\r\n")).unwrap_or_default();
    let request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{authorization}\r\n");
    io.write_all(request.as_bytes()).await.map_err(cut)?;
    io.flush().await.map_err(cut)?;
    let mut answer = Vec::new();
    // By single bytes: what follows the answer belongs to the registry.
    while !answer.ends_with(b"\r\n\r\n") && answer.len() < PROXY_ANSWER {
        answer.push(io.read_u8().await.map_err(cut)?);
    }
    let line = String::from_utf8_lossy(&answer);
    let line = line.lines().next().unwrap_or_default();
    match line.split(' ').nth(1) {
        Some(status) if line.starts_with("HTTP/1.") && status.starts_with('2') => Ok(()),
        Some("407") => Err(refused(
            Why::Configuration,
            format!("the proxy {name} wants credentials: put them into its address, http://USER:PASSWORD@{name}"),
        )),
        _ => Err(refused(
            Why::Unreachable,
            format!("the proxy {name} makes no connection to it: {}", crate::registry::shortened(line)),
        )),
    }
}
