//! [`KeyedStream`]: events with a key.

use std::sync::Arc;

use lotic_engine::graph::{Exchange, StoreSpec};
use lotic_engine::operators;

use crate::aggregate::Aggregate;
use crate::codecs::{Codec, Postcard, Text};
use crate::plan::{Output, Step, StepKind};
use crate::row::{Data, Key, Value};
use crate::sink::{TopicSink, keyed_parts};
use crate::stream::Stream;
use crate::table::Table;
use crate::window::Tumbling;
use crate::windowed::WindowedStream;

/// A stream of events with a key of type `K` and a value of type `V`.
///
/// Events of one key meet on one worker wherever a step keeps state of that key. As with a
/// [`Stream`], any number of steps can read it.
pub struct KeyedStream<K, V> {
    output: Output,
    codec: Arc<dyn Codec<K>>,
    placement: Placement,
    row: std::marker::PhantomData<fn() -> (K, V)>,
}

/// Where the events of a key are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// Anywhere: steps with state have them sent to the key's worker.
    Anywhere,
    /// On the key's worker.
    AtKey,
    /// On the worker of another key, which they still carry: they need their own first.
    AtAnother,
}

impl<K, V> Clone for KeyedStream<K, V> {
    fn clone(&self) -> Self {
        let Self { output, codec, placement, row } = self;
        Self { output: output.clone(), codec: Arc::clone(codec), placement: *placement, row: *row }
    }
}

impl<K: Data, V: Data> KeyedStream<K, V> {
    pub(crate) fn new(output: Output, codec: Arc<dyn Codec<K>>, placement: Placement) -> Self {
        Self { output, codec, placement, row: std::marker::PhantomData }
    }

    pub(crate) fn unplaced(output: Output, codec: Arc<dyn Codec<K>>) -> Self {
        Self::new(output, codec, Placement::Anywhere)
    }

    pub(crate) fn codec(&self) -> &Arc<dyn Codec<K>> {
        &self.codec
    }

    pub(crate) fn output(&self) -> &Output {
        &self.output
    }

    /// The output that a step with state reads, and how events get from it to their key's worker.
    pub(crate) fn by_key(&self) -> (Output, Exchange) {
        match self.placement {
            Placement::Anywhere => (self.output.clone(), Exchange::Hash),
            Placement::AtKey => (self.output.clone(), Exchange::Forward),
            Placement::AtAnother => {
                let rekey = operators::key_by(|(key, _): &(K, V)| key.clone(), Arc::clone(&self.codec));
                let unnest = operators::map(|(key, (_, value)): (K, (K, V))| (key, value));
                let rekeyed = self.output.then(Step::stateless("key_by", rekey));
                (rekeyed.then(Step::stateless("map", unnest)), Exchange::Hash)
            }
        }
    }

    /// The same keys with other values, in the same place.
    fn with_values<U: Data>(&self, step: Step) -> KeyedStream<K, U> {
        KeyedStream::new(self.output.then(step), Arc::clone(&self.codec), self.placement)
    }

    /// Each value, as `f` makes it; keys stay.
    #[must_use]
    pub fn map<U: Data>(&self, f: impl Fn(&K, V) -> U + Send + Sync + 'static) -> KeyedStream<K, U> {
        let operator = operators::map(move |(key, value): (K, V)| {
            let value = f(&key, value);
            (key, value)
        });
        self.with_values(Step::stateless("map", operator))
    }

    /// The events that `keep` says yes to.
    #[must_use]
    pub fn filter(&self, keep: impl Fn(&K, &V) -> bool + Send + Sync + 'static) -> Self {
        let operator = operators::filter(move |(key, value): &(K, V)| keep(key, value));
        self.with_values(Step::stateless("filter", operator))
    }

    /// All values that `f` makes of each, in order; keys and event times stay.
    #[must_use]
    pub fn flat_map<U: Data, I: IntoIterator<Item = U>>(
        &self,
        f: impl Fn(&K, V) -> I + Send + Sync + 'static,
    ) -> KeyedStream<K, U> {
        let operator = operators::flat_map(move |(key, value): (K, V)| {
            let values = f(&key, value);
            values.into_iter().map(move |value| (key.clone(), value))
        });
        self.with_values(Step::stateless("flat_map", operator))
    }

    /// The same events, each shown to `look` as it passes. After a restart an event may be shown again.
    pub fn inspect(&self, look: impl Fn(&K, &V) + Send + Sync + 'static) -> Self {
        let operator = operators::inspect(move |(key, value): &(K, V)| look(key, value));
        self.with_values(Step::stateless("inspect", operator))
    }

    /// The values without their keys.
    #[must_use]
    pub fn values(&self) -> Stream<V> {
        let operator = operators::map(|(_, value): (K, V)| value);
        Stream::new(self.output.then(Step::stateless("values", operator)))
    }

    /// Keys and values as rows of a stream without a key.
    #[must_use]
    pub fn entries(&self) -> Stream<(K, V)> {
        Stream::new(self.output.clone())
    }

    /// The values under another key, made of key and value and written as [`Text`].
    #[must_use]
    pub fn key_by<L: Key>(&self, key: impl Fn(&K, &V) -> L + Send + Sync + 'static) -> KeyedStream<L, V> {
        self.key_by_with(Text, key)
    }

    /// [`key_by`](Self::key_by) with another codec for the key.
    #[must_use]
    pub fn key_by_with<L: Data>(
        &self,
        codec: impl Codec<L>,
        key: impl Fn(&K, &V) -> L + Send + Sync + 'static,
    ) -> KeyedStream<L, V> {
        let keyed = self.entries().key_by_with(codec, move |(old, value)| key(old, value));
        keyed.map(|_, (_, value)| value)
    }

    /// The events in windows of event time, to be aggregated.
    pub fn window(&self, window: Tumbling) -> WindowedStream<K, V> {
        WindowedStream::new(self.clone(), window)
    }

    /// A table of the aggregate of all values of each key so far; it changes with each event, and nothing
    /// is late for it. `name` is the step's, and its store's.
    #[must_use]
    pub fn aggregate<A: Aggregate<V>>(&self, name: &str, aggregate: A) -> Table<K, A::Output>
    where
        A::State: Value,
    {
        let (input, exchange) = self.by_key();
        let depends_on_arrival = aggregate.depends_on_order() || self.output.says_again();
        let codec: Arc<dyn Codec<A::State>> = Arc::new(Postcard);
        let store = StoreSpec { name: name.to_owned(), value_codec: codec.id() };
        let description = format!("aggregate each key, for ever: {}", aggregate.description());
        let operator = operators::table_aggregate::<K, V, A>(name, Arc::new(aggregate), codec);
        let mut step = Step::named(name, description, StepKind::Operator(operator));
        step.stores.push(store);
        step.depends_on_arrival = depends_on_arrival;
        let output = crate::plan::add(&self.output.plan, step, &[(&input, exchange)]);
        Table::of_aggregate(output, Arc::clone(&self.codec))
    }

    /// Writes the events to a topic: keys as this stream writes them, values as JSON, unless the sink is
    /// told otherwise. Records take the event times of the events.
    pub fn to(&self, topic: impl Into<String>) -> TopicSink<K, V>
    where
        V: Value,
    {
        TopicSink::add(&self.output, topic.into(), Some(Arc::clone(&self.codec)), keyed_parts::<K, V>)
    }

    /// Writes keys and values to an external system, through its connector.
    pub fn sink(&self, name: &str, sink: impl lotic_engine::sink::SinkFactory<(K, V)>) {
        self.entries().sink(name, sink);
    }
}
