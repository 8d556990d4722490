//! `--out-dir`: what each host printed, in files of its own.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use infra_core::connection::Ending;
use infra_core::event::{Event, HostResult, Outcome, Reporter};
use infra_core::host::HostId;
use infra_core::output::Stream;

/// So many files are open at once, whatever the number of hosts.
const OPEN: usize = 64;
/// Names of hosts that are longer, in bytes, are cut.
const LONGEST: usize = 180;

/// Writes `HOST.out`, `HOST.err` and `HOST.exit` for each host into a folder.
pub struct OutFolder {
    folder: PathBuf,
    hosts: BTreeMap<HostId, Found>,
    /// The files that are open; the one that was written to last stands last.
    open: Vec<(HostId, Stream, BufWriter<File>)>,
    failed: Failed,
}

/// What was wrong first, where something was.
#[derive(Clone, Default)]
pub struct Failed(Arc<Mutex<Option<String>>>);

struct Found {
    file: String,
    /// How it ended, as far as that is known.
    exit: String,
}

impl Failed {
    /// The message.
    pub fn message(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl OutFolder {
    /// Makes the folder, where there is none.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(folder: PathBuf) -> io::Result<(Self, Failed)> {
        fs::create_dir_all(&folder)?;
        let failed = Failed::default();
        Ok((Self { folder, hosts: BTreeMap::new(), open: Vec::new(), failed: failed.clone() }, failed))
    }

    fn path(&self, host: HostId, extension: &str) -> PathBuf {
        let file = self.hosts.get(&host).map_or("unknown", |found| found.file.as_str());
        self.folder.join(format!("{file}.{extension}"))
    }

    /// Does it unless something was wrong before: half a result must not look like a whole one.
    fn attempt(&mut self, act: impl FnOnce(&mut Self) -> io::Result<()>) {
        if self.failed.message().is_some() {
            return;
        }
        if let Err(error) = act(self) {
            let message = format!("the outputs cannot be written to {}: {error}", self.folder.display());
            *self.failed.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
        }
    }

    /// Files of an earlier run are not to be taken for those of this one.
    fn begin(&mut self, hosts: &[(HostId, String)]) -> io::Result<()> {
        for (host, name) in hosts {
            self.hosts.insert(*host, Found { file: file_name(name), exit: "not reached".to_owned() });
            for extension in ["out", "err", "exit"] {
                match fs::remove_file(self.path(*host, extension)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, host: HostId, stream: Stream, bytes: &[u8], newline: bool) -> io::Result<()> {
        let known = self.open.iter().position(|(of, which, _)| (*of, *which) == (host, stream));
        let mut entry = match known {
            Some(at) => self.open.remove(at),
            None => {
                if self.open.len() == OPEN {
                    self.open.remove(0).2.flush()?;
                }
                (host, stream, BufWriter::new(append(&self.path(host, extension(stream)))?))
            }
        };
        entry.2.write_all(bytes)?;
        if newline {
            entry.2.write_all(b"\n")?;
        }
        self.open.push(entry);
        Ok(())
    }

    fn end(&mut self, host: HostId) -> io::Result<()> {
        let (done, open) = std::mem::take(&mut self.open).into_iter().partition(|(of, ..)| *of == host);
        self.open = open;
        let done: Vec<(HostId, Stream, BufWriter<File>)> = done;
        done.into_iter().try_for_each(|(.., mut file)| file.flush())
    }

    fn exits(&mut self) -> io::Result<()> {
        for (host, found) in &self.hosts {
            fs::write(self.path(*host, "exit"), format!("{}\n", found.exit))?;
        }
        Ok(())
    }

    fn ended(&mut self, host: HostId, how: &str) {
        if let Some(found) = self.hosts.get_mut(&host) {
            found.exit = how.to_owned();
        }
    }
}

impl Reporter for OutFolder {
    fn event(&mut self, event: &Event) {
        match event {
            Event::RunStarted { hosts, .. } => self.attempt(|folder| folder.begin(hosts)),
            Event::HostUnreachable { host, .. } => self.ended(*host, "unreachable"),
            Event::HostFailed { host, .. } => self.ended(*host, "failed"),
            // A host that prints nothing has empty files.
            Event::HostOperationStarted { host, .. } => self.attempt(|folder| {
                folder.write(*host, Stream::Stdout, b"", false)?;
                folder.write(*host, Stream::Stderr, b"", false)
            }),
            Event::Output { host, stream, line, newline, .. } => self.attempt(|folder| folder.write(*host, *stream, line, *newline)),
            Event::HostOperationEnded { host, result, .. } => {
                self.ended(*host, &how(result));
                self.attempt(|folder| folder.end(*host));
            }
            Event::RunEnded => self.attempt(Self::exits),
            _ => {}
        }
    }
}

/// The exit status, or in words why there is none.
fn how(result: &HostResult) -> String {
    match &result.outcome {
        Outcome::Failed { failure, .. } | Outcome::Indeterminate { failure } => match failure.ending {
            Some(Ending::Exited(status)) => status.to_string(),
            _ => failure.message.replace('\n', " "),
        },
        _ => result.exit_code.unwrap_or_default().to_string(),
    }
}

fn extension(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "out",
        Stream::Stderr => "err",
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// The name of a host as that of a file: never hidden, never in another folder, and no two of them alike.
fn file_name(host: &str) -> String {
    let mut name = String::new();
    for (at, c) in host.char_indices() {
        let hides = at == 0 && c == '.';
        if !hides && (c.is_alphanumeric() || "._-@:+[],".contains(c)) {
            name.push(c);
        } else {
            let mut bytes = [0; 4];
            c.encode_utf8(&mut bytes).bytes().for_each(|byte| name.push_str(&format!("%{byte:02X}")));
        }
    }
    if name.len() <= LONGEST {
        return name;
    }
    let cut = (0..=LONGEST - 17).rev().find(|at| name.is_char_boundary(*at)).unwrap_or_default();
    format!("{}-{}", &name[..cut], &infra_core::digest::sha256(host.as_bytes())[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_are_safe_and_differ() {
        for (host, file) in [
            ("web-01.example.com", "web-01.example.com"),
            ("@docker/web", "@docker%2Fweb"),
            ("admin@[::1]:22", "admin@[::1]:22"),
            ("..", "%2E."),
            ("../etc", "%2E.%2Fetc"),
            ("a%2Fb", "a%252Fb"),
            ("a\nb", "a%0Ab"),
        ] {
            assert_eq!(file_name(host), file);
        }
        let long = |end: &str| file_name(&format!("@chroot/{}{end}", "x".repeat(300)));
        assert!(long("a").len() <= LONGEST && long("a") != long("b"));
    }
}
