//! The lock of a machine, in every `sh` that a host may have: who gets it, who keeps it, and who is told what.

mod common;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::*;
use infra_connect::Settings;
use infra_core::change::Action;
use infra_core::connection::{Connection, Ending, Lineup, Perform, Question};
use infra_core::global_arguments::Context;
use infra_core::lock::{Claim, Holder, Locked};
use infra_core::output::Output;
use infra_core::privilege::Privilege;
use tempfile::TempDir;

const SHELLS: [&str; 6] = ["/bin/sh", "/bin/dash", "/bin/bash", "/bin/busybox", "/bin/mksh", "/bin/ksh93"];

/// A machine: this one, with an `sh` and a place for locks of its own.
struct Machine {
    folder: TempDir,
    shells: AtomicUsize,
}

impl Machine {
    fn new(shell: &str) -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bin")).unwrap();
        symlink(shell, folder.path().join("bin/sh")).unwrap();
        Arc::new(Self { folder, shells: AtomicUsize::new(0) })
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.folder.path().join("bin").join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Where the locks stand.
    fn locks(&self) -> PathBuf {
        self.path(&format!("infra-lock-{}", nix::unistd::geteuid()))
    }

    /// The names of the files there.
    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.locks()).map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
        let mut names: Vec<String> = entries.iter().map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Rewrites a line of a lock: 0 is the boot id, 1 when the lease ends.
    fn forge(&self, epoch: u32, line: usize, text: &str) {
        let path = self.locks().join(format!("lock.{epoch}"));
        let mut lines: Vec<String> = std::fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
        lines[line] = text.to_owned();
        std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    }

    /// How many shells were started since this was asked last.
    fn shells(&self) -> usize {
        self.shells.swap(0, Ordering::SeqCst)
    }
}

impl MadeUp for Machine {
    fn shell(&self) -> tokio::process::Command {
        self.shells.fetch_add(1, Ordering::SeqCst);
        let bin = self.path("bin");
        let mut command = tokio::process::Command::new(bin.join("sh"));
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()));
        command.env("INFRA_LOCK_FOLDER", self.folder.path());
        command
    }
}

/// A run, whose hosts share a key.
struct Run {
    name: &'static str,
    settings: Arc<Settings>,
    lease: u64,
}

impl Run {
    fn new(name: &'static str) -> Self {
        Self { name, settings: Arc::new(Settings::new(Path::new("/nonexistent"))), lease: 60 }
    }

    async fn reach_as(&self, machine: &Arc<Machine>, host: &str) -> Arc<dyn Connection> {
        let reached = meet(self.settings.clone(), machine).await.unwrap();
        reached.claim(Some(Claim {
            run: self.name.to_owned(),
            user: format!("{} the user's \\n name", self.name),
            controller: "ctl".to_owned(),
            host: host.to_owned(),
            lease: Duration::from_secs(self.lease),
        }));
        machine.shells();
        Arc::new(reached)
    }

    async fn reach(&self, machine: &Arc<Machine>) -> Arc<dyn Connection> {
        self.reach_as(machine, "web").await
    }
}

async fn touch(host: &Arc<dyn Connection>, path: &Path) -> Ending {
    change(host, &run(&format!("echo x >>'{}'", path.display()))).await
}

/// Does a step on facts that are as new as can be.
async fn change(host: &Arc<dyn Connection>, action: &Action) -> Ending {
    let (context, heard) = (Context::default(), Arc::new(Heard::default()));
    host.perform(Perform { action, context: &context, timeout: None, as_of: Some(host.moves()) }, heard.sink()).await
}

fn holder(ending: Ending) -> Holder {
    match ending {
        Ending::Locked(Locked::Held { holder } | Locked::TakenOver { holder: Some(holder) }) => holder,
        other => panic!("{other:?}"),
    }
}

const MOVED: Ending = Ending::Locked(Locked::Moved { same_machine: None });
const DONE: Ending = Ending::Exited(0);

async fn fact(host: &Arc<dyn Connection>) {
    assert_eq!(host.gather(vec![question("echo fact")]).await.unwrap()[0], Ok(Output::of("fact\n")));
}

