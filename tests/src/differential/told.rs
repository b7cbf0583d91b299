//! How `Scripts.java` is told of a script.

use serde_json::{Map, Value, json};

use super::script::{
    BATCH_BYTES_MAX, Content, Dated, Family, Operation, PARTITIONS, Place, SEGMENT_BYTES, SEGMENT_MS, Script,
    Writer, WriterKind,
};

impl Script {
    /// The script as `Scripts.java` reads it, up to where the broker is stopped if it is.
    pub(super) fn to_json(&self, number: usize) -> Value {
        let before = &self.operations[..self.stop().unwrap_or(self.operations.len())];
        let mut steps: Vec<_> = before.iter().map(|operation| operation.to_json(number)).collect();
        if self.outlasts() {
            // All that is to expire has, once this has.
            let group = Self::last_group(number);
            steps.push(json!({"do": "commit-offset", "group": group, "partition": 0, "offset": 0}));
        }
        self.line(number, steps)
    }

    /// What is done once the broker was started again, as another script on the same topic: first, what belongs to
    /// that, with [`Self::steps_of_restart`] answers.
    pub(super) fn to_json_after_restart(&self, number: usize) -> Option<Value> {
        let after = &self.operations[self.stop()? + 1..];
        let mut steps: Vec<_> =
            self.opened_before_restart().map(|operation| operation.to_json(number)).collect();
        if self.outlasts() {
            steps.push(json!({"do": "await-forgotten", "group": Self::last_group(number), "partition": 0}));
        }
        debug_assert_eq!(steps.len(), self.steps_of_restart());
        steps.extend(after.iter().map(|operation| operation.to_json(number)));
        let mut line = self.line(number, steps);
        line["exists"] = true.into();
        Some(line)
    }

    /// How many steps there are before those of the operations after a restart: all who had a transactional id take
    /// it again, in the same order; it is waited until what was committed has expired.
    pub(super) fn steps_of_restart(&self) -> usize {
        self.opened_before_restart().count() + usize::from(self.outlasts())
    }

    fn line(&self, number: usize, steps: Vec<Value>) -> Value {
        let id = |id: usize| format!("id-{number}-{id}");
        let producers: Vec<_> = self.producers.iter().map(|writer| writer.to_json(id)).collect();
        json!({
            "script": number, "topic": Self::topic(number), "partitions": PARTITIONS,
            "config": self.config(), "producers": producers, "steps": steps,
        })
    }

    fn config(&self) -> Value {
        let mut config = json!({
            "retention.ms": "-1",
            "segment.ms": SEGMENT_MS.to_string(),
            "max.message.bytes": BATCH_BYTES_MAX.to_string(),
            "message.timestamp.after.max.ms": i64::MAX.to_string(),
        });
        if self.append_time {
            config["message.timestamp.type"] = "LogAppendTime".into();
        }
        if self.family == Family::Sizing {
            // Less than a megabyte can be said in this way alone.
            config["internal.segment.bytes"] = SEGMENT_BYTES.to_string().into();
            config["segment.ms"] = i64::MAX.to_string().into();
        }
        if self.family.compacts() {
            let policy = if self.family == Family::Compacting { "compact" } else { "compact,delete" };
            config["cleanup.policy"] = policy.into();
            config["min.cleanable.dirty.ratio"] = "0.0".into();
        }
        config
    }
}

impl Writer {
    fn to_json(&self, id: impl Fn(usize) -> String) -> Value {
        let mut config = Map::from_iter([
            ("compression.type".to_owned(), self.compression.into()),
            ("enable.idempotence".to_owned(), (self.kind != WriterKind::Plain).to_string().into()),
        ]);
        if let WriterKind::Transactional(number) = self.kind {
            config.insert("transactional.id".to_owned(), id(number).into());
            config.insert("transaction.timeout.ms".to_owned(), self.timeout_ms.to_string().into());
        }
        config.into()
    }
}

impl Place {
    fn to_json(self) -> (&'static str, i64) {
        match self {
            Self::Start(plus) => ("start", plus),
            Self::Stable(plus) => ("stable", plus),
            Self::End(plus) => ("end", plus),
            Self::Within(plus) => ("within", plus),
        }
    }
}

