//! L4 services through the kernel: real connections by every way of forwarding.

use lab::{
    backend::PORT,
    l4::{Rig, Setup, at, at4, at6},
    prelude::*,
};

fn ask(rig: &Rig, service: SocketAddr) -> Result<Response> {
    Client::connect(rig.net.client(1), service)?.get("/")
}

#[test]
fn nat_takes_connections_to_targets_and_back() -> Result<()> {
    lab_test!();
    let rig = Rig::new(shared()?, Setup::new("nat", 2))?;
    for service in [at4(PORT), at6(PORT)] {
        let mut by: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..40 {
            *by.entry(ask(&rig, service)?.backend().to_owned()).or_default() += 1;
        }
        assert_eq!(by.len(), 2, "{service}: {by:?}");
    }
    assert!(rig.packets("service")? > 100 && rig.packets("reply")? > 100);
    let peers = rig.backends[0].stats()?.peers;
    assert!(peers.iter().all(|peer| peer.ip() != IpAddr::from(rig.net.client(1).v4())), "{peers:?}");
    Ok(())
}

#[test]
fn other_ways_of_forwarding_leave_the_clients_address_and_the_reply_to_the_target() -> Result<()> {
    lab_test!();
    for forward in ["ipip", "gue", "dsr"] {
        let rig = Rig::new(shared()?, Setup::new(forward, 2))?;
        let client = rig.net.client(1);
        for (v6, source) in [(false, IpAddr::from(client.v4())), (true, client.v6().into())] {
            let mut by: BTreeMap<String, u32> = BTreeMap::new();
            for _ in 0..40 {
                let answer = ask(&rig, at(PORT, v6)).with_context(|| format!("{forward} {source}"))?;
                *by.entry(answer.backend().to_owned()).or_default() += 1;
            }
            assert_eq!(by.len(), 2, "{forward} {source}: {by:?}");
            let mut peers = rig.virtuals[0].stats()?.peers;
            peers.extend(rig.virtuals[1].stats()?.peers);
            assert!(peers.iter().any(|peer| peer.ip() == source), "{forward}: {peers:?}");
        }
        assert!(rig.packets("service")? > 200);
        assert_eq!(rig.packets("reply")?, 0);
    }
    Ok(())
}
