//! A host made of a real shell and a folder of its own: facts are answered by running their commands, changes are made for real.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use infra_core::change::{Action, Change, Content, Effect, Replaces, Upload};
use infra_core::command::{Line, Parts, Shell};
use infra_core::digest::sha256;
use infra_core::fact::{Fact, SharedFact, erase};
use infra_core::facts::{FactSource, LocalLookup, Lookup};
use infra_core::output::Output;
use infra_core::registry::Registry;
use infra_core::{Value, mode::Mode, sh};
use tempfile::TempDir;

/// The shells and tools that a host may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tools {
    /// dash with GNU coreutils and findutils.
    Dash,
    /// bash with the same.
    Bash,
    /// busybox for all: shell and tools.
    Busybox,
}

/// All of them.
pub const ALL: [Tools; 3] = [Tools::Dash, Tools::Bash, Tools::Busybox];

/// A shell, its tools, and a folder that is removed at the end.
pub struct Host {
    folder: TempDir,
    tools: Tools,
    path: String,
    umask: u32,
}

impl Host {
    pub fn new(tools: Tools, umask: u32) -> Self {
        let folder = TempDir::new().expect("a folder");
        let mut path = "/usr/sbin:/usr/bin:/sbin:/bin".to_owned();
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).expect("a folder for tools");
        std::fs::create_dir(folder.path().join("root")).expect("a folder for files");
        if tools == Tools::Busybox {
            let installed = Command::new("busybox").args(["--install", "-s"]).arg(&bin).status();
            assert!(installed.is_ok_and(|status| status.success()), "these tests need busybox: apt-get install busybox");
            path = bin.display().to_string();
        }
        Self { folder, tools, path, umask }
    }

    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// A path below the root, as an operation takes it.
    pub fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.root().display())
    }

    fn shell(&self) -> Command {
        let mut command = match self.tools {
            Tools::Dash => Command::new("/bin/dash"),
            Tools::Bash => Command::new("/bin/bash"),
            Tools::Busybox => Command::new(self.folder.path().join("bin/sh")),
        };
        command.env_clear().env("PATH", &self.path).env("HOME", "/").stdin(Stdio::null()).current_dir(self.root());
        command
    }

    pub fn run(&self, script: &Shell) -> Output {
        self.run_by(self.shell(), script)
    }

    /// As the user nobody when the tests are run by root, who may read everything.
    pub fn run_unprivileged(&self, script: &Shell) -> Output {
        use std::os::unix::process::CommandExt;
        let mut shell = self.shell();
        if is_root() {
            shell.uid(65534).gid(65534);
        }
        self.run_by(shell, script)
    }

    fn run_by(&self, mut shell: Command, script: &Shell) -> Output {
        let text = format!("umask {:03o}\n{script}", self.umask);
        let output = shell.arg("-c").arg(text).output().unwrap_or_else(|error| panic!("{:?}: {error}", self.tools));
        Output { status: output.status.code().unwrap_or(255), stdout: output.stdout, stderr: output.stderr }
    }

    pub fn ask<F: Fact>(&self, fact: &F) -> Result<F::Value, String> {
        self.ask_any(&erase(fact.clone())).map(|answer| serde_json::from_value(answer).expect("what was made of an answer"))
    }

    /// The answer, which is the same where the command is done in parts.
    fn ask_any(&self, fact: &SharedFact) -> Result<Value, String> {
        let read = |output: &Output| fact.parse(output).map_err(|error| error.to_string());
        // Others are at work beside this host's folder.
        let lasting = |answer: Result<Value, String>| {
            answer.map(|mut answer| {
                if let Value::Object(members) = &mut answer {
                    members.retain(|name, _| !fact.fleeting().contains(&name.as_str()));
                }
                answer
            })
        };
        let command = fact.command();
        let answer = read(&self.run(&command.script));
        if let Some(in_parts) = command.parts.as_ref().and_then(|parts| self.run_in_parts(parts)) {
            assert_eq!(lasting(read(&in_parts)), lasting(answer.clone()), "{:?}: {}", self.tools, command.script);
        }
        answer
    }

    /// What a command prints in parts, its programs asked about several things as they are when they are shared; none where they have no lines about them.
    fn run_in_parts(&self, parts: &Parts) -> Option<Output> {
        let about = |what: &Shell| self.run(&sh!("set -- {}\n{}", parts.about, what));
        if about(&parts.gone).status == 0 {
            let said = self.run(&sh!("{} /etc/passwd {}", parts.lines[0].program, parts.about)).stderr;
            let said = String::from_utf8_lossy(&said);
            let names = [format!("'{}': ", parts.about), format!(" {}: ", parts.about)];
            // Names that the tool writes in a way of its own are asked about alone.
            let reason = said.lines().find(|line| names.iter().any(|name| line.contains(name)))?;
            return Some(Output { status: 1, stdout: Vec::new(), stderr: reason.as_bytes().to_vec() });
        }
        if !parts.lines.iter().all(|line| about(&line.given).status == 0) {
            return None;
        }
        let mut stdout = Vec::new();
        for Line { program, separator, .. } in &parts.lines {
            let told = self.run(&sh!("{} /etc/passwd {}", program, parts.about)).stdout;
            let lines: Vec<&[u8]> = told.split(|byte| *byte == b'\n').collect();
            let end = format!("{separator}{}", parts.about);
            let [_, line, b""] = lines[..] else { panic!("{:?}: {program} {}: {told:?}", self.tools, parts.about) };
            stdout.extend_from_slice(line.strip_suffix(end.as_bytes()).expect("a line ends with what it is about"));
            stdout.push(b'\n');
        }
        let rest = about(&parts.rest);
        stdout.extend_from_slice(&rest.stdout);
        Some(Output { stdout, ..rest })
    }

    /// Does what a change says, as the wire would.
    pub fn apply(&self, change: &Change) {
        for action in &change.actions {
            match action {
                Action::Run(command) => {
                    let output = self.run(&command.script);
                    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
                    assert_eq!((output.status, stderr.as_str()), (0, ""), "{:?}: {}", self.tools, command.script);
                }
                Action::Upload(upload) => self.upload(upload),
                Action::Script(_) | Action::Download(_) | Action::UploadTree(_) | Action::DownloadTree(_) | Action::Controller(_) => {
                    panic!("these operations only run and upload")
                }
            }
        }
    }

    fn upload(&self, upload: &Upload) {
        let Content::Bytes(bytes) = &upload.content else { panic!("these tests have no local files") };
        let dest = std::fs::canonicalize(&upload.dest).unwrap_or_else(|_| PathBuf::from(&upload.dest));
        let old = std::fs::metadata(&dest).ok();
        if let Replaces::Digest(digest) = &upload.replaces {
            assert_eq!(&sha256(&std::fs::read(&dest).expect("the file that is replaced")), digest);
        }
        let beside = dest.with_file_name(".upload");
        std::fs::write(&beside, bytes.as_slice()).expect("the directory is there");
        if let Some(old) = &old {
            chown(&beside, Some(old.uid()), Some(old.gid())).expect("the owner of the old file");
        }
        let user = upload.user.as_deref().map(|name| id_of("/etc/passwd", name));
        let group = upload.group.as_deref().map(|name| id_of("/etc/group", name));
        chown(&beside, user, group).expect("the owner that was asked for");
        let mode = upload.mode.or(old.map(|old| old.mode() & 0o7777)).unwrap_or(0o666 & !self.umask);
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(mode)).expect("the mode");
        std::fs::rename(&beside, &dest).expect("renamed over the old file");
    }

    /// Holds what a change foretold against what is there now.
    pub fn check_effects(&self, registry: &Registry, change: &Change) {
        for effect in &change.effects {
            match effect {
                Effect::Answer { fact, question, answer, user: None } => {
                    let Value::Object(question) = question.clone() else { panic!("{question} is no map") };
                    let fact = registry.fact(fact).expect("a fact of the library").bind(question).expect("a question");
                    self.check_answer(&fact, answer);
                }
                Effect::Answer { user: Some(user), .. } => panic!("nothing is foretold to {user} alone"),
                Effect::Node { path, node } => {
                    for fact in facts_about(path) {
                        if let Some(foreseen) = fact.foresee(node) {
                            self.check_answer(&fact, &foreseen);
                        }
                    }
                }
            }
        }
    }

    fn check_answer(&self, fact: &SharedFact, foretold: &Value) {
        let found = self.ask_any(fact).unwrap_or_else(|error| panic!("{fact:?}: {error}"));
        assert!(agrees(foretold, &found), "{:?}: {fact:?}: foretold {foretold}, found {found}", self.tools);
    }
}

