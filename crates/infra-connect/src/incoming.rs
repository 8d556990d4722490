//! What a command of a host prints, written on this machine while it comes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use infra_core::BoxFuture;
use infra_core::command::Command;
use infra_core::connection::{Ending, OutputSink, TakeOutput};
use infra_core::output::Stream;

/// How much is kept in memory before it is written, in bytes.
const ENOUGH: usize = 256 * 1024;
/// How much is kept of what was said on the second output, in bytes.
const WORDS: usize = 4096;

/// What is made here of what arrives. Dropped before it is finished, it leaves nothing half.
pub(crate) trait Arriving: Send + 'static {
    /// Writes the next bytes. It may wait for a disk.
    ///
    /// # Errors
    /// Why they cannot be written, as a sentence fragment; it gets no more then.
    fn write(&mut self, bytes: &[u8]) -> Result<(), String>;

    /// Puts in place what is not there yet, once all has been written: where it is what was meant.
    ///
    /// # Errors
    /// Why it is not all in place, as a sentence fragment.
    fn finish(&mut self) -> Result<(), String>;
}

/// Something that comes in as the output of a command.
pub(crate) struct Incoming<A> {
    /// The command that prints it.
    pub(crate) command: Command,
    /// What is said, before the reason, where it was not written.
    not_written: String,
    taken: Arc<Mutex<Taken<A>>>,
}

/// What came in by now.
struct Taken<A> {
    arriving: A,
    /// What is not written yet.
    waiting: Vec<u8>,
    moved: u64,
    /// The end of what was said on the second output.
    words: Vec<u8>,
    fault: Option<String>,
}

impl<A: Arriving> Taken<A> {
    fn write(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        if self.fault.is_none() {
            self.fault = self.arriving.write(&waiting).err();
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        self.write();
        self.fault.take().map_or_else(|| self.arriving.finish(), Err)
    }

    /// The last line that was said on the second output.
    fn last_words(&self) -> Option<String> {
        String::from_utf8_lossy(&self.words).trim().lines().next_back().map(str::to_owned)
    }
}

/// Takes the output of the command.
struct Taker<A> {
    taken: Arc<Mutex<Taken<A>>>,
    sink: OutputSink,
}

impl<A: Arriving> TakeOutput for Taker<A> {
    fn take(&self, stream: Stream, bytes: &[u8]) {
        let mut taken = locked(&self.taken);
        match stream {
            Stream::Stdout => {
                taken.moved += bytes.len() as u64;
                self.sink.moved(taken.moved);
                // After a fault the rest is of no use.
                if taken.fault.is_none() {
                    taken.waiting.extend_from_slice(bytes);
                }
            }
            Stream::Stderr => {
                taken.words.extend_from_slice(bytes);
                let excess = taken.words.len().saturating_sub(WORDS);
                taken.words.drain(..excess);
                self.sink.take(stream, bytes);
            }
        }
    }

    fn room(&self) -> BoxFuture<'static, ()> {
        let (taken, sink) = (self.taken.clone(), self.sink.room());
        let much = locked(&taken).waiting.len() >= ENOUGH;
        Box::pin(async move {
            if much {
                on_a_thread(taken, Taken::write).await;
            }
            sink.await;
        })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does what may wait for a disk where that holds up nobody else.
async fn on_a_thread<A: Send + 'static, T: Send + 'static>(
    taken: Arc<Mutex<A>>,
    work: impl FnOnce(&mut A) -> T + Send + 'static,
) -> Option<T> {
    tokio::task::spawn_blocking(move || work(&mut locked(&taken))).await.ok()
}

impl<A: Arriving> Incoming<A> {
    /// What `command` will print; `make` makes its place here, on a thread that may wait for a disk. `not_written` is what is said where that fails, or
    /// anything later.
    ///
    /// # Errors
    /// Why its place cannot be made, as a sentence.
    pub(crate) async fn open(
        command: Command,
        not_written: String,
        make: impl FnOnce() -> Result<A, String> + Send + 'static,
    ) -> Result<Self, String> {
        match tokio::task::spawn_blocking(make).await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(arriving) => {
                let taken = Taken { arriving, waiting: Vec::new(), moved: 0, words: Vec::new(), fault: None };
                Ok(Self { command, not_written, taken: Arc::new(Mutex::new(taken)) })
            }
            Err(reason) => Err(format!("{not_written}: {reason}")),
        }
    }

    /// What takes the output of the command; the second output goes to `sink`.
    pub(crate) fn sink(&self, sink: OutputSink) -> OutputSink {
        Arc::new(Taker { taken: self.taken.clone(), sink })
    }

    /// Finishes it where the command ended well. Where it did not, what came is written, and nothing more.
    pub(crate) async fn end(self, ending: Ending) -> Ending {
        let Ending::Exited(status) = ending else { return ending };
        let end = move |taken: &mut Taken<A>| {
            if status == 0 {
                return taken.finish();
            }
            taken.write();
            Err(taken.last_words().unwrap_or_else(|| format!("reading it ended with exit status {status}")))
        };
        match on_a_thread(self.taken, end).await.unwrap_or_else(|| Err("writing it came to no end".to_owned())) {
            Ok(()) => Ending::Exited(0),
            Err(reason) => Ending::Refused(format!("{}: {reason}", self.not_written)),
        }
    }
}
