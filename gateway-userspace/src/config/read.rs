//! Reads a tree by the table: whatever the table does not allow becomes a problem, and reading goes on.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    fmt,
};

use toml::Spanned;
use toml::de::{DeArray, DeInteger, DeTable, DeValue};

use super::{
    error::{Problem, ProblemKind, Problems, did_you_mean, ticks},
    node::{Fields, NAMED, Node, Value},
    source::Source,
    table::{Key, Kind, Need, ROOT, Section, Text, is_name},
    trail::Trail,
    units::{ByteSize, Place, UnitError, parse_duration, quote, show_duration},
};

/// A whole file. It is `broken` where a whole table of it could not be read.
pub(crate) fn read_root(source: &Source, problems: &mut Problems) -> Option<Fields> {
    let table = source.parse(problems)?;
    let mut root = Reader { source, problems }.table(&ROOT, Trail::Root, source.place(0), &table);
    let later = |name: &str| ROOT.key(name).is_some_and(Key::is_later);
    root.broken =
        table.keys().any(|name| !root.map.contains_key(name.get_ref().as_ref()) && !later(name.get_ref()));
    Some(root)
}

/// What the default of `key`, if it has one, is taken as. A thread reads each default once: a config may leave it out of ten
/// thousand tables.
pub(crate) fn with_default<T>(key: &'static Key, take: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
    thread_local! {
        static READ: RefCell<HashMap<*const Key, Option<Value>>> = RefCell::default();
    }
    READ.with_borrow_mut(|read| take(read.entry(key).or_insert_with(|| read_default(key)).as_ref()?))
}

/// The default of `key`, if it has one.
pub(crate) fn read_default(key: &'static Key) -> Option<Value> {
    let text = key.default?;
    let source = Source::new("default".as_ref(), text);
    let value = DeValue::parse(text).ok()?;
    let mut problems = Problems::default();
    Reader { source: &source, problems: &mut problems }.value(
        &key.kind,
        Trail::Root.key(key.name),
        &source.place(0),
        &value,
    )
}

struct Reader<'a> {
    source: &'a Source,
    problems: &'a mut Problems,
}

type Spot<'a, 'i> = &'a Spanned<DeValue<'i>>;

