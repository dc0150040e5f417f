//! Values of facts in expressions: records by field position, unknown facts with their reason.
//!
//! The conversion is driven by the types, so that a field is found by its position and the text of an enumeration
//! is shared and not copied: one check of a fleet converts tens of thousands of documents.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, LazyLock},
};

use jiff::{SignedDuration, Timestamp};
use serde::ser::{self, Serialize};
use serde_json::Value as Json;
use vmgate_documents::types::{Field, Kind, Names, Type};
use vmgate_facts::{Cause, Facts, Forecast, Unknown, Version};

use super::root::ROOT;

/// A value of a fact.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    Text(Arc<str>),
    Version(Version),
    Time(Timestamp),
    Duration(SignedDuration),
    List(Vec<Value>),
    /// Fields in the order of the record type.
    Record(Vec<Value>),
    Map(BTreeMap<Arc<str>, Value>),
    Unknown(Arc<Unknown>),
}

static NOT_COLLECTED: LazyLock<Arc<Unknown>> =
    LazyLock::new(|| Arc::new(Unknown::new(Cause::NotCollected, "not collected")));

impl Value {
    /// A fact that was not collected.
    pub(crate) fn not_collected() -> Self {
        Self::Unknown(Arc::clone(&NOT_COLLECTED))
    }

    fn malformed(reason: impl Into<String>) -> Self {
        Self::Unknown(Arc::new(Unknown::new(Cause::Malformed, reason)))
    }

    /// Makes the root of expressions for one move.
    pub(crate) fn root(facts: &Facts, forecast: &Forecast, now: Timestamp) -> Self {
        // Without `..`, so that a new group of facts does not compile until it has its value below.
        let Facts {
            schema: _,
            collected_at: _,
            provenance: _,
            vm,
            guest,
            source,
            destination,
            path,
            history,
            rehearsal,
            trial,
            change,
        } = facts;
        let fields = ROOT.fields.iter().map(|field| match field.name.as_str() {
            "vm" => Self::of(vm, &field.ty),
            "guest" => Self::of(guest, &field.ty),
            "source" => Self::of(source, &field.ty),
            "destination" => Self::of(destination, &field.ty),
            "path" => Self::of(path, &field.ty),
            "history" => Self::of(history, &field.ty),
            "rehearsal" => Self::of(rehearsal, &field.ty),
            "trial" => Self::of(trial, &field.ty),
            "change" => Self::of(change, &field.ty),
            "forecast" => Self::of(forecast, &field.ty),
            "now" => Self::Time(now),
            other => {
                Self::malformed(format!("the rule engine has no value for `{other}`, which is a defect"))
            }
        });
        Self::Record(fields.collect())
    }

    /// Converts a Rust value of type `ty`.
    pub(crate) fn of<T: Serialize + ?Sized>(from: &T, ty: &Type) -> Self {
        from.serialize(ValueSerializer { ty }).unwrap_or_else(|error| Self::malformed(error.0))
    }

    /// Converts JSON that conforms to `ty`.
    pub(crate) fn of_json(json: &Json, ty: &Type) -> Self {
        match (json, &ty.kind) {
            (Json::Object(fields), _) if fields.contains_key("unknown") => {
                match serde_json::from_value::<Unknown>(json.clone()) {
                    Ok(unknown) => Self::Unknown(Arc::new(unknown)),
                    Err(error) => Self::malformed(error.to_string()),
                }
            }
            (Json::Object(fields), Kind::Record(record)) => Self::Record(
                record
                    .fields
                    .iter()
                    .map(|field| {
                        fields.get(&field.name).map_or_else(Self::not_collected, |json| {
                            told(Self::of_json(json, &field.ty), field)
                        })
                    })
                    .collect(),
            ),
            (Json::Array(items), Kind::List(item)) => {
                Self::List(items.iter().map(|json| Self::of_json(json, item)).collect())
            }
            _ => Self::of(json, ty),
        }
    }

