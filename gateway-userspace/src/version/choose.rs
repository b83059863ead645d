//! Which version a request gets.

use std::borrow::Cow;

use http::{HeaderName, header};

use super::says;
use crate::{
    config::{
        model::{self, PathPattern, VersionSource},
        units::{VersionForm, Wanted},
    },
    route::Asked,
};

/// The rules of one route. [`Chooser::choose`] is pure: the same request always gets the same version.
#[derive(Debug)]
pub struct Chooser {
    sources: Box<[Source]>,
    /// By index, the oldest first.
    names: Box<[Box<str>]>,
    forms: Box<[VersionForm]>,
    /// Names and aliases in lower case, sorted: there are few, and to hash the text alone takes longer.
    words: Box<[(Box<str>, u16)]>,
    default: Option<u16>,
    first_wins: bool,
    /// The segment of a path that may be the version.
    pub segment: usize,
}

#[derive(Debug)]
struct Source {
    place: Place,
    /// As the config writes it.
    text: Box<str>,
}

#[derive(Debug)]
enum Place {
    Path(PathPattern),
    Host,
    Accept,
    Header(HeaderName),
    Query(String),
}

/// The version that a request gets, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picked {
    /// The index of a version.
    pub version: u16,
    /// The index of the source that named it. `None`: it is the default.
    pub by: Option<u8>,
    /// It was in the path.
    pub in_path: bool,
    /// A canary's.
    pub moved: bool,
}

/// Why a request gets none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It has to name one, and does not.
    Required,
    /// What this source names is no version.
    Unknown { by: u8 },
    /// These sources name two different ones; or one does by itself.
    Conflict { one: u8, two: u8 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Nothing,
    Version(u16),
    Unknown,
    /// Two different ones.
    Torn,
}

/// Longest word that a version is called by.
const MOST: usize = 63;

impl Chooser {
    pub fn new(config: &model::Versions) -> Self {
        let names: Vec<Box<str>> =
            config.versions.iter().map(|version| version.name.as_str().into()).collect();
        let index = |name: &str| {
            names.iter().position(|known| **known == *name).and_then(|index| u16::try_from(index).ok())
        };
        let own = names.iter().map(|name| (&**name, &**name));
        let aliases = config.aliases.iter().map(|(alias, name)| (&**alias, &**name));
        let mut words: Vec<(Box<str>, u16)> = own
            .chain(aliases)
            .filter_map(|(word, name)| Some((word.to_ascii_lowercase().into_boxed_str(), index(name)?)))
            .collect();
        words.sort();
        let source = |source: &VersionSource| {
            let place = match source {
                // `paths` begins with the one of the form, whatever the version is called.
                VersionSource::Path => Place::Path(config.paths.first()?.clone()),
                VersionSource::Host => Place::Host,
                VersionSource::Accept => Place::Accept,
                VersionSource::Header(name) => Place::Header(HeaderName::from_bytes(name.as_bytes()).ok()?),
                VersionSource::Query(name) => Place::Query(name.clone()),
            };
            Some(Source { place, text: source.to_string().into() })
        };
        Chooser {
            sources: config.from.iter().filter_map(source).collect(),
            forms: config.versions.iter().map(|version| version.name.form).collect(),
            words: words.into(),
            default: config.default.as_deref().and_then(index),
            first_wins: config.first_wins,
            segment: config.segment,
            names: names.into(),
        }
    }

    /// The version for a request: that of the first source that names one, else the default.
    pub fn choose(&self, asked: &Asked<'_>) -> Result<Picked, Refused> {
        let mut first: Option<(u8, Says)> = None;
        for (by, source) in (0u8..).zip(&self.sources) {
            let says = self.says(&source.place, asked);
            match (says, first) {
                (Says::Nothing, _) => {}
                (Says::Torn, None) => return Err(Refused::Conflict { one: by, two: by }),
                (Says::Unknown, None) => return Err(Refused::Unknown { by }),
                (_, None) if self.first_wins => return Ok(self.picked(by, says)),
                (_, None) => first = Some((by, says)),
                (_, Some((_, before))) if before == says => {}
                (_, Some((one, _))) => return Err(Refused::Conflict { one, two: by }),
            }
        }
        match (first, self.default) {
            (Some((by, says)), _) => Ok(self.picked(by, says)),
            (None, Some(version)) => Ok(Picked { version, by: None, in_path: false, moved: false }),
            (None, None) => Err(Refused::Required),
        }
    }

    fn picked(&self, by: u8, says: Says) -> Picked {
        let version = match says {
            Says::Version(version) => version,
            _ => 0,
        };
        let in_path = matches!(self.sources[usize::from(by)].place, Place::Path(_));
        Picked { version, by: Some(by), in_path, moved: false }
    }

