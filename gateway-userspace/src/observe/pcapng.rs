//! Packets as pcapng (draft-ietf-opsawg-pcapng): what tcpdump and Wireshark read, with a comment a packet.

/// Writes one section. Interfaces are introduced when their first packet comes.
#[derive(Debug, Default)]
pub struct Writer {
    interfaces: Vec<String>,
}

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const ETHERNET: u16 = 1;
const OPT_COMMENT: u16 = 1;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;

impl Writer {
    /// What a file begins with.
    pub fn begin(&self) -> Vec<u8> {
        let mut body = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
        // Version 1.0, length not known.
        body.extend([1, 0, 0, 0]);
        body.extend([0xff; 8]);
        block(SECTION, body)
    }

    /// A packet; `length` is that of the whole frame, `time_ns` since 1970.
    pub fn packet(
        &mut self,
        interface: &str,
        time_ns: u64,
        length: u32,
        data: &[u8],
        comment: &str,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        let id = self.interfaces.iter().position(|known| known == interface).unwrap_or_else(|| {
            self.interfaces.push(interface.to_owned());
            let mut body = ETHERNET.to_le_bytes().to_vec();
            body.extend([0; 6]);
            option(&mut body, IF_NAME, interface.as_bytes());
            // Powers of ten: nanoseconds.
            option(&mut body, IF_TSRESOL, &[9]);
            body.extend([0; 4]);
            out = block(INTERFACE, body);
            self.interfaces.len() - 1
        });
        let words = [id as u32, (time_ns >> 32) as u32, time_ns as u32, data.len() as u32, length];
        let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        body.extend(data);
        pad(&mut body);
        option(&mut body, OPT_COMMENT, comment.as_bytes());
        body.extend([0; 4]);
        out.extend(block(PACKET, body));
        out
    }
}

fn block(kind: u32, body: Vec<u8>) -> Vec<u8> {
    let length = (body.len() as u32 + 12).to_le_bytes();
    [&kind.to_le_bytes()[..], &length, &body, &length].concat()
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_says_its_length_at_both_ends_and_interfaces_come_once() {
        let mut writer = Writer::default();
        let mut file = writer.begin();
        file.extend(writer.packet("eth0", 1 << 40 | 7, 60, &[1, 2, 3], "drop: blocked"));
        file.extend(writer.packet("eth0", 8, 3, &[1, 2, 3], "x"));
        let mut kinds = Vec::new();
        while !file.is_empty() {
            let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
            let (kind, length) = (word(0), word(4) as usize);
            assert_eq!((length % 4, word(length - 4) as usize), (0, length));
            if kind == PACKET {
                assert_eq!(word(20), 3);
            }
            kinds.push(kind);
            file.drain(..length);
        }
        assert_eq!(kinds, [SECTION, INTERFACE, PACKET, PACKET]);
    }
}
