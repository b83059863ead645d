//! Requests with random damage, thousands of them: nothing panics, nothing leaks, honest clients notice nothing.

use std::{
    io::{Read, Write},
    net::Shutdown,
    time::Instant,
};

use lab::{
    backend::{start_all, targets},
    prelude::*,
};

const SEEDS: [&[u8]; 9] = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: t\r\n\r\n5\r\nhello\r\n0\r\nt: 1\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"GET http://b/x HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te, close\r\nExpect: 100-continue\r\n\r\n",
    b"HEAD /a?b=c HTTP/1.0\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: \xff\r\nX: \xe9\r\n\r\n",
];

/// xorshift64: the same damage for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }

    fn bytes(&mut self) -> Vec<u8> {
        (0..1 + self.below(7)).map(|_| self.below(256) as u8).collect()
    }
}

/// One to five requests behind each other, with up to ten pieces of damage.
fn mangled(random: &mut Random) -> Vec<u8> {
    let mut bytes: Vec<u8> =
        (0..=random.below(5)).flat_map(|_| SEEDS[random.below(SEEDS.len())].to_vec()).collect();
    for _ in 0..random.below(10) {
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => bytes[at] = random.below(256) as u8,
            1 => drop(bytes.drain(at..(at + random.below(8)).min(bytes.len()))),
            2 => drop(bytes.splice(at..at, random.bytes())),
            _ => {
                let again = bytes[at.saturating_sub(20)..at].to_vec();
                drop(bytes.splice(at..at, again));
            }
        }
        if bytes.is_empty() {
            return vec![b'x'];
        }
    }
    bytes
}

/// Sends it whole or in two pieces, maybe half-closes, reads a little, leaves.
fn throw(node: &Node, to: std::net::SocketAddr, random: &mut Random) -> std::io::Result<()> {
    let bytes = mangled(random);
    let mut stream = node.connect(to, None)?;
    stream.set_read_timeout(Some(Duration::from_millis(20)))?;
    let (first, rest) = bytes.split_at(random.below(bytes.len() + 1));
    stream.write_all(first)?;
    stream.write_all(rest)?;
    if random.below(3) == 0 {
        stream.shutdown(Shutdown::Write)?;
    }
    let _ = stream.read(&mut [0; 4096])?;
    Ok(())
}

#[test]
fn thousands_of_mangled_requests_do_no_harm() -> Result<()> {
    lab_test!();
    let _turn = shared()?;
    let net = Net::simple(1)?;
    let backends = start_all(&net)?;
    let config = format!(
        "[listener.web]\nbind = \":80\"\n[route.all]\nto = {}\nupgrade = [\"websocket\"]\nearly_hints = true\n",
        targets(&backends)
    );
    let gateway = Gateway::start(&net, &config)?;
    let until = Instant::now() + Duration::from_secs(6);
    let thrown: usize = std::thread::scope(|scope| {
        let throwers: Vec<_> = (1..=16u64)
            .map(|seed| {
                let (net, at) = (&net, gateway.at4());
                scope.spawn(move || {
                    let mut random = Random(seed * 0x9e37_79b9_7f4a_7c15);
                    let mut thrown = 0;
                    while Instant::now() < until {
                        // Being cut off is part of the game.
                        let _ = throw(net.client(1), at, &mut random);
                        thrown += 1;
                    }
                    thrown
                })
            })
            .collect();
        throwers.into_iter().map(|thrower| thrower.join().unwrap_or(0)).sum()
    });
    assert!(thrown > 1000, "only {thrown}");
    assert_eq!(lab::http::get(net.client(1), gateway.at4(), "/")?.status, 200);
    let said = gateway.stderr();
    assert!(!said.iter().any(|line| line.contains("panicked")), "{said:#?}");
    eventually("nothing is left under way", || {
        let metrics = gateway.metrics()?;
        Ok(metrics.sum("http_active_requests", &[]) == 0.0
            && metrics.sum("connections_active", &[]) == 0.0
            && metrics.sum("upstream_active_requests", &[]) == 0.0)
    })
}
