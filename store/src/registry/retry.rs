//! Other tries: which failures are worth one, how many there are, and how long is waited before each.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::{HeaderMap, RETRY_AFTER};

/// How often, and how long between.
#[derive(Debug, Clone, Copy)]
pub struct Tries {
    /// At most so many tries of one thing at one host.
    pub most: u32,
    /// Before the second one; each pause is twice as long as the one before it.
    pub first_pause: Duration,
    /// No pause is longer: a registry that asks for more is not waited for.
    pub longest_pause: Duration,
}

impl Default for Tries {
    fn default() -> Self {
        Self { most: 5, first_pause: Duration::from_millis(200), longest_pause: Duration::from_secs(60) }
    }
}

impl Tries {
    /// The pause before try number `next` (the first is 0), or nothing if there is none any more. `asked`: what the registry
    /// wants to be waited.
    pub(super) fn pause(&self, next: u32, asked: Option<Duration>) -> Option<Duration> {
        if next >= self.most || asked.is_some_and(|it| it > self.longest_pause) {
            return None;
        }
        let growing = self.first_pause.saturating_mul(1 << next.saturating_sub(1).min(16));
        // Apart from others that failed at the same moment.
        let jittered = growing.mul_f64(0.75 + 0.5 * fraction());
        Some(asked.unwrap_or_default().max(jittered.min(self.longest_pause)))
    }
}

/// Somewhere in 0..1: enough for pauses.
fn fraction() -> f64 {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |it| it.subsec_nanos());
    f64::from(nanos % 1000) / 1000.0
}

/// Whether the same request may succeed later.
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INTERNAL_SERVER_ERROR
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// What Retry-After says (RFC 9110, 10.2.3): seconds, or a date.
pub(super) fn asked(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let tries = Tries { most: 4, ..Tries::default() };
        let pauses: Vec<_> = (1..4).map(|next| tries.pause(next, None).unwrap().as_millis()).collect();
        for (pause, expected) in pauses.iter().zip([200, 400, 800]) {
            assert!((expected * 3 / 4..=expected * 5 / 4).contains(pause), "{pauses:?}");
        }
        assert_eq!(tries.pause(4, None), None);
        assert_eq!(tries.pause(1, Some(Duration::from_secs(7))), Some(Duration::from_secs(7)));
        assert_eq!(tries.pause(1, Some(Duration::from_secs(3600))), None);
    }

    #[test]
    fn registries_say_how_long_they_want_to_be_left_alone() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        for (said, means) in [
            ("7", Some(7)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, said.parse().unwrap())]);
            assert_eq!(asked(&headers, now), means.map(Duration::from_secs), "{said}");
        }
        assert_eq!(asked(&HeaderMap::new(), now), None);
    }
}
