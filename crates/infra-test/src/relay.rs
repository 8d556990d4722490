//! A wire of a given length: a relay of TCP connections that hands everything on with a delay, and counts round trips.
//!
//! It stands between a client and a server on this machine, as a network of some milliseconds would. What it counts is seen on the wire, from outside of
//! whoever talks: a round trip is something that the client sent and the first thing that reached it early enough to be an answer, one after the other.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use crate::black_hole::random_listener;
use crate::error::BenchError;

/// Which end of the wire something was seen at, both of them on the client's side of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// The client sent it.
    Sent,
    /// It reached the client.
    Came,
}

/// What one connection carried, in the order of time.
type Record = Arc<Mutex<Vec<(Instant, Seen)>>>;

/// A relay. It ends with the value, and so do the connections through it.
pub struct Relay {
    address: SocketAddrV4,
    one_way: Duration,
    records: Arc<Mutex<Vec<Record>>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    closing: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Relay {
    /// Opens one on a loopback address of its own. What is sent through it reaches `server` after `one_way`, and what comes back likewise, so that a round
    /// trip takes twice that. Accepting a connection takes one round trip as well, as it would on a wire.
    ///
    /// # Errors
    /// When there is no free address.
    pub fn start(server: SocketAddrV4, one_way: Duration) -> Result<Self, BenchError> {
        let (listener, address) = random_listener()?;
        Ok(Self::over(listener, address, server, one_way))
    }

    /// The same at a given loopback address and port.
    ///
    /// # Errors
    /// When somebody else has it.
    pub fn start_at(ip: Ipv4Addr, port: u16, server: SocketAddrV4, one_way: Duration) -> Result<Self, BenchError> {
        let address = SocketAddrV4::new(ip, port);
        let listener = TcpListener::bind(address).map_err(|error| BenchError::NothingFree {
            what: "loopback address",
            tries: 1,
            last: format!("{address}: {error}"),
        })?;
        Ok(Self::over(listener, address, server, one_way))
    }

    fn over(listener: TcpListener, address: SocketAddrV4, server: SocketAddrV4, one_way: Duration) -> Self {
        let records: Arc<Mutex<Vec<Record>>> = Arc::default();
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let closing = Arc::new(AtomicBool::new(false));
        let (kept, opened, close) = (records.clone(), open.clone(), closing.clone());
        let acceptor = spawn(move || {
            for client in listener.incoming().flatten() {
                if close.load(Ordering::SeqCst) {
                    break;
                }
                let record = Record::default();
                kept.lock().expect("no holder panics").push(record.clone());
                if let Ok(handle) = client.try_clone() {
                    opened.lock().expect("no holder panics").push(handle);
                }
                let opened = opened.clone();
                spawn(move || carry(client, server, one_way, &record, &opened));
            }
        });
        Self { address, one_way, records, open, closing, acceptor: Some(acceptor) }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// How many connections went through it.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.records.lock().expect("no holder panics").len()
    }

    /// How many round trips went over it by now, one after the other, over all its connections; opening a connection is not among them.
    #[must_use]
    pub fn round_trips(&self) -> usize {
        let records = self.records.lock().expect("no holder panics").clone();
        records.iter().map(|record| round_trips(&record.lock().expect("no holder panics"), self.one_way * 2)).sum()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::SeqCst);
        for stream in self.open.lock().expect("no holder panics").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the acceptor up. Where even this fails the thread is left to the end of the process.
        if TcpStream::connect_timeout(&SocketAddr::V4(self.address), Duration::from_secs(1)).is_ok()
            && let Some(acceptor) = self.acceptor.take()
        {
            let _ = acceptor.join();
        }
    }
}

/// What reached the client sooner than a round trip after something was sent is no answer to it.
fn round_trips(record: &[(Instant, Seen)], round_trip: Duration) -> usize {
    let mut count = 0;
    let mut rest = record;
    while let Some(sent) = rest.iter().position(|(_, seen)| *seen == Seen::Sent) {
        let (since, _) = rest[sent];
        let answers = |(at, seen): &(Instant, Seen)| *seen == Seen::Came && *at >= since + round_trip;
        let Some(came) = rest[sent..].iter().position(answers) else { break };
        count += 1;
        rest = &rest[sent + came + 1..];
    }
    count
}

