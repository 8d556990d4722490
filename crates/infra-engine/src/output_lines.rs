//! Output of a running command: from pieces of any size to lines, with what is kept of it bounded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use infra_core::connection::OutputSink;
use infra_core::event::Event;
use infra_core::host::HostId;
use infra_core::output::{Capture, Stream};
use infra_core::plan::OpId;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc;

use crate::event_stream::EventStream;

/// A line that is longer, in bytes, comes in pieces of this size.
const LINE: usize = 64 * 1024;
/// How many pieces of output may wait to be split into lines.
const WAITING: usize = 32;
/// How many of the last lines a failure shows.
const LAST: usize = 20;

/// What is kept of the output of an operation's commands.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) stdout: Capture,
    pub(crate) stderr: Capture,
    last: VecDeque<String>,
}

impl Kept {
    /// The last lines of both streams.
    pub(crate) fn last_lines(&self) -> Vec<String> {
        self.last.iter().cloned().collect()
    }
}

enum Piece {
    Bytes(Stream, Vec<u8>),
    End,
}

/// Takes the output of one command.
pub(crate) struct OutputLines {
    sender: mpsc::Sender<Piece>,
    receiver: mpsc::Receiver<Piece>,
}

/// What splits the pieces: run it beside the command.
pub(crate) struct Splitter {
    receiver: mpsc::Receiver<Piece>,
    events: EventStream,
    op: OpId,
    host: HostId,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    kept: Kept,
    /// How many bytes were let go for want of room.
    lost: Arc<AtomicU64>,
}

/// Says that the command has ended.
pub(crate) struct EndOfOutput(mpsc::Sender<Piece>);

impl OutputLines {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Self { sender, receiver }
    }

    /// Its three parts: what the connection calls, what splits, and what ends it.
    pub(crate) fn parts(self, events: EventStream, op: OpId, host: HostId, kept: Kept) -> (OutputSink, Splitter, EndOfOutput) {
        let lost: Arc<AtomicU64> = Arc::default();
        let (stdout, stderr) = (Vec::new(), Vec::new());
        let splitter = Splitter { receiver: self.receiver, events, op, host, stdout, stderr, kept, lost: lost.clone() };
        let sender = self.sender.clone();
        let sink: OutputSink = Arc::new(move |stream, bytes: &[u8]| {
            for piece in bytes.chunks(LINE) {
                send(&sender, Piece::Bytes(stream, piece.to_vec()), &lost);
            }
        });
        (sink, splitter, EndOfOutput(self.sender))
    }
}

/// Hands on a piece; where too many wait, the reader of the pipe waits as well, and so in the end does the command. After its end nothing is taken.
fn send(sender: &mpsc::Sender<Piece>, piece: Piece, lost: &AtomicU64) {
    let Err(mpsc::error::TrySendError::Full(piece)) = sender.try_send(piece) else { return };
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            tokio::task::block_in_place(|| drop(handle.block_on(sender.send(piece))));
        }
        // A runtime of one thread cannot wait here without standing still: what does not fit is let go and counted.
        Ok(_) => {
            if let Piece::Bytes(_, bytes) = piece {
                lost.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
        }
        Err(_) => drop(sender.blocking_send(piece)),
    }
}

impl EndOfOutput {
    /// All output has been handed on.
    pub(crate) async fn end(self) {
        let _ = self.0.send(Piece::End).await;
    }
}

impl Splitter {
    /// Emits lines until the end, and gives what is kept.
    pub(crate) async fn run(mut self) -> Kept {
        while let Some(Piece::Bytes(stream, bytes)) = self.receiver.recv().await {
            match stream {
                Stream::Stdout => self.kept.stdout.push(&bytes),
                Stream::Stderr => self.kept.stderr.push(&bytes),
            }
            self.split(stream, &bytes).await;
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(self.rest(stream));
            if !rest.is_empty() {
                self.line(stream, rest).await;
            }
        }
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > 0 {
            self.line(Stream::Stderr, format!("… {lost} bytes of output came too fast and are not shown …").into_bytes()).await;
        }
        self.kept
    }

    fn rest(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    async fn split(&mut self, stream: Stream, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let rest = self.rest(stream);
            let room = LINE - rest.len();
            let newline = bytes.iter().take(room + 1).position(|byte| *byte == b'\n');
            let taken = newline.unwrap_or_else(|| bytes.len().min(room));
            rest.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken + usize::from(newline.is_some())..];
            if newline.is_some() || (rest.len() == LINE && !bytes.is_empty()) {
                let line = std::mem::take(rest);
                self.line(stream, line).await;
            }
        }
    }

    async fn line(&mut self, stream: Stream, line: Vec<u8>) {
        if self.kept.last.len() == LAST {
            self.kept.last.pop_front();
        }
        // A failure shows lines, not pages.
        self.kept.last.push_back(String::from_utf8_lossy(&line[..line.len().min(1024)]).into_owned());
        self.events.emit(Event::Output { op: self.op, host: self.host, stream, line }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_let_go_on_a_single_thread_is_counted() {
        let big = vec![b'x'; LINE];
        let pieces = vec![&big[..]; WAITING + 2];
        let last = lines_of(&pieces).await.pop().expect("there are lines");
        assert_eq!(String::from_utf8_lossy(&last), format!("… {} bytes of output came too fast and are not shown …", 2 * LINE));
    }

    async fn lines_of(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (sender, mut receiver) = mpsc::channel(1024);
        let (op, host) = (OpId(0), HostId(0));
        let events = EventStream::new(sender, None);
        events.emit(Event::HostOperationStarted { op, host }).await;
        let (sink, splitter, end) = OutputLines::new().parts(events, op, host, Kept::default());
        for piece in pieces {
            sink(Stream::Stdout, piece);
        }
        let (kept, ()) = tokio::join!(splitter.run(), end.end());
        assert!(kept.last_lines().len() <= LAST);
        let mut lines = Vec::new();
        receiver.close();
        while let Some(event) = receiver.recv().await {
            if let Event::Output { line, .. } = event {
                lines.push(line);
            }
        }
        lines
    }

    #[tokio::test]
    async fn pieces_become_lines() {
        assert_eq!(lines_of(&[b"a", b"b\nc\n\n", b"d"]).await, [&b"ab"[..], b"c", b"", b"d"]);
        assert_eq!(lines_of(&[]).await, Vec::<Vec<u8>>::new());
    }

    #[tokio::test]
    async fn long_lines_come_in_pieces() {
        let long = vec![b'x'; LINE + 1];
        let sizes: Vec<usize> = lines_of(&[&long, b"\n", &long[1..], b"\ny"]).await.iter().map(Vec::len).collect();
        assert_eq!(sizes, [LINE, 1, LINE, 1]);
    }
}
