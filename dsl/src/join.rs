//! Joins of a keyed stream with a table.
//!
//! | join | the table as it is | the answer |
//! |---|---|---|
//! | [`join`](KeyedStream::join) | from the beginning of time (reference data) | depends on the log alone |
//! | [`join_as_of`](KeyedStream::join_as_of) | at the event's time | depends on the log alone |
//! | [`join_newest`](KeyedStream::join_newest) | when the event is processed | depends on arrival |
//!
//! Each drops events whose key the table lacks; its `left_` form keeps them.

use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use lotic_engine::graph::{Exchange, StoreSpec};
use lotic_engine::operators::{self, AsOfStores};

use crate::codecs::{Codec, Postcard};
use crate::keyed::{KeyedStream, Placement};
use crate::plan::{Output, Step, StepKind, add};
use crate::row::{Data, Value};
use crate::table::{ReferenceTable, Table, TableOrigin};
use crate::time::{in_words, milliseconds};

impl<K: Data, V: Data> KeyedStream<K, V> {
    /// Each event with what the reference table says of its key; events of keys that it lacks are dropped.
    /// `name` is the step's, and its store's.
    #[must_use]
    pub fn join<T: Value, O: Data>(
        &self,
        name: &str,
        table: &ReferenceTable<K, T>,
        f: impl Fn(&K, V, &T) -> O + Send + Sync + 'static,
    ) -> KeyedStream<K, O> {
        self.join_reference(name, table, inner(f))
    }

    /// [`join`](Self::join) that keeps events of keys that the table lacks.
    #[must_use]
    pub fn left_join<T: Value, O: Data>(
        &self,
        name: &str,
        table: &ReferenceTable<K, T>,
        f: impl Fn(&K, V, Option<&T>) -> O + Send + Sync + 'static,
    ) -> KeyedStream<K, O> {
        self.join_reference(name, table, left(f))
    }

    /// Each event with what the table says of its key when the event is processed: the answer depends on
    /// which of the two arrives first. Events of keys that it lacks then are dropped. `name` is the step's,
    /// and its store's.
    #[must_use]
    pub fn join_newest<T: Value, O: Data>(
        &self,
        name: &str,
        table: &Table<K, T>,
        f: impl Fn(&K, V, &T) -> O + Send + Sync + 'static,
    ) -> KeyedStream<K, O> {
        let (input, exchange) = table.by_key();
        let step = newest_step(name, "join with the newest value", inner::<K, V, T, O>(f));
        self.join_with(step, (&input, exchange), table.codec())
    }

    /// [`join_newest`](Self::join_newest) that keeps events of keys that the table lacks.
    #[must_use]
    pub fn left_join_newest<T: Value, O: Data>(
        &self,
        name: &str,
        table: &Table<K, T>,
        f: impl Fn(&K, V, Option<&T>) -> O + Send + Sync + 'static,
    ) -> KeyedStream<K, O> {
        let (input, exchange) = table.by_key();
        let step = newest_step(name, "left join with the newest value", left::<K, V, T, O>(f));
        self.join_with(step, (&input, exchange), table.codec())
    }

    /// Each event with what the table said of its key at the event's time: the newest value not later than
    /// it. An event waits until no earlier value is expected any more. Events of keys that the table lacked
    /// then are dropped.
    ///
    /// An event is late when its own partition's watermark has passed its time plus grace; so is a change
    /// of the table. Late events and changes have outputs of their own.
    #[must_use]
    pub fn join_as_of<T: Value, O: Data>(
        &self,
        join: impl Into<AsOf>,
        table: &Table<K, T>,
        f: impl Fn(&K, V, &T) -> O + Send + Sync + 'static,
    ) -> AsOfResults<K, V, T, O>
    where
        V: Value,
    {
        self.join_at_time("join", join.into(), table, inner(f))
    }

    /// [`join_as_of`](Self::join_as_of) that keeps events of keys that the table lacked at their time.
    #[must_use]
    pub fn left_join_as_of<T: Value, O: Data>(
        &self,
        join: impl Into<AsOf>,
        table: &Table<K, T>,
        f: impl Fn(&K, V, Option<&T>) -> O + Send + Sync + 'static,
    ) -> AsOfResults<K, V, T, O>
    where
        V: Value,
    {
        self.join_at_time("left join", join.into(), table, left(f))
    }

    fn join_reference<T: Value, O: Data>(
        &self,
        name: &str,
        table: &ReferenceTable<K, T>,
        f: impl Fn(&K, V, Option<&T>) -> Option<O> + Send + Sync + 'static,
    ) -> KeyedStream<K, O> {
        let mut step = newest_step(name, "join with reference data", f);
        step.depends_on_arrival = false;
        self.join_with(step, (table.output(), Exchange::Hash), table.codec())
    }

