//! The same promises in every `sh` that a host may have, and under what stands in for sudo there.

mod common;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::*;
use infra_connect::Settings;
use infra_core::change::Action;
use infra_core::command::{Command, Line, Parts, Shell};
use infra_core::connection::{Connection, Ending, Lineup, Perform, Question};
use infra_core::global_arguments::Context;
use infra_core::sh;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tempfile::TempDir;

const SHELLS: [(&str, &str); 6] = [
    ("sh", "/bin/sh"),
    ("dash", "/bin/dash"),
    ("bash", "/bin/bash"),
    ("busybox", "/bin/busybox"),
    ("mksh", "/bin/mksh"),
    ("ksh93", "/bin/ksh93"),
];

/// This machine as if its `sh` were another one.
struct Other {
    folder: PathBuf,
    path: String,
    /// Whether further shells belong to nobody, who may not kill what is root's.
    powerless: AtomicBool,
}

impl MadeUp for Other {
    fn shell(&self) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(self.folder.join("sh"));
        command.env("PATH", &self.path);
        if self.powerless.load(Ordering::SeqCst) {
            command.uid(65534);
        }
        command
    }
}

/// A host whose `sh` is `shell`, with further programs in front of the others.
async fn host_with(shell: &str, programs: &[(&str, &str)]) -> (TempDir, Arc<Other>, Arc<dyn Connection>) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    symlink(shell, folder.path().join("sh")).unwrap();
    for (name, text) in programs {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", folder.path().display());
    let other = Arc::new(Other { folder: folder.path().to_owned(), path, powerless: AtomicBool::new(false) });
    let settings = Arc::new(Settings::new(Path::new("/nonexistent")));
    let host = meet(settings, &other).await.unwrap_or_else(|error| panic!("{shell}: {error}"));
    (folder, other, Arc::new(host))
}

/// A command that prints these bytes on both outputs, by octal escapes, and ends with this status.
fn printing(stdout: &[u8], stderr: &[u8], status: u8) -> Shell {
    let octal = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\{byte:03o}")).collect::<String>();
    sh!("printf {} >&2; printf {}; exit {}", octal(stderr), octal(stdout), status)
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![any::<u8>(), Just(0_u8), Just(b'\n'), Just(0x1e)], 0..200)
}

/// One run of the property in each shell: three facts in one request, a command with an input, an odd text in a script.
#[test]
fn arbitrary_bytes_pass_through_every_shell() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (name, shell) in SHELLS {
        let (_folder, _, host) = runtime.block_on(host_with(shell, &[]));
        let mut runner = TestRunner::new(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() });
        let cases = (prop::collection::vec((bytes(), bytes(), 0..=125_u8), 3), bytes(), "[^\0]{0,40}", any::<String>());
        let ran = runner.run(&cases, |(facts, input, text, variable)| {
            runtime.block_on(async {
                let questions = facts
                    .iter()
                    .map(|(stdout, stderr, status)| infra_core::connection::Question {
                        command: Command::new(printing(stdout, stderr, *status)),
                        context: Context::default(),
                    })
                    .collect();
                let answers = host.gather(questions).await.unwrap();
                for (answer, (stdout, stderr, status)) in answers.into_iter().zip(facts) {
                    let answer = answer.unwrap();
                    assert_eq!((answer.stdout, answer.stderr, answer.status), (stdout, stderr, i32::from(status)));
                }
                let (ending, heard) = perform(&host, &run_with("cat; exit 7", input.clone())).await;
                assert_eq!((ending, &*heard.stdout.lock().unwrap()), (Ending::Exited(7), &input));
                let variable = variable.replace('\0', "");
                let script = sh!("printf %s {}; printf %s \"$ODD\" >&2", text);
                let context = environment(&[("ODD", &variable)]);
                let (ending, heard) = perform_in(&host, &Action::Run(Command::new(script)), &context, None).await;
                assert_eq!((ending, heard.stdout(), heard.stderr()), (Ending::Exited(0), text, variable));
            });
            Ok(())
        });
        ran.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// A `size` that prints a line about each of its files, and notes that it was started.
