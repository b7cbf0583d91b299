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

macro_rules! tuples {
    ($($name:ident $index:tt),*) => {
        /// Several aggregates of the same values, side by side.
        impl<V, $($name: Aggregate<V>),*> Aggregate<V> for ($($name,)*) {
            type State = ($($name::State,)*);
            type Output = ($($name::Output,)*);

            fn init(&self) -> Self::State {
                ($(self.$index.init(),)*)
            }

            fn add(&self, state: &mut Self::State, value: &V) {
                $(self.$index.add(&mut state.$index, value);)*
            }

            fn result(&self, state: &Self::State) -> Self::Output {
                ($(self.$index.result(&state.$index),)*)
            }

            fn depends_on_order(&self) -> bool {
                $(self.$index.depends_on_order())||*
            }
        }
    };
}

tuples!(A 0, B 1);
tuples!(A 0, B 1, C 2);
tuples!(A 0, B 1, C 2, D 3);
tuples!(A 0, B 1, C 2, D 3, E 4);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5);
