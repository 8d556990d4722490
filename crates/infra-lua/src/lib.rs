//! The language of deploys: inventories and deploys in Lua 5.4.
//!
//! [`load_inventory`] reads an inventory file with its group data. [`Deploy::load`] reads deploy files once for all hosts and is the
//! [`Language`](infra_core::script::Language) in which each host's [`Script`](infra_core::script::Script) is written: a Lua state of its own,
//! in which the files run as one coroutine that stops when it needs the answers of facts.
//!
//! This crate opens nothing by itself: files, the environment and commands of the controller come through a [`World`]. What a person wrote
//! wrongly is told by a [`Diagnostic`](infra_core::diagnostic::Diagnostic) with its file, its line and the nearest right name, never by a bare
//! message of Lua.

mod blocks;
mod call_bodies;
mod conditions;
mod convert;
mod deploy;
mod errors;
mod evaluation;
mod globals;
mod hints;
mod host_object;
mod inventory_file;
mod late;
mod once;
mod operations;
mod performing;
mod pool;
mod requests;
mod scope;
mod secrets;
mod source;
mod state;
mod strategies;
mod syntax_checks;
mod syntax_functions;
mod text_functions;
mod unknown_names;
mod world;

pub use deploy::Deploy;
pub use evaluation::Limits;
pub use inventory_file::load_inventory;
pub use world::{LocalCommand, LocalOutput, Question, World};