    /// Converts the value to JSON. Fields of records have names only if `ty` is given; long lists and texts are cut.
    pub(crate) fn to_json(&self, ty: Option<&Type>) -> Json {
        const MOST_ITEMS: usize = 8;
        const MOST_CHARACTERS: usize = 200;
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Double(value) => (*value).into(),
            Self::Text(text) => match text.char_indices().nth(MOST_CHARACTERS) {
                None => (**text).into(),
                Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()).into(),
            },
            Self::Version(version) => version.to_string().into(),
            Self::Time(time) => time.to_string().into(),
            Self::Duration(span) => span.to_string().into(),
            Self::List(items) => {
                let item_type = ty.and_then(Type::item);
                let mut json: Vec<Json> =
                    items.iter().take(MOST_ITEMS).map(|item| item.to_json(item_type)).collect();
                if items.len() > MOST_ITEMS {
                    json.push(format!("… {} more", items.len() - MOST_ITEMS).into());
                }
                Json::Array(json)
            }
            Self::Record(values) => match ty.map(|ty| &ty.kind) {
                Some(Kind::Record(record)) => Json::Object(
                    record
                        .fields
                        .iter()
                        .zip(values)
                        .map(|(field, value)| (field.name.clone(), value.to_json(Some(&field.ty))))
                        .collect(),
                ),
                _ => format!("{} fields", values.len()).into(),
            },
            Self::Map(values) => values
                .iter()
                .take(MOST_ITEMS)
                .map(|(key, value)| (key.to_string(), value.to_json(None)))
                .collect(),
            Self::Unknown(why) => serde_json::json!({ "unknown": why.reason, "cause": why.cause }),
        }
    }
}

/// A value that cannot be converted. Facts are plain data, so JSON cannot express such a value either.
#[derive(Debug)]
pub(crate) struct NotConvertible(String);

impl fmt::Display for NotConvertible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotConvertible {}

impl ser::Error for NotConvertible {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// The value, or an unknown for a name that the field's list does not have and for what nobody asked.
fn told(value: Value, field: &Field) -> Value {
    if let (Value::Null, Some(why)) = (&value, &field.absent) {
        return Value::Unknown(Arc::new(why.clone()));
    }
    let Names::Listed(names) = &field.names else { return value };
    match &value {
        Value::Text(text) if !names.contains(text) => Value::Unknown(Arc::new(Unknown::new(
            Cause::NotListed,
            format!(
                "vmgate knows no {} `{text}`; it knows {}",
                field.name.replace('_', " "),
                names.join(", ")
            ),
        ))),
        _ => value,
    }
}

type ConversionResult = Result<Value, NotConvertible>;

/// Serialiser that makes a [`Value`] of a Rust value of type `ty`.
struct ValueSerializer<'t> {
    ty: &'t Type,
}

impl ValueSerializer<'_> {
    fn whole(&self, value: i64) -> Value {
        #[allow(clippy::cast_precision_loss, reason = "the type is a fraction and the value a whole number")]
        if self.ty.kind == Kind::Double { Value::Double(value as f64) } else { Value::Int(value) }
    }
}

fn not_a_fact(what: &str) -> ConversionResult {
    Err(NotConvertible(format!("{what} is not a fact")))
}

macro_rules! whole {
    ($($function:ident: $number:ty),+ $(,)?) => {$(
        fn $function(self, value: $number) -> ConversionResult {
            Ok(self.whole(value.into()))
        }
    )+};
}

impl<'t> ser::Serializer for ValueSerializer<'t> {
    type Ok = Value;
    type Error = NotConvertible;
    type SerializeSeq = ListSerializer<'t>;
    type SerializeTuple = ListSerializer<'t>;
    type SerializeTupleStruct = ser::Impossible<Value, NotConvertible>;
    type SerializeTupleVariant = ser::Impossible<Value, NotConvertible>;
    type SerializeMap = MapSerializer<'t>;
    type SerializeStruct = RecordSerializer<'t>;
    type SerializeStructVariant = ser::Impossible<Value, NotConvertible>;

