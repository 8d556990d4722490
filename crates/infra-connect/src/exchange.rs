//! One conversation with a `sh`: what is written goes out while what is printed comes in.

use std::pin::Pin;
use std::sync::Arc;

use infra_core::BoxFuture;
use infra_core::output::Stream;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::envelope::Mark;
use crate::payload::{Input, Part, Progress, send};
use crate::receipts::{Marks, Piece, Scanner};
use crate::spawn::Process;

const BUFFER: usize = 32 * 1024;

/// Takes what a host prints, stream by stream.
pub(crate) trait Listener: Send {
    /// The next piece of one of the streams.
    fn hear(&mut self, stream: Stream, piece: Piece<'_, Mark>);
    /// A stream is at its end.
    fn closed(&mut self, stream: Stream);
    /// Whether it can take more of this stream by now. Where it cannot, that is not read before the other one has moved.
    fn takes(&self, _: Stream) -> bool {
        true
    }
    /// Waits until it can take more.
    fn room(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// What a step of a conversation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Something was heard or sent.
    Moved,
    /// Both outputs are at their end.
    Closed,
}

struct Side {
    stream: Option<Pin<Box<dyn AsyncRead + Send>>>,
    scanner: Scanner<Mark>,
    buffer: Box<[u8]>,
}

impl Side {
    async fn read(&mut self) -> usize {
        let Some(stream) = &mut self.stream else { return std::future::pending().await };
        // An error of a pipe is its end: what was lost with it shows as a missing receipt.
        stream.read(&mut self.buffer).await.unwrap_or(0)
    }

    fn take(&mut self, read: usize, which: Stream, listener: &mut dyn Listener) {
        if read > 0 {
            self.scanner.push(&self.buffer[..read], |piece| listener.hear(which, piece));
        } else {
            self.stream = None;
            self.scanner.finish(|piece| listener.hear(which, piece));
            listener.closed(which);
        }
    }
}

/// A conversation. Dropping it closes the pipes.
pub(crate) struct Exchange {
    stdout: Side,
    stderr: Side,
    writing: Option<BoxFuture<'static, Option<Input>>>,
    /// The input, once all was sent, where it is kept.
    input: Option<Input>,
    ends: bool,
    progress: Arc<Progress>,
    ended: Option<BoxFuture<'static, String>>,
}

impl Exchange {
    /// Begins to send these parts to `process`, in whose outputs these marks may come, and then ends its input, unless that is to be kept.
    pub(crate) fn new(process: Process, marks: Marks<Mark>, parts: Vec<Part>, keep: bool) -> Self {
        let marks = Arc::new(marks);
        let progress = Arc::new(Progress::new());
        let side = |stream| Side { stream: Some(stream), scanner: Scanner::new(marks.clone()), buffer: vec![0; BUFFER].into_boxed_slice() };
        Self {
            stdout: side(process.stdout),
            stderr: side(process.stderr),
            writing: Some(Box::pin(send(process.stdin, parts, progress.clone(), keep))),
            progress,
            input: None,
            ends: process.ends,
            ended: Some(process.ended),
        }
    }

    /// Whether all was sent and the input is kept, so that more can be.
    pub(crate) fn has_sent(&self) -> bool {
        self.input.is_some()
    }

    /// Sends more, where [`has_sent`](Self::has_sent) says that it may.
    pub(crate) fn send_more(&mut self, text: String) {
        if let Some(input) = self.input.take() {
            self.writing = Some(Box::pin(send(input, vec![Part::script(text)], self.progress.clone(), true)));
        }
    }

    /// How far the sending is.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Waits until something moves. It may be dropped and called again without loss.
    pub(crate) async fn step(&mut self, listener: &mut dyn Listener) -> Step {
        if self.stdout.stream.is_none() && self.stderr.stream.is_none() {
            return Step::Closed;
        }
        listener.room().await;
        tokio::select! {
            read = self.stdout.read(), if listener.takes(Stream::Stdout) => {
                self.progress.advance();
                self.stdout.take(read, Stream::Stdout, listener);
            }
            read = self.stderr.read(), if listener.takes(Stream::Stderr) => self.stderr.take(read, Stream::Stderr, listener),
            input = async { match &mut self.writing { Some(writing) => writing.await, None => std::future::pending().await } } => {
                self.writing = None;
                self.input = input;
            }
        }
        Step::Moved
    }

    /// How the connector says that it ended, once the outputs are at their end; it is given a moment to find out.
    pub(crate) async fn reason(&mut self) -> String {
        self.writing = None;
        self.input = None;
        let unknown = || "the shell on the host ended without a receipt".to_owned();
        let Some(ended) = self.ended.take() else { return unknown() };
        tokio::time::timeout(std::time::Duration::from_secs(2), ended).await.unwrap_or_else(|_| unknown())
    }

    /// The process, as it was before, when all that was sent to it has been read by it and all that it said has been heard. None where that is not so.
    pub(crate) async fn into_process(mut self) -> Option<Process> {
        if let Some(writing) = &mut self.writing {
            // It may have been done for a while, and nobody looked.
            tokio::select! {
                biased;
                input = writing => self.input = input,
                () = std::future::ready(()) => {}
            }
        }
        let whole = |side: Side| side.stream.filter(|_| side.scanner.is_clear());
        Some(Process { stdin: self.input?, stdout: whole(self.stdout)?, stderr: whole(self.stderr)?, ends: self.ends, ended: self.ended? })
    }
}
