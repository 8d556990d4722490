//! A listener that accepts and never speaks: what a half-dead host or a firewall with a sense of humour looks like.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::BenchError;
use crate::process::wait_for;
use crate::sshd::random_loopback;

/// Accepts every connection on an address of its own, keeps it open, and neither reads nor writes. It ends with the value
/// (and, being a thread of the test process, with that).
pub struct BlackHole {
    address: SocketAddrV4,
    swallowed: Arc<Mutex<Vec<TcpStream>>>,
    closing: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl BlackHole {
    /// Opens one on a random loopback address and a free port.
    ///
    /// # Errors
    /// When there is no free address.
    pub fn start() -> Result<Self, BenchError> {
        let (listener, address) = random_listener()?;
        let swallowed = Arc::new(Mutex::new(Vec::new()));
        let closing = Arc::new(AtomicBool::new(false));
        let (kept, close) = (Arc::clone(&swallowed), Arc::clone(&closing));
        let acceptor = std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if close.load(Ordering::SeqCst) {
                    break;
                }
                kept.lock().expect("no holder panics").push(connection);
            }
        });
        Ok(Self { address, swallowed, closing, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// How many connections it has swallowed so far.
    #[must_use]
    pub fn swallowed(&self) -> usize {
        self.swallowed.lock().expect("no holder panics").len()
    }

    /// Waits until it has swallowed at least `count` connections; whether it did before the deadline.
    #[must_use]
    pub fn wait_for(&self, count: usize, deadline: Duration) -> bool {
        wait_for(deadline, || (self.swallowed() >= count).then_some(())).is_some()
    }
}

impl Drop for BlackHole {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        // Wakes the acceptor up. Where even this fails the thread is left to the end of the process.
        let address = SocketAddr::V4(self.address);
        if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
            && let Some(acceptor) = self.acceptor.take()
        {
            let _ = acceptor.join();
        }
    }
}

/// A listener on a random loopback address, on a port the kernel chose.
pub(crate) fn random_listener() -> Result<(TcpListener, SocketAddrV4), BenchError> {
    let tries = 20;
    let mut last = String::new();
    for _ in 0..tries {
        let ip: Ipv4Addr = random_loopback();
        match TcpListener::bind((ip, 0)).and_then(|listener| Ok((listener.local_addr()?, listener))) {
            Ok((SocketAddr::V4(address), listener)) => return Ok((listener, address)),
            Ok((other, _)) => last = format!("{other} is no IPv4 address"),
            Err(error) => last = error.to_string(),
        }
    }
    Err(BenchError::NothingFree { what: "loopback address", tries, last })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn it_accepts_and_says_nothing_and_ends() {
        let hole = BlackHole::start().unwrap();
        let mut client = TcpStream::connect(hole.address()).unwrap();
        assert!(hole.wait_for(1, Duration::from_secs(10)));
        client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        // `read_exact` goes on when a signal interrupts it, and ends when nothing comes.
        let error = client.read_exact(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
        let address = hole.address();
        drop(hole);
        // A process that another test is just starting holds a copy of every descriptor until it has become its program.
        let refused = || TcpStream::connect_timeout(&address.into(), Duration::from_secs(1)).is_err().then_some(());
        assert!(wait_for(Duration::from_secs(10), refused).is_some());
    }
}
