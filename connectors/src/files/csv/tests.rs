//! What the CSV reader makes of a text. The reference is the csv crate, which shares only the quoted path.

use std::collections::BTreeMap;
use std::fs;

use proptest::prelude::*;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Csv;
use crate::error::ErrorKind;
use crate::files::{CsvReader, Malformed, Progress, ReadOptions, RejectedRow};

/// Blocks of a few bytes force every record across the edge of one.
fn tiny(malformed: Malformed) -> ReadOptions {
    ReadOptions { malformed, block_bytes: 7, record_bytes_max: 200, ..ReadOptions::default() }
}

fn read<T: DeserializeOwned>(
    text: &[u8],
    format: Csv<T>,
) -> Result<(Vec<T>, Vec<RejectedRow>), crate::Error> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("input.csv");
    fs::write(&path, text).expect("written");
    let mut reader = CsvReader::open(&path, None, format, tiny(Malformed::DeadLetter))?;
    let (mut rows, mut rejected) = (Vec::new(), Vec::new());
    while reader.read(3, &mut rows, &mut rejected)? == Progress::More {}
    Ok((rows, rejected))
}

#[track_caller]
fn check(text: &str, expected: &[&[&str]]) {
    let (rows, rejected) = read::<Vec<String>>(text.as_bytes(), Csv::default()).expect("read");
    assert_eq!(rows, expected);
    assert_eq!(rejected, []);
}

/// Each rejected row as `line, column: reason | raw`.
#[track_caller]
fn check_rejected<T: DeserializeOwned + std::fmt::Debug>(text: &[u8], accepted: usize, expected: &[&str]) {
    let (rows, rejected) = read::<T>(text, Csv::default()).expect("read");
    let found: Vec<_> = rejected
        .iter()
        .map(|row| {
            let column = row.column.as_deref().unwrap_or("-");
            format!("{}, {column}: {} | {}", row.line, row.reason, String::from_utf8_lossy(&row.raw))
        })
        .collect();
    assert_eq!(found, expected);
    assert_eq!(rows.len(), accepted, "{rows:?}");
}

#[derive(Debug, PartialEq, Deserialize)]
struct Flight {
    dep_delay: Option<i32>,
    carrier: String,
    flight: u16,
    tailnum: Option<String>,
}

fn flight(dep_delay: Option<i32>, carrier: &str, flight: u16, tailnum: Option<&str>) -> Flight {
    Flight { dep_delay, carrier: carrier.into(), flight, tailnum: tailnum.map(Into::into) }
}

#[test]
fn a_struct_takes_the_columns_it_names_in_any_order() {
    let text = "year,carrier,tailnum,flight,dep_delay\n2013,UA,N14228,1545,-2\n2013,B6,NA,725,NA\n";
    let (rows, _) = read::<Flight>(text.as_bytes(), Csv::default().absent(&["NA"])).expect("read");
    assert_eq!(rows, [flight(Some(-2), "UA", 1545, Some("N14228")), flight(None, "B6", 725, None)]);
}

#[test]
fn the_empty_field_is_absent_unless_told_otherwise() {
    let text = b"carrier,tailnum,flight,dep_delay\nUA,,1,\n";
    let (rows, _) = read::<Flight>(text, Csv::default()).expect("read");
    assert_eq!(rows, [flight(None, "UA", 1, None)]);
    let (rows, rejected) = read::<Flight>(text, Csv::default().absent(&["NA"])).expect("read");
    assert_eq!(rows, []);
    assert_eq!(rejected[0].column.as_deref(), Some("dep_delay"));
}

#[test]
fn a_missing_column_is_refused_with_the_header_that_is_there() {
    let error =
        read::<Flight>(b"carrier,tail,flight,dep_delay\n", Csv::default()).expect_err("tailnum is missing");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let message = error.to_string();
    assert!(message.contains("input.csv: column tailnum is missing"), "{message}");
    assert!(message.ends_with("the header has: carrier,tail,flight,dep_delay"), "{message}");
}

#[test]
fn a_column_that_is_there_twice_is_refused() {
    let text = b"carrier,flight,tailnum,carrier,dep_delay\n";
    let error = read::<Flight>(text, Csv::default()).expect_err("which carrier?");
    assert!(error.to_string().contains("column carrier is there twice"), "{error}");
}

