//! OpenRouter's free models for every OpenAI-compatible tool on a machine.
//!
//! A request goes through these modules in this order: [`listen`] accepts it, [`server`] hands it to a thread,
//! [`access`] lets it in, [`free_models`] makes it free, [`gate`] lets it go ahead, [`forward`] sends it through
//! [`upstream`] and relays the answer to the [`client`]. [`live`] says by which settings, [`calls`] and [`files`]
//! remember it in debug mode, [`panel`] shows it.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod access;
pub mod args;
pub mod body;
pub mod buffers;
pub mod calls;
pub mod client;
pub mod completion;
pub mod console;
pub mod crew;
pub mod env_file;
pub mod error;
pub mod files;
pub mod forward;
pub mod free_models;
pub mod gate;
pub mod json;
pub mod language;
pub mod life;
pub mod listen;
pub mod live;
pub mod memory;
pub mod models;
pub mod offline;
pub mod panel;
pub mod patience;
pub mod presence;
pub mod proxy;
pub mod queue;
pub mod quota;
pub mod seat;
pub mod server;
pub mod settings;
pub mod sse;
pub mod start;
pub mod upstream;
pub mod waiting;
pub mod watcher;
pub mod wire;
