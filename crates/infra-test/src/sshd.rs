//! Real sshd processes of the test's own, on loopback addresses.
//!
//! Each has its own host key, its own user key, its own `known_hosts` and its own `ssh_config`, and runs as whoever runs the
//! test: log-ins are to that same user. Nothing of the user's own ssh configuration has a part in it, and sessions have an
//! empty home (`$HOME`; they still begin in the user's real one, as sshd has it), so no start-up file of the user's shell is
//! read. When the value is
//! dropped, or the test process killed, the sshd, its sessions and everything that was started in them end.

use std::fs;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::black_hole::random_listener;
use crate::error::BenchError;
use crate::guardian::{Duty, Ending, Guardian};
use crate::leftovers::{self, Leftover};
use crate::process::{self, LOOK_AGAIN, Process, last_lines_of, program, reap, wait_for};
use crate::ssh_files::{SshFiles, Target, generate_key, usable_folder, usable_names, without_comment};

/// How long a new sshd may take to answer.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// An sshd listens on 16 addresses at most (`MAX_LISTEN_SOCKS` in its source); further aliases share these.
const MOST_ADDRESSES: usize = 16;

/// In the environment of everything that runs in a session; its value is the folder of the bench.
const MARK: &str = "INFRA_TEST_SSHD";

/// What `known_hosts` says about the sshd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HostKey {
    /// Its key: ssh connects.
    #[default]
    Known,
    /// Nothing: with strict checking ssh refuses.
    Unknown,
    /// Another key, as if the host had been set up again or somebody stood in between: ssh refuses loudly.
    Changed,
}

/// How an sshd is to be.
#[derive(Debug, Clone)]
pub struct SshdOptions {
    aliases: Vec<String>,
    host_key: HostKey,
    configuration: Vec<String>,
    own_temporary_folder: bool,
}

impl Default for SshdOptions {
    /// One alias, `sshd-01`, a known host key, and sshd's own defaults.
    fn default() -> Self {
        Self { aliases: vec!["sshd-01".to_owned()], host_key: HostKey::default(), configuration: Vec::new(), own_temporary_folder: false }
    }
}

impl SshdOptions {
    /// The names under which `ssh_config` knows it. The first 16 have an address each, all on one port; further ones share
    /// these addresses in turn.
    #[must_use]
    pub fn aliases<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.aliases = names.into_iter().map(Into::into).collect();
        self
    }

    /// What `known_hosts` says.
    #[must_use]
    pub fn host_key(mut self, host_key: HostKey) -> Self {
        self.host_key = host_key;
        self
    }

    /// Sessions get the folder `tmp` of the bench as their `TMPDIR`, so that a test sees the temporary files that are theirs alone. Without this they have
    /// that of the test, where it has one.
    #[must_use]
    pub fn own_temporary_folder(mut self) -> Self {
        self.own_temporary_folder = true;
        self
    }

    /// A line of sshd_config(5), such as `MaxSessions 2`. It stands before the bench's own lines, and sshd takes the first
    /// of each keyword; so a `SetEnv` here takes away the sessions' empty home, and the mark by which left processes are found.
    #[must_use]
    pub fn configuration(mut self, line: impl Into<String>) -> Self {
        self.configuration.push(line.into());
        self
    }
}

/// A running sshd. Dropping it ends it and all that runs in its sessions, and removes its folder.
pub struct Sshd {
    folder: PathBuf,
    files: SshFiles,
    user: String,
    aliases: Vec<(String, SocketAddrV4)>,
    log: PathBuf,
    child: Child,
    guardian: Guardian,
}

impl Sshd {
    /// Starts one and waits until it answers on all its addresses.
    ///
    /// # Errors
    /// When sshd is not installed, refuses its configuration (the message has its own words), or finds no free address.
    pub fn start(options: SshdOptions) -> Result<Self, BenchError> {
        usable_names(&options.aliases)?;
        let sshd = program("sshd")?;
        program("ssh")?;
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid())
            .ok()
            .flatten()
            .ok_or_else(|| BenchError::Argument("the user of this process has no name in the user database".to_owned()))?
            .name;
        if nix::unistd::geteuid().is_root() {
            // Where Debian's sshd locks its unprivileged half in; its service would make it.
            fs::create_dir_all("/run/sshd").map_err(BenchError::file("create", "/run/sshd"))?;
        }

