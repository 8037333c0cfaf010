//! Connections and the read side: what is asked for, and what is answered.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsAcceptor;

use super::answer::{Answer, End, Flushed, Pieces, error, json, plain, set, with};
use super::{Faults, Seen, Shared, State, Tls, auth, digest, upload};

/// Why a connection ends without an answer.
pub(super) type Ends = Box<dyn std::error::Error + Send + Sync>;

pub(super) async fn serve(listener: std::net::TcpListener, tls: Option<Tls>, state: Shared) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("take the registry's socket over");
    let acceptor = tls.map(|it| TlsAcceptor::from(it.0));
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            match acceptor {
                None => connection(stream, state).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        connection(stream, state).await;
                    }
                }
            }
        });
    }
}

async fn connection(stream: impl AsyncRead + AsyncWrite + Unpin, state: Shared) {
    let flushed = Arc::<Flushed>::default();
    let stream = TokioIo::new(Watched { stream, flushed: Arc::clone(&flushed) });
    let service = service_fn(move |request| answer(Arc::clone(&state), request, Arc::clone(&flushed)));
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await;
}

/// A connection that says when all has gone out.
struct Watched<S> {
    stream: S,
    flushed: Arc<Flushed>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = std::task::ready!(Pin::new(&mut self.stream).poll_flush(cx));
        self.flushed.set();
        Poll::Ready(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

async fn answer(state: Shared, request: Request<Incoming>, flushed: Arc<Flushed>) -> Result<Answer, Ends> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let form = request.headers().get("content-type").is_some_and(|it| it == "application/x-www-form-urlencoded");
    if path == "/token" {
        let (parts, body) = request.into_parts();
        let body = if form { body.collect().await?.to_bytes() } else { Bytes::new() };
        let body = String::from_utf8_lossy(&body).into_owned();
        let request = Request::from_parts(parts, ());
        let mut state = state.lock().unwrap();
        state.seen.push(seen(&request, &body));
        if let Some(answer) = instead(&mut state, &request) {
            return Ok(answer);
        }
        let by_post = request.method() == Method::POST;
        return Ok(auth::token(&mut state, &request, if by_post { &body } else { &query }, by_post));
    }
    {
        let mut state = state.lock().unwrap();
        state.seen.push(seen(&request, ""));
        if let Some(answer) = instead(&mut state, &request) {
            return Ok(answer);
        }
    }
    let Some(rest) = path.strip_prefix("/v2/") else { return Ok(plain(StatusCode::NOT_FOUND)) };
    let place = ["/blobs/uploads", "/blobs/", "/manifests/", "/tags/list", "/referrers/"]
        .iter()
        .find_map(|part| rest.split_once(part).map(|(name, behind)| (*part, name.to_owned(), behind.to_owned())));
    let writes = !matches!(*request.method(), Method::GET | Method::HEAD) || rest.contains("/blobs/uploads/");
    let name = place.as_ref().map_or("", |(_, name, _)| name.as_str());
    let refused = auth::check(&state.lock().unwrap(), &request, name, writes);
    if let Some(refused) = refused {
        return Ok(refused);
    }
    let Some((part, name, behind)) = place else { return Ok(json(StatusCode::OK, &serde_json::json!({}))) };
    match (part, request.method().as_str()) {
        ("/blobs/uploads", _) => upload::uploads(state, request, &name, behind.trim_start_matches('/')).await,
        ("/manifests/", "PUT") => upload::put_manifest(state, request, &name, &behind).await,
        ("/blobs/", "GET" | "HEAD") => Ok(blob(&mut state.lock().unwrap(), &request, &name, &behind, flushed)),
        ("/manifests/", "GET" | "HEAD") => Ok(manifest(&state.lock().unwrap(), &request, &name, &behind)),
        ("/tags/list", "GET") => Ok(tags(&state.lock().unwrap(), &name, &query)),
        ("/referrers/", "GET") => Ok(referrers(&state.lock().unwrap(), &name, &behind)),
        _ => Ok(error(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "the operation is unsupported")),
    }
}

fn seen(request: &Request<impl Sized>, form: &str) -> Seen {
    let header = |name: &str| request.headers().get(name).and_then(|it| it.to_str().ok()).map(str::to_owned);
    let text = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    Seen {
        method: request.method().to_string(),
        path: request.uri().to_string(),
        host: header("host").unwrap_or_default(),
        authorization: header("authorization"),
        range: header("range"),
        form: form.to_owned(),
        headers: request.headers().iter().map(text).collect(),
    }
}

fn instead(state: &mut State, request: &Request<impl Sized>) -> Option<Answer> {
    let asked = format!("{} {}", request.method(), request.uri());
    let at = state.faults.instead.iter().position(|it| asked.contains(&it.to))?;
    let instead = state.faults.instead.remove(at)?;
    let status = StatusCode::from_u16(instead.status).expect("a status");
    let mut answer = with(status, instead.body);
    for (name, value) in &instead.headers {
        set(&mut answer, name, value);
    }
    Some(answer)
}

fn spent(fault: &mut Option<(usize, u32)>) -> Option<usize> {
    let (bytes, times) = fault.as_mut()?;
    let bytes = *bytes;
    *times -= 1;
    if *times == 0 {
        *fault = None;
    }
    Some(bytes)
}

/// How the next upload, or blob, ends.
pub(super) fn end(cut: &mut Option<(usize, u32)>, stall: &mut Option<(usize, u32)>) -> End {
    spent(cut).map(End::Cut).or_else(|| spent(stall).map(End::Stall)).unwrap_or(End::Well)
}

fn blob(state: &mut State, request: &Request<impl Sized>, name: &str, wanted: &str, flushed: Arc<Flushed>) -> Answer {
    let has = state.repositories.get(name).is_some_and(|it| it.blobs.contains(wanted));
    let Some(bytes) = state.blobs.get(wanted).filter(|_| has).cloned() else {
        return error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "blob unknown to registry");
    };
    let Faults { redirect, no_ranges, slow, wrong_bytes, .. } = state.faults.clone();
    if let Some(elsewhere) = redirect {
        let mut answer = plain(StatusCode::TEMPORARY_REDIRECT);
        set(&mut answer, "location", &format!("{elsewhere}{}", request.uri()));
        return answer;
    }
    let bytes = if wrong_bytes { wrong(&bytes) } else { bytes };
    let size = bytes.len();
    let header = request.headers().get("range").and_then(|it| it.to_str().ok()).filter(|_| !no_ranges);
    let range = header.and_then(|it| it.strip_prefix("bytes=")).and_then(|it| it.split_once('-'));
    let range = range.map(|(first, last)| {
        let first: usize = first.parse().expect("a range");
        (first, last.parse().map_or(size, |last: usize| (last + 1).min(size)))
    });
    let (first, behind) = range.unwrap_or((0, size));
    if first >= behind && size > 0 {
        return error(StatusCode::RANGE_NOT_SATISFIABLE, "RANGE_INVALID", "no such range");
    }
    let part = bytes.slice(first..behind);
    let mut answer = if request.method() == Method::HEAD {
        let mut answer = plain(StatusCode::OK);
        set(&mut answer, "content-length", &size.to_string());
        answer
    } else {
        let end = end(&mut state.faults.cut, &mut state.faults.stall);
        http::Response::new(Pieces::new(part, end, slow, flushed).boxed_unsync())
    };
    if range.is_some() {
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        set(&mut answer, "content-range", &format!("bytes {first}-{}/{size}", behind - 1));
    }
    set(&mut answer, "docker-content-digest", wanted);
    answer
}

