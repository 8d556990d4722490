//! Two hundred deploys, each of which is hit at a random moment: whatever comes, nothing of infra is left afterwards, neither here nor on the hosts.
//!
//! Each worker has an sshd of its own and plays its rounds one after the other. What is left is found by the worker's folder: it stands in the
//! arguments or the environment of infra, of its ssh masters, of what it runs here and of all that runs in the sessions of that sshd.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use infra_test::leftovers::Leftover;
use infra_test::{Sshd, SshdOptions};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::common;
use crate::terminal::{Elsewhere, Ended, Terminal};

/// How often.
const ROUNDS: usize = 200;

/// How many rounds are played at a time, each by a worker with an sshd of its own.
const WORKERS: usize = 6;

/// What a round that has been hit may take to end. The longest command in flight takes a tenth of a second.
const PATIENCE: Duration = Duration::from_secs(30);

/// The program that is sent to the hosts. It leaves a child behind that ends with it.
const SCRIPT: &str = "#!/bin/sh\nsleep 0.06 &\nwait\necho \"$1\"\n";

/// Uploads, commands, scripts, and all of them at once beside something that would run for long.
const DEPLOY: &str = r#"
local here = host.data.here .. "/" .. host.name
local much = string.rep("0123456789abcdef", 16384)
server.shell  { name = "Make the folder", commands = { sh("mkdir -p {}", here) } }
files.put     { name = "Upload", content = much .. "1", dest = here .. "/much" }
server.shell  { name = "Commands", commands = { "sleep 0.04", "sleep 0.06 & sleep 0.02; wait" } }
server.script { name = "Script", src = "step.sh", args = { here } }
parallel(function()
  server.shell  { name = "A server", commands = { sh("until [ -e {} ]; do sleep 0.05; done", host.data.here .. "/stop") }, _background = true }
  server.shell  { name = "A command", commands = { "sleep 0.1" } }
  server.script { name = "A script", src = "step.sh", args = { here } }
  files.put     { name = "An upload", content = much .. "2", dest = here .. "/more" }
end)
server.shell  { name = "Done", commands = { sh("touch {}", here .. "/done") } }
"#;

/// The hosts: two over ssh, and this one.
const HOSTS: [&str; 3] = ["one", "two", "@local"];

/// What comes over a run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Blow {
    ControlC(usize),
    Terminate,
    HangUp,
    Kill,
    /// Who reads standard output, and what is said of the run, goes away.
    ClosedPipe,
    /// The window of the terminal is closed.
    ClosedTerminal,
}

const BLOWS: [Blow; 8] = [
    Blow::ControlC(1),
    Blow::ControlC(2),
    Blow::ControlC(3),
    Blow::Terminate,
    Blow::HangUp,
    Blow::Kill,
    Blow::ClosedPipe,
    Blow::ClosedTerminal,
];

/// Numbers that look random and follow from the seed (SplitMix64, <https://prng.di.unimi.it/splitmix64.c>).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A moment from now on to `most`.
    fn moment(&mut self, most: Duration) -> Duration {
        most.mul_f64((self.next() % 10_000) as f64 / 10_000.0)
    }
}

/// One who plays rounds.
struct Worker {
    sshd: Sshd,
}

/// A run at a terminal of its own.
struct Round {
    terminal: Terminal,
    /// The other end of the pipe that standard output, and where it goes there too standard error, is.
    reader: Option<std::io::PipeReader>,
    folder: PathBuf,
}

impl Worker {
    fn new() -> Self {
        let options = SshdOptions::default().aliases(["one", "two"]).own_temporary_folder();
        let sshd = Sshd::start(options).unwrap_or_else(|error| panic!("{error}"));
        fs::write(sshd.folder().join("deploy.lua"), DEPLOY).expect("a deploy");
        fs::write(sshd.folder().join("step.sh"), SCRIPT).expect("a script");
        Self { sshd }
    }

    fn start(&self, number: usize, blow: Option<Blow>) -> Round {
        let folder = self.sshd.folder().join(format!("round-{number}"));
        fs::create_dir(&folder).expect("a folder");
        let mut command: Command = common::infra(self.sshd.folder());
        command.env("XDG_RUNTIME_DIR", self.sshd.folder().join("r")).env("XDG_STATE_HOME", folder.join("state"));
        command.env("TMPDIR", self.sshd.folder().join("tmp"));
        command.arg(HOSTS.join(",")).args(["deploy.lua", "--yes", "--lock-lease", "2", "--lock-wait", "60", "-vvv", "--json"]);
        command.arg("--data").arg(format!("here={}", folder.display()));
        command.arg("--data").arg(format!("ssh_config_file={}", self.sshd.ssh_config().display()));
        let mut elsewhere = Elsewhere::default();
        let mut reader = None;
        if blow == Some(Blow::ClosedPipe) {
            let (read, write) = std::io::pipe().expect("a pipe");
            // Every other time the report goes that way too: `infra … 2>&1 | head`.
            if number.is_multiple_of(2) {
                elsewhere.stderr = Some(Stdio::from(write.try_clone().expect("a second handle")));
            }
            elsewhere.stdout = Some(Stdio::from(write));
            reader = Some(read);
        }
        Round { terminal: Terminal::start(command, elsewhere), reader, folder }
    }

