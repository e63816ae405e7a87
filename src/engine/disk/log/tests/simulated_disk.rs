//! A disk in memory that fails on request, in the ways in which real disks fail.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    sync::Arc,
};

use parking_lot::Mutex;

use super::super::files::{SegmentFile, Storage};

/// A pseudo-random sequence that is the same each time (xorshift64*).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Returns a number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

#[derive(Clone, Default)]
pub struct SimulatedDisk(Arc<Mutex<DiskState>>);

#[derive(Default)]
struct DiskState {
    disk: DiskImage,
    faults: Faults,
    reads: u64,
    largest_read: usize,
    changes: u64,
    written: u64,
    /// Called before every change, with the state of the disk.
    #[expect(clippy::type_complexity, reason = "written once")]
    watch: Option<Box<dyn FnMut(&DiskImage) + Send>>,
}

/// The faults that are active from now on.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// How many bytes the disk has room for.
    pub room: Option<usize>,
    pub sync_fails: bool,
    pub truncate_fails: bool,
    pub write_fails: bool,
    /// The kernel writes every page back at once, without a sync.
    pub writes_through: bool,
    /// The most bytes that one write accepts.
    pub short_writes: Option<usize>,
}

#[derive(Clone, Debug, Default)]
pub struct DiskImage {
    /// The names as programs see them, and as a power cut leaves them.
    names: BTreeMap<u64, usize>,
    synced_names: BTreeMap<u64, usize>,
    files: Vec<FileContent>,
    footprint: FileContent,
    identity: Vec<u8>,
    kept: BTreeMap<String, Vec<u8>>,
    /// The number of power cuts so far.
    boots: u64,
}

#[derive(Clone, Debug, Default)]
struct FileContent {
    bytes: Vec<u8>,
    synced: Vec<u8>,
}

impl DiskImage {
    /// Returns the disk after a power cut that lost everything that was not synced.
    pub fn cut(&self) -> SimulatedDisk {
        self.after(self.boots + 1, self.synced_names.clone(), |file| file.synced.clone())
    }

    /// Returns the disk after a power cut that lost some of what was not synced, as file systems do: it keeps a part
    /// of a file's new end, or zeros instead of it, or names without contents, or contents without names.
    pub fn torn(&self, rng: &mut Rng) -> SimulatedDisk {
        let mut names = self.synced_names.clone();
        for number in self.names.keys().chain(self.synced_names.keys()) {
            if rng.below(2) == 0 {
                match self.names.get(number) {
                    Some(file) => _ = names.insert(*number, *file),
                    None => _ = names.remove(number),
                }
            }
        }
        self.after(self.boots + 1, names, |file| {
            let Some(new) = file.bytes.strip_prefix(&file.synced[..]) else {
                // The file was truncated, and that is not synced yet.
                return if rng.below(2) == 0 { file.bytes.clone() } else { file.synced.clone() };
            };
            let mut bytes = file.synced.clone();
            let survives = rng.below(new.len() as u64 + 1) as usize;
            bytes.extend_from_slice(&new[..survives]);
            match rng.below(4) {
                // The size reached the disk, the content did not.
                0 => bytes.resize(file.bytes.len(), 0),
                // A page in the middle did not reach the disk.
                1 => {
                    bytes.extend_from_slice(&new[survives..]);
                    let gap = file.synced.len() + survives;
                    let to = bytes.len().min(gap + 16);
                    bytes[gap..to].fill(0);
                }
                _ => {}
            }
            bytes
        })
    }

    /// Returns the disk after the process was killed.
    pub fn killed(&self) -> SimulatedDisk {
        self.after(self.boots, self.names.clone(), |file| file.bytes.clone())
    }

    /// Returns the disk after a power cut that lost nothing, which nobody can know.
    pub fn rebooted(&self) -> SimulatedDisk {
        self.after(self.boots + 1, self.names.clone(), |file| file.bytes.clone())
    }

