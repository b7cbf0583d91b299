//! Aggregates of windows, and what comes out of them.

use std::ops::Deref;
use std::sync::Arc;

use lotic_engine::graph::StoreSpec;
use lotic_engine::operators;
use lotic_engine::window::Windowed;

use crate::aggregate::Aggregate;
use crate::codecs::{Codec, Postcard, WindowedKey};
use crate::keyed::{KeyedStream, Placement};
use crate::plan::{Output, Step, StepKind, add};
use crate::row::{Data, Value};
use crate::window::{Tumbling, Window};

/// A keyed stream in windows, to be aggregated.
#[must_use = "windows do nothing until they are aggregated"]
pub struct WindowedStream<K, V> {
    stream: KeyedStream<K, V>,
    window: Tumbling,
}

impl<K: Data, V: Data> WindowedStream<K, V> {
    pub(crate) fn new(stream: KeyedStream<K, V>, window: Tumbling) -> Self {
        Self { stream, window }
    }

    /// The aggregate of each window of each key. `name` is the step's, and its store's.
    pub fn aggregate<A: Aggregate<V>>(&self, name: &str, aggregate: A) -> WindowResults<K, V, A::Output>
    where
        A::State: Value,
    {
        let Self { stream, window } = self;
        let (input, exchange) = stream.by_key();
        let state: Arc<dyn Codec<A::State>> = Arc::new(Postcard);
        let store = StoreSpec { name: name.to_owned(), value_codec: state.id() };
        let depends_on_arrival = aggregate.depends_on_order() || input.says_again();
        let description = format!("window {window}: {}", aggregate.description());
        let operator = operators::window_aggregate::<K, V, A>(
            name,
            window.spec(),
            Arc::new(aggregate),
            state,
            Arc::clone(stream.codec()),
        );
        let mut step = Step::named(name, description, StepKind::Operator(operator));
        step.stores.push(store);
        (step.depends_on_arrival, step.says_again) = (depends_on_arrival, true);
        let output = add(&stream.output().plan, step, &[(&input, exchange)]);
        WindowResults::new(output, Arc::clone(stream.codec()), *window)
    }
}

/// The results of windows: a stream keyed by window and key, which is what they are written under.
///
/// A window gives one result when it closes. It gives one before if the flow's input ends while the window
/// is open, and another if the flow is later run on more input that belongs to it; the last one counts. An
/// aggregate of such results counts both: `explain()` says of it that it depends on arrival.
pub struct WindowResults<K, V, O> {
    results: KeyedStream<Windowed<K>, O>,
    key: Arc<dyn Codec<K>>,
    row: std::marker::PhantomData<fn() -> V>,
}

impl<K: Data, V: Data, O: Data> WindowResults<K, V, O> {
    fn new(output: Output, key: Arc<dyn Codec<K>>, window: Tumbling) -> Self {
        let codec = Arc::new(WindowedKey::new(Arc::clone(&key), window.spec().size_ms));
        let results = KeyedStream::new(output, codec, Placement::AtAnother);
        Self { results, key, row: std::marker::PhantomData }
    }

    /// The events that came when their window had closed.
    #[must_use]
    pub fn late(&self) -> KeyedStream<K, V> {
        KeyedStream::new(self.results.output().port(1), Arc::clone(&self.key), Placement::AtKey)
    }

    /// The same results, keyed by the key alone: what is joined with tables of that key.
    #[must_use]
    pub fn by_key(&self) -> KeyedStream<K, (Window, O)> {
        let operator = operators::map(|(windowed, result): (Windowed<K>, O)| {
            let Windowed { key, start, end } = windowed;
            (key, (Window { start, end }, result))
        });
        let output = self.results.output().then(Step::stateless("by_key", operator));
        KeyedStream::new(output, Arc::clone(&self.key), Placement::AtKey)
    }
}

impl<K, V, O> Deref for WindowResults<K, V, O> {
    type Target = KeyedStream<Windowed<K>, O>;

    fn deref(&self) -> &Self::Target {
        &self.results
    }
}
