//! Bytes as hexadecimal digits.

/// Two lower case digits a byte.
pub fn text(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(2 * bytes.len());
    for byte in bytes {
        push(&mut out, [*byte]);
    }
    // Digits are ASCII.
    String::from_utf8(out).unwrap_or_default()
}

/// As [`text`], of a known number of bytes.
pub fn push<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N]) {
    let mut text = [[0; 2]; N];
    let (words, rest) = bytes.as_chunks::<4>();
    let (to, last) = text.as_flattened_mut().as_chunks_mut::<8>();
    to.iter_mut().zip(words).for_each(|(to, word)| *to = digits(*word));
    let mut padded = [0; 4];
    padded[..rest.len()].copy_from_slice(rest);
    last.copy_from_slice(&digits(padded)[..last.len()]);
    out.extend_from_slice(text.as_flattened());
}

/// Eight digits at once, reckoned in one word.
fn digits(bytes: [u8; 4]) -> [u8; 8] {
    const ONES: u64 = u64::MAX / 0xff;
    let mut word = u64::from(u32::from_be_bytes(bytes));
    // Each half goes to the end of its half of the room, until every digit has a byte.
    for (shift, mask) in [(16, 0x0000_ffff_0000_ffff), (8, 0x00ff_00ff_00ff_00ff), (4, 0x0f0f_0f0f_0f0f_0f0f)]
    {
        word = (word << shift | word) & mask;
    }
    let letters = (word + ONES * 6) >> 4 & ONES;
    (word + ONES * u64::from(b'0') + letters * u64::from(b'a' - b'9' - 1)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_have_their_digits() {
        for byte in 0..=u8::MAX {
            let mut out = b"x".to_vec();
            push(&mut out, [byte, 0]);
            push(&mut out, [0xa9, byte, 0x10, !byte, byte, 7]);
            assert_eq!(out, format!("x{byte:02x}00a9{byte:02x}10{:02x}{byte:02x}07", !byte).into_bytes());
            assert_eq!(text(&[0x0f, byte]), format!("0f{byte:02x}"));
        }
        assert_eq!(text(&[]), "");
    }
}