    fn join_at_time<T: Value, O: Data>(
        &self,
        what: &str,
        join: AsOf,
        table: &Table<K, T>,
        f: impl Fn(&K, V, Option<&T>) -> Option<O> + Send + Sync + 'static,
    ) -> AsOfResults<K, V, T, O>
    where
        V: Value,
    {
        let AsOf { name, grace_ms } = join;
        let (versions, waiting) = (format!("{name}-versions"), format!("{name}-waiting"));
        let (stream_codec, table_codec): (Arc<dyn Codec<V>>, Arc<dyn Codec<T>>) =
            (Arc::new(Postcard), Arc::new(Postcard));
        let stores = vec![
            StoreSpec { name: versions.clone(), value_codec: table_codec.id() },
            StoreSpec { name: waiting.clone(), value_codec: stream_codec.id() },
        ];
        let table_topic = match table.origin() {
            TableOrigin::Topic(topic) => Some(topic.clone()),
            TableOrigin::Aggregate => None,
        };
        let depends_on_arrival = table_topic.is_none();
        let spec = AsOfStores { versions, waiting, grace_ms, table_topic, stream_codec, table_codec };
        let operator = operators::join_as_of(spec, Arc::clone(self.codec()), f);
        let description = format!("{what} as of event time, grace {}", in_words(grace_ms));
        let mut step = Step::named(&name, description, StepKind::Operator(operator));
        step.stores = stores;
        step.depends_on_arrival = depends_on_arrival;
        let (input, exchange) = table.by_key();
        let results = self.join_with(step, (&input, exchange), table.codec());
        AsOfResults { results, row: PhantomData }
    }

    /// Adds a join step that reads this stream on input 0 and a table on input 1.
    fn join_with<O: Data>(
        &self,
        mut step: Step,
        table: (&Output, Exchange),
        table_keys: &Arc<dyn Codec<K>>,
    ) -> KeyedStream<K, O> {
        let (ours, theirs) = (self.codec().id(), table_keys.id());
        if ours != theirs {
            step.faults.push(format!(
                "the stream writes its keys as {ours}, the table as {theirs}: equal keys would not meet; \
                 give both the same codec (`key_by_with`, `keys`)"
            ));
        }
        let (input, exchange) = self.by_key();
        let output = add(&self.output().plan, step, &[(&input, exchange), table]);
        KeyedStream::new(output, Arc::clone(self.codec()), Placement::AtKey)
    }
}

/// A join's step with one store of newest values.
fn newest_step<K: Data, V: Data, T: Value, O: Data>(
    name: &str,
    description: &str,
    f: impl Fn(&K, V, Option<&T>) -> Option<O> + Send + Sync + 'static,
) -> Step {
    let codec: Arc<dyn Codec<T>> = Arc::new(Postcard);
    let store = StoreSpec { name: name.to_owned(), value_codec: codec.id() };
    let operator = operators::join_newest(name, codec, f);
    let mut step = Step::named(name, description.to_owned(), StepKind::Operator(operator));
    step.stores.push(store);
    step.depends_on_arrival = true;
    step
}

fn inner<K, V, T, O>(f: impl Fn(&K, V, &T) -> O) -> impl Fn(&K, V, Option<&T>) -> Option<O> {
    move |key, value, found| found.map(|found| f(key, value, found))
}

fn left<K, V, T, O>(f: impl Fn(&K, V, Option<&T>) -> O) -> impl Fn(&K, V, Option<&T>) -> Option<O> {
    move |key, value, found| Some(f(key, value, found))
}

/// How a join as of event time is named, and how long it waits for what is behind the watermark.
///
/// A name alone will do: `orders.join_as_of("prices", &prices, ..)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsOf {
    name: String,
    grace_ms: i64,
}

impl AsOf {
    /// A join of this name, without grace.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), grace_ms: 0 }
    }

    /// Takes events and changes that are behind their watermark by up to `grace`, and keeps the table's
    /// versions for so much longer.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Self {
        Self { grace_ms: milliseconds(grace), ..self }
    }
}

impl From<&str> for AsOf {
    fn from(name: &str) -> Self {
        Self::named(name)
    }
}

/// The results of a join as of event time: a keyed stream, and what was late.
pub struct AsOfResults<K, V, T, O> {
    results: KeyedStream<K, O>,
    row: PhantomData<fn() -> (V, T)>,
}

impl<K: Data, V: Data, T: Data, O: Data> AsOfResults<K, V, T, O> {
    /// The events that came too late.
    #[must_use]
    pub fn late(&self) -> KeyedStream<K, V> {
        self.port(1)
    }

    /// The changes of the table that came too late.
    #[must_use]
    pub fn late_changes(&self) -> KeyedStream<K, Option<T>> {
        self.port(2)
    }

    fn port<R: Data>(&self, port: usize) -> KeyedStream<K, R> {
        let codec = Arc::clone(self.results.codec());
        KeyedStream::new(self.results.output().port(port), codec, Placement::AtKey)
    }
}

impl<K, V, T, O> Deref for AsOfResults<K, V, T, O> {
    type Target = KeyedStream<K, O>;

    fn deref(&self) -> &Self::Target {
        &self.results
    }
}
