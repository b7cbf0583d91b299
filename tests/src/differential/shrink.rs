//! Taking operations out of a script that fails, for as long as it still does. Many scripts are done at once,
//! since a run of Kafka's clients takes seconds whatever they do.

use std::collections::BTreeSet;

use super::script::Script;
use crate::failure::Result;

/// How often operations are taken out at most. Each time scripts are run twice.
pub(super) const ROUNDS_MAX: usize = 6;

/// The smallest script that was found to fail as `script` does. `fail` says of each of several scripts whether
/// it fails.
///
/// # Errors
/// Those of `fail`.
pub(super) fn shrink(script: Script, mut fail: impl FnMut(&[Script]) -> Result<Vec<bool>>) -> Result<Script> {
    let mut smallest = script;
    for _ in 0..ROUNDS_MAX {
        let singles: Vec<_> = (0..smallest.operations.len()).map(|index| BTreeSet::from([index])).collect();
        let needless: Vec<_> = failing(&smallest, singles, &mut fail)?.into_iter().flatten().collect();
        // Each of these alone may go; of all together, so many of the first as can.
        let first = |count: usize| needless[..count].iter().copied().collect();
        let together: Vec<BTreeSet<_>> = (1..=needless.len()).map(first).collect();
        match failing(&smallest, together, &mut fail)?.last() {
            Some(most) => smallest = without(&smallest, most),
            None => break,
        }
    }
    Ok(smallest)
}

/// Those of `removals` without which the script still fails.
fn failing(
    script: &Script,
    removals: Vec<BTreeSet<usize>>,
    fail: &mut impl FnMut(&[Script]) -> Result<Vec<bool>>,
) -> Result<Vec<BTreeSet<usize>>> {
    if removals.is_empty() {
        return Ok(removals);
    }
    let scripts: Vec<_> = removals.iter().map(|removed| without(script, removed)).collect();
    let failing = removals.into_iter().zip(fail(&scripts)?).filter(|(_, fails)| *fails);
    Ok(failing.map(|(removed, _)| removed).collect())
}

fn without(script: &Script, removed: &BTreeSet<usize>) -> Script {
    let left = script.operations.iter().enumerate().filter(|(index, _)| !removed.contains(index));
    Script { operations: left.map(|(_, operation)| operation.clone()).collect(), ..script.clone() }
}
