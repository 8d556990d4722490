//! The wire: how hosts are reached, and how commands run on them.
//!
//! [`Wire`] implements [`Connect`](infra_core::connection::Connect) for the connectors there are. A connector gives one thing only,
//! [`spawn`]: *start `sh` on the host, with an input to write and two outputs to read*. Everything else is written once, above it:
//! privilege, the framing of many questions in one request, receipts, uploads, scripts, deadlines and the killing of process groups.
//!
//! # To use it without the binary
//!
//! Make one [`Wire`] with [`Settings`], take hosts from an inventory (`infra_core::inventory_builder::from_host_list` reads a list as the command line has
//! it), and [`connect`](infra_core::connection::Connect::connect) to each, all at once if you like: the wire knows how many handshakes may go on together.
//! The [`Connection`](infra_core::connection::Connection) that comes back runs commands, writes files and runs local scripts
//! ([`perform`](infra_core::connection::Connection::perform), with the output as it comes), and reads many short answers in one round trip
//! ([`gather`](infra_core::connection::Connection::gather)). Close it in the end: a connection that is dropped loses what is in flight.
//! `examples/many_hosts.rs` copies a file to many hosts and runs a command on them.
//!
//! It needs a runtime of tokio with time and I/O. Nothing is printed, and no setting is read from the environment; the programs it starts (`sh`, `ssh`,
//! `docker`, `podman`, `chroot`) are looked up in `PATH` and have the environment of the process.
//!
//! # To add a connector
//!
//! 1. In `infra_core`: the kind in `host::Connector` with its name and spelling (`ALL`, `name`, `spelling`; messages and hints come from these), and what
//!    stands behind `@NAME/` in `address::Address::parse`. It becomes `Host::address`. Settings beyond that are keys of the host's data.
//! 2. Here, a module of its own that implements [`Spawn`](spawn::Spawn): start a process that ends up as `sh -c BOOT` on the host ([`BOOT`](spawn::BOOT)),
//!    through [`child`] so that no Ctrl-C of the terminal reaches it. `BOOT` is one constant line; where a login shell reads it, put it between single
//!    quotes, of which it has none. All that matters, secrets too, is written to its standard input. If the process shares its process ids with the rest
//!    of the host (a container's do, within the container), the killing of process groups needs no more.
//! 3. A function that connects: find out what stands in the way in words (each with its [`ConnectStep`](infra_core::connection::ConnectStep) and a hint),
//!    start the first process, say hello ([`Reached::meet`](reached::Reached::meet)) within the connect deadline, and give the `Reached` back: it serves
//!    commands from then on. What is
//!    made on the way must go when the future is dropped, as it is when the run is interrupted, and when this process is killed: tie it to a pipe.
//! 4. One arm in [`Wire`]'s `connect`. Only what makes something for the run implements [`Spawn::keep`](spawn::Spawn::keep), too.
//! 5. The spelling in `infra --help` and in the book, and tests for real (`tests/connectors.rs`).
//!
//! No other module needs to know of it. `chroot.rs` is the shortest one to read, `container/` one with everything.
//!
//! # What holds for every connector
//!
//! - An exit is a code that came with our own receipt, or it is *lost*. What the connector says about the end of its process is only
//!   used for the words of a message.
//! - Nothing that a host prints can be taken for a receipt: each has 128 random bits, which are sent on standard input only.
//! - Commands share a shell, one after the other, for as long as none of them may have left something behind (`sessions`): most cost one round trip. The
//!   steps of a change go out together where nothing stands between them, with the questions that are asked behind them (`joined`).
//! - What was printed before a command began (banners, shell start-up files) is never part of its output.
//! - A command that leaves a child behind which holds its outputs open does not hang: it ends with the receipt.

pub mod askpass;
pub mod child;
mod chroot;
mod container;
mod download;
mod envelope;
mod exchange;
mod gather;
mod incoming;
mod joined;
mod local;
mod lock;
mod lock_script;
mod opening;
mod passwords;
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
mod together;
mod tree_download;
mod tree_upload;
mod upload;
mod wire;

pub use settings::Settings;
pub use wire::Wire;
