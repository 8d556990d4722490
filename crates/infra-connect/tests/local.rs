//! Commands and facts on this machine.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use infra_connect::Settings;
use infra_core::change::Action;
use infra_core::connection::{Ending, Traffic};
use infra_core::global_arguments::Context;
use infra_core::output::Output;

#[tokio::test]
async fn a_command_gives_its_status_and_its_outputs_apart() {
    let host = local().await;
    for (script, status, stdout, stderr) in [
        ("echo out; echo err >&2; exit 3", 3, "out\n", "err\n"),
        ("printf 'no newline'", 0, "no newline", ""),
        ("false", 1, "", ""),
        ("cat <<'EOF'\nseveral\n  lines \\n $HOME\nEOF\n", 0, "several\n  lines \\n $HOME\n", ""),
        ("cat; echo 'nothing to read'", 0, "nothing to read\n", ""),
        ("-x 2>/dev/null", 127, "", ""),
        ("exec echo replaced", 0, "replaced\n", ""),
        ("echo 'äöü ÁÂÃÄÅÆ \u{81}'", 0, "äöü ÁÂÃÄÅÆ \u{81}\n", ""),
    ] {
        let (ending, heard) = perform(&host, &run(script)).await;
        assert_eq!((ending, heard.stdout().as_str(), heard.stderr().as_str()), (Ending::Exited(status), stdout, stderr), "{script}");
    }
}

#[tokio::test]
async fn requests_are_counted_and_what_they_hold_is_not() {
    let host = local().await;
    let traffic = |round_trips, commands| Traffic { round_trips, commands };
    assert_eq!(host.traffic(), traffic(0, 0), "making the connection is not in it");
    // The shell that was opened serves them.
    host.gather(vec![question("echo 1"), question("echo 2"), question("echo 3")]).await.expect("answers");
    assert_eq!(host.traffic(), traffic(1, 0));
    perform(&host, &run("true")).await;
    let folder = tempfile::tempdir().unwrap();
    perform(&host, &Action::Upload(upload("x", &folder.path().join("file")))).await;
    assert_eq!(host.traffic(), traffic(3, 2));
    // A question that spoils the request is one more.
    host.gather(vec![question("kill -9 $$"), question("echo 2")]).await.expect("answers");
    assert_eq!(host.traffic(), traffic(5, 2));
    // What cannot be sent is not counted.
    perform(&host, &run("echo \0")).await;
    assert_eq!(host.traffic(), traffic(5, 2));
}

#[tokio::test]
async fn a_command_that_kills_its_own_shell_has_ended() {
    let (ending, _) = perform(&local().await, &run("kill -9 $$")).await;
    assert_eq!(ending, Ending::Exited(137));
}

#[tokio::test]
async fn a_syntax_error_is_the_commands_own() {
    let (ending, heard) = perform(&local().await, &run("if true; then echo")).await;
    assert!(matches!(ending, Ending::Exited(status) if status != 0), "{ending:?}");
    assert!(!heard.stderr().is_empty());
}

#[tokio::test]
async fn a_command_reads_its_input_to_the_byte() {
    let host = local().await;
    let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n % 256) as u8).collect();
    let (ending, heard) = perform(&host, &run_with("cat", bytes.clone())).await;
    assert_eq!(ending, Ending::Exited(0));
    assert!(*heard.stdout.lock().unwrap() == bytes);
    // One that does not read all of it still ends.
    let (ending, heard) = perform(&host, &run_with("head -c 3; exit 4", bytes)).await;
    assert_eq!((ending, heard.stdout().len()), (Ending::Exited(4), 3));
}

