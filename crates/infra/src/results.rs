//! Standard output: what was asked for. That it could not be written must not end in exit code 0.

use std::borrow::Cow;
use std::io::{self, Stdout, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use infra_core::secret::Secrets;

use crate::questions::Gate;

/// What is done when the reader of the results goes away.
type OnGone = Box<dyn FnOnce() + Send>;

/// Standard output, and whether all of it was written. Clones share the record.
#[derive(Clone)]
pub struct Results {
    stdout: Arc<Stdout>,
    failed: Arc<Mutex<Option<io::ErrorKind>>>,
    on_gone: Arc<Mutex<Option<OnGone>>>,
}

/// Standard error until a flag is set; then nothing more comes through. It waits while a question stands there, and secrets are masked: what is shown
/// besides events, such as the words of the command line, may hold some.
pub struct Quiet {
    silent: Arc<AtomicBool>,
    gate: Gate,
    secrets: Secrets,
}

impl Results {
    /// Nothing written yet.
    pub fn new() -> Self {
        Self { stdout: Arc::new(io::stdout()), failed: Arc::default(), on_gone: Arc::default() }
    }

    /// What is to be done, once, when a write finds that nobody reads any more.
    pub fn when_gone(&self, act: impl FnOnce() + Send + 'static) {
        *self.on_gone.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(act));
    }

    /// Whether results were lost. A reader that has gone away, such as `head`, has read what it wanted and lost nothing.
    pub fn lost(&self) -> bool {
        self.failure().is_some_and(|kind| kind != io::ErrorKind::BrokenPipe)
    }

    /// Whether the reader has gone away before all was written.
    pub fn gone(&self) -> bool {
        self.failure() == Some(io::ErrorKind::BrokenPipe)
    }

    fn failure(&self) -> Option<io::ErrorKind> {
        *self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn noted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && error.kind() != io::ErrorKind::Interrupted
        {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.kind());
            if self.gone()
                && let Some(act) = self.on_gone.lock().unwrap_or_else(PoisonError::into_inner).take()
            {
                act();
            }
        }
        result
    }
}

impl Quiet {
    /// Silent from the moment on in which the flag is set.
    pub fn new(silent: Arc<AtomicBool>, gate: Gate, secrets: Secrets) -> Self {
        Self { silent, gate, secrets }
    }
}

impl Write for Quiet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _nothing_is_asked = self.gate.pass();
        if self.silent.load(Ordering::SeqCst) {
            return Ok(bytes.len());
        }
        match self.secrets.mask_bytes(bytes) {
            Cow::Borrowed(bytes) => io::stderr().write(bytes),
            Cow::Owned(masked) => io::stderr().write_all(&masked).map(|()| bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl Write for Results {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.noted((&*self.stdout).write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.noted((&*self.stdout).flush())
    }
}
