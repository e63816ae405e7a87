//! The input of an import. It is read twice, first to check everything, and then to write.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::fd::AsFd,
    path::Path,
};

/// The longest line that is read, in bytes. It is more than a message of the largest payload takes, and more than a
/// consumer with positions in as many topics as allowed. A longer line is not from an export and is not held in
/// memory.
const MAX_LINE: u64 = 96 << 20;

/// Input that can be read twice.
pub(super) struct Input {
    file: File,
    /// The position in the file at which the input begins.
    start: u64,
}

impl Input {
    /// Opens a file, or standard input. Input that cannot be read twice is copied to a temporary file first.
    ///
    /// # Errors
    /// Returns one line.
    pub fn open(path: Option<&Path>) -> Result<Self, String> {
        let name = path.map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
        let open = || -> io::Result<Self> {
            let mut file = match path {
                Some(path) => File::open(path)?,
                None => File::from(io::stdin().as_fd().try_clone_to_owned()?),
            };
            if file.metadata()?.is_file() {
                let start = file.stream_position()?;
                return Ok(Self { file, start });
            }
            let mut copy = tempfile::tempfile()?;
            io::copy(&mut file, &mut copy)?;
            copy.flush()?;
            Ok(Self { file: copy, start: 0 })
        };
        open().map_err(|error| format!("{name}: {error}"))
    }

    /// Returns the lines, from the first on.
    ///
    /// # Errors
    /// Returns one line.
    pub fn lines(&mut self) -> Result<Lines<&mut File>, String> {
        self.file.seek(SeekFrom::Start(self.start)).map_err(|error| error.to_string())?;
        Ok(Lines::new(&mut self.file))
    }
}

/// Lines with their numbers.
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    /// The number of the line that was read last. The first line has number 1.
    pub number: u64,
}

impl<R: Read> Lines<R> {
    pub fn new(reader: R) -> Self {
        Self { reader: BufReader::with_capacity(256 << 10, reader), line: Vec::new(), number: 0 }
    }

    /// Reads the next line, without its end.
    ///
    /// # Errors
    /// Returns what is wrong, without the line's number.
    pub fn next(&mut self) -> Result<Option<&mut Vec<u8>>, String> {
        self.line.clear();
        self.number += 1;
        let read = self.reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut self.line);
        let read = read.map_err(|error| error.to_string())?;
        if read == 0 {
            return Ok(None);
        }
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if read as u64 == MAX_LINE {
            return Err(format!("is longer than {MAX_LINE} bytes"));
        }
        Ok(Some(&mut self.line))
    }
}
