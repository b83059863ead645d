//! A request of a route with policies: what [`super::handler`] tells, with what they add.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Response, header, request};
use http_body::Body;

use super::{
    body::{RequestBody, ResponseBody, Sent},
    cached::{self, Looked},
    compressed::Compressed,
    connection::ClientState,
    exchange::Exchange,
    grpc_web::Web,
    handler::{self, Begun, Onward, prepare},
    incoming::Incoming,
    limited, mapped,
    mirrored::{self, Shadow},
    own, problem, strict,
    subrequest::Asker,
    tagged, versioned,
    watched::Side,
};
use crate::{
    auth::{Asking, BodyDigest, Gate, Refused},
    config::units::Moment,
    limit::{Admission, Fields, RouteLimits},
    observe::Why,
    policy::{
        Policies,
        answer::Answered,
        client_cache,
        compress::Accepted,
        cors::Allowed,
        json_map::Filled,
        rewrite::{Changes, Rewrite},
        template::Context,
    },
    runtime::{Route, Snapshot},
    upstream::{
        Upstream,
        http1::{self, Outgoing},
    },
    version::{Picked, Telling},
};

/// What is decided of a request before anything has to be waited for.
pub struct Early {
    exchange: Exchange,
    web: Option<Web>,
    preflight: bool,
    /// Limits were asked, as that did not hang on who calls or on what others say; and what they had to tell.
    asked: bool,
    admission: Option<Admission>,
    /// What the cache has, where that did not hang on who calls.
    looked: Option<Looked>,
}

/// Does what can be done of a request at once: that is all of it, if it is refused, stored, or answered by its route.
pub fn begin(
    snapshot: Arc<Snapshot>,
    (route, picked): (Arc<Route>, Option<Picked>),
    exchange: Exchange,
    mut head: request::Parts,
    body: Incoming,
) -> Begun {
    let Some(policies) = &route.policies else { return problem::response(exchange, Why::NoRoute).into() };
    let early = match early(&route, policies, exchange, &mut head, &body) {
        Ok(early) => early,
        Err(refusal) => return (*refusal).into(),
    };
    match at_once(&route, (policies, picked), early, &head, &body) {
        Ok(response) => {
            http1::recycle(head.headers);
            response.into()
        }
        Err(early) => Begun::Onward(Onward::Policed(Box::pin(async move {
            handle(&snapshot, &route, picked, early, head, body).await
        }))),
    }
}

/// The answer to a request for which nothing has to be waited for.
///
/// # Errors
/// Something has.
#[allow(clippy::result_large_err, reason = "it is moved once; a box would cost more")]
fn at_once(
    route: &Route,
    (policies, picked): (&Policies, Option<Picked>),
    mut early: Early,
    head: &request::Parts,
    body: &Incoming,
) -> Result<Response<ResponseBody>, Early> {
    // Its body may have to be whole before its head can be sent.
    let holds_answers = policies.client_cache.is_some()
        || policies.rewrite.as_ref().is_some_and(|rewrite| rewrite.response_json.is_some());
    let limits = policies.limits.as_ref().filter(|_| !early.preflight);
    let waits = early.admission.as_ref().is_some_and(|admission| !admission.wait.is_zero());
    let admitted = (limits.is_none() || early.asked) && !waits;
    if policies.gate.is_some() || holds_answers || early.web.is_some() || !admitted {
        return Err(early);
    }
    if !early.preflight && policies.answer.is_none() {
        let Some(cache) = &policies.cache else { return Err(early) };
        early.looked = cached::look((route, policies), cache, &early.exchange, head, body);
        if !early.looked.as_ref().is_some_and(Looked::is_fresh) {
            return Err(early);
        }
    }
    let Early { exchange, admission, looked, .. } = early;
    let (id, client) = (exchange.id(), exchange.state.kept_client());
    let context = Context { head, client: &client.text, id: &id, scheme: client.scheme, caller: None };
    let plan = match Plan::new(policies, &context) {
        Ok(plan) => plan,
        Err(why) => return Ok(problem::response(exchange, why)),
    };
    let mut response = match (plan.answer, looked.zip(policies.cache.as_ref())) {
        (Some(answered), _) => answer(answered, exchange),
        (None, Some((looked, cache))) => looked.answer(cache, head, exchange),
        (None, None) => problem::response(exchange, Why::NoRoute),
    };
    if limits.is_some() {
        response = limited::pace(limited::meter(response));
    }
    let telling = telling(route, picked, head);
    Ok(plan.ends.apply(policies, response, telling, admission.map(|admission| admission.fields)))
}

