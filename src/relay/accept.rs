//! The beginning of a request: it is parsed in the API that the client speaks, stripped of what costs money, and
//! recorded.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use ureq::http::HeaderValue;

use super::in_flight::InFlightGuard;
use super::model::Kind;
use super::outcome::FinalWrite;
use super::shared::Shared;
use super::state::{Asked, Client, ClientConnection, Record, Relay, Sharing, Tries};
use crate::builtin;
use crate::client::exchange::{ConnectionFate, Exchange};
use crate::dialect::free_models;
use crate::dialect::request::Request;
use crate::dialect::{Action, ClientRequest, Dialect, Routed, StandIn, Translated, Untranslatable, text};
use crate::error::ApiError;
use crate::live::Snapshot;
use crate::record::calls::Running;
use crate::record::metrics::CallMetrics;
use crate::record::{callers, changes, first_words};
use crate::upstream::{FORWARDED, REFERER};

/// Longer values of the client's header fields aren't sent upstream.
const MAX_FORWARDED_BYTES: usize = 8 * 1024;
/// Header fields by which clients name a conversation.
const SESSION_HEADERS: [&str; 2] = ["x-session-id", "x-claude-code-session-id"];

impl Relay {
    /// Parses a request and begins to record it. `Err` holds what becomes of the connection if the request can't be
    /// understood.
    // Out of line, because what is only needed here would otherwise stay on a worker's stack while an answer streams,
    // and the stacks of hundreds of workers keep the largest size that they have ever had.
    #[inline(never)]
    pub fn begin(
        shared: &Arc<Shared>,
        (dialect, route): (&'static dyn Dialect, Routed),
        mut exchange: Box<Exchange>,
        snapshot: Arc<Snapshot>,
        in_flight: InFlightGuard,
    ) -> Result<Box<Self>, ConnectionFate> {
        let began = Instant::now();
        let understood = understand(dialect, &mut exchange, &route, shared, &snapshot);
        let (request, translated) = match understood {
            Ok(understood) => understood,
            Err(error) => {
                let reply = shared.refusal(&exchange.head, &error);
                return Err(exchange.reply(reply));
            }
        };
        let forwarded = FORWARDED.into_iter().filter_map(|name| {
            let value = exchange.head.values(name.as_str()).next()?;
            let value = Some(value).filter(|value| value.len() <= MAX_FORWARDED_BYTES)?;
            Some((name, HeaderValue::from_bytes(value).ok()?))
        });
        let mut headers = forwarded.collect::<Vec<_>>();
        if headers.first().is_none_or(|(name, _)| *name != REFERER) {
            headers.push((REFERER, shared.site.clone()));
        }
        let written = translated.as_ref().map_or(request.as_written(), |(_, written)| &written.body);
        let mut metrics = CallMetrics {
            dialect: route.api.name.into(),
            asked: request.asked.clone(),
            model: request.model.clone(),
            stream: request.stream,
            ..CallMetrics::default()
        };
        if snapshot.debug {
            metrics.tool = callers::of(&exchange.head);
            metrics.path = route.shown_with(&exchange.head.path).into();
            metrics.first_words = first_words::of(written);
        }
        let running = || Running::new(dialect, in_flight.canceller());
        let recording = shared.calls.begin(&snapshot, written, &metrics, running);
        let named =
            SESSION_HEADERS.iter().find_map(|name| exchange.head.header(name)).map(|name| name.to_string());
        let query = exchange.head.query.take().filter(|_| dialect.forwards_query());
        let order = shared.next_order();
        let mut relay = Box::new(Self {
            shared: Arc::clone(shared),
            asked: Asked { dialect, route, translated, request, query, headers, began, order },
            snapshot,
            in_flight,
            tries: Tries::default(),
            client: ClientConnection {
                state: Client::Waiting(exchange),
                translator: None,
                final_write: FinalWrite::Nothing,
            },
            sharing: Sharing::default(),
            record: Record { recording, metrics },
        });
        relay.look_up_conversation(named.as_deref());
        relay.choose_model();
        if relay.snapshot.debug && !relay.tries.model.is_empty() {
            let sent = relay.body_of_the_call(&relay.tries.model);
            relay.record.metrics.changes = changes::between(relay.asked.request.as_written(), &sent);
        }
        Ok(relay)
    }
}

type Understood = (Request, Option<(&'static dyn Translated, ClientRequest)>);

fn understand(
    dialect: &'static dyn Dialect,
    exchange: &mut Exchange,
    route: &Routed,
    shared: &Shared,
    snapshot: &Snapshot,
) -> Result<Understood, ApiError> {
    let body = std::mem::take(&mut exchange.body);
    let head = &exchange.head;
    let address = || shared.address_of(head);
    let text = text::decode(body, &address)?;
    let not_an_object = |text: &str, error| text::not_an_object(text, &error, &address(), route.route.sample);
    let (text, translated) = match route.route.action {
        Action::Translate(translated) => {
            let model = route.model(&head.path);
            let query = head.query.clone().unwrap_or_default();
            let written = ClientRequest { model, query, body: text };
            let in_native = text::with_tree(&written.body, || translated.translate(&written))?;
            let in_native = in_native.map_err(|error| match error {
                Untranslatable::NotAnObject(error) => not_an_object(&written.body, error),
                Untranslatable::Refused(error) => error,
            })?;
            (in_native, Some((translated, written)))
        }
        _ => (text, None),
    };
    let settings = &snapshot.settings;
    if let Some(refusal) = builtin::refusal(dialect).filter(|_| settings.test_mode) {
        return Err(refusal);
    }
    let default_model = match dialect.stand_in() {
        StandIn::Model => Cow::Borrowed(settings.model.as_str()),
        StandIn::Named(_) if settings.test_mode => Cow::Borrowed(builtin::NAME),
        StandIn::Named(named) => Cow::Owned(settings.named_model(named.setting).unwrap_or_default()),
    };
    let rule = settings.rule(&default_model);
    let parse =
        |text| Request::parse(dialect, text, &rule).map_err(|(text, error)| not_an_object(&text, error));
    let mut request = parse(text)?;
    if request.asked.as_deref().is_some_and(free_models::may_be_listed) && !rule.allow_paid {
        shared.models.listing(Kind::Chat, snapshot);
        request = parse(request.into_text())?;
    }
    if request.wants_a_kept_conversation {
        Err(ApiError::no_kept_conversations())
    } else {
        Ok((request, translated))
    }
}
