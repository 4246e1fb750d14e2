//! The best free model for a request: which of the models that the upstream lists can serve it now, and in which order
//! they are asked.
//!
//! *Worth* = index × share × speed: how good a model is when it answers (published), how often it has answered lately,
//! and how soon (both as seen here).

use std::cell::LazyCell;
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;

use super::model::Model;
use crate::dialect::Needs;

/// A model that begins to answer after this is worth 1/√2 of one that begins at once.
const SLOW_S: f64 = 10.0;
/// The index of every model if none is known: any model will do.
const NO_INDEX: f64 = 1.0;

/// What was seen of a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// The share of calls that the model answers, from 0 to 1; 1 if it was never asked.
    pub share: f64,
    /// The median time to the first token.
    pub first_token: Option<Duration>,
    /// Whether the model isn't to be asked now.
    pub rests: bool,
}

/// What is assumed of a model that was never asked.
pub const NEVER_SEEN: Seen = Seen { share: 1.0, first_token: None, rests: false };

/// A model that may be asked, and the figures that decide its position.
#[derive(Debug, Clone)]
pub struct Candidate<'a> {
    /// The model.
    pub model: &'a Arc<Model>,
    /// How much the model is worth: index × share × speed.
    pub worth: f64,
    /// How good the model is when it answers.
    pub index: f64,
    /// The share of calls that the model answers.
    pub share: f64,
    /// How soon the model answers: 1 for at once, or if it was never seen.
    pub speed: f64,
}

/// Returns the models that can do what is needed, are still there `today` and don't rest, the best one first; equal
/// ones are in the list's order. Routers are left out.
pub fn in_order(
    models: &[Arc<Model>],
    needs: Needs,
    today: NaiveDate,
    seen: impl Fn(&str) -> Seen,
) -> Vec<Candidate<'_>> {
    let known = |model: &Model| {
        if needs.tools {
            model.indexes.agentic.or(model.indexes.intelligence)
        } else {
            model.indexes.intelligence
        }
    };
    let unknown = LazyCell::new(|| {
        lower_quartile(models.iter().filter_map(|model| known(model)).collect()).unwrap_or(NO_INDEX)
    });
    let candidate = |model| {
        let model: &Arc<Model> = model;
        let fits = can(model, needs) && !model.is_expired(today) && !model.is_router();
        let seen = fits.then(|| seen(&model.id)).filter(|seen| !seen.rests)?;
        Some({
            let index = known(model).unwrap_or_else(|| *unknown);
            let speed =
                seen.first_token.map_or(1.0, |time| (1.0 + time.as_secs_f64() / SLOW_S).sqrt().recip());
            let worth = index * seen.share * speed;
            Candidate { model, worth, index, share: seen.share, speed }
        })
    };
    let mut candidates = Vec::with_capacity(models.len());
    candidates.extend(models.iter().filter_map(candidate));
    candidates.sort_by(|a, b| b.worth.total_cmp(&a.worth));
    candidates
}