    fn serialize_bool(self, value: bool) -> ConversionResult {
        Ok(Value::Bool(value))
    }
    whole! {
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32,
    }
    fn serialize_u64(self, value: u64) -> ConversionResult {
        match i64::try_from(value) {
            Ok(value) => Ok(self.whole(value)),
            Err(_) => Ok(Value::malformed(format!("{value} is too large to calculate with"))),
        }
    }
    fn serialize_f32(self, value: f32) -> ConversionResult {
        self.serialize_f64(value.into())
    }
    fn serialize_f64(self, value: f64) -> ConversionResult {
        if value.is_finite() {
            Ok(Value::Double(value))
        } else {
            Ok(Value::malformed(format!("{value} is not a finite number")))
        }
    }
    fn serialize_char(self, value: char) -> ConversionResult {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }
    fn serialize_str(self, text: &str) -> ConversionResult {
        Ok(match &self.ty.kind {
            Kind::Enum(choices) => match choices.find(text) {
                Some(choice) => Value::Text(Arc::clone(&choice.text)),
                None => Value::Text(text.into()),
            },
            Kind::Version => match text.parse() {
                Ok(version) => Value::Version(version),
                Err(error) => Value::malformed(format!("{error}")),
            },
            Kind::Timestamp => match text.parse() {
                Ok(time) => Value::Time(time),
                Err(_) => Value::malformed(format!("`{text}` is not a time")),
            },
            _ => Value::Text(text.into()),
        })
    }
    fn serialize_bytes(self, _: &[u8]) -> ConversionResult {
        not_a_fact("a byte string")
    }
    fn serialize_none(self) -> ConversionResult {
        Ok(Value::Null)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> ConversionResult {
        value.serialize(self)
    }
    fn serialize_unit(self) -> ConversionResult {
        Ok(Value::Null)
    }
    fn serialize_unit_struct(self, _: &'static str) -> ConversionResult {
        Ok(Value::Null)
    }
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> ConversionResult {
        self.serialize_str(variant)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> ConversionResult {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> ConversionResult {
        not_a_fact("a variant with a value")
    }
    fn serialize_seq(self, len: Option<usize>) -> Result<ListSerializer<'t>, NotConvertible> {
        static ANY: LazyLock<Type> = LazyLock::new(Type::any);
        Ok(ListSerializer {
            ty: self.ty.item().unwrap_or(&ANY),
            items: Vec::with_capacity(len.unwrap_or(0).min(4096)),
        })
    }
    fn serialize_tuple(self, len: usize) -> Result<ListSerializer<'t>, NotConvertible> {
        self.serialize_seq(Some(len))
    }
    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, NotConvertible> {
        Err(NotConvertible("a tuple with a name is not a fact".to_owned()))
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, NotConvertible> {
        Err(NotConvertible("a variant with values is not a fact".to_owned()))
    }
    fn serialize_map(self, _: Option<usize>) -> Result<MapSerializer<'t>, NotConvertible> {
        static ANY: LazyLock<Type> = LazyLock::new(Type::any);
        let ty: &Type = match &self.ty.kind {
            Kind::Map(ty) => ty,
            _ => &ANY,
        };
        Ok(MapSerializer { ty, key: "".into(), values: BTreeMap::new() })
    }
    fn serialize_struct(self, name: &'static str, _: usize) -> Result<RecordSerializer<'t>, NotConvertible> {
        if name == "Unknown" {
            return Ok(RecordSerializer::Unknown(Unknown::new(Cause::NotCollected, "")));
        }
        match &self.ty.kind {
            Kind::Record(record) => Ok(RecordSerializer::Record {
                record,
                next: 0,
                values: Vec::with_capacity(record.fields.len()),
            }),
            _ => Err(NotConvertible(format!("`{name}` was given where {} is expected", self.ty.kind))),
        }
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, NotConvertible> {
        Err(NotConvertible("a variant with fields is not a fact".to_owned()))
    }
}

/// Serialiser of a list.
pub(crate) struct ListSerializer<'t> {
    ty: &'t Type,
    items: Vec<Value>,
}

impl ser::SerializeSeq for ListSerializer<'_> {
    type Ok = Value;
    type Error = NotConvertible;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotConvertible> {
        self.items.push(value.serialize(ValueSerializer { ty: self.ty })?);
        Ok(())
    }
    fn end(self) -> ConversionResult {
        Ok(Value::List(self.items))
    }
}

impl ser::SerializeTuple for ListSerializer<'_> {
    type Ok = Value;
    type Error = NotConvertible;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotConvertible> {
        ser::SerializeSeq::serialize_element(self, value)
    }
    fn end(self) -> ConversionResult {
        ser::SerializeSeq::end(self)
    }
}

