//! Taking a header from a socket.

use std::io;

use tokio::{io::AsyncReadExt, net::TcpStream};

use super::{FIXED_V2, Header, MOST_V1, Malformed, SIGNATURE, parse};

/// Why there is no header.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the connection ended within the PROXY header")]
    Ended,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads one header: nothing behind it is taken from the socket, because that belongs to whoever comes next. The caller
/// bounds the time.
pub async fn read(stream: &mut TcpStream) -> Result<Header, Refused> {
    let mut bytes = Vec::with_capacity(64);
    loop {
        if let Some((header, _)) = parse(&bytes)? {
            return Ok(header);
        }
        let more = safe(stream, &bytes).await?;
        let before = bytes.len();
        bytes.resize(before + more, 0);
        let n = stream.read(bytes.get_mut(before..).unwrap_or_default()).await?;
        bytes.truncate(before + n);
        if n == 0 {
            return Err(Refused::Ended);
        }
    }
}

/// How many bytes more surely belong to the header that begins with `bytes`.
async fn safe(stream: &TcpStream, bytes: &[u8]) -> Result<usize, Refused> {
    let have = bytes.len();
    // No header of either version is shorter than the signature of version 2.
    if have < SIGNATURE.len() {
        return Ok(SIGNATURE.len() - have);
    }
    if bytes.starts_with(&SIGNATURE) {
        let length = match bytes.get(FIXED_V2 - 2..FIXED_V2) {
            Some(&[high, low]) => FIXED_V2 + usize::from(u16::from_be_bytes([high, low])),
            _ => FIXED_V2,
        };
        return Ok(length - have);
    }
    // Version 1 ends at its line's end: look before taking.
    let mut ahead = [0; MOST_V1];
    let room = MOST_V1.saturating_sub(have).max(1);
    let n = stream.peek(ahead.get_mut(..room).unwrap_or_default()).await?;
    let seen = ahead.get(..n).unwrap_or_default();
    Ok(seen.iter().position(|byte| *byte == b'\n').map_or(n.max(1), |end| end + 1))
}