const SIZE: &str = "#!/bin/sh\necho started >>\"$0.log\"\nfor f; do [ -r \"$f\" ] || { echo \"size: '$f': No such file\" >&2; continue; }; echo \"$(wc -c <\"$f\") $f\"; done\n";

fn size_of(path: &str) -> Question {
    let line = Line { program: sh!("size"), separator: " ", given: sh!("test -e \"$1\""), patience: None };
    let first = sh!("{ test -e \"$1\" || { echo \"size: '$1': No such file\" >&2; false; }; } && wc -c <\"$1\"");
    let rest = sh!("head -c 3 <\"$1\"; case $1 in *x) echo \"it is $1\" >&2; (exit 3);; esac");
    let command = Command::in_parts(Parts { about: path.to_owned(), lines: vec![line], gone: sh!("! test -e \"$1\""), first, rest });
    Question { command, context: Context::default() }
}

#[tokio::test]
async fn what_many_questions_have_in_common_is_done_once_in_every_shell() {
    for (name, shell) in SHELLS {
        let (folder, _, host) = host_with(shell, &[("size", SIZE)]).await;
        let at = |file: &str| folder.path().join(file).display().to_string();
        let files = ["plain", "with space", "quo'te", "-n", "$HOME", "ends: x", "ünï", "new\nline", "back\\slash", "*"];
        for (count, file) in files.iter().enumerate() {
            std::fs::write(at(file), "abcdefghijkl".split_at(count).0).unwrap();
        }
        let starts = || std::fs::read_to_string(at("size.log")).unwrap_or_default().lines().count();
        let mut asked: Vec<Question> = files.iter().chain(["missing", "plain"].iter()).map(|file| size_of(&at(file))).collect();
        asked.push(question("echo to stderr >&2; echo to stdout; exit 4"));
        let alone = |one: &Question| Question { command: Command { parts: None, ..one.command.clone() }, ..one.clone() };
        host.gather(vec![question(":")]).await.unwrap();
        let before = host.traffic().round_trips;
        let by_themselves = host.gather(asked.iter().map(alone).collect()).await.unwrap();
        let between = host.traffic().round_trips;
        assert_eq!(starts(), 0, "{name}");
        let together = host.gather(asked.clone()).await.unwrap();
        assert_eq!(together, by_themselves, "{name}");
        assert_eq!((starts(), host.traffic().round_trips - between), (1, between - before), "{name}");
        let missing = together[files.len()].as_ref().unwrap();
        assert_eq!(
            (missing.status, String::from_utf8_lossy(&missing.stderr)),
            (1, format!("size: '{}': No such file\n", at("missing")).into()),
            "{name}"
        );
        // As many as there are need some starts more.
        let many: Vec<Question> = (0..450).map(|number| size_of(&at(&format!("f{number}")))).collect();
        (0..450).for_each(|number| std::fs::write(at(&format!("f{number}")), "x".repeat(number)).unwrap());
        let answers = host.gather(many).await.unwrap();
        let sizes: Vec<String> =
            answers.into_iter().map(|answer| answer.unwrap().text().lines().next().unwrap_or_default().to_owned()).collect();
        assert_eq!(sizes, (0..450).map(|number| number.to_string()).collect::<Vec<_>>(), "{name}");
        assert_eq!(starts(), 4, "{name}");
    }
}

