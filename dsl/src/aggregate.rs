//! Aggregates: what a window or a table keeps of the values of a key.
//!
//! Each takes a closure that says what to measure; a closure that returns an `Option` leaves out the values
//! for which it is `None`. A tuple of aggregates is an aggregate with a tuple of results.
//!
//! ```
//! use lotic::prelude::*;
//!
//! #[derive(Clone)]
//! struct Flight {
//!     delay: Option<i32>,
//! }
//! let delays = (count(), mean(|f: &Flight| f.delay), max(|f: &Flight| f.delay));
//!
//! let mut state = delays.init();
//! for delay in [Some(10), None, Some(-4)] {
//!     delays.add(&mut state, &Flight { delay });
//! }
//! assert_eq!(delays.result(&state), (3, Some(3.0), Some(10)));
//! ```

use std::marker::PhantomData;

pub use lotic_engine::aggregate::Aggregate;
use lotic_engine::aggregate::type_name;
use lotic_log::Timestamp;
use serde::{Deserialize, Serialize};

use crate::row::{Data, Value};

/// How many values there are.
pub fn count() -> Count {
    Count
}

/// The sum of what `measure` returns; 0 of nothing. Integers are added up in 128 bits, so that no order of them
/// overflows, and given as `i64` or `u64`: a sum beyond those is given as the largest or smallest of them.
/// Floats depend on the order in which they are added.
pub fn sum<V, M: Measure, F: Fn(&V) -> M>(measure: F) -> Sum<F> {
    Sum(measure)
}

/// The mean of what `measure` returns, computed from sum and count when it is asked for; `None` of nothing.
pub fn mean<V, M: Measure, F: Fn(&V) -> M>(measure: F) -> Mean<F> {
    Mean(measure)
}

/// The smallest of what `measure` returns; `None` of nothing. What has no order (NaN) is left out.
pub fn min<V, M: Measure, F: Fn(&V) -> M>(measure: F) -> Min<F> {
    Min(measure)
}

/// The largest of what `measure` returns; `None` of nothing. What has no order (NaN) is left out.
pub fn max<V, M: Measure, F: Fn(&V) -> M>(measure: F) -> Max<F> {
    Max(measure)
}

/// Your own: starts from `init`, and `step` takes in each value. The result is the state itself.
///
/// Unless it is said to be [`commutative`](Fold::commutative), its result counts as depending on the order
/// of values.
///
/// ```
/// use lotic::prelude::*;
///
/// let longest = fold(String::new(), |longest: &mut String, word: &String| {
///     if word.len() > longest.len() {
///         longest.clone_from(word);
///     }
/// });
/// let mut state = longest.init();
/// for word in ["to", "the", "sea"] {
///     longest.add(&mut state, &word.to_owned());
/// }
/// assert_eq!(longest.result(&state), "the");
/// ```
pub fn fold<V, S: Value, F: Fn(&mut S, &V)>(init: S, step: F) -> Fold<V, S, F> {
    Fold { init, step, commutative: false, row: PhantomData }
}

/// See [`count`].
#[derive(Clone, Copy, Debug)]
pub struct Count;

/// See [`sum`].
#[derive(Clone, Copy, Debug)]
pub struct Sum<F>(F);

/// See [`mean`].
#[derive(Clone, Copy, Debug)]
pub struct Mean<F>(F);

/// See [`min`].
#[derive(Clone, Copy, Debug)]
pub struct Min<F>(F);

/// See [`max`].
#[derive(Clone, Copy, Debug)]
pub struct Max<F>(F);

/// See [`fold`].
pub struct Fold<V, S, F> {
    init: S,
    step: F,
    commutative: bool,
    row: PhantomData<fn(&V)>,
}

impl<V, S, F> Fold<V, S, F> {
    /// Says that the order of values does not matter.
    #[must_use]
    pub fn commutative(self) -> Self {
        Self { commutative: true, ..self }
    }
}

impl<V: Data> Aggregate<V> for Count {
    type State = u64;
    type Output = u64;

    fn init(&self) -> u64 {
        0
    }

    fn add(&self, state: &mut u64, _: &V) {
        *state += 1;
    }

    fn result(&self, state: &u64) -> u64 {
        *state
    }

    fn description(&self) -> String {
        "count".to_owned()
    }
}

impl<V, M, F> Aggregate<V> for Sum<F>
where
    V: Data,
    M: Measure<Value: Number>,
    F: Fn(&V) -> M + Send + Sync + 'static,
{
    type State = <M::Value as Number>::Total;
    type Output = <M::Value as Number>::Sum;

    fn init(&self) -> Self::State {
        Self::State::default()
    }

    fn add(&self, state: &mut Self::State, value: &V) {
        if let Some(number) = (self.0)(value).measured() {
            number.add_to(state);
        }
    }

    fn result(&self, state: &Self::State) -> Self::Output {
        M::Value::sum(state)
    }

    fn depends_on_order(&self) -> bool {
        M::Value::DEPENDS_ON_ORDER
    }

    fn description(&self) -> String {
        format!("sum<{}>", type_name::<Self::Output>())
    }
}