fn carry(client: TcpStream, server: SocketAddrV4, one_way: Duration, record: &Record, open: &Mutex<Vec<TcpStream>>) {
    sleep(one_way);
    let Ok(server) = TcpStream::connect(server) else {
        let _ = client.shutdown(Shutdown::Both);
        return;
    };
    sleep(one_way);
    let (Ok(client_out), Ok(server_out)) = (client.try_clone(), server.try_clone()) else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    if let Ok(handle) = server.try_clone() {
        open.lock().expect("no holder panics").push(handle);
    }
    let (sent, came) = (record.clone(), record.clone());
    let note = |record: &Record, seen| record.lock().expect("no holder panics").push((Instant::now(), seen));
    let there = pump(client, server_out, one_way, move || note(&sent, Seen::Sent), || {});
    let back = pump(server, client_out, one_way, || {}, move || note(&came, Seen::Came));
    let _ = (there.join(), back.join());
}

/// Hands on what it reads after the delay; the end of the input likewise.
fn pump(
    mut from: TcpStream,
    mut to: TcpStream,
    delay: Duration,
    on_read: impl Fn() + Send + 'static,
    on_write: impl Fn() + Send + 'static,
) -> JoinHandle<()> {
    let (sender, receiver) = channel::<(Instant, Vec<u8>)>();
    spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut buffer).unwrap_or(0);
            if read > 0 {
                on_read();
            }
            if sender.send((Instant::now() + delay, buffer[..read].to_vec())).is_err() || read == 0 {
                break;
            }
        }
    });
    spawn(move || {
        for (due, bytes) in receiver {
            sleep(due.saturating_duration_since(Instant::now()));
            if bytes.is_empty() || to.write_all(&bytes).is_err() {
                break;
            }
            on_write();
        }
        let _ = to.shutdown(Shutdown::Write);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_an_answer_is_one() {
        let start = Instant::now();
        let at = |millis: u64, seen| (start + Duration::from_millis(millis), seen);
        let (sent, came) = (Seen::Sent, Seen::Came);
        for (record, wanted) in [
            (vec![], 0),
            (vec![at(0, came)], 0),
            (vec![at(0, sent)], 0),
            (vec![at(0, sent), at(10, came)], 1),
            // Both were under way already when it was sent.
            (vec![at(0, sent), at(4, came), at(9, came)], 0),
            // Two requests and two answers that overlap are one round trip.
            (vec![at(0, sent), at(2, sent), at(10, came), at(12, came)], 1),
            (vec![at(0, sent), at(10, came), at(11, sent), at(21, came)], 2),
            // Something of no consequence, then a request.
            (vec![at(0, sent), at(5, sent), at(15, came), at(16, sent), at(30, came)], 2),
        ] {
            assert_eq!(round_trips(&record, Duration::from_millis(10)), wanted, "{record:?}");
        }
    }

    #[test]
    fn what_is_said_comes_back_later_and_is_counted() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(server) = listener.local_addr().unwrap() else { panic!("an IPv4 address") };
        let echo = spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut byte = [0; 1];
            while stream.read_exact(&mut byte).is_ok() {
                stream.write_all(&byte).unwrap();
            }
        });
        let relay = Relay::start(server, Duration::from_millis(5)).unwrap();
        let began = Instant::now();
        let mut client = TcpStream::connect(relay.address()).unwrap();
        for _ in 0..3 {
            client.write_all(b"x").unwrap();
            client.read_exact(&mut [0; 1]).unwrap();
        }
        assert!(began.elapsed() >= Duration::from_millis(30));
        assert_eq!((relay.connections(), relay.round_trips()), (1, 3));
        drop(client);
        echo.join().unwrap();
    }
}
