//! Which events of a batch go where.

use crate::frame::{Batch, Columns};

/// Takes out the events for which `is_late` holds. Most batches have none, and stay as they are.
pub(super) fn split_late<T>(
    batch: Batch<T>,
    is_late: impl Fn(&Columns, usize) -> bool,
) -> (Batch<T>, Option<Batch<T>>) {
    let Some(first) = (0..batch.columns.len()).find(|&index| is_late(&batch.columns, index)) else {
        return (batch, None);
    };
    let mut in_time = Batch::default();
    let mut late = Batch::default();
    for (index, row) in batch.rows.into_iter().enumerate() {
        let is_late = index == first || index > first && is_late(&batch.columns, index);
        let target = if is_late { &mut late } else { &mut in_time };
        target.rows.push(row);
        target.columns.push_from(&batch.columns, index);
    }
    (in_time, Some(late))
}

/// A batch of the rows that are there, each with its event's columns.
pub(super) fn keep_some<T>(mut columns: Columns, rows: impl Iterator<Item = Option<T>>) -> Batch<T> {
    let mut kept = Vec::with_capacity(columns.len());
    let is_kept: Vec<bool> = rows.map(|row| row.map(|row| kept.push(row)).is_some()).collect();
    if kept.len() < is_kept.len() {
        columns.retain(&is_kept);
    }
    Batch { rows: kept, columns }
}
