//! Answers by method and status code.

use http::{Method, StatusCode};

use super::Count;

/// Methods with a label of their own; anything else is "other".
pub const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", "other"];

/// The index of "other".
pub const OTHER_METHOD: usize = METHODS.len() - 1;

pub fn method_index(method: &Method) -> usize {
    METHODS.iter().position(|name| *name == method.as_str()).unwrap_or(OTHER_METHOD)
}

const CODE_SLOTS: usize = 64;

/// Status codes with a counter of their own: the registered ones and 499. Others count under their class (x99).
const CODES: [u16; CODE_SLOTS - 4] = [
    101, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307, 308, 400, 401,
    402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422, 423, 424,
    425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
];

const OTHER_CODES: [u16; 4] = [299, 399, 498, 599];

const SLOT_OF_CODE: [u8; 600] = {
    let mut slots = [0u8; 600];
    let mut code = 0;
    while code < 600 {
        slots[code] = (CODES.len()
            + if code < 300 {
                0
            } else if code < 400 {
                1
            } else if code < 500 {
                2
            } else {
                3
            }) as u8;
        code += 1;
    }
    let mut i = 0;
    while i < CODES.len() {
        slots[CODES[i] as usize] = i as u8;
        i += 1;
    }
    slots
};

/// Counts by status code.
#[derive(Debug)]
pub struct Codes([Count; CODE_SLOTS]);

impl Default for Codes {
    fn default() -> Self {
        Codes(std::array::from_fn(|_| Count::default()))
    }
}

impl Codes {
    #[inline]
    pub fn count(&self, status: StatusCode) {
        let slot = SLOT_OF_CODE[usize::from(status.as_u16()).min(599)];
        self.0[usize::from(slot)].add(1);
    }

    /// Each counter with its code.
    pub(super) fn cells(&self) -> impl Iterator<Item = (u16, &Count)> {
        CODES.iter().chain(&OTHER_CODES).copied().zip(&self.0)
    }
}

/// The sums of several workers' counts.
#[derive(Debug)]
pub(super) struct CodeSums([u64; CODE_SLOTS]);

impl Default for CodeSums {
    fn default() -> Self {
        CodeSums([0; CODE_SLOTS])
    }
}

impl CodeSums {
    pub fn add(&mut self, codes: &Codes) {
        self.0.iter_mut().zip(&codes.0).for_each(|(sum, count)| *sum += count.get());
    }

    /// Those that were given at all.
    pub fn each(&self, mut f: impl FnMut(u16, u64)) {
        let all = CODES.iter().chain(&OTHER_CODES).zip(self.0);
        all.filter(|(_, n)| *n > 0).for_each(|(code, n)| f(*code, n));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_codes_count_under_their_class() {
        let codes = Codes::default();
        codes.count(StatusCode::from_u16(299).unwrap());
        codes.count(StatusCode::from_u16(987).unwrap());
        let (mut seen, mut sums) = (Vec::new(), CodeSums::default());
        sums.add(&codes);
        sums.each(|code, n| seen.push((code, n)));
        assert_eq!(seen, [(299, 1), (599, 1)]);
    }
}
