//! The list of segments that readers go by.
//!
//! Nobody keeps the list while a file is read: what was replaced or removed since cannot be opened any more.
//! So a reader has one segment in hand, and finds the next one in the list as it is by then: where the one in
//! hand ended may be the middle of another, which may have taken the place of the one in hand too.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::record::Offset;
use crate::segment::Segment;

/// Segments by base offset. Only the partition's writer changes which they are; none is empty, but that of
/// a partition that is deleted.
pub(super) struct SegmentList(ArcSwap<Vec<Arc<Segment>>>);

/// A segment that somebody reads.
pub(super) struct InHand {
    pub(super) segment: Arc<Segment>,
    /// Where to look for the one behind it; none behind the last.
    pub(super) next: Option<Offset>,
}

impl SegmentList {
    pub(super) fn new(segments: Vec<Arc<Segment>>) -> Self {
        Self(ArcSwap::from_pointee(segments))
    }

    pub(super) fn store(&self, segments: Vec<Arc<Segment>>) {
        self.0.store(Arc::new(segments));
    }

    /// All of them; not to be kept while a file is read.
    pub(super) fn load(&self) -> Guard<Arc<Vec<Arc<Segment>>>> {
        self.0.load()
    }

    /// The first segment that is `wanted`, from the one on that holds `offset`, or would.
    pub(super) fn find(&self, offset: Offset, wanted: impl Fn(&Segment) -> bool) -> Option<InHand> {
        let segments = self.load();
        let first = holding(&segments, offset);
        let mut left = segments.iter().enumerate().skip(first);
        let (index, segment) = left.find(|(_, segment)| wanted(segment))?;
        let next = segments.get(index + 1).map(|next| next.base());
        Some(InHand { segment: segment.clone(), next })
    }

    /// Whether the segment is there still, neither replaced nor removed.
    pub(super) fn lists(&self, segment: &Arc<Segment>) -> bool {
        let segments = self.load();
        segments.get(holding(&segments, segment.base())).is_some_and(|found| Arc::ptr_eq(found, segment))
    }
}

/// The index of the segment that holds `offset`, or would.
fn holding(segments: &[Arc<Segment>], offset: Offset) -> usize {
    segments.partition_point(|segment| segment.base() <= offset).saturating_sub(1)
}
