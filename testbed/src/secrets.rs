//! Looks for bytes that must not be there, in whatever form somebody could have printed them.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write,
};

use bytes::Bytes;

/// Length of what is looked for, in bytes: long enough that it is nowhere by chance.
const NEEDLE_BYTES: usize = 12;
/// Of longer things a piece is looked for every so many bytes.
const STRIDE_BYTES: usize = 48;
/// Pieces with fewer different bytes are padding, lengths or constants, which others have as well.
const DIFFERENT_BYTES_MIN: usize = 8;
/// Patterns are told apart by so many of their first bytes.
const PREFIX_BYTES: usize = 8;

/// How bytes are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// As they are.
    Raw,
    /// `deadbeef`, also with spaces in between.
    Hex,
    /// `DEADBEEF`.
    HexUpper,
    /// `[de, ad, be, ef]`.
    HexList,
    /// `[222, 173, 190, 239]`, as Rust prints a slice.
    List,
    /// `b"\xde\xad"`, as Rust prints `Bytes`.
    Escaped,
    /// Base64, with either alphabet, at any place of something longer.
    Base64,
}

/// Something was found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// What, by the name it was added with.
    pub what: String,
    /// How it was printed.
    pub form: Form,
}

struct Pattern {
    text: Vec<u8>,
    found: Found,
}

/// What must not be printed.
#[derive(Default)]
pub struct Secrets {
    patterns: HashMap<[u8; PREFIX_BYTES], Vec<Pattern>>,
    /// Whether a pattern begins with these three bytes, by their number: most of a text is passed over by this alone.
    starts: Vec<bool>,
    pieces: usize,
}

impl Secrets {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds something whose every piece counts. Returns how many pieces are looked for; none if it is shorter than 12 bytes or has
    /// no piece that is its own.
    pub fn add(&mut self, what: &str, bytes: &[u8]) -> usize {
        let pieces: Vec<&[u8]> = bytes
            .windows(NEEDLE_BYTES)
            .step_by(STRIDE_BYTES)
            .filter(|piece| piece.iter().collect::<BTreeSet<_>>().len() >= DIFFERENT_BYTES_MIN)
            .collect();
        for piece in &pieces {
            self.add_piece(what, piece);
        }
        self.pieces += pieces.len();
        pieces.len()
    }

    /// Pieces that are looked for.
    pub fn pieces(&self) -> usize {
        self.pieces
    }

    /// What of it `text` holds, each thing in each form once.
    pub fn find(&self, text: &[u8]) -> BTreeSet<Found> {
        // Printed in lines, lists and blocks: white space says nothing.
        let text: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let mut found = BTreeSet::new();
        for at in 0..text.len() {
            let rest = &text[at..];
            let Some(prefix) = rest.first_chunk::<PREFIX_BYTES>() else { break };
            if self.starts.get(start(prefix)) != Some(&true) {
                continue;
            }
            for pattern in self.patterns.get(prefix).into_iter().flatten() {
                if rest.starts_with(&pattern.text) {
                    found.insert(pattern.found.clone());
                }
            }
        }
        found
    }

    fn add_piece(&mut self, what: &str, piece: &[u8]) {
        for (form, text) in printed(piece) {
            let text: Vec<u8> = text.into_iter().filter(|byte| !byte.is_ascii_whitespace()).collect();
            let Some(prefix) = text.first_chunk().copied() else { continue };
            let found = Found { what: what.to_owned(), form };
            self.starts.resize(1 << 24, false);
            self.starts[start(&prefix)] = true;
            self.patterns.entry(prefix).or_default().push(Pattern { text, found });
        }
    }
}

fn start(prefix: &[u8; PREFIX_BYTES]) -> usize {
    usize::from(prefix[0]) << 16 | usize::from(prefix[1]) << 8 | usize::from(prefix[2])
}

