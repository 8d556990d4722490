//! Ctrl-C and its like, counted: once ends softly, twice kills what is in flight, three times leaves at once.

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

/// Starts to count SIGINT, SIGTERM and SIGHUP. After the third the program ends within two seconds, after the fourth at once,
/// with exit code 130.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn count() -> std::io::Result<watch::Receiver<u32>> {
    let (sender, receiver) = watch::channel(0);
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
    Ok(receiver)
}