impl FactSource for Host {
    fn lookup(&self, fact: &SharedFact) -> Lookup {
        match self.ask_any(fact) {
            Ok(answer) => Lookup::Known(Arc::new(answer)),
            Err(message) => Lookup::Failed(message),
        }
    }

    fn local(&self, path: &str) -> LocalLookup {
        LocalLookup::Failed(format!("there is no local file {path}"))
    }
}

/// What is foretold of a table may be less than what is found; the rest has to be the same.
fn agrees(foretold: &Value, found: &Value) -> bool {
    match (foretold, found) {
        (Value::Object(foretold), Value::Object(found)) => foretold.iter().all(|(name, value)| found.get(name) == Some(value)),
        _ => foretold == found,
    }
}

fn facts_about(path: &str) -> Vec<SharedFact> {
    use infra_std::facts::files;
    let path = path.to_owned();
    vec![
        erase(files::file::File { path: path.clone() }),
        erase(files::directory::Directory { path: path.clone() }),
        erase(files::link::Link { path: path.clone() }),
        erase(files::sha256::Sha256 { path: path.clone() }),
        erase(files::text::Text { path: path.clone() }),
        erase(files::find_in_file::FindInFile { path: path.clone(), pattern: "a".into() }),
        erase(files::hard_link::HardLink { path: path.clone(), target: "/nowhere".into() }),
        erase(files::tree_drift::TreeDrift { path, user: None, group: None, mode: Some(Mode::Bits(0o755)) }),
    ]
}

pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// The number of a name in passwd(5) or group(5); a number is its own.
fn id_of(file: &str, name: &str) -> u32 {
    let text = std::fs::read_to_string(file).expect("a list of names");
    let line = text.lines().find(|line| line.split(':').next() == Some(name));
    let number = line.and_then(|line| line.split(':').nth(2)).unwrap_or(name);
    number.parse().unwrap_or_else(|_| panic!("{file} has no {name}"))
}

/// All that is below a folder, to see that nothing changed: path, type and mode, owner, size, and times of files.
pub fn listing(folder: &Path) -> Vec<String> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            let found = std::fs::symlink_metadata(&entry).expect("it is there");
            let times = (found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec());
            all.push(format!("{entry:?} {:o} {}:{} {} {times:?}", found.mode(), found.uid(), found.gid(), found.ino()));
            if found.is_dir() {
                folders.push(entry);
            }
        }
    }
    all.sort();
    all
}
