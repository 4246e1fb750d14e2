//! The contract with the users, section by section, tried on the real executable over real sockets.

mod fixture;

mod access;
mod answers_again;
mod backups;
mod backups_in_chat;
mod best;
mod debug_mode;
mod dialects;
mod endpoints;
mod errors;
mod failures;
mod failures_answers;
mod failures_conversations;
mod failures_numbers;
mod first_key;
mod forwarding;
mod free_models;
mod free_models_by_dialect;
mod gemini;
mod hostile_bodies;
mod http;
mod life;
mod limit;
mod model_names;
mod models;
mod offline;
mod ollama;
mod panel;
mod patience;
mod rerank;
mod routes_upstream;
mod run;
mod secrets;
mod settings;
mod speech;
