//! Real Debian machines: systemd, apt, cron, sudo and sshd, booted in about a second.
//!
//! A machine is an overlay on the cached root that `tests/setup` builds, in a network namespace of its own, booted by
//! systemd-nspawn(1). All machines of a [`Fleet`] sit on one bridge that leads nowhere; the controller is on it too. Their
//! only source of packages is a repository in their own root. Everything goes with the fleet, also when the test process is
//! killed (see [`crate::guardian`]).

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::error::{BenchError, require_root};
use crate::guardian::{Duty, Guardian};
use crate::leftovers::{self, Leftover};
use crate::machine::Machine;
use crate::network::{Bridge, MOST_MACHINES, Place};
use crate::process::{Process, program, reap, run_well};
use crate::ssh_files::{SshFiles, Target, generate_key, usable_folder, usable_names, without_comment};

/// The people on a machine who take the fleet's key.
const LOGINS: [&str; 3] = ["root", "admin", "plain"];

/// Some machines on a bridge of their own. Dropping it stops them and removes all there was.
pub struct Fleet {
    machines: Vec<Machine>,
    folder: PathBuf,
    files: SshFiles,
    guardian: Arc<Guardian>,
}

impl Fleet {
    /// Boots a machine for each name, all at once, and waits until on each systemd has finished booting and sshd answers.
    ///
    /// # Errors
    /// When this is not root, when the machine root or a program is missing (the hint says how to get it), when a name is
    /// not usable, and when a machine does not come up: then with the end of its console.
    pub fn boot(names: &[&str]) -> Result<Self, BenchError> {
        require_root("booting machines")?;
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        usable_names(&names)?;
        if names.len() > MOST_MACHINES {
            return Err(BenchError::Argument(format!("a fleet has at most {MOST_MACHINES} machines, not {}", names.len())));
        }
        let root = machine_root()?;
        let nspawn = program("systemd-nspawn")?;

        let guardian = Arc::new(Guardian::start()?);
        let folder = fleet_folder(&root, &guardian)?;
        let files = SshFiles::create(&folder)?;
        let bridge = Bridge::create(&guardian)?;
        let mut places = Vec::new();
        for number in 0..names.len() {
            places.push(bridge.add_place(&guardian, number)?);
        }
        let mut hosts = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned();
        for (name, place) in names.iter().zip(&places) {
            hosts.push_str(&format!("{} {name}\n", place.address));
        }

        let mut fleet = Self { machines: Vec::new(), folder, files, guardian };
        for (name, place) in names.into_iter().zip(places) {
            let machine = fleet.set_up(&root, name, &bridge.name, place, &hosts)?;
            fleet.machines.push(machine);
        }
        let targets: Vec<Target<'_>> = fleet
            .machines
            .iter()
            .map(|machine| Target {
                name: &machine.name,
                address: machine.place.address.clone(),
                port: 22,
                user: "root",
                host_key: Some(machine.host_key.clone()),
            })
            .collect();
        fleet.files.write_targets(&targets)?;
        std::thread::scope(|scope| {
            let boots: Vec<_> = fleet.machines.iter().map(|machine| scope.spawn(|| machine.switch_on(&nspawn))).collect();
            boots.into_iter().try_for_each(|boot| boot.join().expect("booting does not panic"))
        })?;
        Ok(fleet)
    }

