//! Fields into a value of the row type, by serde.

use std::fmt;
use std::slice;
use std::str::FromStr;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::record::{Fields, Record};
use crate::files::reader::RowError;

/// Which columns of a file the row type takes, and what absent values look like.
#[derive(Clone, Debug, Default)]
pub(super) struct Columns {
    header: Vec<String>,
    /// The columns to look at, in the order of the file.
    taken: Vec<usize>,
    /// The columns of the row type's fields in their order, where each has one: then no name is compared.
    by_field: Option<Vec<usize>>,
    absent: Vec<String>,
}

impl Columns {
    /// The columns of `header` that `T` names, or all where it names none.
    ///
    /// # Errors
    /// Says which column is missing or there twice, and what the header has.
    pub(super) fn of<T: DeserializeOwned>(
        header: Vec<String>,
        optional: &[String],
        absent: &[String],
    ) -> Result<Self, String> {
        let names = FieldNames::of::<T>();
        let taken = match names {
            None => (0..header.len()).collect(),
            Some(names) => find_columns(names, &header, optional)?,
        };
        let place = |name: &&str| header.iter().position(|column| column == name);
        let by_field = names.and_then(|names| names.iter().map(place).collect());
        Ok(Self { header, taken, by_field, absent: absent.to_vec() })
    }

    /// Decodes one record.
    #[inline]
    pub(super) fn decode<T: DeserializeOwned>(&self, record: &Record<'_>) -> Result<T, RowError> {
        if record.field_count() != self.header.len() {
            let (found, wanted) = (record.field_count(), self.header.len());
            let reason = format!("{found} fields where the header has {wanted}");
            return Err(RowError { column: None, reason });
        }
        let decoded = match record.fields() {
            Ok(fields) => T::deserialize(Row { columns: self, fields }),
            Err(column) => Err(FieldError::new("not UTF-8").at(column)),
        };
        decoded.map_err(|error| RowError {
            column: error.column.map(|column| self.header[column].clone()),
            reason: error.reason,
        })
    }
}

fn find_columns(names: &[&str], header: &[String], optional: &[String]) -> Result<Vec<usize>, String> {
    let mut taken = Vec::with_capacity(names.len());
    for &name in names {
        let mut places = (0..header.len()).filter(|&index| header[index] == name);
        match (places.next(), places.next()) {
            (Some(index), None) => taken.push(index),
            (None, _) if optional.iter().any(|optional| optional == name) => {}
            (None, _) => {
                return Err(format!("column {name} is missing; the header has: {}", header.join(",")));
            }
            (Some(_), Some(_)) => {
                return Err(format!("column {name} is there twice; the header has: {}", header.join(",")));
            }
        }
    }
    taken.sort_unstable();
    Ok(taken)
}

/// Asks a type which fields it has, by deserializing it from nothing.
#[derive(Default)]
struct FieldNames(Option<&'static [&'static str]>);

impl FieldNames {
    fn of<T: DeserializeOwned>() -> Option<&'static [&'static str]> {
        let mut names = Self::default();
        let nothing = T::deserialize(&mut names);
        debug_assert!(nothing.is_err() || names.0.is_none());
        names.0
    }
}

impl<'de> Deserializer<'de> for &mut FieldNames {
    type Error = FieldError;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, FieldError> {
        self.0 = Some(fields);
        Err(FieldError::new("only the names are wanted"))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, FieldError> {
        Err(FieldError::new("not a struct"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Why a field does not fit, and in which column.
#[derive(Debug)]
struct FieldError {
    column: Option<usize>,
    reason: String,
}

impl FieldError {
    fn new(reason: impl Into<String>) -> Self {
        Self { column: None, reason: reason.into() }
    }

    #[cold]
    fn at(mut self, column: usize) -> Self {
        self.column.get_or_insert(column);
        self
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for FieldError {}

impl de::Error for FieldError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }
}

/// A record as serde sees it: a map from column names, or a sequence.
#[derive(Clone, Copy)]
struct Row<'r> {
    columns: &'r Columns,
    fields: Fields<'r>,
}

impl<'r> Row<'r> {
    fn field(self, column: usize) -> Field<'r> {
        Field { text: self.fields.get(column), absent: &self.columns.absent }
    }
}

impl<'r> Deserializer<'r> for Row<'r> {
    type Error = FieldError;

    #[inline]
    fn deserialize_any<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_map(Taken { row: self, next: 0 })
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'r>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        let Some(columns) = &self.columns.by_field else { return self.deserialize_any(visitor) };
        let mut fields = ByField { row: self, columns: columns.iter() };
        let value = visitor.visit_seq(&mut fields)?;
        // A field with an alias has two names; the fields behind it took the wrong columns then.
        match fields.columns.next() {
            None => Ok(value),
            Some(_) => Err(FieldError::new("two columns for one field")),
        }
    }

    fn deserialize_seq<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_seq(Taken { row: self, next: 0 })
    }