#[tokio::test]
async fn what_cannot_be_done_for_many_is_done_for_each() {
    let broken = [
        ("says nothing", "#!/bin/sh\nexit 1\n"),
        ("says something else", "#!/bin/sh\nfor f; do echo \"$f\" 1; done\n"),
        ("knows one alone", "#!/bin/sh\necho \"$(wc -c <\"$1\") $1\"\n"),
        ("never ends", "#!/bin/sh\nsleep 600\n"),
        ("prints without end", "#!/bin/sh\nexec yes\n"),
        ("kills who asks", "#!/bin/sh\nkill -9 $PPID\n"),
    ];
    for (how, size) in broken {
        let (folder, other, _) = host_with("/bin/sh", &[("size", size)]).await;
        let settings = Settings { fact_deadline: Duration::from_secs(2), fact_limit: 10_000, ..Settings::new(Path::new("/nonexistent")) };
        let host: Arc<dyn Connection> = Arc::new(meet(Arc::new(settings), &other).await.unwrap());
        let at = |file: &str| folder.path().join(file).display().to_string();
        ["a", "b"].iter().for_each(|file| std::fs::write(at(file), format!("of {file}")).unwrap());
        let asked = vec![size_of(&at("a")), size_of(&at("b")), question("echo by itself"), question("exit 3")];
        let answers = host.gather(asked).await.unwrap();
        let said: Vec<(i32, String)> =
            answers.into_iter().map(|answer| answer.unwrap()).map(|answer| (answer.status, answer.text().into_owned())).collect();
        let wanted = [(0, "4\nof "), (0, "4\nof "), (0, "by itself\n"), (3, "")].map(|(status, text)| (status, text.to_owned()));
        assert_eq!(said, wanted, "{how}");
    }
}

#[tokio::test]
async fn uploads_programs_and_deadlines_work_in_every_shell() {
    for (name, shell) in SHELLS {
        let (folder, _, host) = host_with(shell, &[]).await;
        let dest = folder.path().join("uploaded");
        let content: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        for _ in 0..2 {
            let (ending, _) = perform(&host, &Action::Upload(upload(content.clone(), &dest))).await;
            assert_eq!(ending, Ending::Exited(0), "{name}");
        }
        assert!(std::fs::read(&dest).unwrap() == content, "{name}");
        let (ending, _) = perform(&host, &Action::Upload(upload("x", &folder.path().join("no/where")))).await;
        assert!(matches!(&ending, Ending::Refused(reason) if reason.contains("there is no directory")), "{name}: {ending:?}");
        let (ending, heard) = perform(&host, &script("echo \"$1\"; exit 5", &["a b"])).await;
        assert_eq!((ending, heard.stdout().as_str()), (Ending::Exited(5), "a b\n"), "{name}");
        let slow = run("sleep 612 & echo $! $$; wait");
        let (ending, heard) = perform_in(&host, &slow, &Context::default(), Some(Duration::from_millis(300))).await;
        assert!(matches!(ending, Ending::TimedOut { still_running: None, .. }), "{name}: {ending:?}");
        assert!(heard.stdout().split_whitespace().all(|pid| !alive(pid.parse().unwrap())), "{name}");
        let (ending, heard) = perform(&host, &run("set")).await;
        assert_eq!(ending, Ending::Exited(0), "{name}");
        assert!(!heard.stdout().contains("infra_s=") && !heard.stdout().contains('\u{1e}'), "{name}: {}", heard.stdout());
    }
}

#[tokio::test]
async fn without_setsid_the_group_of_the_first_shell_is_killed() {
    // A PATH in which there is no setsid(1), as on other systems than Linux.
    let (folder, other, _) = host_with("/bin/dash", &[]).await;
    for tool in ["sleep", "kill", "cat", "echo", "printf", "locale", "rm"] {
        if let Some(path) = ["/bin", "/usr/bin"].map(|place| Path::new(place).join(tool)).into_iter().find(|path| path.exists()) {
            symlink(path, folder.path().join(tool)).unwrap();
        }
    }
    let bare = Arc::new(Other {
        folder: other.folder.clone(),
        path: folder.path().to_str().unwrap().to_owned(),
        powerless: AtomicBool::new(false),
    });
    let settings = Arc::new(Settings::new(Path::new("/nonexistent")));
    let host: Arc<dyn Connection> = Arc::new(meet(settings, &bare).await.unwrap());
    assert_ne!(perform(&host, &run("command -v setsid")).await.0, Ending::Exited(0));
    let (ending, heard) = perform_in(&host, &run("sleep 613 & echo $!; wait"), &Context::default(), Some(Duration::from_millis(300))).await;
    assert!(matches!(ending, Ending::TimedOut { still_running: None, .. }), "{ending:?}");
    assert!(!alive(heard.stdout().trim().parse().unwrap()));
}

