//! The programs that gateway is measured beside, each set up for speed and to do the same job: the same header fields
//! added both ways, the same facts logged, metrics on.

mod envoy;
mod pingora;

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Result;
use lab::{
    certs::Authority,
    net::Namespace,
    peers::{folder, run},
};
use tempfile::TempDir;

pub use envoy::envoy;
pub use lab::peers::Peer;
pub use pingora::pingora;

/// Sizes of the bodies that a backend has besides 128 bytes.
pub const FILES: [usize; 4] = [1 << 10, 10 << 10, 100 << 10, 1 << 20];

/// A certificate for 127.0.0.1 with a P-256 key, in files.
#[derive(Debug)]
pub struct Certificate {
    directory: TempDir,
    /// Whom it is from, PEM.
    pub authority: String,
}

impl Certificate {
    pub fn new() -> Result<Certificate> {
        let dir = lab::cleanup::scratch()?;
        let authority = Authority::new()?;
        let issued = authority.issue(&["127.0.0.1"])?;
        issued.write(dir.path(), "lab")?;
        // HAProxy wants both in one file.
        std::fs::write(dir.path().join("both.pem"), format!("{}{}", issued.chain, issued.key))?;
        Ok(Certificate { directory: dir, authority: authority.pem })
    }

    pub fn chain(&self) -> PathBuf {
        self.directory.path().join("lab.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.directory.path().join("lab.key")
    }

    fn both(&self) -> PathBuf {
        self.directory.path().join("both.pem")
    }
}

/// What listens in front, and what it passes on to.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    pub listen: SocketAddr,
    /// Where TLS and HTTP/2 are spoken.
    pub tls: Option<(SocketAddr, &'a Certificate)>,
    pub backend: SocketAddr,
    /// What is under /grpc/ goes there, by HTTP/2 in clear.
    pub grpc: SocketAddr,
    /// Where UDP log lines go.
    pub log_sink: SocketAddr,
}

/// An nginx that answers 128 bytes itself, and at `/BYTES` as many.
pub fn nginx_backend(namespace: &Namespace, listen: SocketAddr, cpu: usize) -> Result<Peer> {
    let body = "x".repeat(128);
    let config = nginx_config(
        "",
        &format!(
            "access_log off; sendfile on; open_file_cache max=10;
             server {{ listen {listen} reuseport; root files; location = / {{ return 200 '{body}'; }} }}"
        ),
    );
    let dir = nginx_dir(&config)?;
    let files = dir.path().join("files");
    std::fs::create_dir(&files)?;
    for bytes in FILES {
        std::fs::write(files.join(bytes.to_string()), vec![b'x'; bytes])?;
    }
    nginx_in(namespace, dir, listen, cpu)
}

/// An nghttpd that answers any request under `/grpc/` as a gRPC server would a small one: 64 bytes, and trailers.
pub fn grpc_backend(namespace: &Namespace, listen: SocketAddr, cpu: usize) -> Result<Peer> {
    let dir = lab::cleanup::scratch()?;
    std::fs::create_dir_all(dir.path().join("grpc"))?;
    // A message's head: not compressed, 59 bytes.
    let message = [&[0, 0, 0, 0, 59][..], &[b'x'; 59]].concat();
    std::fs::write(dir.path().join("grpc/unary"), message)?;
    let root = dir.path().display().to_string();
    let (ip, port) = (listen.ip().to_string(), listen.port().to_string());
    let arguments = ["--no-tls", "-a", &ip, "-d", &root, "--trailer", "grpc-status: 0", &port];
    run(namespace, "nghttpd", &arguments, dir, listen, Some(cpu))
}

/// The same facts as in gateway's log line.
const LOG_FORMAT: &str = "'{\"ts\":\"$time_iso8601\",\"id\":\"$request_id\",\"listener\":\"web\",\"client\":\"$remote_addr\",\
    \"peer\":\"$remote_addr:$remote_port\",\"proto\":\"$server_protocol\",\"host\":\"$host\",\"method\":\"$request_method\",\
    \"path\":\"$uri\",\"status\":$status,\"upstream\":\"pool\",\"target\":\"$upstream_addr\",\
    \"bytes_in\":$request_length,\"bytes_out\":$body_bytes_sent,\"us\":$request_time,\
    \"us_first_byte\":\"$upstream_header_time\",\"ua\":\"$http_user_agent\",\"ref\":\"$http_referer\"}'";

/// An nginx that proxies; `guards` are directives of the server, such as `limit_req`, and `zones` of http.
pub fn nginx_proxy(
    namespace: &Namespace,
    places: Places<'_>,
    cpu: usize,
    zones: &str,
    guards: &str,
) -> Result<Peer> {
    let Places { listen, backend, grpc, tls, .. } = places;
    let tls = tls.map_or_else(String::new, |(listen, certificate)| {
        format!(
            "listen {listen} ssl http2; ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.3; \
             ssl_session_cache shared:tls:1m; http2_max_requests 1000000000;",
            certificate.chain().display(),
            certificate.key().display()
        )
    });
    let config = nginx_config(
        "",
        &format!(
            "log_format same escape=json {LOG_FORMAT}; access_log access.log same buffer=32k flush=1s; {zones}
             upstream pool {{ server {backend}; keepalive 256; keepalive_requests 1000000000; }}
             upstream grpc {{ server {grpc}; keepalive 256; keepalive_requests 1000000000; }}
             server {{
                 listen {listen};
                 {tls}
                 {guards}
                 location /nginx_status {{ stub_status; }}
                 location /grpc/ {{ grpc_pass grpc://grpc; }}
                 location / {{
                     proxy_pass http://pool;
                     proxy_http_version 1.1;
                     proxy_set_header Connection '';
                     proxy_set_header Host $host;
                     proxy_set_header X-Forwarded-For $remote_addr;
                     proxy_set_header X-Forwarded-Proto $scheme;
                     proxy_set_header X-Forwarded-Host $host;
                     proxy_set_header Forwarded 'for=$remote_addr;proto=$scheme;host=$host';
                     proxy_set_header Via '1.1 nginx';
                     proxy_set_header X-Request-Id $request_id;
                     add_header Via '1.1 nginx';
                     add_header X-Request-Id $request_id;
                 }}
             }}"
        ),
    );
    nginx(namespace, &config, listen, cpu)
}

/// An nginx with these directives inside `http { … }`.
pub fn nginx_with(namespace: &Namespace, listen: SocketAddr, cpu: usize, http: &str) -> Result<Peer> {
    nginx(namespace, &nginx_config("", http), listen, cpu)
}

fn nginx_config(top: &str, http: &str) -> String {
    format!(
        "worker_processes 1; pid nginx.pid; error_log error.log crit; worker_rlimit_nofile 20000; {top}
         events {{ worker_connections 16000; }}
         http {{ keepalive_timeout 75s; keepalive_requests 1000000000; tcp_nodelay on; {http} }}"
    )
}

fn nginx(namespace: &Namespace, config: &str, listen: SocketAddr, cpu: usize) -> Result<Peer> {
    nginx_in(namespace, nginx_dir(config)?, listen, cpu)
}

fn nginx_dir(config: &str) -> Result<TempDir> {
    let dir = folder()?;
    std::fs::write(dir.path().join("nginx.conf"), config)?;
    Ok(dir)
}

fn nginx_in(namespace: &Namespace, dir: TempDir, listen: SocketAddr, cpu: usize) -> Result<Peer> {
    let path = dir.path().display().to_string();
    let arguments = ["-p", &path, "-c", "nginx.conf", "-g", "daemon off;"];
    run(namespace, "nginx", &arguments, dir, listen, Some(cpu))
}

const HAPROXY_HEADERS: &str = "http-request set-header X-Forwarded-Proto http\n  \
    http-request set-header X-Forwarded-Host %[req.hdr(host)]\n  \
    http-request set-header Forwarded for=%[src];proto=http;host=%[req.hdr(host)]\n  \
    http-request set-header Via \"1.1 haproxy\"\n  http-response set-header Via \"1.1 haproxy\"\n  \
    http-response set-header X-Request-Id %[unique-id]";

pub fn haproxy(namespace: &Namespace, places: Places<'_>, cpu: usize) -> Result<Peer> {
    let dir = lab::cleanup::scratch()?;
    let Places { listen, backend, grpc, log_sink, tls } = places;
    let tls = tls.map_or_else(String::new, |(listen, certificate)| {
        format!(
            "bind {listen} ssl crt {} alpn h2,http/1.1 ssl-min-ver TLSv1.3\n  ",
            certificate.both().display()
        )
    });
    let config = format!(
        "global\n  nbthread 1\n  maxconn 8000\n  log {log_sink} len 1024 local0 info\n\
         defaults\n  mode http\n  log global\n  option httplog\n  option forwardfor\n  http-reuse always\n  \
         timeout connect 1s\n  timeout client 75s\n  timeout server 60s\n  timeout http-keep-alive 75s\n\
         frontend web\n  bind {listen}\n  {tls}unique-id-format %[uuid()]\n  unique-id-header x-request-id\n  \
         http-request use-service prometheus-exporter if {{ path /metrics }}\n  {HAPROXY_HEADERS}\n  use_backend grpc if {{ path_beg /grpc/ }}\n  \
         default_backend pool\n\
         backend pool\n  server b1 {backend} pool-max-conn -1\n\
         backend grpc\n  server g1 {grpc} proto h2\n"
    );
    let path = dir.path().join("haproxy.cfg");
    std::fs::write(&path, config)?;
    let path = path.display().to_string();
    run(namespace, "haproxy", &["-db", "-f", &path], dir, listen, Some(cpu))
}

/// Takes UDP log lines and throws them away, on the other CPU, until the process ends.
pub fn log_sink(namespace: &Namespace, at: SocketAddr) -> Result<()> {
    let socket = namespace.run(|| std::net::UdpSocket::bind(at))??;
    std::thread::Builder::new().name("log-sink".into()).spawn(move || {
        // Unpinned it would still work.
        let _ = lab::sys::pin_to_cpu(crate::OTHER_CPU);
        let mut line = [0; 2048];
        while socket.recv(&mut line).is_ok() {}
    })?;
    Ok(())
}
