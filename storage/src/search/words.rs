//! From text to words, as they are compared: without case, without diacritics, in one of the forms that Unicode has for
//! the same letters.
//!
//! A word is a run of letters and digits. In scripts that write no spaces between words (Chinese, Japanese, Thai, Lao,
//! Khmer, Burmese) there are none to be found without a dictionary; a run of such letters stands in the index as its
//! pairs of neighbours, and is sought as a part of a text.

use unicode_normalization::UnicodeNormalization;

/// Longest beginning of a word that is in the index, in bytes. Longer words are compared as a whole in the message.
const INDEXED_BYTES: usize = 60;

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Token {
    /// A word between spaces or signs.
    Word(String),
    /// Letters of a script without spaces.
    Run(String),
}

/// The words of a text, in order.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let mut open = Open::default();
    if text.is_ascii() {
        for word in text.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
            found.push(Token::Word(word.to_ascii_lowercase()));
        }
        return found;
    }
    for letter in text.nfkd() {
        if is_ignored(letter) {
            continue;
        }
        let mark = unicode_normalization::char::is_combining_mark(letter);
        if mark && open.letters.is_empty() || !mark && !letter.is_alphanumeric() {
            open.close(&mut found);
            continue;
        }
        // A mark belongs to the letter before it.
        let unspaced = if mark { open.unspaced } else { is_unspaced(letter) };
        if unspaced != open.unspaced {
            open.close(&mut found);
            open.unspaced = unspaced;
        }
        fold(letter, &mut open.letters);
    }
    open.close(&mut found);
    found
}

/// A text as it is compared where it is sought as it stands, signs and all: without case and diacritics.
pub(crate) fn folded(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let mut letters = String::with_capacity(text.len());
    for letter in text.nfkd().filter(|letter| !is_ignored(*letter)) {
        fold(letter, &mut letters);
    }
    letters
}

/// A word that is being read.
#[derive(Default)]
struct Open {
    letters: String,
    unspaced: bool,
}

impl Open {
    fn close(&mut self, found: &mut Vec<Token>) {
        if self.letters.is_empty() {
            return;
        }
        let letters = std::mem::take(&mut self.letters);
        found.push(if self.unspaced { Token::Run(letters) } else { Token::Word(letters) });
    }
}

/// Upper case first: that makes one of letters that have several lower cases, and two letters of `ß`.
fn fold(letter: char, into: &mut String) {
    if letter.is_ascii() {
        into.push(letter.to_ascii_lowercase());
    } else {
        into.extend(letter.to_uppercase().flat_map(char::to_lowercase).filter(|letter| !is_ignored(*letter)));
    }
}

