//! Checks texts that come in pieces.

/// Finds out as early as can be that a text in pieces is not UTF-8.
#[derive(Default)]
pub struct Utf8Check {
    /// The beginning of a character whose rest has not come.
    begun: [u8; 4],
    length: usize,
}

impl Utf8Check {
    /// Takes the next piece. Returns whether the text can still be UTF-8.
    pub fn feed(&mut self, mut bytes: &[u8]) -> bool {
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
                Err(_) => return false,
            }
        }
        let Err(error) = std::str::from_utf8(bytes) else { return true };
        if error.error_len().is_some() {
            return false;
        }
        let begun = &bytes[error.valid_up_to()..];
        self.begun[..begun.len()].copy_from_slice(begun);
        self.length = begun.len();
        true
    }
}
