//! The files below the log: a directory of segments, a lock file, and the reader of frames.
//!
//! They are behind two small traits because the cases that matter here (a power cut, a full disk, a failing fsync, a
//! short write) cannot be produced on request on a real disk.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::{
    error::OpenError,
    frame::{FRAME_HEADER_BYTES, MAX_PAYLOAD, frame_header, is_valid},
};

/// The version of everything in a segment that this build writes. Version 3 has headers of messages, and times to keep them.
/// Version 4 has removals of keys, and messages that replace those of their key.
pub(super) const FORMAT: u32 = 4;

/// The oldest version that it reads: everything that is in it means the same in all later ones.
pub(super) const OLDEST_FORMAT: u32 = 2;

/// The size of a segment's header: magic, version, segment number, the highest sequence number in the segments
/// before, and the checksum of these. The sequence number is in the header so that it outlives every record that had
/// it.
pub(super) const SEGMENT_HEADER_BYTES: usize = 32;

/// The name of the file that says how far the log was written.
pub(super) const FOOTPRINT: &str = "footprint";

/// The name of the file that says which log this is.
const IDENTITY: &str = "identity";

/// The prefix of the names of files that hold what was cut off the log.
pub(super) const CUT: &str = "cut-";

const MAGIC: [u8; 8] = *b"psublog\n";

/// The size of one read, in bytes. It is large enough that the number of calls does not matter, and small compared
/// with the history.
pub(super) const READ_BYTES: usize = 1 << 20;