#[tokio::test]
async fn one_run_has_a_machine_and_the_other_is_told_who_does() {
    for shell in SHELLS {
        let machine = Machine::new(shell);
        let file = machine.path("file");
        let (first, second) = (Run::new("first").reach(&machine).await, Run::new("second").reach(&machine).await);
        for host in [&first, &second] {
            fact(host).await;
        }
        assert!(machine.files().is_empty() && !machine.locks().exists(), "{shell}: reading changes nothing");
        assert_eq!(touch(&first, &file).await, DONE, "{shell}");
        assert_eq!(touch(&first, &file).await, DONE, "{shell}");
        let told = holder(touch(&second, &file).await);
        assert_eq!(
            (told.run.as_str(), told.user.as_str(), told.controller.as_str()),
            ("first", "first the user's \\n name", "ctl"),
            "{shell}"
        );
        assert!(told.since.ends_with(" UTC") && told.since.len() == "2026-03-01 12:30:00 UTC".len(), "{shell}: {}", told.since);
        let upload = Action::Upload(upload(vec![b'x'; 3_000_000], &machine.path("uploaded")));
        for action in [&upload, &script("exit 0", &[])] {
            assert_eq!(holder(change(&second, action).await).run, "first", "{shell}");
        }
        assert!(!machine.path("uploaded").exists());
        first.release().await;
        assert_eq!(machine.files(), ["lock.1"], "{shell}: what stays says that it is free");
        // What the second run knows of the host is from before the first one's change.
        assert_eq!(touch(&second, &file).await, MOVED, "{shell}");
        assert_eq!(touch(&second, &file).await, DONE, "{shell}");
        assert_eq!(change(&second, &upload).await, DONE, "{shell}");
        second.release().await;
        assert_eq!(machine.files(), ["lock.2"], "{shell}");
        assert_eq!(std::fs::read_to_string(&file).unwrap().lines().count(), 3, "{shell}");
    }
}

#[tokio::test]
async fn nothing_is_asked_of_a_host_for_its_lock_alone_but_giving_it_back() {
    let machine = Machine::new("/bin/sh");
    let host = Run::new("first").reach(&machine).await;
    let asked = || host.traffic().round_trips;
    fact(&host).await;
    fact(&host).await;
    assert_eq!(asked(), 2);
    for _ in 0..3 {
        assert_eq!(touch(&host, &machine.path("file")).await, DONE);
    }
    assert_eq!(asked(), 5);
    host.release().await;
    assert_eq!((asked(), machine.shells()), (6, 0), "one shell does all of it");
    // A step that changes nothing, such as waiting, goes by any lock.
    let waits = Run::new("third").reach(&machine).await;
    let (action, context, heard) = (run("echo waited"), Context::default(), Arc::new(Heard::default()));
    let step = Perform { action: &action, context: &context, timeout: None, as_of: None };
    assert_eq!((waits.perform(step, heard.sink()).await, machine.files().len()), (DONE, 1));
    assert_eq!((heard.stdout().as_str(), machine.files()[0].as_str()), ("waited\n", "lock.1"));
    // Where nothing was taken, there is nothing to give back.
    let other = Run::new("second").reach(&machine).await;
    fact(&other).await;
    other.release().await;
    host.release().await;
    assert_eq!((other.traffic().round_trips, asked()), (1, 6));
}

#[tokio::test]
async fn of_twenty_at_once_one_gets_it() {
    for shell in SHELLS {
        let machine = Machine::new(shell);
        // A lock that can be taken over is what takers are most likely to fall over each other with.
        for round in 1..=2 {
            let mut hosts = Vec::new();
            for _ in 0..20 {
                hosts.push(Run::new("one of many").reach(&machine).await);
            }
            let file = machine.path(&format!("file-{round}"));
            let mut tasks = tokio::task::JoinSet::new();
            for host in &hosts {
                let (host, file) = (host.clone(), file.clone());
                tasks.spawn(async move { touch(&host, &file).await });
            }
            let endings = tasks.join_all().await;
            let won = endings.iter().filter(|ending| **ending == DONE).count();
            let told = endings.iter().filter(|ending| matches!(ending, Ending::Locked(Locked::Held { .. }))).count();
            assert_eq!((won, told), (1, 19), "{shell}: {endings:?}");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), "x\n", "{shell}");
            assert_eq!(machine.files(), [format!("lock.{round}")], "{shell}");
            machine.forge(round, 1, "1");
        }
    }
}

