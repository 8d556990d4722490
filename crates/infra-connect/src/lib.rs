//! The wire: how hosts are reached, and how commands run on them.
//!
//! [`Wire`] implements [`Connect`](infra_core::connection::Connect) for the connectors there are. A connector gives one thing only,
//! [`spawn`]: *start `sh` on the host, with an input to write and two outputs to read*. Everything else is written once, above it:
//! privilege, the framing of many questions in one request, receipts, uploads, scripts, deadlines and the killing of process groups.
//!
//! # To add a connector
//!
//! 1. Implement [`Spawn`](spawn::Spawn) in a module of its own: start a process that ends up as `sh -c SCRIPT` on the host (for a
//!    container `docker exec -i NAME sh -c SCRIPT`). `SCRIPT` is one constant line without quotes, backslashes or newlines in odd places; all that
//!    matters, secrets too, is written to its standard input.
//! 2. Make the first process with it, say hello ([`Reached::meet`](reached::Reached::meet)), and give the `Reached` back. It serves commands from then on.
//! 3. Add the kind to `infra_core::host::Connector` and one arm to [`Wire`]'s `connect`.
//!
//! No other module needs to know of it.
//!
//! # What holds for every connector
//!
//! - An exit is a code that came with our own receipt, or it is *lost*. What the connector says about the end of its process is only
//!   used for the words of a message.
//! - Nothing that a host prints can be taken for a receipt: each has 128 random bits, which are sent on standard input only.
//! - Commands share a shell, one after the other, for as long as none of them may have left something behind (`sessions`): most cost one round trip.
//! - What was printed before a command began (banners, shell start-up files) is never part of its output.
//! - A command that leaves a child behind which holds its outputs open does not hang: it ends with the receipt.

pub mod child;
mod download;
mod envelope;
mod exchange;
mod gather;
mod local;
mod lock;
mod lock_script;
mod payload;
mod perform;
mod privilege;
mod process_group;
pub mod reached;
mod receipts;
mod script;
mod sessions;
pub mod settings;
pub mod spawn;
mod ssh;
mod upload;
mod wire;

pub use settings::Settings;
pub use wire::Wire;
