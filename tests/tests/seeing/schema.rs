//! Lines of the access log are what their JSON Schema says (M4).

use lab::prelude::*;

use super::rig;

/// Every line that is no such JSON, with what is wrong with it.
const VALIDATE: &str = r#"
import json, sys
from jsonschema import Draft202012Validator
schema = json.load(open(sys.argv[1]))
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
lines = [json.loads(line) for line in open(sys.argv[2])]
for line in lines:
    for error in validator.iter_errors(line):
        print(error.message, "in", line)
# What the schema must not take.
request = next(line for line in lines if "listener" in line)
for changed in ({"us": -1}, {"us": "1"}, {"why": "mood"}, {"more": 1}, {"id": "x"}, {"ts": "now"}):
    if validator.is_valid(dict(request, **changed)):
        print("takes", changed)
"#;

// M4
#[test]
fn every_kind_of_line_is_as_the_schema_says() -> Result<()> {
    lab_test!();
    let packages = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/python");
    if !std::path::Path::new(packages).join("jsonschema").is_dir() {
        lab::skip("schema", "jsonschema is not installed");
        return Ok(());
    }
    let rig = rig()?;
    let (to, log) = (lab::backend::targets(&rig.backends), rig.gateway.file("access.log"));
    rig.gateway.write(&format!(
        "[listener.web]\nbind = \":80\"\n[access_log]\nto = \"{}\"\nevents = true\n[cache.c]\n\
         [limit.few]\nrate = \"1/h\"\n[route.all]\nto = {to}\ncache = \"c\"\n\
         [route.few]\npath = \"/few\"\nto = {to}\nlimit = \"few\"\n\
         [service.db]\nbind = \":5432\"\npath = \"splice\"\nto = {to}\n[tracing]\notlp = \"http://127.0.0.1:1\"\n",
        log.display()
    ))?;
    rig.gateway.cli(&["reload"])?.ok()?;
    let odd = "user-agent: \"\\\u{e9}\treferer\r\nreferer: http://a/\"\r\n";
    for (request, fields) in [
        ("GET /?q=\"%22", odd),
        ("GET /status/404", ""),
        ("GET /status/503", ""),
        ("GET /close", ""),
        ("GET /few", ""),
        ("GET /few", ""),
        ("POST /", "content-length: 0\r\n"),
        ("GET /made/one", "x-answer: cache-control: max-age=3600\r\n"),
        ("GET /made/one", ""),
        ("GET /", "content-length: 1\r\ntransfer-encoding: chunked\r\n"),
    ] {
        rig.ask(request, "a.test", fields)?;
    }
    // One that is gone before its answer, one that is no request, a connection of the service, a ban.
    let mut client = rig.client()?;
    client.send("GET /slow-header?ms=500 HTTP/1.1\r\nhost: a\r\n\r\n")?;
    std::thread::sleep(Duration::from_millis(100));
    drop(client);
    let mut client = rig.client()?;
    client.send("\0\r\n\r\n")?;
    drop(client);
    Client::connect(rig.net.client(1), SocketAddr::from((VIP4, 5432)))?.get("/")?;
    rig.gateway.cli(&["ban", "add", "192.0.2.0/24", "--why", "flood"])?.ok()?;
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    let kinds = [
        "client_gone",
        "bad_request",
        "\"service\":\"db\"",
        "\"event\":\"ban\"",
        "\"cache\":\"hit\"",
        "limited",
    ];
    for kind in kinds {
        eventually(kind, || Ok(read().contains(kind)))?;
    }
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/access_log.schema.json");
    let python = format!(
        "PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={packages} python3 -c \"$0\" {schema} {}",
        log.display()
    );
    let wrong = rig.net.gateway.output("sh", &["-c", &python, VALIDATE])?;
    assert_eq!(wrong, "");
    Ok(())
}
