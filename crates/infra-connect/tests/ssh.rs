//! Hosts over ssh: a real sshd, and what is no sshd.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::*;
use infra_connect::{Settings, Wire};
use infra_core::Value;
use infra_core::change::Action;
use infra_core::command::{Command, Shell};
use infra_core::connection::{Connect, ConnectError, ConnectStep, Connection, Ending, Lineup, Perform};
use infra_core::global_arguments::Context;
use infra_core::host::{Connector, Host, HostId};
use infra_test::{BlackHole, HostKey, Sshd, SshdOptions};

fn host(address: &str, data: &[(&str, Value)]) -> Arc<Host> {
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    Arc::new(Host { data, ..Host::new(HostId(0), address, Connector::Ssh, address) })
}

/// The host of a bench's sshd, by its `ssh_config`.
fn host_of(sshd: &Sshd) -> Arc<Host> {
    host("sshd-01", &[("ssh_config_file", sshd.ssh_config().to_str().unwrap().into())])
}

fn wire(sshd: &Sshd) -> Wire {
    Wire::new(settings(sshd.folder()))
}

async fn reach(sshd: &Sshd) -> (Wire, Arc<dyn Connection>) {
    let wire = wire(sshd);
    let connection = wire.connect(&host_of(sshd)).await.expect("the bench's sshd lets us in");
    (wire, connection)
}

async fn error_of(wire: &Wire, host: &Arc<Host>) -> ConnectError {
    wire.connect(host).await.err().expect("this host cannot be reached")
}

/// Waits until nothing of a test is left: no master, no socket, no folder.
fn nothing_left(sshd: &Sshd) {
    let left = sshd.leftovers_after(Duration::from_secs(10));
    assert!(left.is_empty(), "{left:?}");
    let run = sshd.folder().join("run");
    let folders: Vec<_> =
        std::fs::read_dir(&run).map(|found| found.flatten().filter(|entry| entry.path().is_dir()).collect()).unwrap_or_default();
    assert!(folders.is_empty(), "{folders:?}");
}

#[tokio::test]
async fn commands_facts_and_uploads_go_over_one_connection() {
    let sshd = Sshd::start(SshdOptions::default()).unwrap();
    let (wire, connection) = reach(&sshd).await;
    let (ending, heard) = perform(&connection, &run("echo out; echo err >&2; exit 127")).await;
    assert_eq!((ending, heard.stdout().as_str(), heard.stderr().as_str()), (Ending::Exited(127), "out\n", "err\n"));
    let (ending, _) = perform(&connection, &run("kill -9 $$")).await;
    assert_eq!(ending, Ending::Exited(137));

    let answers = connection.gather((0..50).map(|n| question(&format!("echo {n}"))).collect()).await.unwrap();
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.as_ref().unwrap().text(), format!("{n}\n"));
    }

    let dest = sshd.folder().join("uploaded");
    let content: Vec<u8> = (0..2_000_000_u32).map(|n| (n * 7 % 251) as u8).collect();
    let (ending, _) = perform(&connection, &infra_core::change::Action::Upload(upload(content.clone(), &dest))).await;
    assert_eq!(ending, Ending::Exited(0));
    assert!(std::fs::read(&dest).unwrap() == content);

    assert_eq!((sshd.logins(), sshd.connections() > 0), (1, true));
    connection.close().await;
    let (ending, _) = perform(&connection, &run("true")).await;
    assert!(matches!(ending, Ending::Lost { begun: false, .. }), "{ending:?}");
    drop((connection, wire));
    nothing_left(&sshd);
}

#[tokio::test]
async fn many_commands_at_once_stay_within_the_sessions_of_a_host() {
    // One is the master's own; what is refused waits its turn on the same connection.
    for limit in ["MaxSessions 10", "MaxSessions 3"] {
        let sshd = Sshd::start(SshdOptions::default().configuration(limit)).unwrap();
        let (wire, connection) = reach(&sshd).await;
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..30 {
            let connection = connection.clone();
            tasks.spawn(async move { (n, perform(&connection, &run(&format!("sleep 0.05; echo {n}"))).await) });
        }
        while let Some(done) = tasks.join_next().await {
            let (n, (ending, heard)) = done.unwrap();
            assert_eq!((ending, heard.stdout()), (Ending::Exited(0), format!("{n}\n")), "{limit}");
        }
        assert_eq!(sshd.logins(), 1);
        connection.close().await;
        drop((connection, wire));
        nothing_left(&sshd);
    }
}

