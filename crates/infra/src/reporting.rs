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
            loop {
                let waiting = receiver.try_recv().ok().or_else(|| {
                    reporter.idle();
                    receiver.blocking_recv()
                });
                let Some(event) = waiting else { break };
                reporter.event(&event);
                match event {
                    Event::PlanReady { .. } => shown.notify_one(),
                    // The last event of a run: a script that was left behind may hold its sender of the log for ever.
                    Event::RunEnded => break,
                    _ => {}
                }
            }
            reporter.idle();
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

    /// Says what it is told.
    struct Told(std::sync::mpsc::Sender<&'static str>);

    impl Reporter for Told {
        fn event(&mut self, _: &Event) {
            self.0.send("event").expect("somebody listens");
        }

        fn idle(&mut self) {
            self.0.send("idle").expect("somebody listens");
        }
    }

    #[test]
    fn who_reports_is_told_before_it_waits() {
        let (sender, told) = std::sync::mpsc::channel();
        let reporting = Reporting::start(Box::new(Told(sender)));
        let next = || told.recv_timeout(Duration::from_secs(20)).expect("it is told");
        assert_eq!(next(), "idle");
        reporting.events.try_send(Event::Connecting).expect("there is room");
        assert_eq!((next(), next()), ("event", "idle"));
        reporting.events.try_send(Event::RunEnded).expect("there is room");
        assert_eq!((next(), next()), ("event", "idle"));
        reporting.finish();
    }
}
