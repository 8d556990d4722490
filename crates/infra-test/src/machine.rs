//! One real machine of a [`crate::Fleet`]: looked at and switched from outside.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::control_group;
use crate::error::BenchError;
use crate::guardian::{Duty, Ending, Guardian};
use crate::network::Place;
use crate::process::{Outcome, Process, last_lines_of, program, reap, run, wait_for};
use crate::snapshot::Snapshot;
use crate::sshd::says_ssh;

/// How long a machine may take to boot. It takes about half a second on an idle controller.
const BOOT_DEADLINE: Duration = Duration::from_secs(120);
/// How long it may take to power off before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// How long a command of [`Machine::run`] may take.
const COMMAND_DEADLINE: Duration = Duration::from_secs(120);

/// One booted machine. It has the users `root`, `admin` (may do all by sudo, without a password) and `plain` (may not),
/// who all take the fleet's key.
pub struct Machine {
    pub(crate) name: String,
    pub(crate) identity: String,
    /// Unique on the controller.
    pub(crate) label: String,
    pub(crate) place: Place,
    pub(crate) root: PathBuf,
    pub(crate) upper: PathBuf,
    pub(crate) console: PathBuf,
    pub(crate) host_key: String,
    /// systemd-nspawn; `None` while the machine is off.
    pub(crate) running: Mutex<Option<Child>>,
    pub(crate) guardian: Arc<Guardian>,
}

/// When a unit was started. Two equal ones mean that it was neither started, stopped, restarted nor reloaded in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitStart {
    /// `active`, `inactive`, `failed`, …
    pub state: String,
    /// Microseconds of the machine's uptime when it last became active; 0 when it never did.
    pub active_since: u64,
    /// Microseconds of the machine's uptime when its state last changed, which a reload does too.
    pub changed: u64,
    /// How often systemd restarted it because it had failed.
    pub restarts: u64,
    /// Its main process; 0 for none.
    pub main_process: u32,
    /// systemd's own name for this one start; empty when it was never started.
    pub invocation: String,
}

