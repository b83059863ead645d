//! Envoy, as `cargo xtask bench` installs it.

use anyhow::{Result, bail};
use lab::{
    net::Namespace,
    peers::{Peer, run},
    tools,
};

use super::Places;

/// The same facts as in gateway's log line.
const LOG: &str = r#"{ ts: "%START_TIME%", id: "%REQ(X-REQUEST-ID)%", listener: web, client: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
              peer: "%DOWNSTREAM_REMOTE_ADDRESS%", proto: "%PROTOCOL%", host: "%REQ(:AUTHORITY)%", method: "%REQ(:METHOD)%",
              path: "%REQ(:PATH)%", status: "%RESPONSE_CODE%", upstream: "%UPSTREAM_CLUSTER%", target: "%UPSTREAM_HOST%",
              bytes_in: "%BYTES_RECEIVED%", bytes_out: "%BYTES_SENT%", us: "%DURATION%", us_first_byte: "%RESPONSE_DURATION%",
              ua: "%REQ(USER-AGENT)%", ref: "%REQ(REFERER)%" }"#;

/// One worker thread.
pub fn envoy(namespace: &Namespace, places: Places<'_>, cpu: usize) -> Result<Peer> {
    if tools::missing("envoy") {
        bail!("envoy is not installed");
    }
    let dir = lab::cleanup::scratch()?;
    let log = dir.path().join("access.log").display().to_string();
    let tls = places.tls.map_or_else(String::new, |(listen, certificate)| {
        let secure = format!(
            r#"
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_params: {{ tls_minimum_protocol_version: TLSv1_3 }}
            tls_certificates:
            - certificate_chain: {{ filename: "{}" }}
              private_key: {{ filename: "{}" }}"#,
            certificate.chain().display(),
            certificate.key().display()
        );
        listener("secure", listen, &log, &secure)
    });
    let cluster = |name: &str, at: std::net::SocketAddr, more: &str| {
        format!(
            r#"
  - name: {name}
    type: STATIC
    connect_timeout: 1s
    circuit_breakers: {{ thresholds: [{{ max_connections: 10000, max_pending_requests: 10000, max_requests: 10000 }}] }}
    load_assignment:
      cluster_name: {name}
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: {}, port_value: {} }} }} }} }}] }}]{more}"#,
            at.ip(),
            at.port()
        )
    };
    let http2 = r#"
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http2_protocol_options: {} }"#;
    let config = format!(
        "static_resources:\n  listeners:{}{tls}\n  clusters:{}{}\n",
        listener("web", places.listen, &log, ""),
        cluster("pool", places.backend, ""),
        cluster("grpc", places.grpc, http2),
    );
    let path = dir.path().join("envoy.yaml");
    std::fs::write(&path, config)?;
    let path = path.display().to_string();
    let arguments = ["-c", &path, "--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"];
    run(namespace, "envoy", &arguments, dir, places.listen, Some(cpu))
}

fn listener(name: &str, listen: std::net::SocketAddr, log: &str, secure: &str) -> String {
    format!(
        r#"
  - name: {name}
    address: {{ socket_address: {{ address: {}, port_value: {} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: {name}
          use_remote_address: true
          via: "1.1 envoy"
          always_set_request_id_in_response: true
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: "{log}"
              log_format: {{ json_format: {LOG} }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              request_headers_to_add:
              - header: {{ key: x-forwarded-host, value: "%REQ(:AUTHORITY)%" }}
              - header: {{ key: forwarded, value: "for=%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%;proto=http;host=%REQ(:AUTHORITY)%" }}
              routes:
              - {{ match: {{ prefix: "/grpc/" }}, route: {{ cluster: grpc }} }}
              - {{ match: {{ prefix: "/" }}, route: {{ cluster: pool }} }}{secure}"#,
        listen.ip(),
        listen.port()
    )
}
