//! Runs what `server.wait` sends through real shells, against listeners, servers and files of the test's own.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use infra_core::Value;
use infra_core::change::Action;
use infra_std::facts::server::which::Which;
use infra_test::facts::{MadeUp, diff_fully};
use serde_json::json;
use tempfile::TempDir;

const SHELLS: [&[&str]; 3] = [&["dash"], &["bash", "--posix"], &["busybox", "sh"]];

/// What is sent to a host that has these tools.
fn script(tools: &[&str], args: Value) -> String {
    let table = ["bash", "nc", "busybox", "curl", "wget"].into_iter().fold(MadeUp::new(), |table, tool| {
        let found = tools.contains(&tool).then(|| format!("/usr/bin/{tool}"));
        table.fact(&Which { command: tool.to_owned() }, found)
    });
    let registry = infra_std::registry();
    let definition = registry.operation("server.wait").expect("an operation of the library");
    let operation = definition.bind(args.as_object().expect("a map").clone()).expect("right arguments");
    let (change, _) = diff_fully(&*operation, &table).expect("a change");
    let [Action::Run(command)] = change.actions.as_slice() else { panic!("one command, got {:?}", change.actions) };
    command.script.as_str().to_owned()
}

/// Starts a script; tools in `folder` are found first.
fn start(shell: &[&str], script: &str, folder: Option<&TempDir>) -> Child {
    let path = std::env::var("PATH").expect("a PATH");
    let path = folder.map_or(path.clone(), |folder| format!("{}:{path}", folder.path().display()));
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).arg("-c").arg(script).env_clear().env("PATH", path).env("LC_ALL", "C.UTF-8");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap_or_else(|error| panic!("these tests need {}: {error}", shell[0]))
}

fn ends_well(at: &str, child: Child) {
    let Output { status, stdout, stderr } = child.wait_with_output().expect("an end");
    assert!(status.success(), "{at}: {status}: {}", String::from_utf8_lossy(&stderr));
    assert_eq!((String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)), ("".into(), "".into()), "{at}");
}

/// It gives up, saying this; where the words are those of a tool, their beginning.
fn gives_up(at: &str, child: Child, says: &str) {
    let Output { status, stderr, .. } = child.wait_with_output().expect("an end");
    let stderr = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(1), "{at}: {stderr}");
    assert!(stderr.starts_with(says) && stderr.ends_with('\n') && stderr.lines().count() == 1, "{at}: {stderr}");
}

/// A server on the loopback that answers by path, and counts what it is asked.
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (asked, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (asked.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = stream.expect("a connection");
                let mut lines = BufReader::new(stream.try_clone().expect("the same")).lines().map_while(Result::ok);
                let first = lines.next().unwrap_or_default();
                lines.take_while(|line| !line.is_empty()).for_each(drop);
                let before = count.fetch_add(1, Ordering::SeqCst);
                let path = first.split(' ').nth(1).unwrap_or_default();
                let (status, body) = match path {
                    "/health" => ("200 OK", "status: all is well\n".to_owned()),
                    "/long" => ("200 OK", format!("well\n{}", "x".repeat(300_000))),
                    "/moved" => ("302 Found\r\nLocation: /health", String::new()),
                    "/later" if before >= 2 => ("204 No Content", String::new()),
                    _ => ("503 Service Unavailable", "status: down\n".to_owned()),
                };
                // A client that knows enough may be gone by now.
                let _ = write!(stream, "HTTP/1.0 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
            }
        });
        Self { address, asked, over, thread: Some(thread) }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a server that ends");
        }
    }
}

/// A port of the loopback on which nothing listens, and which nobody else is given as long as this is kept.
struct ClosedPort {
    /// The port is that of a client, so it is taken and takes no connections.
    _client: TcpStream,
    _server: TcpListener,
    port: u16,
}

fn closed_port() -> ClosedPort {
    let server = TcpListener::bind("127.0.0.1:0").expect("a port");
    let client = TcpStream::connect(server.local_addr().expect("an address")).expect("a connection");
    let port = client.local_addr().expect("an address").port();
    ClosedPort { _client: client, _server: server, port }
}

/// A port that a client has is none that is listened on.
#[test]
fn a_port_is_waited_for() {
    let four = TcpListener::bind("127.0.0.1:0").expect("a port");
    let six = TcpListener::bind("[::1]:0").expect("a port");
    let kept = closed_port();
    let closed = kept.port;
    let mut waiting = Vec::new();
    for shell in SHELLS {
        for listener in [&four, &six] {
            let port = listener.local_addr().expect("an address").port();
            ends_well(&format!("{shell:?}"), start(shell, &script(&[], json!({ "port": port })), None));
        }
        let script = script(&[], json!({ "port": closed, "timeout": 1, "interval": 0.2 }));
        waiting.push((shell, start(shell, &script, None)));
    }
    for (shell, child) in waiting {
        gives_up(&format!("{shell:?}"), child, &format!("gave up waiting after 1 s: not yet that something listens on port {closed}\n"));
    }
}

#[test]
fn a_listener_that_comes_later_is_found() {
    let kept = closed_port();
    let port = kept.port;
    let child = start(&["dash"], &script(&[], json!({ "port": port, "interval": 0.1 })), None);
    drop(kept);
    let _listener = TcpListener::bind(("127.0.0.1", port)).expect("the port");
    ends_well("dash", child);
}