impl Machine {
    /// Its host name, and its name in `ssh_config`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its IPv4 address on the bridge; sshd listens on port 22.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.place.address
    }

    /// Its host key as it stands in `known_hosts`: type and key.
    #[must_use]
    pub fn host_key(&self) -> &str {
        &self.host_key
    }

    /// Its root as the controller sees it, for reading. Whatever is written here while the machine runs, it may not see.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Runs a command on it as root and waits for its end: two minutes at most. This goes into its namespaces, past the
    /// network, sshd and whatever is tested: an independent look. Nothing is written by it, no log-in is recorded.
    ///
    /// # Errors
    /// When the machine is off or the command does not end in time. An exit code other than 0 is not an error.
    pub fn run<S: AsRef<std::ffi::OsStr>>(&self, command: impl IntoIterator<Item = S>) -> Result<Outcome, BenchError> {
        let leader = self.leader()?;
        run(
            Command::new(program("nsenter")?)
                .args(["-t", &leader.to_string(), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"])
                .args(command)
                .env_clear()
                .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
                .env("HOME", "/root")
                .env("LC_ALL", "C.UTF-8"),
            COMMAND_DEADLINE,
        )
    }

    /// Like [`Machine::run`], but anything else than exit code 0 is an error with what the command said. Gives its stdout,
    /// without the white space at its end.
    ///
    /// # Errors
    /// As [`Machine::run`], and where the command fails.
    pub fn check<S: AsRef<std::ffi::OsStr>>(&self, command: impl IntoIterator<Item = S>) -> Result<String, BenchError> {
        let words: Vec<std::ffi::OsString> = command.into_iter().map(|word| word.as_ref().to_owned()).collect();
        let outcome = self.run(&words)?;
        if outcome.success() {
            return Ok(outcome.stdout.trim_end().to_owned());
        }
        let command: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        Err(BenchError::Program {
            command: format!("`{}` on {}", command.join(" "), self.name),
            status: outcome.code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}")),
            output: format!("{}{}", outcome.stdout, outcome.stderr),
        })
    }

    /// All that was ever written on it, except in [`crate::snapshot::VOLATILE`] places. Also of a machine that is off.
    ///
    /// # Errors
    /// When its overlay cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot, BenchError> {
        Snapshot::of(&self.upper)
    }

    /// When a unit was started last.
    ///
    /// # Errors
    /// When the machine is off. A unit that does not exist is `inactive`.
    pub fn unit_started(&self, unit: &str) -> Result<UnitStart, BenchError> {
        let shown = self.check([
            "systemctl",
            "show",
            "--property=ActiveState,ActiveEnterTimestampMonotonic,StateChangeTimestampMonotonic,NRestarts,MainPID,InvocationID",
            unit,
        ])?;
        let of = |property: &str| shown.lines().find_map(|line| line.strip_prefix(property)?.strip_prefix('=')).unwrap_or_default();
        Ok(UnitStart {
            state: of("ActiveState").to_owned(),
            active_since: of("ActiveEnterTimestampMonotonic").parse().unwrap_or(0),
            changed: of("StateChangeTimestampMonotonic").parse().unwrap_or(0),
            restarts: of("NRestarts").parse().unwrap_or(0),
            main_process: of("MainPID").parse().unwrap_or(0),
            invocation: of("InvocationID").to_owned(),
        })
    }

    /// Waits until it has gone off by itself, as after `systemctl poweroff`; whether it did before the deadline. A reboot is
    /// a power-off here: [`Machine::start`] is the other half of it.
    #[must_use]
    pub fn is_off_within(&self, deadline: Duration) -> bool {
        wait_for(deadline, || self.supervisor().is_err().then_some(())).is_some()
    }

    /// Powers it off in good order and unplugs it: then nothing answers at its address. Its overlay stays.
    ///
    /// # Errors
    /// When it is off already, or cannot even be killed.
    pub fn stop(&self) -> Result<(), BenchError> {
        self.end(true)
    }

    /// Cuts its power and unplugs it: no process on it gets a chance to do anything.
    ///
    /// # Errors
    /// When it is off already, or does not end.
    pub fn cut_power(&self) -> Result<(), BenchError> {
        self.end(false)
    }

    /// Switches a stopped machine on again, with what was written on it, and waits until it answers.
    ///
    /// # Errors
    /// When it is on, and as [`crate::Fleet::boot`].
    pub fn start(&self) -> Result<(), BenchError> {
        if self.supervisor().is_ok() {
            return Err(BenchError::Argument(format!("the machine {} is on already", self.name)));
        }
        self.place.plug(true)?;
        self.switch_on(&program("systemd-nspawn")?)
    }

    /// Plugs its network cable in or out. Without it the machine runs on, and nothing comes through, in either direction.
    ///
    /// # Errors
    /// When its network namespace is gone.
    pub fn plug(&self, into: bool) -> Result<(), BenchError> {
        self.place.plug(into)
    }

    /// All its processes as the controller numbers them, systemd-nspawn first. None when it is off.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        let Ok(supervisor) = self.supervisor() else {
            return Vec::new();
        };
        let mut processes: Vec<Process> = Process::of(supervisor).into_iter().collect();
        processes.extend(crate::process::descendants(supervisor));
        processes
    }

    /// Ends the machine: in good order, or by killing its first process, with which the kernel kills all others. (Killing
    /// systemd-nspawn alone would leave the machine running.)
    fn end(&self, in_good_order: bool) -> Result<(), BenchError> {
        let processes = self.processes();
        let leader = self.leader().ok().and_then(Process::of);
        let mut running = self.running.lock().expect("no holder panics");
        let mut child = running.take().ok_or_else(|| BenchError::NotRunning(self.name.clone()))?;
        // It cannot have given its id away: it is our child, and we have not waited for it.
        let supervisor = nix::unistd::Pid::from_raw(child.id().cast_signed());
        if in_good_order {
            let _ = nix::sys::signal::kill(supervisor, Signal::SIGTERM);
            let _ = reap(&mut child, STOP_DEADLINE);
        }
        if let Some(leader) = leader {
            leader.signal(Signal::SIGKILL);
        }
        if child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = nix::sys::signal::kill(supervisor, Signal::SIGKILL);
        }
        let ended = reap(&mut child, STOP_DEADLINE).is_some()
            && wait_for(STOP_DEADLINE, || processes.iter().all(|process| !process.is_running()).then_some(())).is_some();
        if !ended {
            return Err(BenchError::Deadline {
                what: format!("the end of the machine {}", self.name),
                after: STOP_DEADLINE,
                detail: last_lines_of(&self.console, 20),
            });
        }
        self.place.plug(false)?;
        // Else the controller goes on for some seconds sending to where the machine was.
        self.place.forget()
    }

    pub(crate) fn switch_on(&self, nspawn: &Path) -> Result<(), BenchError> {
        let mut command = Command::new(nspawn);
        command
            .args(["--quiet", "--boot", "--register=no", "--keep-unit"])
            // Nothing of the controller's is written into the machine, and no journal of it on the controller.
            .args(["--resolv-conf=off", "--timezone=off", "--link-journal=no", "--settings=no"])
            .arg(format!("--directory={}", self.root.display()))
            .arg(format!("--machine={}", self.label))
            .arg(format!("--hostname={}", self.name))
            .arg(format!("--network-namespace-path={}", self.place.namespace_file().display()));
        // Named by the label alone; nspawn leaves it where the machine did not end in good order.
        self.guardian.take_on(Duty::Folder(&Path::new("/run/systemd/nspawn/propagate").join(&self.label)))?;
        let groups = control_group::create(&self.guardian, &self.label)?;
        let child = self.guardian.spawn(Ending::Orderly, &command, &groups, &self.console)?;
        *self.running.lock().expect("no holder panics") = Some(child);
        self.wait_until_it_is_up()
    }

    fn wait_until_it_is_up(&self) -> Result<(), BenchError> {
        let address: Ipv4Addr = self.place.address.parse().expect("the bench made it from numbers");
        let mut seen = String::new();
        let up = wait_for(BOOT_DEADLINE, || {
            if self.supervisor().is_err() {
                return Some(false);
            }
            match self.run(["systemctl", "is-system-running"]) {
                Ok(outcome) => seen = format!("{}{}", outcome.stdout, outcome.stderr),
                Err(error) => seen = error.to_string(),
            }
            let booted = ["running", "degraded"].contains(&seen.trim());
            (booted && says_ssh(SocketAddrV4::new(address, 22))).then_some(true)
        });
        match up {
            Some(true) => Ok(()),
            Some(false) => Err(BenchError::Ended { what: format!("the machine {}", self.name), detail: last_lines_of(&self.console, 20) }),
            None => Err(BenchError::Deadline {
                what: format!("booting of the machine {}", self.name),
                after: BOOT_DEADLINE,
                detail: format!("systemd says {}; the console: {}", seen.trim(), last_lines_of(&self.console, 20)),
            }),
        }
    }

    /// The id of systemd-nspawn, while it runs.
    pub(crate) fn supervisor(&self) -> Result<i32, BenchError> {
        let mut running = self.running.lock().expect("no holder panics");
        match running.as_mut().map(|child| (child.id(), child.try_wait())) {
            Some((id, Ok(None))) => Ok(id.cast_signed()),
            _ => Err(BenchError::NotRunning(self.name.clone())),
        }
    }

    /// The machine's first process, as the controller numbers it. While it boots (or reboots) there may be none yet.
    fn leader(&self) -> Result<i32, BenchError> {
        let supervisor = self.supervisor()?;
        let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap_or_default();
        children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok())
            // On its way to becoming the machine's first process it is, for a moment, still one of the controller's.
            .find(|pid: &i32| {
                fs::read_to_string(format!("/proc/{pid}/root/etc/machine-id")).is_ok_and(|identity| identity.trim() == self.identity)
            })
            .ok_or_else(|| BenchError::NotRunning(format!("{} (it has not come so far yet)", self.name)))
    }
}