impl Content {
    fn to_json(&self) -> Value {
        let Self { timestamp, key, value, headers } = self;
        json!({"timestamp": timestamp, "key": key, "value": value, "headers": headers})
    }
}

impl Operation {
    fn to_json(&self, number: usize) -> Value {
        let list = |records: &[Content]| records.iter().map(Content::to_json).collect::<Vec<_>>();
        let group = |group| Script::group(number, group);
        match self {
            Self::Send { producer, partition, records } => json!({
                "do": "send", "producer": producer, "partition": partition, "records": list(records),
            }),
            Self::Append { partition, producer_id, epoch, sequence, records } => json!({
                "do": "append", "partition": partition, "producer_id": producer_id, "epoch": epoch,
                "sequence": sequence, "records": list(records),
            }),
            Self::AppendAs { producer, partition, later, sequence, transactional, records } => json!({
                "do": "append-as", "producer": producer, "partition": partition, "later": later,
                "sequence": sequence, "transactional": transactional, "records": list(records),
            }),
            Self::Open(producer) => json!({"do": "open", "producer": producer}),
            Self::Begin(producer) => json!({"do": "begin", "producer": producer}),
            Self::Commit(producer) => json!({"do": "commit", "producer": producer}),
            Self::Abort(producer) => json!({"do": "abort", "producer": producer}),
            Self::Overstay(producer) => json!({"do": "overstay", "producer": producer}),
            Self::CommitOffset { group: of, partition, offset } => json!({
                "do": "commit-offset", "group": group(*of), "partition": partition, "offset": offset,
            }),
            Self::SendOffset { producer, group: of, partition, offset } => json!({
                "do": "send-offset", "producer": producer, "group": group(*of), "partition": partition,
                "offset": offset,
            }),
            Self::CommitLater { group: of, partition, offset } => json!({
                "do": "commit-later", "group": group(*of), "partition": partition, "offset": offset,
            }),
            Self::Committed(of) => json!({"do": "committed", "group": group(*of)}),
            Self::DeleteOffset { group: of, partition } => {
                json!({"do": "delete-offset", "group": group(*of), "partition": partition})
            }
            Self::DeleteGroup(of) => json!({"do": "delete-group", "group": group(*of)}),
            Self::Shed { partition, segments, plus } => json!({
                "do": "shed", "partitions": PARTITIONS, "partition": partition, "segments": segments, "plus": plus,
            }),
            Self::Delete { partition, to } => {
                let (of, plus) = to.to_json();
                json!({"do": "delete", "partition": partition, "of": of, "plus": plus})
            }
            Self::Compact { producer, record } => json!({
                "do": "compact", "partitions": PARTITIONS, "producer": producer, "record": record.to_json(),
            }),
            Self::Expire => json!({"do": "expire", "partitions": PARTITIONS}),
            Self::Offsets(partition) => json!({"do": "offsets", "partition": partition}),
            Self::FindTime { partition, committed, timestamp } => json!({
                "do": "find-time", "partition": partition, "committed": committed, "timestamp": timestamp,
            }),
            Self::FindNewest { partition, committed } => {
                json!({"do": "find-newest", "partition": partition, "committed": committed})
            }
            Self::FindDated { partition, committed, dated: Dated::Newest } => {
                json!({"do": "find-dated", "partition": partition, "committed": committed, "place": null})
            }
            Self::FindDated { partition, committed, dated: Dated::At { place, plus } } => json!({
                "do": "find-dated", "partition": partition, "committed": committed, "place": place, "plus": plus,
            }),
            Self::Consume { partition, committed, from } => {
                let (of, plus) = from.to_json();
                json!({"do": "consume", "partition": partition, "committed": committed, "of": of, "plus": plus})
            }
            Self::Walk(partition) => json!({"do": "walk", "partition": partition}),
            Self::FetchMissing => json!({"do": "fetch-missing"}),
            Self::Reopen | Self::Restart | Self::Age | Self::Outlast => json!({"do": "nothing"}),
        }
    }
}
