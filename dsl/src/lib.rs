//! Lotic: an event log and a stream processor in one library. This is its front door: what a program
//! writes and runs.
//!
//! A program opens a directory and has a durable, partitioned log in Kafka's format; on it, typed pipelines
//! with state larger than memory and exactly-once results. There is no broker, no JVM and no cluster to run.
//!
//! ```no_run
//! use lotic::prelude::*;
//!
//! #[derive(Clone, Serialize, Deserialize)]
//! struct Order {
//!     user: String,
//!     cents: i64,
//!     at: i64,
//! }
//!
//! fn main() -> lotic::Result<()> {
//!     let mut flow = Flow::new("revenue");
//!     flow.topic::<Order>("orders")
//!         .event_time(|o| o.at, Lateness::bounded(5.secs()))
//!         .key_by(|o| o.user.clone())
//!         .window(Tumbling::of(1.minute()))
//!         .aggregate("revenue", sum(|o: &Order| o.cents))
//!         .to("revenue-per-minute");
//!     Processor::open("data")?.run(flow)
//! }
//! ```
//!
//! [`Flow`] shows the same pipeline under test, rows in, rows out.
//!
//! # What is promised
//!
//! Results depend on the log and on nothing else: not on the number of workers, the speed of a disk, or a
//! crash. Per key that holds for the final windows, the answers of joins by event time, the set of late
//! events, and the last value of every table. It does not hold for offsets, the order between keys, and
//! steps that [`Flow::explain`] marks as depending on arrival.
//!
//! # Wrong pipelines do not compile
//!
//! A window needs a keyed stream:
//!
//! ```compile_fail,E0599
//! # use lotic::prelude::*;
//! let mut flow = Flow::new("wrong");
//! let words = flow.topic::<String>("words").record_time(Lateness::none());
//! words.window(Tumbling::of(1.hour()));
//! ```
//!
//! A join needs equal key types:
//!
//! ```compile_fail,E0308
//! # use lotic::prelude::*;
//! let mut flow = Flow::new("wrong");
//! let by_name = flow.keyed_topic::<String, i64>("by-name").record_time(Lateness::none());
//! let by_number = flow.table::<u32, i64>("by-number").record_time(Lateness::none());
//! let _ = by_name.join_newest("pairs", &by_number, |_, left, right| left + right);
//! ```
//!
//! A topic is no stream before it is said what its event time is:
//!
//! ```compile_fail,E0599
//! # use lotic::prelude::*;
//! let mut flow = Flow::new("wrong");
//! let _ = flow.topic::<String>("words").map(|word| word.len());
//! ```
//!
//! # Floor plan
//!
//! | module | owns |
//! |---|---|
//! | `flow`, `topic` | [`Flow`]; topics as streams and tables |
//! | `stream`, `keyed` | [`Stream`], [`KeyedStream`] |
//! | `window`, `windowed` | [`Tumbling`] windows and their results |
//! | `table`, `join` | [`Table`], [`ReferenceTable`]; joins with them |
//! | `aggregate` | [`count`], [`sum`], [`mean`], [`min`], [`max`], [`fold`] and tuples of them |
//! | `sink` | [`TopicSink`] |
//! | [`codecs`] | JSON, text, postcard, UTF-8, bytes |
//! | `plan`, `lower`, `explain` | a flow while it is written; as the engine's graph; in words |
//! | `processor`, `shared_log`, `signals` | [`Processor`]: runs flows on a directory until it is told to end |
//! | `test_driver` | [`TestDriver`]: runs them in memory, rows in, rows out |
//!
//! # Absent on purpose
//!
//! This crate knows no external system: connectors know the engine, and a flow takes any of their sources
//! and sinks. It neither reads nor writes a byte of the log itself.

mod aggregate;
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

pub mod codecs;
mod explain;
mod flow;
mod join;
mod keyed;
mod lower;
mod plan;
mod processor;
mod row;
mod shared_log;
mod signals;
mod sink;
mod stream;
mod table;
mod test_driver;
mod time;
mod topic;
mod window;
mod windowed;

pub use aggregate::{
    Aggregate, Count, Fold, Max, Mean, MeanState, Measure, Min, Number, Sum, count, fold, max, mean, min, sum,
};
pub use flow::Flow;
pub use join::{AsOf, AsOfResults};
pub use keyed::KeyedStream;
pub use lotic_engine::error::{Error, ErrorKind, Result};
pub use lotic_engine::metrics::{Metrics, StepMetrics};
pub use lotic_engine::options::{CheckpointOptions, EngineOptions, RestartOptions};
pub use lotic_engine::sink::{Guarantee, Sink, SinkFactory};
pub use lotic_engine::source::{RowSource, SourceFactory};
pub use lotic_engine::window::Windowed;
pub use lotic_log as log;
pub use lotic_log::{Durability, Log, Record, Timestamp, TopicConfig};
pub use processor::{Ending, Processor, ProcessorOptions, Running, Until};
pub use row::{Data, Key, Value};
pub use sink::TopicSink;
pub use stream::Stream;
pub use table::{ReferenceTable, Table};
pub use test_driver::TestDriver;
pub use time::{DurationExt, EventTime, Lateness};
pub use topic::{BadRecords, KeyedTopic, TableTopic, Topic};
pub use window::{Tumbling, Window};
pub use windowed::{WindowResults, WindowedStream};

/// What most programs use, to be imported as a whole.
pub mod prelude {
    pub use std::time::Duration;

    pub use serde::{Deserialize, Serialize};

    pub use crate::codecs::{Json, Postcard, RawBytes, Text, Utf8};
    pub use crate::{
        Aggregate, AsOf, BadRecords, Durability, DurationExt, Ending, Flow, KeyedStream, Lateness, Processor,
        ProcessorOptions, ReferenceTable, Stream, Table, TestDriver, Timestamp, Tumbling, Until, Window,
        Windowed, count, fold, max, mean, min, sum,
    };
}

#[cfg(test)]
mod tests;