/// Starts so many commands, each of which ends well only when all of them run at the same time.
async fn all_together(connection: &Arc<dyn Connection>, folder: &Path, commands: usize) {
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..commands {
        let connection = connection.clone();
        let folder = folder.display().to_string();
        let script = format!(
            "echo >{folder}/at.{n}; for i in $(seq 2000); do [ $(ls {folder} | grep -c '^at') -ge {commands} ] && exit 0; sleep 0.01; done; exit 1"
        );
        tasks.spawn(async move { perform(&connection, &run(&script)).await.0 });
    }
    while let Some(done) = tasks.join_next().await {
        assert_eq!(done.unwrap(), Ending::Exited(0), "each waited for all {commands}");
    }
}

#[tokio::test]
async fn many_commands_at_the_same_time_go_over_several_connections() {
    let sshd = Sshd::start(SshdOptions::default()).unwrap();
    let (wire, connection) = reach(&sshd).await;
    connection.prepare_for(7).await.unwrap();
    assert_eq!(sshd.logins(), 1, "one connection bears seven commands beside a kill");
    connection.prepare_for(12).await.unwrap();
    assert_eq!(sshd.logins(), 2);
    all_together(&connection, sshd.folder(), 12).await;
    // What is there is used again, and what was prepared and not needed is in nobody's way.
    connection.prepare_for(12).await.unwrap();
    assert_eq!(connection.gather(vec![question("echo fact")]).await.unwrap()[0].as_ref().unwrap().text(), "fact\n");
    assert_eq!(perform(&connection, &run("true")).await.0, Ending::Exited(0));
    assert_eq!(sshd.logins(), 2);
    connection.close().await;
    drop((connection, wire));
    nothing_left(&sshd);
}

#[tokio::test]
async fn a_kill_reaches_the_commands_of_all_connections() {
    let sshd = Sshd::start(SshdOptions::default()).unwrap();
    let (wire, connection) = reach(&sshd).await;
    connection.prepare_for(14).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..14 {
        let connection = connection.clone();
        // Each of them must be killed in the hard way.
        let script = format!("trap '' TERM; echo >{}/pid.{n}; while :; do sleep 0.1; done", sshd.folder().display());
        tasks.spawn(async move { perform(&connection, &run(&script)).await.0 });
    }
    let folder = sshd.folder().to_owned();
    eventually("all commands", || (0..14).all(|n| folder.join(format!("pid.{n}")).exists())).await;
    assert_eq!(sshd.logins(), 3);
    connection.kill().await;
    while let Some(done) = tasks.join_next().await {
        assert_eq!(done.unwrap(), Ending::Killed);
    }
    // Dropped, not closed.
    drop((connection, wire));
    nothing_left(&sshd);
}

#[tokio::test]
async fn a_host_that_does_not_bear_so_many_says_so_before_anything_runs() {
    let sshd = Sshd::start(SshdOptions::default().configuration("MaxSessions 4")).unwrap();
    let (wire, connection) = reach(&sshd).await;
    let error = connection.prepare_for(12).await.unwrap_err();
    assert!(
        error.message.starts_with("12 commands at once are needed on the host, and over 2 connections there are 7 shells: "),
        "{error}"
    );
    assert!(error.hint.unwrap().contains("MaxSessions"));
    assert_eq!(sshd.logins(), 2, "a refused session is no new connection");
    assert_eq!(perform(&connection, &run("true")).await.0, Ending::Exited(0));
    connection.close().await;
    drop((connection, wire));
    nothing_left(&sshd);
}

