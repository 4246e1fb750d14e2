//! Which failures another try can heal, how long to wait before it, and which of them are the account's own limit.

use std::time::{Duration, SystemTime};

use super::gate::Limit;
use crate::dialect::errors::{self, Headers, ModelTrouble};
use crate::dialect::free_models::ROUTER;

/// The first pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// An upstream that wants to be left alone for longer is left alone: the client's own back-off is the right one.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(10);

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// No other try can help.
    PassOn,
    /// Try again, after this pause if the upstream named one.
    TryAgain(Option<Duration>),
    /// Another model could serve it, at once.
    NextModel(ModelTrouble),
    /// The account's limit is reached.
    AccountLimit(Limit),
}

/// Judges an error by its status, its headers and its body (`{"error": …}`).
pub fn judge(status: u16, header: Headers<'_>, body: &str) -> Verdict {
    let retry_after = retry_after(header);
    if let Some(notice) = errors::account_limit(status, header, body) {
        return Verdict::AccountLimit(Limit { reset: notice.reset, per_window: notice.per_window });
    }
    match status {
        status if may_pass(status) => try_again(retry_after),
        _ => errors::model_trouble(status, body).map_or(Verdict::PassOn, Verdict::NextModel),
    }
}

/// Whether an error of this status is one of the moment.
pub fn may_pass(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502..=599)
}

impl Verdict {
    /// Whether the router itself says that it can't: that is about the account's settings, which no other try changes.
    pub fn is_the_routers(self, model: &str) -> bool {
        model == ROUTER && matches!(self, Self::NextModel(trouble) if trouble != ModelTrouble::TooLong)
    }
}

/// How long the upstream wants to be left alone.
pub fn retry_after(header: Headers<'_>) -> Option<Duration> {
    header("retry-after").and_then(|value| parse_retry_after(&value))
}

fn try_again(retry_after: Option<Duration>) -> Verdict {
    match retry_after {
        Some(wait) if wait > LONGEST_RETRY_AFTER => Verdict::PassOn,
        wait => Verdict::TryAgain(wait),
    }
}

/// Seconds or a date: [RFC 9110, 10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3).
fn parse_retry_after(value: &str) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds.max(0.0)).ok();
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// The pause before try number `tried` + 1, with a quarter of jitter either way; `random` is from 0 to 1.
pub fn pause(tried: u32, named: Option<Duration>, random: f64) -> Duration {
    named.unwrap_or_else(|| {
        let doubled = FIRST_PAUSE.saturating_mul(1 << tried.saturating_sub(1).min(16));
        doubled.min(LONGEST_PAUSE).mul_f64(0.75 + random / 2.0).min(LONGEST_PAUSE)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_header(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn what_another_try_can_heal() {
        for status in [408, 429, 500, 502, 503, 504, 524, 529] {
            assert_eq!(judge(status, &no_header, ""), Verdict::TryAgain(None), "{status}");
        }
        for status in [400, 401, 402, 403, 404, 413, 422, 501, 302] {
            assert_eq!(judge(status, &no_header, ""), Verdict::PassOn, "{status}");
        }
    }

    #[test]
    fn retry_after_in_both_forms() {
        let judge_with =
            |value: String| judge(503, &|name| (name == "retry-after").then(|| value.clone()), "");
        assert_eq!(judge_with("3".into()), Verdict::TryAgain(Some(Duration::from_secs(3))));
        assert_eq!(judge_with("11".into()), Verdict::PassOn);
        let date = |seconds| httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(seconds));
        assert!(
            matches!(judge_with(date(5)), Verdict::TryAgain(Some(wait)) if wait > Duration::from_secs(3))
        );
        assert_eq!(judge_with(date(60)), Verdict::PassOn);
        assert_eq!(judge_with("soon".into()), Verdict::TryAgain(None));
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        let middle = |tried| pause(tried, None, 0.5);
        assert_eq!(middle(1), Duration::from_millis(500));
        assert_eq!(middle(2), Duration::from_secs(1));
        assert_eq!(middle(9), Duration::from_secs(8));
        assert_eq!(pause(1, None, 0.0), Duration::from_millis(375));
        assert_eq!(pause(1, None, 1.0), Duration::from_millis(625));
        assert_eq!(pause(3, Some(Duration::ZERO), 1.0), Duration::ZERO);
    }
}