impl Reader<'_> {
    fn table(
        &mut self,
        section: &'static Section,
        path: Trail<'_>,
        at: Place,
        table: &DeTable<'_>,
    ) -> Fields {
        let before = self.problems.count();
        let mut fields = Fields::empty(section, at);
        for (name, value) in table {
            let at = self.source.place(name.span().start);
            let path = path.key(name.get_ref());
            let Some(key) = section.key(name.get_ref()) else {
                self.unknown(section, name.get_ref(), path, &at);
                continue;
            };
            if let Some(value_read) = self.value(&key.kind, path, &at, value) {
                let at = if value.get_ref().is_table() { at } else { self.source.place(value.span().start) };
                fields.map.insert(key.name, Node { at, value: value_read });
            }
        }
        for key in section.keys {
            let missed = match key.need {
                Need::Optional => false,
                Need::Required => !table.contains_key(key.name),
                Need::RequiredUnless(others) | Need::RequiredWithout(others) => {
                    !table.contains_key(key.name) && !others.iter().any(|other| table.contains_key(*other))
                }
            };
            if missed {
                let message = format!("`{}` is missing", path.key(key.name));
                let hint = key.kind.example().map(|example| format!("for example: {} = {example}", key.name));
                self.problems.push(Problem::new(ProblemKind::Missing, &fields.at, message).hint(hint));
            }
        }
        fields.broken = self.problems.count() > before;
        fields
    }

    fn unknown(&mut self, section: &Section, name: &str, path: Trail<'_>, at: &Place) {
        let known = || section.keys.iter().map(|key| key.name);
        let in_version =
            path.to_string().contains(".version.") && name.bytes().all(|byte| byte.is_ascii_digit());
        let number = in_version
            .then(|| "a version's name with a dot in it stands in quotes: version.\"1.2\"".to_owned());
        let hint = number.or_else(|| did_you_mean(name, known(), ticks)).unwrap_or_else(|| {
            let names: Vec<_> =
                section.keys.iter().filter(|key| !key.is_later()).map(|key| key.name).collect();
            format!("known here: {}", names.join(", "))
        });
        self.problems
            .push(Problem::new(ProblemKind::UnknownKey, at, format!("unknown key `{path}`")).hint(hint));
    }

    /// `at` is the key's place. `None` when the value is wrong, which is then among the problems.
    fn value(
        &mut self,
        kind: &'static Kind,
        path: Trail<'_>,
        at: &Place,
        spot: Spot<'_, '_>,
    ) -> Option<Value> {
        match (kind, spot.get_ref()) {
            (Kind::NotYet, _) => self.not_yet(path, at),
            (Kind::OnlyFalse, DeValue::Boolean(false)) => Some(Value::Bool(false)),
            (Kind::OnlyFalse, DeValue::Boolean(true)) => self.not_yet(format_args!("{path} = true"), at),
            (Kind::OnlyFalse, _) => self.not_yet(path, at),
            (Kind::Bool, DeValue::Boolean(value)) => Some(Value::Bool(*value)),
            (Kind::Int { min, max }, DeValue::Integer(int)) => {
                let value = self.in_range(path, spot, integer(int), *min, *max, |n| n.to_string())?;
                Some(Value::Int(value))
            }
            (Kind::Size { min, max }, DeValue::Integer(int)) => {
                self.size(path, spot, integer(int), *min, *max)
            }
            (Kind::Float { above, max }, DeValue::Integer(_) | DeValue::Float(_)) => {
                self.float(path, spot, *above, *max)
            }
            (Kind::Table(section), DeValue::Table(table)) => {
                Some(Value::Table(self.table(section, path, at.clone(), table)))
            }
            (Kind::TableAndNamed(section, named), DeValue::Table(table)) => {
                Some(Value::Table(self.table_and_named(section, named, path, at.clone(), table)))
            }
            (Kind::Named(section), DeValue::Table(table)) => Some(self.named(section, path, table)),
            (Kind::Map { key, of }, DeValue::Table(table)) => Some(self.map(key, of, path, table)),
            (Kind::List { of, min, .. }, DeValue::Array(array)) => self.list(of, *min, path, spot, array),
            (Kind::List { of, one: true, .. }, _) => {
                let value = self.value(of, path, at, spot)?;
                Some(Value::List(vec![Node { at: self.source.place(spot.span().start), value }]))
            }
            (Kind::Either(kinds), _) => self.either(kinds, kind, path, at, spot),
            (Kind::Date, DeValue::Datetime(date)) => self.date(path, spot, &date.to_string()),
            (Kind::Date, DeValue::String(text)) => self.date(path, spot, text),
            (_, DeValue::String(text)) => self.text(kind, path, spot, text),
            _ => self.wrong_type(kind, path, spot),
        }
    }

    fn not_yet(&mut self, path: impl fmt::Display, at: &Place) -> Option<Value> {
        let message = format!("`{path}` is not supported yet");
        self.problems.push(Problem::new(ProblemKind::NotSupported, at, message));
        None
    }

    fn wrong(&mut self, path: Trail<'_>, spot: Spot<'_, '_>, error: UnitError) -> Option<Value> {
        let at = self.source.place(spot.span().start);
        self.problems.push(Problem::value(&at, &path.to_string(), error));
        None
    }

    fn wrong_type(&mut self, kind: &Kind, path: Trail<'_>, spot: Spot<'_, '_>) -> Option<Value> {
        let found = spot.get_ref();
        let error = UnitError::new(format!("expected {}, found {}", kind.expected(), describe(found)));
        let hint = type_hint(kind, found);
        self.wrong(path, spot, UnitError { hint, ..error })
    }

    fn text(
        &mut self,
        kind: &'static Kind,
        path: Trail<'_>,
        spot: Spot<'_, '_>,
        text: &str,
    ) -> Option<Value> {
        match kind {
            Kind::Text(form) => match (form.parse)(text) {
                Ok(value) => Some(value),
                Err(error) => self.wrong(path, spot, error),
            },
            Kind::Choice { now, later } => match now.iter().find(|(word, _)| *word == text) {
                Some((word, _)) => Some(Value::Word(word)),
                None if later.contains(&text) => {
                    let at = self.source.place(spot.span().start);
                    self.not_yet(format_args!("{path} = {}", quote(text)), &at)
                }
                None => {
                    let error =
                        UnitError::new(format!("expected {}, found {}", kind.expected(), quote(text)));
                    let hint = did_you_mean(text, now.iter().map(|(word, _)| *word), quote);
                    self.wrong(path, spot, UnitError { hint, ..error })
                }
            },
            Kind::Duration { min, max } => match parse_duration(text) {
                Ok(value) => {
                    let range = (*min, *max);
                    let value = self.in_range(path, spot, Some(value), range.0, range.1, show_duration)?;
                    Some(Value::Duration(value))
                }
                Err(error) => self.wrong(path, spot, error),
            },
            Kind::Size { min, max } => match text.parse::<ByteSize>() {
                Ok(size) => self.size(path, spot, Some(size.0), *min, *max),
                Err(error) => self.wrong(path, spot, error),
            },
            _ => self.wrong_type(kind, path, spot),
        }
    }

    fn date(&mut self, path: Trail<'_>, spot: Spot<'_, '_>, text: &str) -> Option<Value> {
        match text.parse() {
            Ok(moment) => Some(Value::Date(moment)),
            Err(error) => self.wrong(path, spot, error),
        }
    }

    fn size(
        &mut self,
        path: Trail<'_>,
        spot: Spot<'_, '_>,
        value: Option<u64>,
        min: u64,
        max: u64,
    ) -> Option<Value> {
        let bytes = self.in_range(path, spot, value, min, max, |bytes| ByteSize(bytes).to_string())?;
        Some(Value::Size(ByteSize(bytes)))
    }

    fn float(&mut self, path: Trail<'_>, spot: Spot<'_, '_>, above: f64, max: f64) -> Option<Value> {
        let text = match spot.get_ref() {
            DeValue::Float(float) => float.as_str().to_owned(),
            DeValue::Integer(int) => integer(int).map(|int| int.to_string()).unwrap_or_default(),
            _ => String::new(),
        };
        match text.parse::<f64>() {
            Ok(value) if value > above && value <= max => Some(Value::Float(value)),
            _ => {
                let message =
                    format!("must be above {above}, at most {max}, found {}", describe(spot.get_ref()));
                self.wrong(path, spot, UnitError::new(message))
            }
        }
    }

    /// `None` for what does not even fit the type.
    fn in_range<T: PartialOrd + Copy>(
        &mut self,
        path: Trail<'_>,
        spot: Spot<'_, '_>,
        value: Option<T>,
        min: T,
        max: T,
        show: fn(T) -> String,
    ) -> Option<T> {
        let inside = value.filter(|value| *value >= min && *value <= max);
        if inside.is_none() {
            let found = describe(spot.get_ref());
            let message = format!("must be from {} to {}, found {found}", show(min), show(max));
            self.wrong(path, spot, UnitError::new(message));
        }
        inside
    }

    fn list(
        &mut self,
        of: &'static Kind,
        min: usize,
        path: Trail<'_>,
        spot: Spot<'_, '_>,
        array: &DeArray<'_>,
    ) -> Option<Value> {
        if array.len() < min {
            let expected = Kind::List { of, min, one: false }.expected();
            return self.wrong(
                path,
                spot,
                UnitError::new(format!("expected {expected}, found an empty one")),
            );
        }
        let mut nodes = Vec::with_capacity(array.len());
        for (index, element) in array.iter().enumerate() {
            let at = self.source.place(element.span().start);
            // The place tells elements apart; only what is inside of one needs its number.
            let inner = if element.get_ref().is_table() { Trail::Element(&path, index) } else { path };
            nodes.extend(self.value(of, inner, &at, element).map(|value| Node { at, value }));
        }
        Some(Value::List(nodes))
    }

    fn named(&mut self, section: &'static Section, path: Trail<'_>, table: &DeTable<'_>) -> Value {
        let mut tables = BTreeMap::new();
        for (name, value) in table {
            let at = self.source.place(name.span().start);
            let inner = path.key(name.get_ref());
            let mut fields = Fields::empty(section, at.clone());
            // A name stays known whatever is wrong with it, so that what refers to it is not blamed too.
            fields.broken = true;
            if !is_name(name.get_ref()) {
                let message = format!("{} cannot be the name of a {path}", quote(name.get_ref()));
                let hint = "a name is 1 to 63 letters, digits, `-`, `_` or `.`".to_owned();
                self.problems.push(Problem::new(ProblemKind::Value, &at, message).hint(hint));
            } else if let DeValue::Table(table) = value.get_ref() {
                fields = self.table(section, inner, at, table);
            } else {
                let message = format!("expected a table [{inner}], found {}", describe(value.get_ref()));
                self.wrong(inner, value, UnitError::new(message));
            }
            tables.insert(name.get_ref().to_string(), fields);
        }
        Value::Named(tables)
    }

    /// What is not a key and is a table is one by name, kept under [`NAMED`].
    fn table_and_named(
        &mut self,
        section: &'static Section,
        named: &'static Section,
        path: Trail<'_>,
        at: Place,
        table: &DeTable<'_>,
    ) -> Fields {
        let before = self.problems.count();
        let (mut keys, mut names) = (DeTable::new(), DeTable::new());
        for (name, value) in table {
            let is_table = value.get_ref().is_table();
            match section.key(name.get_ref()) {
                Some(key) if is_table && !key.kind.takes_tables() => {
                    let at = self.source.place(name.span().start);
                    let message = format!(
                        "`{}` is a key of the table, so nothing else can have its name",
                        path.key(name.get_ref())
                    );
                    let keys: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
                    let hint = format!("these names are taken: {}", keys.join(", "));
                    self.problems.push(Problem::new(ProblemKind::Value, &at, message).hint(hint));
                }
                None if is_table => drop(names.insert(name.clone(), value.clone())),
                _ => drop(keys.insert(name.clone(), value.clone())),
            }
        }
        let mut fields = self.table(section, path, at.clone(), &keys);
        let tables = self.named(named, path, &names);
        fields.map.insert(NAMED, Node { at, value: tables });
        fields.broken = self.problems.count() > before;
        fields
    }

    fn map(&mut self, key: &'static Text, of: &'static Kind, path: Trail<'_>, table: &DeTable<'_>) -> Value {
        let mut entries = BTreeMap::new();
        for (name, value) in table {
            let at = self.source.place(name.span().start);
            let text = match (key.parse)(name.get_ref()) {
                Ok(Value::Text(text)) => text,
                Ok(_) => continue,
                Err(error) => {
                    self.problems.push(Problem::value(&at, &path.to_string(), error));
                    continue;
                }
            };
            let Some(value) = self.value(of, path.key(name.get_ref()), &at, value) else { continue };
            let node = Node { at, value };
            if let Some(first) = entries.insert(text, node.clone()) {
                let message = format!("`{path}` has {} twice, first at {}", quote(name.get_ref()), first.at);
                self.problems.push(Problem::new(ProblemKind::Duplicate, &node.at, message));
            }
        }
        Value::Map(entries)
    }

    fn either(
        &mut self,
        kinds: &'static [Kind],
        whole: &Kind,
        path: Trail<'_>,
        at: &Place,
        spot: Spot<'_, '_>,
    ) -> Option<Value> {
        fn takes(kind: &Kind, found: &DeValue<'_>) -> bool {
            match (kind, found) {
                (Kind::Choice { now, later }, DeValue::String(text)) => {
                    now.iter().any(|(word, _)| word == text) || later.iter().any(|word| word == text)
                }
                (Kind::Text(_) | Kind::Duration { .. } | Kind::Size { .. }, DeValue::String(_))
                | (Kind::Int { .. } | Kind::Size { .. } | Kind::Float { .. }, DeValue::Integer(_))
                | (Kind::Float { .. }, DeValue::Float(_))
                | (Kind::Date, DeValue::Datetime(_) | DeValue::String(_))
                | (Kind::Bool, DeValue::Boolean(_))
                | (
                    Kind::Table(_) | Kind::TableAndNamed(..) | Kind::Map { .. } | Kind::NotYet,
                    DeValue::Table(_),
                )
                | (Kind::List { .. }, DeValue::Array(_)) => true,
                (Kind::List { of, one: true, .. }, found) => takes(of, found),
                _ => false,
            }
        }
        match kinds.iter().find(|kind| takes(kind, spot.get_ref())) {
            Some(Kind::NotYet) => self.not_yet(format_args!("{path} = {{ … }}"), at),
            Some(kind) => self.value(kind, path, at, spot),
            None => self.wrong_type(whole, path, spot),
        }
    }
}

