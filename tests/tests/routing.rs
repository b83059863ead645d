//! Which route takes a request: T1.

use lab::{backend::start_all, prelude::*};

struct Rig {
    gateway: Gateway,
    backends: Vec<Backend>,
    net: Net,
    _turn: lab::lock::Turn,
}

/// `routes`: the file's routes, with `BACKENDS` as two upstreams, `one` and `two`.
fn rig(routes: &str) -> Result<Rig> {
    let turn = shared()?;
    let net = Net::simple(2)?;
    let backends = start_all(&net)?;
    let mut config = format!("[listener.web]\nbind = \":80\"\n{routes}\n");
    for (name, backend) in ["one", "two"].iter().zip(&backends) {
        config.push_str(&format!("[upstream.{name}]\nto = \"{}\"\n", backend.addr));
    }
    let gateway = Gateway::start(&net, &config)?;
    Ok(Rig { gateway, backends, net, _turn: turn })
}

impl Rig {
    /// `request`: method and target.
    fn ask(&self, request: &str, fields: &str) -> Result<Response> {
        let mut client = Client::connect(self.net.client(1), self.gateway.at4())?;
        client.send(format!("{request} HTTP/1.1\r\nhost: shop.test\r\n{fields}\r\n"))?;
        client.response_to(request.split(' ').next().unwrap_or_default())
    }

    /// The log's word for the route that took a request.
    fn route(&self, request: &str, fields: &str) -> Result<String> {
        let line = self.gateway.log_of(&self.ask(request, fields)?)?;
        Ok(line["route"].as_str().unwrap_or("-").to_owned())
    }
}

// T1
#[test]
fn methods_headers_and_query_choose_among_routes_of_one_path() -> Result<()> {
    lab_test!();
    let rig = rig(r#"
[route.plain]
to = "one"
[route.write]
methods = ["POST", "PUT"]
to = "two"
[route.canary]
headers = { x-canary = "1", cookie = { regex = "(^|; )beta=" } }
to = "two"
[route.both]
methods = ["POST"]
headers = { x-canary = "1" }
query = { debug = true }
to = "one"
"#)?;
    assert_eq!(rig.route("GET /a", "")?, "plain");
    assert_eq!(rig.route("POST /a", "content-length: 0\r\n")?, "write");
    assert_eq!(rig.route("GET /a", "x-canary: 1\r\n")?, "plain");
    assert_eq!(rig.route("GET /a", "x-canary: 1\r\ncookie: a=b; beta=1\r\n")?, "canary");
    assert_eq!(rig.route("POST /a?debug", "x-canary: 1\r\ncontent-length: 0\r\n")?, "both");
    assert_eq!(rig.ask("PUT /a", "content-length: 0\r\n")?.backend(), rig.backends[1].name);
    Ok(())
}

// T1
#[test]
fn a_method_that_no_route_of_the_path_takes_is_405_with_allow() -> Result<()> {
    lab_test!();
    let rig = rig(r#"
[route.items]
path = "/items/{id}"
methods = ["GET", "PUT"]
to = "one"
[route.admin]
path = "/items/*"
methods = ["DELETE"]
headers = { x-admin = true }
to = "two"
"#)?;
    let refused = rig.ask("POST /items/1", "content-length: 0\r\n")?;
    refused.refused(405, "method_not_allowed")?;
    assert_eq!(refused.header("allow"), Some("GET, HEAD, PUT"));
    assert_eq!(
        rig.ask("POST /items/1", "x-admin: 1\r\ncontent-length: 0\r\n")?.header("allow"),
        Some("DELETE, GET, HEAD, PUT")
    );
    assert_eq!(rig.ask("HEAD /items/1", "")?.status, 200);
    rig.ask("GET /else", "")?.refused(404, "no_route")
}

// S-path: what is routed by and what goes upstream is one form.
#[test]
fn a_path_is_normalised_before_routing_and_goes_upstream_in_that_form() -> Result<()> {
    lab_test!();
    let rig = rig("[route.user]\npath = \"/echo/~u/*\"\nto = \"one\"\n[route.rest]\nto = \"two\"\n")?;
    let answer = rig.ask("GET /%65cho/%7Eu/a%2fb%C3%bc?q=%7e", "")?;
    assert_eq!(answer.backend(), rig.backends[0].name);
    assert_eq!(answer.json()?["target"], "/echo/~u/a%2Fb%C3%BC?q=%7e");
    for path in ["/a/%2e%2e/b", "/%", "/%zz", "/a%00"] {
        rig.ask(&format!("GET {path}"), "")?.refused(400, "bad_request")?;
    }
    Ok(())
}
