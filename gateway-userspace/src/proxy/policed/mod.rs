//! A request of a route with policies: what [`super::handler`] tells, with what they add.

mod waiting;
mod way;

use std::sync::Arc;

use http::{Response, request};
use http_body::Body;

use self::waiting::Job;
pub use self::{
    waiting::Answering,
    way::{RequestChanges, Way, changes_field},
};
use super::{
    body::ResponseBody,
    cached::{self, Looked},
    compressed::Compressed,
    exchange::Exchange,
    grpc_web::Web,
    handler::{Begun, Onward},
    incoming::Incoming,
    limited, own, problem,
};
use crate::{
    auth::Refused,
    limit::{Admission, Fields},
    observe::Why,
    policy::{
        Policies, answer::Answered, client_cache, compress::Accepted, cors::Allowed, json_map::Filled,
        rewrite::Changes, template::Context,
    },
    runtime::{Route, Snapshot},
    upstream::http1,
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

impl Early {
    /// Has limits decide, unless that hangs on what others say.
    ///
    /// # Errors
    /// The answer to one that is refused.
    fn ask_limits(
        mut self,
        route: &Route,
        policies: &Policies,
        head: &mut request::Parts,
    ) -> Result<Self, Box<Response<ResponseBody>>> {
        let limits = policies.limits.as_ref().filter(|limits| !self.preflight && !limits.may_wait());
        let Some(limits) = limits else { return Ok(self) };
        self.asked = true;
        self.admission = limited::admit_now(limits, &self.exchange, route, head);
        match self.admission.take_if(|admission| admission.refused.is_some()) {
            Some(refused) => Err(Box::new(refuse_limited(policies, self.exchange, refused, head))),
            None => Ok(self),
        }
    }

    /// Limits have let it in, and it need not wait for that.
    fn is_in(&self, policies: &Policies) -> bool {
        let waits = self.admission.as_ref().is_some_and(|admission| !admission.wait.is_zero());
        (policies.limits.is_none() || self.preflight || self.asked) && !waits
    }
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
        Err(early) => {
            let job = Job { snapshot, route, picked, early, head, body };
            Begun::Onward(Onward::Policed(job.run()))
        }
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
    if policies.gate.is_some() || holds_answers || early.web.is_some() || !early.is_in(policies) {
        return Err(early);
    }
    if !early.preflight && policies.answer.is_none() {
        let Some(cache) = &policies.cache else { return Err(early) };
        early.looked = cached::look((route, policies), cache, &early.exchange, head, body);
        if !early.looked.as_ref().is_some_and(Looked::is_fresh) {
            return Err(early);
        }
    }
    let Early { exchange, asked, admission, looked, .. } = early;
    let mut plan = match Plan::of((route, policies), picked, &exchange, head) {
        Ok(plan) => plan,
        Err(why) => return Ok(problem::response(exchange, why)),
    };
    let mut response = match (plan.answer, looked.zip(policies.cache.as_ref())) {
        (Some(answered), _) => answer(answered, exchange),
        (None, Some((looked, cache))) => looked.answer(cache, head, exchange),
        (None, None) => problem::response(exchange, Why::NoRoute),
    };
    if asked {
        response = limited::pace(limited::meter(response));
    }
    plan.ends.told = admission.map(|admission| admission.fields);
    Ok(plan.ends.apply(policies, response))
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
    let early = Early { exchange, web, preflight, asked: false, admission: None, looked: None };
    match policies.gate {
        // What they say may hang on who calls.
        Some(_) => Ok(early),
        None => early.ask_limits(route, policies, head),
    }
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
    /// Of the version that takes the request.
    telling: Option<Telling<'a>>,
    fields: Changes<'a>,
    /// Of limits, once they are asked.
    told: Option<Fields>,
    /// For any answer but that to a preflight, which says more.
    cors: Option<Allowed<'a>>,
    compress: Option<Accepted<'a>>,
}

impl Ends<'_> {
    fn apply(self, policies: &Policies, mut response: Response<ResponseBody>) -> Response<ResponseBody> {
        let (status, headers) = (response.status(), response.headers_mut());
        if let Some(telling) = self.telling {
            telling.apply(status, headers);
        }
        if let Some(allowed) = self.cors {
            allowed.apply(headers);
        }
        if let Some(protect) = &policies.protect {
            protect.apply(headers);
        }
        self.fields.apply(headers);
        if let Some(told) = self.told {
            told.apply(headers);
        }
        match self.compress {
            Some(accepted) => compress(response, &accepted),
            None => response,
        }
    }
}

impl<'a> Plan<'a> {
    fn of(
        (route, policies): (&'a Route, &'a Policies),
        picked: Option<Picked>,
        exchange: &Exchange,
        head: &request::Parts,
    ) -> Result<Self, Why> {
        let (id, caller, client) = (exchange.id(), exchange.caller(), exchange.state.kept_client());
        let caller = caller.as_deref();
        let context = &Context { head, client: &client.text, id: &id, scheme: client.scheme, caller };
        let rewrite = policies.rewrite.as_ref();
        let cors = policies.cors.as_ref();
        let preflight = cors.and_then(|cors| cors.preflight(head));
        Ok(Plan {
            ends: Ends {
                telling: route
                    .version
                    .as_deref()
                    .zip(picked)
                    .map(|(version, picked)| version.tell.of(picked, head)),
                told: None,
                fields: rewrite.map(|rewrite| rewrite.response.fill(context)).unwrap_or_default(),
                cors: cors.filter(|_| preflight.is_none()).map(|cors| cors.allowed(head)),
                compress: policies.compress.as_ref().map(|compress| compress.accepted(head)),
            },
            answer: preflight.or_else(|| policies.answer.as_ref().map(|answer| answer.answer(context))),
            client_cache: policies.client_cache.as_ref().and_then(|policy| policy.asked(head)),
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

/// An answer of the route's own.
fn answer(answered: Answered, exchange: Exchange) -> Response<ResponseBody> {
    exchange.answers(answered.status);
    own::last_answer(exchange, answered.status, answered.headers, answered.body)
}