/// Diacritics of Latin, Greek and Cyrillic, points of Hebrew, vowel signs of Arabic (which are left out as often as
/// written), and signs that are not to be seen. Marks of other scripts are letters in all but name.
fn is_ignored(letter: char) -> bool {
    matches!(letter,
        '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{fe20}'..='\u{fe2f}'
        | '\u{591}'..='\u{5bd}' | '\u{5bf}' | '\u{5c1}' | '\u{5c2}' | '\u{5c4}' | '\u{5c5}' | '\u{5c7}'
        | '\u{610}'..='\u{61a}' | '\u{640}' | '\u{64b}'..='\u{65f}' | '\u{670}' | '\u{6d6}'..='\u{6dc}'
        | '\u{6df}'..='\u{6e4}' | '\u{6e7}' | '\u{6e8}' | '\u{6ea}'..='\u{6ed}'
        | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Whether a letter is of a script that writes no spaces between words.
fn is_unspaced(letter: char) -> bool {
    matches!(letter,
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{a9e0}'..='\u{a9ff}'
        | '\u{aa60}'..='\u{aa7f}' | '\u{3005}'..='\u{3007}' | '\u{3040}'..='\u{30ff}' | '\u{31f0}'..='\u{31ff}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

impl Token {
    /// What stands in the index for it, given to `take` piece by piece.
    pub(super) fn index(&self, mut take: impl FnMut(&str)) {
        match self {
            Self::Word(word) => take(indexed(word)),
            Self::Run(run) => {
                // The last letter has no neighbour and stands alone.
                let ends = [run.len(), run.len()];
                let letters: Vec<usize> = run.char_indices().map(|(at, _)| at).chain(ends).collect();
                for pair in letters.windows(3) {
                    take(&run[pair[0]..pair[2]]);
                }
            }
        }
    }
}

/// As much of a word as is in the index.
pub(super) fn indexed(word: &str) -> &str {
    &word[..word.floor_char_boundary(INDEXED_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(text: &str) -> Vec<String> {
        let shown = |token| match token {
            Token::Word(word) => word,
            Token::Run(run) => format!("[{run}]"),
        };
        tokens(text).into_iter().map(shown).collect()
    }

    fn index(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for token in tokens(text) {
            token.index(|piece| found.push(piece.to_owned()));
        }
        found
    }

    #[test]
    fn words_are_compared_without_case_and_diacritics() {
        for (a, b) in [
            ("Crème BRÛLÉE", "creme brulee"),
            ("STRASSE", "straße"),
            ("ΟΔΟΣ", "οδος"),
            ("Ёлка", "елка"),
            ("İstanbul", "istanbul"),
            ("ﬁn", "FIN"),
            ("ｆｕｌｌ", "full"),
            ("שָׁלוֹם", "שלום"),
            ("مُحَمَّد", "محمد"),
            ("e\u{301}te\u{301}", "été"),
        ] {
            assert_eq!(words(a), words(b), "{a} {b}");
        }
        assert_eq!(words("it's 3.14 in report_final.PDF"), ["it", "s", "3", "14", "in", "report", "final", "pdf"]);
        assert_eq!(words("हिन्दी में"), ["हिन्दी", "में"]);
        assert_eq!(words(" \u{301}!? 👍🏽 \u{0} — "), Vec::<String>::new());
        assert_ne!(words("कि"), words("का"), "vowel signs are no diacritics");
    }

    #[test]
    fn folding_keeps_all_but_case_and_diacritics() {
        for (text, expected) in [
            ("Élodie Müller-Straße", "elodie muller-strasse"),
            ("e\u{301}LODIE", "elodie"),
            ("Ёлка & ΟΔΟΣ 🐦", "елка & οδοσ 🐦"),
            ("\u{301}", ""),
            ("A.B", "a.b"),
            ("कि", "कि"),
        ] {
            assert_eq!(folded(text), expected);
        }
    }

    #[test]
    fn scripts_without_spaces_are_indexed_in_pairs() {
        assert_eq!(words("我爱北京Tiananmen"), ["[我爱北京]", "tiananmen"]);
        assert_eq!(index("我爱北京"), ["我爱", "爱北", "北京", "京"]);
        assert_eq!(index("東"), ["東"]);
        assert_eq!(index("abc def"), ["abc", "def"]);
        assert_eq!(words("สวัสดี ครับ").len(), 2);
        assert_eq!(words("한국어 공부").len(), 2, "Korean has spaces");
    }

    proptest! {
        #[test]
        fn nothing_empty_nothing_with_signs_and_the_same_again(text: String) {
            let found = tokens(&text);
            for token in &found {
                let (Token::Word(letters) | Token::Run(letters)) = token;
                prop_assert!(!letters.is_empty() && !letters.contains(|letter: char| letter.is_control() || letter == ' '));
                token.index(|piece| assert!(!piece.is_empty() && piece.len() <= INDEXED_BYTES && letters.contains(piece)));
            }
        }

        #[test]
        fn folding_makes_no_signs_and_loses_no_ascii(text in "[ -~é]{0,40}") {
            let found = folded(&text);
            prop_assert_eq!(found.chars().count(), text.chars().count());
            prop_assert!(found.is_ascii() && !found.contains(|letter: char| letter.is_ascii_uppercase()));
        }

        #[test]
        fn ascii_takes_the_short_way_to_the_same_words(text in "[ -~]{0,40}") {
            let long = format!("{text} é");
            let mut expected = tokens(&text);
            expected.push(Token::Word("e".to_owned()));
            prop_assert_eq!(tokens(&long), expected);
        }
    }
}
