//! What follows the scripts on the input of a command, and how it is sent in bounded memory.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use infra_core::change::Content;
use infra_core::connection::OutputSink;
use infra_core::digest::Sha256Builder;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;

use crate::tree_upload::TreeStream;

/// How much is written at once; each of these counts as progress.
const CHUNK: usize = 32 * 1024;

/// Bytes for a command's input.
pub(crate) enum Payload {
    /// The command reads them as they come, so it begins with its script.
    Stream(Arc<Vec<u8>>),
    /// The same of a file of this machine, however large.
    File(Content),
    /// The command checks them by digest before it does anything, so it does not begin before the last of them.
    Checked(Content),
    /// The same for a whole tree.
    Tree(TreeStream),
}

impl Payload {
    /// Nothing at all.
    pub(crate) fn none() -> Self {
        Self::Stream(Arc::default())
    }

    /// Whether the command reads its input to the end.
    pub(crate) fn reads_to_the_end(&self) -> bool {
        match self {
            Self::Stream(bytes) => !bytes.is_empty(),
            Self::File(_) => true,
            Self::Checked(_) | Self::Tree(_) => false,
        }
    }
}

/// A script for the host and what it reads. The last line of the script is the one that lets it begin.
pub(crate) struct Part {
    pub(crate) script: String,
    pub(crate) payload: Payload,
}

impl Part {
    /// A script that reads nothing.
    pub(crate) fn script(script: String) -> Self {
        Self { script, payload: Payload::none() }
    }
}

/// How far the sending is.
pub(crate) struct Progress {
    /// How many parts may have begun.
    begun: AtomicUsize,
    moved: Mutex<Instant>,
    fault: Mutex<Option<String>>,
    whole: AtomicBool,
    moved_bytes: AtomicU64,
    told: OnceLock<OutputSink>,
}

impl Progress {
    /// Nothing was sent yet.
    pub(crate) fn new() -> Self {
        Self {
            begun: AtomicUsize::new(0),
            moved: Mutex::new(Instant::now()),
            fault: Mutex::new(None),
            whole: AtomicBool::new(false),
            moved_bytes: AtomicU64::new(0),
            told: OnceLock::new(),
        }
    }

    /// Has the bytes of the payload told to a sink as they go out.
    pub(crate) fn tell(&self, sink: OutputSink) {
        // There is one sink for a command.
        let _ = self.told.set(sink);
    }

    /// Whether all is sent, so that the host alone is at work.
    pub(crate) fn whole(&self) -> bool {
        self.whole.load(Ordering::Acquire)
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
    /// Writes what counts as moved.
    async fn write_content(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.write(bytes).await?;
        let moved = self.progress.moved_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed) + bytes.len() as u64;
        if let Some(told) = self.progress.told.get() {
            told.moved(moved);
        }
        Ok(())
    }

    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        for chunk in bytes.chunks(CHUNK) {
            self.stdin.write_all(chunk).await?;
            self.progress.advance();
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
            send_part(&mut writer, part).await?;
            // With too few bytes a host would wait for the others.
            if writer.progress.fault().is_some() {
                break;
            }
        }
        writer.progress.whole.store(true, Ordering::Release);
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

async fn send_part(writer: &mut Writer, Part { script, payload }: Part) -> std::io::Result<()> {
    // The last line is the one that lets the last shell begin.
    let last = script.trim_end_matches('\n').rfind('\n').map_or(0, |at| at + 1);
    let waits = match &payload {
        Payload::Stream(_) | Payload::File(_) => false,
        Payload::Checked(content) => content.size() > 0,
        Payload::Tree(_) => true,
    };
    writer.write(&script.as_bytes()[..last]).await?;
    if !waits {
        writer.progress.begin();
    }
    writer.write(&script.as_bytes()[last..]).await?;
    match payload {
        Payload::Stream(bytes) => writer.write(&bytes).await?,
        Payload::File(Content::Bytes(bytes)) => writer.write(&bytes).await?,
        Payload::File(Content::LocalFile { path, size, sha256 }) | Payload::Checked(Content::LocalFile { path, size, sha256 }) => {
            if let Err(fault) = send_file(writer, &path, size, &sha256, waits).await? {
                writer.progress.fail(fault);
            }
        }
        Payload::Checked(Content::Bytes(bytes)) => {
            let at = bytes.len().saturating_sub(1);
            writer.write_content(&bytes[..at]).await?;
            // An empty one has begun with its script.
            if waits {
                writer.progress.begin();
            }
            writer.write_content(&bytes[at..]).await?;
        }
        Payload::Tree(tree) => {
            if let Err(fault) = send_tree(writer, &tree).await? {
                writer.progress.fail(fault);
            }
        }
    }
    Ok(())
}

/// Sends the files of a tree, one after the other. What ends it is not sent before each is known to be what was meant.
async fn send_tree(writer: &mut Writer, tree: &TreeStream) -> std::io::Result<Result<(), String>> {
    const ZEROS: [u8; 1024] = [0; 1024];
    for member in &tree.members {
        writer.write(&member.header).await?;
        match &member.content {
            Content::Bytes(bytes) => writer.write_content(bytes).await?,
            Content::LocalFile { path, size, sha256 } => {
                if let Err(fault) = send_file(writer, path, *size, sha256, false).await? {
                    return Ok(Err(fault));
                }
            }
        }
        writer.write(&ZEROS[..member.padding()]).await?;
    }
    writer.progress.begin();
    for _ in 0..tree.trailer / ZEROS.len() {
        writer.write(&ZEROS).await?;
    }
    writer.write(&ZEROS[..tree.trailer % ZEROS.len()]).await?;
    Ok(Ok(()))
}

/// Sends a file of this machine; with `begins` its last bytes are those that let the host begin. What it finds wrong with the file leaves the host with too few bytes or with others, which it refuses by digest.
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
            writer.write_content(&buffer[..read]).await?;
            // One look further: a file that has grown is another file.
            return Ok(match file.read(&mut buffer).await {
                Ok(0) => Ok(()),
                _ => Err(changed()),
            });
        }
        writer.write_content(&buffer[..read]).await?;
    }
    Ok(if left == 0 && digest.finish() == sha256 { Ok(()) } else { Err(changed()) })
}