#[tokio::test]
async fn what_may_not_be_killed_is_named() {
    assert!(nix::unistd::geteuid().is_root(), "becoming nobody takes root");
    let (_folder, other, host) = host_with("/bin/sh", &[]).await;
    let heard = Arc::new(Heard::default());
    let (action, context) = (run("echo $$; exec sleep 614"), Context::default());
    let step =
        infra_core::connection::Perform { action: &action, context: &context, timeout: Some(Duration::from_millis(500)), as_of: Some(0) };
    let weakening = async {
        eventually("it has begun", || heard.stdout().ends_with('\n')).await;
        other.powerless.store(true, Ordering::SeqCst);
    };
    let (ending, ()) = tokio::join!(host.perform(step, heard.sink()), weakening);
    let pid: i32 = heard.stdout().trim().parse().unwrap();
    let Ending::TimedOut { still_running: Some(group), .. } = ending else { panic!("{ending:?}") };
    assert_eq!(group.cast_signed(), pid);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// What stands in for sudo: it says how it was called, and does it.
const OBLIGING: &str = "#!/bin/sh\necho 'We trust you have received the usual lecture' >&2\n\
    [ \"$1 $2 $3 $5\" = '-n -H -u --' ] || exit 99\nBECOME=$4; export BECOME; shift 5; exec \"$@\"\n";

#[tokio::test]
async fn a_change_of_user_is_asked_for_once_and_its_noise_is_no_output() {
    let (folder, _, host) = host_with("/bin/sh", &[("sudo", OBLIGING)]).await;
    let context = Context { privilege: infra_core::privilege::Privilege::sudo("web user"), ..environment(&[("A", "b")]) };
    let (ending, heard) = perform_in(&host, &run_with("printf \"$BECOME $A \"; cat; echo err >&2", "input"), &context, None).await;
    assert_eq!((ending, heard.stdout().as_str(), heard.stderr().as_str()), (Ending::Exited(0), "web user b input", "err\n"));
    let dest = folder.path().join("file");
    let (ending, _) = perform_in(&host, &Action::Upload(upload("content", &dest)), &context, None).await;
    assert_eq!((ending, std::fs::read_to_string(&dest).unwrap().as_str()), (Ending::Exited(0), "content"));
    // Users may be mixed in one gathering.
    let mut questions: Vec<_> = (0..6).map(|_| question("echo \"${BECOME-nobody}\"")).collect();
    for place in [1, 4] {
        questions[place].context.privilege = infra_core::privilege::Privilege::sudo("root");
    }
    let answers: Vec<String> =
        host.gather(questions).await.unwrap().into_iter().map(|answer| answer.unwrap().text().into_owned()).collect();
    assert_eq!(answers, ["nobody\n", "root\n", "nobody\n", "nobody\n", "root\n", "nobody\n"]);
    let (ending, heard) = perform_in(&host, &run("echo $$; exec sleep 615"), &context, Some(Duration::from_millis(300))).await;
    assert!(matches!(ending, Ending::TimedOut { still_running: None, .. }), "{ending:?}");
    assert!(!alive(heard.stdout().trim().parse().unwrap()));
}

#[tokio::test]
async fn a_change_of_user_that_is_refused_changes_nothing_and_says_why() {
    let context = Context { privilege: infra_core::privilege::Privilege::sudo("root"), ..Context::default() };
    for (program, words) in [
        ("#!/bin/sh\necho 'sudo: a password is required' >&2\nexit 1\n", "sudo asks for a password to become root"),
        ("#!/bin/sh\necho 'bob is not in the sudoers file.' >&2\nexit 1\n", "sudo does not let this user become root"),
        ("#!/bin/sh\nexit 1\n", "sudo could not become root (exit status 1)"),
    ] {
        let (folder, _, host) = host_with("/bin/sh", &[("sudo", program)]).await;
        let dest = folder.path().join("file");
        for action in [run(&format!("touch {}", dest.display())), Action::Upload(upload("x", &dest)), script("exit 0", &[])] {
            let (ending, heard) = perform_in(&host, &action, &context, None).await;
            let Ending::Refused(reason) = ending else { panic!("{ending:?}") };
            assert!(reason.contains(words), "{reason}");
            assert_eq!((heard.stdout(), heard.stderr()), (String::new(), String::new()));
        }
        assert!(!dest.exists());
        let mut asked = question("true");
        asked.context = context.clone();
        let answers = host.gather(vec![question("echo plain"), asked]).await.unwrap();
        assert_eq!(answers[0], Ok(infra_core::output::Output::of("plain\n")));
        assert!(answers[1].as_ref().unwrap_err().contains(words), "{:?}", answers[1]);
    }
}

#[tokio::test]
async fn a_host_without_sudo_says_so() {
    let (folder, other, _) = host_with("/bin/dash", &[]).await;
    let bare = Arc::new(Other {
        folder: other.folder.clone(),
        path: folder.path().to_str().unwrap().to_owned(),
        powerless: AtomicBool::new(false),
    });
    let settings = Arc::new(Settings::new(Path::new("/nonexistent")));
    symlink("/bin/cat", folder.path().join("cat")).unwrap();
    let host: Arc<dyn Connection> = Arc::new(meet(settings, &bare).await.unwrap());
    let context = Context { privilege: infra_core::privilege::Privilege::sudo("root"), ..Context::default() };
    let (ending, _) = perform_in(&host, &run("true"), &context, None).await;
    assert!(matches!(&ending, Ending::Refused(reason) if reason.starts_with("there is no sudo on the host")), "{ending:?}");
}

#[tokio::test]
async fn a_host_of_busybox_alone_is_a_host() {
    let (folder, other, _) = host_with("/bin/busybox", &[]).await;
    let tools = folder.path().join("tools");
    std::fs::create_dir(&tools).unwrap();
    let installed = std::process::Command::new("/bin/busybox").args(["--install", "-s"]).arg(&tools).status().unwrap();
    assert!(installed.success());
    let bare =
        Arc::new(Other { folder: other.folder.clone(), path: tools.to_str().unwrap().to_owned(), powerless: AtomicBool::new(false) });
    let settings = Arc::new(Settings::new(Path::new("/nonexistent")));
    let host: Arc<dyn Connection> = Arc::new(meet(settings, &bare).await.unwrap());
    let link = folder.path().join("link");
    symlink("file", &link).unwrap();
    std::fs::write(folder.path().join("file"), "old").unwrap();
    std::fs::set_permissions(folder.path().join("file"), std::os::unix::fs::PermissionsExt::from_mode(0o604)).unwrap();
    let replacing = infra_core::change::Upload {
        replaces: infra_core::change::Replaces::Digest(infra_core::digest::sha256(b"old")),
        ..upload("new", &link)
    };
    assert_eq!(perform(&host, &Action::Upload(replacing)).await.0, Ending::Exited(0));
    let written = std::fs::metadata(folder.path().join("file")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&written) & 0o7777, 0o604);
    assert_eq!(std::fs::read_to_string(folder.path().join("file")).unwrap(), "new");
    let (ending, heard) = perform(&host, &script("#!/bin/sh\necho ran", &[])).await;
    assert_eq!((ending, heard.stdout().as_str()), (Ending::Exited(0), "ran\n"));
    let (ending, heard) = perform_in(&host, &run("sleep 619 & echo $!; wait"), &Context::default(), Some(Duration::from_millis(300))).await;
    assert!(matches!(ending, Ending::TimedOut { still_running: None, .. }), "{ending:?}");
    assert!(!alive(heard.stdout().trim().parse().unwrap()));
    assert_eq!(host.gather(vec![question("echo fact")]).await.unwrap()[0], Ok(infra_core::output::Output::of("fact\n")));
}

