//! Standard base64 with padding (RFC 4648).

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().enumerate().fold(0u32, |word, (at, &byte)| word | u32::from(byte) << (16 - 8 * at));
        for place in 0..4 {
            let six = word >> (18 - 6 * place) & 0x3f;
            text.push(if place <= chunk.len() { ALPHABET[six as usize] as char } else { '=' });
        }
    }
    text
}

/// `None` for text that is not what [`encode`] makes of any bytes.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for chunk in digits.as_bytes().chunks(4) {
        let mut word = 0u32;
        for (place, digit) in chunk.iter().enumerate() {
            let six = ALPHABET.iter().position(|known| known == digit)? as u32;
            word |= six << (18 - 6 * place);
        }
        bytes.extend(&word.to_be_bytes()[1..chunk.len()]);
    }
    // Padding that is missing or too long, and bits behind the last byte, are somebody's mistake.
    (encode(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    /// The vectors of RFC 4648, section 10.
    #[test]
    fn bytes_are_shown_and_read_as_base64_of_rfc_4648() {
        let vectors = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (bytes, text) in vectors {
            assert_eq!(encode(bytes.as_bytes()), text);
            assert_eq!(decode(text).as_deref(), Some(bytes.as_bytes()));
        }
        assert_eq!(decode("//79"), Some(vec![0xff, 0xfe, 0xfd]));
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for text in ["Zg", "Zg=", "Zg===", "Zh==", "Z", "Zm9v=", "Zm 9v", "Zm9v\n", "ä", "===="] {
            assert_eq!(decode(text), None, "{text:?}");
        }
    }
}
