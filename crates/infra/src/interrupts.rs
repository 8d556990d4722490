//! Ctrl-C and its like, counted: once ends softly, twice kills what is in flight, three times leaves at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Starts to count SIGINT, SIGTERM and SIGHUP. The third leaves the program at once with exit code 130.
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
            if *sender.borrow() >= 3 {
                eprintln!("infra: left at once; commands that were in flight may still be running on their hosts");
                std::process::exit(130);
            }
        }
    });
    Ok(receiver)
}
