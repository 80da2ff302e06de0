//! When a request is made again, and when not: one policy for both services and the blob store. Pure.
//!
//! - What is broken on the way (timeout, reset, 5xx, an answer that is not what was asked for) is tried again at once, a few
//!   times (`retry`). After that the call fails, and its caller comes back later.
//! - What is refused because too much was asked **pauses** the whole service: no request is made before its time. The service
//!   says for how long (`Retry-After`, `X-RateLimit-Reset`), or the pause doubles from one refusal to the next.
//! - 401 means that the token is no longer good. One is not believed: proxies answer so too.
//! - All the rest is an answer.
//!
//! REST requests that count against the repository's quota are paid from a [`Budget`]; those answered 304 are not.

use std::time::{Duration, Instant};

/// What came back for a request, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reply {
    /// HTTP status.
    pub(super) status: u16,
    /// `Retry-After` in seconds.
    pub(super) retry_after: Option<u64>,
    /// `X-RateLimit-Remaining` is 0, and the time until `X-RateLimit-Reset` in seconds.
    pub(super) exhausted: Option<u64>,
    /// The error's words.
    pub(super) message: String,
}

/// What a reply means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What was asked for.
    Good,
    /// Nothing new: 304.
    Unchanged,
    /// Try again now.
    Again,
    /// Too much was asked; the service said for how long, or did not.
    Slower(Option<Duration>),
    /// The artifact storage of the account is full.
    Quota,
    /// The token is not accepted.
    Unauthorised,
    /// It is not there (any more).
    Gone,
    /// Somebody has that name.
    Taken,
    /// Another refusal: trying again would not help.
    Refused,
}

/// Judges a reply.
pub(super) fn judge(reply: &Reply) -> Verdict {
    let said = |words: &str| reply.message.to_ascii_lowercase().contains(words);
    let wait = reply.retry_after.or(reply.exhausted).map(clamped);
    match reply.status {
        304 => Verdict::Unchanged,
        200..=299 | 302 => Verdict::Good,
        _ if said("insufficient usage") || said("quota") => Verdict::Quota,
        401 => Verdict::Unauthorised,
        404 | 410 => Verdict::Gone,
        409 => Verdict::Taken,
        429 => Verdict::Slower(wait),
        403 if wait.is_some() || said("rate limit") || said("intermediary") => {
            Verdict::Slower(wait)
        }
        503 if reply.retry_after.is_some() => Verdict::Slower(wait),
        408 | 500..=599 => Verdict::Again,
        _ => Verdict::Refused,
    }
}

/// A server's clock or ours may be wrong by hours.
fn clamped(secs: u64) -> Duration {
    Duration::from_secs(secs).clamp(Duration::from_secs(1), LONGEST_PAUSE)
}

/// What one runner may spend of something: so many at once, and then one in so long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    price: Duration,
    purse: u32,
    spent: Duration,
    since: Instant,
}

impl Budget {
    /// REST requests. The whole repository has 1,000 an hour (GitHub's limit for `GITHUB_TOKEN`): 6 at once and 23 an hour keep
    /// twenty runners below 600.
    pub(super) fn of_requests(now: Instant) -> Self {
        Self::new(Duration::from_secs(157), 6, now)
    }

    /// Names of artifacts. A job can have 500, and lives for six hours: 12 at once and one a minute are 372, even if each is burned or
    /// each descriptor is outdated at once.
    pub(super) fn of_names(now: Instant) -> Self {
        Self::new(Duration::from_secs(60), 12, now)
    }

    fn new(price: Duration, purse: u32, now: Instant) -> Self {
        Self {
            price,
            purse,
            spent: Duration::ZERO,
            since: now,
        }
    }

    /// One was spent.
    pub(super) fn spend(&mut self, now: Instant) {
        self.spent = self.owed(now) + self.price;
        self.since = now;
    }

    /// How long to wait until one more can be paid.
    pub(super) fn rest(&self, now: Instant) -> Option<Duration> {
        let rest = (self.owed(now) + self.price).saturating_sub(self.price * self.purse);
        (!rest.is_zero()).then_some(rest)
    }

    fn owed(&self, now: Instant) -> Duration {
        self.spent
            .saturating_sub(now.saturating_duration_since(self.since))
    }
}

/// A pause of an hour may come from a wrong clock; asking once in a quarter of an hour does no harm.
const LONGEST_PAUSE: Duration = Duration::from_secs(15 * 60);

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn reply(status: u16, message: &str) -> Reply {
        Reply {
            status,
            message: message.into(),
            ..Reply::default()
        }
    }

    #[expect(clippy::disallowed_methods, reason = "some moment to begin with")]
    fn some_time() -> Instant {
        Instant::now()
    }

    #[test]
    fn each_known_refusal_has_its_meaning() {
        let secs = Duration::from_secs;
        let mut after = reply(429, "");
        after.retry_after = Some(7);
        let mut exhausted = reply(403, "API rate limit exceeded");
        exhausted.exhausted = Some(90_000);
        for (reply, verdict) in [
            (reply(200, ""), Verdict::Good),
            (reply(302, ""), Verdict::Good),
            (reply(304, ""), Verdict::Unchanged),
            (reply(429, ""), Verdict::Slower(None)),
            (after, Verdict::Slower(Some(secs(7)))),
            (exhausted, Verdict::Slower(Some(secs(900)))),
            (
                reply(403, "You have exceeded a secondary rate limit"),
                Verdict::Slower(None),
            ),
            (
                reply(403, "Error from intermediary with HTTP status code 403"),
                Verdict::Slower(None),
            ),
            (
                reply(403, "insufficient usage to create artifact"),
                Verdict::Quota,
            ),
            (
                reply(403, "Resource not accessible by integration"),
                Verdict::Refused,
            ),
            (reply(401, "Bad credentials"), Verdict::Unauthorised),
            (reply(409, "an artifact with this name"), Verdict::Taken),
            (reply(410, ""), Verdict::Gone),
            (reply(500, ""), Verdict::Again),
            (reply(503, ""), Verdict::Again),
            (reply(400, ""), Verdict::Refused),
        ] {
            assert_eq!(judge(&reply), verdict, "{reply:?}");
        }
    }

    #[test]
    fn twenty_runners_that_spend_all_they_have_stay_below_600_requests_in_any_hour() {
        let (start, hour) = (some_time(), Duration::from_secs(3600));
        let mut budget = Budget::of_requests(start);
        let mut paid: Vec<Instant> = Vec::new();
        for second in 0..4 * 3600 {
            let now = start + Duration::from_secs(second);
            // Idle for the first hour: what is not spent does not grow beyond the purse.
            if second >= 3600 && budget.rest(now).is_none() {
                budget.spend(now);
                paid.push(now);
            }
        }
        let worst = paid
            .iter()
            .map(|from| {
                let within = |at: &&Instant| **at >= *from && **at < *from + hour;
                paid.iter().filter(within).count()
            })
            .max()
            .unwrap();
        assert!(worst * 20 < 600, "{worst} each");
        assert!(worst > 25, "{worst} each: the budget is used");
    }
}
