//! What a window or a table makes of the values of a key.

use crate::frame::Data;

/// Folds the values of one key into a state, and the state into a result.
pub trait Aggregate<V>: Send + Sync + 'static {
    /// What is kept between values.
    type State: Data;
    /// What is emitted.
    type Output: Data;

    /// The state before the first value.
    fn init(&self) -> Self::State;

    /// Takes a value in.
    fn add(&self, state: &mut Self::State, value: &V);

    /// The result so far.
    fn result(&self, state: &Self::State) -> Self::Output;

    /// Whether the result may depend on the order of the values.
    fn depends_on_order(&self) -> bool {
        false
    }
}
