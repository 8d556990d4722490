//! The one thing that a connector gives: a `sh` on the host.

use std::pin::Pin;

use infra_core::BoxFuture;
use infra_core::connection::ConnectError;
use tokio::io::{AsyncRead, AsyncWrite};

/// The script of every `sh` that a connector starts: it reads one line from its standard input and does what that says.
///
/// It stands in process lists, so it never says more than this. There is no single quote, no backslash and no newline in it: between single
/// quotes every login shell (also csh and fish) takes it as it is. `read` takes bytes one by one from a pipe, so what follows the line is left for
/// those who come next.
pub const BOOT: &str = r#"IFS= read -r infra_l && eval "$infra_l""#;

/// Starts `sh` on a host that was reached.
pub trait Spawn: Send + Sync + 'static {
    /// Starts `sh -c BOOT` in a session or process group of its own, with [`BOOT`] as it stands.
    fn spawn(&self) -> BoxFuture<'_, Result<Process, SpawnError>>;

    /// How many of these may run at once on one connection, the first of them included.
    fn sessions(&self) -> usize;

    /// The name or address at which this machine reaches the host.
    fn address(&self) -> String;

    /// Opens so many connections in all, each for [`sessions`](Self::sessions) more, where a connection bears so few.
    fn widen(&self, connections: usize) -> BoxFuture<'_, Result<(), ConnectError>> {
        let _ = connections;
        Box::pin(std::future::ready(Ok(())))
    }

    /// Ends the connection and removes what it left on this machine.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// A `sh` on a host. Dropping it closes its input and outputs, and kills nothing; see [`ends`](Self::ends).
pub struct Process {
    /// Its standard input. Shut down, it is at its end.
    pub stdin: Pin<Box<dyn AsyncWrite + Send>>,
    /// Its standard output.
    pub stdout: Pin<Box<dyn AsyncRead + Send>>,
    /// Its standard error.
    pub stderr: Pin<Box<dyn AsyncRead + Send>>,
    /// Whether it ends when it is dropped, and its input with it. The first shell of a connection may be held open by the connection, whose end it would be.
    pub ends: bool,
    /// How it ended, as the connector tells it: a sentence fragment for messages, such as *the connection was closed by the host*. It is asked for
    /// once the outputs are at their end. No decision rests on it.
    pub ended: BoxFuture<'static, String>,
}

/// Why no `sh` was started. Nothing ran.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpawnError {
    /// The host is there and does not want one more at this time; why, as a sentence fragment.
    #[error("{0}")]
    Refused(String),
    /// The connection is gone; why, as a sentence fragment.
    #[error("the connection was lost: {0}")]
    Lost(String),
}
