//! Which of several forms a caller wants, by `Accept` (RFC 9110, section 12.5.1). Pure.

use warp::http::{HeaderMap, header};

/// What a caller says of a type, or of all types that it stands for.
struct Range<'a> {
    kind: &'a str,
    subtype: &'a str,
    /// In thousandths; 0 is a refusal.
    quality: u16,
}

/// The form that the caller prefers: of the highest quality; among those the one that is named more exactly, then
/// the one that is named first, then the first of `offered`. The first as well when the caller wants none of them, or says
/// nothing: an answer in another form is better than none.
pub(super) fn preferred<'a>(headers: &HeaderMap, offered: &[&'a str]) -> &'a str {
    let texts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<Range> = texts.flat_map(|text| text.split(',')).filter_map(Range::parse).collect();
    let mut best = (0, 0, 0);
    let mut chosen = offered[0];
    for form in offered.iter().copied() {
        // What is said of a form is what the range says that names it most exactly.
        let fitting = ranges.iter().enumerate().filter_map(|(place, range)| Some((range.fits(form)?, place, range)));
        let Some((exactness, place, range)) =
            fitting.max_by_key(|(exactness, place, _)| (*exactness, usize::MAX - place))
        else {
            continue;
        };
        let rank = (range.quality, exactness, usize::MAX - place);
        if range.quality > 0 && rank > best {
            (best, chosen) = (rank, form);
        }
    }
    chosen
}

impl<'a> Range<'a> {
    /// Reads `type/subtype;q=0.5`. Parameters of types are passed over; what is none of these is as well.
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let range = parts.next()?;
        // Some old clients mean everything by it.
        let (kind, subtype) = if range == "*" { ("*", "*") } else { range.split_once('/')? };
        let mut quality = 1000;
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            if name.trim().eq_ignore_ascii_case("q") {
                let number = value.trim().parse::<f32>().ok().filter(|number| (0.0..=1.0).contains(number))?;
                quality = (number * 1000.0).round() as u16;
            }
        }
        Some(Self { kind, subtype, quality })
    }

    /// How exactly it names a type, if it does.
    fn fits(&self, form: &str) -> Option<u8> {
        let (kind, subtype) = form.split_once('/')?;
        match (self.kind, self.subtype) {
            ("*", "*") => Some(0),
            (own, "*") if own.eq_ignore_ascii_case(kind) => Some(1),
            (own, sub) if own.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subtype) => Some(2),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use warp::http::HeaderValue;

    const OFFERED: [&str; 3] = ["application/json", "image/png", "image/svg+xml"];

    fn of(lines: &[&str]) -> &'static str {
        let line = |text: &&str| (header::ACCEPT, HeaderValue::from_str(text).unwrap());
        preferred(&lines.iter().map(line).collect(), &OFFERED)
    }

    #[test]
    fn callers_get_what_they_prefer() {
        let [json, png, svg] = OFFERED;
        for (accept, expected) in [
            ("", json),
            ("*/*", json),
            ("*", json),
            ("application/json", json),
            ("application/*", json),
            ("image/png", png),
            ("IMAGE/PNG", png),
            ("image/svg+xml", svg),
            ("image/*", png),
            ("image/*, image/svg+xml", svg),
            ("image/svg+xml, image/png", svg),
            ("image/png, image/svg+xml", png),
            ("image/png;q=0.5, image/svg+xml;q=0.6", svg),
            ("image/png ; q=0.5,application/json;charset=utf-8", json),
            ("image/png;q=0", json),
            ("*/*, application/json;q=0", png),
            ("image/*, image/png;q=0", svg),
            ("*/*;q=0.1, image/*;q=0", json),
            ("*/*, image/png", png),
            ("text/html", json),
            ("application/json;q=0", json),
            // Browsers: a page, and an image in a page.
            ("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8", json),
            ("image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8", svg),
            ("image/avif,image/webp,image/png,image/svg+xml,image/*;q=0.8,*/*;q=0.5", png),
            // What is not understood is not there.
            ("image/png;q=2, image/svg+xml;q=0.1", svg),
            ("image/png;q=x", json),
            ("png", json),
            (",;,/", json),
        ] {
            assert_eq!(of(&[accept]), expected, "{accept}");
        }
        assert_eq!(of(&[]), json);
        assert_eq!(of(&["application/json;q=0.1", "image/svg+xml"]), svg, "several lines are one");
    }

    proptest! {
        #[test]
        fn one_of_the_forms_is_chosen(accept in "[ -~]{0,80}", range in "[*a-z]{0,5}/[*+a-z]{0,7};q=[0-9.]{0,4}") {
            prop_assert!(OFFERED.contains(&of(&[&accept])));
            prop_assert!(OFFERED.contains(&of(&[&range, &accept])));
        }
    }
}