/// What the answer tells of the version that takes the request.
fn telling<'a>(route: &'a Route, picked: Option<Picked>, head: &request::Parts) -> Option<Telling<'a>> {
    let (version, picked) = route.version.as_deref().zip(picked)?;
    Some(version.tell.of(picked, head))
}

/// Decides what can be decided at once. A request that is refused here costs no more than that: nothing is made for what would
/// follow.
///
/// # Errors
/// The answer to one that is refused.
pub fn early(
    route: &Route,
    policies: &Policies,
    exchange: Exchange,
    head: &mut request::Parts,
    body: &Incoming,
) -> Result<Early, Box<Response<ResponseBody>>> {
    let web = if policies.grpc_web { Web::of(&head.headers) } else { None };
    if let Some(web) = &web {
        exchange.set_grpc(web.kind());
    }
    // Such a request proves nothing, and does nothing (Fetch standard).
    let preflight = policies.cors.as_ref().is_some_and(|cors| cors.preflight(head).is_some());
    if let Some(guard) = &policies.guard
        && !preflight
    {
        let client = exchange.state.client().addr;
        if let Err(why) = guard.check(head, client, body.size_hint().lower(), body.is_end_stream()) {
            return Err(Box::new(refuse(policies, Refused::of(why), exchange, head)));
        }
    }
    let at_once = |limits: &&RouteLimits| policies.gate.is_none() && !preflight && !limits.may_wait();
    let limits = policies.limits.as_ref().filter(at_once);
    let asked = limits.is_some();
    let admission = limits.and_then(|limits| limited::admit_now(limits, &exchange, route, head));
    match admission {
        Some(admission) if admission.refused.is_some() => {
            Err(Box::new(refuse_limited(policies, exchange, admission, head)))
        }
        admission => Ok(Early { exchange, web, preflight, asked, admission, looked: None }),
    }
}

async fn handle(
    snapshot: &Snapshot,
    route: &Arc<Route>,
    picked: Option<Picked>,
    early: Early,
    mut head: request::Parts,
    body: Incoming,
) -> Response<ResponseBody> {
    let Early { exchange, web, preflight, asked, admission, looked } = early;
    let Some(policies) = &route.policies else { return problem::response(exchange, Why::NoRoute) };
    if let Some(gate) = &policies.gate {
        if let Some(clean) = gate.clean_query(&head.uri) {
            exchange.log_query(clean.query());
        }
        if !preflight
            && let Err(refused) = admit(gate, snapshot, &exchange, &head, !body.is_end_stream()).await
        {
            return refuse(policies, refused, exchange, &head);
        }
        let next = versioned::of_caller(route, picked, &exchange);
        if let Some((next, picked, policies)) = next.as_ref().and_then(versioned::Next::parts) {
            // Whose version asks for itself.
            exchange.set_route(next);
            if policies.gate.is_none() {
                gate.strip(&mut head);
            }
            let early = match self::early(next, policies, exchange, &mut head, &body) {
                Ok(early) => early,
                Err(refusal) => return *refusal,
            };
            let handled = handle(snapshot, next, Some(picked), early, head, body);
            return Box::pin(handled).await;
        }
        gate.strip(&mut head);
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
    let telling = telling(route, picked, &head);
    let mut told = None;
    let limits = policies.limits.as_ref().filter(|_| !preflight);
    if let Some(limits) = limits {
        let admission = match asked {
            true => admission,
            false if limits.may_wait() => {
                Some(Box::pin(limited::admit(limits, &exchange, route, &head)).await)
            }
            false => limited::admit_now(limits, &exchange, route, &head),
        };
        let admission = admission.unwrap_or_default();
        if admission.refused.is_some() {
            return refuse_limited(policies, exchange, admission, &mut head);
        }
        limited::mark(&admission, &mut head.headers);
        if !admission.wait.is_zero() {
            tokio::time::sleep(admission.wait).await;
        }
        told = Some(admission.fields);
    }
    let map = plan.map.filter(|_| plan.answer.is_none());
    if map.is_some() {
        mapped::ask_for_whole(&mut head.headers);
    }
    let mut response = match plan.answer {
        Some(answered) => answer(answered, exchange),
        None => {
            let passing = (plan.request, plan.shadow, web, picked);
            forward(snapshot, route, policies, exchange, (passing, looked), head, body).await
        }
    };
    // What it cost is what the upstream says.
    let mut metered = limits.is_none();
    if let Some(map) = &map {
        if !std::mem::replace(&mut metered, true) {
            response = limited::meter(response);
        }
        response = Box::pin(mapped::response(map, response)).await;
    }
    if let Some(asked) = plan.client_cache {
        response = Box::pin(tagged::tag(&asked, response)).await;
    }
    if !metered {
        response = limited::meter(response);
    }
    if limits.is_some() {
        response = limited::pace(response);
    }
    plan.ends.apply(policies, response, telling, told)
}

/// The answer to a request that a limit refused, of which nothing is needed any more.
fn refuse_limited(
    policies: &Policies,
    exchange: Exchange,
    admission: Admission,
    head: &mut request::Parts,
) -> Response<ResponseBody> {
    let cors = policies.cors.as_ref().map(|cors| cors.allowed(head));
    http1::recycle(std::mem::take(&mut head.headers));
    readable(cors, limited::refuse(exchange, admission))
}

/// So that pages of other origins may know why.
fn readable(cors: Option<Allowed<'_>>, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    if let Some(allowed) = cors {
        allowed.apply(response.headers_mut());
    }
    response
}

