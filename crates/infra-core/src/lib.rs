//! The words of infra: what two crates must agree on, and nothing else.
//!
//! Everything here is plain data, pure functions and traits. Nothing in this crate reads a file, starts a process, looks at
//! the environment or the clock, or prints: a test of the repository holds it to that.
//!
//! Where to look:
//!
//! - the machines: [`host`], [`inventory`], made by [`inventory_builder`] from spellings ([`address`], [`nodeset`]);
//! - what is asked of them and what is done to them: [`fact`], [`operation`], [`change`], [`command`], [`resources`], [`node`], [`tree`];
//! - how a deploy reaches the engine: [`script`], [`late`], [`condition`], [`global_arguments`], [`registry`], [`arguments`];
//! - how the engine reaches a host: [`connection`], one run at a time: [`lock`];
//! - plans that outlive their run: [`saved_plan`];
//! - what came of it: [`plan`], [`event`], [`run_state`], whether the plan was [kept to](kept_to), and of the runs before: [`earlier`];
//! - what a person reads when something is wrong: [`diagnostic`].

pub mod address;
pub mod arguments;
pub mod change;
pub mod command;
pub mod condition;
pub mod connection;
pub mod diagnostic;
pub mod digest;
pub mod earlier;
pub mod event;
pub mod example;
pub mod fact;
pub mod facts;
mod glob;
pub mod global_arguments;
pub mod host;
pub mod inventory;
pub mod inventory_builder;
pub mod kept_to;
pub mod late;
pub mod lock;
pub mod mode;
pub mod node;
pub mod nodeset;
pub mod operation;
pub mod output;
pub mod plan;
pub mod privilege;
pub mod registry;
pub mod resources;
pub mod run_state;
pub mod saved_plan;
pub mod script;
pub mod secret;
pub mod selection;
pub mod template;
pub mod tree;
pub mod waves;

/// A value of the JSON data model: what arguments, host data and the answers of facts are made of.
///
/// Text is UTF-8. The order of a map's keys is the order in which they were given.
pub use serde_json::Value;

/// A map of the JSON data model, with the order of its keys kept.
pub type Map = serde_json::Map<String, Value>;

/// A future that can be sent between threads and whose type has been erased.
pub type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;