/// A directory of numbered segments.
pub(super) trait Storage: Send {
    /// Returns the numbers of all segments, in any order.
    fn list(&self) -> io::Result<Vec<u64>>;
    /// Creates an empty segment. If the segment exists, it is truncated.
    fn create(&self, number: u64) -> io::Result<Box<dyn SegmentFile>>;
    /// Opens an existing segment for reading from its start.
    fn open(&self, number: u64) -> io::Result<Box<dyn SegmentFile>>;
    fn remove(&self, number: u64) -> io::Result<()>;
    /// Makes creations and removals durable.
    fn sync_directory(&self) -> io::Result<()>;
    /// Returns the footprint that was written last.
    fn footprint(&self) -> io::Result<Vec<u8>>;
    /// Overwrites the footprint with a new one of the same length.
    fn write_footprint(&self, bytes: &[u8], synced: bool) -> io::Result<()>;
    /// Returns the identity that was written last, or nothing if there is none.
    fn identity(&self) -> io::Result<Vec<u8>>;
    /// Writes the identity atomically and makes it durable.
    fn write_identity(&self, bytes: &[u8]) -> io::Result<()>;
    /// Stores what is cut off the log in a file of this name beside it, durably.
    fn write_cut_file(&self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Moves a segment out of the log into a file of this name. The move is durable after [`Self::sync_directory`].
    fn move_to_cut_file(&self, number: u64, name: &str) -> io::Result<()>;
    /// Returns the names and sizes of the files with what was cut off the log.
    fn cut_files(&self) -> io::Result<Vec<(String, u64)>>;
    /// Removes such a file.
    fn remove_cut_file(&self, name: &str) -> io::Result<()>;
    /// Identifies the current boot of the machine. As long as it is the same, everything that an earlier process has
    /// written can be read, synced or not.
    fn boot(&self) -> String;
}

/// The file of one segment. A read continues where the last read ended. A write always appends.
pub(super) trait SegmentFile: Send {
    fn size(&self) -> io::Result<u64>;
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes a prefix of `bytes` and returns its length.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Makes the content and the size durable.
    fn sync(&mut self) -> io::Result<()>;
    fn truncate(&mut self, size: u64) -> io::Result<()>;
}

/// Returns the file name of a segment.
pub(super) fn file_name(number: u64) -> String {
    format!("{number:020}.seg")
}

pub(super) fn number_of(file_name: &str) -> Option<u64> {
    let digits = file_name.strip_suffix(".seg")?;
    if digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// Returns the header of segment `number`, before which sequence numbers up to `sequence` were used.
pub(super) fn segment_header(number: u64, sequence: u64) -> [u8; SEGMENT_HEADER_BYTES] {
    header_of(FORMAT, number, sequence)
}

/// Returns the header of a segment of a version.
pub(super) fn header_of(version: u32, number: u64, sequence: u64) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..12].copy_from_slice(&version.to_le_bytes());
    header[12..20].copy_from_slice(&number.to_le_bytes());
    header[20..28].copy_from_slice(&sequence.to_le_bytes());
    let sum = crc32fast::hash(&header[..28]);
    header[28..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// The outcome of reading a segment's header.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SegmentHeader {
    /// The header is valid. Sequence numbers up to this one were used in the segments before.
    Valid {
        sequence: u64,
    },
    /// The header has another version. `checksum_holds` says whether the checksum is right where this version has it.
    OtherVersion {
        version: u32,
        checksum_holds: bool,
    },
    Bad(&'static str),
}

/// Reads the header of the file that is named after segment `number`.
pub(super) fn read_header(bytes: &[u8], number: u64) -> SegmentHeader {
    let Some(header) = bytes.first_chunk::<SEGMENT_HEADER_BYTES>() else {
        return SegmentHeader::Bad("the header is cut off");
    };
    if header[..8] != MAGIC {
        return SegmentHeader::Bad("not a segment of this log");
    }
    // The version is checked before the checksum because a later version may arrange the rest differently.
    let version = header[8..12].first_chunk::<4>().map_or(0, |v| u32::from_le_bytes(*v));
    if !(OLDEST_FORMAT..=FORMAT).contains(&version) {
        let checksum_holds = header[28..] == crc32fast::hash(&header[..28]).to_le_bytes();
        return SegmentHeader::OtherVersion { version, checksum_holds };
    }
    let sequence = header[20..].first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if *header == header_of(version, number, sequence) {
        SegmentHeader::Valid { sequence }
    } else {
        SegmentHeader::Bad("the header's checksum or number differs")
    }
}

/// Returns whether a segment is of an earlier version, so that what this build writes must not be appended to it.
pub(super) fn is_of_earlier_version(storage: &dyn Storage, number: u64) -> bool {
    let mut start = [0; 12];
    let read = |start: &mut [u8]| storage.open(number).and_then(|mut file| file.read(start));
    let is_read = read(&mut start).is_ok_and(|read| read == start.len());
    !is_read || start[8..] != FORMAT.to_le_bytes()
}

/// The directory on a real disk. It is locked against other processes while this value exists.
pub(super) struct DiskStorage {
    directory: PathBuf,
    footprint: File,
    boot: String,
    _lock: File,
}

impl DiskStorage {
    /// Opens the directory and creates it if it is missing.
    pub(super) fn open(directory: &Path) -> Result<Self, OpenError> {
        let doing = |what: &str| format!("{what} {}", directory.display());
        if !directory.is_dir() {
            fs::create_dir_all(directory).map_err(OpenError::io(doing("creating")))?;
            // Without this sync a power cut could remove the directory itself, with everything in it.
            if let Some(parent) = directory.parent().filter(|p| !p.as_os_str().is_empty()) {
                sync_directory(parent).map_err(OpenError::io(doing("syncing the parent of")))?;
            }
        }
        let path = directory.join("lock");
        let options = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = options.map_err(OpenError::io(format!("opening {}", path.display())))?;
        match lock.try_lock() {
            Ok(()) => {
                let path = directory.join(FOOTPRINT);
                let options = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
                let footprint = options.map_err(OpenError::io(format!("opening {}", path.display())))?;
                Ok(Self { directory: directory.to_owned(), footprint, boot: boot(), _lock: lock })
            }
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked(directory.to_owned())),
            Err(TryLockError::Error(error)) => {
                Err(OpenError::Io { doing: format!("locking {}", path.display()), error })
            }
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(file_name(number))
    }
}

/// Identifies the current boot. On other systems than Linux it returns an empty text, and then no earlier boot counts
/// as the same.
pub(super) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// On other systems a directory cannot be opened as a file, and the file system takes care of its entries.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

impl Storage for DiskStorage {
    fn list(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            numbers.extend(entry?.file_name().to_str().and_then(number_of));
        }
        Ok(numbers)
    }

    fn create(&self, number: u64) -> io::Result<Box<dyn SegmentFile>> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(self.path(number))?;
        file.set_len(0)?;
        Ok(Box::new(file))
    }

    fn open(&self, number: u64) -> io::Result<Box<dyn SegmentFile>> {
        Ok(Box::new(OpenOptions::new().read(true).append(true).open(self.path(number))?))
    }

    fn remove(&self, number: u64) -> io::Result<()> {
        fs::remove_file(self.path(number))
    }

    fn sync_directory(&self) -> io::Result<()> {
        sync_directory(&self.directory)
    }

    fn footprint(&self) -> io::Result<Vec<u8>> {
        fs::read(self.directory.join(FOOTPRINT))
    }

    fn write_footprint(&self, bytes: &[u8], synced: bool) -> io::Result<()> {
        let mut file = &self.footprint;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(bytes)?;
        if synced { file.sync_all() } else { Ok(()) }
    }

    fn identity(&self) -> io::Result<Vec<u8>> {
        match fs::read(self.directory.join(IDENTITY)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            read => read,
        }
    }