#[tokio::test]
async fn the_context_is_the_environment_and_the_directory() {
    let host = local().await;
    let folder = tempfile::tempdir().unwrap();
    let mut context = environment(&[("GREETING", "it's $HOME\nand `more`"), ("EMPTY", "")]);
    context.chdir = Some(folder.path().to_str().unwrap().to_owned());
    let (ending, heard) = perform_in(&host, &run("printf '%s|' \"$GREETING\" \"${EMPTY-unset}\"; pwd"), &context, None).await;
    assert_eq!(ending, Ending::Exited(0));
    assert_eq!(heard.stdout(), format!("it's $HOME\nand `more`||{}\n", folder.path().display()));

    context.chdir = Some("/no/such/place".to_owned());
    let (ending, _) = perform_in(&host, &run("touch /nope"), &context, None).await;
    let Ending::Refused(reason) = ending else { panic!("{ending:?}") };
    assert!(reason.starts_with("the directory /no/such/place cannot be entered"), "{reason}");

    let (ending, _) = perform_in(&host, &run("true"), &environment(&[("A-B", "1")]), None).await;
    assert_eq!(ending, Ending::Refused("`A-B` cannot be the name of an environment variable".to_owned()));
}

#[tokio::test]
async fn nothing_of_ours_stands_in_an_argument_or_a_variable() {
    let host = local().await;
    let context = environment(&[("SECRET", "canary-4711")]);
    let (ending, heard) = perform_in(&host, &run("set; cat /proc/$$/cmdline /proc/$PPID/cmdline | tr '\\0' ' '"), &context, None).await;
    assert_eq!(ending, Ending::Exited(0));
    let text = heard.stdout();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("infra_")).collect();
    assert_eq!(lines.len(), 1, "only the command lines speak of us: {lines:?}");
    assert!(!lines[0].contains("canary") && !text.contains('\u{1e}'), "{text}");
}

#[tokio::test]
async fn a_command_has_no_ignored_signals() {
    let (ending, heard) = perform(&local().await, &run("grep SigIgn /proc/self/status | tr -d '[:space:]'")).await;
    assert_eq!(ending, Ending::Exited(0));
    let ignored = |text: &str| u64::from_str_radix(text.trim_start_matches("SigIgn:").trim(), 16).unwrap();
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = ignored(own.lines().find(|line| line.starts_with("SigIgn:")).unwrap());
    let added = ignored(heard.stdout().as_str()) & !own;
    assert_eq!(added & ((1 << 1) | (1 << 2)), 0, "SIGINT and SIGQUIT, beyond what the tests were started with: {added:x}");
}

#[tokio::test]
async fn output_comes_as_it_is_printed() {
    let host = local().await;
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let heard = Arc::new(Heard::default());
    let action = run(&format!("echo first; while [ ! -e {} ]; do sleep 0.01; done; echo second", go.display()));
    let context = Context::default();
    let step = infra_core::connection::Perform { action: &action, context: &context, timeout: None };
    let performing = host.perform(step, heard.sink());
    let watching = async {
        eventually("the first line", || heard.stdout() == "first\n").await;
        std::fs::write(&go, "").unwrap();
    };
    let (ending, ()) = tokio::join!(performing, watching);
    assert_eq!((ending, heard.stdout().as_str()), (Ending::Exited(0), "first\nsecond\n"));
}