        let guardian = Guardian::start()?;
        let folder = private_folder(&guardian)?;
        let mark = folder.display().to_string();
        guardian.take_on(Duty::Marked(&format!("{MARK}={mark}")))?;

        let files = SshFiles::create(&folder)?;
        let host_key_file = folder.join("host_key");
        let host_key = without_comment(&generate_key(&host_key_file, "infra-test host")?);
        let known_key = match options.host_key {
            HostKey::Known => Some(host_key),
            HostKey::Unknown => None,
            HostKey::Changed => Some(without_comment(&generate_key(&folder.join("former_host_key"), "infra-test host")?)),
        };
        let home = folder.join("home");
        fs::create_dir(&home).map_err(BenchError::file("create", &home))?;
        let temporary = folder.join("tmp");
        if options.own_temporary_folder {
            fs::create_dir(&temporary).map_err(BenchError::file("create", &temporary))?;
        }
        let temporary = if options.own_temporary_folder { Some(temporary) } else { std::env::var_os("TMPDIR").map(PathBuf::from) };
        let temporary = temporary.map_or_else(String::new, |folder| format!(" TMPDIR={}", folder.display()));
        let authorized_keys = folder.join("authorized_keys");
        fs::write(&authorized_keys, format!("{}\n", files.public_key)).map_err(BenchError::file("write", &authorized_keys))?;

