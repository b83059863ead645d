//! What an answer says of its version: `API-Version`, `Deprecation` (RFC 9745), `Sunset` (RFC 8594), `Link` (RFC 8288),
//! `Vary`, `Content-Location`.

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, request};

use super::{Chooser, Picked, path_with};
use crate::config::{
    model::{self, ApiVersion, Sticky},
    units::Moment,
};

const DEPRECATION: HeaderName = HeaderName::from_static("deprecation");
const SUNSET: HeaderName = HeaderName::from_static("sunset");

/// Of one version, made when the config is loaded.
#[derive(Debug)]
pub struct Tell {
    /// In place of the upstream's.
    fields: Vec<(HeaderName, HeaderValue)>,
    /// Beside the upstream's.
    links: Vec<HeaderValue>,
    /// By source, the last one for the default.
    vary: Box<[Option<HeaderValue>]>,
    name: Box<str>,
    /// Where the version stands in paths, if it may.
    segment: Option<usize>,
    successor: Option<Box<str>>,
}

/// Of one answer.
#[derive(Debug)]
pub struct Telling<'a> {
    tell: &'a Tell,
    vary: Option<&'a HeaderValue>,
    link: Option<HeaderValue>,
    location: Option<HeaderValue>,
}

impl Tell {
    pub(super) fn new(config: &model::Versions, version: &ApiVersion, chooser: &Chooser) -> Self {
        let name = version.name.as_str();
        let mut fields = Vec::new();
        let mut field = |name: Option<HeaderName>, value: &str| {
            fields.extend(name.and_then(|name| Some((name, HeaderValue::from_str(value).ok()?))));
        };
        field(config.header.as_ref().and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok()), name);
        if let Some(deprecated) = &version.deprecated {
            field(Some(DEPRECATION), &format!("@{}", deprecated.at.seconds));
        }
        if let Some(sunset) = &version.sunset {
            field(Some(SUNSET), &http_date(sunset.at));
        }
        let page = |link: Option<&String>, rel: &str| {
            link.and_then(|link| {
                HeaderValue::from_str(&format!("<{link}>; rel=\"{rel}\"; type=\"text/html\"")).ok()
            })
        };
        let deprecation = page(version.deprecated.as_ref().and_then(|of| of.link.as_ref()), "deprecation");
        let sunset = page(version.sunset.as_ref().and_then(|of| of.link.as_ref()), "sunset");
        let by = (0..chooser.sources()).map(|by| u8::try_from(by).ok()).chain([None]);
        Tell {
            fields,
            links: deprecation.into_iter().chain(sunset).collect(),
            vary: by.map(|by| vary(config, chooser, by)).collect(),
            name: name.into(),
            segment: (!config.paths.is_empty()).then_some(config.segment),
            successor: version.successor.as_deref().map(Into::into),
        }
    }

    /// `head`: as it is routed, without the version in its path.
    pub fn of(&self, picked: Picked, head: &request::Parts) -> Telling<'_> {
        let successor = self.successor_target(&head.uri);
        let link = successor.map(|target| format!("<{target}>; rel=\"successor-version\""));
        let reads = head.method == Method::GET || head.method == Method::HEAD;
        let at = self.segment.filter(|_| reads && !picked.in_path);
        let location = at.map(|at| with_query(path_with(head.uri.path(), at, &self.name), &head.uri));
        let by = picked.by.map_or(self.vary.len().saturating_sub(1), usize::from);
        Telling {
            tell: self,
            vary: self.vary.get(by).and_then(Option::as_ref),
            link: link.and_then(|link| HeaderValue::try_from(link).ok()),
            location: location.and_then(|location| HeaderValue::try_from(location).ok()),
        }
    }

    /// The same resource in the version that follows.
    pub fn successor_target(&self, uri: &Uri) -> Option<String> {
        let (at, successor) = (self.segment?, self.successor.as_ref()?);
        Some(with_query(path_with(uri.path(), at, successor), uri))
    }
}

fn with_query(path: String, uri: &Uri) -> String {
    match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    }
}

/// What picked the version, and what may have sent the request to another.
fn vary(config: &model::Versions, chooser: &Chooser, by: Option<u8>) -> Option<HeaderValue> {
    let mut names = chooser.looked_at(by);
    for canary in config.versions.iter().filter_map(|version| version.canary.as_ref()) {
        names.extend(canary.header.iter().map(|(name, _)| name.as_str()));
        if canary.share.0 > 0.0 && canary.share.0 < 1.0 {
            match &canary.sticky {
                Sticky::Cookie(_) => names.push("cookie"),
                Sticky::Header(name) => names.push(name),
                Sticky::Ip | Sticky::Consumer => {}
            }
        }
    }
    let mut distinct: Vec<&str> = Vec::new();
    for name in names {
        if !distinct.contains(&name) {
            distinct.push(name);
        }
    }
    (!distinct.is_empty()).then(|| HeaderValue::from_str(&distinct.join(", ")).ok()).flatten()
}

impl Telling<'_> {
    pub fn apply(self, status: StatusCode, headers: &mut HeaderMap) {
        for (name, value) in &self.tell.fields {
            headers.insert(name, value.clone());
        }
        for link in self.tell.links.iter().cloned().chain(self.link) {
            headers.append(header::LINK, link);
        }
        if let Some(vary) = self.vary {
            headers.append(header::VARY, vary.clone());
        }
        // RFC 9110 section 8.7: the answer is what is to be found there.
        if let Some(location) = self.location.filter(|_| status == StatusCode::OK) {
            headers.entry(header::CONTENT_LOCATION).or_insert(location);
        }
    }
}

/// RFC 9110 section 5.6.7.
pub fn http_date(at: Moment) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = crate::observe::access_log::rfc3339_seconds(at.seconds);
    let day = DAYS[(at.seconds / 86_400 % 7) as usize];
    let month = text.get(5..7).and_then(|month| month.parse::<usize>().ok()).unwrap_or(1);
    let month = MONTHS.get(month.wrapping_sub(1)).unwrap_or(&"Jan");
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    format!("{day}, {} {month} {} {} GMT", part(8, 10), part(0, 4), part(11, 19))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_http_does() {
        for (moment, text) in [
            ("1994-11-06T08:49:37Z", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("2027-01-31", "Sun, 31 Jan 2027 00:00:00 GMT"),
            ("1970-01-01", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ] {
            assert_eq!(http_date(moment.parse().unwrap()), text);
        }
    }
}
