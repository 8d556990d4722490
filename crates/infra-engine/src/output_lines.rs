//! Output of a running command: from pieces of any size to lines, with what is kept of it bounded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use infra_core::BoxFuture;
use infra_core::connection::{OutputSink, TakeOutput};
use infra_core::event::Event;
use infra_core::host::HostId;
use infra_core::output::{Capture, Stream};
use infra_core::plan::OpId;
use tokio::sync::{Notify, mpsc};

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
    sender: mpsc::UnboundedSender<Piece>,
    receiver: mpsc::UnboundedReceiver<Piece>,
}

/// How many pieces wait, and word of each that does so no more.
#[derive(Default)]
struct Queue {
    waiting: AtomicUsize,
    taken: Notify,
}

/// What splits the pieces: run it beside the command.
pub(crate) struct Splitter {
    receiver: mpsc::UnboundedReceiver<Piece>,
    queue: Arc<Queue>,
    events: EventStream,
    op: OpId,
    host: HostId,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    kept: Kept,
}

/// Says that the command has ended.
pub(crate) struct EndOfOutput(mpsc::UnboundedSender<Piece>);

impl OutputLines {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { sender, receiver }
    }

    /// Its three parts: what the connection calls, what splits, and what ends it.
    pub(crate) fn parts(self, events: EventStream, op: OpId, host: HostId, kept: Kept) -> (OutputSink, Splitter, EndOfOutput) {
        let queue = Arc::new(Queue::default());
        let (stdout, stderr) = (Vec::new(), Vec::new());
        let splitter = Splitter { receiver: self.receiver, queue: queue.clone(), events, op, host, stdout, stderr, kept };
        let sink = Sink { sender: self.sender.clone(), queue };
        (Arc::new(sink), splitter, EndOfOutput(self.sender))
    }
}

/// Where the connection puts what it reads. The queue has no bound of its own: the connection asks for room before it reads on, and so in the
/// end the command waits. No thread ever does.
struct Sink {
    sender: mpsc::UnboundedSender<Piece>,
    queue: Arc<Queue>,
}

impl TakeOutput for Sink {
    fn take(&self, stream: Stream, bytes: &[u8]) {
        self.queue.waiting.fetch_add(1, Ordering::AcqRel);
        // After its end nothing is taken.
        let _ = self.sender.send(Piece::Bytes(stream, bytes.to_vec()));
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            while self.queue.waiting.load(Ordering::Acquire) >= WAITING && !self.sender.is_closed() {
                // One word is kept for who was not listening when it was said.
                self.queue.taken.notified().await;
            }
        })
    }
}

impl EndOfOutput {
    /// All output has been handed on.
    pub(crate) fn end(self) {
        let _ = self.0.send(Piece::End);
    }
}

impl Drop for Splitter {
    fn drop(&mut self) {
        // Nobody is to wait for one that has ended before its time.
        self.receiver.close();
        self.queue.taken.notify_one();
    }
}

impl Splitter {
    /// Emits lines until the end, and gives what is kept.
    pub(crate) async fn run(mut self) -> Kept {
        while let Some(Piece::Bytes(stream, bytes)) = self.receiver.recv().await {
            self.queue.waiting.fetch_sub(1, Ordering::AcqRel);
            self.queue.taken.notify_one();
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
        std::mem::take(&mut self.kept)
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

    async fn lines_of(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (sender, mut receiver) = mpsc::channel(1024);
        let (op, host) = (OpId(0), HostId(0));
        let events = EventStream::new(sender);
        events.emit(Event::HostOperationStarted { op, host }).await;
        let (sink, splitter, end) = OutputLines::new().parts(events, op, host, Kept::default());
        for piece in pieces {
            sink.take(Stream::Stdout, piece);
        }
        end.end();
        let kept = splitter.run().await;
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
    async fn there_is_room_again_when_a_piece_was_taken_or_nobody_takes_any_more() {
        let (sender, mut receiver) = mpsc::channel(1024);
        let (sink, splitter, _end) = OutputLines::new().parts(EventStream::new(sender), OpId(0), HostId(0), Kept::default());
        for _ in 0..WAITING {
            sink.room().await;
            sink.take(Stream::Stdout, b"line\n");
        }
        let mut room = sink.room();
        assert!(std::future::poll_fn(|context| std::task::Poll::Ready(room.as_mut().poll(context).is_pending())).await);
        let mut splitting = tokio::task::JoinSet::new();
        splitting.spawn(splitter.run());
        room.await;
        splitting.shutdown().await;
        for _ in 0..2 * WAITING {
            sink.room().await;
            sink.take(Stream::Stdout, b"line\n");
        }
        receiver.close();
    }

    #[tokio::test]
    async fn long_lines_come_in_pieces() {
        let long = vec![b'x'; LINE + 1];
        let sizes: Vec<usize> = lines_of(&[&long, b"\n", &long[1..], b"\ny"]).await.iter().map(Vec::len).collect();
        assert_eq!(sizes, [LINE, 1, LINE, 1]);
    }

    #[test]
    fn more_hosts_than_threads_that_print_without_end_hold_each_other_up_only_for_a_while() {
        const HOSTS: u32 = 24;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(4).enable_all().build().unwrap();
        let (sender, mut receiver) = mpsc::channel(1);
        let reading = std::thread::spawn(move || {
            let mut lines = 0;
            while let Some(event) = receiver.blocking_recv() {
                lines += usize::from(matches!(event, Event::Output { .. }));
            }
            lines
        });
        let events = EventStream::new(sender);
        runtime.block_on(async {
            let mut hosts = tokio::task::JoinSet::new();
            for host in (0..HOSTS).map(HostId) {
                let (op, events) = (OpId(0), events.clone());
                hosts.spawn(async move {
                    events.emit(Event::HostOperationStarted { op, host }).await;
                    let (sink, splitter, end) = OutputLines::new().parts(events, op, host, Kept::default());
                    let splitting = tokio::spawn(splitter.run());
                    for _ in 0..4 * WAITING {
                        sink.room().await;
                        sink.take(Stream::Stdout, b"line\n");
                    }
                    end.end();
                    splitting.await.unwrap();
                });
            }
            let all = async { while hosts.join_next().await.is_some() {} };
            tokio::time::timeout(std::time::Duration::from_secs(20), all).await.expect("it comes to an end");
        });
        runtime.shutdown_background();
        drop(events);
        assert_eq!(reading.join().unwrap(), HOSTS as usize * 4 * WAITING);
    }
}
