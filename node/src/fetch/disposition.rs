//! The file name in a `Content-Disposition` (RFC 6266). Pure. What comes out is what the host says, and as harmless as
//! that: whoever uses it cleans it.

use http::HeaderValue;
use percent_encoding::percent_decode_str;

/// The file name that a host gives: `filename*`, which can be in any script (RFC 8187), before `filename`.
pub(super) fn file_name(header: &HeaderValue) -> Option<String> {
    let bytes = header.as_bytes();
    // What is no UTF-8 is Latin-1, as headers were before.
    let text = std::str::from_utf8(bytes).map_or_else(|_| latin_1(bytes), str::to_owned);
    let (_kind, rest) = text.split_once(';')?;
    let (mut plain, mut extended) = (None, None);
    for (name, value) in parameters(rest) {
        match name.trim().to_ascii_lowercase().as_str() {
            "filename" => plain = plain.or(Some(value)),
            "filename*" => extended = extended.or_else(|| decode(value.trim())),
            _ => {}
        }
    }
    let given = |name: &String| !name.trim().is_empty();
    extended.filter(given).or(plain.filter(given)).map(|name| name.trim().to_owned())
}

/// Names and values between semicolons. Within quotes a semicolon is a letter, and a backslash makes one of what follows.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let (mut name, mut value, mut quoted) = (String::new(), None::<String>, false);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, &mut value) {
            ('\\', Some(value)) if quoted => value.extend(letters.next()),
            ('"', Some(_)) => quoted = !quoted,
            (';', _) if !quoted => found.push((std::mem::take(&mut name), value.take().unwrap_or_default())),
            ('=', None) => value = Some(String::new()),
            (_, Some(value)) => value.push(letter),
            (_, None) => name.push(letter),
        }
    }
    found.push((name, value.unwrap_or_default()));
    found
}

/// `charset'language'percent-encoded`, in one of the charsets that there are in practice.
fn decode(value: &str) -> Option<String> {
    let mut parts = value.splitn(3, '\'');
    let (charset, _language, encoded) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes: Vec<u8> = percent_decode_str(encoded).collect();
    match charset.to_ascii_lowercase().as_str() {
        "utf-8" => String::from_utf8(bytes).ok(),
        "iso-8859-1" => Some(latin_1(&bytes)),
        _ => None,
    }
}

fn latin_1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &[u8]) -> Option<String> {
        file_name(&HeaderValue::from_bytes(text).unwrap())
    }

    #[test]
    fn the_name_is_found_in_every_form() {
        for (header, expected) in [
            (&b"attachment; filename=\"a b.pdf\""[..], "a b.pdf"),
            (b"attachment; filename=x.txt; size=3", "x.txt"),
            (b"ATTACHMENT;FileName = x.txt", "x.txt"),
            (b"attachment; filename=\"a;b\\\"c.txt\"; x=y", "a;b\"c.txt"),
            (b"attachment; filename*=UTF-8''%e2%82%ac%20rates.pdf; filename=\"EURO rates.pdf\"", "\u{20ac} rates.pdf"),
            (
                b"attachment; filename=\"EURO rates.pdf\"; filename*=utf-8'en'%e2%82%ac%20rates.pdf",
                "\u{20ac} rates.pdf",
            ),
            (b"attachment; filename*=ISO-8859-1''%e4.txt", "\u{e4}.txt"),
            (b"attachment; filename*=UTF-8''a'b.txt", "a'b.txt"),
            (b"attachment; filename*=\"UTF-8''x.txt\"", "x.txt"),
            // What cannot be read is no name.
            (b"attachment; filename*=UTF-8''%ff; filename=x.txt", "x.txt"),
            (b"attachment; filename*=KOI8-R''%c1; filename=x.txt", "x.txt"),
            (b"attachment; filename*=x.pdf; filename=x.txt", "x.txt"),
            (b"attachment; filename*=UTF-8''; filename=x.txt", "x.txt"),
            (b"attachment; filename=\"\xc3\xa4.txt\"", "\u{e4}.txt"),
            (b"attachment; filename=\"\xe4.txt\"", "\u{e4}.txt"),
            (b"attachment; filename=one; filename=two", "one"),
        ] {
            assert_eq!(name(header).as_deref(), Some(expected), "{}", String::from_utf8_lossy(header));
        }
        for header in ["inline", "filename=x", "attachment; filename", "attachment; filename=\"\"", "attachment;;;", ""]
        {
            assert_eq!(name(header.as_bytes()), None, "{header}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_too_strange(text in "[ -~]{0,60}", rest in "[;=\"\\\\'%*a-z]{0,40}") {
            let _ = name(text.as_bytes());
            let _ = name(format!("attachment; filename*={rest}").as_bytes());
        }
    }
}
