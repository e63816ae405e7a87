//! Inputs from strangers, made from good ones by random changes: the same checks as those of the fuzzer, which finds more and
//! takes longer to build than all tests.

use std::{fs, path::Path};

use proptest::{collection::vec, prelude::*, sample::select};

use crate::targets;

/// Inputs of each kind, unless PROPTEST_CASES asks for more.
const CASES: u32 = 2_000;

/// Changes of one input at most.
const MAX_CHANGES: usize = 8;

/// Bytes that one change moves at most.
const MAX_PIECE: usize = 64;

/// A change of an input. Positions are taken modulo its length.
#[derive(Clone, Debug)]
enum Change {
    Flip {
        at: usize,
        bit: u8,
    },
    Insert {
        at: usize,
        piece: Vec<u8>,
    },
    Remove {
        at: usize,
        bytes: usize,
    },
    /// Repeats a piece at another position.
    Copy {
        from: usize,
        bytes: usize,
        to: usize,
    },
    /// What is behind here goes.
    Cut {
        at: usize,
    },
}

impl Change {
    fn apply(&self, input: &mut Vec<u8>) {
        let within = |at: usize| at % (input.len() + 1);
        match self {
            Self::Flip { at, bit } => {
                let at = within(*at);
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            Self::Insert { at, piece } => {
                let at = within(*at);
                input.splice(at..at, piece.iter().copied());
            }
            Self::Remove { at, bytes } => {
                let at = within(*at);
                let end = input.len().min(at + bytes);
                input.drain(at..end);
            }
            Self::Copy { from, bytes, to } => {
                let (from, to) = (within(*from), within(*to));
                let piece = input[from..input.len().min(from + bytes)].to_vec();
                input.splice(to..to, piece);
            }
            Self::Cut { at } => input.truncate(within(*at)),
        }
    }
}

fn change(words: Vec<Vec<u8>>) -> impl Strategy<Value = Change> {
    let at = any::<u16>().prop_map(usize::from);
    let piece = if words.is_empty() {
        vec(any::<u8>(), 1..8).boxed()
    } else {
        prop_oneof![3 => select(words), 1 => vec(any::<u8>(), 1..8)].boxed()
    };
    prop_oneof![
        2 => (at.clone(), 0..8_u8).prop_map(|(at, bit)| Change::Flip { at, bit }),
        4 => (at.clone(), piece).prop_map(|(at, piece)| Change::Insert { at, piece }),
        2 => (at.clone(), 1..MAX_PIECE).prop_map(|(at, bytes)| Change::Remove { at, bytes }),
        2 => (at.clone(), 1..MAX_PIECE, at.clone()).prop_map(|(from, bytes, to)| Change::Copy { from, bytes, to }),
        1 => at.prop_map(|at| Change::Cut { at }),
    ]
}

/// The good inputs of a kind, with random changes.
fn changed(kind: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let mut paths: Vec<_> =
        fs::read_dir(fuzz.join("seeds").join(kind)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let seeds: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    let dictionary = fs::read_to_string(fuzz.join(format!("{kind}.dict"))).unwrap_or_default();
    let words = dictionary.lines().filter_map(word).collect();
    (select(seeds), vec(change(words), 0..=MAX_CHANGES)).prop_map(|(mut input, changes)| {
        for change in &changes {
            change.apply(&mut input);
        }
        input
    })
}

/// The word of one line of a dictionary. What is escaped there are quotation marks and backslashes.
fn word(line: &str) -> Option<Vec<u8>> {
    let quoted = line.trim().strip_prefix('"')?.strip_suffix('"')?;
    Some(quoted.replace("\\\"", "\"").replace("\\\\", "\\").into_bytes())
}

fn config() -> ProptestConfig {
    let config = ProptestConfig::default();
    ProptestConfig { cases: config.cases.max(CASES), ..config }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn documents(input in changed("documents")) {
        targets::documents::run(&input);
    }

    #[test]
    fn frames(input in changed("frames")) {
        targets::frames::run(&input);
    }

    #[test]
    fn sockets(input in changed("sockets")) {
        targets::sockets::run(&input);
    }

    #[test]
    fn log(input in changed("log")) {
        targets::log::run(&input);
    }
}
