//! The standard library of infra: the facts that can be asked of a host and the operations that change one.
//!
//! A file's path is its name in Lua: `facts/systemd/status.rs` is the fact `systemd.status`, `operations/apt/packages.rs` the operation
//! `apt.packages`. Each file holds the documentation, the arguments, the logic, the examples and the tests of its one thing. What several
//! of them share stands beside this file under its own name.
//!
//! Nothing here does I/O. A fact is a question, the command that asks it and the reading of what the command printed; an operation is a
//! pure
//! function from arguments and facts to a change.

pub mod accounts;
pub mod authorized_keys;
pub mod facts;
pub mod file_content;
pub mod file_status;
pub mod file_times;
pub mod git_command;
pub mod host_key;
pub mod operations;
pub mod ownership;
pub mod packaging;
pub mod placement;
mod registry;
pub mod service_control;
pub mod text_edit;
pub mod tree_copy;
pub mod tree_fetch;

pub use registry::{facts, operations, registry};
