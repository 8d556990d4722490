//! Carries events from the run to the reporters, on a thread of its own so that a slow terminal holds up nothing else.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use infra_core::event::{Event, Reporter};
use tokio::sync::{Notify, mpsc};

/// How many events may wait before the run waits for the screen.
const WAITING: usize = 1024;

/// The thread that reports.
pub struct Reporting {
    /// Where the run sends its events.
    pub events: mpsc::Sender<Event>,
    /// Told when the plan has been shown.
    pub plan_shown: Arc<Notify>,
    thread: JoinHandle<()>,
}

impl Reporting {
    /// Starts to report.
    pub fn start(mut reporters: Vec<Box<dyn Reporter>>) -> Self {
        let (events, mut receiver) = mpsc::channel(WAITING);
        let plan_shown = Arc::new(Notify::new());
        let shown = plan_shown.clone();
        let thread = std::thread::spawn(move || {
            while let Some(event) = receiver.blocking_recv() {
                reporters.iter_mut().for_each(|reporter| reporter.event(&event));
                if matches!(event, Event::PlanReady { .. }) {
                    shown.notify_one();
                }
            }
        });
        Self { events, plan_shown, thread }
    }

    /// Waits until all events are reported.
    pub fn finish(self) {
        drop(self.events);
        // A reporter that panicked has said so on standard error already.
        let _ = self.thread.join();
    }
}

/// Standard output, which remembers that it could not be written to.
#[derive(Clone, Default)]
pub struct Results {
    lost: Arc<Mutex<Option<String>>>,
}

impl Results {
    /// Why results were lost, if some were. A reader that has gone away, such as `head`, has read what it wanted.
    pub fn lost(&self) -> Option<String> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note<T>(&self, written: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &written
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            self.lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.to_string());
        }
        written
    }
}

impl Write for Results {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.note(io::stdout().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.note(io::stdout().flush())
    }
}
