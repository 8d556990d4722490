//! The binary at a terminal: a pty whose foreground group it is, as under a shell.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use infra_test::process;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How long anything may take here.
const DEADLINE: Duration = Duration::from_secs(60);

/// A terminal with a program on it.
pub struct Terminal {
    /// None once the terminal was closed.
    keyboard: Option<File>,
    child: Child,
    seen: Arc<Mutex<Seen>>,
    reading: Option<JoinHandle<()>>,
    closed: Arc<AtomicBool>,
}

struct Seen {
    raw: Vec<u8>,
    screen: vt100::Parser,
}

/// Which of a program's streams go elsewhere than to the terminal.
#[derive(Default)]
pub struct Elsewhere {
    pub stdin: Option<Stdio>,
    pub stdout: Option<Stdio>,
    pub stderr: Option<Stdio>,
}

/// How a program ended: its exit code, the lines it left on the screen, and all it wrote there.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub screen: String,
    pub raw: String,
}

impl Terminal {
    /// Starts the program in a session of its own, with a new terminal as its controlling one.
    pub fn start(mut command: Command, elsewhere: Elsewhere) -> Self {
        let size = Winsize { ws_row: 200, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 };
        // Closed in children from the beginning: one that another test starts at this moment would hold the terminal open.
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let master = posix_openpt(flags).expect("a pty");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("a pty of ours");
        let name = ptsname_r(&master).expect("a pty has a name");
        let slave = OpenOptions::new().read(true).write(true).custom_flags(flags.bits()).open(name).expect("the terminal");
        // SAFETY: the terminal is open, and the size is one.
        let sized = unsafe { nix::libc::ioctl(slave.as_raw_fd(), nix::libc::TIOCSWINSZ, &raw const size) };
        nix::errno::Errno::result(sized).expect("a terminal takes a size");
        let end = || Stdio::from(slave.try_clone().expect("a second handle"));
        command.stdin(elsewhere.stdin.unwrap_or_else(end));
        command.stdout(elsewhere.stdout.unwrap_or_else(end));
        command.stderr(elsewhere.stderr.unwrap_or_else(end));
        let terminal = slave.as_raw_fd();
        // SAFETY: only setsid(2) and ioctl(2) are called between fork and exec.
        unsafe {
            command.pre_exec(move || {
                nix::unistd::setsid()?;
                nix::errno::Errno::result(nix::libc::ioctl(terminal, nix::libc::TIOCSCTTY, 0))?;
                Ok(())
            });
        }
        let child = command.spawn().expect("the program starts");
        // The command holds the streams of the child; with the last of them the terminal ends.
        drop(command);
        drop(slave);
        let keyboard = File::from(OwnedFd::from(master));
        let mut output = keyboard.try_clone().expect("a second handle");
        let seen = Arc::new(Mutex::new(Seen { raw: Vec::new(), screen: vt100::Parser::new(200, 120, 0) }));
        let (shown, closed) = (seen.clone(), Arc::new(AtomicBool::new(false)));
        let until = closed.clone();
        let reading = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let mut waiting = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
                let ready = poll(&mut waiting, PollTimeout::from(20u8));
                if until.load(Ordering::SeqCst) {
                    break;
                }
                if ready == Ok(0) || ready == Err(nix::errno::Errno::EINTR) {
                    continue;
                }
                // The end of a pty is an error (EIO).
                let Ok(read @ 1..) = output.read(&mut buffer) else { break };
                let mut seen = shown.lock().expect("nobody panics with this lock");
                seen.raw.extend_from_slice(&buffer[..read]);
                seen.screen.process(&buffer[..read]);
            }
        });
        Self { keyboard: Some(keyboard), child, seen, reading: Some(reading), closed }
    }

    /// The program's process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.keyboard.as_mut().expect("the terminal is open").write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// Sends a signal to all of its foreground group: the program leads the session, and so that group. One that has ended is no error.
    pub fn signal_group(&self, signal: Signal) {
        let _ = killpg(Pid::from_raw(self.pid()), signal);
    }

    /// Closes the terminal, as when its window is closed: the kernel sends SIGHUP, and what is written there is an error from now on.
    pub fn close(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        if let Some(reading) = self.reading.take() {
            reading.join().expect("the reader does not panic");
        }
        self.keyboard = None;
    }

    /// Whether the program still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Presses Ctrl-C, which the terminal sends as SIGINT to its whole foreground group.
    pub fn press_control_c(&mut self) {
        self.press("\x03");
    }

    /// What stands on the screen.
    pub fn screen(&self) -> String {
        self.seen.lock().expect("nobody panics with this lock").screen.screen().contents()
    }

    /// Waits until this text stands on the screen.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let found = process::wait_for(DEADLINE, || self.screen().contains(text).then_some(()));
        assert!(found.is_some(), "«{text}» never stood on the screen:\n{}", self.screen());
    }

    /// Waits for the end of the program.
    #[track_caller]
    pub fn end(mut self) -> Ended {
        let status = process::wait_for(DEADLINE, || self.child.try_wait().expect("a child of ours"));
        let Some(status) = status else { panic!("it did not end; its screen:\n{}", self.screen()) };
        if let Some(reading) = self.reading.take() {
            reading.join().expect("the reader does not panic");
        }
        let screen = self.screen();
        let raw = String::from_utf8_lossy(&self.seen.lock().expect("nobody panics with this lock").raw).into_owned();
        Ended { code: status.code(), signal: status.signal(), screen, raw }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
