//! Carries events from the run to the reporters, on a thread of its own so that a slow terminal holds up nothing else.

use std::sync::Arc;
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
    pub fn start(mut reporter: Box<dyn Reporter>) -> Self {
        let (events, mut receiver) = mpsc::channel(WAITING);
        let plan_shown = Arc::new(Notify::new());
        let shown = plan_shown.clone();
        let thread = std::thread::spawn(move || {
            while let Some(event) = receiver.blocking_recv() {
                reporter.event(&event);
                match event {
                    Event::PlanReady { .. } => shown.notify_one(),
                    // The last event of a run: a script that was left behind may hold its sender of the log for ever.
                    Event::RunEnded => break,
                    _ => {}
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_sender_that_is_still_held_does_not_hold_up_the_end() {
        let reporting = Reporting::start(infra_report::several(Vec::new()));
        let held = reporting.events.clone();
        held.try_send(Event::RunEnded).expect("there is room");
        let (done, finished) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            reporting.finish();
            done.send(())
        });
        finished.recv_timeout(Duration::from_secs(20)).expect("it ends with the run");
        assert!(held.blocking_send(Event::RunEnded).is_err(), "what comes too late is refused, not waited for");
    }
}
