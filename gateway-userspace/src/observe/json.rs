//! JSON written as text: lines and spans are written so often that trees of values would cost more than all else of them.

/// `key` and a number.
pub fn number(out: &mut Vec<u8>, key: &[u8], value: u64) {
    out.extend_from_slice(key);
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// `key` and a string. Nearly every value is plain ASCII, copied whole; the rest is escaped, with invalid UTF-8 replaced
/// (U+FFFD).
pub fn text(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    out.extend_from_slice(key);
    if is_plain(value) {
        out.push(b'"');
        out.extend_from_slice(value);
        out.push(b'"');
    } else {
        let lossy = String::from_utf8_lossy(value);
        // A Vec takes every write and a str is always valid JSON.
        let _ = serde_json::to_writer(&mut *out, lossy.as_ref());
    }
}

pub fn optional(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    if let Some(value) = value {
        text(out, key, value);
    }
}

/// Nothing to escape; of odd text it may say no where yes would do. Eight bytes at a time: nearly all values are short.
fn is_plain(text: &[u8]) -> bool {
    const ALL: u64 = u64::MAX / 0xff;
    const HIGH: u64 = ALL * 0x80;
    let below = |word: u64, byte: u64| word.wrapping_sub(ALL * byte) & !word & HIGH;
    let has = |word: u64, byte: u8| below(word ^ (ALL * u64::from(byte)), 1);
    let odd = |bytes: [u8; 8]| {
        let word = u64::from_le_bytes(bytes);
        word & HIGH | below(word, 0x20) | has(word, b'"') | has(word, b'\\') | has(word, 0x7f)
    };
    let (words, rest) = text.as_chunks::<8>();
    // Of longer ones some bytes are looked at twice.
    let last = text.last_chunk().copied().unwrap_or_else(|| {
        let mut last = [b' '; 8];
        last[..rest.len()].copy_from_slice(rest);
        last
    });
    words.iter().fold(odd(last), |all, word| all | odd(*word)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_nothing_to_escape_is_told_from_what_has() {
        for at in 0..20 {
            for byte in 0..=u8::MAX {
                let mut text = *b"~ !#[]azAZ09 /?=&._~";
                assert!(is_plain(&text[..at]));
                text[at] = byte;
                let plain = matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\';
                assert_eq!(is_plain(&text), plain, "{byte:#x} at {at}");
            }
        }
    }
}
