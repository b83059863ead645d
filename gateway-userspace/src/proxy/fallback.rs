//! Who answers a request that its upstream cannot be asked for: another upstream, or the config.

use http::{HeaderValue, Response, header};

use super::{
    body::{RequestBody, ResponseBody},
    careful::is_upstreams_fault,
    connection::ClientState,
    exchange::Exchange,
    forward::{self, Answer},
    own, problem,
    websocket::Extended,
};
use crate::{
    observe::Why,
    policy::{answer::Answered, fallback::Fallback, template::Context},
    upstream::{Upstream, http1::Outgoing},
};

/// No upstream has answered.
pub struct Unanswered {
    why: Why,
    instead: Option<Box<Answered>>,
}

impl From<Why> for Unanswered {
    fn from(why: Why) -> Self {
        Unanswered { why, instead: None }
    }
}

impl Unanswered {
    /// What the client is told.
    pub fn response(self, exchange: Exchange) -> Response<ResponseBody> {
        let Some(answered) = self.instead else { return problem::response(exchange, self.why) };
        let Answered { status, mut headers, body } = *answered;
        exchange.refuse_with(self.why, status);
        // It is not what was asked for.
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        own::last_answer(exchange, status, headers, body)
    }
}

/// Asks the upstream that stands in for `upstream`, of which nothing came but `why`.
pub async fn ask(
    fallback: &Fallback,
    (upstream, why): (&Upstream, Why),
    exchange: &Exchange,
    request: &Outgoing,
    body: &mut RequestBody,
    hints: Option<&ClientState>,
) -> Result<Answer, Unanswered> {
    upstream.stats.shards.of(exchange.state.worker.index).fell_back(why);
    exchange.fell_back(why);
    let mut why = why;
    if let Some(other) = &fallback.to {
        exchange.set_upstream(other.clone());
        match forward::send(other, exchange, request, body, hints).await {
            Ok(answer) => return Ok(answer),
            Err(failed) => why = failed,
        }
    }
    Err(Unanswered { why, instead: fixed(fallback, why, exchange, request).map(Box::new) })
}

/// The config's answer, where the client can take it for one.
fn fixed(fallback: &Fallback, why: Why, exchange: &Exchange, request: &Outgoing) -> Option<Answered> {
    let is_ours = matches!(
        why,
        Why::BreakerOpen | Why::NoHealthyTarget | Why::UpstreamQueueFull | Why::UpstreamQueueTimeout
    );
    // What the client did is its own fault; and a gRPC call has answers of its own form.
    if !is_ours && !is_upstreams_fault(why) || exchange.grpc().is_some() {
        return None;
    }
    let (id, client, caller) = (exchange.id(), exchange.state.kept_client(), exchange.caller());
    let answered = fallback.answer.as_ref()?.answer(&Context {
        head: &request.head,
        client: &client.text,
        id: &id,
        scheme: client.scheme,
        caller: caller.as_deref(),
    });
    // It would be taken for an open WebSocket.
    let opens = request.head.extensions.get::<Extended>().is_some() && answered.status.is_success();
    (!opens).then_some(answered)
}
