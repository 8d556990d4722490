//! Files of the controller: read once per run, and looked at again before what was planned from them is done.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};

use infra_core::change::{Action, Content, ScriptRun, Upload};
use infra_core::digest::{Sha256Builder, sha256};
use infra_core::facts::{LOCAL_CONTENT_LIMIT, LocalFile, LocalLookup};
use infra_core::resources::Resources;
use infra_core::saved_plan::{self, CARRIED_LIMIT, LocalBasis, content_digest};
use infra_core::secret::Secrets;

use crate::local_trees::LocalTrees;

/// The files that were read, by absolute path.
#[derive(Default)]
pub(crate) struct LocalFiles {
    read: Mutex<HashMap<String, Kept>>,
    /// What a saved plan carries: read once again only where this machine has changed it since.
    carried: Mutex<HashMap<String, Arc<LocalFile>>>,
    /// Held while files are read, so that each is read once although all hosts want it.
    reading: tokio::sync::Mutex<()>,
    /// The trees among them.
    pub(crate) trees: LocalTrees,
}

#[derive(Clone)]
struct Kept {
    file: Result<Arc<LocalFile>, String>,
    /// Whether there was none.
    absent: bool,
    /// What the file system said when it was read: as long as it says the same, the content is not read again.
    stamp: Option<Stamp>,
}

/// What the file system says of a file: as long as it says the same, its content is taken for the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl LocalFiles {
    /// What is known of a file.
    pub(crate) fn lookup(&self, path: &str) -> LocalLookup {
        match self.read.lock().unwrap_or_else(PoisonError::into_inner).get(path) {
            Some(Kept { absent: true, .. }) => LocalLookup::Absent,
            Some(Kept { file: Ok(file), .. }) => LocalLookup::Known(file.clone()),
            Some(Kept { file: Err(message), .. }) => LocalLookup::Failed(message.clone()),
            None => LocalLookup::Missing,
        }
    }

    /// Reads those that are not read yet.
    pub(crate) async fn read(&self, paths: impl IntoIterator<Item = String>) {
        let _one_reader = self.reading.lock().await;
        for path in paths {
            if self.lookup(&path) != LocalLookup::Missing {
                continue;
            }
            let read = on_a_thread(path.clone(), |path| read_file(&path)).await;
            self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(path, read);
        }
    }

    /// Takes files as a saved plan has them. Those of which it has the digest alone are read from this machine.
    pub(crate) fn carry(&self, files: &[LocalBasis]) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let mut carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        for LocalBasis { path, size, mode, kept } in files {
            let known = match kept {
                saved_plan::Kept::Text(text) => {
                    let content = Arc::new(text.clone().into_bytes());
                    let sha256 = sha256(&content);
                    let file = Arc::new(LocalFile { path: path.clone(), size: *size, mode: *mode, sha256, content: Some(content) });
                    carried.insert(path.clone(), file.clone());
                    Kept { file: Ok(file), absent: false, stamp: None }
                }
                saved_plan::Kept::Absent => {
                    Kept { file: Err(format!("there was no file {path} when the plan was made")), absent: true, stamp: None }
                }
                saved_plan::Kept::Failed(message) => Kept { file: Err(message.clone()), absent: false, stamp: None },
                saved_plan::Kept::Digest(_) | saved_plan::Kept::Secret(_) => continue,
            };
            read.insert(path.clone(), known);
        }
    }

    /// What a plan that is saved keeps of the files that were read.
    pub(crate) fn basis(&self, salt: &str, secrets: &Secrets) -> Vec<LocalBasis> {
        let read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<LocalBasis> = read.iter().map(|(path, one)| one.basis(path, salt, secrets)).collect();
        all.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        all
    }

    /// The step with its content in it, where that is a file that a saved plan carries.
    pub(crate) fn carried_in(&self, action: &Action) -> Option<Action> {
        let (Action::Upload(Upload { content, .. }) | Action::Script(ScriptRun { content, .. })) = action else { return None };
        let Content::LocalFile { path, sha256, .. } = content else { return None };
        let file = self.carried.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()?;
        let content = Content::Bytes(file.content.clone().filter(|_| file.sha256 == *sha256)?);
        Some(match action.clone() {
            Action::Upload(upload) => Action::Upload(Upload { content, ..upload }),
            Action::Script(script) => Action::Script(ScriptRun { content, ..script }),
            other => other,
        })
    }

    /// Whether a file is what it was when it was read.
    ///
    /// # Errors
    /// A sentence fragment that says what is different.
    pub(crate) async fn check(&self, path: &str) -> Result<(), String> {
        let kept = self.read.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        let Some(Kept { file: Ok(before), stamp, .. }) = kept else { return Ok(()) };
        let carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        if carried.is_some_and(|carried| Arc::ptr_eq(&carried, &before)) {
            return Ok(());
        }
        let now = on_a_thread(path.to_owned(), move |path| {
            let same = std::fs::metadata(&path).ok().map(|metadata| Stamp::of(&metadata)) == stamp;
            if same { None } else { Some(read_file(&path)) }
        })
        .await;
        match now.map(|read| read.file) {
            None => Ok(()),
            Some(Ok(file)) if file.sha256 == before.sha256 && file.mode == before.mode => Ok(()),
            Some(Ok(_)) => Err(format!("{path} has changed since the plan was made")),
            Some(Err(message)) => Err(format!("{message}, which was there when the plan was made")),
        }
    }

    /// Forgets files that an operation on this machine declared to write, so that they are read again.
    pub(crate) fn forget(&self, touched: &Resources) {
        self.trees.forget(touched);
        if !touched.is_none() {
            let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            read.retain(|path, _| !touched.overlaps(&Resources::path(path.as_str())));
        }
    }
}

