//! What is counted besides requests. R8, A4

use super::*;

// R8
#[test]
fn requests_at_once_are_counted_and_released_however_they_end() -> Result<()> {
    lab_test!();
    let rig = rig(
        "[limit.at-once]\nunit = \"connections\"\nmax = 200",
        "limit = \"at-once\"\nupgrade = \"websocket\"",
    )?;
    let mut busy: Vec<Client> = Vec::new();
    for _ in 0..200 {
        let mut client = rig.client()?;
        client.send("GET /slow-header?ms=60000 HTTP/1.1\r\nhost: a\r\n\r\n")?;
        busy.push(client);
    }
    rig.backends[0].until("200 are under way", |stats| stats.paths.get("/slow-header") == Some(&200))?;
    for _ in 0..10 {
        get(&rig, "/", "")?.refused(429, "limited")?;
    }
    // One client goes away, and then all do.
    busy.pop();
    eventually("its place is free", || Ok(get(&rig, "/", "")?.status == 200))?;
    let mut last = rig.client()?;
    last.send("GET /slow-header?ms=60000 HTTP/1.1\r\nhost: a\r\n\r\n")?;
    eventually("and taken by the next", || Ok(get(&rig, "/", "")?.status == 429))?;
    drop((busy, last));
    eventually("their places are free", || Ok(get(&rig, "/", "")?.status == 200))?;
    for _ in 0..10 {
        assert_eq!(get(&rig, "/", "")?.status, 200);
    }
    let listed = rig.gateway.cli(&["limit", "show", "at-once", "-o", "json"])?.ok()?.json()?;
    assert_eq!(listed["keys"], json!(0), "{listed}");
    Ok(())
}

// R8, A4
#[test]
fn bytes_and_tokens_are_counted_when_they_are_known() -> Result<()> {
    lab_test!();
    let rig = rig(
        "[limit.bytes]\nunit = \"bytes\"\nrate = \"100KiB/h\"\nkey = \"header:x-b\"\n\
         [limit.tokens]\nunit = \"tokens\"\nrate = \"100/h\"\nkey = \"header:x-t\"\n\
         [limit.points]\nrate = \"100/h\"\nkey = \"header:x-p\"\ncost = \"header:x-cost\"\n\
         [limit.posts]\nrate = \"10/h\"\nkey = \"header:x-m\"\ncost = { POST = 5 }",
        "limit = [\"bytes\", \"tokens\", \"points\", \"posts\"]",
    )?;
    let all =
        |b: &str, t: &str, p: &str, m: &str| format!("x-b: {b}\r\nx-t: {t}\r\nx-p: {p}\r\nx-m: {m}\r\n");
    // 60 KiB are let in while anything is left, which is twice; then nothing is.
    for (n, status) in [200, 200, 429].into_iter().enumerate() {
        let answer =
            get(&rig, "/big?bytes=61440", &all("1", &format!("b{n}"), &format!("b{n}"), &format!("b{n}")))?;
        assert_eq!(answer.status, status, "bytes, {n}");
    }
    for (path, first) in [("/usage?tokens=60", "a"), ("/usage-events?tokens=60", "b")] {
        for (n, status) in [200, 200, 429].into_iter().enumerate() {
            let fields =
                all(&format!("t{first}{n}"), first, &format!("t{first}{n}"), &format!("t{first}{n}"));
            let answer = get(&rig, path, &format!("{fields}accept-encoding: gzip\r\n"))?;
            assert_eq!(answer.status, status, "{path}, {n}");
        }
    }
    for (n, status) in [200, 200, 429].into_iter().enumerate() {
        let fields = all(&format!("p{n}"), &format!("p{n}"), "1", &format!("p{n}"));
        assert_eq!(get(&rig, "/usage?cost=60", &fields)?.status, status, "points, {n}");
    }
    for (n, (method, status)) in
        [("POST", 200), ("GET", 200), ("POST", 429), ("GET", 200)].into_iter().enumerate()
    {
        let fields = all(&format!("m{n}"), &format!("m{n}"), &format!("m{n}"), "1");
        assert_eq!(rig.ask(&format!("{method} /"), "a", &fields)?.status, status, "{method}, {n}");
    }
    Ok(())
}

// R8
#[test]
fn a_pace_sends_answers_no_faster_however_many_there_are() -> Result<()> {
    lab_test!();
    let rig = rig(
        "[limit.pace]\nunit = \"bytes\"\nrate = \"1MB/s\"\nburst = \"64KiB\"\npace = true\nkey = \"ip\"",
        "limit = \"pace\"",
    )?;
    let took = |clients: usize, bytes: usize| -> Result<f64> {
        let began = Instant::now();
        std::thread::scope(|scope| {
            let ask = || -> Result<()> {
                let answer = get(&rig, &format!("/big?bytes={bytes}"), "")?;
                ensure!(answer.status == 200 && answer.body.len() == bytes, "{}", answer.body.len());
                Ok(())
            };
            let asked: Vec<_> = (0..clients).map(|_| scope.spawn(ask)).collect();
            asked.into_iter().try_for_each(|one| one.join().expect("a client"))
        })?;
        Ok(began.elapsed().as_secs_f64())
    };
    // 10 MB but the burst, by one and by four at once.
    for clients in [1, 4] {
        let seconds = took(clients, 10_000_000 / clients)?;
        assert!((9.5..=10.5).contains(&seconds), "{clients}: {seconds} s");
    }
    Ok(())
}