#[tokio::test]
async fn a_lease_that_has_run_out_is_taken_over_and_its_holder_changes_nothing_more() {
    for shell in SHELLS {
        let machine = Machine::new(shell);
        let file = machine.path("file");
        for (round, (line, text)) in [(1, "1"), (0, "another-boot"), (1, "2000000000")].into_iter().enumerate() {
            let round = 2 * u32::try_from(round).unwrap() + 1;
            let (first, second) = (Run::new("first").reach(&machine).await, Run::new("second").reach(&machine).await);
            fact(&first).await;
            assert_eq!(touch(&first, &file).await, DONE, "{shell}");
            fact(&second).await;
            machine.forge(round, line, text);
            // It was held when the facts were read, so they may be old.
            assert_eq!(touch(&second, &file).await, MOVED, "{shell}: {text}");
            assert_eq!(touch(&second, &file).await, DONE, "{shell}: {text}");
            let upload = Action::Upload(upload("x", &machine.path("uploaded")));
            for action in [&run(&format!("touch '{}'", machine.path("touched").display())), &script("exit 0", &[]), &upload] {
                assert_eq!(holder(change(&first, action).await).run, "second", "{shell}: {text}");
            }
            assert!(!machine.path("touched").exists() && !machine.path("uploaded").exists());
            // It gives back what it no longer has, which is not the other's.
            first.release().await;
            assert_eq!(touch(&second, &file).await, DONE, "{shell}: {text}");
            second.release().await;
        }
    }
}

#[tokio::test]
async fn a_lease_that_has_run_out_and_that_nobody_took_is_renewed() {
    for shell in SHELLS {
        let machine = Machine::new(shell);
        let host = Run::new("first").reach(&machine).await;
        assert_eq!(touch(&host, &machine.path("file")).await, DONE, "{shell}");
        machine.forge(1, 1, "1");
        assert_eq!(touch(&host, &machine.path("file")).await, DONE, "{shell}");
        let other = Run::new("second").reach(&machine).await;
        assert_eq!(holder(touch(&other, &machine.path("file")).await).run, "first", "{shell}");
        // Somebody broke the lock by hand.
        std::fs::remove_dir_all(machine.locks()).unwrap();
        let gone = Ending::Locked(Locked::TakenOver { holder: None });
        assert_eq!(touch(&host, &machine.path("file")).await, gone, "{shell}");
        assert_eq!(touch(&host, &machine.path("file")).await, gone, "{shell}");
    }
}

#[tokio::test]
async fn the_lease_is_renewed_while_the_run_lives() {
    let machine = Machine::new("/bin/sh");
    let host = Run { lease: 2, ..Run::new("first") }.reach(&machine).await;
    assert_eq!(touch(&host, &machine.path("file")).await, DONE);
    let until = || std::fs::read_to_string(machine.locks().join("lock.1")).unwrap().lines().nth(1).unwrap().parse::<u64>().unwrap();
    let first = until();
    // Two leases later it is still held.
    eventually("it is renewed", || until() >= first + 4).await;
    let other = Run::new("second").reach(&machine).await;
    assert_eq!(holder(touch(&other, &machine.path("file")).await).run, "first");
    host.release().await;
    assert_eq!(other.take_lock().await, DONE);
}

#[tokio::test]
async fn who_waits_takes_the_lock_alone() {
    let machine = Machine::new("/bin/sh");
    let (first, second) = (Run::new("first").reach(&machine).await, Run::new("second").reach(&machine).await);
    fact(&second).await;
    assert_eq!(first.take_lock().await, DONE);
    assert_eq!(holder(second.take_lock().await).run, "first");
    first.release().await;
    assert_eq!((second.take_lock().await, second.moves()), (MOVED, 1));
    assert_eq!((second.take_lock().await, second.moves()), (DONE, 1));
    // A step that rests on older facts is not done.
    let (action, context, heard) = (run("echo no"), Context::default(), Arc::new(Heard::default()));
    let old = Perform { action: &action, context: &context, timeout: None, as_of: Some(0) };
    assert_eq!((second.perform(old, heard.sink()).await, heard.stdout()), (MOVED, String::new()));
}

