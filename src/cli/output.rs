//! Standard output.

use std::io::{ErrorKind, Result, Write as _};

use tokio::io::{AsyncWriteExt as _, Stdout};

/// Bytes of lines that are written together, if so many are there at once.
const MAX_BUFFER: usize = 64 << 10;

/// Whoever reads standard output has gone. That is no failure of this command.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed;

/// Standard output, line by line.
pub struct Output {
    stdout: Stdout,
    buffer: Vec<u8>,
}

impl Output {
    pub fn new() -> Self {
        Self { stdout: tokio::io::stdout(), buffer: Vec::new() }
    }

    /// Takes a line. It is written by [`Output::flush`].
    pub fn line(&mut self, text: &str) {
        self.buffer.extend_from_slice(text.as_bytes());
        self.buffer.push(b'\n');
    }

    /// Whether what it has taken should be written before it takes more.
    pub fn is_full(&self) -> bool {
        self.buffer.len() >= MAX_BUFFER
    }

    /// Writes what it has taken.
    ///
    /// # Errors
    /// [`Closed`], and a device that is full as the other kind of error.
    pub async fn flush(&mut self) -> Result<std::result::Result<(), Closed>> {
        if self.buffer.is_empty() {
            return Ok(Ok(()));
        }
        let written = async {
            self.stdout.write_all(&self.buffer).await?;
            self.stdout.flush().await
        };
        let written = written.await;
        self.buffer.clear();
        closed(written)
    }
}

/// Tells a reader that has gone from other errors.
fn closed(written: Result<()>) -> Result<std::result::Result<(), Closed>> {
    match written {
        Ok(()) => Ok(Ok(())),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Err(Closed)),
        Err(error) => Err(error),
    }
}

/// Prints a text at once.
///
/// # Errors
/// What standard output says, unless its reader has gone.
pub fn print(text: &str) -> std::result::Result<(), super::Problem> {
    let mut stdout = std::io::stdout();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    closed(written).map(|_| ()).map_err(|error| failed(&error))
}

/// Standard output does not accept what is written.
pub fn failed(error: &std::io::Error) -> super::Problem {
    super::Problem::Failed(format!("cannot write to standard output: {error}"))
}
