//! Output of a running command: from pieces of any size to lines, with what is kept of it bounded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use infra_core::BoxFuture;
use infra_core::connection::{OutputSink, TakeOutput};
use infra_core::event::Event;
use infra_core::host::HostId;
use infra_core::output::{Capture, Stream};
use infra_core::plan::OpId;
use infra_core::secret::MaskedOutput;
use tokio::sync::{mpsc, watch};

use crate::event_stream::EventStream;

/// A line that is longer, in bytes, comes in pieces of this size.
const LINE: usize = 64 * 1024;
/// With so many pieces of output waiting to be split into lines, the connection waits before it reads on.
const WAITING: usize = 32;
/// How many more may come after it was told that there is room. One reading gives a few; what comes from who does not ask for room is let go and counted.
const BEYOND: usize = 32;
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
    /// For the next command: the last lines are those of one command, the streams those of all.
    pub(crate) fn of_next(self) -> Self {
        Self { last: VecDeque::new(), ..self }
    }

    /// The last lines of both streams, of the last command.
    pub(crate) fn last_lines(&self) -> Vec<String> {
        self.last.iter().cloned().collect()
    }
}

enum Piece {
    Bytes(Stream, Vec<u8>),
    End,
}

/// Progress is told at most this often.
const TELLING: Duration = Duration::from_millis(200);

/// Takes the output of one command.
pub(crate) struct OutputLines {
    total: Option<u64>,
    queue: Queue,
    receiver: mpsc::Receiver<Piece>,
}

/// What waits to be split.
#[derive(Clone)]
struct Queue {
    pieces: mpsc::Sender<Piece>,
    waiting: watch::Sender<usize>,
    /// How many bytes were let go for want of room.
    lost: Arc<AtomicU64>,
    /// How many bytes of files were moved.
    moved: watch::Sender<u64>,
}

/// What splits the pieces: run it beside the command.
pub(crate) struct Splitter {
    receiver: mpsc::Receiver<Piece>,
    waiting: watch::Sender<usize>,
    lost: Arc<AtomicU64>,
    events: EventStream,
    op: OpId,
    host: HostId,
    stdout: Unfinished,
    stderr: Unfinished,
    kept: Kept,
    moved: watch::Receiver<u64>,
    /// How many bytes of files are to be moved, where any are.
    total: Option<u64>,
}

/// What of a stream is not a whole line yet.
struct Unfinished {
    /// Secrets are masked before there are lines: one may stand on several, or where a long line is cut.
    masked: MaskedOutput,
    rest: Vec<u8>,
}

/// Says that the command has ended.
pub(crate) struct EndOfOutput(Queue);

impl OutputLines {
    /// For a step that moves so many bytes of files, where it moves any.
    pub(crate) fn new(total: Option<u64>) -> Self {
        let (pieces, receiver) = mpsc::channel(WAITING + BEYOND);
        Self {
            queue: Queue { pieces, waiting: watch::Sender::new(0), lost: Arc::default(), moved: watch::Sender::new(0) },
            receiver,
            total,
        }
    }

    /// Its three parts: what the connection calls, what splits, and what ends it.
    pub(crate) fn parts(self, events: EventStream, op: OpId, host: HostId, kept: Kept) -> (OutputSink, Splitter, EndOfOutput) {
        let unfinished = || Unfinished { masked: events.secrets().output(), rest: Vec::new() };
        let (stdout, stderr) = (unfinished(), unfinished());
        let (waiting, lost) = (self.queue.waiting.clone(), self.queue.lost.clone());
        let splitter = Splitter {
            receiver: self.receiver,
            waiting,
            lost,
            events,
            op,
            host,
            stdout,
            stderr,
            kept,
            moved: self.queue.moved.subscribe(),
            total: self.total,
        };
        (Arc::new(self.queue.clone()), splitter, EndOfOutput(self.queue))
    }
}

impl TakeOutput for Queue {
    fn take(&self, stream: Stream, bytes: &[u8]) {
        // Counted first: it may be taken out at once.
        self.waiting.send_modify(|waiting| *waiting += 1);
        if let Err(mpsc::error::TrySendError::Full(_)) = self.pieces.try_send(Piece::Bytes(stream, bytes.to_vec())) {
            self.waiting.send_modify(|waiting| *waiting -= 1);
            self.lost.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
    }

    fn room(&self) -> BoxFuture<'static, ()> {
        let (pieces, mut waiting) = (self.pieces.clone(), self.waiting.subscribe());
        Box::pin(async move {
            tokio::select! {
                _ = waiting.wait_for(|waiting| *waiting < WAITING) => {}
                // Nobody will make room any more, nor want it.
                () = pieces.closed() => {}
            }
        })
    }

    fn moved(&self, bytes: u64) {
        self.moved.send_replace(bytes);
    }
}

impl EndOfOutput {
    /// All output has been handed on.
    pub(crate) async fn end(self) {
        let _ = self.0.pieces.send(Piece::End).await;
    }
}

impl Splitter {
    /// Emits lines until the end, and gives what is kept.
    pub(crate) async fn run(mut self) -> Kept {
        while let Some(Piece::Bytes(stream, bytes)) = self.next().await {
            match stream {
                Stream::Stdout => self.kept.stdout.push(&bytes),
                Stream::Stderr => self.kept.stderr.push(&bytes),
            }
            let shown = self.unfinished(stream).masked.push(&bytes);
            self.split(stream, &shown).await;
            self.waiting.send_modify(|waiting| *waiting -= 1);
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            let shown = self.unfinished(stream).masked.finish();
            self.split(stream, &shown).await;
            let rest = std::mem::take(&mut self.unfinished(stream).rest);
            if !rest.is_empty() {
                self.line(stream, rest, false).await;
            }
        }
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > 0 {
            self.line(Stream::Stderr, format!("… {lost} bytes of output came too fast and are not shown …").into_bytes(), true).await;
        }
        self.kept
    }