#[tokio::test]
async fn a_connection_that_cannot_be_opened_again_says_so_before_anything_runs() {
    let sshd = Sshd::start(SshdOptions::default()).unwrap();
    let (wire, connection) = reach(&sshd).await;
    std::fs::rename(sshd.user_key(), sshd.folder().join("put-away")).unwrap();
    let error = connection.prepare_for(12).await.unwrap_err();
    let beginning = "12 commands at once need 2 connections to the host, and not all of them could be opened: ";
    assert!(error.message.starts_with(beginning), "{error}");
    assert!(error.hint.is_some());
    assert_eq!(perform(&connection, &run("true")).await.0, Ending::Exited(0));
    connection.close().await;
    drop((connection, wire));
    nothing_left(&sshd);
}

#[tokio::test]
async fn a_host_that_opens_no_session_but_the_first_is_served_by_that() {
    let sshd = Sshd::start(SshdOptions::default().configuration("MaxSessions 1")).unwrap();
    let (_wire, connection) = reach(&sshd).await;
    for n in 0..3 {
        let (ending, heard) = perform(&connection, &run(&format!("echo {n}"))).await;
        assert_eq!((ending, heard.stdout()), (Ending::Exited(0), format!("{n}\n")));
    }
    // What reads its input to the end would take the connection with it.
    let (ending, _) = perform(&connection, &run_with("cat", "x")).await;
    let Ending::Refused(reason) = ending else { panic!("{ending:?}") };
    assert!(reason.contains("MaxSessions"), "{reason}");
    assert_eq!(sshd.logins(), 1, "a refused session is no new connection");
}

#[tokio::test]
async fn commands_share_a_shell_unless_one_may_leave_something_behind() {
    let sshd = Sshd::start(SshdOptions::default()).unwrap();
    let (_wire, connection) = reach(&sshd).await;
    let folder = tempfile::tempdir().unwrap();
    for n in 0..3 {
        assert_eq!(perform(&connection, &run("exit 3")).await.0, Ending::Exited(3));
        assert_eq!(connection.gather(vec![question("echo x")]).await.unwrap(), [Ok(infra_core::output::Output::of("x\n"))]);
        let file = folder.path().join(n.to_string());
        let wanted = Action::Upload(upload(format!("content {n}\0"), &file));
        assert_eq!(perform(&connection, &wanted).await.0, Ending::Exited(0));
        assert_eq!(std::fs::read(&file).unwrap(), format!("content {n}\0").into_bytes());
    }
    assert_eq!(sshd.sessions(), 1, "the first session serves them all");
    // What it leaves behind says its late words to nobody.
    let leaving = Action::Run(Command::new(Shell::verbatim("(sleep 0.2; echo late; echo late >&2) & exit 0")).leaving_processes());
    assert_eq!(perform(&connection, &leaving).await.0, Ending::Exited(0));
    assert_eq!(sshd.sessions(), 2);
    let asked = connection.gather(vec![question("sleep 0.5; echo y")]).await.unwrap();
    assert_eq!(asked, [Ok(infra_core::output::Output::of("y\n"))]);
}

#[tokio::test]
async fn a_connection_that_is_cut_in_the_middle_of_a_command_is_lost() {
    let sshd = Sshd::start(SshdOptions::default()).unwrap();
    let (wire, connection) = reach(&sshd).await;
    let heard = Arc::new(Heard::default());
    let action = run("echo begun; sleep 606");
    let context = Context::default();
    let step = infra_core::connection::Perform { action: &action, context: &context, timeout: None, as_of: Some(0) };
    let cutting = async {
        eventually("it has begun", || heard.stdout() == "begun\n").await;
        sshd.cut_connections();
    };
    let (ending, answers, ()) =
        tokio::join!(connection.perform(step, heard.sink()), connection.gather(vec![question("sleep 607")]), cutting);
    let Ending::Lost { reason, begun: true } = ending else { panic!("{ending:?}") };
    assert!(reason.contains("closed by remote host") || reason.contains("reset by peer"), "{reason}");
    assert!(answers.is_err());
    let (ending, _) = perform(&connection, &run("true")).await;
    assert!(matches!(ending, Ending::Lost { begun: false, .. }), "{ending:?}");
    for process in sshd.processes().iter().filter(|process| process.command.starts_with("sleep 60")) {
        process.signal(nix::sys::signal::Signal::SIGKILL);
    }
    drop((connection, wire));
    nothing_left(&sshd);
}