/// All forms of `piece`.
fn printed(piece: &[u8]) -> Vec<(Form, Vec<u8>)> {
    let list = |write: fn(&mut String, u8)| {
        let mut text = String::new();
        for byte in piece {
            write(&mut text, *byte);
            text.push(',');
        }
        text.pop();
        text.into_bytes()
    };
    // As in `b"..."`.
    let escaped = format!("{:?}", Bytes::copy_from_slice(piece));
    let mut forms = vec![
        (Form::Raw, piece.to_vec()),
        (Form::Hex, hex::encode(piece).into_bytes()),
        (Form::HexUpper, hex::encode_upper(piece).into_bytes()),
        (Form::HexList, list(|text, byte| _ = write!(text, "{byte:02x}"))),
        (Form::List, list(|text, byte| _ = write!(text, "{byte}"))),
        (Form::Escaped, escaped.as_bytes()[2..escaped.len() - 1].to_vec()),
    ];
    for alphabet in [b"+/", b"-_"] {
        // Three bytes make four letters: where it stands in something longer decides which.
        forms.extend((0..3).map(|shift| (Form::Base64, base64(&piece[shift..], alphabet))));
    }
    forms
}

/// Without what would depend on the bytes that follow.
fn base64(bytes: &[u8], last: &[u8; 2]) -> Vec<u8> {
    let letters: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(*last).collect();
    let mut text = Vec::new();
    for [a, b, c] in bytes.as_chunks().0 {
        let word = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        text.extend([18, 12, 6, 0].map(|shift| letters[word >> shift & 63]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"\x00\xfb\xffsecret\n\r\x7f\xfe\xde\xad\xbe\xef";

    fn secrets() -> Secrets {
        let mut secrets = Secrets::new();
        assert_eq!(secrets.add("it", SECRET), 1);
        secrets
    }

    fn forms(text: &[u8]) -> Vec<Form> {
        secrets().find(text).into_iter().map(|found| found.form).collect()
    }

    #[test]
    fn every_form_is_found_in_the_midst_of_other_things() {
        let inside = |text: &str| [b"2026-01-01 INFO it is ", text.as_bytes(), b" and more\n"].concat();
        assert_eq!(forms(&[b"before", SECRET, b"after"].concat()), [Form::Raw]);
        assert_eq!(forms(&inside(&hex::encode(SECRET))), [Form::Hex]);
        assert_eq!(forms(&inside(&hex::encode_upper(SECRET))), [Form::HexUpper]);
        assert_eq!(forms(&inside(&format!("{SECRET:?}"))), [Form::List]);
        assert_eq!(forms(&inside(&format!("{SECRET:#?}"))), [Form::List]);
        assert_eq!(forms(&inside(&format!("{SECRET:02x?}"))), [Form::HexList]);
        let longer = Bytes::from([b"ab", SECRET, b"cd"].concat());
        assert_eq!(forms(&inside(&format!("{longer:?}"))), [Form::Escaped]);
        let spaced: Vec<String> = SECRET.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(forms(&inside(&spaced.join(" "))), [Form::Hex]);
        for before in 0..3 {
            for alphabet in [b"+/", b"-_"] {
                let longer = [&b"xyz"[..before], SECRET, b"zzz"].concat();
                let text = String::from_utf8(base64(&longer, alphabet)).unwrap();
                assert_eq!(forms(&inside(&text)), [Form::Base64], "{before} bytes before it");
            }
        }
    }

    #[test]
    fn base64_is_that_of_the_standard() {
        assert_eq!(base64(b"foobar", b"+/"), b"Zm9vYmFy");
        assert_eq!(base64(b"\xfb\xff\xfe", b"+/"), b"+//+");
        assert_eq!(base64(b"\xfb\xff\xfe", b"-_"), b"-__-");
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        assert!(forms(b"").is_empty());
        assert!(forms(b"2026-01-01 INFO serving 00fbff73 secret [0, 251, 255]").is_empty());
        assert_eq!(Secrets::new().add("zeros", &[0; 200]), 0);
        assert_eq!(Secrets::new().add("short", b"short"), 0);
    }
}
