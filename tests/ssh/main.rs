//! Hosts over ssh as a user has them: the user's configuration, agent, keys, certificates and passwords, and connections that are kept.

#[path = "../common/mod.rs"]
mod common;
mod kept;
mod keys;
mod passwords;
mod questions;
mod shells;
mod stage;
#[path = "../common/terminal.rs"]
mod terminal;
mod trouble;
mod ways;
