//! The closed list of reasons for which the gateway answers itself or cuts a request.

use http::StatusCode;

macro_rules! whys {
    ($($variant:ident $name:literal $status:literal $title:literal;)*) => {
        /// Why the gateway answered a request itself, or cut it. The same words stand in the access log (`why`), in
        /// the metrics (`reason`) and in the `type` of the problem+json body.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Why { $(#[doc = $title] $variant,)* }

        impl Why {
            pub const ALL: &'static [Why] = &[$(Why::$variant,)*];

            pub fn name(self) -> &'static str {
                match self { $(Why::$variant => $name,)* }
            }

            /// A sentence for people.
            pub fn title(self) -> &'static str {
                match self { $(Why::$variant => $title,)* }
            }

            /// The status that the client sees, when it can still be told.
            pub fn status(self) -> StatusCode {
                let code = match self { $(Why::$variant => $status,)* };
                StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    };
}

whys! {
    NoRoute "no_route" 404 "No route matches this host and path";
    MethodNotAllowed "method_not_allowed" 405 "No route matches this method";
    VersionUnknown "version_unknown" 404 "There is no such version of this API";
    VersionRequired "version_required" 400 "The request must name a version of this API";
    VersionConflict "version_conflict" 400 "The request names two versions of this API";
    Sunset "sunset" 410 "This version of the API is no longer there";
    BrownOut "brownout" 503 "This version of the API is going away, and does not answer for a while";
    BadRequest "bad_request" 400 "The request is malformed";
    PlainHttp "plain_http" 400 "This port speaks TLS: ask with https";
    Unauthorized "unauthorized" 401 "This needs credentials, and those of the request are missing or no good";
    AuthUnavailable "auth_unavailable" 503 "Who calls cannot be found out: what is asked for that does not answer";
    NetworkDenied "network_denied" 403 "This is not allowed from this network";
    CrossSite "cross_site" 403 "A page of another site sent this";
    ContentType "content_type" 415 "The body is of a type that is not taken here";
    Forbidden "forbidden" 403 "This is not allowed";
    HeaderTooLarge "header_too_large" 431 "The request's head is larger than is taken, or has more fields";
    UriTooLong "uri_too_long" 414 "The request's target is longer than this listener takes";
    BodyTooLarge "body_too_large" 413 "The request's body is larger than this listener takes";
    HeaderTimeout "header_timeout" 408 "The request's head did not arrive in time";
    BodyTimeout "body_timeout" 408 "The request's body stopped arriving";
    WriteTimeout "write_timeout" 408 "The client did not take its answer in time";
    SourceConnections "source_connections" 429 "This address has as many connections as it may have";
    SourceHandshakes "source_handshakes" 429 "This address has made as many TLS handshakes as it may";
    Http2Abuse "http2_abuse" 429 "The connection's HTTP/2 was made to cost, not to ask for anything";
    Misdirected "misdirected" 421 "This host wants another connection: the client certificates it asks for are others";
    Json "json" 400 "The body is not JSON, or is nested or large beyond what this route takes";
    Banned "banned" 403 "This address is banned for a while";
    Shed "shed" 503 "There is more to do than can be done: try again";
    LimitUnavailable "limit_unavailable" 503 "Whether a limit is used up cannot be found out: the store that knows does not answer";
    Limited "limited" 429 "Too many requests: the limit is used up";
    NoHealthyTarget "no_healthy_target" 503 "No target of the upstream is healthy";
    UpstreamQueueFull "upstream_queue_full" 503 "All targets of the upstream are busy, and too many requests wait already";
    UpstreamQueueTimeout "upstream_queue_timeout" 503 "All targets of the upstream were busy for too long";
    BreakerOpen "breaker_open" 503 "Most requests to the upstream fail: it is left alone for a while";
    NoResources "no_resources" 503 "The gateway has no file descriptors or ports left for a connection to the upstream";
    UpstreamConnectRefused "upstream_connect_refused" 502 "The upstream refused the connection";
    UpstreamConnectTimeout "upstream_connect_timeout" 504 "The upstream did not accept a connection in time";
    UpstreamTls "upstream_tls" 502 "The upstream's certificate, or its TLS, is not as it must be";
    UpstreamFirstByteTimeout "upstream_first_byte_timeout" 504 "The upstream did not start to answer in time";
    UpstreamIdleTimeout "upstream_idle_timeout" 504 "The upstream stopped in the middle of its answer";
    UpstreamTotalTimeout "upstream_total_timeout" 504 "The exchange with the upstream took too long";
    UpstreamReset "upstream_reset" 502 "The upstream closed the connection before its answer was whole";
    UpstreamBadResponse "upstream_bad_response" 502 "The upstream's answer is not valid HTTP";
    UpstreamJson "upstream_json" 502 "The upstream's answer is not JSON that can be changed as this route says";
    UpstreamNoUpgrade "upstream_no_upgrade" 502 "The upstream speaks HTTP/2 and does not take this upgrade (RFC 8441)";
    ProxyHeader "proxy_header" 400 "The PROXY header is missing or malformed";
    TlsFailed "tls_failed" 400 "The TLS handshake failed";
    IdleTimeout "idle_timeout" 408 "Nothing was sent for too long";
    NotCached "not_cached" 504 "The client wants what is cached only, and nothing is that may be used";
    ClientGone "client_gone" 499 "The client went away";
    Stopped "stopped" 503 "The gateway stopped before the exchange was over";
}

impl Why {
    pub const COUNT: usize = Why::ALL.len();

    pub fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_name_and_index() {
        for (i, why) in Why::ALL.iter().enumerate() {
            assert_eq!(why.index(), i);
            assert_eq!(Why::ALL.iter().filter(|other| other.name() == why.name()).count(), 1);
        }
    }
}