#[tokio::test]
async fn several_steps_at_once_take_it_once() {
    let machine = Machine::new("/bin/sh");
    let (first, second) = (Run::new("first").reach(&machine).await, Run::new("second").reach(&machine).await);
    fact(&second).await;
    assert_eq!(first.take_lock().await, DONE);
    first.release().await;
    let before = second.traffic().round_trips;
    let (action, context, heard) = (run("echo no"), Context::default(), Arc::new(Heard::default()));
    let old = || second.perform(Perform { action: &action, context: &context, timeout: None, as_of: Some(0) }, heard.sink());
    assert_eq!(tokio::join!(old(), old(), old()), (MOVED, MOVED, MOVED), "all of them rest on the same facts");
    assert_eq!((heard.stdout(), second.traffic().round_trips), (String::new(), before + 1));
    let fresh = || touch(&second, Path::new("/dev/null"));
    assert_eq!(tokio::join!(fresh(), fresh(), fresh()), (DONE, DONE, DONE));
    assert_eq!(machine.files(), ["lock.2"]);
}

#[tokio::test]
async fn two_names_of_one_machine_do_not_block_each_other() {
    let machine = Machine::new("/bin/sh");
    let run = Run::new("first");
    let (web, www) = (run.reach_as(&machine, "web").await, run.reach_as(&machine, "www").await);
    assert_eq!(touch(&web, &machine.path("file")).await, DONE);
    let same = Ending::Locked(Locked::Moved { same_machine: Some("web".to_owned()) });
    assert_eq!(touch(&www, &machine.path("file")).await, same);
    assert_eq!(touch(&www, &machine.path("file")).await, DONE);
    // A run of the same name from somewhere else is another run.
    let other = Run::new("first").reach(&machine).await;
    assert_eq!(holder(touch(&other, &machine.path("file")).await).run, "first");
    www.release().await;
    web.release().await;
    assert_eq!(other.take_lock().await, DONE);
}

/// What stands in for sudo: it says that it was there, and does what it is asked.
const OBLIGING: &str = "#!/bin/sh\necho x >>\"${0%/*}/asked\"\nshift 5; exec \"$@\"\n";

#[tokio::test]
async fn the_lock_is_that_of_who_is_logged_in_whoever_a_command_runs_as() {
    for shell in SHELLS {
        let machine = Machine::new(shell);
        machine.program("sudo", OBLIGING);
        let asked = || std::fs::read_to_string(machine.path("bin/asked")).unwrap_or_default().lines().count();
        let (first, second) = (Run::new("first").reach(&machine).await, Run::new("second").reach(&machine).await);
        let (action, heard) = (run("echo done"), Arc::new(Heard::default()));
        let context = Context { privilege: Privilege::sudo("root"), ..Context::default() };
        let privileged = |host: &Arc<dyn Connection>| {
            let (host, action, context, heard) = (host.clone(), action.clone(), context.clone(), heard.clone());
            async move { host.perform(Perform { action: &action, context: &context, timeout: None, as_of: Some(0) }, heard.sink()).await }
        };
        assert_eq!((privileged(&first).await, privileged(&first).await), (DONE, DONE), "{shell}");
        assert_eq!((heard.stdout().as_str(), asked()), ("done\ndone\n", 2), "{shell}");
        assert_eq!(holder(privileged(&second).await).run, "first", "{shell}");
        assert_eq!(asked(), 2, "{shell}: nobody becomes anybody for a host that is not to be had");
        first.release().await;
        assert_eq!(touch(&second, &machine.path("file")).await, DONE, "{shell}");
    }
}

/// Steps that go out together, and where the first that was not done stood, with its ending.
async fn line_up(host: &Arc<dyn Connection>, context: &Context, scripts: &[&str], behind: &str) -> (usize, Ending, Option<String>) {
    let actions: Vec<Action> = scripts.iter().map(|script| run(script)).collect();
    let as_of = Some(host.moves());
    let steps = actions.iter().map(|action| Perform { action, context, timeout: None, as_of }).collect();
    let behind = vec![Question { context: context.clone(), ..question(behind) }];
    let mut lined_up = host.line_up(Lineup { steps, behind }).expect("it can");
    let (mut done, mut ending) = (0, DONE);
    while done < actions.len() && ending == DONE {
        ending = lined_up.next(Arc::new(Heard::default()).sink()).await;
        done += usize::from(ending == DONE);
    }
    let answer = lined_up.answers().await.remove(0);
    (done, ending, answer.map(|answer| String::from_utf8(answer.stdout).unwrap()))
}

