//! The binary at a terminal: a pty whose foreground group it is, as under a shell.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use infra_test::process;
use nix::pty::{Winsize, openpty};

/// How long anything may take here.
const DEADLINE: Duration = Duration::from_secs(60);

/// A terminal with a program on it.
pub struct Terminal {
    keyboard: File,
    child: Child,
    seen: Arc<Mutex<Seen>>,
    reading: Option<JoinHandle<()>>,
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
        let pty = openpty(Some(&size), None).expect("a pty");
        let end = || Stdio::from(pty.slave.try_clone().expect("a second handle"));
        command.stdin(elsewhere.stdin.unwrap_or_else(end));
        command.stdout(elsewhere.stdout.unwrap_or_else(end));
        command.stderr(elsewhere.stderr.unwrap_or_else(end));
        let terminal = pty.slave.as_raw_fd();
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
        drop(pty.slave);
        let keyboard = File::from(pty.master);
        let mut output = keyboard.try_clone().expect("a second handle");
        let seen = Arc::new(Mutex::new(Seen { raw: Vec::new(), screen: vt100::Parser::new(200, 120, 0) }));
        let shown = seen.clone();
        let reading = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end of a pty is an error (EIO).
            while let Ok(read @ 1..) = output.read(&mut buffer) {
                let mut seen = shown.lock().expect("nobody panics with this lock");
                seen.raw.extend_from_slice(&buffer[..read]);
                seen.screen.process(&buffer[..read]);
            }
        });
        Self { keyboard, child, seen, reading: Some(reading) }
    }

    /// The program's process id.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal takes keys");
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
        self.reading.take().expect("it is taken once").join().expect("the reader does not panic");
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
