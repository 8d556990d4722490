//! For the measurements in `benches/`: hosts at a distance, all of them one sshd of its own behind a relay each.
//!
//! `distant-hosts COUNT MILLISECONDS` starts them, the round trip to each taking so many milliseconds (0: no relay stands between), prints one line of
//! JSON with what there is, and then answers each line on its standard input with one line of JSON: what went over the wires since the line before. It ends with
//! its input.

use std::io::{BufRead, Write};
use std::net::SocketAddrV4;
use std::time::Duration;

use infra_test::{Relay, Sshd, SshdOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let count: usize = arguments.next().ok_or("the number of hosts is missing")?.parse()?;
    let milliseconds: u64 = arguments.next().ok_or("the length of a round trip in milliseconds is missing")?.parse()?;
    let names: Vec<String> = (1..=count).map(|number| format!("far-{number:04}")).collect();
    // What is measured is the client, not what one sshd alone would refuse.
    let options = SshdOptions::default().aliases(names.clone()).configuration("MaxStartups 10000");
    let mut sshd = Sshd::start(options)?;
    let (_, server) = sshd.aliases()[0];
    let mut relays = Vec::new();
    if milliseconds > 0 {
        for _ in &names {
            relays.push(Relay::start(server, Duration::from_micros(milliseconds * 500))?);
        }
        sshd.known_as(names.iter().cloned().zip(relays.iter().map(Relay::address)).collect())?;
    }
    let hosts: Vec<_> = sshd.aliases().iter().map(host).collect();
    print(&serde_json::json!({
        "hosts": hosts,
        "ssh_config": sshd.ssh_config(),
        "known_hosts": sshd.known_hosts(),
        "user_key": sshd.user_key(),
        "user": sshd.user(),
        "folder": sshd.folder(),
    }))?;
    let (mut connections, mut round_trips, mut sessions) = (vec![0; relays.len()], vec![0; relays.len()], 0);
    for line in std::io::stdin().lock().lines() {
        line?;
        let of = |now: Vec<usize>, before: &mut Vec<usize>| {
            let since: Vec<usize> = now.iter().zip(before.iter()).map(|(now, before)| now - before).collect();
            *before = now;
            since
        };
        let connected = of(relays.iter().map(Relay::connections).collect(), &mut connections);
        let went = of(relays.iter().map(Relay::round_trips).collect(), &mut round_trips);
        let started = sshd.sessions();
        print(&serde_json::json!({ "connections": connected, "round_trips": went, "sessions": started - sessions }))?;
        sessions = started;
    }
    Ok(())
}

fn host((name, address): &(String, SocketAddrV4)) -> serde_json::Value {
    serde_json::json!({ "name": name, "address": address.ip(), "port": address.port() })
}

fn print(value: &serde_json::Value) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}