fn integer(int: &DeInteger<'_>) -> Option<u64> {
    u64::from_str_radix(int.as_str(), int.radix()).ok()
}

fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quote(text),
        DeValue::Integer(int) => int.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

/// What to write instead of a value of the wrong type.
fn type_hint(kind: &Kind, found: &DeValue<'_>) -> Option<String> {
    match (kind, found) {
        (Kind::Either(kinds), _) => kinds.iter().find_map(|kind| type_hint(kind, found)),
        (Kind::List { of, .. }, _) => type_hint(of, found),
        (Kind::Int { .. } | Kind::Float { .. }, DeValue::String(text)) => {
            text.parse::<u64>().ok().map(|number| format!("write {number} without quotes"))
        }
        (Kind::Bool, DeValue::String(text)) => match text.as_ref() {
            "true" | "yes" | "on" | "1" => Some("write true without quotes".into()),
            "false" | "no" | "off" | "0" => Some("write false without quotes".into()),
            _ => None,
        },
        // As if it had been in quotes: the text's own error knows the cure.
        (Kind::Text(text), DeValue::Integer(int)) => {
            (text.parse)(int.as_str()).err().and_then(|error| error.hint)
        }
        (Kind::Duration { .. }, DeValue::Integer(int)) => {
            parse_duration(int.as_str()).err().and_then(|error| error.hint)
        }
        (Kind::Choice { now, .. }, DeValue::Boolean(false)) if now.iter().any(|(word, _)| *word == "off") => {
            Some("write \"off\"".into())
        }
        (Kind::Text(text), DeValue::Boolean(_) | DeValue::Float(_)) => {
            Some(format!("write \"{}\"", text.example))
        }
        _ => None,
    }
}