    /// The next piece of output. While it is waited for, how far the files are is told now and then.
    async fn next(&mut self) -> Option<Piece> {
        let Some(total) = self.total else { return self.receiver.recv().await };
        loop {
            let moved = async {
                // Of what is moved in a moment nothing is told.
                tokio::time::sleep(TELLING).await;
                // Where nobody moves anything any more, the end of the output is near.
                if self.moved.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                *self.moved.borrow_and_update()
            };
            let bytes = tokio::select! {
                biased;
                piece = self.receiver.recv() => return piece,
                bytes = moved => bytes,
            };
            self.events.emit(Event::Moved { op: self.op, host: self.host, bytes, total }).await;
        }
    }

    fn unfinished(&mut self, stream: Stream) -> &mut Unfinished {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    async fn split(&mut self, stream: Stream, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let rest = &mut self.unfinished(stream).rest;
            let room = LINE - rest.len();
            let newline = bytes.iter().take(room + 1).position(|byte| *byte == b'\n');
            let taken = newline.unwrap_or_else(|| bytes.len().min(room));
            rest.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken + usize::from(newline.is_some())..];
            if newline.is_some() || (rest.len() == LINE && !bytes.is_empty()) {
                let line = std::mem::take(rest);
                self.line(stream, line, newline.is_some()).await;
            }
        }
    }

    async fn line(&mut self, stream: Stream, line: Vec<u8>, newline: bool) {
        if self.kept.last.len() == LAST {
            self.kept.last.pop_front();
        }
        // A failure shows lines, not pages.
        self.kept.last.push_back(String::from_utf8_lossy(&line[..line.len().min(1024)]).into_owned());
        self.events.emit(Event::Output { op: self.op, host: self.host, stream, line, newline }).await;
    }
}

#[cfg(test)]
mod tests {
    use infra_core::secret::Secrets;

    use super::*;

    /// Many hosts print more than the screen takes for a while. No thread may wait for it: those that would make room run on the same ones.
    #[test]
    fn many_hosts_that_wait_for_a_slow_screen_do_not_stop_the_run() {
        const HOSTS: u32 = 600;
        const LINES: usize = 2 * WAITING;
        let (done, all_printed) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
            let lines = runtime.block_on(async {
                let (sender, mut receiver) = mpsc::channel(1);
                let events = EventStream::new(sender, None, Secrets::default());
                let mut printing = tokio::task::JoinSet::new();
                let (started, mut count) = watch::channel(0);
                for host in 0..HOSTS {
                    let (events, started) = (events.clone(), started.clone());
                    printing.spawn(async move {
                        let (op, host) = (OpId(0), HostId(host));
                        started.send_modify(|count| *count += 1);
                        events.emit(Event::HostOperationStarted { op, host }).await;
                        let (sink, splitter, end) = OutputLines::new(None).parts(events, op, host, Kept::default());
                        let splitting = tokio::spawn(splitter.run());
                        for _ in 0..LINES {
                            sink.room().await;
                            sink.take(Stream::Stdout, b"line\n");
                        }
                        end.end().await;
                        splitting.await.expect("it splits");
                    });
                }
                drop(events);
                let _ = count.wait_for(|count| *count == HOSTS).await;
                let mut lines = 0;
                while let Some(event) = receiver.recv().await {
                    lines += usize::from(matches!(event, Event::Output { .. }));
                }
                lines
            });
            done.send(lines)
        });
        let lines = all_printed.recv_timeout(std::time::Duration::from_secs(60));
        assert_eq!(lines, Ok(HOSTS as usize * LINES));
    }

    #[tokio::test]
    async fn there_is_room_until_many_pieces_wait_and_again_when_nobody_splits() {
        let (sender, _receiver) = mpsc::channel(1);
        let (sink, splitter, _end) =
            OutputLines::new(None).parts(EventStream::new(sender, None, Secrets::default()), OpId(0), HostId(0), Kept::default());
        for _ in 0..WAITING {
            sink.room().await;
            sink.take(Stream::Stdout, b"x");
        }
        let mut room = sink.room();
        tokio::select! {
            biased;
            () = &mut room => panic!("{WAITING} pieces wait"),
            () = std::future::ready(()) => {}
        }
        drop(splitter);
        room.await;
    }

    #[tokio::test]
    async fn what_comes_without_room_is_counted() {
        let pieces = vec![&b"xy"[..]; WAITING + BEYOND + 3];
        let last = lines_of(&pieces).await.pop().expect("there are lines");
        assert_eq!(String::from_utf8_lossy(&last), "… 6 bytes of output came too fast and are not shown …");
    }

    async fn lines_of(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (sender, mut receiver) = mpsc::channel(1024);
        let (op, host) = (OpId(0), HostId(0));
        let events = EventStream::new(sender, None, Secrets::default());
        events.emit(Event::HostOperationStarted { op, host }).await;
        let (sink, splitter, end) = OutputLines::new(None).parts(events, op, host, Kept::default());
        for piece in pieces {
            sink.take(Stream::Stdout, piece);
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
