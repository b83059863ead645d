//! A request of a route with policies: what [`super::handler`] tells, with what they add.

use std::{future::poll_fn, pin::Pin, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::{Response, header, request};
use hyper::body::{Body, Incoming};

use super::{
    body::{Cut, RequestBody, ResponseBody},
    compressed::Compressed,
    exchange::Exchange,
    grpc_web::Web,
    handler::{self, prepare},
    own, problem,
    shadow::{Copy, Kept},
    strict,
    subrequest::Asker,
    versioned,
};
use crate::{
    auth::{Asking, BodyDigest, Refused},
    config::units::Moment,
    observe::Why,
    policy::{
        Policies,
        answer::Answered,
        compress::Accepted,
        cors::Allowed,
        guard::Guard,
        mirror::Mirror,
        rewrite::{Changes, Rewrite},
        template::Context,
    },
    runtime::{Route, Snapshot},
    upstream::http1::{Outgoing, Switch},
    version::Picked,
};

pub async fn handle(
    snapshot: &Snapshot,
    route: &Arc<Route>,
    (policies, picked): (&Policies, Option<Picked>),
    exchange: Exchange,
    mut head: request::Parts,
    body: Incoming,
) -> Response<ResponseBody> {
    let web = if policies.grpc_web { Web::of(&head.headers) } else { None };
    if let Some(web) = &web {
        exchange.set_grpc(web.kind());
    }
    if (policies.guard.is_some() || policies.gate.is_some())
        && let Err(refused) = admit(snapshot, policies, &exchange, &mut head, &body).await
    {
        return refuse(policies, refused, exchange, &head);
    }
    let (id, caller) = (exchange.id(), exchange.caller());
    let state = exchange.state.clone();
    let client = state.kept_client();
    let context = Context {
        head: &head,
        client: &client.text,
        id: &id,
        scheme: client.scheme,
        caller: caller.as_deref(),
    };
    let plan = match Plan::new(policies, &context) {
        Ok(plan) => plan,
        Err(why) => return problem::response(exchange, why),
    };
    let version = route.version.as_deref().zip(picked);
    let telling = version.map(|(version, picked)| version.tell.of(picked, &head));
    let mut response = match plan.answer {
        Some(answered) => answer(answered, exchange),
        None => forward(snapshot, route, policies, exchange, (plan.request, web, picked), head, body).await,
    };
    if let Some(telling) = telling {
        telling.apply(response.status(), response.headers_mut());
    }
    if let Some(allowed) = plan.cors {
        allowed.apply(response.headers_mut());
    }
    plan.response.apply(response.headers_mut());
    match plan.compress {
        Some(accepted) => compress(response, &accepted),
        None => response,
    }
}

/// Finds out who calls and whether they may, and takes out of the request what proves it. Preflights prove nothing (Fetch
/// standard).
async fn admit(
    snapshot: &Snapshot,
    policies: &Policies,
    exchange: &Exchange,
    head: &mut request::Parts,
    body: &Incoming,
) -> Result<(), Refused> {
    if let Some(gate) = &policies.gate
        && let Some(clean) = gate.clean_query(&head.uri)
    {
        exchange.log_query(clean.query());
    }
    if policies.cors.as_ref().is_some_and(|cors| cors.preflight(head).is_some()) {
        return Ok(());
    }
    let client = exchange.state.kept_client();
    if let Some(guard) = &policies.guard {
        guard
            .check(head, client.addr, body.size_hint().lower(), body.is_end_stream())
            .map_err(Refused::of)?;
    }
    let Some(gate) = &policies.gate else { return Ok(()) };
    let worker = &exchange.state.worker;
    let asking = Asking {
        head,
        now: Moment::of(worker.wall_clock(exchange.started())),
        worker: worker.index,
        memory: &worker.memory,
        marks: client.marks.as_deref(),
        has_body: !body.is_end_stream(),
        elsewhere: &Asker { snapshot, exchange },
    };
    let caller = gate.admit(&asking).await?;
    gate.strip(head);
    exchange.set_caller(caller);
    Ok(())
}

fn refuse(
    policies: &Policies,
    refused: Refused,
    exchange: Exchange,
    head: &request::Parts,
) -> Response<ResponseBody> {
    let mut response = match refused.answer {
        Some(answer) if exchange.grpc().is_none() => {
            exchange.refuse_with(refused.why, answer.status);
            own::last_answer(exchange, answer.status, answer.headers, answer.body)
        }
        _ => problem::response_with(exchange, refused.why, refused.fields),
    };
    // So that the page may know why.
    if let Some(cors) = &policies.cors {
        cors.allowed(head).apply(response.headers_mut());
    }
    response
}

/// The whole body, if it is what was signed: until that is known nothing of it goes on.
async fn signed(mut body: RequestBody, digest: &BodyDigest) -> Result<RequestBody, Why> {
    const MOST: usize = 10 << 20;
    let mut whole = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|Cut(why)| why)?;
        whole.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
        if whole.len() > MOST {
            return Err(Why::BodyTooLarge);
        }
    }
    if digest.is_of(&whole) { Ok(RequestBody::kept(whole.freeze())) } else { Err(Why::Unauthorized) }
}

fn compress(response: Response<ResponseBody>, accepted: &Accepted<'_>) -> Response<ResponseBody> {
    let (mut head, body) = response.into_parts();
    let encoder = accepted.apply(head.status, &mut head.headers, body.is_end_stream());
    let body = match encoder {
        Some(encoder) => ResponseBody::Compressed(Box::new(Compressed::new(body, encoder))),
        None => body,
    };
    Response::from_parts(head, body)
}

