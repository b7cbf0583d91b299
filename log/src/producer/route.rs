//! Where the records of a topic go: its lanes, and which is whose turn.

use hashbrown::HashMap;

use super::accumulator::{Accumulator, Lane, Measured};

/// What a route's count of changes is where what was looked up has to be looked up again: none of the counts.
pub(super) const STALE: u64 = 0;

/// The lanes of one topic.
pub(super) struct Route {
    pub(super) first: Lane,
    pub(super) partition_count: i32,
    /// The partition that records without a key go to.
    pub(super) cursor: i32,
    /// Bytes that went to it since it became that one.
    pub(super) cursor_bytes: usize,
    /// The log's count of changes to its topics when this was looked up: behind a change the topic may be
    /// another one, or have more partitions or other settings.
    pub(super) topics_version: u64,
}

/// The topics that records were sent to.
#[derive(Default)]
pub(super) struct Routes {
    /// By number, with the topic's name.
    routes: Vec<(String, Route)>,
    numbers: HashMap<String, usize>,
    /// The one that was asked for last: few change the topic with every record, and comparing its name takes
    /// less than hashing it does.
    last: usize,
}

impl Routes {
    pub(super) fn get_mut(&mut self, topic: &str) -> Option<&mut Route> {
        if self.routes.get(self.last).is_none_or(|(name, _)| name != topic) {
            self.last = *self.numbers.get(topic)?;
        }
        self.routes.get_mut(self.last).map(|(_, route)| route)
    }

    /// The topic's route from now on.
    pub(super) fn insert(&mut self, topic: String, route: Route) {
        match self.get_mut(&topic) {
            Some(known) => *known = route,
            None => {
                self.numbers.insert(topic.clone(), self.routes.len());
                self.routes.push((topic, route));
            }
        }
    }
}

impl Route {
    pub(super) fn lane(&self, partition: i32) -> Lane {
        Lane(self.first.0 + partition as usize)
    }

    /// The partition after the last one.
    pub(super) fn next(&mut self) -> i32 {
        self.cursor = (self.cursor + 1) % self.partition_count;
        self.cursor_bytes = 0;
        self.cursor
    }

    /// The partition of a record without a key: the same until it has got the bytes of a batch, so that
    /// batches become full, and that end there (KIP-794). One that lingered long enough and is not full
    /// moves nothing on.
    pub(super) fn stick(&mut self, accumulator: &Accumulator, measured: Measured<'_>) -> i32 {
        let lane = self.lane(self.cursor);
        let is_done = match accumulator.joins_open_batch(lane, measured) {
            Some(joins) => !joins,
            None => self.cursor_bytes >= accumulator.batch_bytes(lane),
        };
        if is_done {
            self.next();
        }
        self.cursor_bytes += measured.bytes_max;
        self.cursor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(first: usize) -> Route {
        Route { first: Lane(first), partition_count: 1, cursor: 0, cursor_bytes: 0, topics_version: STALE }
    }

    #[test]
    fn each_topic_has_its_own_route_in_whatever_order_they_are_asked_for() {
        let mut routes = Routes::default();
        assert!(routes.get_mut("a").is_none());
        for (number, topic) in ["a", "b", "c", "b"].into_iter().enumerate() {
            routes.insert(topic.to_owned(), route(number));
        }
        let mut first = |topic| routes.get_mut(topic).map(|route| route.first.0);
        for _ in 0..2 {
            let found = ["a", "a", "b", "c", "d", "a"].map(&mut first);
            assert_eq!(found, [Some(0), Some(0), Some(3), Some(2), None, Some(0)]);
        }
    }
}