#[tokio::test]
async fn a_connection_that_is_cut_in_the_middle_of_an_upload_leaves_the_old_file() {
    let sshd = Sshd::start(SshdOptions::default()).unwrap();
    let (wire, connection) = reach(&sshd).await;
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("file");
    std::fs::write(&dest, "old").unwrap();
    // A pipe that nobody closes is a local file that never comes to its end.
    let source = sshd.folder().join("pipe");
    nix::unistd::mkfifo(&source, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let feeding = source.clone();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let feeder = std::thread::spawn(move || {
        let mut pipe = std::fs::OpenOptions::new().write(true).open(feeding).unwrap();
        std::io::Write::write_all(&mut pipe, &[b'x'; 60_000]).unwrap();
        wait.recv().unwrap();
    });
    let content =
        infra_core::change::Content::LocalFile { path: source.to_str().unwrap().to_owned(), size: 1_000_000, sha256: "0".repeat(64) };
    let action = infra_core::change::Action::Upload(infra_core::change::Upload { content, ..upload("", &dest) });
    let names = || std::fs::read_dir(folder.path()).unwrap().count();
    let cutting = async {
        eventually("the temporary file", || names() == 2).await;
        sshd.cut_connections();
    };
    let ((ending, _), ()) = tokio::join!(perform(&connection, &action), cutting);
    let Ending::Lost { begun: false, .. } = ending else { panic!("{ending:?}") };
    eventually("the temporary file goes", || names() == 1).await;
    assert_eq!(std::fs::read_to_string(&dest).unwrap(), "old");
    done.send(()).unwrap();
    feeder.join().unwrap();
    drop((connection, wire));
    nothing_left(&sshd);
}

#[tokio::test]
async fn past_its_time_a_command_is_killed_on_the_host() {
    let sshd = Sshd::start(SshdOptions::default()).unwrap();
    let (wire, connection) = reach(&sshd).await;
    let action = run("sleep 608 & echo $! $$; wait");
    let (ending, heard) = perform_in(&connection, &action, &Context::default(), Some(Duration::from_millis(300))).await;
    assert!(matches!(ending, Ending::TimedOut { still_running: None, .. }), "{ending:?}");
    let pids: Vec<i32> = heard.stdout().split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.len() == 2 && pids.iter().all(|pid| !alive(*pid)), "{pids:?}");
    assert_eq!(perform(&connection, &run("true")).await.0, Ending::Exited(0));
    connection.close().await;
    drop((connection, wire));
    nothing_left(&sshd);
}

/// The shell that takes steps which go out together is killed with the one whose time is up. It may be the first of its connection, which outlives it.
#[tokio::test]
async fn a_killed_step_with_others_behind_it_leaves_the_connection() {
    let sshd = Sshd::start(SshdOptions::default()).unwrap();
    let (wire, connection) = reach(&sshd).await;
    let context = Context::default();
    let there = sshd.folder().join("there");
    let actions = [run("sleep 610"), run(&format!("touch {}", there.display()))];
    let timeout = Some(Duration::from_millis(300));
    let steps = actions.iter().map(|action| Perform { action, context: &context, timeout, as_of: None }).collect();
    let mut lined_up = connection.line_up(Lineup { steps, behind: vec![question("echo fact")] }).expect("it can");
    let heard = Arc::new(Heard::default());
    let ending = lined_up.next(heard.sink()).await;
    assert!(matches!(ending, Ending::TimedOut { still_running: None, .. }), "{ending:?}");
    assert!(!heard.stderr().contains("Killed"), "{}", heard.stderr());
    assert!(matches!(&lined_up.answers().await[..], [None]));
    drop(lined_up);
    // Were it to end with that shell, it would have ended by then.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(perform(&connection, &run("exit 4")).await.0, Ending::Exited(4));
    assert_eq!((sshd.logins(), there.exists()), (1, false));
    connection.close().await;
    drop((connection, wire));
    nothing_left(&sshd);
}

