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

    /// Its kind and what it keeps, for instance `sum<i64>`. State is refused where this has changed: the bytes
    /// of another aggregate would be read as its own. What a closure does is not part of it.
    fn description(&self) -> String {
        let own = type_name::<Self>();
        let kind = own.split('<').next().unwrap_or_default();
        format!("{kind}<{}>", type_name::<Self::State>())
    }
}

/// The name of a type without the modules it is in, so that it stays when it is moved: `Option<i64>`.
pub fn type_name<T: ?Sized>() -> String {
    let mut name = String::new();
    let mut path_start = 0;
    for c in std::any::type_name::<T>().chars() {
        match c {
            ':' => name.truncate(path_start),
            _ => name.push(c),
        }
        if !(c.is_alphanumeric() || matches!(c, '_' | ':')) {
            path_start = name.len();
        }
    }
    name
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

            fn description(&self) -> String {
                format!("({})", [$(self.$index.description()),*].join(", "))
            }
        }
    };
}

tuples!(A 0, B 1);
tuples!(A 0, B 1, C 2);
tuples!(A 0, B 1, C 2, D 3);
tuples!(A 0, B 1, C 2, D 3, E 4);
tuples!(A 0, B 1, C 2, D 3, E 4, F 5);

#[cfg(test)]
mod tests {
    use super::*;

    struct Longest;

    impl Aggregate<String> for Longest {
        type State = Option<String>;
        type Output = Option<String>;

        fn init(&self) -> Self::State {
            None
        }

        fn add(&self, state: &mut Self::State, value: &String) {
            if state.as_ref().is_none_or(|longest| longest.len() < value.len()) {
                *state = Some(value.clone());
            }
        }

        fn result(&self, state: &Self::State) -> Self::Output {
            state.clone()
        }
    }

    #[test]
    fn an_aggregate_is_described_by_its_name_and_state_wherever_they_are_declared() {
        assert_eq!(Longest.description(), "Longest<Option<String>>");
        assert_eq!((Longest, Longest).description(), "(Longest<Option<String>>, Longest<Option<String>>)");
        assert_eq!(type_name::<(Vec<std::time::Duration>, [u8; 2])>(), "(Vec<Duration>, [u8; 2])");
    }
}