    fn after(
        &self,
        boots: u64,
        names: BTreeMap<u64, usize>,
        mut content: impl FnMut(&FileContent) -> Vec<u8>,
    ) -> SimulatedDisk {
        let file = |bytes: Vec<u8>| FileContent { synced: bytes.clone(), bytes };
        let files = self.files.iter().map(|f| file(content(f))).collect();
        let footprint = file(content(&self.footprint));
        let (identity, kept) = (self.identity.clone(), self.kept.clone());
        let disk = Self { synced_names: names.clone(), names, files, footprint, identity, kept, boots };
        SimulatedDisk(Arc::new(Mutex::new(DiskState { disk, ..DiskState::default() })))
    }
}

impl SimulatedDisk {
    /// Creates a disk with these segments, all durable.
    pub fn with(segments: impl IntoIterator<Item = (u64, Vec<u8>)>) -> Self {
        let mut disk = DiskImage::default();
        for (number, bytes) in segments {
            disk.names.insert(number, disk.files.len());
            disk.files.push(FileContent { synced: bytes.clone(), bytes });
        }
        disk.synced_names = disk.names.clone();
        Self(Arc::new(Mutex::new(DiskState { disk, ..DiskState::default() })))
    }

    pub fn image(&self) -> DiskImage {
        self.0.lock().disk.clone()
    }

    /// Removes the last bytes of a segment.
    pub fn cut_off(&self, segment: u64, bytes: usize) {
        let mut state = self.0.lock();
        let file = state.disk.names[&segment];
        let FileContent { bytes: content, synced } = &mut state.disk.files[file];
        content.truncate(content.len() - bytes);
        synced.clone_from(content);
    }

    /// Replaces this disk by a copy of another one.
    pub fn become_as(&self, other: &SimulatedDisk) {
        let disk = other.image();
        self.0.lock().disk = disk;
    }

    /// Appends bytes to a segment, as a torn write would.
    pub fn tear(&self, segment: u64, torn: &[u8]) {
        let mut state = self.0.lock();
        let file = state.disk.names[&segment];
        let FileContent { bytes, synced } = &mut state.disk.files[file];
        bytes.extend_from_slice(torn);
        synced.clone_from(bytes);
    }

    /// Flips a bit of a segment.
    pub fn flip(&self, segment: u64, byte: usize, bit: u8) {
        let mut state = self.0.lock();
        let file = state.disk.names[&segment];
        let FileContent { bytes, synced } = &mut state.disk.files[file];
        bytes[byte] ^= 1 << bit;
        synced.clone_from(bytes);
    }

    /// Removes a segment, as an operator may.
    pub fn lose(&self, segment: u64) {
        let mut state = self.0.lock();
        state.disk.names.remove(&segment);
        state.disk.synced_names.remove(&segment);
    }

    pub fn set(&self, faults: Faults) {
        self.0.lock().faults = faults;
    }

    pub fn watch(&self, watch: impl FnMut(&DiskImage) + Send + 'static) {
        self.0.lock().watch = Some(Box::new(watch));
    }

    /// Returns how often files were read, and the most bytes that a read asked for.
    pub fn reads(&self) -> (u64, usize) {
        let state = self.0.lock();
        (state.reads, state.largest_read)
    }

    /// Returns how often something was changed or a change failed.
    pub fn changes(&self) -> u64 {
        self.0.lock().changes
    }

    /// Returns how many bytes were written to segments so far.
    pub fn written(&self) -> u64 {
        self.0.lock().written
    }

    /// Returns the files that keep what was cut off the log.
    pub fn cut_files(&self) -> BTreeMap<String, Vec<u8>> {
        self.0.lock().disk.kept.clone()
    }

    /// Returns the content of the segments.
    pub fn segments(&self) -> BTreeMap<u64, Vec<u8>> {
        let state = self.0.lock();
        state.disk.names.iter().map(|(number, file)| (*number, state.disk.files[*file].bytes.clone())).collect()
    }

    fn change<R>(&self, change: impl FnOnce(&mut DiskState) -> R) -> R {
        let mut state = self.0.lock();
        state.changes += 1;
        if let Some(mut watch) = state.watch.take() {
            watch(&state.disk);
            state.watch = Some(watch);
        }
        change(&mut state)
    }
}

impl Storage for SimulatedDisk {
    fn list(&self) -> io::Result<Vec<u64>> {
        Ok(self.0.lock().disk.names.keys().copied().collect())
    }