/// What a [`Mean`] keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MeanState<T> {
    total: T,
    count: u64,
}

impl<V, M, F> Aggregate<V> for Mean<F>
where
    V: Data,
    M: Measure<Value: Number>,
    F: Fn(&V) -> M + Send + Sync + 'static,
{
    type State = MeanState<<M::Value as Number>::Total>;
    type Output = Option<f64>;

    fn init(&self) -> Self::State {
        Self::State::default()
    }

    fn add(&self, state: &mut Self::State, value: &V) {
        if let Some(number) = (self.0)(value).measured() {
            number.add_to(&mut state.total);
            state.count += 1;
        }
    }

    fn result(&self, state: &Self::State) -> Option<f64> {
        (state.count > 0).then(|| M::Value::total_as_f64(&state.total) / state.count as f64)
    }

    fn depends_on_order(&self) -> bool {
        M::Value::DEPENDS_ON_ORDER
    }

    fn description(&self) -> String {
        format!("mean<{}>", type_name::<<M::Value as Number>::Sum>())
    }
}

macro_rules! extreme {
    ($name:ident, $kind:literal, $better:tt) => {
        impl<V, M, F> Aggregate<V> for $name<F>
        where
            V: Data,
            M: Measure<Value: PartialOrd + Value>,
            F: Fn(&V) -> M + Send + Sync + 'static,
        {
            type State = Option<M::Value>;
            type Output = Option<M::Value>;

            fn init(&self) -> Self::State {
                None
            }

            fn add(&self, state: &mut Self::State, value: &V) {
                let Some(measured) = (self.0)(value).measured() else { return };
                let has_order = measured.partial_cmp(&measured).is_some();
                if has_order && state.as_ref().is_none_or(|best| measured $better *best) {
                    *state = Some(measured);
                }
            }

            fn result(&self, state: &Self::State) -> Self::Output {
                state.clone()
            }

            fn description(&self) -> String {
                format!(concat!($kind, "<{}>"), type_name::<M::Value>())
            }
        }
    };
}

extreme!(Min, "min", <);
extreme!(Max, "max", >);

impl<V, S, F> Aggregate<V> for Fold<V, S, F>
where
    V: Data,
    S: Value,
    F: Fn(&mut S, &V) + Send + Sync + 'static,
{
    type State = S;
    type Output = S;

    fn init(&self) -> S {
        self.init.clone()
    }

    fn add(&self, state: &mut S, value: &V) {
        (self.step)(state, value);
    }

    fn result(&self, state: &S) -> S {
        state.clone()
    }

    fn depends_on_order(&self) -> bool {
        !self.commutative
    }

    fn description(&self) -> String {
        format!("fold<{}>", type_name::<S>())
    }
}

/// What a measuring closure may return: a value, or an `Option` of one where it may be absent.
pub trait Measure {
    /// What is measured.
    type Value;

    /// The value, if there is one.
    fn measured(self) -> Option<Self::Value>;
}

impl<T> Measure for Option<T> {
    type Value = T;

    #[inline]
    fn measured(self) -> Option<T> {
        self
    }
}

macro_rules! measures {
    ($($type:ty),* $(,)?) => {
        $(impl Measure for $type {
            type Value = Self;

            #[inline]
            fn measured(self) -> Option<Self> {
                Some(self)
            }
        })*
    };
}

measures!(i8, i16, i32, i64, u8, u16, u32, u64, f32, f64, String, bool, Timestamp, jiff::Timestamp);

/// A number that can be added up.
pub trait Number {
    /// What it is added up in.
    type Total: Value + Default;

    /// What sums of it are given as.
    type Sum: Value;

    /// Whether a sum depends on the order in which its numbers are added.
    const DEPENDS_ON_ORDER: bool;

    /// Adds the number to a sum.
    fn add_to(self, total: &mut Self::Total);

    /// What was added up.
    fn sum(total: &Self::Total) -> Self::Sum;

    /// The same as a float.
    fn total_as_f64(total: &Self::Total) -> f64;
}

macro_rules! integers {
    ($($type:ty => $total:ty => $sum:ty),* $(,)?) => {
        $(impl Number for $type {
            // 2^64 of the largest numbers do not overflow it.
            type Total = $total;
            type Sum = $sum;

            const DEPENDS_ON_ORDER: bool = false;

            #[inline]
            fn add_to(self, total: &mut $total) {
                *total = total.saturating_add(self.into());
            }

            fn sum(total: &$total) -> $sum {
                <$sum>::try_from(*total).unwrap_or(if *total < 0 { <$sum>::MIN } else { <$sum>::MAX })
            }

            fn total_as_f64(total: &$total) -> f64 {
                *total as f64
            }
        })*
    };
}