#[test]
fn an_optional_column_may_be_missing() {
    let format = Csv::default().optional_columns(&["tailnum"]);
    let (rows, _) = read::<Flight>(b"carrier,flight,dep_delay\nUA,1,2\n", format).expect("read");
    assert_eq!(rows, [flight(Some(2), "UA", 1, None)]);
}

#[test]
fn a_file_without_header_is_refused() {
    for text in ["", "\n\n"] {
        let error = read::<Flight>(text.as_bytes(), Csv::default()).expect_err("no header");
        assert!(error.to_string().contains("the header is missing"), "{error}");
    }
}

#[test]
fn a_malformed_row_is_named_by_line_and_column() {
    let text = b"carrier,tailnum,flight,dep_delay\nUA,x,1,2\nUA,x,-5,2\n\nUA,x,5\nUA,x,1,2,9\nUA,x,7,soon\nAA,x,2,2\n";
    check_rejected::<Flight>(
        text,
        2,
        &[
            "3, flight: `-5`: invalid digit found in string | UA,x,-5,2",
            "5, -: 3 fields where the header has 4 | UA,x,5",
            "6, -: 5 fields where the header has 4 | UA,x,1,2,9",
            "7, dep_delay: `soon`: invalid digit found in string | UA,x,7,soon",
        ],
    );
}

#[test]
fn a_row_that_is_not_utf8_is_malformed_in_the_column_where_it_is_not() {
    check_rejected::<Vec<String>>(
        b"a,b,c\n1,2,3\n1,\xff,3\n\xff,2,3\n1,2,x\xff\n",
        1,
        &[
            "3, b: not UTF-8 | 1,\u{fffd},3",
            "4, a: not UTF-8 | \u{fffd},2,3",
            "5, c: not UTF-8 | 1,2,x\u{fffd}",
        ],
    );
}

#[test]
fn quotes_delimiters_and_line_ends_may_stand_in_quotes() {
    check(
        "a,b\n\"x,y\",\"say \"\"hi\"\"\"\n\"two\nlines\",2\n",
        &[&["x,y", "say \"hi\""], &["two\nlines", "2"]],
    );
}

#[test]
fn a_quoted_header_is_a_header() {
    let text = b"\"carrier\",\"tailnum\",flight,\"dep_delay\"\nUA,N1,1,2\n";
    let (rows, _) = read::<Flight>(text, Csv::default()).expect("read");
    assert_eq!(rows, [flight(Some(2), "UA", 1, Some("N1"))]);
}

#[test]
fn lines_may_end_as_on_windows() {
    check("a,b\r\n1,2\r\n\"3\",\"4\"\r\n\r\n5,\"six\r\"\r\n", &[&["1", "2"], &["3", "4"], &["5", "six\r"]]);
}

#[test]
fn the_last_line_needs_no_line_end() {
    check("a,b\n1,2", &[&["1", "2"]]);
    check("a,b\n1,\"2\"", &[&["1", "2"]]);
    check("a,b\n1,\"2\n3\"", &[&["1", "2\n3"]]);
}

#[test]
fn blank_lines_and_a_byte_order_mark_are_passed_over() {
    check("\u{feff}\n\na,b\n\n1,2\n\n\n3,4\n\n", &[&["1", "2"], &["3", "4"]]);
}

#[test]
fn a_quote_that_is_not_closed_costs_one_line() {
    let long = "5,6\n".repeat(100);
    let text = format!("a,b\n1,2\n3,\"four\n{long}");
    check_rejected::<Vec<String>>(text.as_bytes(), 101, &["3, -: a quoted field is not closed | 3,\"four"]);
    check_rejected::<Vec<String>>(
        b"a,b\n3,\"four\n5,6",
        1,
        &["2, -: a quoted field is not closed | 3,\"four"],
    );
}

#[test]
fn lines_are_counted_through_rows_of_several_lines() {
    check_rejected::<(String, u8)>(
        b"a,b\n\"x\n\ny\",1\nz,many\n",
        1,
        &["5, b: `many`: invalid digit found in string | z,many"],
    );
}

