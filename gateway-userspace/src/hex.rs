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

/// As [`text`], of a known number of bytes. Reckoned, not looked up: so the compiler does all of them at once.
pub fn push<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N]) {
    let digit = |value: u8| value + b'0' + if value > 9 { b'a' - b'9' - 1 } else { 0 };
    out.extend_from_slice(bytes.map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).as_flattened());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_have_their_digits() {
        for byte in 0..=u8::MAX {
            let mut out = b"x".to_vec();
            push(&mut out, [byte, 0]);
            assert_eq!(out, format!("x{byte:02x}00").into_bytes());
            assert_eq!(text(&[0x0f, byte]), format!("0f{byte:02x}"));
        }
        assert_eq!(text(&[]), "");
    }
}
