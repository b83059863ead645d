//! A config file in another format, as it is written: nothing is filled in, and only comments are lost.

use std::path::Path;

use serde::{
    Serialize, Serializer,
    ser::{Error, SerializeMap},
};
use toml::de::{DeInteger, DeTable, DeValue};

use super::{
    error::{ConfigErrors, Problem, ProblemKind, Problems},
    format::Format,
    source::Source,
    units::Place,
};

/// The file in another format. What it says is not checked, only that it can be read.
pub fn convert(file: &Path, to: Format) -> Result<String, ConfigErrors> {
    let mut problems = Problems::default();
    let text = Source::read(file, &mut problems).and_then(|source| converted(&source, to, &mut problems));
    problems.into_result(text)
}

/// As [`convert`], of a text; `file` is its name in errors, and says what it is in.
pub fn convert_text(text: &str, file: &Path, to: Format) -> Result<String, ConfigErrors> {
    let mut problems = Problems::default();
    let text = converted(&Source::new(file, text), to, &mut problems);
    problems.into_result(text)
}

fn converted(source: &Source, to: Format, problems: &mut Problems) -> Option<String> {
    let table = source.parse(problems)?;
    write(&table, to).map_err(|error| problems.push(not_written(source, to, &error))).ok()
}

fn write(table: &DeTable<'_>, to: Format) -> Result<String, String> {
    let table = Written(table);
    let mut text = match to {
        Format::Toml => toml::to_string(&table).map_err(|error| error.to_string())?,
        Format::Yaml => serde_saphyr::to_string(&table).map_err(|error| error.to_string())?,
        Format::Json => serde_json::to_string_pretty(&table).map_err(|error| error.to_string())?,
    };
    text.truncate(text.trim_end().len());
    text.push('\n');
    Ok(text)
}

fn not_written(source: &Source, to: Format, error: &str) -> Problem {
    let place: Place = source.place(0);
    Problem::new(ProblemKind::Value, &place, format!("cannot be written in {to}: {error}"))
}

/// In the order of the file.
struct Written<'a>(&'a DeTable<'a>);

struct WrittenValue<'a>(&'a DeValue<'a>);

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut entries: Vec<_> = self.0.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut map = serializer.serialize_map(Some(entries.len()))?;
        for (key, value) in entries {
            map.serialize_entry(key.get_ref().as_ref(), &WrittenValue(value.get_ref()))?;
        }
        map.end()
    }
}

impl Serialize for WrittenValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            DeValue::String(text) => serializer.serialize_str(text),
            DeValue::Boolean(value) => serializer.serialize_bool(*value),
            DeValue::Integer(int) => match integer(int) {
                Some(value) => serializer.serialize_i64(value),
                None => Err(S::Error::custom(format!("the number {int} is too large"))),
            },
            DeValue::Float(float) => match float.as_str().parse() {
                Ok(value) => serializer.serialize_f64(value),
                Err(_) => Err(S::Error::custom(format!("{float} is not a number"))),
            },
            // The other formats have no dates; the config takes them as text too.
            DeValue::Datetime(date) => serializer.serialize_str(&date.to_string()),
            DeValue::Array(array) => {
                serializer.collect_seq(array.iter().map(|value| WrittenValue(value.get_ref())))
            }
            DeValue::Table(table) => Written(table).serialize(serializer),
        }
    }
}

fn integer(int: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(int.as_str(), int.radix()).ok()
}
