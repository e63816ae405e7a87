//! Files that count as soon as they change: access rules, keys, certificates.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tokio::{sync::watch, time::sleep};

/// Bytes of the largest file that is read. It bounds the memory that a wrong path can take.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// How often a file is looked at. What changed counts within 5 s, also on a machine that is busy.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Asks all watched files and fetched keys to be read again, and counts what could not be used. Clones share it.
#[derive(Clone, Debug)]
pub struct Reload(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    asked: watch::Sender<()>,
    failures: AtomicU64,
}

impl Default for Reload {
    fn default() -> Self {
        Self(Arc::new(Shared { asked: watch::channel(()).0, failures: AtomicU64::new(0) }))
    }
}

impl Reload {
    /// Has everything read again now, also what has not changed.
    pub fn now(&self) {
        self.0.asked.send_replace(());
    }

    /// Learns of the next [`now`](Self::now).
    #[must_use]
    pub fn listen(&self) -> watch::Receiver<()> {
        self.0.asked.subscribe()
    }

    /// Counts content that could not be used, so that what was there before stays.
    pub fn failed(&self) {
        self.0.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// How often content could not be used since the start, for `pubsub_access_reload_failures_total`.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.0.failures.load(Ordering::Relaxed)
    }
}

/// A file whose content is compared with what was read last. The time of a file's last change is no help: Kubernetes
/// replaces a link to a directory, and the file behind it may be older than the one before.
#[derive(Clone, Debug)]
pub struct WatchedFile {
    path: PathBuf,
    /// The hash of what was read last, or why it could not be read.
    seen: Option<Result<[u8; 32], String>>,
}

impl WatchedFile {
    /// A file that was not read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), seen: None }
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file at the start. It blocks the thread.
    ///
    /// # Errors
    /// Why it cannot be read, in one line that names the file.
    pub fn read(&mut self) -> Result<Vec<u8>, String> {
        let content = read(&self.path);
        self.seen = Some(seen(&content));
        content
    }

    /// Reads the file at the start, as text. It blocks the thread.
    ///
    /// # Errors
    /// Why it cannot be read, in one line that names the file.
    pub fn read_text(&mut self) -> Result<String, String> {
        let content = self.read()?;
        String::from_utf8(content).map_err(|_| format!("{}: is not UTF-8 text", self.path.display()))
    }

    /// Waits until the file has other content than what was read last, or until `reload` asks for it, and returns its
    /// content. It is safe to drop and to call again.
    ///
    /// # Errors
    /// Why it cannot be read, once for each reason, in one line that names the file.
    pub async fn changed(&mut self, reload: &mut watch::Receiver<()>) -> Result<Vec<u8>, String> {
        loop {
            let asked = tokio::select! {
                // Without a sender nobody asks any more.
                asked = reload.changed() => match asked {
                    Ok(()) => true,
                    Err(_) => {
                        sleep(LOOK_INTERVAL).await;
                        false
                    }
                },
                () = sleep(LOOK_INTERVAL) => false,
            };
            let path = self.path.clone();
            let content = tokio::task::spawn_blocking(move || read(&path)).await;
            let content = content.unwrap_or_else(|error| Err(format!("{}: {error}", self.path.display())));
            let now = Some(seen(&content));
            if asked || now != self.seen {
                self.seen = now;
                return content;
            }
        }
    }
}

fn seen(content: &Result<Vec<u8>, String>) -> Result<[u8; 32], String> {
    content.as_ref().map(|content| Sha256::digest(content).into()).map_err(Clone::clone)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let wrong = |wrong: &str| format!("{}: {wrong}", path.display());
    // Opening a pipe would wait for somebody who writes into it.
    let metadata = fs::metadata(path).map_err(|error| wrong(&error.to_string()))?;
    if !metadata.is_file() {
        return Err(wrong("is not a file"));
    }
    let mut content = Vec::new();
    let file = fs::File::open(path).map_err(|error| wrong(&error.to_string()))?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(|error| wrong(&error.to_string()))?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(wrong("is larger than 1 MiB"));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn changed_content_is_seen_also_behind_a_link() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::write(at("new"), "2").unwrap();
        fs::write(at("old"), "1").unwrap();
        // The new content is as long as the old one, and its file is older.
        std::os::unix::fs::symlink(at("old"), at("link")).unwrap();
        let mut file = WatchedFile::new(at("link"));
        assert_eq!(file.read().unwrap(), b"1");
        std::os::unix::fs::symlink(at("new"), at("next")).unwrap();
        fs::rename(at("next"), at("link")).unwrap();
        let reload = Reload::default();
        let changed = timeout(DEADLINE, file.changed(&mut reload.listen())).await.unwrap();
        assert_eq!(changed.unwrap(), b"2");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reload_reads_what_has_not_changed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "1").unwrap();
        let mut file = WatchedFile::new(&path);
        file.read().unwrap();
        let reload = Reload::default();
        let mut asked = reload.listen();
        reload.now();
        assert_eq!(timeout(DEADLINE, file.changed(&mut asked)).await.unwrap().unwrap(), b"1");
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_file_is_reported_once_and_found_when_it_is_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "1").unwrap();
        let mut file = WatchedFile::new(&path);
        file.read().unwrap();
        fs::remove_file(&path).unwrap();
        let reload = Reload::default();
        let mut asked = reload.listen();
        let error = timeout(DEADLINE, file.changed(&mut asked)).await.unwrap().unwrap_err();
        assert!(error.contains("file: "), "{error}");
        let again = timeout(10 * LOOK_INTERVAL, file.changed(&mut asked)).await;
        assert!(again.is_err(), "it is still missing, and was reported: {again:?}");
        fs::write(&path, "1").unwrap();
        let changed = timeout(DEADLINE, file.changed(&mut asked)).await;
        assert_eq!(changed.unwrap().unwrap(), b"1");
    }

    #[test]
    fn only_small_files_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        assert!(WatchedFile::new(directory.path()).read().unwrap_err().ends_with(": is not a file"));
        fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(WatchedFile::new(&path).read().unwrap().len(), 1 << 20);
        fs::write(&path, vec![b'x'; (1 << 20) + 1]).unwrap();
        assert!(WatchedFile::new(&path).read().unwrap_err().ends_with(": is larger than 1 MiB"));
        fs::write(&path, [0xff]).unwrap();
        assert!(WatchedFile::new(&path).read_text().unwrap_err().ends_with(": is not UTF-8 text"));
    }
}