#[tokio::test]
async fn each_of_the_steps_that_go_out_together_asks_for_the_lock() {
    for shell in SHELLS {
        // The tools of busybox read ahead, so that no shell of its serves two commands: then each step goes out by itself.
        let together = shell != "/bin/busybox";
        for privilege in [Privilege::default(), Privilege::sudo("root")] {
            let machine = Machine::new(shell);
            machine.program("sudo", OBLIGING);
            let context = Context { privilege, ..Context::default() };
            let (first, second) = (Run::new("first").reach(&machine).await, Run::new("second").reach(&machine).await);
            fact(&first).await;
            fact(&second).await;
            let (log, locks) = (machine.path("log"), machine.locks());
            let say = format!("echo x >>'{}'", log.display());
            let count = format!("cat '{}' | tr -d '\\n'", log.display());
            let asked = |host: &Arc<dyn Connection>| host.traffic().round_trips;

            // The first of them takes it, in the same round trip.
            let before = asked(&first);
            assert_eq!(line_up(&first, &context, &[&say, &say], &count).await, (2, DONE, together.then(|| "xx".to_owned())), "{shell}");
            assert!(!together || asked(&first) == before + 1, "{shell}: {} round trips", asked(&first) - before);
            assert_eq!(machine.files(), ["lock.1"], "{shell}");

            // Who does not get it does none of them.
            let (done, ending, _) = line_up(&second, &context, &[&say, &say], &count).await;
            assert_eq!((done, holder(ending).run.as_str()), (0, "first"), "{shell}");

            // Between two of them it goes to somebody else, who broke it by hand.
            let breaks = format!("rm -rf '{}'", locks.display());
            let gone = Ending::Locked(Locked::TakenOver { holder: None });
            let (done, ending, _) = line_up(&first, &context, &[&breaks, &say, &say], &count).await;
            assert_eq!((done, ending), (1, gone), "{shell}");
            assert_eq!(std::fs::read_to_string(&log).unwrap(), "x\nx\n", "{shell}");
        }
    }
}

/// What stands in for a sudo that wants a password, which nobody gives.
const ASKING: &str = "#!/bin/sh\necho 'sudo: a password is required' >&2; exit 1\n";

#[tokio::test]
async fn steps_whose_user_cannot_be_had_are_refused_one_by_one() {
    for shell in SHELLS {
        for claimed in [true, false] {
            let machine = Machine::new(shell);
            machine.program("sudo", ASKING);
            let context = Context { privilege: Privilege::sudo("root"), ..Context::default() };
            let host = Run::new("first").reach(&machine).await;
            if !claimed {
                host.claim(None);
            }
            fact(&host).await;
            let (done, ending, answer) = line_up(&host, &context, &["echo no", "echo no"], "echo fact").await;
            assert!(matches!(&ending, Ending::Refused(why) if why.contains("password")), "{shell}: {ending:?}");
            assert_eq!((done, answer), (0, None), "{shell}");
            assert_eq!(touch(&host, &machine.path("file")).await, DONE, "{shell}: it serves on");
        }
    }
}

