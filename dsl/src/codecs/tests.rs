use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use lotic_engine::window::Windowed;
use lotic_log::Timestamp;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

/// That `value` is written as `expected` and read back from it.
fn check<T: PartialEq + Debug>(codec: impl Codec<T>, value: T, expected: &str) {
    let mut bytes = b"before".to_vec();
    codec.encode(&value, &mut bytes).expect("writable");
    assert_eq!(std::str::from_utf8(&bytes), Ok(format!("before{expected}").as_str()));
    assert_eq!(codec.decode(&bytes[6..]).expect("readable"), value);
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Tail(String);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Status {
    Departed,
    Diverted { to: String },
    Delayed(u32),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Route {
    from: String,
    number: u16,
}

#[test]
fn a_text_key_that_is_a_string_is_written_as_it_is() {
    check(Text, "UA|\"quoted\" and é".to_owned(), "UA|\"quoted\" and é");
    check(Text, Tail("N14228".into()), "N14228");
    check(Text, 'x', "x");
    check(Text, String::new(), "");
    check(Text, Status::Departed, "Departed");
}

#[test]
fn a_text_key_that_is_a_number_is_written_in_digits() {
    check(Text, -12_i64, "-12");
    check(Text, u64::MAX, "18446744073709551615");
    check(Text, true, "true");
    check(Text, 1.5_f64, "1.5");
}

#[test]
fn a_text_key_with_structure_is_written_as_json() {
    check(Text, ("UA".to_owned(), 1545), r#"["UA",1545]"#);
    check(Text, Route { from: "EWR".into(), number: 7 }, r#"{"from":"EWR","number":7}"#);
    check(Text, Status::Diverted { to: "BOS".into() }, r#"{"Diverted":{"to":"BOS"}}"#);
    check(Text, Status::Delayed(5), r#"{"Delayed":5}"#);
    check(Text, BTreeMap::from([(Tail("a".into()), 1)]), r#"{"a":1}"#);
    check(Text, vec![1_u8, 2], "[1,2]");
}

#[test]
fn a_text_key_that_may_be_absent_is_told_from_one_that_says_null() {
    check(Text, None::<String>, "null");
    check(Text, Some("null".to_owned()), r#""null""#);
    check(Text, "null".to_owned(), "null");
}

#[test]
fn text_that_is_not_of_the_type_is_refused() {
    for wrong in ["", "1x", "\"1\"", "300"] {
        assert!(Codec::<u8>::decode(&Text, wrong.as_bytes()).is_err(), "{wrong:?}");
    }
    assert!(Codec::<Status>::decode(&Text, b"Unknown").is_err());
    assert!(Codec::<(String, u8)>::decode(&Text, br#"["UA",1] "and more"#).is_err());
    assert!(Codec::<String>::decode(&Text, &[0xff]).is_err());
}

#[test]
fn a_windows_key_begins_with_its_start() {
    let codec = WindowedKey::<String>::new(Arc::new(Text), 3_600_000);
    let start = Timestamp(1_357_034_400_000);
    let end = Timestamp(start.0 + 3_600_000);
    check(codec, Windowed { key: "U|A".into(), start, end }, "2013-01-01T10:00:00Z|U|A");
}

#[test]
fn postcard_refuses_bytes_that_are_left_over() {
    let mut bytes = Vec::new();
    Postcard.encode(&7_u32, &mut bytes).expect("writable");
    bytes.push(0);
    assert!(Codec::<u32>::decode(&Postcard, &bytes).is_err());
}

#[test]
fn bytes_and_utf8_are_kept_as_they_are() {
    check(Utf8, "é|".to_owned(), "é|");
    check(RawBytes, b"\x01\x7f".to_vec(), "\x01\x7f");
    assert!(Utf8.decode(&[0xc3]).is_err());
}

fn round_trip<T: PartialEq + Debug + Clone>(codec: impl Codec<T>, value: &T) -> T {
    let mut bytes = Vec::new();
    codec.encode(value, &mut bytes).expect("writable");
    codec.decode(&bytes).expect("readable")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_written_is_read_back(text in any::<String>(), number in any::<i64>(), list in any::<Vec<Option<u16>>>()) {
        let row = (text.clone(), number, list);
        prop_assert_eq!(&round_trip(Json, &row), &row);
        prop_assert_eq!(&round_trip(Postcard, &row), &row);
        prop_assert_eq!(&round_trip(Text, &row), &row);
        prop_assert_eq!(&round_trip(Text, &text), &text);
        prop_assert_eq!(round_trip(Text, &number), number);
    }
}