/// Everything that the policies say of one request, before any of it is done.
struct Plan<'a> {
    answer: Option<Answered>,
    request: RequestChanges<'a>,
    response: Changes<'a>,
    /// For any answer but that to a preflight, which says more.
    cors: Option<Allowed<'a>>,
    compress: Option<Accepted<'a>>,
}

#[derive(Default)]
struct RequestChanges<'a> {
    path: Option<String>,
    fields: Changes<'a>,
}

impl<'a> Plan<'a> {
    fn new(policies: &'a Policies, context: &Context<'_>) -> Result<Self, Why> {
        let rewrite = policies.rewrite.as_ref();
        let cors = policies.cors.as_ref();
        let preflight = cors.and_then(|cors| cors.preflight(context.head));
        Ok(Plan {
            cors: cors.filter(|_| preflight.is_none()).map(|cors| cors.allowed(context.head)),
            answer: preflight.or_else(|| policies.answer.as_ref().map(|answer| answer.answer(context))),
            compress: policies.compress.as_ref().map(|compress| compress.accepted(context.head)),
            request: match rewrite {
                Some(rewrite) => RequestChanges::new(rewrite, context)?,
                None => RequestChanges::default(),
            },
            response: rewrite.map(|rewrite| rewrite.response.fill(context)).unwrap_or_default(),
        })
    }
}

impl<'a> RequestChanges<'a> {
    fn new(rewrite: &'a Rewrite, context: &Context<'_>) -> Result<Self, Why> {
        let path = rewrite.path(context).map_err(|_| Why::BadRequest)?;
        Ok(RequestChanges { path, fields: rewrite.request.fill(context) })
    }

    fn apply(mut self, request: &mut Outgoing) -> Result<(), Why> {
        let Outgoing { head, about, .. } = request;
        if let Some(path) = self.path {
            head.uri = strict::with_path(&head.uri, path)?;
        }
        let ours = self.fields.take_vouched();
        if !ours.is_empty() {
            *about = [about, &*ours].concat().into();
        }
        self.fields.apply(&mut head.headers);
        // What a client sent may have been put into it.
        match head.headers.get(header::HOST) {
            Some(host) if !strict::valid_host(host.as_bytes()) => Err(Why::BadRequest),
            _ => Ok(()),
        }
    }
}

/// An answer of the route's own.
fn answer(answered: Answered, exchange: Exchange) -> Response<ResponseBody> {
    exchange.answers(answered.status);
    own::last_answer(exchange, answered.status, answered.headers, answered.body)
}

async fn forward(
    snapshot: &Snapshot,
    route: &Arc<Route>,
    policies: &Policies,
    exchange: Exchange,
    (changes, web, picked): (RequestChanges<'_>, Option<Web>, Option<Picked>),
    head: request::Parts,
    body: Incoming,
) -> Response<ResponseBody> {
    let chosen =
        policies.split.as_ref().and_then(|split| split.pick(&head.headers, exchange.state.client().addr));
    if let Some(chosen) = chosen {
        exchange.set_upstream(chosen.clone());
    }
    let Some(upstream) = chosen.or(route.upstream.as_ref()) else {
        return problem::response(exchange, Why::NoHealthyTarget);
    };
    let (mut request, mut body) = prepare(snapshot, route, upstream, &exchange, head, body);
    if let Some(most) = policies.guard.as_ref().and_then(Guard::body) {
        body.limit(most);
    }
    let caller = exchange.caller();
    // After what `Connection` lists was taken out: a client has no say in these.
    for (name, value) in caller.iter().flat_map(|caller| &caller.fields) {
        request.head.headers.extend(value.clone().map(|value| (name.clone(), value)));
    }
    if let Some(digest) = caller.as_ref().and_then(|caller| caller.body.as_ref()) {
        body = match Box::pin(signed(body, digest)).await {
            Ok(body) => body,
            Err(why) => return problem::response(exchange, why),
        };
    }
    let rewritten = changes.path.is_some();
    let changed = changes.apply(&mut request).and_then(|()| match route.version.as_deref().zip(picked) {
        Some((version, picked)) => versioned::to_upstream(version, picked, rewritten, &mut request),
        None => Ok(()),
    });
    if let Err(why) = changed {
        return problem::response(exchange, why);
    }
    if let Some(web) = &web {
        body = web.translate(&mut request, body);
    }
    if let Some(mirror) = &policies.mirror {
        copy(mirror, &exchange, &request, &mut body);
    }
    let response = handler::forward(snapshot, route, upstream, exchange, request, body).await;
    match web {
        Some(web) => web.answer(response),
        None => response,
    }
}

/// Sends a copy to the shadow: at once, or when the body has passed. Connections that change their protocol have none.
fn copy(mirror: &Mirror, exchange: &Exchange, request: &Outgoing, body: &mut RequestBody) {
    if matches!(request.switch, Switch::Upgrade(_)) {
        return;
    }
    let Some(place) = mirror.take() else { return };
    let state = &exchange.state;
    let copy = Copy {
        worker: state.worker.clone(),
        upstream: mirror.upstream.clone(),
        request: Outgoing {
            head: request.head.clone(),
            switch: Switch::No,
            about: request.about.clone(),
            id: request.id.clone(),
        },
        client: state.client().addr,
        header: mirror.upstream.config.proxy_protocol.map(|version| state.client().proxy_header(version)),
        place,
    };
    match body.is_empty() {
        true => copy.send(None),
        false => body.copy(Kept::new(copy, mirror.body)),
    }
}