    fn deserialize_tuple<V: Visitor<'r>>(self, fields: usize, visitor: V) -> Result<V::Value, FieldError> {
        let found = self.columns.taken.len();
        if fields != found {
            return Err(FieldError::new(format!(
                "the header has {found} columns, the row type {fields} fields"
            )));
        }
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'r>>(
        self,
        _name: &'static str,
        fields: usize,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        self.deserialize_tuple(fields, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'r>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! { <V: Visitor<'r>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct map enum identifier ignored_any
    }
}

/// The columns of a struct's fields, in the order of the fields.
struct ByField<'r> {
    row: Row<'r>,
    columns: slice::Iter<'r, usize>,
}

impl<'r> SeqAccess<'r> for &mut ByField<'r> {
    type Error = FieldError;

    #[inline]
    fn next_element_seed<V: DeserializeSeed<'r>>(&mut self, seed: V) -> Result<Option<V::Value>, FieldError> {
        let Some(&column) = self.columns.next() else { return Ok(None) };
        seed.deserialize(self.row.field(column)).map(Some).map_err(|error| error.at(column))
    }
}

/// The columns taken, one after the other.
struct Taken<'r> {
    row: Row<'r>,
    next: usize,
}

impl<'r> MapAccess<'r> for Taken<'r> {
    type Error = FieldError;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'r>>(&mut self, seed: K) -> Result<Option<K::Value>, FieldError> {
        match self.row.columns.taken.get(self.next) {
            None => Ok(None),
            Some(&column) => {
                let name: StrDeserializer<'r, FieldError> =
                    self.row.columns.header[column].as_str().into_deserializer();
                seed.deserialize(name).map(Some)
            }
        }
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'r>>(&mut self, seed: V) -> Result<V::Value, FieldError> {
        let column = self.row.columns.taken[self.next];
        self.next += 1;
        seed.deserialize(self.row.field(column)).map_err(|error| error.at(column))
    }
}

impl<'r> SeqAccess<'r> for Taken<'r> {
    type Error = FieldError;

    fn next_element_seed<V: DeserializeSeed<'r>>(&mut self, seed: V) -> Result<Option<V::Value>, FieldError> {
        if self.next == self.row.columns.taken.len() {
            return Ok(None);
        }
        self.next_value_seed(seed).map(Some)
    }
}

/// One field as serde sees it: whatever the row type asks for.
#[derive(Clone, Copy)]
struct Field<'r> {
    text: &'r str,
    absent: &'r [String],
}

impl<'r> Field<'r> {
    #[inline]
    fn parse<T: FromStr<Err: fmt::Display>>(self) -> Result<T, FieldError> {
        self.text.parse().map_err(|error| FieldError::new(format!("`{}`: {error}", self.text)))
    }

    fn is_absent(self) -> bool {
        self.absent.iter().any(|absent| absent == self.text)
    }
}

macro_rules! parsed {
    ($($method:ident $visit:ident)*) => {
        $(
            #[inline]
            fn $method<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, FieldError> {
                visitor.$visit(self.parse()?)
            }
        )*
    };
}

impl<'r> Deserializer<'r> for Field<'r> {
    type Error = FieldError;

    parsed! {
        deserialize_bool visit_bool
        deserialize_i8 visit_i8 deserialize_i16 visit_i16 deserialize_i32 visit_i32
        deserialize_i64 visit_i64 deserialize_i128 visit_i128
        deserialize_u8 visit_u8 deserialize_u16 visit_u16 deserialize_u32 visit_u32
        deserialize_u64 visit_u64 deserialize_u128 visit_u128
        deserialize_f32 visit_f32 deserialize_f64 visit_f64 deserialize_char visit_char
    }

    /// For types that do not say what they want (`flatten`, untagged enums): a number where it looks like one.
    fn deserialize_any<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, FieldError> {
        let text = self.text;
        match text {
            "true" => return visitor.visit_bool(true),
            "false" => return visitor.visit_bool(false),
            _ => {}
        }
        if let Ok(number) = text.parse() {
            visitor.visit_u64(number)
        } else if let Ok(number) = text.parse() {
            visitor.visit_i64(number)
        } else if let Ok(number) = text.parse() {
            visitor.visit_f64(number)
        } else {
            visitor.visit_borrowed_str(text)
        }
    }

    #[inline]
    fn deserialize_str<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_borrowed_str(self.text)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, FieldError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, FieldError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_borrowed_bytes(self.text.as_bytes())
    }

    fn deserialize_byte_buf<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, FieldError> {
        self.deserialize_bytes(visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, FieldError> {
        if self.is_absent() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'r>>(self, visitor: V) -> Result<V::Value, FieldError> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'r>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'r>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldError> {
        let variant: StrDeserializer<'r, FieldError> = self.text.into_deserializer();
        visitor.visit_enum(variant)
    }

    forward_to_deserialize_any! { <V: Visitor<'r>> unit_struct seq tuple tuple_struct map struct }
}
