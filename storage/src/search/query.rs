//! What is sought: words, and whether a message has them.

use super::words::{Token, indexed, tokens};
use crate::HistoryRow;

/// Most characters of a query.
const MAX_CHARS: usize = 256;
/// Most words of a query.
const MAX_WORDS: usize = 16;

/// Why a text cannot be sought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Too long.
    #[error("must have at most {MAX_CHARS} characters")]
    TooLong,
    /// Too many words.
    #[error("must have at most {MAX_WORDS} words")]
    TooManyWords,
    /// Control characters.
    #[error("must not have control characters")]
    Control,
    /// No letters and no digits.
    #[error("must have a word: letters or digits")]
    Empty,
}

/// Words that a message must have, all of them. The last one may be the beginning of a longer word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    tokens: Vec<Token>,
}

impl Query {
    /// Reads what a caller seeks.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        if text.chars().count() > MAX_CHARS {
            return Err(QueryError::TooLong);
        }
        if text.chars().any(|letter| letter.is_control() && letter != '\t') {
            return Err(QueryError::Control);
        }
        let mut tokens = tokens(text);
        let Some(last) = tokens.pop() else { return Err(QueryError::Empty) };
        if tokens.len() >= MAX_WORDS {
            return Err(QueryError::TooManyWords);
        }
        tokens.sort_unstable();
        tokens.dedup();
        tokens.push(last);
        Ok(Self { tokens })
    }

    /// Whether a message has all the words, as it is now.
    pub fn matches(&self, row: &HistoryRow) -> bool {
        let mut wanted: Vec<&Token> = self.tokens.iter().collect();
        let last = self.tokens.last();
        for text in texts(row) {
            for token in tokens(text) {
                wanted.retain(|sought| !has(&token, sought, last.is_some_and(|last| std::ptr::eq(last, *sought))));
            }
        }
        wanted.is_empty()
    }

    /// Words of the index that every message that matches has.
    pub(super) fn exact(&self) -> Vec<&str> {
        let mut words = Vec::new();
        let last = self.tokens.len() - 1;
        for (place, token) in self.tokens.iter().enumerate() {
            match token {
                Token::Word(word) if place < last || indexed(word).len() < word.len() => words.push(indexed(word)),
                Token::Word(_) => {}
                Token::Run(run) => {
                    let letters: Vec<usize> = run.char_indices().map(|(at, _)| at).chain([run.len()]).collect();
                    words.extend(letters.windows(3).map(|pair| &run[pair[0]..pair[2]]));
                }
            }
        }
        words
    }

    /// Beginnings, for each of which every message that matches has a word of the index.
    pub(super) fn beginnings(&self) -> Vec<&str> {
        let last = self.tokens.len() - 1;
        let beginning = |(place, token): (usize, &'_ Token)| match token {
            Token::Word(word) => place == last && indexed(word).len() == word.len(),
            // One letter begins every pair that it is in, or stands alone.
            Token::Run(run) => run.chars().count() == 1,
        };
        let places = self.tokens.iter().enumerate().filter(|(place, token)| beginning((*place, token)));
        places.map(|(_, Token::Word(text) | Token::Run(text))| text.as_str()).collect()
    }
}

fn has(token: &Token, sought: &Token, is_last: bool) -> bool {
    match (token, sought) {
        (Token::Word(word), Token::Word(sought)) if is_last => word.starts_with(sought.as_str()),
        (Token::Word(word), Token::Word(sought)) => word == sought,
        (Token::Run(run), Token::Run(sought)) => run.contains(sought.as_str()),
        _ => false,
    }
}

/// What of a message can be sought.
pub(super) fn texts(row: &HistoryRow) -> impl Iterator<Item = &str> {
    let file_name = row.media.as_ref().and_then(|media| media.file_name.as_deref());
    [row.text.as_deref(), row.caption.as_deref(), file_name].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rookery_protocol::{Timestamp, api::MessageType};

    fn row(text: &str) -> HistoryRow {
        let chat = "15550001@s.whatsapp.net".parse().unwrap();
        let row = HistoryRow::new("A".parse().unwrap(), chat, MessageType::Text, Timestamp::from_secs(1));
        HistoryRow { text: Some(text.to_owned()), ..row }
    }

    fn finds(query: &str, text: &str) -> bool {
        Query::parse(query).unwrap().matches(&row(text))
    }

    #[test]
    fn all_words_count_and_the_last_may_go_on() {
        assert!(finds("brown THE qui", "The quick, brown fox"));
        assert!(!finds("qui brown", "The quick brown fox"), "only the last word may go on");
        assert!(!finds("quick cat", "The quick brown fox"));
        assert!(finds("café", "CAFE au lait") && finds("cafe", "un Café"));
        assert!(finds("the the", "the end") && finds("the th", "the end"));
        assert!(finds("北京", "我爱北京天安门") && !finds("京北", "我爱北京天安门") && finds("爱", "我爱你"));
        assert!(!finds("北京安门", "我爱北京天安门"), "a run is sought as a whole");
        assert!(!finds("x", ""));
        let caption = HistoryRow { text: None, caption: Some("the caption".into()), ..row("") };
        assert!(Query::parse("capt").unwrap().matches(&caption));
    }

    #[test]
    fn what_is_no_query_says_why() {
        let long = "a ".repeat(200);
        let many = "a b c d e f g h i j k l m n o p q";
        for (text, why) in [
            ("", QueryError::Empty),
            (" .,!? —", QueryError::Empty),
            ("👍", QueryError::Empty),
            ("a\u{0}b", QueryError::Control),
            ("a\nb", QueryError::Control),
            (long.as_str(), QueryError::TooLong),
            (many, QueryError::TooManyWords),
        ] {
            assert_eq!(Query::parse(text), Err(why), "{text:?}");
        }
    }

    proptest! {
        /// The index proposes every message that matches.
        #[test]
        fn a_message_that_matches_has_the_words_of_the_index(
            text in "[ab京北]{0,6} [ab京北]{0,6}",
            query in "[ab京北]{1,3}( [ab京北]{1,2})?",
        ) {
            let query = Query::parse(&query).unwrap();
            let mut index = Vec::new();
            for token in tokens(&text) {
                token.index(|piece| index.push(piece.to_owned()));
            }
            let exact = query.exact().iter().all(|word| index.iter().any(|indexed| indexed == word));
            let begun = query.beginnings().iter().all(|part| index.iter().any(|word| word.starts_with(part)));
            prop_assert!(!query.exact().is_empty() || !query.beginnings().is_empty());
            prop_assert!(exact && begun || !query.matches(&row(&text)));
        }
    }
}
