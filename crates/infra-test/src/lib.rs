//! The bench: what tests of the other crates and of the binary stand on.
//!
//! Everything here that is started is real: sshd processes of the test's own on loopback addresses ([`sshd`]), and Debian
//! machines with systemd, apt and sudo ([`fleet`], [`machine`]). They end with the value that stands for them, and also when the test
//! process is killed ([`guardian`]).
//!
//! [`relay`] is a wire of a given length between two of them, which counts round trips.
//!
//! [`facts`] has facts that are made up, to diff operations without a host; [`examples`] judges entries of the registry by their own
//! examples.
//!
//! `tests/setup`, run as root, installs and builds what this needs. A missing part is an error that says so, never a
//! skipped test.

pub mod black_hole;
mod control_group;
pub mod error;
pub mod examples;
pub mod facts;
pub mod fleet;
pub mod guardian;
pub mod leftovers;
pub mod machine;
mod network;
pub mod process;
pub mod relay;
pub mod snapshot;
mod ssh_files;
pub mod sshd;

pub use black_hole::BlackHole;
pub use error::BenchError;
pub use fleet::Fleet;
pub use machine::Machine;
pub use relay::Relay;
pub use snapshot::Snapshot;
pub use sshd::{HostKey, Sshd, SshdOptions};
