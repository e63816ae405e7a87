//! "Did you mean": the known word that is nearest to one that is not known.

/// Words with a Jaro similarity of less than this have little in common (1 = the same word).
const SIMILAR: f64 = 0.75;

/// `; did you mean WORD?`, or nothing if none of the words is similar.
pub(super) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let word = word.to_lowercase();
    let similarity = |known: &str| strsim::jaro(&word, known);
    let nearest = known.into_iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    match nearest {
        Some(nearest) if similarity(nearest) >= SIMILAR => format!("; did you mean {nearest}?"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_similar_words_are_suggested() {
        let levels = ["trace", "debug", "info", "warn", "error", "off"];
        for (word, meant) in [("inof", "info"), ("INFO", "info"), ("warning", "warn"), ("eror", "error")] {
            assert_eq!(did_you_mean(word, levels), format!("; did you mean {meant}?"));
        }
        for word in ["verbose", "hyper", ""] {
            assert_eq!(did_you_mean(word, levels), "", "{word}");
        }
    }
}