/// Finds out who calls.
async fn admit(
    gate: &Gate,
    snapshot: &Snapshot,
    exchange: &Exchange,
    head: &request::Parts,
    has_body: bool,
) -> Result<(), Refused> {
    let client = exchange.state.kept_client();
    let worker = &exchange.state.worker;
    let asking = Asking {
        head,
        now: Moment::of(worker.wall_clock(exchange.started())),
        worker: worker.index,
        memory: &worker.memory,
        marks: client.marks.as_deref(),
        has_body,
        elsewhere: &Asker { snapshot, exchange },
    };
    let since = exchange.trace_clock();
    let admitted = gate.admit(&asking).await;
    exchange.waited();
    exchange.traced("auth", since, []);
    exchange.set_caller(admitted?);
    Ok(())
}

fn refuse(
    policies: &Policies,
    refused: Refused,
    exchange: Exchange,
    head: &request::Parts,
) -> Response<ResponseBody> {
    if refused.presented {
        exchange.set_presented();
    }
    let response = match refused.answer {
        Some(answer) if exchange.grpc().is_none() => {
            exchange.refuse_with(refused.why, answer.status);
            own::last_answer(exchange, answer.status, answer.headers, answer.body)
        }
        _ => problem::response_with(exchange, refused.why, refused.fields),
    };
    readable(policies.cors.as_ref().map(|cors| cors.allowed(head)), response)
}

/// The whole body, if it is what was signed: until that is known nothing of it goes on.
async fn signed(body: RequestBody, state: &ClientState, digest: &BodyDigest) -> Result<RequestBody, Why> {
    const MOST: u64 = 10 << 20;
    let whole = body.whole(state, MOST).await?;
    if digest.is_of(&whole) { Ok(RequestBody::kept(whole)) } else { Err(Why::Unauthorized) }
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
    /// For a shadow that is another version's.
    shadow: Option<RequestChanges<'a>>,
    /// Of the answer's body.
    map: Option<Filled<'a>>,
    client_cache: Option<client_cache::Asked<'a>>,
    ends: Ends<'a>,
}

/// What is done of an answer last.
struct Ends<'a> {
    fields: Changes<'a>,
    /// For any answer but that to a preflight, which says more.
    cors: Option<Allowed<'a>>,
    compress: Option<Accepted<'a>>,
}

impl Ends<'_> {
    /// `telling`, `told`: of the version, and of limits.
    fn apply(
        self,
        policies: &Policies,
        mut response: Response<ResponseBody>,
        telling: Option<Telling<'_>>,
        told: Option<Fields>,
    ) -> Response<ResponseBody> {
        let (status, headers) = (response.status(), response.headers_mut());
        if let Some(telling) = telling {
            telling.apply(status, headers);
        }
        if let Some(allowed) = self.cors {
            allowed.apply(headers);
        }
        if let Some(protect) = &policies.protect {
            protect.apply(headers);
        }
        self.fields.apply(headers);
        if let Some(told) = told {
            told.apply(headers);
        }
        match self.compress {
            Some(accepted) => compress(response, &accepted),
            None => response,
        }
    }
}

#[derive(Default)]
pub(super) struct RequestChanges<'a> {
    pub path: Option<String>,
    fields: Changes<'a>,
    pub json: Option<Filled<'a>>,
}