        // Between finding a free port and sshd's taking it, somebody else may: then another one is tried.
        let tries = 5;
        let mut last = String::new();
        for attempt in 0..tries {
            let addresses = free_addresses(options.aliases.len().clamp(1, MOST_ADDRESSES))?;
            let configuration = folder.join("sshd_config");
            let mut lines = options.configuration.clone();
            lines.extend(addresses.iter().map(|address| format!("ListenAddress {address}")));
            lines.extend(
                [
                    &format!("HostKey {}", host_key_file.display()),
                    &format!("AuthorizedKeysFile {}", authorized_keys.display()),
                    // A shell of the user's would read the user's own start-up files, and they may do anything.
                    &format!("SetEnv {MARK}={mark} HOME={}{temporary}", home.display()),
                    "PidFile none",
                    "StrictModes no",
                    "UsePAM no",
                    "UseDNS no",
                    "PermitRootLogin yes",
                    "PasswordAuthentication no",
                    "KbdInteractiveAuthentication no",
                    "PrintMotd no",
                    "PrintLastLog no",
                    "Subsystem sftp internal-sftp",
                    "LogLevel VERBOSE",
                ]
                .map(ToString::to_string),
            );
            // Each address is a machine of its own as far as its lock is concerned; so these lines stand last, where a `Match` has an end.
            for (position, address) in addresses.iter().enumerate() {
                let machine = folder.join(format!("machine-{position}"));
                fs::create_dir_all(&machine).map_err(BenchError::file("create", &machine))?;
                lines.push(format!("Match LocalAddress {}", address.ip()));
                lines.push(format!("SetEnv {MARK}={mark} HOME={}{temporary} INFRA_LOCK_FOLDER={}", home.display(), machine.display()));
            }
            fs::write(&configuration, lines.join("\n") + "\n").map_err(BenchError::file("write", &configuration))?;
            let log = folder.join(format!("sshd-{attempt}.log"));
            let mut command = Command::new(&sshd);
            command.args(["-D", "-e", "-f"]).arg(&configuration);
            let mut child = guardian.spawn(Ending::Tree, &command, &[], &log)?;
            match wait_until_it_answers(&mut child, &addresses, &log) {
                Ok(()) => {
                    let aliases = options
                        .aliases
                        .iter()
                        .enumerate()
                        .map(|(position, name)| (name.clone(), addresses[position % addresses.len()]))
                        .collect();
                    let started = Self { folder, files, user, aliases, log, child, guardian };
                    started.write_files(known_key.as_deref())?;
                    return Ok(started);
                }
                Err(BenchError::Ended { detail, .. }) if detail.contains("Address already in use") => last = detail,
                Err(error) => {
                    let _ = guardian.tidy();
                    let _ = child.wait();
                    return Err(error);
                }
            }
        }
        Err(BenchError::NothingFree { what: "address and port", tries, last })
    }

    fn write_files(&self, host_key: Option<&str>) -> Result<(), BenchError> {
        let targets: Vec<Target<'_>> = self
            .aliases
            .iter()
            .map(|(name, address)| Target {
                name,
                address: address.ip().to_string(),
                port: address.port(),
                user: &self.user,
                host_key: host_key.map(str::to_owned),
            })
            .collect();
        self.files.write_targets(&targets)
    }

    /// Has `ssh_config` know it under these names and addresses instead, which lead to it by some other way: a relay's.
    ///
    /// # Errors
    /// When a name cannot be one, or the files cannot be written.
    pub fn known_as(&mut self, names: Vec<(String, SocketAddrV4)>) -> Result<(), BenchError> {
        usable_names(&names.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>())?;
        self.aliases = names;
        let public = self.folder.join("host_key.pub");
        let key = fs::read_to_string(&public).map_err(BenchError::file("read", &public))?;
        self.write_files(Some(&without_comment(key.trim())))
    }

    /// The folder with all its files; it goes with the value. There is room in it for a test's own files too.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// For `ssh -F`: a stanza per alias.
    #[must_use]
    pub fn ssh_config(&self) -> &Path {
        &self.files.config
    }

    /// The `known_hosts` that `ssh_config` names.
    #[must_use]
    pub fn known_hosts(&self) -> &Path {
        &self.files.known_hosts
    }

    /// The private key that logs in.
    #[must_use]
    pub fn user_key(&self) -> &Path {
        &self.files.user_key
    }

    /// Who logs in: the user of the test process.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The names it is known by, each with its address, in the order given.
    #[must_use]
    pub fn aliases(&self) -> &[(String, SocketAddrV4)] {
        &self.aliases
    }

    /// The listening sshd itself.
    #[must_use]
    pub fn process_id(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// The sshd processes of its connections, one each (two where sshd separates privileges for a user who is not root:
    /// then the second is a child of the one listed here).
    #[must_use]
    pub fn connection_processes(&self) -> Vec<Process> {
        let listener = self.process_id();
        process::all().into_iter().filter(|process| process.parent == listener).collect()
    }

    /// Everything that runs under it: connections, and what was started in their sessions, also what has cut itself loose.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        let listener = self.process_id();
        let mut found = process::descendants(listener);
        let mark = format!("{MARK}={}", self.folder.display());
        for process in process::all() {
            let marked = process.pid != listener && process.mentions(mark.as_ref());
            if marked && !found.iter().any(|known| known.pid == process.pid) {
                found.push(process);
            }
        }
        found
    }

    /// How many connections to it stand at this moment (proc_net_tcp(5), state `ESTABLISHED`).
    #[must_use]
    pub fn connections(&self) -> usize {
        let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        let ours: Vec<String> = self
            .aliases
            .iter()
            .map(|(_, address)| {
                // The address as the machine's own integer, the port as a number.
                let ip = u32::from_ne_bytes(address.ip().octets());
                format!("{ip:08X}:{:04X}", address.port())
            })
            .collect();
        table
            .lines()
            .skip(1)
            .filter(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                fields.get(3) == Some(&"01") && fields.get(1).is_some_and(|local| ours.iter().any(|one| one == local))
            })
            .count()
    }

    /// What sshd has written so far, with `LogLevel VERBOSE`.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How many log-ins it has let in so far. Connections that were only opened (the bench's own look for an answer is
    /// one) do not count.
    #[must_use]
    pub fn logins(&self) -> usize {
        self.log().lines().filter(|line| line.starts_with("Accepted publickey for ")).count()
    }

    /// How many sessions were started so far: shells, commands, subsystems.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.log().lines().filter(|line| line.starts_with("Starting session: ")).count()
    }

    /// Cuts all connections by killing their sshd processes. What runs in the sessions is not killed: whether it lives on
    /// is what a lost connection leaves open.
    pub fn cut_connections(&self) {
        for process in self.connection_processes() {
            for separated in process::descendants(process.pid) {
                if separated.command.starts_with("sshd: ") {
                    separated.signal(Signal::SIGKILL);
                }
            }
            process.signal(Signal::SIGKILL);
        }
    }

    /// What a test has left behind: processes that speak of this sshd's folder (an ssh that was given its `ssh_config`, and
    /// what runs in sessions) and sockets in that folder. The sshd itself is not counted.
    #[must_use]
    pub fn leftovers(&self) -> Vec<Leftover> {
        let expected: Vec<Process> = Process::of(self.process_id()).into_iter().collect();
        leftovers::of(&self.folder, &expected)
    }

    /// Waits until nothing is left behind. Gives what still is at the deadline.
    #[must_use]
    pub fn leftovers_after(&self, deadline: Duration) -> Vec<Leftover> {
        wait_for(deadline, || self.leftovers().is_empty().then_some(())).map_or_else(|| self.leftovers(), |()| Vec::new())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let left = self.guardian.tidy();
        let ended = reap(&mut self.child, Duration::from_secs(5));
        if !std::thread::panicking() {
            assert!(left.is_empty() && ended.is_some(), "the bench could not tidy up its sshd: {left}");
        }
    }
}

