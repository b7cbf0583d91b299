//! [`Table`] and [`ReferenceTable`]: what is known of each key.

use std::marker::PhantomData;
use std::sync::Arc;

use lotic_engine::graph::Exchange;
use lotic_engine::operators;

use crate::codecs::Codec;
use crate::keyed::{KeyedStream, Placement};
use crate::plan::{Output, Step};
use crate::row::{Data, Value};
use crate::sink::{TopicSink, table_parts};

/// A value for each key, which changes over time.
///
/// A table is read from a topic ([`Flow::table`](crate::Flow::table)) or made by
/// [`KeyedStream::aggregate`]. Streams are joined with it as of their event time, or with what is newest.
pub struct Table<K, V> {
    changes: KeyedStream<K, Option<V>>,
    origin: TableOrigin,
    row: PhantomData<fn() -> V>,
}

/// What a table is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TableOrigin {
    /// This topic: each change has its own event time.
    Topic(String),
    /// An aggregate: what it was at some time depends on the order in which events arrived.
    Aggregate,
}

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Self { changes: self.changes.clone(), origin: self.origin.clone(), row: PhantomData }
    }
}

impl<K: Data, V: Data> Table<K, V> {
    pub(crate) fn of_topic(topic: String, output: Output, codec: Arc<dyn Codec<K>>) -> Self {
        let changes = KeyedStream::unplaced(output, codec);
        Self { changes, origin: TableOrigin::Topic(topic), row: PhantomData }
    }

    pub(crate) fn of_aggregate(output: Output, codec: Arc<dyn Codec<K>>) -> Self {
        let changes = KeyedStream::new(output, codec, Placement::AtKey);
        Self { changes, origin: TableOrigin::Aggregate, row: PhantomData }
    }

    pub(crate) fn by_key(&self) -> (Output, Exchange) {
        self.changes.by_key()
    }

    pub(crate) fn codec(&self) -> &Arc<dyn Codec<K>> {
        self.changes.codec()
    }

    pub(crate) fn origin(&self) -> &TableOrigin {
        &self.origin
    }

    /// The table with each value as `f` makes it.
    #[must_use]
    pub fn map<U: Data>(&self, f: impl Fn(&K, V) -> U + Send + Sync + 'static) -> Table<K, U> {
        let changes = self.changes.map(move |key, value| value.map(|value| f(key, value)));
        Table { changes, origin: self.origin.clone(), row: PhantomData }
    }

    /// The changes of the table in the order in which it takes them; `None` is a deletion.
    #[must_use]
    pub fn changes(&self) -> KeyedStream<K, Option<V>> {
        self.changes.clone()
    }

    /// Writes the changes to a compacted topic: the last record of a key is its value, one without a value
    /// deletes it. Of changes of one key that arrive together only the last is written, since the topic keeps no
    /// other; [`changes`](Self::changes) has all of them.
    pub fn to(&self, topic: impl Into<String>) -> TopicSink<K, V>
    where
        V: Value,
    {
        let codec = Some(Arc::clone(self.codec()));
        let last = Step::stateless("last_of_key", operators::last_of_key::<(K, Option<V>)>());
        TopicSink::add(&self.changes.output().then(last), topic.into(), codec, table_parts::<K, V>)
            .compacted()
    }
}

/// A table that holds from the beginning of time: see [`Flow::reference_table`](crate::Flow::reference_table).
pub struct ReferenceTable<K, V> {
    output: Output,
    codec: Arc<dyn Codec<K>>,
    row: PhantomData<fn() -> V>,
}

impl<K, V> Clone for ReferenceTable<K, V> {
    fn clone(&self) -> Self {
        Self { output: self.output.clone(), codec: Arc::clone(&self.codec), row: PhantomData }
    }
}

impl<K: Data, V: Data> ReferenceTable<K, V> {
    pub(crate) fn new(output: Output, codec: Arc<dyn Codec<K>>) -> Self {
        Self { output, codec, row: PhantomData }
    }

    pub(crate) fn output(&self) -> &Output {
        &self.output
    }

    pub(crate) fn codec(&self) -> &Arc<dyn Codec<K>> {
        &self.codec
    }

    /// The table with each value as `f` makes it.
    #[must_use]
    pub fn map<U: Data>(&self, f: impl Fn(&K, V) -> U + Send + Sync + 'static) -> ReferenceTable<K, U> {
        let operator = operators::map(move |(key, value): (K, Option<V>)| {
            let value = value.map(|value| f(&key, value));
            (key, value)
        });
        ReferenceTable::new(self.output.then(Step::stateless("map", operator)), Arc::clone(&self.codec))
    }
}