impl Kept {
    /// What a plan that is saved keeps of it.
    fn basis(&self, path: &str, salt: &str, secrets: &Secrets) -> LocalBasis {
        let local = |size, mode, kept| LocalBasis { path: path.to_owned(), size, mode, kept };
        match &self.file {
            Ok(file) => {
                let carried = file.text().filter(|_| file.size <= CARRIED_LIMIT).map(|text| saved_plan::Kept::Text(text.to_owned()));
                let kept = match &file.content {
                    Some(bytes) if secrets.holds_bytes(bytes) => saved_plan::Kept::secret(salt, bytes),
                    _ => carried.unwrap_or_else(|| saved_plan::Kept::Digest(content_digest(salt, &file.sha256))),
                };
                local(file.size, file.mode, kept)
            }
            Err(_) if self.absent => local(0, 0, saved_plan::Kept::Absent),
            Err(message) => local(0, 0, saved_plan::Kept::Failed(message.clone())),
        }
    }
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Does what may wait for a disk where that holds up nobody else.
pub(crate) async fn on_a_thread<Q: Send + 'static, T: Send + 'static>(question: Q, work: impl FnOnce(Q) -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(move || work(question)).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => unreachable!("a blocking task that was awaited from its start is not cancelled"),
    }
}

fn read_file(path: &str) -> Kept {
    match try_read(path) {
        Ok((file, stamp)) => Kept { file: Ok(Arc::new(file)), absent: false, stamp: Some(stamp) },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Kept { file: Err(format!("there is no file {path} on this machine")), absent: true, stamp: None }
        }
        Err(error) => Kept { file: Err(format!("the file {path} of this machine cannot be read: {error}")), absent: false, stamp: None },
    }
}

/// The digest and the size of a file.
pub(crate) fn digest_file(path: &std::path::Path) -> std::io::Result<(String, u64, Stamp)> {
    let (mut digest, mut size) = (Sha256Builder::default(), 0);
    let metadata = read_through(path, |bytes| {
        digest.update(bytes);
        size += bytes.len() as u64;
    })?;
    Ok((digest.finish(), size, Stamp::of(&metadata)))
}

fn try_read(path: &str) -> std::io::Result<(LocalFile, Stamp)> {
    let (mut digest, mut size, mut content) = (Sha256Builder::default(), 0u64, Vec::new());
    let metadata = read_through(std::path::Path::new(path), |bytes| {
        digest.update(bytes);
        size += bytes.len() as u64;
        if size <= LOCAL_CONTENT_LIMIT {
            content.extend_from_slice(bytes);
        } else {
            content = Vec::new();
        }
    })?;
    let content = (size <= LOCAL_CONTENT_LIMIT).then(|| Arc::new(content));
    let local = LocalFile { path: path.to_owned(), size, mode: metadata.mode() & 0o7777, sha256: digest.finish(), content };
    Ok((local, Stamp::of(&metadata)))
}

/// Reads a regular file piece by piece, and gives what the file system said of it when it was opened.
fn read_through(path: &std::path::Path, mut take: impl FnMut(&[u8])) -> std::io::Result<Metadata> {
    // Opening a pipe would wait for its writer.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        take(&buffer[..count]);
    }
    Ok(metadata)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_once_and_a_change_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt").to_str().unwrap().to_owned();
        let locals = LocalFiles::default();
        assert_eq!(locals.lookup(&path), LocalLookup::Missing);
        locals.read([path.clone()]).await;
        assert_eq!(locals.lookup(&path), LocalLookup::Absent);

        locals.forget(&Resources::path(path.as_str()));
        std::fs::write(&path, "one").unwrap();
        locals.read([path.clone()]).await;
        let LocalLookup::Known(file) = locals.lookup(&path) else { panic!("the file is there") };
        assert_eq!((file.text(), file.size), (Some("one"), 3));
        assert_eq!(locals.check(&path).await, Ok(()));

        std::fs::write(&path, "two").unwrap();
        assert!(locals.check(&path).await.unwrap_err().contains("has changed since the plan"));
        locals.read([path.clone()]).await;
        let LocalLookup::Known(file) = locals.lookup(&path) else { panic!("the file is there") };
        assert_eq!(file.text(), Some("one"), "it is not read twice");

        // Another run takes it as a saved plan has it, whatever has become of it.
        let carrying = LocalFiles::default();
        carrying.carry(&locals.basis("salt", &Secrets::default()));
        let LocalLookup::Known(file) = carrying.lookup(&path) else { panic!("the plan carries it") };
        assert_eq!((file.text(), carrying.check(&path).await), (Some("one"), Ok(())));
        let content = Content::LocalFile { path: path.clone(), size: 3, sha256: file.sha256.clone() };
        let script = |content| Action::Script(ScriptRun { content, args: Vec::new() });
        assert_eq!(carrying.carried_in(&script(content.clone())), Some(script(Content::text("one"))));
        assert_eq!(locals.carried_in(&script(content)), None);

        std::fs::remove_file(&path).unwrap();
        assert!(locals.check(&path).await.unwrap_err().contains("which was there"));
        locals.read([folder.path().to_str().unwrap().to_owned()]).await;
        assert!(matches!(locals.lookup(folder.path().to_str().unwrap()), LocalLookup::Failed(_)));
    }
}
