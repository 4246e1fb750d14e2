//! What to do after a failure. Its cause ([`ErrorCause`]) decides, not its status.

use std::time::Duration;

use super::gate::Limit;
use super::outcome::Verdict;
use crate::dialect::errors::{Diagnosis, ErrorCause, ModelFault};
use crate::dialect::free_models::ROUTER;

/// The first pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// The longest pause that an upstream may ask for; clients don't wait for longer.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(10);
/// How long a model that is overloaded or missing for the moment isn't asked, if nobody says for how long.
const RESTS_FOR: Duration = Duration::from_secs(60);
/// How long a model that is gone isn't asked.
const GONE_FOR: Duration = Duration::from_secs(60 * 60);

/// Returns what to do about an error in an attempt with this model.
pub fn judge(diagnosis: &Diagnosis, model: &str) -> Verdict {
    match diagnosis.about {
        ErrorCause::AccountLimit(limit) => {
            Verdict::AccountLimit(Limit { reset: limit.reset, per_window: limit.per_window })
        }
        ErrorCause::Account if diagnosis.status == 402 => Verdict::BackupsOnly,
        ErrorCause::Account | ErrorCause::Request | ErrorCause::Unknown => Verdict::PassOn,
        ErrorCause::Model(ModelFault::Gone { for_good: true } | ModelFault::Unfit)
            if model == ROUTER && !diagnosis.is_the_providers && !is_about_another(diagnosis) =>
        {
            Verdict::PassOn // no free model can do this, or the account's settings rule them all out
        }
        ErrorCause::Model(fault) => Verdict::NextModel(Some(fault)),
        ErrorCause::Provider => Verdict::NextModel(None),
        ErrorCause::Moment => Verdict::TryAgain(diagnosis.retry_after.map(bounded)),
    }
}

/// Returns whether an error that the router has passed on names a model that it had picked.
fn is_about_another(diagnosis: &Diagnosis) -> bool {
    diagnosis.model.as_ref().is_some_and(|model| model != ROUTER)
}

/// Limits the pause that an upstream asks for to what a client may be made to wait.
pub fn bounded(named: Duration) -> Duration {
    named.min(LONGEST_RETRY_AFTER)
}

/// Returns how long a model isn't asked after this fault; `None` if the fault says nothing about other requests.
pub fn rest_after(fault: ModelFault) -> Option<Duration> {
    match fault {
        ModelFault::Gone { for_good: true } => Some(GONE_FOR),
        ModelFault::Gone { for_good: false } => Some(RESTS_FOR),
        ModelFault::Busy(named) => Some(named.unwrap_or(RESTS_FOR)),
        ModelFault::Unfit | ModelFault::TooLong => None,
    }
}

/// Returns the pause before attempt number `tried` + 1: the `named` one, or one that doubles with each attempt, with a
/// quarter of jitter either way; `random` is from 0 to 1.
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

    fn verdict(status: u16, body: &str) -> Verdict {
        judge(&Diagnosis::read(status, &no_header, body), "a/b:free")
    }

    #[test]
    fn what_another_try_can_heal() {
        for status in [408, 500, 502, 503, 504, 524, 529] {
            assert_eq!(verdict(status, ""), Verdict::TryAgain(None), "{status}");
        }
        assert_eq!(verdict(429, ""), Verdict::NextModel(Some(ModelFault::Busy(None))));
        for status in [400, 401, 403, 404, 413, 422, 501] {
            assert_eq!(verdict(status, ""), Verdict::PassOn, "{status}");
        }
        assert_eq!(verdict(402, ""), Verdict::BackupsOnly);
    }

    #[test]
    fn a_named_pause_is_heeded_within_reason() {
        let with = |value: &'static str| {
            let header = move |name: &str| (name == "retry-after").then(|| value.to_owned());
            judge(&Diagnosis::read(503, &header, ""), "a/b:free")
        };
        assert_eq!(with("3"), Verdict::TryAgain(Some(Duration::from_secs(3))));
        assert_eq!(with("11"), Verdict::TryAgain(Some(LONGEST_RETRY_AFTER)));
        for nonsense in ["soon", "9000000000000000", "1e300", "NaN", "inf"] {
            assert_eq!(with(nonsense), Verdict::TryAgain(None), "{nonsense}");
        }
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
