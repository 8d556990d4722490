//! How the engine reaches a host.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::BoxFuture;
use crate::change::Action;
use crate::command::Command;
use crate::global_arguments::Context;
use crate::host::Host;
use crate::lock::{Claim, Locked};
use crate::output::{Output, Stream};
use crate::resources::Resources;

/// Makes connections.
pub trait Connect: Send + Sync {
    /// Connects to a host within the connect deadline.
    fn connect<'a>(&'a self, host: &'a Arc<Host>) -> BoxFuture<'a, Result<Arc<dyn Connection>, ConnectError>>;
}

/// The step of connecting in which an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectStep {
    /// Settings of the host that cannot be used.
    Settings,
    /// From the name to an address.
    Resolve,
    /// To the address.
    Connect,
    /// Waiting for the server to speak.
    Banner,
    /// Agreeing on keys and checking the host's.
    HostKey,
    /// Showing who one is.
    Authenticate,
    /// Starting `sh`.
    Shell,
}

impl std::fmt::Display for ConnectStep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Settings => "settings",
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Banner => "banner",
            Self::HostKey => "host key",
            Self::Authenticate => "authenticate",
            Self::Shell => "shell",
        })
    }
}

/// Why a host is unreachable.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq, Serialize, Deserialize)]
#[error("unreachable ({step}): {message}")]
pub struct ConnectError {
    /// Where it ended.
    pub step: ConnectStep,
    /// Why, as a sentence fragment.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Where output goes as it comes.
pub type OutputSink = Arc<dyn TakeOutput>;

/// Takes output as it comes, in pieces of any size.
pub trait TakeOutput: Send + Sync {
    /// Takes a piece, at once. What comes without room for it may be let go.
    fn take(&self, stream: Stream, bytes: &[u8]);

    /// Waits until there is room for more. Who hands on output waits for this before reading on, so that a slow reader of the output slows the
    /// command, and what waits in between stays bounded. It is a wait and not a block: a thread of the runtime must stay free for whoever makes room.
    fn room(&self) -> BoxFuture<'static, ()>;

    /// So many bytes of the file or tree that the step writes or fetches have been moved by now. It is said often.
    fn moved(&self, bytes: u64) {
        let _ = bytes;
    }
}

impl<F: Fn(Stream, &[u8]) + Send + Sync> TakeOutput for F {
    fn take(&self, stream: Stream, bytes: &[u8]) {
        self(stream, bytes);
    }

    fn room(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// A host that was reached. It may be used by several tasks at once.
pub trait Connection: Send + Sync {
    /// Reads facts: all of them in one round trip for each context among them, each with an ending and a status of its own.
    ///
    /// The answers stand in the order of the questions; one that printed too much or took too long is an error of its own. Commands read nothing
    /// from standard input, in the locale `C.UTF-8` or `C`.
    ///
    /// # Errors
    /// [`Lost`] when the connection broke.
    fn gather(&self, questions: Vec<Question>) -> BoxFuture<'_, Result<Vec<Result<Output, String>>, Lost>>;

    /// Makes sure that so many commands can run at the same time, before the first of them begins: more connections are opened where one of them does
    /// not bear so many. It is asked for when nothing else is in flight on the host. Who has no limit has nothing to do.
    ///
    /// # Errors
    /// [`Crowded`] when the host does not bear so many. Nothing ran then, and what was opened for it is closed again.
    fn prepare_for(&self, commands: usize) -> BoxFuture<'_, Result<(), Crowded>> {
        let _ = commands;
        Box::pin(std::future::ready(Ok(())))
    }

    /// From now on changes are made under the lock of the machine, as this claim says; with `None`, which is how a connection begins, without one.
    ///
    /// The first [`gather`](Self::gather) after that reads in passing how the lock stands. The first step that changes something takes it, in the same round
    /// trip; each step after that makes sure that it is still held. It is kept alive until it is [released](Self::release).
    fn claim(&self, _claim: Option<Claim>) {}

    /// How often it has turned out that something may have changed the host after its facts were read. Who diffs reads it before the first fact that the
    /// diff rests on, and says it in [`Perform::as_of`].
    fn moves(&self) -> u64 {
        0
    }

    /// Takes the lock and changes nothing else: for who waits for it. It ends as a step would that does nothing.
    fn take_lock(&self) -> BoxFuture<'_, Ending> {
        Box::pin(std::future::ready(Ending::Exited(0)))
    }

