//! The copy of a request for a shadow, and what becomes of the shadow's answer: nothing, or a comparison.

use http::Response;

use super::{
    RequestBody,
    body::ResponseBody,
    errand::{Errand, copied},
    exchange::Exchange,
    policed::RequestChanges,
    shadow::{Copy, Kept},
    strict,
    watched::{Side, Watched},
};
use crate::{
    policy::{
        compare::About,
        json_map::Filled,
        mirror::{AsVersion, Mirror, Place},
    },
    request::without_parameters,
    upstream::http1::{Outgoing, Switch},
    version::{Picked, path_with},
};

/// A request of which the shadow gets a copy.
pub struct Shadow<'a> {
    mirror: &'a Mirror,
    place: Place,
    /// As another version gets it, and what that does to its body; else as the upstream does.
    own: Option<(Outgoing, Option<Filled<'a>>)>,
}

impl<'a> Shadow<'a> {
    /// `request`: as the client sent it. `None`: there is no copy of it. Connections that change their protocol have none.
    pub fn of(
        mirror: &'a Mirror,
        request: &Outgoing,
        changes: Option<RequestChanges<'a>>,
        picked: Option<Picked>,
    ) -> Option<Self> {
        if matches!(request.switch, Switch::Upgrade(_)) {
            return None;
        }
        let place = mirror.take()?;
        let own = match &mirror.version {
            Some(version) => Some(as_version(version, request, changes?, picked)?),
            None => None,
        };
        Some(Shadow { mirror, place, own })
    }

    /// It gets the body as it came.
    pub fn is_of_version(&self) -> bool {
        self.own.is_some()
    }

    /// Sends it: at once, or when the body has passed. `request`: as it goes to the upstream.
    pub fn send(self, exchange: &Exchange, request: &Outgoing, body: &mut RequestBody) -> Option<Side> {
        let Shadow { mirror, place, own } = self;
        let (answer, side) = match &mirror.compare {
            Some(compare) => {
                let (answer, shadow) = Side::both(compare, about(request));
                (Some(answer), Some(shadow))
            }
            None => (None, None),
        };
        let (request, map) = own.unwrap_or_else(|| (copied(request), None));
        let map = map.map(|map| Box::new(map.into_owned()));
        let copy = Copy { errand: Errand::new(exchange, &mirror.upstream, request), place, side, map };
        match body.is_empty() {
            true => copy.send(None),
            false => body.copy(Kept::new(copy, mirror.body)),
        }
        answer
    }
}

fn about(request: &Outgoing) -> About {
    About {
        id: request.id.to_str().unwrap_or("-").to_owned(),
        method: request.head.method.to_string(),
        path: request.head.uri.path().chars().take(200).collect(),
    }
}

/// Without what names the version that the client gets. `None`: what comes out is no request.
fn as_version<'a>(
    version: &AsVersion,
    request: &Outgoing,
    mut changes: RequestChanges<'a>,
    picked: Option<Picked>,
) -> Option<(Outgoing, Option<Filled<'a>>)> {
    let mut copy = copied(request);
    let map = changes.json.take();
    let rewritten = changes.path.is_some();
    changes.apply(&mut copy).ok()?;
    let head = &mut copy.head;
    if let Some(at) = version.segment.filter(|_| !rewritten && picked.is_some_and(|picked| picked.in_path)) {
        head.uri = strict::with_path(&head.uri, path_with(head.uri.path(), at, &version.name)).ok()?;
    }
    if let Some(target) = without_parameters(&head.uri, &version.query) {
        head.uri = target.into();
    }
    version.headers.iter().for_each(|name| drop(head.headers.remove(name)));
    Some((copy, map))
}

/// Has the client's answer compared with the shadow's.
pub fn watch(response: Response<ResponseBody>, mut side: Side) -> Response<ResponseBody> {
    side.seen = Some(side.compare().see(response.status(), response.headers()));
    response.map(|body| ResponseBody::Watched(Box::new(Watched::new(body, side))))
}