    /// Makes a machine's root, not yet booted.
    fn set_up(&self, lower: &Path, name: String, bridge: &str, place: Place, hosts: &str) -> Result<Machine, BenchError> {
        let folder = self.folder.join(&name);
        let [upper, work, root] = ["upper", "work", "root"].map(|part| folder.join(part));
        for made in [&folder, &upper, &work, &root] {
            fs::create_dir(made).map_err(BenchError::file("create", made))?;
        }
        // The overlay's root takes its mode from here.
        fs::set_permissions(&upper, fs::Permissions::from_mode(0o755)).map_err(BenchError::file("open", &upper))?;
        self.guardian.take_on(Duty::Mount(&root))?;
        let layers = format!("lowerdir={},upperdir={},workdir={},metacopy=off", lower.display(), upper.display(), work.display());
        run_well(Command::new("mount").args(["-t", "overlay", "-o", &layers, "overlay"]).arg(&root), Duration::from_secs(20))?;

        let identity = format!("{:032x}", rand::random::<u128>());
        write(&root.join("etc/machine-id"), &format!("{identity}\n"), 0o444)?;
        write(&root.join("etc/hostname"), &format!("{name}\n"), 0o644)?;
        write(&root.join("etc/hosts"), hosts, 0o644)?;
        let host_key = generate_key(&root.join("etc/ssh/ssh_host_ed25519_key"), &format!("root@{name}"))?;
        for login in LOGINS {
            let (home, uid, gid) = home_of(&root, login)?;
            let keys = home.join(".ssh");
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&keys).map_err(BenchError::file("create", &keys))?;
            let authorized = keys.join("authorized_keys");
            write(&authorized, &format!("{}\n", self.files.public_key), 0o600)?;
            for owned in [&keys, &authorized] {
                chown(owned, Some(uid), Some(gid)).map_err(BenchError::file("own", owned))?;
            }
        }
        Ok(Machine {
            label: format!("{bridge}-{name}"),
            name,
            identity,
            place,
            root,
            upper,
            console: folder.join("console"),
            host_key: without_comment(&host_key),
            running: Mutex::new(None),
            guardian: Arc::clone(&self.guardian),
        })
    }

    /// The machines, in the order of the names given.
    #[must_use]
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// The machine of this name.
    ///
    /// # Panics
    /// When there is none: the test has misspelt it.
    #[must_use]
    pub fn machine(&self, name: &str) -> &Machine {
        self.machines.iter().find(|machine| machine.name == name).unwrap_or_else(|| panic!("the fleet has no machine '{name}'"))
    }

    /// For `ssh -F`: a stanza per machine under its name, with `root` as the user.
    #[must_use]
    pub fn ssh_config(&self) -> &Path {
        &self.files.config
    }

    /// The `known_hosts` that `ssh_config` names, with the machines' real host keys.
    #[must_use]
    pub fn known_hosts(&self) -> &Path {
        &self.files.known_hosts
    }

    /// The private key that `root`, `admin` and `plain` take on every machine.
    #[must_use]
    pub fn user_key(&self) -> &Path {
        &self.files.user_key
    }

    /// The folder with all the fleet's files; it goes with the fleet. There is room in it for a test's own files too.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What a test has left behind on the controller: processes that speak of this fleet's folder (an ssh that was given its
    /// `ssh_config`) and sockets in its folder. The machines themselves are not counted.
    #[must_use]
    pub fn leftovers(&self) -> Vec<Leftover> {
        let expected: Vec<Process> = self.machines.iter().filter_map(|machine| Process::of(machine.supervisor().ok()?)).collect();
        leftovers::of(&self.folder, &expected)
            .into_iter()
            // What runs on a machine has its sockets there.
            .filter(|left| {
                !matches!(left, Leftover::Socket(path) if self.machines.iter().any(|machine| {
                    path.starts_with(&machine.root) || path.starts_with(&machine.upper)
                }))
            })
            .collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let left = self.guardian.tidy();
        let mut ended = true;
        for machine in &self.machines {
            if let Ok(mut running) = machine.running.lock()
                && let Some(mut child) = running.take()
            {
                ended &= reap(&mut child, Duration::from_secs(5)).is_some();
            }
        }
        if !std::thread::panicking() {
            assert!(left.is_empty() && ended, "the bench could not tidy up its machines: {left}");
        }
    }
}

/// The script that gets a machine ready for the tests, and knows where it puts things.
pub(crate) fn setup() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/setup")
}

/// Where the machine root is, as the recipe in `tests/setup` names it.
pub(crate) fn machine_root() -> Result<PathBuf, BenchError> {
    let path = run_well(Command::new(setup()).arg("--where"), Duration::from_secs(20))?;
    let path = PathBuf::from(path.trim_end());
    usable_folder(&path)?;
    if path.is_dir() { Ok(path) } else { Err(BenchError::NoMachineRoot { path }) }
}

/// A folder that only root can look into, beside the machine root: an overlay cannot lie on every kind of file system, and
/// where the root could be built it most likely can.
pub(crate) fn fleet_folder(root: &Path, guardian: &Guardian) -> Result<PathBuf, BenchError> {
    let parent = root.with_file_name("fleets");
    fs::create_dir_all(&parent).map_err(BenchError::file("create", &parent))?;
    let folder = parent.join(format!("{:08x}", rand::random::<u32>()));
    guardian.take_on(Duty::Folder(&folder))?;
    fs::DirBuilder::new().mode(0o700).create(&folder).map_err(BenchError::file("create", &folder))?;
    Ok(folder)
}

fn write(file: &Path, text: &str, mode: u32) -> Result<(), BenchError> {
    fs::write(file, text)
        .and_then(|()| fs::set_permissions(file, fs::Permissions::from_mode(mode)))
        .map_err(BenchError::file("write", file))
}

/// A user's home as the controller sees it, and the user's ids, from the machine's passwd(5).
fn home_of(root: &Path, login: &str) -> Result<(PathBuf, u32, u32), BenchError> {
    let file = root.join("etc/passwd");
    let text = fs::read_to_string(&file).map_err(BenchError::file("read", &file))?;
    text.lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&login))
        .and_then(|fields| {
            let home = root.join(fields.get(5)?.trim_start_matches('/'));
            Some((home, fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
        })
        .ok_or_else(|| BenchError::Argument(format!("{} has no user '{login}'", file.display())))
}
