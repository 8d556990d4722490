//! Copies a file to many hosts and runs a command on all of them at once, with the output of each as it comes.
//!
//! ```sh
//! cargo run -p infra-connect --example many_hosts -- 'web-[01-20],@local' /etc/motd /tmp/motd 'wc -c /tmp/motd'
//! ```

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use infra_connect::{Settings, Wire, settings};
use infra_core::change::{Action, Content, Replaces, Upload};
use infra_core::command::{Command, Shell};
use infra_core::connection::{Connect, Connection, Ending, OutputSink, Perform};
use infra_core::global_arguments::Context;
use infra_core::host::Host;
use infra_core::output::Stream;
use infra_core::{Map, inventory_builder};
use tokio::task::JoinSet;

/// What goes wrong on one host is said with its name, and stops nobody else.
type Said = String;

/// Does one step on a host. Its output goes line by line to `out`, each behind the name of the host.
async fn perform(
    host: &Host,
    connection: &dyn Connection,
    action: Action,
    out: &Arc<Mutex<impl Write + Send + 'static>>,
) -> Result<(), Said> {
    let name = host.name.clone();
    // One buffer for each stream, as pieces come in any size.
    let (lines, sink_out) = (Arc::new(Mutex::new([Vec::new(), Vec::new()])), out.clone());
    let kept = lines.clone();
    let sink: OutputSink = Arc::new(move |stream: Stream, bytes: &[u8]| {
        let mut lines = kept.lock().expect("no holder panics");
        let line = &mut lines[usize::from(stream == Stream::Stderr)];
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                write_line(&sink_out, &name, line);
            }
        }
    });
    let context = Context::default();
    let ending = connection.perform(Perform { action: &action, context: &context, timeout: None, as_of: None }, sink).await;
    for line in lines.lock().expect("no holder panics").iter_mut().filter(|line| !line.is_empty()) {
        line.push(b'\n');
        write_line(out, &host.name, line);
    }
    match ending {
        Ending::Exited(0) => Ok(()),
        Ending::Exited(code) => Err(format!("exited with {code}")),
        Ending::Refused(reason) => Err(reason),
        Ending::TimedOut { after, .. } => Err(format!("took longer than {} s", after.as_secs())),
        Ending::Killed => Err("was killed".to_owned()),
        // Without a claim (`Connection::claim`) nobody asks for a lock.
        Ending::Locked(locked) => Err(format!("found the host locked: {locked:?}")),
        Ending::Lost { reason, begun } => Err(format!("was lost{}: {reason}", if begun { ", and may have been done" } else { "" })),
    }
}

fn write_line(out: &Mutex<impl Write>, name: &str, line: &mut Vec<u8>) {
    let mut out = out.lock().expect("no holder panics");
    // A reader that has gone away wants no more.
    let _ = write!(out, "{name}: ").and_then(|()| out.write_all(line));
    line.clear();
}

/// What is done on each host.
#[derive(Clone)]
pub struct Work {
    /// The content of a file,
    pub content: Content,
    /// where it goes,
    pub dest: String,
    /// and the command that is run then, as shell text.
    pub command: String,
}

async fn one_host(wire: &Wire, host: &Arc<Host>, work: Work, out: &Arc<Mutex<impl Write + Send + 'static>>) -> Result<(), Said> {
    let connection = wire.connect(host).await.map_err(|error| error.to_string())?;
    let Work { content, dest, command } = work;
    let upload = Upload { content, dest, mode: Some(0o644), user: None, group: None, replaces: Replaces::Anything };
    let run = Command::new(Shell::verbatim(command));
    let mut done = Ok(());
    for action in [Action::Upload(upload), Action::Run(run)] {
        done = perform(host, connection.as_ref(), action, out).await;
        if done.is_err() {
            break;
        }
    }
    connection.close().await;
    done
}

/// Does the same on all hosts of a list at once; `data` is what an inventory would say of them, such as `ssh_user`. Gives the hosts on which something went
/// wrong, with what it was.
///
/// # Errors
/// When the list names no hosts that could be.
pub async fn many_hosts(
    sockets: &Path,
    list: &str,
    data: Map,
    work: &Work,
    out: Arc<Mutex<impl Write + Send + 'static>>,
) -> Result<Vec<(String, Said)>, Said> {
    let inventory = inventory_builder::from_host_list(list, data).map_err(|error| error.to_string())?;
    // One wire for all hosts: it knows how many may be connected to at once.
    let wire = Arc::new(Wire::new(Settings::new(sockets)));
    let mut hosts = JoinSet::new();
    for host in &inventory.hosts {
        let (wire, host, work, out) = (wire.clone(), host.clone(), work.clone(), out.clone());
        hosts.spawn(async move { (host.name.clone(), one_host(&wire, &host, work, &out).await) });
    }
    let mut wrong = Vec::new();
    while let Some(ended) = hosts.join_next().await {
        let (name, done) = ended.map_err(|error| error.to_string())?;
        if let Err(said) = done {
            wrong.push((name, said));
        }
    }
    wrong.sort();
    Ok(wrong)
}

#[allow(dead_code, reason = "the tests take the rest of this file as a module")]
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [list, source, dest, command] = words.as_slice() else { return Err("usage: many_hosts HOSTS FILE DEST COMMAND".into()) };
    let content = Content::Bytes(Arc::new(std::fs::read(source)?));
    let work = Work { content, dest: dest.clone(), command: command.clone() };
    let sockets = settings::runtime_folder(std::env::var_os("XDG_RUNTIME_DIR").as_deref().map(Path::new));
    let wrong = many_hosts(&sockets, list, Map::new(), &work, Arc::new(Mutex::new(std::io::stdout()))).await?;
    for (name, said) in &wrong {
        eprintln!("{name}: {said}");
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{} of the hosts failed", wrong.len()).into()) }
}