    /// Files that infra made for the time being, wherever the worker's hosts have them.
    fn temporary_files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.sshd.folder().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(".infra-") {
                    found.push(entry.path());
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                }
            }
        }
        found
    }

    /// The folders of sockets that stand.
    fn socket_folders(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.sshd.folder().join("r/infra")).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    }

    /// What is left at the end of a round, after a short while in which the hosts see that nobody is there any more.
    fn left(&self, blow: Option<Blow>, folder: &Path, before: &[PathBuf]) -> Vec<String> {
        let look = || {
            // Who was killed could not remove its sockets; the next run that comes so far does.
            let stood = |path: &Path| before.iter().any(|folder| path.starts_with(folder));
            let may_stand = |leftover: &Leftover| matches!(leftover, Leftover::Socket(path) if blow == Some(Blow::Kill) || stood(path));
            let mut left: Vec<String> =
                self.sshd.leftovers().iter().filter(|leftover| !may_stand(leftover)).map(ToString::to_string).collect();
            left.extend(self.temporary_files().iter().map(|path| format!("temporary file {}", path.display())));
            if blow != Some(Blow::Kill) {
                let inside =
                    |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect::<Vec<_>>();
                let new = self.socket_folders().into_iter().filter(|path| !stood(path));
                left.extend(new.map(|path| format!("folder {} with {:?}", path.display(), inside(&path))));
            }
            left
        };
        // What is in flight when infra is killed, or is told to leave at once, may still run and ends by itself: so does a server that is told to.
        if matches!(blow, Some(Blow::Kill | Blow::ControlC(3))) {
            fs::write(folder.join("stop"), "").expect("a file");
        }
        let gone = infra_test::process::wait_for(Duration::from_secs(10), || look().is_empty().then_some(()));
        if gone.is_some() { Vec::new() } else { look() }
    }
}

impl Round {
    /// Hits it, and waits for its end.
    fn hit(mut self, blow: Blow, dice: &mut Dice) -> Result<Ended, String> {
        match blow {
            Blow::ControlC(times) => {
                for time in 0..times {
                    if time > 0 {
                        std::thread::sleep(dice.moment(Duration::from_millis(120)));
                    }
                    if self.terminal.is_running() {
                        self.terminal.press_control_c();
                    }
                }
            }
            Blow::Terminate => self.terminal.signal_group(Signal::SIGTERM),
            Blow::HangUp => self.terminal.signal_group(Signal::SIGHUP),
            Blow::Kill => self.terminal.signal_group(Signal::SIGKILL),
            Blow::ClosedPipe => self.reader = None,
            Blow::ClosedTerminal => self.terminal.close(),
        }
        let hit = Instant::now();
        if infra_test::process::wait_for(PATIENCE, || (!self.terminal.is_running()).then_some(())).is_none() {
            return Err(format!("it did not end; its screen:\n{}", self.terminal.screen()));
        }
        let took = hit.elapsed();
        let ended = self.terminal.end();
        if took > PATIENCE / 3 { Err(format!("it took {took:?} to end; its screen:\n{}", ended.screen)) } else { Ok(ended) }
    }
}