#[test]
fn a_connection_is_tried_with_what_is_there() {
    // Stands for the netcat of BSD, which this machine may not have; the shell of busybox prefers its own, which is smaller.
    let folder = TempDir::new().expect("a folder");
    let nc = folder.path().join("nc");
    let text = "#!/bin/sh\n[ \"$1 $2 $3\" = '-z -w 5' ] && exec bash -c 'exec 3<>\"/dev/tcp/$0/$1\"' \"$4\" \"$5\"\nexit 9\n";
    std::fs::write(&nc, text).expect("a file");
    std::fs::set_permissions(&nc, std::fs::Permissions::from_mode(0o755)).expect("its mode");
    let server = Server::start();
    let kept = closed_port();
    let closed = kept.port;
    let mut waiting = Vec::new();
    for shell in SHELLS {
        for tool in ["bash", "nc", "busybox"] {
            let at = format!("{shell:?} with {tool}");
            let args = json!({ "port": server.address.port(), "host": "127.0.0.1" });
            ends_well(&at, start(shell, &script(&[tool], args), Some(&folder)));
            let args = json!({ "port": closed, "host": "127.0.0.1", "timeout": 1 });
            waiting.push((at, start(shell, &script(&[tool], args), Some(&folder))));
        }
    }
    for (at, child) in waiting {
        gives_up(&at, child, &format!("gave up waiting after 1 s: not yet that 127.0.0.1 takes connections on port {closed}\n"));
    }
}

#[test]
fn an_answer_is_waited_for() {
    let server = Server::start();
    let kept = closed_port();
    let closed = kept.port;
    let mut waiting = Vec::new();
    for shell in SHELLS {
        for tools in [&["curl", "wget"][..], &["wget"], &["busybox"]] {
            let at = |what: &str| format!("{shell:?} with {tools:?}: {what}");
            let run = |args: Value| start(shell, &script(tools, args), None);
            for (what, args) in [
                ("an answer", json!({ "http": server.url("/health") })),
                ("a status", json!({ "http": server.url("/health?a=1&b='2"), "status": [200, 503] })),
                ("an error that is wanted", json!({ "http": server.url("/down"), "status": 503 })),
                ("a text", json!({ "http": server.url("/health"), "match": "all is well" })),
                ("a text before much more", json!({ "http": server.url("/long"), "match": "well" })),
                ("another place", json!({ "http": server.url("/moved"), "match": "all is" })),
            ] {
                ends_well(&at(what), run(args));
            }
            let later = Server::start();
            ends_well(&at("later"), run(json!({ "http": later.url("/later"), "interval": 0.1 })));
            assert_eq!(later.asked.load(Ordering::SeqCst), 3, "{}", at("later"));
            let url = server.url("/health");
            for (what, args, says) in [
                (
                    "down",
                    json!({ "http": server.url("/down"), "timeout": 1 }),
                    format!("{} answers (it answered 503)\n", server.url("/down")),
                ),
                (
                    "another status",
                    json!({ "http": url, "status": [201, 204], "timeout": 1 }),
                    format!("{url} answers with 201 or 204 (it answered 200)\n"),
                ),
                (
                    "a pattern is none",
                    json!({ "http": url, "match": "all.*well", "timeout": 1 }),
                    format!("{url} answers holding `all.*well` (it answered 200 without the text)\n"),
                ),
                (
                    "nobody",
                    json!({ "http": format!("http://127.0.0.1:{closed}/"), "timeout": 1 }),
                    format!("http://127.0.0.1:{closed}/ answers ("),
                ),
            ] {
                waiting.push((at(what), run(args), format!("gave up waiting after 1 s: not yet that {says}")));
            }
        }
    }
    for (at, child, says) in waiting {
        gives_up(&at, child, &says);
    }
}

#[test]
fn a_file_is_waited_for() {
    let folder = TempDir::new().expect("a folder");
    for shell in SHELLS {
        let path = folder.path().join(format!("it's {} ready", shell[0]));
        let wait = |timeout: u32| start(shell, &script(&[], json!({ "file": path, "interval": 0.1, "timeout": timeout })), None);
        gives_up(shell[0], wait(1), &format!("gave up waiting after 1 s: not yet that {} is there\n", path.display()));
        let child = wait(60);
        std::fs::write(&path, "").expect("a file");
        ends_well(shell[0], child);
    }
}

#[test]
fn a_command_is_waited_for() {
    let folder = TempDir::new().expect("a folder");
    let mut waiting = Vec::new();
    for shell in SHELLS {
        let count = folder.path().join(shell[0]);
        let command = format!("echo x >>{0}; [ $(wc -l <{0}) -ge 3 ]", count.display());
        ends_well(shell[0], start(shell, &script(&[], json!({ "command": command, "interval": 0.1 })), None));
        assert_eq!(std::fs::read_to_string(&count).expect("the file"), "x\nx\nx\n", "{shell:?}");
        for (command, says) in [
            ("echo first; echo it is \"not\" yet >&2; exit 3", "(it exited with 3: it is not yet)\n"),
            ("exit 3", "(it exited with 3)\n"),
            ("sleep 1000", "(it did not end in time)\n"),
        ] {
            let says = format!("gave up waiting after 1 s: not yet that `{command}` succeeds {says}");
            waiting.push((shell, start(shell, &script(&[], json!({ "command": command, "timeout": 1 })), None), says));
        }
    }
    for (shell, child, says) in waiting {
        gives_up(&format!("{shell:?}"), child, &says);
    }
}
