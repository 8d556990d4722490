//! What follows the scripts on the input of a command, and how it is sent in bounded memory.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use infra_core::change::Content;
use infra_core::digest::Sha256Builder;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

/// How much is written at once; each of these counts as progress.
const CHUNK: usize = 32 * 1024;

/// Bytes for a command's input.
pub(crate) enum Payload {
    /// The command reads them as they come, so it begins with its script.
    Stream(Arc<Vec<u8>>),
    /// The command checks them by digest before it does anything, so it does not begin before the last of them.
    Checked(Content),
}

impl Payload {
    /// Nothing at all.
    pub(crate) fn none() -> Self {
        Self::Stream(Arc::default())
    }

    /// Whether the command reads its input to the end.
    pub(crate) fn reads_to_the_end(&self) -> bool {
        matches!(self, Self::Stream(bytes) if !bytes.is_empty())
    }
}

/// A script for the host and what it reads. The last line of the script is the one that lets it begin.
pub(crate) struct Part {
    pub(crate) script: String,
    pub(crate) payload: Payload,
}

/// How far the sending is.
pub(crate) struct Progress {
    begun: AtomicUsize,
    moved: Mutex<Instant>,
    fault: Mutex<Option<String>>,
}

impl Progress {
    /// Nothing was sent yet.
    pub(crate) fn new() -> Self {
        Self { begun: AtomicUsize::new(0), moved: Mutex::new(Instant::now()), fault: Mutex::new(None) }
    }

    /// Whether the host may have all it needs to change something by this part.
    pub(crate) fn begun(&self, part: usize) -> bool {
        self.begun.load(Ordering::Acquire) > part
    }

    /// When bytes last went out.
    pub(crate) fn moved(&self) -> Instant {
        *self.moved.lock().expect("nothing panics while it holds this lock")
    }

    /// What was wrong on this side, as a sentence fragment.
    pub(crate) fn fault(&self) -> Option<String> {
        self.fault.lock().expect("nothing panics while it holds this lock").clone()
    }

    fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Release);
    }

    fn fail(&self, fault: String) {
        *self.fault.lock().expect("nothing panics while it holds this lock") = Some(fault);
    }

    /// Something moved.
    pub(crate) fn advance(&self) {
        *self.moved.lock().expect("nothing panics while it holds this lock") = Instant::now();
    }
}

struct Writer {
    stdin: Input,
    progress: Arc<Progress>,
}

impl Writer {
    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        for chunk in bytes.chunks(CHUNK) {
            self.stdin.write_all(chunk).await?;
            self.progress.advance();
        }
        Ok(())
    }

    async fn send(&mut self, Part { script, payload }: Part) -> std::io::Result<()> {
        let last = script.trim_end_matches('\n').rfind('\n').map_or(0, |at| at + 1);
        let waits = matches!(&payload, Payload::Checked(content) if content.size() > 0);
        self.write(&script.as_bytes()[..last]).await?;
        if !waits {
            self.progress.begin();
        }
        self.write(&script.as_bytes()[last..]).await?;
        match payload {
            Payload::Stream(bytes) => self.write(&bytes).await?,
            Payload::Checked(Content::Bytes(bytes)) => {
                let at = bytes.len().saturating_sub(1);
                self.write(&bytes[..at]).await?;
                // An empty one has begun with its script.
                if waits {
                    self.progress.begin();
                }
                self.write(&bytes[at..]).await?;
            }
            Payload::Checked(Content::LocalFile { path, size, sha256 }) => {
                if let Err(fault) = send_file(self, &path, size, &sha256, waits).await? {
                    self.progress.fail(fault);
                }
            }
        }
        Ok(())
    }
}

/// The input of a shell.
pub(crate) type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// Sends scripts and what they read, one after the other, and ends the input, unless it is to be kept and all went well. A host that does not want to read
/// all of it is no error here: its receipt tells.
pub(crate) async fn send(stdin: Input, parts: Vec<Part>, progress: Arc<Progress>, keep: bool) -> Option<Input> {
    let mut writer = Writer { stdin, progress };
    let sent = async {
        for part in parts {
            writer.send(part).await?;
            // With too few bytes a host would wait for the others.
            if writer.progress.fault().is_some() {
                break;
            }
        }
        if keep && writer.progress.fault().is_none() {
            writer.stdin.flush().await?;
            return Ok(true);
        }
        writer.stdin.shutdown().await?;
        Ok(false)
    };
    // Broken pipes show as the end of the outputs.
    let sent: std::io::Result<bool> = sent.await;
    sent.unwrap_or(false).then_some(writer.stdin)
}

/// Sends a file of this machine. What it finds wrong with the file leaves the host with too few bytes or with others, which it refuses by digest.
async fn send_file(writer: &mut Writer, path: &str, size: u64, sha256: &str, begins: bool) -> std::io::Result<Result<(), String>> {
    let changed = || format!("the local file {path} changed after it was read");
    let mut file = match tokio::fs::File::open(path).await {
        Ok(file) => file,
        Err(error) => return Ok(Err(format!("the local file {path} cannot be read: {error}"))),
    };
    let mut digest = Sha256Builder::default();
    let mut buffer = vec![0; CHUNK];
    let mut left = size;
    loop {
        let read = match file.read(&mut buffer).await {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) => return Ok(Err(format!("the local file {path} cannot be read: {error}"))),
        };
        let Some(remaining) = left.checked_sub(read as u64) else { return Ok(Err(changed())) };
        left = remaining;
        digest.update(&buffer[..read]);
        if left == 0 {
            // These bytes are not sent before the whole is known to be what was meant.
            if digest.finish() != sha256 {
                return Ok(Err(changed()));
            }
            if begins {
                writer.progress.begin();
            }
            writer.write(&buffer[..read]).await?;
            // One look further: a file that has grown is another file.
            return Ok(match file.read(&mut buffer).await {
                Ok(0) => Ok(()),
                _ => Err(changed()),
            });
        }
        writer.write(&buffer[..read]).await?;
    }
    Ok(if left == 0 && digest.finish() == sha256 { Ok(()) } else { Err(changed()) })
}