impl<'a> Plan<'a> {
    fn new(policies: &'a Policies, context: &Context<'_>) -> Result<Self, Why> {
        let rewrite = policies.rewrite.as_ref();
        let cors = policies.cors.as_ref();
        let preflight = cors.and_then(|cors| cors.preflight(context.head));
        Ok(Plan {
            ends: Ends {
                fields: rewrite.map(|rewrite| rewrite.response.fill(context)).unwrap_or_default(),
                cors: cors.filter(|_| preflight.is_none()).map(|cors| cors.allowed(context.head)),
                compress: policies.compress.as_ref().map(|compress| compress.accepted(context.head)),
            },
            answer: preflight.or_else(|| policies.answer.as_ref().map(|answer| answer.answer(context))),
            client_cache: policies.client_cache.as_ref().and_then(|policy| policy.asked(context.head)),
            request: match rewrite {
                Some(rewrite) => RequestChanges::new(rewrite, context)?,
                None => RequestChanges::default(),
            },
            shadow: match policies.mirror.as_ref().and_then(|mirror| mirror.version.as_ref()) {
                Some(version) => RequestChanges::new(&version.rewrite, context).ok(),
                None => None,
            },
            map: rewrite.and_then(|rewrite| Some(rewrite.response_json.as_ref()?.fill(context))),
        })
    }
}

impl<'a> RequestChanges<'a> {
    fn new(rewrite: &'a Rewrite, context: &Context<'_>) -> Result<Self, Why> {
        let path = rewrite.path(context).map_err(|_| Why::BadRequest)?;
        let json = rewrite.json.as_ref().map(|map| map.fill(context));
        Ok(RequestChanges { path, fields: rewrite.request.fill(context), json })
    }