/// What goes out together comes back apart, in each shell: steps up to the first that fails, each with its own output, and the answers behind it.
#[test]
fn steps_in_one_request_end_at_the_first_that_fails() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (name, shell) in SHELLS {
        let (folder, _, host) = runtime.block_on(host_with(shell, &[]));
        // Where its tools read ahead, a shell serves one command alone: then each step goes out by itself.
        let serves = name != "busybox";
        let mut runner = TestRunner::new(ProptestConfig { cases: 10, failure_persistence: None, ..ProptestConfig::default() });
        let step = prop_oneof![
            4 => (bytes(), bytes(), prop_oneof![6 => Just(0_u8), 2 => Just(3)]).prop_map(Ok),
            1 => (prop::collection::vec(any::<u8>(), 0..3000), prop::bool::weighted(0.8)).prop_map(Err),
        ];
        let ran = runner.run(&(prop::collection::vec(step, 1..6), bytes()), |(steps, fact)| {
            let _ = std::fs::remove_file(folder.path().join("log"));
            let log = folder.path().join("log").display().to_string();
            let dest = |at: usize, there: bool| folder.path().join(if there { "" } else { "none" }).join(format!("file-{at}"));
            let actions: Vec<Action> = steps
                .iter()
                .enumerate()
                .map(|(at, step)| match step {
                    Ok((stdout, stderr, status)) => {
                        let printing = printing(stdout, stderr, *status);
                        Action::Run(Command::new(sh!("echo {} >>{}; {}", at, log, printing)))
                    }
                    Err((content, there)) => Action::Upload(upload(content.clone(), &dest(at, *there))),
                })
                .collect();
            runtime.block_on(async {
                let context = Context::default();
                let steps_of = actions.iter().map(|action| Perform { action, context: &context, timeout: None, as_of: None }).collect();
                let questions = [printing(&fact, &[], 5), sh!("cat {} 2>/dev/null", log)];
                let behind = questions.map(|script| Question { command: Command::new(script), context: Context::default() });
                let trips = host.traffic().round_trips;
                let lineup = Lineup { steps: steps_of, behind: behind.to_vec() };
                let mut lined_up = host.line_up(lineup).expect("it can");
                let mut ran = String::new();
                for (at, step) in steps.iter().enumerate() {
                    let heard = Arc::new(Heard::default());
                    let ending = lined_up.next(heard.sink()).await;
                    match step {
                        Ok((stdout, stderr, status)) => {
                            ran.push_str(&format!("{at}\n"));
                            assert_eq!(ending, Ending::Exited(i32::from(*status)));
                            assert_eq!((&*heard.stdout.lock().unwrap(), &*heard.stderr.lock().unwrap()), (stdout, stderr));
                            if *status != 0 {
                                break;
                            }
                        }
                        Err((content, true)) => {
                            assert_eq!(ending, Ending::Exited(0));
                            assert_eq!(&std::fs::read(dest(at, true)).unwrap(), content);
                        }
                        Err((_, false)) => {
                            assert!(matches!(&ending, Ending::Refused(why) if why.contains("there is no directory")), "{ending:?}");
                            break;
                        }
                    }
                }
                let answers = lined_up.answers().await;
                drop(lined_up);
                let read: Vec<Option<Vec<u8>>> = answers.into_iter().map(|answer| answer.map(|answer| answer.stdout)).collect();
                assert_eq!(perform(&host, &run("exit 4")).await.0, Ending::Exited(4));
                if serves {
                    assert_eq!(read, [Some(fact), Some(ran.into_bytes())], "{name}");
                    assert_eq!(host.traffic().round_trips, trips + 2, "one request, and the shell serves on");
                } else {
                    assert_eq!(read, [None, None]);
                }
            });
            Ok(())
        });
        ran.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// What was sent behind a step that is killed is not begun, and what leaves processes behind takes its shell along.
#[test]
fn a_killed_step_ends_what_was_sent_with_it() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (name, shell) in SHELLS {
        let (folder, _, host) = runtime.block_on(host_with(shell, &[]));
        runtime.block_on(async {
            let context = Context::default();
            let there = folder.path().join("there");
            let actions = [run("echo one"), run("sleep 60"), run(&format!("touch {}", there.display()))];
            let timeouts = [None, Some(Duration::from_millis(200)), None];
            let steps =
                actions.iter().zip(timeouts).map(|(action, timeout)| Perform { action, context: &context, timeout, as_of: None }).collect();
            let mut lined_up = host.line_up(Lineup { steps, behind: vec![question("echo fact")] }).expect("it can");
            let heard = Arc::new(Heard::default());
            assert_eq!((lined_up.next(heard.sink()).await, heard.stdout()), (Ending::Exited(0), "one\n".to_owned()), "{name}");
            let ending = lined_up.next(heard.sink()).await;
            assert!(matches!(ending, Ending::TimedOut { still_running: None, .. }), "{name}: {ending:?}");
            assert!(matches!(&lined_up.answers().await[..], [None]), "{name}: it is asked afterwards");
            drop(lined_up);
            assert_eq!(host.traffic().commands, 2, "{name}: the third was never begun");
            assert_eq!(perform(&host, &run("exit 4")).await.0, Ending::Exited(4), "{name}");
            assert!(!there.exists(), "{name}: the step behind was done");

            // Also where it ends well when it is killed.
            let patient = run("trap 'exit 0' TERM; while :; do sleep 0.05; done");
            let actions = [patient, run(&format!("touch {}", there.display()))];
            let timeout = Some(Duration::from_millis(200));
            let steps = actions.iter().map(|action| Perform { action, context: &context, timeout, as_of: None }).collect();
            let mut lined_up = host.line_up(Lineup { steps, behind: vec![question("echo fact")] }).expect("it can");
            let ending = lined_up.next(heard.sink()).await;
            assert!(matches!(ending, Ending::TimedOut { still_running: None, .. }), "{name}: {ending:?}");
            assert!(matches!(&lined_up.answers().await[..], [None]), "{name}");
            drop(lined_up);
            assert_eq!(perform(&host, &run("exit 4")).await.0, Ending::Exited(4), "{name}");
            assert!(!there.exists(), "{name}: the step behind was done");

            // Nor is it counted where the one before it fails.
            let before = host.traffic().commands;
            let actions = [run("exit 3"), run(&format!("touch {}", there.display()))];
            let steps = actions.iter().map(|action| Perform { action, context: &context, timeout: None, as_of: None }).collect();
            let mut lined_up = host.line_up(Lineup { steps, behind: vec![question("echo fact")] }).expect("it can");
            assert_eq!(lined_up.next(heard.sink()).await, Ending::Exited(3), "{name}");
            lined_up.answers().await;
            drop(lined_up);
            assert_eq!((host.traffic().commands - before, there.exists()), (1, false), "{name}");

            let late = Action::Run(Command::new(Shell::verbatim("(sleep 0.2; echo late; echo late >&2) & exit 0")).leaving_processes());
            let actions = [run("echo first"), late];
            let steps = actions.iter().map(|action| Perform { action, context: &context, timeout: None, as_of: None }).collect();
            let mut lined_up = host.line_up(Lineup { steps, behind: vec![question("echo fact")] }).expect("it can");
            for _ in 0..2 {
                assert_eq!(lined_up.next(heard.sink()).await, Ending::Exited(0), "{name}");
            }
            assert!(matches!(&lined_up.answers().await[..], [None]), "{name}: not in a shell that is used up");
            drop(lined_up);
            let answer = host.gather(vec![question("sleep 0.4; echo fact")]).await.unwrap().remove(0).unwrap();
            assert_eq!((&answer.stdout[..], &answer.stderr[..]), (&b"fact\n"[..], &b""[..]), "{name}");
        });
    }
}