    fn write_identity(&self, bytes: &[u8]) -> io::Result<()> {
        let begun = self.directory.join("identity.new");
        let mut file = File::create(&begun)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&begun, self.directory.join(IDENTITY))?;
        self.sync_directory()
    }

    fn write_cut_file(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.directory.join(name);
        let written = File::create(&path).and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
        if written.is_err() {
            // A partial file would only take space that is already short.
            let _ = fs::remove_file(path);
        }
        written?;
        self.sync_directory()
    }

    fn move_to_cut_file(&self, number: u64, name: &str) -> io::Result<()> {
        fs::rename(self.path(number), self.directory.join(name))
    }

    fn cut_files(&self) -> io::Result<Vec<(String, u64)>> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            if let Some(name) = entry.file_name().to_str().filter(|name| name.starts_with(CUT)) {
                kept.push((name.to_owned(), entry.metadata()?.len()));
            }
        }
        Ok(kept)
    }

    fn remove_cut_file(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.directory.join(name))
    }

    fn boot(&self) -> String {
        self.boot.clone()
    }
}

impl SegmentFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Read::read(self, buffer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(self, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }
}

/// Reads a segment from its start, frame by frame, with large reads.
pub(super) struct SegmentScanner {
    file: Box<dyn SegmentFile>,
    /// The file's size when the scan began. Every length in the file is checked against it.
    size: u64,
    /// Holds at most [`READ_BYTES`], or one frame if it is longer. A frame is never longer than the file.
    buffer: Vec<u8>,
    /// The part of `buffer` that was read and is not consumed yet.
    begin: usize,
    end: usize,
    /// The position of `begin` in the file.
    position: u64,
    reads: u64,
}

/// What comes next in a segment.
pub(super) enum Scanned<'a> {
    /// A frame, with its header, whose checksum is right.
    Frame(&'a [u8]),
    /// The file ends after a whole frame.
    End,
    /// No frame begins at this position.
    Invalid { at: u64, why: &'static str },
}

impl SegmentScanner {
    pub(super) fn new(file: Box<dyn SegmentFile>) -> io::Result<Self> {
        let size = file.size()?;
        Ok(Self { file, size, buffer: Vec::new(), begin: 0, end: 0, position: 0, reads: 0 })
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Returns how often the file was read so far.
    pub(super) fn reads(&self) -> u64 {
        self.reads
    }

    pub(super) fn into_file(self) -> Box<dyn SegmentFile> {
        self.file
    }

    /// Reads the segment's header. This must be the first call, and is made once.
    pub(super) fn header(&mut self, number: u64) -> io::Result<SegmentHeader> {
        self.fill(SEGMENT_HEADER_BYTES)?;
        let header = read_header(&self.buffer[self.begin..self.end], number);
        self.skip(SEGMENT_HEADER_BYTES.min(self.end - self.begin));
        Ok(header)
    }

    pub(super) fn next(&mut self) -> io::Result<Scanned<'_>> {
        let at = self.position;
        let left = self.size.saturating_sub(at);
        if left == 0 {
            return Ok(Scanned::End);
        }
        if !self.fill(FRAME_HEADER_BYTES)? {
            return Ok(Scanned::Invalid { at, why: "a record's length is cut off" });
        }
        let Some((length, _)) = frame_header(&self.buffer[self.begin..self.end]) else {
            return Ok(Scanned::Invalid { at, why: "a record's length is cut off" });
        };
        // The length can be any four bytes, so every limit is checked before the length is used.
        if length == 0 {
            return Ok(Scanned::Invalid { at, why: "a record of no bytes" });
        }
        if length > MAX_PAYLOAD {
            return Ok(Scanned::Invalid { at, why: "a record longer than the format allows" });
        }
        let whole = FRAME_HEADER_BYTES + length;
        if whole as u64 > left || !self.fill(whole)? {
            return Ok(Scanned::Invalid { at, why: "a record is cut off" });
        }
        let from = self.begin;
        if !is_valid(&self.buffer[from..from + whole]) {
            return Ok(Scanned::Invalid { at, why: "a record's checksum differs" });
        }
        self.skip(whole);
        Ok(Scanned::Frame(&self.buffer[from..from + whole]))
    }

    /// Reads everything from the position of the next frame to the end of the file.
    pub(super) fn rest(&mut self) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.size.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let mut rest = self.buffer[self.begin..self.end].to_vec();
        rest.truncate(left);
        let mut read = rest.len();
        rest.resize(left, 0);
        while read < left {
            match self.file.read(&mut rest[read..]) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        rest.truncate(read);
        Ok(rest)
    }

    /// Returns the position of the next frame in the file.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    fn skip(&mut self, bytes: usize) {
        self.begin += bytes;
        self.position += bytes as u64;
    }

    /// Makes sure that `wanted` bytes are in the buffer. Returns false if the file ends before.
    fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        if self.end - self.begin >= wanted {
            return Ok(true);
        }
        self.buffer.copy_within(self.begin..self.end, 0);
        self.end -= self.begin;
        self.begin = 0;
        let room = wanted.max(READ_BYTES.min(usize::try_from(self.size).unwrap_or(READ_BYTES)));
        if self.buffer.len() < room {
            self.buffer.resize(room, 0);
        }
        while self.end < wanted {
            self.reads += 1;
            match self.file.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Ok(false),
                Ok(read) => self.end += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