    pub fn apply(mut self, request: &mut Outgoing) -> Result<(), Why> {
        let Outgoing { head, about, .. } = request;
        if let Some(path) = self.path {
            head.uri = strict::with_path(&head.uri, path)?;
        }
        let ours = self.fields.take_vouched();
        if !ours.is_empty() {
            *about = [about, &*ours].concat().into();
        }
        self.fields.apply_to_request(&mut head.headers);
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

/// How a request is passed on: changed, changed for a shadow, translated, as which version.
type Passing<'a> = (RequestChanges<'a>, Option<RequestChanges<'a>>, Option<Web>, Option<Picked>);

async fn forward(
    snapshot: &Snapshot,
    route: &Arc<Route>,
    policies: &Policies,
    exchange: Exchange,
    ((changes, shadowed, web, picked), looked): (Passing<'_>, Option<Looked>),
    head: request::Parts,
    body: Incoming,
) -> Response<ResponseBody> {
    let map = None;
    let way = Way {
        snapshot,
        route,
        policies,
        changes,
        map,
        web,
        picked,
        shadowed,
        upstream: None,
        shadow: None,
        side: None,
    };
    // A body that was signed is checked on the plain way only.
    let signed = exchange.caller().is_some_and(|caller| caller.body.is_some());
    match &policies.cache {
        Some(cache) if way.web.is_none() && !signed => {
            Box::pin(cached::handle(way, (cache, looked), exchange, head, body)).await
        }
        _ => way.forward(exchange, head, body).await,
    }
}

/// How a request gets to its upstream.
pub(super) struct Way<'a> {
    pub snapshot: &'a Snapshot,
    pub route: &'a Arc<Route>,
    pub policies: &'a Policies,
    changes: RequestChanges<'a>,
    /// Of the body, which has to be whole for it.
    map: Option<Filled<'a>>,
    web: Option<Web>,
    picked: Option<Picked>,
    /// For a shadow.
    shadowed: Option<RequestChanges<'a>>,
    /// The one that is chosen, once one is.
    upstream: Option<&'a Arc<Upstream>>,
    /// Which gets the body as it is to be.
    shadow: Option<Shadow<'a>>,
    /// The answer is to be compared with the shadow's.
    side: Option<Side>,
}

impl<'a> Way<'a> {
    pub async fn forward(
        mut self,
        exchange: Exchange,
        head: request::Parts,
        body: impl Into<Sent>,
    ) -> Response<ResponseBody> {
        let (upstream, mut request, mut body) = match self.prepare(&exchange, head, body) {
            Ok(prepared) => prepared,
            Err(why) => return problem::response(exchange, why),
        };
        if let Some(digest) = exchange.caller().and_then(|caller| caller.body.clone()) {
            body = match Box::pin(signed(body, &exchange.state, &digest)).await {
                Ok(body) => body,
                Err(why) => return problem::response(exchange, why),
            };
        }
        if self.maps() {
            body = match Box::pin(self.map(&exchange, &mut request, body)).await {
                Ok(body) => body,
                Err(why) => return problem::response(exchange, why),
            };
        }
        let response = handler::forward(self.snapshot, self.route, upstream, exchange, request, body).await;
        let response = self.watch(response);
        match self.web {
            Some(web) => web.answer(response),
            None => response,
        }
    }

    /// Has an upstream's answer compared with a shadow's, if it is to be.
    pub fn watch(&mut self, response: Response<ResponseBody>) -> Response<ResponseBody> {
        match self.side.take() {
            Some(side) => mirrored::watch(response, side),
            None => response,
        }
    }

    /// The upstream that is chosen for the request, once and for all. `None`: there is none.
    pub fn upstream(&mut self, headers: &HeaderMap, exchange: &Exchange) -> Option<&'a Arc<Upstream>> {
        if self.upstream.is_none() {
            let split = self.policies.split.as_ref();
            let chosen = split.and_then(|split| split.pick(headers, exchange.state.client().addr));
            if let Some(chosen) = chosen {
                exchange.set_upstream(chosen.clone());
            }
            self.upstream = chosen.or(self.route.upstream.as_ref());
        }
        self.upstream
    }

    /// The request as it goes to the upstream that is chosen for it.
    pub fn prepare(
        &mut self,
        exchange: &Exchange,
        head: request::Parts,
        body: impl Into<Sent>,
    ) -> Result<(&'a Arc<Upstream>, Outgoing, RequestBody), Why> {
        let upstream = self.upstream(&head.headers, exchange).ok_or(Why::NoHealthyTarget)?;
        let (mut request, mut body) = prepare(self.snapshot, self.route, upstream, exchange, head, body);
        if reads_bodies(self.policies) {
            request.head.headers.remove(header::ACCEPT_ENCODING);
        }
        if let Some(guard) = &self.policies.guard {
            if let Some(most) = guard.body() {
                body.limit(most);
            }
            if !body.is_empty()
                && let Some(checker) = guard.json(&request.head)?
            {
                body = body.checked(checker);
            }
        }
        // After what `Connection` lists was taken out: a client has no say in these.
        for (name, value) in exchange.caller().iter().flat_map(|caller| &caller.fields) {
            request.head.headers.extend(value.clone().map(|value| (name.clone(), value)));
        }
        let mut changes = std::mem::take(&mut self.changes);
        self.map = changes.json.take().filter(|_| !body.is_empty());
        let rewritten = changes.path.is_some();
        let mirror = self.policies.mirror.as_ref();
        let shadow =
            mirror.and_then(|mirror| Shadow::of(mirror, &request, self.shadowed.take(), self.picked));
        changes.apply(&mut request)?;
        if let Some((version, picked)) = self.route.version.as_deref().zip(self.picked) {
            versioned::to_upstream(version, picked, rewritten, &mut request)?;
        }
        if let Some(web) = &self.web {
            body = web.translate(&mut request, body);
        }
        match self.maps() && !shadow.as_ref().is_some_and(Shadow::is_of_version) {
            true => self.shadow = shadow,
            false => self.side = shadow.and_then(|shadow| shadow.send(exchange, &request, &mut body)),
        }
        Ok((upstream, request, body))
    }

    /// Whether there is more to be done of the body: [`Self::map`].
    pub fn maps(&self) -> bool {
        self.map.is_some()
    }

    /// The body as it is to be.
    ///
    /// # Errors
    /// It does not come, or cannot be changed so.
    pub async fn map(
        &mut self,
        exchange: &Exchange,
        request: &mut Outgoing,
        mut body: RequestBody,
    ) -> Result<RequestBody, Why> {
        if let Some(map) = self.map.take() {
            body = mapped::request(&map, exchange, request, body).await?;
        }
        if let Some(shadow) = self.shadow.take() {
            self.side = shadow.send(exchange, request, &mut body);
        }
        Ok(body)
    }
}

/// Whether the upstream sees another value of this field than the client's.
pub(super) fn changes_field(route: &Route, name: &HeaderName) -> bool {
    let policies = route.policies.as_deref();
    let rewrite = policies.and_then(|policies| policies.rewrite.as_ref());
    let uncoded = *name == header::ACCEPT_ENCODING && policies.is_some_and(reads_bodies);
    uncoded
        || http1::ends_here(name)
        || *name == header::VIA
        || rewrite.is_some_and(|rewrite| rewrite.sets(name))
}

/// Limits and maps look into bodies, which should not be compressed then.
fn reads_bodies(policies: &Policies) -> bool {
    policies.limits.as_ref().is_some_and(RouteLimits::reads_bodies)
        || policies.rewrite.as_ref().is_some_and(|rewrite| rewrite.response_json.is_some())
}
