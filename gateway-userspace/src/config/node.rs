//! A config read by the table: every value of the right type and in range, each with its place, defaults not yet in.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use super::{
    model::{Bind, CertMark, HostPattern, KeyHash, Origin, PathPattern, Pattern, Right, Whence},
    read::with_default,
    table::Section,
    units::{ByteSize, Lookup, Moment, Percent, Place, Prefix, Quota, Rate, Template},
};

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub at: Place,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Bool(bool),
    Int(u64),
    Float(f64),
    Duration(Duration),
    Date(Moment),
    Size(ByteSize),
    Rate(Rate),
    Quota(Quota),
    Percent(Percent),
    Prefix(Prefix),
    Bind(Bind),
    Target(SocketAddr),
    /// The name of one.
    Lookup(Lookup),
    /// One written with https://.
    SecureTarget(SocketAddr),
    /// The name of one, written with https://.
    SecureLookup(Lookup),
    Host(HostPattern),
    Path(PathPattern),
    Text(String),
    Pattern(Pattern),
    Template(Template),
    Origin(Origin),
    Whence(Whence),
    Right(Right),
    KeyHash(KeyHash),
    CertMark(CertMark),
    /// A word of a closed list.
    Word(&'static str),
    List(Vec<Node>),
    Table(Fields),
    Named(BTreeMap<String, Fields>),
    /// Values by keys of the user's own, in the order of the keys.
    Map(BTreeMap<String, Node>),
}

/// Where a table with known keys has its tables by name: no key can be called so.
pub(crate) const NAMED: &str = "";

/// A table's keys as written.
#[derive(Debug, Clone)]
pub(crate) struct Fields {
    pub section: &'static Section,
    /// Of the table's name.
    pub at: Place,
    pub map: BTreeMap<&'static str, Node>,
    /// Something in it is wrong; checks across tables would only repeat that in other words.
    pub broken: bool,
}

impl Fields {
    pub fn empty(section: &'static Section, at: Place) -> Self {
        Fields { section, at, map: BTreeMap::new(), broken: false }
    }

    /// As written.
    pub fn node(&self, key: &str) -> Option<&Node> {
        debug_assert!(self.section.key(key).is_some(), "`{key}` is not in the table");
        self.map.get(key)
    }

    pub fn get<T: FromValue>(&self, key: &str) -> Option<T> {
        T::from_value(&self.node(key)?.value)
    }

    /// As written, or the table's default. Only for keys that have one.
    pub fn or_default<T: FromValue>(&self, key: &str) -> T {
        let written = self.get(key);
        written.or_else(|| with_default(self.section.key(key)?, T::from_value)).unwrap_or_else(|| {
            // A test reads every default as the type that `build` asks for.
            unreachable!("the default of `{key}` does not read")
        })
    }

    /// The table at `key`, if it is there and no other value.
    pub fn written(&self, key: &str) -> Option<&Fields> {
        match &self.node(key)?.value {
            Value::Table(fields) => Some(fields),
            _ => None,
        }
    }

    /// The table at `key`, empty if it is not there.
    pub fn table(&self, key: &str) -> Fields {
        self.written(key).cloned().unwrap_or_else(|| Fields::empty(self.subsection(key), self.at.clone()))
    }

    fn subsection(&self, key: &str) -> &'static Section {
        match self.section.key(key).map(|key| &key.kind) {
            Some(super::table::Kind::Table(section) | super::table::Kind::TableAndNamed(section, _)) => {
                section
            }
            _ => unreachable!("`{key}` is not a table"),
        }
    }

    /// The tables by name at `key`.
    pub fn named(&self, key: &str) -> &BTreeMap<String, Fields> {
        tables(self.node(key))
    }

    /// The tables by name beside its keys.
    pub fn named_here(&self) -> &BTreeMap<String, Fields> {
        tables(self.map.get(NAMED))
    }

    /// The values by the user's own keys at `key`.
    pub fn map(&self, key: &str) -> BTreeMap<String, Node> {
        match self.node(key).map(|node| &node.value) {
            Some(Value::Map(map)) => map.clone(),
            _ => BTreeMap::new(),
        }
    }

    /// The place of the value at `key`, or of the table.
    pub fn place(&self, key: &str) -> Place {
        self.node(key).map_or_else(|| self.at.clone(), |node| node.at.clone())
    }
}

fn tables(node: Option<&Node>) -> &BTreeMap<String, Fields> {
    static NONE: BTreeMap<String, Fields> = BTreeMap::new();
    match node.map(|node| &node.value) {
        Some(Value::Named(tables)) => tables,
        _ => &NONE,
    }
}

/// What a checked value is taken as. `None` only where `build` asks for a type that the table does not give.
pub(crate) trait FromValue: Sized {
    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! from_value {
    ($($type:ty: $pattern:pat => $result:expr),+ $(,)?) => {$(
        impl FromValue for $type {
            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    $pattern => $result,
                    _ => None,
                }
            }
        }
    )+};
}

from_value! {
    bool: Value::Bool(value) => Some(*value),
    u64: Value::Int(value) => Some(*value),
    u32: Value::Int(value) => (*value).try_into().ok(),
    u16: Value::Int(value) => (*value).try_into().ok(),
    u8: Value::Int(value) => (*value).try_into().ok(),
    usize: Value::Int(value) => (*value).try_into().ok(),
    f64: Value::Float(value) => Some(*value),
    Duration: Value::Duration(value) => Some(*value),
    Moment: Value::Date(value) => Some(*value),
    ByteSize: Value::Size(value) => Some(*value),
    Rate: Value::Rate(value) => Some(*value),
    Quota: Value::Quota(value) => Some(*value),
    Percent: Value::Percent(value) => Some(*value),
    Prefix: Value::Prefix(value) => Some(*value),
    Bind: Value::Bind(value) => Some(*value),
    SocketAddr: Value::Target(value) | Value::SecureTarget(value) => Some(*value),
    Lookup: Value::Lookup(value) | Value::SecureLookup(value) => Some(value.clone()),
    HostPattern: Value::Host(value) => Some(value.clone()),
    PathPattern: Value::Path(value) => Some(value.clone()),
    Pattern: Value::Pattern(value) => Some(value.clone()),
    Template: Value::Template(value) => Some(value.clone()),
    Origin: Value::Origin(value) => Some(value.clone()),
    Whence: Value::Whence(value) => Some(value.clone()),
    Right: Value::Right(value) => Some(value.clone()),
    CertMark: Value::CertMark(value) => Some(value.clone()),
    KeyHash: Value::KeyHash(value) => Some(*value),
    String: Value::Text(value) => Some(value.clone()),
    PathBuf: Value::Text(value) => Some(value.into()),
    &'static str: Value::Word(value) => Some(value),
}

impl<T: FromValue> FromValue for Vec<T> {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::List(nodes) => nodes.iter().map(|node| T::from_value(&node.value)).collect(),
            _ => None,
        }
    }
}

/// A value or a word that lifts it ("off", "unlimited", "auto"): the word is `None`.
impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Word(_) => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}
