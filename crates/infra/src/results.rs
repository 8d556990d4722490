//! Standard output: what was asked for. That it could not be written must not end in exit code 0.

use std::io::{self, Stdout, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Standard output, and whether all of it was written. Clones share the record.
#[derive(Clone)]
pub struct Results {
    stdout: Arc<Stdout>,
    failed: Arc<Mutex<Option<io::ErrorKind>>>,
}

impl Results {
    /// Nothing written yet.
    pub fn new() -> Self {
        Self { stdout: Arc::new(io::stdout()), failed: Arc::default() }
    }

    /// Whether results were lost. A reader that has gone away, such as `head`, has read what it wanted and lost nothing.
    pub fn lost(&self) -> bool {
        let failed = *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_some_and(|kind| kind != io::ErrorKind::BrokenPipe)
    }

    fn noted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result
            && error.kind() != io::ErrorKind::Interrupted
        {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.kind());
        }
        result
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
