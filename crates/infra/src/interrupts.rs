//! Ctrl-C and its like, counted: once ends softly, twice kills what is in flight, three times leaves at once.
//!
//! SIGTERM and SIGHUP count alike; the kernel sends the latter when the terminal is closed.

use std::io::Write;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// How long a run that is to leave at once may take for it.
const PATIENCE: Duration = Duration::from_secs(2);

fn leave() -> ! {
    // Without `eprintln!`, which panics where standard error is gone.
    let _ = writeln!(std::io::stderr(), "infra: left at once; commands that were in flight may still be running on their hosts");
    std::process::exit(130);
}

/// Ends the run as an interrupt does.
#[derive(Clone)]
pub struct Interrupter(watch::Sender<u32>);

impl Interrupter {
    /// As the second interrupt, whether or not there was a first: nothing new is started, and what is in flight is killed.
    pub fn kill(&self) {
        self.0.send_if_modified(|times| {
            let sooner = *times < 2;
            *times = (*times).max(2);
            sooner
        });
    }
}

/// Starts to count SIGINT, SIGTERM and SIGHUP, and gives what else may interrupt. After the third the program ends within two seconds, after the
/// fourth at once, with exit code 130.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn count() -> std::io::Result<(Interrupter, watch::Receiver<u32>)> {
    let (sender, receiver) = watch::channel(0);
    let interrupter = Interrupter(sender.clone());
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            let received = tokio::select! {
                received = interrupt.recv() => received,
                received = terminate.recv() => received,
                received = hangup.recv() => received,
            };
            if received.is_none() {
                return;
            }
            sender.send_modify(|times| *times += 1);
            match *sender.borrow() {
                0..3 => {}
                // The run says what may still be running, and ends; where it cannot even do that, so much is said here.
                3 => drop(std::thread::spawn(|| {
                    std::thread::sleep(PATIENCE);
                    leave();
                })),
                _ => leave(),
            }
        }
    });
    Ok((interrupter, receiver))
}