#[tokio::test]
async fn a_step_that_changes_the_user_costs_one_round_trip_and_no_shell() {
    for shell in SHELLS {
        let machine = Machine::new(shell);
        machine.program("sudo", OBLIGING);
        let first = Run::new("first");
        let host = first.reach(&machine).await;
        let context = Context { privilege: Privilege::sudo("root"), ..Context::default() };
        let does = |host: &Arc<dyn Connection>, action: Action| {
            let (host, context, heard) = (host.clone(), context.clone(), Arc::new(Heard::default()));
            async move {
                let step = Perform { action: &action, context: &context, timeout: None, as_of: Some(0) };
                (host.perform(step, heard.sink()).await, heard)
            }
        };
        // Facts of the same user alone look at the lock as well, before the user is changed.
        let fact = Question { context: context.clone(), ..question("echo fact") };
        assert_eq!(host.gather(vec![fact]).await.unwrap()[0], Ok(Output::of("fact\n")), "{shell}");
        // The tools of busybox read ahead, so that no shell of its serves two commands.
        let at_most = if shell == "/bin/busybox" { usize::MAX } else { 0 };
        let before = host.traffic().round_trips;
        machine.shells();
        for _ in 0..2 {
            let (ending, heard) = does(&host, run("echo done; echo wrong >&2; exit 3")).await;
            assert_eq!((ending, heard.stdout().as_str()), (Ending::Exited(3), "done\n"), "{shell}");
        }
        let opened = if shell == "/bin/busybox" { 2 } else { 0 };
        assert_eq!(host.traffic().round_trips - before, 2 + opened, "{shell}");
        assert!(machine.shells() <= at_most, "{shell}");
        let uploaded = machine.path("uploaded");
        assert_eq!(does(&host, Action::Upload(upload(vec![b'x'; 300_000], &uploaded))).await.0, DONE, "{shell}");
        assert_eq!(std::fs::metadata(&uploaded).unwrap().len(), 300_000, "{shell}");
        assert_eq!(does(&host, script("exit 4", &[])).await.0, Ending::Exited(4), "{shell}");
        // Who may not become that user is told so, and the shell goes on.
        machine.program("sudo", "#!/bin/sh\necho 'bob is not in the sudoers file.' >&2\nexit 1\n");
        let host = first.reach(&machine).await;
        for _ in 0..2 {
            let (ending, _) = does(&host, run("echo no")).await;
            assert!(
                matches!(&ending, Ending::Refused(reason) if reason.contains("sudo does not let this user become root")),
                "{shell}: {ending:?}"
            );
        }
        assert_eq!(touch(&host, &machine.path("file")).await, DONE, "{shell}");
        assert!(machine.shells() <= at_most, "{shell}");
    }
}

#[tokio::test]
async fn facts_of_another_user_alone_tell_whether_the_host_has_moved() {
    let machine = Machine::new("/bin/sh");
    machine.program("sudo", OBLIGING);
    let (first, second) = (Run::new("first").reach(&machine).await, Run::new("second").reach(&machine).await);
    let context = Context { privilege: Privilege::sudo("root"), ..Context::default() };
    let fact = Question { context, ..question("echo fact") };
    assert_eq!(second.gather(vec![fact]).await.unwrap()[0], Ok(Output::of("fact\n")));
    assert_eq!(touch(&first, &machine.path("file")).await, DONE);
    first.release().await;
    assert_eq!(touch(&second, &machine.path("file")).await, MOVED);
}

#[tokio::test]
async fn two_connections_of_a_run_to_one_host_have_it_together() {
    let machine = Machine::new("/bin/sh");
    let run = Run::new("first");
    let (one, two) = (run.reach(&machine).await, run.reach(&machine).await);
    fact(&one).await;
    assert_eq!(one.take_lock().await, DONE);
    assert_eq!((touch(&two, &machine.path("file")).await, two.moves()), (DONE, 0));
    assert_eq!(touch(&one, &machine.path("file")).await, DONE);
}

#[tokio::test]
async fn a_place_that_is_not_safe_is_none() {
    // Busybox takes its own id and mkdir, whatever stands in the PATH.
    for shell in SHELLS.into_iter().filter(|shell| *shell != "/bin/busybox") {
        let machine = Machine::new(shell);
        // As if this user were another one, for whom no folder can be made; there is one that somebody else has put there.
        machine.program("id", "#!/bin/sh\necho 4242\n");
        machine.program("mkdir", "#!/bin/sh\nexit 1\n");
        std::fs::create_dir(machine.path("infra-lock-4242")).unwrap();
        std::fs::set_permissions(machine.path("infra-lock-4242"), std::fs::Permissions::from_mode(0o700)).unwrap();
        let host = Run::new("first").reach(&machine).await;
        fact(&host).await;
        let Ending::Locked(Locked::Unavailable { reason }) = touch(&host, &machine.path("file")).await else { panic!("{shell}") };
        assert_eq!(reason, "neither /run/lock nor a temporary folder has a place for it that is safe", "{shell}");
        assert!(!machine.path("file").exists());
        // Who goes on without one does.
        host.claim(None);
        assert_eq!(touch(&host, &machine.path("file")).await, DONE, "{shell}");
    }
}