#[tokio::test]
async fn a_child_that_holds_the_outputs_open_does_not_hang_the_command() {
    let host = local().await;
    let (ending, heard) = tokio::time::timeout(Duration::from_secs(5), perform(&host, &run("sleep 600 & echo $!"))).await.unwrap();
    assert_eq!(ending, Ending::Exited(0));
    let pid: i32 = heard.stdout().trim().parse().unwrap();
    assert!(alive(pid), "it is left alone");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn past_its_time_a_command_is_killed_with_all_that_it_started() {
    let host = local().await;
    let action = run("trap '' TERM; sleep 601 & echo $! $$; while :; do sleep 600; done");
    let (ending, heard) = perform_in(&host, &action, &Context::default(), Some(Duration::from_millis(300))).await;
    let Ending::TimedOut { after, still_running: None } = ending else { panic!("{ending:?}") };
    // Killing it took two seconds more, as it takes no notice of TERM: these are not its own.
    assert!(after >= Duration::from_millis(300) && after < Duration::from_secs(2), "{after:?}");
    for pid in heard.stdout().split_whitespace() {
        assert!(!alive(pid.parse().unwrap()), "{pid} is still there");
    }
}

#[tokio::test]
async fn a_command_that_obeys_ends_with_its_last_words() {
    let action = run("trap 'echo bye; exit 9' TERM; echo up; while :; do sleep 0.02; done");
    let (ending, heard) = perform_in(&local().await, &action, &Context::default(), Some(Duration::from_millis(300))).await;
    assert!(matches!(ending, Ending::TimedOut { still_running: None, .. }), "{ending:?}");
    assert_eq!(heard.stdout(), "up\nbye\n");
}

#[tokio::test]
async fn kill_ends_all_that_is_in_flight_and_nothing_is_started_behind_it() {
    let host = local().await;
    let heard = Arc::new(Heard::default());
    let (first, second) = (run("echo $$; sleep 602"), run("echo $$; sleep 603"));
    let context = Context::default();
    let step = |action| infra_core::connection::Perform { action, context: &context, timeout: None };
    let killing = async {
        eventually("both have begun", || heard.stdout().lines().count() == 2).await;
        host.kill().await;
        for pid in heard.stdout().lines() {
            assert!(!alive(pid.parse().unwrap()), "{pid} is still there");
        }
    };
    let (one, two, three, ()) = tokio::join!(
        host.perform(step(&first), heard.sink()),
        host.perform(step(&second), heard.sink()),
        host.gather(vec![question("sleep 604")]),
        killing
    );
    assert_eq!((one, two), (Ending::Killed, Ending::Killed));
    assert!(three.unwrap()[0].as_ref().unwrap_err().contains("interrupted"));
    // What was about to be started when the kill came must not slip through.
    let (late, heard) = perform(&host, &run("echo late")).await;
    assert_eq!((late, heard.stdout().as_str()), (Ending::Refused("the run was interrupted before it began".to_owned()), ""));
    assert!(host.gather(vec![question("echo late")]).await.unwrap()[0].as_ref().unwrap_err().contains("interrupted"));
}

#[tokio::test]
async fn a_shell_that_is_killed_from_outside_is_lost() {
    // The parent of the command's shell holds the receipt.
    let (ending, _) = perform(&local().await, &run("kill -9 $PPID; sleep 0.1")).await;
    let Ending::Lost { reason, begun: true } = ending else { panic!("{ending:?}") };
    assert!(reason.contains("without a receipt"), "{reason}");
}

#[tokio::test]
async fn many_questions_are_answered_in_their_order() {
    let host = local().await;
    let mut questions: Vec<_> = (0..200).map(|n| question(&format!("echo {n}; echo e{n} >&2; exit {}", n % 7))).collect();
    questions.push(question("printf 'no newline'"));
    questions.push(question("cat"));
    questions.push(question("if then"));
    questions.push(question("exit 5; echo never"));
    questions.push(question("printf %s \"$LC_ALL\""));
    let answers = host.gather(questions).await.unwrap();
    for (n, answer) in answers[..200].iter().enumerate() {
        let wanted = Output { status: n as i32 % 7, stdout: format!("{n}\n").into_bytes(), stderr: format!("e{n}\n").into_bytes() };
        assert_eq!(*answer, Ok(wanted));
    }
    assert_eq!(answers[200], Ok(Output::of("no newline")));
    assert_eq!(answers[201], Ok(Output::of("")));
    assert_ne!(answers[202].as_ref().unwrap().status, 0);
    assert_eq!(answers[203].as_ref().unwrap().status, 5);
    assert!(["C", "C.UTF-8"].contains(&&*answers[204].as_ref().unwrap().text()));
}

#[tokio::test]
async fn one_question_does_not_spoil_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(folder.path());
    settings.fact_deadline = Duration::from_millis(500);
    settings.fact_limit = 100_000;
    let host = local_with(settings).await;
    let mut bad_name = question("true");
    bad_name.context = environment(&[("1", "x")]);
    let mut sees_its_own = question("echo \"$ONLY_HERE\"");
    sees_its_own.context = environment(&[("ONLY_HERE", "yes")]);
    let questions = vec![
        question("echo before"),
        question("sleep 605"),
        question("echo between"),
        question("yes"),
        question("echo \"${ONLY_HERE-no}\""),
        sees_its_own,
        bad_name,
        question("echo cut; kill -9 $$"),
        question("head -c 100000 /dev/zero"),
        question("head -c 100001 /dev/zero"),
        question("echo after"),
    ];
    let answers = host.gather(questions).await.unwrap();
    for (place, text) in [(0, "before\n"), (2, "between\n"), (4, "no\n"), (5, "yes\n"), (10, "after\n")] {
        assert_eq!(answers[place], Ok(Output::of(text)));
    }
    for (place, words) in
        [(1, "did not end within 0.5 s"), (3, "more than 100000 bytes"), (6, "`1` cannot"), (7, "137"), (9, "more than 100000")]
    {
        assert!(answers[place].as_ref().unwrap_err().contains(words), "{place}: {:?}", answers[place]);
    }
    assert_eq!(answers[8].as_ref().unwrap().stdout.len(), 100_000);
}

