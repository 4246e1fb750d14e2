//! How a request begins: read in the API that it is asked in, made free, and noted.

use std::sync::Arc;
use std::time::Instant;

use ureq::http::HeaderValue;

use super::finish::FinalWrite;
use super::in_flight::InFlightGuard;
use super::shared::Shared;
use super::{Client, Relay, offline};
use crate::client::exchange::{ConnectionFate, Exchange};
use crate::dialect::request::Request;
use crate::dialect::{self, Dialect, Translated, text};
use crate::error::ApiError;
use crate::live::Snapshot;
use crate::record::metrics::CallMetrics;
use crate::upstream::{FORWARDED, REFERER};

/// Longer values of the client's headers don't go upstream.
const MAX_FORWARDED_BYTES: usize = 8 * 1024;

impl Relay {
    /// Understands a request. What has become of one that can't be understood.
    // What is only needed for a moment is apart from what stays on a worker's stack while an answer streams: hundreds of
    // them are as large as they have ever been.
    #[inline(never)]
    pub fn begin(
        shared: &Arc<Shared>,
        api: Api,
        mut exchange: Box<Exchange>,
        snapshot: Arc<Snapshot>,
        in_flight: InFlightGuard,
    ) -> Result<Box<Self>, ConnectionFate> {
        let began = Instant::now();
        let body = std::mem::take(&mut exchange.body);
        let address = || shared.address_of(&exchange.head);
        let (request, translated) = match understand(api, body, &address, &snapshot) {
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
        let dialect = api.native();
        let written = translated.as_ref().map_or(request.as_written(), |(_, written)| written);
        let recording = shared.calls.begin(&snapshot, written);
        let metrics = CallMetrics {
            dialect: api.name().into(),
            path: recording.as_ref().map(|_| api.path()).unwrap_or_default().into(),
            asked: request.asked.clone(),
            model: request.model.clone(),
            stream: request.stream,
            ..CallMetrics::default()
        };
        let mut relay = Box::new(Self {
            shared: Arc::clone(shared),
            dialect,
            translated,
            translator: None,
            query: exchange.head.query.take().filter(|_| dialect.forwards_query()),
            headers,
            in_flight,
            client: Client::Waiting(exchange),
            request,
            snapshot,
            recording,
            metrics,
            began,
            order: shared.next_order(),
            model: String::new(),
            belongs_to: None,
            mark: None,
            prompt_is_too_long: false,
            backup: None,
            backups_said: None,
            calls_made: 0,
            final_write: FinalWrite::Nothing,
            source: None,
            leader: None,
            events: Vec::new(),
            said: Vec::new(),
            end_is_told: false,
        });
        relay.look_up_conversation();
        relay.model = relay.choose_model();
        Ok(relay)
    }
}

/// An API, as the relay is asked in it.
#[derive(Clone, Copy)]
pub enum Api {
    /// One that the upstream knows.
    Native(&'static dyn Dialect),
    /// One that is translated.
    Translated(&'static dyn Translated),
}

impl Api {
    /// The API of a path.
    pub fn of(path: &str) -> Option<Self> {
        dialect::of(path).map(Self::Native).or_else(|| dialect::translated_of(path).map(Self::Translated))
    }

    fn native(self) -> &'static dyn Dialect {
        match self {
            Self::Native(dialect) => dialect,
            Self::Translated(translated) => translated.native(),
        }
    }

    /// Where clients ask for it.
    fn path(self) -> String {
        match self {
            Self::Native(dialect) => format!("/v1{}", dialect.path()),
            Self::Translated(translated) => translated.path().to_owned(),
        }
    }

    /// How it is called in the panel.
    pub fn name(self) -> &'static str {
        match self {
            Self::Native(dialect) => dialect.name(),
            Self::Translated(translated) => translated.name(),
        }
    }
}

type Understood = (Request, Option<(&'static dyn Translated, String)>);

fn understand(
    api: Api,
    body: Vec<u8>,
    address: &dyn Fn() -> String,
    snapshot: &Snapshot,
) -> Result<Understood, ApiError> {
    let text = text::decode(body, address)?;
    let not_an_object = |text: &str, error| text::not_an_object(text, &error, &address());
    let (text, translated) = match api {
        Api::Native(_) => (text, None),
        Api::Translated(translated) => {
            let in_native = translated.translate(&text).map_err(|error| not_an_object(&text, error))?;
            (in_native, Some((translated, text)))
        }
    };
    let dialect = api.native();
    let settings = &snapshot.settings;
    let default_model = match dialect.any_model_will_do() {
        true => settings.model.as_str(),
        false if settings.test_mode => offline::NAME,
        false => settings.embedding_model.as_deref().unwrap_or_default(),
    };
    let request = Request::parse(dialect, text, &settings.rule(default_model));
    let request = request.map_err(|(text, error)| not_an_object(&text, error))?;
    match request.wants_a_kept_conversation {
        true => Err(ApiError::no_kept_conversations()),
        false => Ok((request, translated)),
    }
}
