//! Asking another service: S6. nginx is that service.

use lab::peers::{self, Peer};

use super::*;

const PORT: u16 = 9091;

/// It lets `Bearer good` in, sends others to a login page, and knows one that is not allowed.
fn service(rig: &Rig) -> Result<Peer> {
    let node = rig.net.node("b1");
    let at = node.at(PORT);
    peers::nginx_in(
        node,
        peers::folder()?,
        at,
        &format!(
            "access_log off; map $http_authorization $verdict {{ default 401; \"Bearer good\" 200; \"Bearer evil\" 403; \"Bearer page\" 302; \"Bearer broken\" 500; }}\n\
             server {{ listen {at}; default_type text/plain;\n\
             location = /verify {{\n\
             if ($verdict = 401) {{ add_header www-authenticate 'Login realm=\"x\"' always; add_header x-secret inside always; return 401 'log in first'; }}\n\
             if ($verdict = 403) {{ return 403 'not you'; }}\n\
             if ($verdict = 302) {{ return 302 /login; }}\n\
             if ($verdict = 500) {{ return 500 'stack trace'; }}\n\
             add_header x-auth-user acme; add_header x-seen \"$http_x_forwarded_method $http_x_forwarded_uri <$http_x_not_sent>\"; return 204; }} }}"
        ),
    )
}

fn start() -> Result<Rig> {
    Rig::start(1, |backends| {
        format!(
            r#"
[listener.web]
bind = ":80"
[upstream.app]
to = "{app}"
[upstream.login]
to = "{host}:{PORT}"
[auth.login]
type = "forward"
to = "login"
path = "/verify"
send = ["authorization"]
copy = ["x-seen", "x-role"]
timeout = "500ms"
[auth.lax]
type = "forward"
to = "login"
path = "/verify"
on_error = "pass"
[consumer.acme]
tier = "gold"
[route.all]
to = "app"
auth = "login"
allow = "tier:gold"
rewrite.set = {{ x-consumer = "${{consumer.id}}" }}
[route.lax]
path = "/echo/lax"
to = "app"
auth = "lax"
"#,
            app = backends[0].addr,
            host = backends[0].addr.ip(),
        )
    })
}

// S6
#[test]
fn who_is_asked_lets_in_or_answers_itself() -> Result<()> {
    lab_test!();
    let rig = start()?;
    // Nobody there to ask: that is our fault, unless the config lets requests pass.
    ask(&rig, "GET /echo", "authorization: Bearer good\r\n")?.refused(503, "auth_unavailable")?;
    assert_eq!(ask(&rig, "GET /echo/lax", "")?.status, 200);
    let service = service(&rig)?;
    for _ in 0..2 {
        let forged =
            "x-seen: forged\r\nx-role: admin\r\nx_role: admin\r\nx-not-sent: here\r\nconnection: x-seen\r\n";
        let answer = ask(
            &rig,
            "PUT /echo?a=b",
            &format!("authorization: Bearer good\r\ncontent-length: 2\r\n{forged}\r\nhi"),
        )?;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(seen(&answer, "x-seen")?, ["PUT /echo?a=b <>"]);
        assert!(seen(&answer, "x-role")?.is_empty() && seen(&answer, "x_role")?.is_empty());
        assert_eq!(seen(&answer, "x-consumer")?, ["acme"]);
        assert_eq!(rig.gateway.log_of(&answer)?["consumer"], "acme");
    }
    let login = ask(&rig, "GET /echo", "")?;
    assert_eq!((login.status, login.text().as_str()), (401, "log in first"));
    assert_eq!(
        (login.header("www-authenticate"), login.header("x-secret")),
        (Some("Login realm=\"x\""), None)
    );
    assert_eq!(rig.gateway.log_of(&login)?["why"], "unauthorized");
    assert_eq!(ask(&rig, "GET /echo", "authorization: Bearer evil\r\n")?.text(), "not you");
    let page = ask(&rig, "GET /echo", "authorization: Bearer page\r\n")?;
    assert!(
        page.status == 302 && page.header("location").is_some_and(|to| to.ends_with("/login")),
        "{page:?}"
    );
    // What is wrong with it is not for clients to see.
    let broken = ask(&rig, "GET /echo", "authorization: Bearer broken\r\n")?;
    broken.refused(503, "auth_unavailable")?;
    assert!(!broken.text().contains("stack trace"));
    assert_eq!((counted(&rig, "login", "ok")?, counted(&rig, "login", "refused")?), (2.0, 3.0));
    drop(service);
    ask(&rig, "GET /echo", "authorization: Bearer good\r\n")?.refused(503, "auth_unavailable")
}
