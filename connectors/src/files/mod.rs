//! CSV and JSON-lines files as sources and sinks.
//!
//! | module | owns |
//! |---|---|
//! | [`position`] | how far a file was read, and whether it is still that file |
//! | `input` | one file read in big blocks: bytes, lines, position |
//! | [`reader`] | rows in batches from any format; what becomes of a malformed one |
//! | [`csv`], [`json_lines`] | the two formats in |
//! | [`source`] | a file as the source of a flow |
//! | [`output`] | files that are there whole or not at all, one for each epoch |
//! | [`rows`] | the two formats out |
//! | [`sink`] | a folder of files as the sink of a flow |
//!
//! Reading never blocks for longer than the file system takes, and holds one block and one batch in memory,
//! however large the file.

pub mod csv;
mod input;
pub mod json_lines;
pub mod output;
#[cfg(test)]
mod output_tests;
pub mod position;
pub mod reader;
pub mod rows;
pub mod sink;
pub mod source;
#[cfg(test)]
mod tests;

pub use self::csv::Csv;
pub use json_lines::JsonLines;
pub use output::{EpochFiles, StagedFile};
pub use position::{ContentHash, FilePosition};
pub use reader::{Ending, FileReader, Malformed, Progress, ReadOptions, RejectedRow, RowFormat};
pub use rows::{CsvRows, JsonLinesRows};
pub use sink::FileSink;
pub use source::{FileSource, RowOrder};

/// Reads rows of type `T` from a CSV file with a header.
pub type CsvReader<T> = FileReader<Csv<T>>;

/// Reads rows of type `T` from a file with one JSON value a line.
pub type JsonLinesReader<T> = FileReader<JsonLines<T>>;