/// The lines of the journal, where the run came so far.
fn journal(state: &Path) -> Option<Vec<Value>> {
    let file = fs::read_dir(state.join("infra/runs")).ok()?.flatten().next()?;
    let mut text = String::new();
    fs::File::open(file.path()).and_then(|mut file| file.read_to_string(&mut text)).expect("a journal is UTF-8");
    Some(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// What is wrong with how a round ended.
fn judge(blow: Option<Blow>, folder: &Path, ended: &Ended) -> Result<(), String> {
    let journal = journal(&folder.join("state"));
    let dies_of = match blow {
        Some(Blow::ControlC(_)) => Some(Signal::SIGINT),
        Some(Blow::Terminate) => Some(Signal::SIGTERM),
        Some(Blow::HangUp | Blow::ClosedTerminal) => Some(Signal::SIGHUP),
        Some(Blow::Kill) | Some(Blow::ClosedPipe) | None => None,
    };
    let all_done = || HOSTS.iter().all(|host| folder.join(host).join("done").exists());
    match (blow, ended.code, ended.signal) {
        // It came too late.
        (_, Some(0), None) if all_done() => {}
        // The same, but the document could not be written any more.
        (Some(Blow::ClosedTerminal), Some(1), None) if all_done() => return Ok(()),
        (Some(Blow::Kill), None, Some(9)) => return Ok(()),
        (Some(Blow::ControlC(_) | Blow::Terminate | Blow::HangUp | Blow::ClosedTerminal), Some(130), None) => {}
        // It had not come to where it could take notice.
        (_, None, Some(signal)) if dies_of.is_some_and(|known| known as i32 == signal) && journal.is_none() => return Ok(()),
        _ => return Err(format!("it ended with {:?} ({:?})", ended.code, ended.signal)),
    }
    let Some(journal) = journal else { return Ok(()) };
    let last = journal.last().cloned().unwrap_or_default();
    let leaves_at_once = blow == Some(Blow::ControlC(3));
    if last["event"] != "run-ended" && !leaves_at_once {
        return Err(format!("its journal ends with {last}"));
    }
    let counted = last["hosts"].as_array().map_or(0, Vec::len);
    if last["event"] == "run-ended" && (counted != HOSTS.len() || last["exit_code"].as_i64() != ended.code.map(i64::from)) {
        return Err(format!("its journal ends with {last}, and the exit code was {:?}", ended.code));
    }
    Ok(())
}

/// The rows of Ctrl-C, SIGTERM, SIGHUP, SIGKILL, a closed pipe and a closed terminal: at every moment of a run, exit code 130 (or as the run ended where the
/// blow came too late, or does not count), a whole journal, and nothing left.
#[test]
fn two_hundred_rounds_leave_nothing_behind() {
    let given = std::env::var("INFRA_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock after 1970");
    let seed: u64 = given.unwrap_or(now.as_nanos() as u64);
    println!("INFRA_TEST_SEED={seed}");
    let next = Arc::new(AtomicUsize::new(0));
    // Rounds in peace have their folders beyond the others.
    let beyond = Arc::new(AtomicUsize::new(ROUNDS));
    let wrong: Arc<Mutex<Vec<String>>> = Arc::default();
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (next, beyond, wrong) = (next.clone(), beyond.clone(), wrong.clone());
            std::thread::spawn(move || {
                let worker = Worker::new();
                let play = |number: usize, blow: Option<Blow>, after: Duration, dice: &mut Dice| {
                    // One in peace removes what killed ones have left.
                    let before = if blow.is_some() { worker.socket_folders() } else { Vec::new() };
                    let round = worker.start(number, blow);
                    let folder = round.folder.clone();
                    std::thread::sleep(after);
                    let ended = match blow {
                        Some(blow) => round.hit(blow, dice)?,
                        None => round.terminal.end(),
                    };
                    let told = |wrong: String| format!("{wrong}; its screen:\n{}", ended.screen);
                    judge(blow, &folder, &ended).map_err(told)?;
                    let left = worker.left(blow, &folder, &before);
                    if left.is_empty() { Ok(()) } else { Err(told(format!("left: {left:#?}"))) }
                };
                // One in peace shows that all is well, and how long there is something to hit.
                let began = Instant::now();
                let mut dice = Dice(seed);
                if let Err(message) = play(beyond.fetch_add(1, Ordering::SeqCst), None, Duration::ZERO, &mut dice) {
                    wrong.lock().expect("nobody panics with it").push(format!("in peace: {message}"));
                    return;
                }
                let length = began.elapsed();
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= ROUNDS {
                        break;
                    }
                    let mut dice = Dice(seed.wrapping_add(number as u64));
                    let blow = BLOWS[number % BLOWS.len()];
                    let after = dice.moment(length);
                    if let Err(message) = play(number, Some(blow), after, &mut dice) {
                        wrong.lock().expect("nobody panics with it").push(format!("round {number}, {blow:?} after {after:?}: {message}"));
                        // What is left would be found by the rounds after it too.
                        return;
                    }
                }
                // What a killed one could not remove is removed by the next one.
                if let Err(message) = play(beyond.fetch_add(1, Ordering::SeqCst), None, Duration::ZERO, &mut dice) {
                    wrong.lock().expect("nobody panics with it").push(format!("in peace at the end: {message}"));
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().expect("what is wrong is told, not thrown");
    }
    let wrong = wrong.lock().expect("nobody panics with it");
    assert!(wrong.is_empty(), "INFRA_TEST_SEED={seed}\n{}", wrong.join("\n\n"));
}