    /// Gives the lock back, where it was taken.
    fn release(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Does one step of a change, giving output to `sink` as it comes and as there is [room](TakeOutput::room) for it.
    fn perform<'a>(&'a self, step: Perform<'a>, sink: OutputSink) -> BoxFuture<'a, Ending>;

    /// Something of this was changed on the host. What runs later must not see it as it was: a shell that serves many commands has the groups, limits
    /// and environment of the moment in which it was opened.
    fn changed(&self, _touched: &Resources) {}

    /// Makes the steps of a change ready to be done one after the other, with questions behind them, so that what belongs together goes out in one request.
    /// None where the connection does each step by itself.
    fn line_up<'a>(&'a self, lineup: Lineup<'a>) -> Option<Box<dyn LinedUp + 'a>> {
        let _ = lineup;
        None
    }

    /// Kills the process groups of all commands in flight, which then end as [`Ending::Killed`]. What is asked for later runs as ever.
    fn end(&self) -> BoxFuture<'_, ()>;

    /// Kills the process groups of all commands in flight, which then end as [`Ending::Killed`]. What is asked for later is not
    /// started any more.
    fn kill(&self) -> BoxFuture<'_, ()>;

    /// Keeps what the host was made into, where its data asks for that: the container that was started for the run, or an image made of it. It is
    /// asked where execute began, once, before the connection is closed; `ok` says whether the host came through well. Gives what was kept, each
    /// in words for a person.
    ///
    /// # Errors
    /// When something that was asked for is not kept, as a sentence fragment.
    fn keep(&self, _ok: bool) -> BoxFuture<'_, Result<Vec<String>, String>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }

    /// Ends the connection. Commands in flight are lost.
    fn close(&self) -> BoxFuture<'_, ()>;

    /// What has gone over the connection since it was made. Nothing where nobody counts.
    fn traffic(&self) -> Traffic {
        Traffic::default()
    }
}

/// What has gone over a connection since it was made; making it is not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Requests after whose answer the next could be sent. Opening a shell is one, and so is what is asked of it, however many questions that holds.
    pub round_trips: u64,
    /// Steps of changes that were sent: commands, uploads and scripts.
    pub commands: u64,
}

/// One command that reads a fact.
#[derive(Clone, Debug)]
pub struct Question {
    /// The command.
    pub command: Command,
    /// As whom and with what environment.
    pub context: Context,
}

/// One step of a change, and how it runs.
#[derive(Clone, Debug)]
pub struct Perform<'a> {
    /// The step.
    pub action: &'a Action,
    /// As whom, where and with what environment.
    pub context: &'a Context,
    /// When its process group is killed; an upload counts from its last progress.
    pub timeout: Option<Duration>,
    /// What [`Connection::moves`] said when the facts were read on which the step rests: where it says something else by now, the step is not done and
    /// ends as [`Locked::Moved`]. None for a step that changes nothing, such as waiting: it needs no lock.
    pub as_of: Option<u64>,
}

/// The steps of one change, and what is to be read once they were done.
#[derive(Clone, Debug)]
pub struct Lineup<'a> {
    /// The steps, in order. After one that did not end with 0 none is begun any more.
    pub steps: Vec<Perform<'a>>,
    /// Questions that are asked behind the last step that was begun, also when that failed.
    pub behind: Vec<Question>,
}

/// Steps that were made ready. Those that are dropped before they were asked for may be done nevertheless.
pub trait LinedUp: Send {
    /// Does the next step, or hears how it went, giving output to `sink` as it comes and as there is [room](TakeOutput::room) for it. It is not called
    /// again after a step that did not end with 0, nor more often than there are steps.
    fn next(&mut self, sink: OutputSink) -> BoxFuture<'_, Ending>;

    /// The answers to the questions behind, in their order, when no further step is wanted. None for what could not be read along, which is to be asked
    /// in a request of its own.
    fn answers(&mut self) -> BoxFuture<'_, Vec<Option<Output>>>;
}

/// The connection broke.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the connection was lost: {reason}")]
pub struct Lost {
    /// Why, as a sentence fragment.
    pub reason: String,
}

/// A host does not bear so many commands at the same time.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub struct Crowded {
    /// How many were asked for, how many there may be and why, as a sentence fragment.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// With this exit status. For an upload 0; a failed one is [`Ending::Refused`].
    Exited(i32),
    /// It was killed because its time was up.
    TimedOut {
        /// How long it had run.
        after: Duration,
        /// The process group that could not be killed.
        still_running: Option<u32>,
    },
    /// It was killed because the run was interrupted.
    Killed,
    /// It could not be done, and nothing was changed; why, as a sentence fragment.
    Refused(String),
    /// It was not done because of the lock of the machine, and nothing was changed.
    Locked(Locked),
    /// The connection broke before its ending was known.
    Lost {
        /// Why, as a sentence fragment.
        reason: String,
        /// Whether it may have begun: then its outcome is indeterminate.
        begun: bool,
    },
}
