//! The primitive types of Kafka's protocol (kafka.apache.org/protocol, "Protocol Primitive Types"): big-endian, with
//! lengths before what they are of.

/// Not what a broker answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an answer that is none of Kafka's")]
pub struct Malformed;

#[derive(Debug, Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn i8(&mut self, value: i8) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    pub fn i16(&mut self, value: i16) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    pub fn i32(&mut self, value: i32) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.put(&value.to_be_bytes())
    }

    /// STRING. All of ours are short.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.i16(i16::try_from(text.len()).unwrap_or(i16::MAX)).put(text.as_bytes())
    }

    /// BYTES
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.i32(i32::try_from(bytes.len()).unwrap_or(i32::MAX)).put(bytes)
    }

    /// VARINT and VARLONG: zigzag, seven bits a byte, the lowest first.
    pub fn varint(&mut self, value: i64) -> &mut Self {
        let mut left = ((value << 1) ^ (value >> 63)) as u64;
        while left >= 0x80 {
            self.0.push(left as u8 | 0x80);
            left >>= 7;
        }
        self.0.push(left as u8);
        self
    }

    pub fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

/// How many bytes [`Writer::varint`] takes.
pub fn varint_length(value: i64) -> usize {
    let bits = 64 - (((value << 1) ^ (value >> 63)) as u64).leading_zeros() as usize;
    bits.div_ceil(7).max(1)
}

/// Reads what a broker answers, which may be anything.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn i16(&mut self) -> Result<i16, Malformed> {
        Ok(i16::from_be_bytes(self.array()?))
    }

    pub fn i32(&mut self) -> Result<i32, Malformed> {
        Ok(i32::from_be_bytes(self.array()?))
    }

    pub fn i64(&mut self) -> Result<i64, Malformed> {
        Ok(i64::from_be_bytes(self.array()?))
    }

    /// NULLABLE_STRING; STRING is one that is there.
    pub fn text(&mut self) -> Result<Option<&'a str>, Malformed> {
        match self.i16()? {
            -1 => Ok(None),
            length => {
                let bytes = self.take(usize::try_from(length).map_err(|_| Malformed)?)?;
                std::str::from_utf8(bytes).map(Some).map_err(|_| Malformed)
            }
        }
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.i32()?;
        self.take(usize::try_from(length).map_err(|_| Malformed)?)
    }

    /// ARRAY. Each element takes a byte at least, so there are no more than bytes.
    pub fn each<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = match self.i32()? {
            -1 => 0,
            count => usize::try_from(count).map_err(|_| Malformed)?,
        };
        if count > self.0.len() {
            return Err(Malformed);
        }
        (0..count).map(|_| read(self)).collect()
    }

    pub fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_length_are_as_the_protocol_has_them() {
        for (value, bytes) in [
            (0, &[0][..]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[0x7e]),
            (64, &[0x80, 0x01]),
            (-65, &[0x81, 0x01]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ] {
            let mut out = Writer::default();
            out.varint(value);
            assert_eq!((out.0.as_slice(), varint_length(value)), (bytes, bytes.len()), "{value}");
        }
    }

    #[test]
    fn what_ends_early_or_promises_too_much_is_no_answer() {
        assert_eq!(Reader(&[0]).i16(), Err(Malformed));
        assert_eq!(Reader(&[0, 2, b'a']).text(), Err(Malformed));
        assert_eq!(Reader(&[0xff, 0xfe]).text(), Err(Malformed));
        assert_eq!(Reader(&[0xff, 0xff]).text(), Ok(None));
        assert_eq!(Reader(&[0x7f, 0xff, 0xff, 0xff, 0]).each(Reader::i16), Err(Malformed));
        assert_eq!(Reader(&[0, 0, 0, 1, 0, 7]).each(Reader::i16), Ok(vec![7]));
    }
}
