//! The part of a request of a route with policies for which something has to be waited for: each way is a future as small as
//! it can be, as it is copied into its box.

use std::{pin::Pin, sync::Arc};

use http::{Response, request};
use http_body::Body;

use super::{
    super::{
        body::{RequestBody, ResponseBody},
        cached,
        exchange::Exchange,
        handler,
        incoming::Incoming,
        limited, mapped, problem,
        subrequest::Asker,
        tagged, versioned,
    },
    Early, Ends, Plan, answer, early, refuse, refuse_limited,
    way::Way,
};
use crate::{
    auth::{Asking, Gate, Refused},
    config::units::Moment,
    observe::Why,
    policy::Policies,
    runtime::{Route, Snapshot},
    upstream::{Upstream, http1::Outgoing},
    version::Picked,
};

/// A request that was not answered at once.
pub struct Job {
    pub snapshot: Arc<Snapshot>,
    pub route: Arc<Route>,
    pub picked: Option<Picked>,
    pub early: Early,
    pub head: request::Parts,
    pub body: Incoming,
}

pub type Answering = Pin<Box<dyn Future<Output = Response<ResponseBody>>>>;

impl Job {
    /// Takes it to its answer.
    pub fn run(self) -> Answering {
        match &self.route.policies {
            Some(policies) if policies.gate.is_some() => Box::pin(guarded(self)),
            _ => self.past_the_gate(),
        }
    }

    fn past_the_gate(self) -> Answering {
        match self.is_straight() {
            true => Box::pin(straight(self)),
            false => Box::pin(winding(self)),
        }
    }

    /// Whether nothing but its upstream has to be waited for, whose answer goes back as it comes.
    fn is_straight(&self) -> bool {
        let Job { route, early, .. } = self;
        let Some(policies) = &route.policies else { return false };
        policies.only_passes()
            && early.is_in(policies)
            && !early.preflight
            && early.web.is_none()
            && !is_signed(&early.exchange)
    }
}

/// Its body is to be what was signed.
fn is_signed(exchange: &Exchange) -> bool {
    exchange.caller().is_some_and(|caller| caller.body.is_some())
}

/// Finds out who calls, before anything else.
async fn guarded(mut job: Job) -> Response<ResponseBody> {
    let route = job.route.clone();
    let Some((policies, gate)) = route.policies.as_deref().and_then(|all| Some((all, all.gate.as_ref()?)))
    else {
        return problem::response(job.early.exchange, Why::NoRoute);
    };
    if let Some(clean) = gate.clean_query(&job.head.uri) {
        job.early.exchange.log_query(clean.query());
    }
    if !job.early.preflight
        && let Err(refused) = admit(gate, &job).await
    {
        return refuse(policies, refused, job.early.exchange, &job.head);
    }
    let next = versioned::of_caller(&route, job.picked, &job.early.exchange);
    if let Some((next, picked, policies)) = next.as_ref().and_then(versioned::Next::parts) {
        // Whose version asks for itself.
        job.early.exchange.set_route(next);
        if policies.gate.is_none() {
            gate.strip(&mut job.head);
        }
        let Job { snapshot, early, mut head, body, .. } = job;
        return match self::early(next, policies, early.exchange, &mut head, &body) {
            Ok(early) => {
                let job = Job { snapshot, route: next.clone(), picked: Some(picked), early, head, body };
                job.run().await
            }
            Err(refusal) => *refusal,
        };
    }
    gate.strip(&mut job.head);
    job.early = match job.early.ask_limits(&route, policies, &mut job.head) {
        Ok(early) => early,
        Err(refusal) => return *refusal,
    };
    job.past_the_gate().await
}

async fn admit(gate: &Gate, job: &Job) -> Result<(), Refused> {
    let (exchange, snapshot) = (&job.early.exchange, &*job.snapshot);
    let client = exchange.state.kept_client();
    let worker = &exchange.state.worker;
    let asking = Asking {
        head: &job.head,
        now: Moment::of(worker.wall_clock(exchange.started())),
        worker: worker.index,
        memory: &worker.memory,
        marks: client.marks.as_deref(),
        has_body: !job.body.is_end_stream(),
        elsewhere: &Asker { snapshot, exchange },
    };
    let since = exchange.trace_clock();
    let admitted = gate.admit(&asking).await;
    exchange.waited();
    exchange.traced("auth", since, []);
    exchange.set_caller(admitted?);
    Ok(())
}

