//! A reverse proxy of Pingora, as its users write one, that does what the other peers of the bench are set up to do: the same
//! header fields added both ways, one log line a request, one worker.
//!
//! `pingora-peer LISTEN BACKEND GRPC [TLS-LISTEN CHAIN KEY]`; what is under /grpc/ goes to GRPC, by HTTP/2 in clear.

use std::{
    fs::File,
    io::{BufWriter, Write},
    net::SocketAddr,
    sync::Mutex,
};

use async_trait::async_trait;
use http::HeaderValue;
use pingora::{
    apps::HttpServerOptions,
    http::{RequestHeader, ResponseHeader},
    listeners::tls::TlsSettings,
    prelude::*,
    protocols::ALPN,
    server::configuration::ServerConf,
};
use uuid::Uuid;

struct Proxy {
    backend: SocketAddr,
    grpc: SocketAddr,
    log: Mutex<BufWriter<File>>,
}

/// The id of a request.
type Id = String;

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Id;

    fn new_ctx(&self) -> Id {
        Uuid::now_v7().to_string()
    }

    async fn upstream_peer(&self, session: &mut Session, _: &mut Id) -> Result<Box<HttpPeer>> {
        if session.req_header().uri.path().starts_with("/grpc/") {
            let mut peer = HttpPeer::new(self.grpc, false, String::new());
            peer.options.alpn = ALPN::H2;
            return Ok(Box::new(peer));
        }
        Ok(Box::new(HttpPeer::new(self.backend, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        id: &mut Id,
    ) -> Result<()> {
        let client = session.client_addr().and_then(|addr| addr.as_inet()).map(|addr| addr.ip().to_string());
        let client = client.unwrap_or_default();
        let host = session.req_header().headers.get("host").cloned();
        let host = host.unwrap_or(HeaderValue::from_static(""));
        let forwarded = format!("for={client};proto=http;host={}", host.to_str().unwrap_or_default());
        request.insert_header("x-forwarded-for", client)?;
        request.insert_header("x-forwarded-proto", "http")?;
        request.insert_header("x-forwarded-host", host)?;
        request.insert_header("forwarded", forwarded)?;
        request.insert_header("via", "1.1 pingora")?;
        request.insert_header("x-request-id", id.as_str())?;
        Ok(())
    }

    async fn response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        id: &mut Id,
    ) -> Result<()> {
        response.insert_header("via", "1.1 pingora")?;
        response.insert_header("x-request-id", id.as_str())?;
        Ok(())
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, id: &mut Id) {
        let head = session.req_header();
        let status = session.response_written().map_or(0, |response| response.status.as_u16());
        let client = session.client_addr().map(ToString::to_string).unwrap_or_default();
        let line = format!(
            "{{\"id\":\"{id}\",\"peer\":\"{client}\",\"proto\":\"{:?}\",\"method\":\"{}\",\"path\":\"{}\",\"status\":{status},\
             \"bytes_out\":{},\"error\":{}}}\n",
            head.version,
            head.method,
            head.uri.path(),
            session.body_bytes_sent(),
            error.is_some(),
        );
        if let Ok(mut log) = self.log.lock() {
            let _ = log.write_all(line.as_bytes());
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, backend, grpc, tls @ ..] = &*arguments else {
        panic!("pingora-peer LISTEN BACKEND GRPC [TLS-LISTEN CHAIN KEY]")
    };
    let conf = ServerConf {
        threads: 1,
        work_stealing: false,
        upstream_keepalive_pool_size: 512,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let log = File::create("access.log").expect("a log");
    let proxy = Proxy {
        backend: backend.parse().expect("an address"),
        grpc: grpc.parse().expect("an address"),
        log: Mutex::new(BufWriter::with_capacity(32 << 10, log)),
    };
    let mut service = http_proxy_service(&server.configuration, proxy);
    if let Some(logic) = service.app_logic_mut() {
        let mut options = HttpServerOptions::default();
        options.h2c = true;
        logic.server_options = Some(options);
    }
    service.add_tcp(listen);
    if let [listen, chain, key] = tls {
        let mut settings = TlsSettings::intermediate(chain, key).expect("a certificate");
        settings.enable_h2();
        service.add_tls_with_settings(listen, None, settings);
    }
    server.add_service(service);
    server.run_forever();
}
