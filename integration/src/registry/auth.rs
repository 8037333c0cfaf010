//! Who may do what, and the tokens for it.

use http::{Request, StatusCode};

use super::State;
use super::answer::{self, Answer};

/// What the registry wants.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    /// Nothing.
    #[default]
    Open,
    /// This user with this password.
    Basic(String, String),
    /// A token.
    Bearer(Bearer),
}

/// How tokens are given.
#[derive(Debug, Clone)]
pub struct Bearer {
    /// Where: an address, or nothing for this registry's own `/token`.
    pub realm: Option<String>,
    /// Who gets one that allows everything; nobody: all do.
    pub user: Option<(String, String)>,
    /// The refresh token that is as good as the password, and that is given to who asks for one.
    pub refresh: String,
    /// GET is not known; only POST.
    pub post_only: bool,
    /// Everybody may read.
    pub anonymous_pull: bool,
}

impl Default for Bearer {
    fn default() -> Self {
        Self { realm: None, user: None, refresh: "refresh-1".into(), post_only: false, anonymous_pull: false }
    }
}

/// The refusal of a request that may not be made.
pub(super) fn check(state: &State, request: &Request<impl Sized>, repository: &str, writes: bool) -> Option<Answer> {
    let said = request.headers().get("authorization").and_then(|it| it.to_str().ok()).unwrap_or_default();
    match &state.faults.auth {
        Auth::Open => None,
        Auth::Basic(user, password) if said == basic(user, password) => None,
        Auth::Basic(..) => Some(challenge("Basic realm=\"here\"".into())),
        Auth::Bearer(bearer) => {
            let wanted = format!("repository:{repository}:{}", if writes { "pull,push" } else { "pull" });
            let scope = said.strip_prefix("Bearer ").and_then(|token| state.tokens.get(token));
            let allows = |scope: &String| {
                repository.is_empty()
                    || scope
                        .split(' ')
                        .any(|it| it == wanted || (!writes && it == format!("repository:{repository}:pull,push")))
            };
            if scope.is_some_and(allows) {
                return None;
            }
            let realm = bearer.realm.clone().unwrap_or_else(|| format!("{}/token", state.address));
            let scope = if repository.is_empty() { String::new() } else { format!(",scope=\"{wanted}\"") };
            Some(challenge(format!("Bearer realm=\"{realm}\",service=\"registry\"{scope}")))
        }
    }
}

fn challenge(challenge: String) -> Answer {
    let mut answer = answer::error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required");
    answer.headers_mut().insert("www-authenticate", challenge.parse().unwrap());
    answer
}

/// The token server: `query` is that of a GET, or the form of a POST.
pub(super) fn token(state: &mut State, request: &Request<impl Sized>, query: &str, by_post: bool) -> Answer {
    let Auth::Bearer(bearer) = state.faults.auth.clone() else {
        return answer::json(StatusCode::OK, &serde_json::json!({"token": "worthless"}));
    };
    if bearer.post_only && !by_post {
        return answer::plain(StatusCode::METHOD_NOT_ALLOWED);
    }
    let values = |name: &str| -> Vec<String> {
        let pairs = query.split('&').filter_map(|it| it.split_once('='));
        pairs.filter(|(it, _)| *it == name).map(|(_, value)| decoded(value)).collect()
    };
    let value = |name: &str| values(name).into_iter().next().unwrap_or_default();
    let said = request.headers().get("authorization").and_then(|it| it.to_str().ok());
    let known = match &bearer.user {
        None => true,
        Some((user, password)) if by_post => {
            value("refresh_token") == bearer.refresh || (&value("username"), &value("password")) == (user, password)
        }
        Some((user, password)) => said == Some(&basic(user, password)),
    };
    let scopes = values("scope").join(" ");
    if !known && (said.is_some() || by_post) {
        return answer::error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "incorrect username or password");
    }
    // Everybody gets a token; it allows what they may do.
    let allowed = if known {
        scopes
    } else if bearer.anonymous_pull {
        scopes.replace("pull,push", "pull")
    } else {
        String::new()
    };
    let token = format!("token-{}", state.next());
    state.tokens.insert(token.clone(), allowed);
    let mut given = serde_json::json!({"token": token, "expires_in": 300});
    if value("offline_token") == "true" || value("access_type") == "offline" {
        given["refresh_token"] = bearer.refresh.into();
    }
    answer::json(StatusCode::OK, &given)
}

pub(super) fn basic(user: &str, password: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("Basic ");
    for three in format!("{user}:{password}").as_bytes().chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let digit = char::from(DIGITS[(bits >> (18 - 6 * place) & 63) as usize]);
            text.push(if place <= three.len() { digit } else { '=' });
        }
    }
    text
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let hex: Vec<u8> = rest.by_ref().take(2).collect();
                let hex = String::from_utf8_lossy(&hex).into_owned();
                bytes.push(u8::from_str_radix(&hex, 16).unwrap_or(b'?'));
            }
            b'+' => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