/// A random address of 127.0.0.0/8, not 127.0.0.1.
pub(crate) fn random_loopback() -> Ipv4Addr {
    Ipv4Addr::new(127, rand::random_range(1..=254), rand::random(), rand::random_range(1..=200))
}

/// `count` addresses one after the other with one port that is free on all of them.
fn free_addresses(count: usize) -> Result<Vec<SocketAddrV4>, BenchError> {
    let tries = 20;
    let mut last = String::new();
    'another: for _ in 0..tries {
        let (_first, address) = random_listener()?;
        let mut addresses = vec![address];
        let mut held = Vec::new();
        for step in 1..count {
            let step = u32::try_from(step).expect("there are at most 16");
            let next = SocketAddrV4::new(Ipv4Addr::from(u32::from(*address.ip()) + step), address.port());
            match std::net::TcpListener::bind(next) {
                Ok(listener) => held.push(listener),
                Err(error) => {
                    last = format!("{next}: {error}");
                    continue 'another;
                }
            }
            addresses.push(next);
        }
        return Ok(addresses);
    }
    Err(BenchError::NothingFree { what: "port", tries, last })
}

/// A folder that only we can look into. Sockets may be made in it, so its path is short.
fn private_folder(guardian: &Guardian) -> Result<PathBuf, BenchError> {
    let parent = std::env::temp_dir();
    usable_folder(&parent)?;
    let folder = parent.join(format!("infra-sshd-{:08x}", rand::random::<u32>()));
    guardian.take_on(Duty::Folder(&folder))?;
    std::os::unix::fs::DirBuilderExt::mode(&mut fs::DirBuilder::new(), 0o700)
        .create(&folder)
        .map_err(BenchError::file("create", &folder))?;
    Ok(folder)
}

fn wait_until_it_answers(child: &mut Child, addresses: &[SocketAddrV4], log: &Path) -> Result<(), BenchError> {
    let end = std::time::Instant::now() + START_DEADLINE;
    for address in addresses {
        loop {
            if says_ssh(*address) {
                break;
            }
            if let Ok(Some(status)) = child.try_wait() {
                return Err(BenchError::Ended { what: "sshd".to_owned(), detail: format!("{status}: {}", last_lines_of(log, 20)) });
            }
            if std::time::Instant::now() > end {
                return Err(BenchError::Deadline {
                    what: format!("an answer of sshd on {address}"),
                    after: START_DEADLINE,
                    detail: last_lines_of(log, 20),
                });
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }
    Ok(())
}

/// Whether an ssh server greets at this address (RFC 4253, section 4.2).
pub(crate) fn says_ssh(address: SocketAddrV4) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&address.into(), Duration::from_secs(2)) else {
        return false;
    };
    let mut greeting = [0; 4];
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    stream.read_exact(&mut greeting).is_ok() && &greeting == b"SSH-"
}
