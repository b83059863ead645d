//! How a request of a route with policies gets to its upstream.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Response, header, request};

use super::super::{
    body::{RequestBody, ResponseBody, Sent},
    connection::ClientState,
    exchange::Exchange,
    grpc_web::Web,
    handler::{self, prepare},
    mapped,
    mirrored::{self, Shadow},
    problem, strict, versioned,
    watched::Side,
};
use crate::{
    auth::BodyDigest,
    limit::RouteLimits,
    observe::Why,
    policy::{
        Policies,
        json_map::Filled,
        rewrite::{Changes, Rewrite},
        template::Context,
    },
    runtime::{Route, Snapshot},
    upstream::{
        Upstream,
        http1::{self, Outgoing},
    },
    version::Picked,
};

/// How a request gets to its upstream.
pub struct Way<'a> {
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
    pub fn new(
        snapshot: &'a Snapshot,
        (route, policies): (&'a Arc<Route>, &'a Policies),
        (changes, shadowed): (RequestChanges<'a>, Option<RequestChanges<'a>>),
        web: Option<Web>,
        picked: Option<Picked>,
    ) -> Self {
        Way {
            snapshot,
            route,
            policies,
            changes,
            map: None,
            web,
            picked,
            shadowed,
            upstream: None,
            shadow: None,
            side: None,
        }
    }

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

#[derive(Default)]
pub struct RequestChanges<'a> {
    pub path: Option<String>,
    fields: Changes<'a>,
    pub json: Option<Filled<'a>>,
}

impl<'a> RequestChanges<'a> {
    pub fn new(rewrite: &'a Rewrite, context: &Context<'_>) -> Result<Self, Why> {
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

/// The whole body, if it is what was signed: until that is known nothing of it goes on.
async fn signed(body: RequestBody, state: &ClientState, digest: &BodyDigest) -> Result<RequestBody, Why> {
    const MOST: u64 = 10 << 20;
    let whole = body.whole(state, MOST).await?;
    if digest.is_of(&whole) { Ok(RequestBody::kept(whole)) } else { Err(Why::Unauthorized) }
}

/// Whether the upstream sees another value of this field than the client's.
pub fn changes_field(route: &Route, name: &HeaderName) -> bool {
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