#[tokio::test]
async fn a_shell_that_is_killed_from_outside_is_lost_and_the_connection_is_not() {
    let sshd = Sshd::start(SshdOptions::default()).unwrap();
    let (_wire, connection) = reach(&sshd).await;
    // The parent of the command's shell holds its receipt, and the parent of that one takes the commands: it is the first of its connection.
    let kills = run("kill -9 $(cut -d ' ' -f 4 /proc/$PPID/stat) $PPID; sleep 0.1");
    let (ending, _) =
        tokio::time::timeout(Duration::from_secs(60), perform(&connection, &kills)).await.expect("its outputs are at their end");
    assert!(matches!(ending, Ending::Lost { begun: true, .. }), "{ending:?}");
    assert_eq!(perform(&connection, &run("exit 4")).await.0, Ending::Exited(4));
    assert_eq!(sshd.logins(), 1);
}

#[tokio::test]
async fn kill_reaches_the_host() {
    let sshd = Sshd::start(SshdOptions::default()).unwrap();
    let (_wire, connection) = reach(&sshd).await;
    let heard = Arc::new(Heard::default());
    let action = run("echo $$; exec sleep 609");
    let context = Context::default();
    let step = infra_core::connection::Perform { action: &action, context: &context, timeout: None, as_of: Some(0) };
    let killing = async {
        eventually("it has begun", || heard.stdout().ends_with('\n')).await;
        connection.kill().await;
    };
    let (ending, ()) = tokio::join!(connection.perform(step, heard.sink()), killing);
    assert_eq!(ending, Ending::Killed);
    assert!(!alive(heard.stdout().trim().parse().unwrap()));
}

#[tokio::test]
async fn each_step_of_connecting_has_its_error() {
    let sshd = Sshd::start(SshdOptions::default()).unwrap();
    let config: Value = sshd.ssh_config().to_str().unwrap().into();
    let wire = wire(&sshd);

    let error = error_of(&wire, &host("no-such-host.invalid", &[("ssh_config_file", config.clone())])).await;
    assert_eq!(error.step, ConnectStep::Resolve, "{error}");
    assert!(error.message.contains("no-such-host.invalid"), "{error}");

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = host("127.0.0.1", &[("ssh_config_file", config.clone()), ("ssh_port", free.into())]);
    let error = error_of(&wire, &refused).await;
    assert_eq!(error.step, ConnectStep::Connect, "{error}");
    assert!(error.message.contains("Connection refused"), "{error}");

    let error = error_of(&wire, &host("web", &[("ssh_port", "many".into())])).await;
    assert_eq!((error.step, error.message.as_str()), (ConnectStep::Settings, "`ssh_port` must be a number from 1 to 65535, not \"many\""));

    let broken = sshd.folder().join("broken_config");
    std::fs::write(&broken, "Nonsense yes\n").unwrap();
    let error = error_of(&wire, &host("web", &[("ssh_config_file", broken.to_str().unwrap().into())])).await;
    assert_eq!(error.step, ConnectStep::Settings, "{error}");

    let stranger = sshd.folder().join("stranger");
    let made = std::process::Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&stranger).status().unwrap();
    assert!(made.success());
    // The key of the bench's `ssh_config` would be tried as well.
    let own = sshd.folder().join("own_config");
    let text = std::fs::read_to_string(sshd.ssh_config()).unwrap();
    let kept: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("IdentityFile")).collect();
    std::fs::write(&own, kept.join("\n")).unwrap();
    let error = error_of(
        &wire,
        &host("sshd-01", &[("ssh_config_file", own.to_str().unwrap().into()), ("ssh_key", stranger.to_str().unwrap().into())]),
    )
    .await;
    assert_eq!(error.step, ConnectStep::Authenticate, "{error}");
    assert!(error.message.contains(sshd.user()) && error.message.contains(stranger.to_str().unwrap()), "{error}");

    let missing = sshd.folder().join("no-such-key");
    let error = error_of(
        &wire,
        &host("sshd-01", &[("ssh_config_file", own.to_str().unwrap().into()), ("ssh_key", missing.to_str().unwrap().into())]),
    )
    .await;
    assert_eq!(error.step, ConnectStep::Authenticate, "{error}");
    assert!(error.message.contains(&format!("there is no key file {}", missing.display())), "{error}");
    drop(wire);
    nothing_left(&sshd);
}