/// Moves a conversation's own model to the front, if it is among the candidates.
pub fn put_first(candidates: &mut [Candidate<'_>], own: &str) {
    if let Some(at) = candidates.iter().position(|candidate| candidate.model.id == own) {
        candidates[..=at].rotate_right(1);
    }
}

fn can(model: &Model, needs: Needs) -> bool {
    let Needs { tools, images, structured } = model.can;
    (tools || !needs.tools) && (images || !needs.images) && (structured || !needs.structured)
}

/// Returns the lower quartile of the values, interpolated linearly.
fn lower_quartile(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let at = values.len().checked_sub(1)? as f64 / 4.0;
    let [below, above] = [at.floor(), at.ceil()].map(|at| values[at as usize]);
    Some(below + (above - below) * at.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Needs = Needs { tools: false, images: false, structured: false };
    const TOOLS: Needs = Needs { tools: true, ..PLAIN };
    const TODAY: NaiveDate = NaiveDate::from_ymd_opt(2026, 8, 1).unwrap();

    /// A model by its name, its two indexes (0: unknown), what it can do (`t`, `i`, `s`) and when it expires.
    fn model(id: &str, [intelligence, agentic]: [u8; 2], can: &str, expires: &str) -> Arc<Model> {
        let index = |value: u8| if value == 0 { "null".to_owned() } else { value.to_string() };
        let can_do = [("t", "tools"), ("s", "structured_outputs")];
        let parameters =
            can_do.iter().filter(|(short, _)| can.contains(short)).map(|(_, name)| name).collect::<Vec<_>>();
        let input = if can.contains('i') { r#"["text","image"]"# } else { r#"["text"]"# };
        let (intelligence, agentic) = (index(intelligence), index(agentic));
        let entry = format!(
            r#"{{"id":"{id}:free","expiration_date":"{expires}","supported_parameters":{parameters:?},"architecture":{{"input_modalities":{input},"output_modalities":["text"]}},"benchmarks":{{"artificial_analysis":{{"intelligence_index":{intelligence},"agentic_index":{agentic}}}}}}}"#
        );
        Arc::new(Model::parse(&entry, super::super::model::Kind::Chat).unwrap().0)
    }

    fn models() -> Vec<Arc<Model>> {
        vec![
            model("low", [10, 5], "tis", ""),
            model("mid", [30, 50], "t", "2026-08-01"),
            model("new", [0, 0], "ts", ""),
            model("top", [52, 20], "tis", ""),
            model("gone", [60, 60], "tis", "2026-07-31"),
            model("high", [40, 0], "", ""),
        ]
    }

    fn order(needs: Needs, seen: impl Fn(&str) -> Seen) -> String {
        let models = models();
        let ids = in_order(&models, needs, TODAY, seen);
        ids.iter().map(|candidate| candidate.model.id.trim_end_matches(":free")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_order_of_the_models_case_by_case() {
        let only =
            |id: &'static str, seen: Seen| move |asked: &str| if asked == id { seen } else { NEVER_SEEN };
        let failing = |calls: f64| Seen { share: 2.0 / (calls + 2.0), ..NEVER_SEEN };
        let slow = |s| Seen { first_token: Some(Duration::from_secs(s)), ..NEVER_SEEN };
        // Known are 10, 30, 40, 52 and 60 (though that one has expired): a quarter lies below 30.
        assert_eq!(
            order(PLAIN, |_| NEVER_SEEN),
            "top high mid new low",
            "unknown counts as the lower quartile, list's order"
        );
        assert_eq!(
            order(TOOLS, |_| NEVER_SEEN),
            "mid new top low",
            "by the agentic index; its lower quartile is 20 of 5, 20, 40, 50, 60"
        );
        assert_eq!(order(Needs { images: true, ..PLAIN }, |_| NEVER_SEEN), "top low");
        assert_eq!(order(Needs { structured: true, ..TOOLS }, |_| NEVER_SEEN), "new top low");
        assert_eq!(order(PLAIN, only("top:free", Seen { rests: true, ..NEVER_SEEN })), "high mid new low");
        assert_eq!(order(PLAIN, only("top:free", failing(1.0))), "high top mid new low", "52 × 2/3 = 34.7");
        assert_eq!(order(PLAIN, only("top:free", failing(2.0))), "high mid new top low", "52 / 2 = 26");
        assert_eq!(order(PLAIN, only("top:free", slow(5))), "top high mid new low", "52 / √1.5 = 42.5");
        assert_eq!(order(PLAIN, only("top:free", slow(10))), "high top mid new low", "52 / √2 = 36.8");
        assert_eq!(order(PLAIN, only("top:free", slow(60))), "high mid new top low", "52 / √7 = 19.7");
    }

    #[test]
    fn a_conversations_own_model_is_asked_first() {
        let models = models();
        let mut candidates = in_order(&models, PLAIN, TODAY, |_| NEVER_SEEN);
        put_first(&mut candidates, "new:free");
        let ids = candidates.iter().map(|candidate| candidate.model.id.as_str()).collect::<Vec<_>>();
        assert_eq!(ids, ["new:free", "top:free", "high:free", "mid:free", "low:free"]);
        put_first(&mut candidates, "unheard/of:free");
        assert_eq!(candidates[0].model.id, "new:free");
    }

    #[test]
    fn nothing_known_is_nothing_preferred() {
        let models = [model("a", [0, 0], "", ""), model("b", [0, 0], "", "")];
        let seen = |id: &str| Seen { share: if id == "a:free" { 0.5 } else { 1.0 }, ..NEVER_SEEN };
        assert_eq!(in_order(&models, PLAIN, TODAY, |_| NEVER_SEEN)[0].model.id, "a:free");
        assert_eq!(in_order(&models, PLAIN, TODAY, seen)[0].model.id, "b:free");
        assert!(in_order(&[], PLAIN, TODAY, |_| NEVER_SEEN).is_empty());
    }

    #[test]
    fn a_quarter_lies_below() {
        assert_eq!(lower_quartile(vec![]), None);
        assert_eq!(lower_quartile(vec![7.0]), Some(7.0));
        assert_eq!(lower_quartile(vec![40.0, 10.0, 20.0, 30.0, 50.0]), Some(20.0));
        assert_eq!(lower_quartile(vec![10.0, 20.0]), Some(12.5));
    }
}
