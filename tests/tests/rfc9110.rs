//! What RFC 9110 and RFC 9112 ask of a gateway and no other test shows. The numbers are sections of RFC 9110 unless said
//! otherwise.

use lab::{gateway::simple_config, prelude::*};

fn rig() -> Result<Rig> {
    Rig::start(1, simple_config)
}

fn ask(rig: &Rig, request: &str) -> Result<Response> {
    let mut client = rig.client()?;
    client.send(format!("{request}\r\n"))?;
    client.response()
}

/// The values of a field that the backend saw, in order.
fn seen(answer: &Response, name: &str) -> Result<Vec<String>> {
    let echo = answer.json()?;
    let fields = echo["headers"].as_array().cloned().unwrap_or_default();
    let named = fields.iter().filter(|pair| pair[0] == name);
    Ok(named.filter_map(|pair| pair[1].as_str().map(str::to_owned)).collect())
}

// 7.6.2
#[test]
fn max_forwards_is_counted_down_for_options_and_trace_only() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let asked = |method: &str, hops: &str| {
        ask(&rig, &format!("{method} /echo HTTP/1.1\r\nhost: a\r\nmax-forwards: {hops}\r\n"))
    };
    assert_eq!(seen(&asked("OPTIONS", "5")?, "max-forwards")?, ["4"]);
    assert_eq!(seen(&asked("TRACE", "1")?, "max-forwards")?, ["0"]);
    assert_eq!(seen(&asked("GET", "0")?, "max-forwards")?, ["0"]);
    let before = rig.backends[0].stats()?.requests;
    assert_eq!(asked("OPTIONS", "0")?.status, 204);
    asked("TRACE", "0")?.refused(405, "method_not_allowed")?;
    asked("OPTIONS", "-1")?.refused(400, "bad_request")?;
    assert_eq!(rig.backends[0].stats()?.requests, before);
    Ok(())
}

// 5.3, 14.2, 15.3.7
#[test]
fn ranges_pass_and_lines_of_one_field_keep_their_order() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    let fields = "range: bytes=0-3,7-\r\nif-range: \"x\"\r\nx-a: 1\r\nx-b: 2\r\nx-a: 3\r\nx-a:\r\n";
    let answer = ask(&rig, &format!("GET /echo HTTP/1.1\r\nhost: a\r\n{fields}"))?;
    assert_eq!(seen(&answer, "range")?, ["bytes=0-3,7-"]);
    assert_eq!(seen(&answer, "if-range")?, ["\"x\""]);
    assert_eq!(seen(&answer, "x-a")?, ["1", "3", ""]);
    Ok(())
}

// 6.6.1
#[test]
fn every_answer_has_one_date() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    for line in ["GET / HTTP/1.1", "GET /status/404 HTTP/1.1", "GET /a/../b HTTP/1.1"] {
        let answer = ask(&rig, &format!("{line}\r\nhost: a\r\n"))?;
        let dates = answer.headers.iter().filter(|(name, _)| name == "date").count();
        assert_eq!(dates, 1, "{line}: {answer:?}");
    }
    Ok(())
}

// RFC 9112 sections 9.3 and 9.6
#[test]
fn connections_are_kept_and_closed_as_the_client_asks() -> Result<()> {
    lab_test!();
    let rig = rig()?;
    for (version, fields, kept) in [
        ("1.1", "", true),
        ("1.1", "connection: keep-alive\r\n", true),
        ("1.1", "connection: close\r\n", false),
        ("1.1", "connection: x, Close\r\n", false),
        ("1.0", "", false),
        ("1.0", "connection: keep-alive\r\n", true),
        ("1.0", "connection: keep-alive\r\nconnection: close\r\n", false),
    ] {
        let case = format!("HTTP/{version} {fields:?}");
        let mut client = rig.client()?;
        client.send(format!("GET /text HTTP/{version}\r\nhost: a\r\n{fields}\r\n"))?;
        ensure!(client.response().context(case.clone())?.status == 200, "{case}");
        if kept {
            ensure!(client.get("/text").context(case.clone())?.status == 200, "{case}");
        } else {
            client.closed(Duration::from_secs(2)).context(case)?;
        }
    }
    Ok(())
}