#[tokio::test]
async fn a_listener_that_never_speaks_is_given_up_in_time() {
    let hole = BlackHole::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path());
    settings.connect_deadline = Duration::from_millis(900);
    let wire = Wire::new(settings);
    let address = hole.address();
    let started = std::time::Instant::now();
    let data = [("ssh_port", address.port().into()), ("ssh_config_file", "/dev/null".into())];
    let error = error_of(&wire, &host(&address.ip().to_string(), &data)).await;
    assert_eq!(error.step, ConnectStep::Banner, "{error}");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    assert_eq!(hole.swallowed(), 1);
}

#[tokio::test]
async fn an_unknown_and_a_changed_host_key_are_named_with_the_way_out() {
    for (key, words, hint) in
        [(HostKey::Unknown, "is not known", "ssh-keyscan -p"), (HostKey::Changed, "is not the known one", "ssh-keygen -R")]
    {
        let sshd = Sshd::start(SshdOptions::default().host_key(key)).unwrap();
        let wire = wire(&sshd);
        let error = error_of(&wire, &host_of(&sshd)).await;
        assert_eq!(error.step, ConnectStep::HostKey, "{error}");
        assert!(error.message.contains(words) && error.message.contains("SHA256:"), "{error}");
        assert!(error.hint.as_ref().is_some_and(|text| text.contains(hint)), "{:?}", error.hint);
        assert_eq!(sshd.logins(), 0);
        drop(wire);
        nothing_left(&sshd);
    }
}

#[tokio::test]
async fn a_host_name_of_its_own_keeps_the_stanza_and_the_name_of_the_key() {
    let sshd = Sshd::start(SshdOptions::default()).unwrap();
    let (_, address) = sshd.aliases()[0].clone();
    // The key is known under the name in the inventory, on its port.
    let known = std::fs::read_to_string(sshd.known_hosts()).unwrap();
    let key = known.split_once(' ').unwrap().1;
    let own = sshd.folder().join("own_known_hosts");
    std::fs::write(&own, format!("[web-01]:{} {key}", address.port())).unwrap();
    let config = sshd.folder().join("own_config");
    let text = format!(
        "Host web-01\n  Port {}\n  User {}\nHost *\n  IdentityFile {}\n  IdentitiesOnly yes\n  StrictHostKeyChecking yes\n  GlobalKnownHostsFile /dev/null\n  \
         RemoteCommand echo mine\n  RequestTTY yes\n  LocalForward 127.0.0.1:1 127.0.0.1:1\n  ExitOnForwardFailure yes\n  ControlPersist yes\n  StdinNull yes\n",
        address.port(),
        sshd.user(),
        sshd.user_key().display()
    );
    std::fs::write(&config, text).unwrap();
    let data = [
        ("ssh_hostname", address.ip().to_string().into()),
        ("ssh_config_file", config.to_str().unwrap().into()),
        ("ssh_known_hosts_file", own.to_str().unwrap().into()),
    ];
    let wire = wire(&sshd);
    let connection = wire.connect(&host("web-01", &data)).await.expect("the stanza and the key are those of web-01");
    assert_eq!(perform(&connection, &run("true")).await.0, Ending::Exited(0));
    let error =
        error_of(&wire, &host("web-02", &[data[0].clone(), data[1].clone(), data[2].clone(), ("ssh_port", address.port().into())])).await;
    assert_eq!(error.step, ConnectStep::HostKey, "{error}");
    assert!(error.message.contains(&format!("[web-02]:{}", address.port())), "{error}");
    connection.close().await;
    drop((connection, wire));
    nothing_left(&sshd);
}