    fn says(&self, place: &Place, asked: &Asked<'_>) -> Says {
        let known = |text: &str| self.word(text).is_some();
        match place {
            Place::Path(pattern) => self.one(says::in_path(pattern, asked.path, known)),
            Place::Host => self.one(says::in_host(asked.host, known)),
            Place::Header(name) => {
                let values = asked.headers.get_all(name).iter();
                // What is not text names nothing that is known.
                self.all(values.map(|value| value.to_str().unwrap_or("?").trim()))
            }
            Place::Query(name) => match asked.query {
                Some(query) => self.all(says::in_query(query, name)),
                None => Says::Nothing,
            },
            Place::Accept => self.acceptable(asked),
        }
    }

    fn one(&self, text: Option<&str>) -> Says {
        match text {
            None | Some("") => Says::Nothing,
            Some(text) => self.find(text).map_or(Says::Unknown, Says::Version),
        }
    }

    fn all<T: AsRef<str>>(&self, values: impl Iterator<Item = T>) -> Says {
        let mut all = Says::Nothing;
        for value in values {
            all = match (all, self.one(Some(value.as_ref()))) {
                (all, Says::Nothing) => all,
                (Says::Nothing, says) => says,
                (all, says) if all == says => all,
                _ => return Says::Torn,
            };
        }
        all
    }

    /// The one that is wanted most, of those there are; of the same weight the first.
    fn acceptable(&self, asked: &Asked<'_>) -> Says {
        let mut best: Option<(u16, u16)> = None;
        let mut named = false;
        for acceptable in asked.headers.get_all(header::ACCEPT).iter().flat_map(says::in_accept) {
            named = true;
            if best.is_some_and(|(weight, _)| weight >= acceptable.weight) {
                continue;
            }
            if let Some(version) = self.find(acceptable.version) {
                best = Some((acceptable.weight, version));
            }
        }
        match best {
            Some((_, version)) => Says::Version(version),
            None if named => Says::Unknown,
            None => Says::Nothing,
        }
    }

    /// The version that a client calls so.
    pub fn find(&self, text: &str) -> Option<u16> {
        if let Some(version) = self.word(text) {
            return Some(version);
        }
        let index = Wanted::parse(text)?.newest(self.forms.iter())?;
        u16::try_from(index).ok()
    }

    fn word(&self, text: &str) -> Option<u16> {
        if text.len() > MOST {
            return None;
        }
        match text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => self.lower_word(&text.to_ascii_lowercase()),
            false => self.lower_word(text),
        }
    }

    fn lower_word(&self, text: &str) -> Option<u16> {
        let at = self.words.binary_search_by(|(word, _)| (**word).cmp(text)).ok()?;
        self.words.get(at).map(|(_, version)| *version)
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    pub fn name(&self, version: u16) -> &str {
        self.names.get(usize::from(version)).map_or("-", |name| name)
    }

    pub fn sources(&self) -> usize {
        self.sources.len()
    }

    /// As the config writes it.
    pub fn source(&self, by: u8) -> &str {
        self.sources.get(usize::from(by)).map_or("-", |source| &source.text)
    }

    pub fn is_in_url(&self, by: u8) -> bool {
        let place = self.sources.get(usize::from(by)).map(|source| &source.place);
        matches!(place, Some(Place::Path(_) | Place::Host))
    }

    /// The request fields that were looked at before, and those of, the source `by`; with the default or where sources
    /// must agree, all that are looked at (RFC 9110 section 12.5.5).
    pub(super) fn looked_at(&self, by: Option<u8>) -> Vec<&str> {
        let most = match by {
            Some(by) if self.first_wins => usize::from(by) + 1,
            _ => self.sources.len(),
        };
        let fields = self.sources.iter().take(most).filter_map(|source| match &source.place {
            Place::Header(name) => Some(name.as_str()),
            Place::Accept => Some("accept"),
            _ => None,
        });
        fields.collect()
    }

    /// What a request says in one place, to be shown to it: cut where it is long.
    pub fn shown<'a>(&self, by: u8, asked: &Asked<'a>) -> Cow<'a, str> {
        let Some(source) = self.sources.get(usize::from(by)) else { return Cow::Borrowed("") };
        let known = |text: &str| self.word(text).is_some();
        let field = |name: &HeaderName| asked.headers.get(name).and_then(|value| value.to_str().ok());
        let text: Option<Cow<'a, str>> = match &source.place {
            Place::Path(pattern) => says::in_path(pattern, asked.path, known).map(Cow::Borrowed),
            Place::Host => says::in_host(asked.host, known).map(Cow::Borrowed),
            Place::Accept => field(&header::ACCEPT).map(Cow::Borrowed),
            Place::Header(name) => field(name).map(Cow::Borrowed),
            Place::Query(name) => {
                let first =
                    asked.query.and_then(|query| says::in_query(query, name).next().map(Cow::into_owned));
                first.map(Cow::Owned)
            }
        };
        let text = text.unwrap_or_default();
        match text.char_indices().nth(MOST) {
            Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
            None => text,
        }
    }
}
