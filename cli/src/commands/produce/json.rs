//! Records out of JSON, as `lotic consume --json` prints them.

use lotic_log::{Header, PartitionId, Record, Timestamp};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::base64;

/// A line of JSON. What is not there is null, or left to the producer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    partition: Option<i32>,
    /// Where the record was; it is going to be somewhere else.
    #[serde(rename = "offset")]
    _offset: Option<IgnoredAny>,
    timestamp: Option<i64>,
    key: Option<Text>,
    value: Option<Text>,
    #[serde(default)]
    headers: Vec<HeaderOfLine>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderOfLine {
    key: String,
    value: Option<Text>,
}

/// Text, or bytes that are none.
#[derive(Deserialize)]
#[serde(untagged, expecting = "text, null, or {\"base64\": \"…\"}")]
enum Text {
    Text(String),
    Bytes { base64: String },
}

impl Text {
    fn into_bytes(self) -> Result<Vec<u8>, String> {
        match self {
            Self::Text(text) => Ok(text.into_bytes()),
            Self::Bytes { base64 } => {
                base64::decode(&base64).ok_or_else(|| format!("{base64:?} is no base64"))
            }
        }
    }
}

/// The record of a line, and its partition where the line names one.
pub(super) fn record(line: &[u8]) -> Result<(Option<PartitionId>, Record), String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| reason(&error))?;
    let bytes = |text: Option<Text>| text.map(Text::into_bytes).transpose();
    let header =
        |HeaderOfLine { key, value }| Ok::<_, String>(Header { key, value: bytes(value)?.map(Into::into) });
    let record = Record {
        key: bytes(line.key)?.map(Into::into),
        value: bytes(line.value)?.map(Into::into),
        timestamp: line.timestamp.map(Timestamp),
        headers: line.headers.into_iter().map(header).collect::<Result<_, _>>()?,
    };
    Ok((line.partition.map(PartitionId), record))
}

/// Why a line is no record, and at which column: which line it is, is said of all that is wrong with one.
fn reason(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match said.strip_suffix(&place) {
        Some(said) if error.column() > 0 => format!("{said} at column {}", error.column()),
        Some(said) => said.to_owned(),
        None => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_record_with_what_it_names() {
        let line = r#"{"partition":2,"offset":7,"timestamp":1357034400000,"key":"k","value":{"base64":"//79"},
            "headers":[{"key":"h","value":"1"},{"key":"h","value":null}]}"#;
        let (partition, found) = record(line.as_bytes()).expect("it is whole");
        let header = |value: Option<&[u8]>| Header {
            key: "h".to_owned(),
            value: value.map(|value| value.to_vec().into()),
        };
        let expected = Record {
            key: Some(b"k".to_vec().into()),
            value: Some(vec![0xff, 0xfe, 0xfd].into()),
            timestamp: Some(Timestamp(1_357_034_400_000)),
            headers: vec![header(Some(b"1")), header(None)],
        };
        assert_eq!((partition, found), (Some(PartitionId(2)), expected));
        let (partition, found) = record(br#"{"key":"k","value":null}"#).expect("a tombstone");
        assert_eq!((partition, found.value, found.timestamp), (None, None, None));
    }

    #[test]
    fn what_is_no_record_is_refused_with_the_reason() {
        for (line, reason) in [
            ("", "EOF while parsing a value"),
            ("x", "expected value at column 1"),
            ("{\"value\":\"v\"", "EOF while parsing an object at column 12"),
            ("[]", "invalid length"),
            (r#"{"vlaue":"v"}"#, "vlaue"),
            (r#"{"value":1}"#, "base64"),
            (r#"{"value":{"base64":"?"}}"#, "no base64"),
        ] {
            let said = record(line.as_bytes()).expect_err("it is none");
            assert!(said.contains(reason) && !said.contains("line"), "{line}: {said}");
        }
    }
}