fn wrong(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    bytes.into()
}

fn manifest(state: &State, request: &Request<impl Sized>, name: &str, wanted: &str) -> Answer {
    let found = state.repositories.get(name).and_then(|it| {
        let digest = it.tags.get(wanted).map_or(wanted, String::as_str);
        it.manifests.get(digest).map(|found| (digest.to_owned(), found.clone()))
    });
    let Some((digest, (media_type, bytes))) = found else {
        return error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "manifest unknown");
    };
    let bytes = if state.faults.wrong_bytes { wrong(&bytes) } else { bytes };
    let head = request.method() == Method::HEAD;
    let mut answer = with(StatusCode::OK, if head { Bytes::new() } else { bytes.clone() });
    if head {
        set(&mut answer, "content-length", &bytes.len().to_string());
    }
    set(&mut answer, "content-type", &media_type);
    if !(head && state.faults.no_head_digest) {
        set(&mut answer, "docker-content-digest", &digest);
    }
    answer
}

fn tags(state: &State, name: &str, query: &str) -> Answer {
    let Some(repository) = state.repositories.get(name) else {
        return error(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "repository name not known to registry");
    };
    let last = query.split('&').find_map(|it| it.strip_prefix("last=")).unwrap_or_default();
    let left: Vec<&String> = repository.tags.keys().filter(|it| it.as_str() > last).collect();
    let page = &left[..left.len().min(state.faults.page)];
    let mut answer = json(StatusCode::OK, &serde_json::json!({"name": name, "tags": page}));
    if page.len() < left.len()
        && let Some(last) = page.last()
    {
        set(&mut answer, "link", &format!("</v2/{name}/tags/list?n={}&last={last}>; rel=\"next\"", state.faults.page));
    }
    answer
}

fn referrers(state: &State, name: &str, subject: &str) -> Answer {
    if state.faults.no_referrers {
        return plain(StatusCode::NOT_FOUND);
    }
    let empty = super::Repository::default();
    let repository = state.repositories.get(name).unwrap_or(&empty);
    let mut found = Vec::new();
    for (media_type, bytes) in repository.manifests.values() {
        let Ok(document) = serde_json::from_slice::<serde_json::Value>(bytes) else { continue };
        if document["subject"]["digest"] == subject {
            let kind = if document["artifactType"].is_string() {
                &document["artifactType"]
            } else {
                &document["config"]["mediaType"]
            };
            found.push(serde_json::json!({
                "mediaType": media_type, "digest": digest(bytes), "size": bytes.len(), "artifactType": kind,
            }));
        }
    }
    let media_type = "application/vnd.oci.image.index.v1+json";
    let mut answer =
        json(StatusCode::OK, &serde_json::json!({"schemaVersion": 2, "mediaType": media_type, "manifests": found}));
    set(&mut answer, "content-type", media_type);
    answer
}