/// An ssh session in which a login shell of this text runs what ssh asks for.
fn sshd_with_shell(text: &str) -> (Sshd, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let shell = folder.path().join("shell");
    std::fs::write(&shell, text).unwrap();
    std::fs::set_permissions(&shell, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let sshd = Sshd::start(SshdOptions::default().configuration(format!("ForceCommand {}", shell.display()))).unwrap();
    (sshd, folder)
}

#[tokio::test]
async fn noise_of_a_login_shell_is_no_output() {
    let (sshd, _folder) = sshd_with_shell("#!/bin/sh\necho 'Welcome, stranger'; echo 'and beware' >&2; eval \"$SSH_ORIGINAL_COMMAND\"\n");
    let (_wire, connection) = reach(&sshd).await;
    let (ending, heard) = perform(&connection, &run("echo clean; echo too >&2")).await;
    assert_eq!((ending, heard.stdout().as_str(), heard.stderr().as_str()), (Ending::Exited(0), "clean\n", "too\n"));
    let answers = connection.gather(vec![question("echo fact")]).await.unwrap();
    assert_eq!(answers[0], Ok(infra_core::output::Output::of("fact\n")));
}

#[tokio::test]
async fn a_login_shell_that_is_none_ends_in_the_last_step() {
    let (sshd, _folder) = sshd_with_shell("#!/bin/sh\necho 'This account is currently not available.'; exit 1\n");
    let error = error_of(&wire(&sshd), &host_of(&sshd)).await;
    assert_eq!(error.step, ConnectStep::Shell, "{error}");
    assert!(error.message.contains("This account is currently not available."), "{error}");
}

#[tokio::test]
async fn a_server_that_turns_strangers_away_is_asked_again() {
    // Of two who are not in yet the second is turned away.
    let sshd = Sshd::start(SshdOptions::default().configuration("MaxStartups 1:100:1")).unwrap();
    let wire = Arc::new(wire(&sshd));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (wire, host) = (wire.clone(), host_of(&sshd));
        tasks.spawn(async move {
            let connection = wire.connect(&host).await?;
            connection.close().await;
            Ok::<_, ConnectError>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        assert_eq!(done.unwrap(), Ok(()));
    }
    drop(wire);
    nothing_left(&sshd);
}

/// The test binary as a controller of its own, to be killed: it connects, begins a command and waits.
#[test]
fn controller_to_be_killed() {
    let Ok(config) = std::env::var("CONTROLLER_CONFIG") else { return };
    let folder = std::env::var("CONTROLLER_FOLDER").unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let wire = Wire::new(Settings::new(Path::new(&folder).join("run")));
        let connection = wire.connect(&host("sshd-01", &[("ssh_config_file", config.into())])).await.unwrap();
        connection.prepare_for(12).await.unwrap();
        let commands = (0..12).map(|n| {
            let action =
                run(&format!("echo >{folder}/begun.{n}; while [ ! -e {folder}/go ]; do sleep 0.02; done; echo >{folder}/ended.{n}"));
            let connection = connection.clone();
            tokio::spawn(async move { perform(&connection, &action).await })
        });
        for command in commands.collect::<Vec<_>>() {
            let _ = command.await;
        }
    });
}

#[tokio::test]
async fn a_controller_that_is_killed_leaves_no_master() {
    let sshd = Sshd::start(SshdOptions::default()).unwrap();
    let mut controller = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "controller_to_be_killed"])
        .env("CONTROLLER_CONFIG", sshd.ssh_config())
        .env("CONTROLLER_FOLDER", sshd.folder())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let all = |what: &str| (0..12).all(|n| sshd.folder().join(format!("{what}.{n}")).exists());
    eventually("the commands of the controller", || all("begun")).await;
    assert_eq!(sshd.logins(), 2);
    controller.kill().unwrap();
    controller.wait().unwrap();
    std::fs::write(sshd.folder().join("go"), "").unwrap();
    eventually("the commands' end", || all("ended")).await;
    // The socket of the killed one is swept by the next one that starts.
    let (wire, connection) = reach(&sshd).await;
    connection.close().await;
    drop((connection, wire));
    nothing_left(&sshd);
}
