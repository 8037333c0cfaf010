//! The write side: uploads in pieces, and manifests.

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::answer::{Answer, End, error, plain, set};
use super::serve::{Ends, end};
use super::{Shared, digest};

pub(super) async fn uploads(state: Shared, request: Request<Incoming>, name: &str, id: &str) -> Result<Answer, Ends> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let value = |wanted: &str| query.split('&').find_map(|it| it.strip_prefix(wanted)?.strip_prefix('='));
    match *request.method() {
        Method::POST => {
            let mut state = state.lock().unwrap();
            if let (Some(wanted), Some(from), false) = (value("mount"), value("from"), state.faults.no_mount)
                && state.repositories.get(from).is_some_and(|it| it.blobs.contains(wanted))
            {
                state.repository(name).blobs.insert(wanted.to_owned());
                return Ok(created(name, "blobs", wanted));
            }
            let id = format!("u{}", state.next());
            state.uploads.insert(id.clone(), Vec::new());
            Ok(accepted(&state, name, &id, 0))
        }
        Method::GET => {
            let state = state.lock().unwrap();
            match state.uploads.get(id) {
                Some(bytes) => {
                    let mut answer = accepted(&state, name, id, bytes.len());
                    *answer.status_mut() = StatusCode::NO_CONTENT;
                    Ok(answer)
                }
                None => Ok(unknown()),
            }
        }
        Method::PATCH => patch(state, request, name, id).await,
        Method::PUT => {
            let wanted = value("digest").unwrap_or_default().to_owned();
            let more = request.into_body().collect().await?.to_bytes();
            let mut state = state.lock().unwrap();
            let Some(mut bytes) = state.uploads.remove(id) else { return Ok(unknown()) };
            bytes.extend_from_slice(&more);
            if digest(&bytes) != wanted {
                return Ok(error(
                    StatusCode::BAD_REQUEST,
                    "DIGEST_INVALID",
                    "provided digest did not match uploaded content",
                ));
            }
            state.blobs.insert(wanted.clone(), bytes.into());
            state.repository(name).blobs.insert(wanted.clone());
            Ok(created(name, "blobs", &wanted))
        }
        Method::DELETE => {
            state.lock().unwrap().uploads.remove(id);
            Ok(plain(StatusCode::NO_CONTENT))
        }
        _ => Ok(plain(StatusCode::METHOD_NOT_ALLOWED)),
    }
}

async fn patch(state: Shared, request: Request<Incoming>, name: &str, id: &str) -> Result<Answer, Ends> {
    let header = |name: &str| request.headers().get(name).and_then(|it| it.to_str().ok()).map(str::to_owned);
    let (start, size) = (header("content-range"), header("content-length"));
    let ends = {
        let mut state = state.lock().unwrap();
        let Some(has) = state.uploads.get(id).map(Vec::len) else { return Ok(unknown()) };
        let start = start.and_then(|it| it.split('-').next()?.parse::<usize>().ok()).unwrap_or(has);
        if start != has {
            let mut answer = accepted(&state, name, id, has);
            *answer.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            return Ok(answer);
        }
        let size = size.and_then(|it| it.parse::<u64>().ok()).unwrap_or_default();
        if state.faults.largest_patch.is_some_and(|most| size > most) {
            return Ok(plain(StatusCode::PAYLOAD_TOO_LARGE));
        }
        let faults = &mut state.faults;
        end(&mut faults.upload_cut, &mut faults.upload_stall)
    };
    let mut body = request.into_body();
    let mut came = 0;
    while let Some(frame) = body.frame().await {
        let Ok(mut bytes) = frame?.into_data() else { continue };
        let most = match ends {
            End::Well => usize::MAX,
            End::Cut(most) | End::Stall(most) => most,
        };
        bytes.truncate(most - came);
        came += bytes.len();
        let kept = {
            let mut state = state.lock().unwrap();
            state.uploads.get_mut(id).map(|it| it.extend_from_slice(&bytes)).is_some()
        };
        if came == most || !kept {
            match ends {
                End::Stall(_) => std::future::pending::<()>().await,
                _ => {
                    let mut state = state.lock().unwrap();
                    if state.faults.forgets_uploads {
                        state.uploads.remove(id);
                    }
                    return Err("cut off on purpose".into());
                }
            }
        }
    }
    let state = state.lock().unwrap();
    let has = state.uploads.get(id).map_or(0, Vec::len);
    Ok(accepted(&state, name, id, has))
}

fn accepted(state: &super::State, name: &str, id: &str, has: usize) -> Answer {
    let mut answer = plain(StatusCode::ACCEPTED);
    let elsewhere = state.faults.upload_elsewhere.clone().unwrap_or_default();
    set(&mut answer, "location", &format!("{elsewhere}/v2/{name}/blobs/uploads/{id}?state=s"));
    set(&mut answer, "range", &format!("0-{}", has.saturating_sub(1)));
    answer
}

fn created(name: &str, what: &str, digest: &str) -> Answer {
    let mut answer = plain(StatusCode::CREATED);
    set(&mut answer, "location", &format!("/v2/{name}/{what}/{digest}"));
    set(&mut answer, "docker-content-digest", digest);
    answer
}

fn unknown() -> Answer {
    error(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
}

pub(super) async fn put_manifest(
    state: Shared,
    request: Request<Incoming>,
    name: &str,
    wanted: &str,
) -> Result<Answer, Ends> {
    let media_type =
        request.headers().get("content-type").and_then(|it| it.to_str().ok()).unwrap_or_default().to_owned();
    let bytes: Bytes = request.into_body().collect().await?.to_bytes();
    let found = digest(&bytes);
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(&bytes) else {
        return Ok(error(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", "manifest invalid"));
    };
    let mut state = state.lock().unwrap();
    let no_referrers = state.faults.no_referrers;
    let repository = state.repository(name);
    let blobs = document["layers"].as_array().into_iter().flatten().chain(document.get("config"));
    let missing = blobs.filter_map(|it| it["digest"].as_str()).find(|it| !repository.blobs.contains(*it));
    if let Some(missing) = missing {
        return Ok(error(
            StatusCode::BAD_REQUEST,
            "MANIFEST_BLOB_UNKNOWN",
            &format!("blob unknown to registry: {missing}"),
        ));
    }
    if wanted.contains(':') && wanted != found {
        return Ok(error(StatusCode::BAD_REQUEST, "DIGEST_INVALID", "provided digest did not match uploaded content"));
    }
    repository.manifests.insert(found.clone(), (media_type, bytes));
    if !wanted.contains(':') {
        repository.tags.insert(wanted.to_owned(), found.clone());
    }
    let mut answer = created(name, "manifests", &found);
    if let Some(subject) = document["subject"]["digest"].as_str().filter(|_| !no_referrers) {
        set(&mut answer, "oci-subject", subject);
    }
    Ok(answer)
}