#[tokio::test]
async fn closed_is_closed() {
    let host = local().await;
    let heard = Arc::new(Heard::default());
    let (action, context) = (run("echo $$; exec sleep 620"), Context::default());
    let step = infra_core::connection::Perform { action: &action, context: &context, timeout: None };
    let closing = async {
        eventually("it has begun", || heard.stdout().ends_with('\n')).await;
        host.close().await;
    };
    let (ending, ()) = tokio::join!(host.perform(step, heard.sink()), closing);
    assert_eq!(ending, Ending::Lost { reason: "the connection was closed".to_owned(), begun: true });
    let pid = nix::unistd::Pid::from_raw(heard.stdout().trim().parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let (ending, _) = perform(&host, &run("true")).await;
    assert_eq!(ending, Ending::Lost { reason: "the connection was closed".to_owned(), begun: false });
    assert!(host.gather(vec![question("true")]).await.is_err());
}

#[tokio::test]
async fn a_flood_of_output_passes_in_bounded_memory() {
    let (count, sink) = counter();
    let action = run("head -c 100000000 /dev/zero");
    let context = Context::default();
    let step = infra_core::connection::Perform { action: &action, context: &context, timeout: None };
    let before = resident();
    let ending = local().await.perform(step, sink).await;
    assert_eq!((ending, count.load(std::sync::atomic::Ordering::SeqCst)), (Ending::Exited(0), 100_000_000));
    // Other tests run in this process; a buffer of the whole would be twice this.
    assert!(resident().saturating_sub(before) < 50_000_000);
}

/// Takes output, and has no more room once there is any.
#[derive(Default)]
struct Full(std::sync::atomic::AtomicUsize);

impl infra_core::connection::TakeOutput for Full {
    fn take(&self, _: infra_core::output::Stream, bytes: &[u8]) {
        self.0.fetch_add(bytes.len(), std::sync::atomic::Ordering::SeqCst);
    }

    fn room(&self) -> infra_core::BoxFuture<'static, ()> {
        let full = self.0.load(std::sync::atomic::Ordering::SeqCst) > 0;
        Box::pin(async move {
            if full {
                std::future::pending().await
            }
        })
    }
}

#[tokio::test]
async fn nothing_is_read_while_there_is_no_room_and_the_time_of_a_command_passes_all_the_same() {
    let full = Arc::new(Full::default());
    let action = run("head -c 100000000 /dev/zero");
    let context = Context::default();
    let step = infra_core::connection::Perform { action: &action, context: &context, timeout: Some(Duration::from_millis(300)) };
    let ending = local().await.perform(step, full.clone()).await;
    assert!(matches!(ending, Ending::TimedOut { still_running: None, .. }), "{ending:?}");
    assert!(full.0.load(std::sync::atomic::Ordering::SeqCst) <= 64 * 1024, "no more than what one read gave");
}

fn counter() -> (Arc<std::sync::atomic::AtomicUsize>, infra_core::connection::OutputSink) {
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counting = count.clone();
    (
        count,
        Arc::new(move |_: infra_core::output::Stream, bytes: &[u8]| {
            counting.fetch_add(bytes.len(), std::sync::atomic::Ordering::SeqCst);
        }),
    )
}

/// The memory of this process, in bytes: proc_pid_statm(5).
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
