use std::fmt;

use serde::de::{self, DeserializeOwned, IntoDeserializer, Visitor};
use serde::ser::{self, Impossible};
use serde::{Serialize, forward_to_deserialize_any};

use super::{Codec, CodecError, CodecId};

/// Keys as people write them: a string (also a newtype of one, or an enum's bare variant) as it is, a
/// number or a bool in plain characters, anything else as JSON. The default for keys.
///
/// Two values of one type never have the same bytes, unless the type is now text and now a number (an
/// untagged enum): use [`Json`](super::Json) for those.
///
/// ```
/// use lotic::codecs::{Codec, Text};
///
/// let text = |key: &dyn erased::Encode| key.text();
/// assert_eq!(text(&"N14228".to_string()), "N14228");
/// assert_eq!(text(&1545_u32), "1545");
/// assert_eq!(text(&("UA".to_string(), 1545_u32)), r#"["UA",1545]"#);
/// # mod erased {
/// #     use lotic::codecs::{Codec, Text};
/// #     pub trait Encode { fn text(&self) -> String; }
/// #     impl<T> Encode for T where Text: Codec<T> {
/// #         fn text(&self) -> String {
/// #             let mut out = Vec::new();
/// #             Text.encode(self, &mut out).unwrap();
/// #             String::from_utf8(out).unwrap()
/// #         }
/// #     }
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Text;

impl<T: Serialize + DeserializeOwned> Codec<T> for Text {
    fn id(&self) -> CodecId {
        CodecId { name: "text", version: 1 }
    }

    #[inline]
    fn encode(&self, value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let start = out.len();
        match value.serialize(TextSerializer { out: &mut *out }) {
            Ok(()) => Ok(()),
            Err(NotScalar) => {
                out.truncate(start);
                serde_json::to_writer(out, value)
                    .map_err(|error| CodecError::caused("not writable as text or JSON", error))
            }
        }
    }

    #[inline]
    fn decode(&self, bytes: &[u8]) -> Result<T, CodecError> {
        let text = std::str::from_utf8(bytes).map_err(|error| CodecError::caused("not UTF-8", error))?;
        T::deserialize(TextDeserializer { text })
            .map_err(|error| CodecError::caused("not the text or JSON expected", error))
    }
}

/// Says that a value is not a scalar, and so is written as JSON.
#[derive(Debug)]
struct NotScalar;

impl fmt::Display for NotScalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a scalar")
    }
}

impl std::error::Error for NotScalar {}

impl ser::Error for NotScalar {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// Writes scalars; refuses the rest.
struct TextSerializer<'a> {
    out: &'a mut Vec<u8>,
}

impl TextSerializer<'_> {
    #[inline]
    fn json(self, value: impl Serialize) -> Result<(), NotScalar> {
        serde_json::to_writer(self.out, &value).map_err(|_| NotScalar)
    }
}

macro_rules! scalars_as_json {
    ($($method:ident($type:ty)),* $(,)?) => {
        $(
            #[inline]
            fn $method(self, value: $type) -> Result<(), NotScalar> {
                self.json(value)
            }
        )*
    };
}

impl ser::Serializer for TextSerializer<'_> {
    type Ok = ();
    type Error = NotScalar;
    type SerializeSeq = Impossible<(), NotScalar>;
    type SerializeTuple = Impossible<(), NotScalar>;
    type SerializeTupleStruct = Impossible<(), NotScalar>;
    type SerializeTupleVariant = Impossible<(), NotScalar>;
    type SerializeMap = Impossible<(), NotScalar>;
    type SerializeStruct = Impossible<(), NotScalar>;
    type SerializeStructVariant = Impossible<(), NotScalar>;

    scalars_as_json!(
        serialize_bool(bool),
        serialize_i8(i8),
        serialize_i16(i16),
        serialize_i32(i32),
        serialize_i64(i64),
        serialize_i128(i128),
        serialize_u8(u8),
        serialize_u16(u16),
        serialize_u32(u32),
        serialize_u64(u64),
        serialize_u128(u128),
        serialize_f32(f32),
        serialize_f64(f64),
    );

    #[inline]
    fn serialize_str(self, text: &str) -> Result<(), NotScalar> {
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn serialize_char(self, character: char) -> Result<(), NotScalar> {
        self.serialize_str(character.encode_utf8(&mut [0; 4]))
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), NotScalar> {
        self.serialize_str(variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), NotScalar> {
        value.serialize(self)
    }

    fn serialize_bytes(self, _: &[u8]) -> Result<(), NotScalar> {
        Err(NotScalar)
    }

    fn serialize_none(self) -> Result<(), NotScalar> {
        Err(NotScalar)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<(), NotScalar> {
        Err(NotScalar)
    }

    fn serialize_unit(self) -> Result<(), NotScalar> {
        Err(NotScalar)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), NotScalar> {
        Err(NotScalar)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), NotScalar> {
        Err(NotScalar)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, NotScalar> {
        Err(NotScalar)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, NotScalar> {
        Err(NotScalar)
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, NotScalar> {
        Err(NotScalar)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, NotScalar> {
        Err(NotScalar)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, NotScalar> {
        Err(NotScalar)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, NotScalar> {
        Err(NotScalar)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, NotScalar> {
        Err(NotScalar)
    }
}

/// Reads what [`TextSerializer`] or JSON wrote, as the type read asks for.
struct TextDeserializer<'de> {
    text: &'de str,
}

macro_rules! read_as_json {
    ($($method:ident),* $(,)?) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, serde_json::Error> {
                let mut json = serde_json::Deserializer::from_str(self.text);
                let value = de::Deserializer::$method(&mut json, visitor)?;
                json.end()?;
                Ok(value)
            }
        )*
    };
}

impl<'de> de::Deserializer<'de> for TextDeserializer<'de> {
    type Error = serde_json::Error;

    read_as_json!(
        deserialize_bool,
        deserialize_i8,
        deserialize_i16,
        deserialize_i32,
        deserialize_i64,
        deserialize_i128,
        deserialize_u8,
        deserialize_u16,
        deserialize_u32,
        deserialize_u64,
        deserialize_u128,
        deserialize_f32,
        deserialize_f64,
        deserialize_bytes,
        deserialize_byte_buf,
        deserialize_option,
        deserialize_unit,
        deserialize_seq,
        deserialize_map,
    );

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, serde_json::Error> {
        visitor.visit_borrowed_str(self.text)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, serde_json::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, serde_json::Error> {
        if !self.text.starts_with('{') {
            return visitor.visit_enum(self.text.into_deserializer());
        }
        let mut json = serde_json::Deserializer::from_str(self.text);
        let value = de::Deserializer::deserialize_enum(&mut json, name, variants, visitor)?;
        json.end()?;
        Ok(value)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, serde_json::Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, serde_json::Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, serde_json::Error> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, serde_json::Error> {
        self.deserialize_map(visitor)
    }

    forward_to_deserialize_any! { char str string identifier ignored_any }
}