/// Serialiser of a map: names with values of one type.
pub(crate) struct MapSerializer<'t> {
    ty: &'t Type,
    key: Arc<str>,
    values: BTreeMap<Arc<str>, Value>,
}

impl ser::SerializeMap for MapSerializer<'_> {
    type Ok = Value;
    type Error = NotConvertible;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), NotConvertible> {
        let text = Type::plain(Kind::Text);
        match key.serialize(ValueSerializer { ty: &text })? {
            Value::Text(key) => self.key = key,
            other => self.key = other.to_json(None).to_string().into(),
        }
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), NotConvertible> {
        let value = value.serialize(ValueSerializer { ty: self.ty })?;
        self.values.insert(Arc::clone(&self.key), value);
        Ok(())
    }
    fn end(self) -> ConversionResult {
        Ok(Value::Map(self.values))
    }
}

/// Collects the fields of a record by position, or the two of an unknown.
pub(crate) enum RecordSerializer<'t> {
    /// A record; `next` is where the next field is expected.
    Record { record: &'t vmgate_documents::types::Record, next: usize, values: Vec<Value> },
    /// An unknown fact.
    Unknown(Unknown),
}

impl ser::SerializeStruct for RecordSerializer<'_> {
    type Ok = Value;
    type Error = NotConvertible;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), NotConvertible> {
        match self {
            Self::Unknown(unknown) => {
                match name {
                    "cause" => {
                        let cause = serde_json::to_value(value).and_then(serde_json::from_value);
                        unknown.cause = cause.map_err(|error| NotConvertible(error.to_string()))?;
                    }
                    _ => match value.serialize(ValueSerializer { ty: &Type::plain(Kind::Text) })? {
                        Value::Text(reason) => unknown.reason.push_str(&reason),
                        _ => {
                            return Err(NotConvertible(
                                "the reason of an unknown fact must be a text".to_owned(),
                            ));
                        }
                    },
                }
                Ok(())
            }
            // Fields come in the order of the record type; a field that is left out stays unknown.
            Self::Record { record, next, values } => {
                let found = record.fields.iter().skip(*next).position(|field| field.name == name);
                let Some((skipped, field)) =
                    found.and_then(|skipped| Some((skipped, record.fields.get(*next + skipped)?)))
                else {
                    return Err(NotConvertible(format!("{} has no field `{name}`", record.name)));
                };
                values.extend((0..skipped).map(|_| Value::not_collected()));
                values.push(told(value.serialize(ValueSerializer { ty: &field.ty })?, field));
                *next += skipped + 1;
                Ok(())
            }
        }
    }

    fn end(self) -> ConversionResult {
        match self {
            Self::Unknown(unknown) => Ok(Value::Unknown(Arc::new(unknown))),
            Self::Record { record, mut values, .. } => {
                values.resize_with(record.fields.len(), Value::not_collected);
                Ok(Value::Record(values))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_become_values_and_keep_what_is_unknown() {
        let facts: Facts = serde_json::from_value(serde_json::json!({
            "schema": "vmgate/facts/v1", "collected_at": "2026-11-23T00:00:00Z",
            "vm": {"name": "web1", "job": null, "vcpus": {"unknown": "no answer", "cause": "timed-out"},
                   "qemu_version": "7.2.22", "state": "running"},
            "guest": {"unknown": "no agent", "cause": "no-guest-agent"}
        }))
        .unwrap();
        let root = Value::root(&facts, &Forecast::default(), Timestamp::UNIX_EPOCH);
        let json = root.to_json(Some(&Type::plain(Kind::Record(Arc::clone(&ROOT)))));
        assert_eq!(json["vm"]["name"], "web1");
        assert_eq!(json["vm"]["job"], Json::Null);
        assert_eq!(json["vm"]["qemu_version"], "7.2.22");
        assert_eq!(json["vm"]["vcpus"]["cause"], "timed-out");
        assert_eq!(json["guest"]["unknown"], "no agent");
        assert_eq!(json["vm"]["uuid"]["unknown"], "not collected");
        assert_eq!(json["now"], "1970-01-01T00:00:00Z");
    }
}
