//! [`Stream`]: events without a key.

use std::marker::PhantomData;

use lotic_engine::operators;
use lotic_engine::sink::{SinkFactory, external_sink};

use crate::codecs::{Codec, Text};
use crate::keyed::KeyedStream;
use crate::plan::{Output, Step, StepKind};
use crate::row::{Data, Key, Value};
use crate::sink::{TopicSink, unkeyed_parts};

/// A stream of events, each a row of type `T` with an event time.
///
/// A stream is a handle on the flow: a step added to it leaves it as it is, so one stream can be read by
/// several steps.
#[derive(Clone)]
pub struct Stream<T> {
    output: Output,
    row: PhantomData<fn() -> T>,
}

impl<T: Data> Stream<T> {
    pub(crate) fn new(output: Output) -> Self {
        Self { output, row: PhantomData }
    }

    /// Each row, as `f` makes it.
    #[must_use]
    pub fn map<U: Data>(&self, f: impl Fn(T) -> U + Send + Sync + 'static) -> Stream<U> {
        Stream::new(self.output.then(Step::stateless("map", operators::map(f))))
    }

    /// The rows that `keep` says yes to.
    #[must_use]
    pub fn filter(&self, keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        Self::new(self.output.then(Step::stateless("filter", operators::filter(keep))))
    }

    /// All rows that `f` makes of each, in order, at the event time of the row they were made of.
    #[must_use]
    pub fn flat_map<U: Data, I: IntoIterator<Item = U>>(
        &self,
        f: impl Fn(T) -> I + Send + Sync + 'static,
    ) -> Stream<U> {
        Stream::new(self.output.then(Step::stateless("flat_map", operators::flat_map(f))))
    }

    /// The same rows, each shown to `look` as it passes. After a restart a row may be shown again.
    pub fn inspect(&self, look: impl Fn(&T) + Send + Sync + 'static) -> Self {
        Self::new(self.output.then(Step::stateless("inspect", operators::inspect(look))))
    }

    /// The rows with a key each: what can be windowed, aggregated and joined. The key is written as
    /// [`Text`].
    #[must_use]
    pub fn key_by<K: Key>(&self, key: impl Fn(&T) -> K + Send + Sync + 'static) -> KeyedStream<K, T> {
        self.key_by_with(Text, key)
    }

    /// [`key_by`](Self::key_by) with another codec for the key. Streams that are joined must write their
    /// keys alike.
    #[must_use]
    pub fn key_by_with<K: Data>(
        &self,
        codec: impl Codec<K>,
        key: impl Fn(&T) -> K + Send + Sync + 'static,
    ) -> KeyedStream<K, T> {
        let codec = std::sync::Arc::new(codec);
        let operator = operators::key_by(key, codec.clone());
        KeyedStream::unplaced(self.output.then(Step::stateless("key_by", operator)), codec)
    }

    /// Writes the rows to a topic, without keys and as JSON unless the sink is told otherwise. Records take
    /// the event times of the rows.
    pub fn to(&self, topic: impl Into<String>) -> TopicSink<(), T>
    where
        T: Value,
    {
        TopicSink::add(&self.output, topic.into(), None, unkeyed_parts::<T>)
    }

    /// Writes the rows to an external system, through its connector.
    pub fn sink(&self, name: &str, sink: impl SinkFactory<T>) {
        let description = format!("sink, {}", sink.guarantee());
        self.output.then(Step::named(name, description, StepKind::Operator(external_sink(sink))));
    }
}