#[test]
fn a_line_longer_than_the_limit_is_an_error_under_any_policy() {
    let text = format!("a,b\n1,2\n{},4\n", "3".repeat(300));
    let error = read::<Vec<String>>(text.as_bytes(), Csv::default()).expect_err("too long");
    assert!(error.to_string().contains("line 3 is longer than 200 bytes"), "{error}");
}

#[test]
fn rows_may_be_tuples_maps_newtypes_and_have_enums_in_them() {
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "UPPERCASE")]
    enum Origin {
        Ewr,
        Jfk,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct Miles(f64);
    #[derive(Debug, PartialEq, Deserialize)]
    struct Wrapped(Flight);

    let (rows, _) =
        read::<(Origin, Miles, bool)>(b"o,v,x\nEWR,0.25,true\nJFK,10,false\n", Csv::default()).expect("read");
    assert_eq!(rows, [(Origin::Ewr, Miles(0.25), true), (Origin::Jfk, Miles(10.0), false)]);
    let (rows, _) = read::<BTreeMap<String, String>>(b"a,b\n1,x\n", Csv::default()).expect("read");
    assert_eq!(rows, [BTreeMap::from([("a".into(), "1".into()), ("b".into(), "x".into())])]);
    let text = b"extra,carrier,tailnum,flight,dep_delay\n,UA,N1,1,2\n";
    let (rows, _) = read::<Wrapped>(text, Csv::default()).expect("read");
    assert_eq!(rows, [Wrapped(flight(Some(2), "UA", 1, Some("N1")))]);
}

#[test]
fn a_flattened_struct_takes_all_columns_and_guesses_numbers() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Place {
        row: i32,
        seat: String,
    }
    #[derive(Debug, PartialEq, Deserialize)]
    struct Booking {
        name: String,
        #[serde(flatten)]
        place: Place,
    }
    let (rows, _) = read::<Booking>(b"name,row,seat\nAda,-7,C\n", Csv::default()).expect("read");
    assert_eq!(rows, [Booking { name: "Ada".into(), place: Place { row: -7, seat: "C".into() } }]);
}

#[test]
fn a_tuple_of_another_width_than_the_header_is_malformed() {
    check_rejected::<(u8, u8)>(
        b"a,b,c\n1,2,3\n",
        0,
        &["2, -: the header has 3 columns, the row type 2 fields | 1,2,3"],
    );
}

#[test]
fn another_delimiter_may_be_chosen() {
    let format = Csv::default().delimiter(b';');
    let (rows, _) = read::<Vec<String>>(b"a;b\n1,5;2\n\"x;y\";z\n", format).expect("read");
    assert_eq!(rows, [["1,5", "2"], ["x;y", "z"]]);
}

proptest! {
    #[test]
    fn whatever_the_csv_crate_writes_is_read_back(
        rows in (1usize..5).prop_flat_map(|width| prop::collection::vec(
            prop::collection::vec("[a-c \",\r\n\u{e9}]{0,6}", width), 1..12,
        )),
        windows in any::<bool>(),
    ) {
        let terminator = if windows { ::csv::Terminator::CRLF } else { ::csv::Terminator::Any(b'\n') };
        let mut writer = ::csv::WriterBuilder::new().terminator(terminator).from_writer(Vec::new());
        writer.write_record((0..rows[0].len()).map(|column| format!("c{column}"))).expect("a header");
        for row in &rows {
            writer.write_record(row).expect("a row");
        }
        let text = writer.into_inner().expect("in memory");
        let (found, rejected) = read::<Vec<String>>(&text, Csv::default()).expect("read");
        prop_assert_eq!(rejected, []);
        prop_assert_eq!(found, rows);
    }
}

#[test]
fn two_columns_for_one_field_are_not_taken_for_two_fields() {
    #[derive(Debug, Deserialize)]
    struct Row {
        #[serde(alias = "identifier")]
        #[expect(dead_code, reason = "only what is refused counts")]
        id: u32,
        #[expect(dead_code, reason = "only what is refused counts")]
        size: u32,
    }
    let expected = "2, -: two columns for one field | 1,2,3";
    check_rejected::<Row>(b"id,identifier,size\n1,2,3\n", 0, &[expected]);
}