    fn create(&self, number: u64) -> io::Result<Box<dyn SegmentFile>> {
        self.change(|state| {
            let file = state.disk.files.len();
            state.disk.files.push(FileContent::default());
            state.disk.names.insert(number, file);
            Ok(Box::new(FileHandle { simulated: self.clone(), file, position: 0 }) as Box<dyn SegmentFile>)
        })
    }

    fn open(&self, number: u64) -> io::Result<Box<dyn SegmentFile>> {
        let file = *self.0.lock().disk.names.get(&number).ok_or(ErrorKind::NotFound)?;
        Ok(Box::new(FileHandle { simulated: self.clone(), file, position: 0 }))
    }

    fn remove(&self, number: u64) -> io::Result<()> {
        self.change(|state| state.disk.names.remove(&number).map(drop).ok_or(ErrorKind::NotFound.into()))
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.change(|state| {
            state.disk.synced_names = state.disk.names.clone();
            Ok(())
        })
    }

    fn footprint(&self) -> io::Result<Vec<u8>> {
        Ok(self.0.lock().disk.footprint.bytes.clone())
    }

    fn write_footprint(&self, bytes: &[u8], synced: bool) -> io::Result<()> {
        self.change(|state| {
            state.disk.footprint.bytes = bytes.to_vec();
            if synced {
                state.disk.footprint.synced = bytes.to_vec();
            }
            Ok(())
        })
    }

    fn identity(&self) -> io::Result<Vec<u8>> {
        Ok(self.0.lock().disk.identity.clone())
    }

    fn write_identity(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().disk.identity = bytes.to_vec();
        Ok(())
    }

    fn write_cut_file(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.change(|state| {
            state.disk.kept.insert(name.to_owned(), bytes.to_vec());
            Ok(())
        })
    }

    fn move_to_cut_file(&self, number: u64, name: &str) -> io::Result<()> {
        self.change(|state| {
            let file = state.disk.names.remove(&number).ok_or(ErrorKind::NotFound)?;
            let bytes = state.disk.files[file].bytes.clone();
            state.disk.kept.insert(name.to_owned(), bytes);
            Ok(())
        })
    }

    fn cut_files(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.0.lock().disk.kept.iter().map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect())
    }

    fn remove_cut_file(&self, name: &str) -> io::Result<()> {
        self.change(|state| state.disk.kept.remove(name).map(drop).ok_or(ErrorKind::NotFound.into()))
    }

    fn boot(&self) -> String {
        self.0.lock().disk.boots.to_string()
    }
}

struct FileHandle {
    simulated: SimulatedDisk,
    file: usize,
    position: usize,
}

impl SegmentFile for FileHandle {
    fn size(&self) -> io::Result<u64> {
        Ok(self.simulated.0.lock().disk.files[self.file].bytes.len() as u64)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.simulated.0.lock();
        state.reads += 1;
        state.largest_read = state.largest_read.max(buffer.len());
        let rest = state.disk.files[self.file].bytes.get(self.position..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        self.position += read;
        Ok(read)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.simulated.change(|state| {
            if state.faults.write_fails {
                return Err(io::Error::other("the controller is gone"));
            }
            let mut take = bytes.len().min(state.faults.short_writes.unwrap_or(usize::MAX));
            if let Some(room) = &mut state.faults.room {
                if *room == 0 {
                    return Err(ErrorKind::StorageFull.into());
                }
                take = take.min(*room);
                *room -= take;
            }
            state.written += take as u64;
            let file = &mut state.disk.files[self.file];
            file.bytes.extend_from_slice(&bytes[..take]);
            if state.faults.writes_through {
                file.synced = file.bytes.clone();
            }
            Ok(take)
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.simulated.change(|state| {
            if state.faults.sync_fails {
                return Err(io::Error::other("the page could not be written"));
            }
            let file = &mut state.disk.files[self.file];
            file.synced = file.bytes.clone();
            Ok(())
        })
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.simulated.change(|state| {
            if state.faults.truncate_fails {
                return Err(io::Error::other("read-only by now"));
            }
            let size = size as usize;
            let freed = state.disk.files[self.file].bytes.len().saturating_sub(size);
            if let Some(room) = &mut state.faults.room {
                *room += freed;
            }
            state.disk.files[self.file].bytes.truncate(size);
            Ok(())
        })
    }
}
