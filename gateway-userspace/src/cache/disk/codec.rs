//! Numbers and bytes one after the other, little endian, lengths in front.

use super::super::vary::Selected;

#[derive(Debug, Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn u8(&mut self, n: u8) {
        self.0.push(n);
    }

    pub fn u32(&mut self, n: u32) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    pub fn u64(&mut self, n: u64) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    pub fn i64(&mut self, n: i64) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    pub fn u128(&mut self, n: u128) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    /// Nothing here is near 4 GiB: heads are, and what is too large is not written.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.0.extend_from_slice(bytes);
    }

    pub fn maybe(&mut self, bytes: Option<&[u8]>) {
        self.u8(u8::from(bytes.is_some()));
        if let Some(bytes) = bytes {
            self.bytes(bytes);
        }
    }

    pub fn vary(&mut self, fields: &[Selected]) {
        self.u32(u32::try_from(fields.len()).unwrap_or(u32::MAX));
        for field in fields {
            let (name, raw, normal) = field.parts();
            self.bytes(name.as_str().as_bytes());
            self.maybe(raw);
            self.maybe(normal);
        }
    }
}

/// `None`: there is less than was said.
#[derive(Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    pub fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }

    pub fn bool(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(length as usize)
    }

    pub fn maybe(&mut self) -> Option<Option<&'a [u8]>> {
        match self.bool()? {
            true => self.bytes().map(Some),
            false => Some(None),
        }
    }

    pub fn vary(&mut self) -> Option<Box<[Selected]>> {
        let count = self.u32()?;
        // Each takes some bytes, so what is not there ends it.
        (0..count)
            .map(|_| {
                let (name, raw, normal) = (self.bytes()?, self.maybe()?, self.maybe()?);
                Selected::of_parts(name, raw, normal)
            })
            .collect()
    }
}
