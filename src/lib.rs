//! OpenRouter's free models for every OpenAI-compatible tool on a machine.
//!
//! A request goes through these modules in this order: [`listen`] accepts it, [`server`] hands it to a thread,
//! [`access`] lets it in, [`free_models`] makes it free, [`gate`] lets it go ahead, [`forward`] sends it through
//! [`upstream`] and relays the answer to the [`client`]. [`live`] says by which settings, [`calls`] and [`files`]
//! remember it in debug mode, [`panel`] shows it.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[path = "client/access.rs"]
pub mod access;
#[path = "settings/args.rs"]
pub mod args;
pub mod body;
#[path = "upstream/buffers.rs"]
pub mod buffers;
#[path = "record/calls.rs"]
pub mod calls;
#[path = "client/exchange.rs"]
pub mod client;
#[path = "dialect/completion.rs"]
pub mod completion;
pub mod console;
#[path = "server/crew.rs"]
pub mod crew;
#[path = "settings/env_file.rs"]
pub mod env_file;
pub mod error;
#[path = "record/files.rs"]
pub mod files;
#[path = "relay/mod.rs"]
pub mod forward;
#[path = "dialect/free_models.rs"]
pub mod free_models;
#[path = "relay/gate.rs"]
pub mod gate;
pub mod json;
pub mod language;
#[path = "relay/life.rs"]
pub mod life;
#[path = "client/listen.rs"]
pub mod listen;
#[path = "live/mod.rs"]
pub mod live;
pub mod memory;
#[path = "relay/models.rs"]
pub mod models;
#[path = "relay/offline.rs"]
pub mod offline;
#[path = "server/panel.rs"]
pub mod panel;
#[path = "relay/patience.rs"]
pub mod patience;
#[path = "server/presence.rs"]
pub mod presence;
#[path = "relay/shared.rs"]
pub mod proxy;
#[path = "server/queue.rs"]
pub mod queue;
#[path = "relay/quota.rs"]
pub mod quota;
#[path = "client/seat.rs"]
pub mod seat;
#[path = "server/mod.rs"]
pub mod server;
#[path = "settings/mod.rs"]
pub mod settings;
#[path = "dialect/sse.rs"]
pub mod sse;
pub mod start;
#[path = "upstream/mod.rs"]
pub mod upstream;
pub mod waiting;
#[path = "live/watcher.rs"]
pub mod watcher;
#[path = "upstream/transport.rs"]
pub mod wire;
