//! The messages of the benchmark: 100 bytes of JSON that carry a number between two marks. The load client finds the number in
//! any frame of any protocol without parsing it, also where the JSON is escaped.

/// Bytes of JSON in the data of one message.
pub const SIZE: usize = 100;

/// Stands before and after the number, and nowhere else in what servers send.
const MARK: u8 = b'#';
const DIGITS: usize = 10;
const LENGTH: usize = DIGITS + 2;

/// The data of message `number`.
pub fn data(number: u64) -> String {
    data_of(number, SIZE)
}

/// The same with `size` bytes.
pub fn data_of(number: u64, size: usize) -> String {
    let start = format!("{{\"seq\":\"#{number:010}#\",\"pad\":\"");
    let padding = size.saturating_sub(start.len() + 2);
    format!("{start}{}\"}}", "abcdefghij".repeat(padding / 10 + 1).split_at(padding).0)
}

/// Calls `each` with the numbers of the messages in `bytes`, and returns how many bytes at the end may be the beginning of
/// another.
pub fn scan(bytes: &[u8], mut each: impl FnMut(u64)) -> usize {
    let mut at = 0;
    while let Some(found) = memchr::memchr(MARK, &bytes[at..]) {
        let start = at + found;
        let Some(marked) = bytes.get(start..start + LENGTH) else { return bytes.len() - start };
        let digits = &marked[1..=DIGITS];
        if marked[LENGTH - 1] == MARK && digits.iter().all(u8::is_ascii_digit) {
            each(digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')));
            at = start + LENGTH;
        } else {
            at = start + 1;
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_however_the_stream_is_cut() {
        assert_eq!(data(7).len(), SIZE);
        let stream = format!("# head {} between {} end", data(7), data(1_234_567_890));
        for cut in 0..stream.len() {
            let mut found = Vec::new();
            let (first, second) = stream.as_bytes().split_at(cut);
            let left = scan(first, |number| found.push(number));
            let mut rest = first[first.len() - left..].to_vec();
            rest.extend_from_slice(second);
            assert_eq!(scan(&rest, |number| found.push(number)), 0);
            assert_eq!(found, [7, 1_234_567_890], "cut at {cut}");
        }
    }
}