integers!(i8 => i128 => i64, i16 => i128 => i64, i32 => i128 => i64, i64 => i128 => i64);
integers!(u8 => i128 => u64, u16 => i128 => u64, u32 => i128 => u64, u64 => i128 => u64);

macro_rules! floats {
    ($($type:ty),* $(,)?) => {
        $(impl Number for $type {
            type Total = f64;
            type Sum = f64;

            const DEPENDS_ON_ORDER: bool = true;

            #[inline]
            fn add_to(self, total: &mut f64) {
                *total += f64::from(self);
            }

            fn sum(total: &f64) -> f64 {
                *total
            }

            fn total_as_f64(total: &f64) -> f64 {
                *total
            }
        })*
    };
}

floats!(f32, f64);

#[cfg(test)]
mod tests {
    use super::*;

    fn check<V: Data, A: Aggregate<V>>(aggregate: A, values: &[V], expected: A::Output)
    where
        A::Output: PartialEq + std::fmt::Debug,
    {
        let mut state = aggregate.init();
        for value in values {
            aggregate.add(&mut state, value);
        }
        assert_eq!(aggregate.result(&state), expected);
    }

    #[test]
    fn absent_values_are_left_out() {
        let values = [Some(3_i32), None, Some(-5)];
        check(sum(|v: &Option<i32>| *v), &values, -2);
        check(mean(|v: &Option<i32>| *v), &values, Some(-1.0));
        check(min(|v: &Option<i32>| *v), &values, Some(-5));
        check(max(|v: &Option<i32>| *v), &values, Some(3));
        check(count(), &values, 3);
    }

    #[test]
    fn nothing_has_no_mean_and_no_extremes() {
        check(sum(|v: &i32| *v), &[], 0);
        check(mean(|v: &i32| *v), &[], None);
        check(min(|v: &i32| *v), &[], None);
        check(max(|v: &String| v.clone()), &[], None);
    }

    #[test]
    fn a_sum_that_is_too_large_is_given_as_the_largest_number() {
        check(sum(|v: &i64| *v), &[i64::MAX, 5], i64::MAX);
        check(sum(|v: &i64| *v), &[i64::MIN, -5], i64::MIN);
        check(sum(|v: &u64| *v), &[u64::MAX, 5], u64::MAX);
    }

    #[test]
    fn a_sum_is_the_same_in_any_order_wherever_it_passes_on_the_way() {
        check(sum(|v: &i64| *v), &[i64::MAX, 5, -7], i64::MAX - 2);
        check(sum(|v: &i64| *v), &[-7, 5, i64::MAX], i64::MAX - 2);
        check(mean(|v: &i64| *v), &[i64::MAX, i64::MAX, -i64::MAX, -i64::MAX], Some(0.0));
    }

    #[test]
    fn extremes_leave_out_what_has_no_order() {
        for values in [[f64::NAN, 1.0, 2.0], [1.0, f64::NAN, 2.0], [2.0, 1.0, f64::NAN]] {
            check(min(|v: &f64| *v), &values, Some(1.0));
            check(max(|v: &f64| *v), &values, Some(2.0));
        }
        check(max(|v: &f64| *v), &[f64::NAN], None);
    }

    #[test]
    fn a_description_tells_apart_what_keeps_other_bytes() {
        fn described<A: Aggregate<i32>>(aggregate: A) -> String {
            aggregate.description()
        }
        assert_eq!(described(count()), "count");
        assert_eq!(described(sum(|v: &i32| *v)), "sum<i64>");
        assert_eq!(described(sum(|v: &i32| v.unsigned_abs())), "sum<u64>");
        assert_eq!(described(mean(|v: &i32| f64::from(*v))), "mean<f64>");
        assert_eq!(described((min(|v: &i32| *v), max(|v: &i32| Some(*v)))), "(min<i32>, max<i32>)");
        assert_eq!(
            described(fold(Vec::<String>::new(), |_: &mut Vec<String>, _: &i32| ())),
            "fold<Vec<String>>"
        );
    }

    #[test]
    fn a_tuple_gives_a_tuple() {
        let aggregate = (count(), sum(|v: &u8| *v), max(|v: &u8| *v));
        check(aggregate, &[200_u8, 100], (2, 300, Some(200)));
    }

    #[test]
    fn only_floats_and_folds_depend_on_order() {
        let depends = |aggregate: &dyn Fn() -> bool| aggregate();
        assert!(!depends(&|| Aggregate::<f64>::depends_on_order(&(count(), max(|v: &f64| *v)))));
        assert!(depends(&|| Aggregate::<f64>::depends_on_order(&(count(), sum(|v: &f64| *v)))));
        let fold = || fold(0, |state: &mut i32, value: &i32| *state += value);
        assert!(fold().depends_on_order());
        assert!(!fold().commutative().depends_on_order());
    }
}