/// A request that only its upstream has to be waited for.
async fn straight(job: Job) -> Response<ResponseBody> {
    let (snapshot, route) = (job.snapshot.clone(), job.route.clone());
    let Some(policies) = &route.policies else {
        return problem::response(job.early.exchange, Why::NoRoute);
    };
    let Sendable { upstream, exchange, request, body, ends } =
        match sendable(&snapshot, (&route, policies), job) {
            Ok(sendable) => sendable,
            Err(response) => return *response,
        };
    let mut response = handler::forward(&snapshot, &route, upstream, exchange, request, body).await;
    if policies.limits.is_some() {
        response = limited::pace(limited::meter(response));
    }
    ends.apply(policies, response)
}

/// All that is needed to ask an upstream, and what is done of its answer.
struct Sendable<'a> {
    upstream: &'a Upstream,
    exchange: Exchange,
    request: Outgoing,
    body: RequestBody,
    ends: Ends<'a>,
}

/// # Errors
/// The answer to what cannot be sent.
fn sendable<'a>(
    snapshot: &'a Snapshot,
    (route, policies): (&'a Arc<Route>, &'a Policies),
    job: Job,
) -> Result<Sendable<'a>, Box<Response<ResponseBody>>> {
    let Job { picked, early, mut head, body, .. } = job;
    let Early { exchange, admission, .. } = early;
    let mut plan = match Plan::of((route, policies), picked, &exchange, &head) {
        Ok(plan) => plan,
        Err(why) => return Err(Box::new(problem::response(exchange, why))),
    };
    plan.ends.told = policies.limits.as_ref().map(|_| {
        let admission = admission.unwrap_or_default();
        limited::mark(&admission, &mut head.headers);
        admission.fields
    });
    let mut way = Way::new(snapshot, (route, policies), (plan.request, None), None, picked);
    match way.prepare(&exchange, head, body) {
        Ok((upstream, request, body)) => Ok(Sendable { upstream, exchange, request, body, ends: plan.ends }),
        Err(why) => Err(Box::new(problem::response(exchange, why))),
    }
}

/// A request of which more has to be waited for: others' word on limits, a cache, bodies that are to be whole.
async fn winding(job: Job) -> Response<ResponseBody> {
    let Job { snapshot, route, picked, early, mut head, body } = job;
    let Early { exchange, web, preflight, asked, admission, looked } = early;
    let Some(policies) = &route.policies else { return problem::response(exchange, Why::NoRoute) };
    let mut plan = match Plan::of((&route, policies), picked, &exchange, &head) {
        Ok(plan) => plan,
        Err(why) => return problem::response(exchange, why),
    };
    let limits = policies.limits.as_ref().filter(|_| !preflight);
    if let Some(limits) = limits {
        let admission = match asked {
            true => admission.unwrap_or_default(),
            false => Box::pin(limited::admit(limits, &exchange, &route, &head)).await,
        };
        if admission.refused.is_some() {
            return refuse_limited(policies, exchange, admission, &mut head);
        }
        limited::mark(&admission, &mut head.headers);
        if !admission.wait.is_zero() {
            tokio::time::sleep(admission.wait).await;
        }
        plan.ends.told = Some(admission.fields);
    }
    let map = plan.map.filter(|_| plan.answer.is_none());
    if map.is_some() {
        mapped::ask_for_whole(&mut head.headers);
    }
    let mut response = match plan.answer {
        Some(answered) => answer(answered, exchange),
        None => {
            // A body that was signed is checked on the plain way only.
            let plain = web.is_some() || is_signed(&exchange);
            let changes = (plan.request, plan.shadow);
            let way = Way::new(&snapshot, (&route, policies), changes, web, picked);
            match &policies.cache {
                Some(cache) if !plain => {
                    Box::pin(cached::handle(way, (cache, looked), exchange, head, body)).await
                }
                _ => Box::pin(way.forward(exchange, head, body)).await,
            }
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
    plan.ends.apply(policies, response)
}
