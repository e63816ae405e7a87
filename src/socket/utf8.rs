//! Checks texts that come in pieces.

use super::CloseCode;

/// Finds out as early as can be that a text in pieces is not UTF-8.
#[derive(Default)]
pub struct Utf8Check {
    /// The beginning of a character whose rest has not come.
    begun: [u8; 4],
    length: usize,
}

impl Utf8Check {
    /// Takes the next piece.
    ///
    /// # Errors
    /// The text is not UTF-8, whatever follows.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), CloseCode> {
        while self.length > 0
            && let Some((byte, rest)) = bytes.split_first()
        {
            // Four bytes are a character or wrong, so there is room.
            self.begun[self.length] = *byte;
            self.length += 1;
            bytes = rest;
            match std::str::from_utf8(&self.begun[..self.length]) {
                Ok(_) => self.length = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(CloseCode::INVALID),
            }
        }
        let Err(error) = std::str::from_utf8(bytes) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(CloseCode::INVALID);
        }
        let begun = &bytes[error.valid_up_to()..];
        self.begun[..begun.len()].copy_from_slice(begun);
        self.length = begun.len();
        Ok(())
    }
}
