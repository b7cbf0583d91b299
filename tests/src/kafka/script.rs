//! What Kafka's clients are to do, and what they answer: the Rust side of `tests/peers/kafka/Client.java`.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::failure::Result;

/// Steps for Kafka's clients and tools, done one after the other in one JVM.
#[derive(Clone, Debug, Default)]
pub struct Script {
    lines: Vec<Value>,
}

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Step<'a> {
    /// Makes a topic.
    Create {
        /// Its name.
        topic: &'a str,
        /// How many partitions.
        partitions: i32,
        /// Settings as the broker names them.
        config: &'a [(&'a str, &'a str)],
    },
    /// Makes a producer; one with a `transactional.id` is made ready for transactions.
    Producer {
        /// The name it goes by in this script.
        name: &'a str,
        /// Settings as the client names them.
        config: &'a [(&'a str, &'a str)],
    },
    /// Hands a record to a producer.
    Send {
        /// The producer.
        producer: &'a str,
        /// Where to.
        topic: &'a str,
        /// The partition there.
        partition: i32,
        /// Milliseconds.
        timestamp: i64,
        /// The key.
        key: Option<&'a str>,
        /// The value.
        value: Option<&'a str>,
        /// The headers.
        headers: &'a [(&'a str, Option<&'a str>)],
    },
    /// Waits until what a producer was handed is written.
    Flush(&'a str),
    /// Begins a transaction.
    Begin(&'a str),
    /// Commits it.
    Commit(&'a str),
    /// Aborts it.
    Abort(&'a str),
    /// Commits an offset of a group, as an administrator.
    CommitOffset {
        /// The group.
        group: &'a str,
        /// The topic.
        topic: &'a str,
        /// The partition.
        partition: i32,
        /// The next offset to be read.
        offset: i64,
    },
    /// Commits an offset of a group with the open transaction.
    SendOffset {
        /// The producer.
        producer: &'a str,
        /// The group.
        group: &'a str,
        /// The topic.
        topic: &'a str,
        /// The partition.
        partition: i32,
        /// The next offset to be read.
        offset: i64,
    },
    /// Deletes the records before an offset.
    DeleteRecords {
        /// The topic.
        topic: &'a str,
        /// The partition.
        partition: i32,
        /// The first one that stays.
        offset: i64,
    },
    /// Waits until compaction has left so few records at most in partition 0.
    AwaitCompaction {
        /// The topic.
        topic: &'a str,
        /// So many.
        records: u64,
    },
    /// Reads everything: answers [`Answer::Start`], [`Answer::End`] and [`Answer::Record`].
    Consume {
        /// The topics.
        topics: &'a [&'a str],
        /// Whether only what is committed is shown.
        committed: bool,
    },
}

impl Script {
    /// One that does nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a step.
    pub fn step(&mut self, step: &Step<'_>) {
        self.lines.push(line(step));
    }

    /// Runs DumpLogSegments on files: answers [`Answer::Tool`].
    pub fn dump(&mut self, options: &[&str], files: &[PathBuf]) {
        let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
        let mut arguments: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
        arguments.extend(["--files".to_owned(), files.join(",")]);
        let class = "org.apache.kafka.tools.DumpLogSegments";
        self.lines.push(json!({"do": "tool", "class": class, "arguments": arguments}));
    }

    pub(super) fn to_text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

fn line(step: &Step<'_>) -> Value {
    match *step {
        Step::Create { topic, partitions, config } => {
            json!({"do": "create", "topic": topic, "partitions": partitions, "config": object(config)})
        }
        Step::Producer { name, config } => {
            json!({"do": "producer", "producer": name, "config": object(config)})
        }
        Step::Send { producer, topic, partition, timestamp, key, value, headers } => json!({
            "do": "send", "producer": producer, "topic": topic, "partition": partition,
            "timestamp": timestamp, "key": key, "value": value, "headers": headers,
        }),
        Step::Flush(producer) => json!({"do": "flush", "producer": producer}),
        Step::Begin(producer) => json!({"do": "begin", "producer": producer}),
        Step::Commit(producer) => json!({"do": "commit", "producer": producer}),
        Step::Abort(producer) => json!({"do": "abort", "producer": producer}),
        Step::CommitOffset { group, topic, partition, offset } => json!({
            "do": "commit-offset", "group": group, "topic": topic, "partition": partition, "offset": offset,
        }),
        Step::SendOffset { producer, group, topic, partition, offset } => json!({
            "do": "send-offset", "producer": producer, "group": group,
            "topic": topic, "partition": partition, "offset": offset,
        }),
        Step::DeleteRecords { topic, partition, offset } => {
            json!({"do": "delete-records", "topic": topic, "partition": partition, "offset": offset})
        }
        Step::AwaitCompaction { topic, records } => {
            json!({"do": "await-compaction", "topic": topic, "records": records})
        }
        Step::Consume { topics, committed } => {
            let isolation = if committed { "read_committed" } else { "read_uncommitted" };
            json!({"do": "consume", "topics": topics, "isolation": isolation})
        }
    }
}

fn object(config: &[(&str, &str)]) -> Map<String, Value> {
    config.iter().map(|&(name, value)| (name.to_owned(), json!(value))).collect()
}

/// A record that Kafka's consumer was given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadRecord {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its time.
    pub timestamp: i64,
    /// The key.
    pub key: Option<String>,
    /// The value.
    pub value: Option<String>,
    /// The headers.
    pub headers: Vec<(String, Option<String>)>,
}

impl ReadRecord {
    /// What was printed of it.
    pub(crate) fn parse(value: &Value) -> Result<Self> {
        let text = |field: &str| value[field].as_str().map(str::to_owned);
        let number = |field: &str| value[field].as_i64().ok_or_else(|| format!("{value} has no {field}"));
        Ok(Self {
            topic: text("topic").ok_or("it has no topic")?,
            partition: i32::try_from(number("partition")?)?,
            offset: number("offset")?,
            timestamp: number("timestamp")?,
            key: text("key"),
            value: text("value"),
            headers: serde_json::from_value(value["headers"].clone())?,
        })
    }
}

/// What a step printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Where a partition begins: topic, partition, offset.
    Start(String, i32, i64),
    /// Where it ends, for the isolation level asked for.
    End(String, i32, i64),
    /// A record.
    Record(ReadRecord),
    /// What a tool printed and what it complained of.
    Tool {
        /// On stdout.
        stdout: String,
        /// On stderr.
        stderr: String,
    },
}

impl Answer {
    pub(super) fn parse(line: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(line)?;
        let text = |field: &str| value[field].as_str().map(str::to_owned);
        let number = |field: &str| value[field].as_i64();
        if let (Some(stdout), Some(stderr)) = (text("stdout"), text("stderr")) {
            return Ok(Self::Tool { stdout, stderr });
        }
        if number("offset").is_some() {
            return ReadRecord::parse(&value).map(Self::Record);
        }
        let topic = text("topic").ok_or("it has no topic")?;
        let partition = i32::try_from(number("partition").ok_or("it has no partition")?)?;
        Ok(match (number("start"), number("end")) {
            (Some(start), _) => Self::Start(topic, partition, start),
            (_, Some(end)) => Self::End(topic, partition, end),
            _ => return Err("it is no answer".into()),
        })
    }
}
