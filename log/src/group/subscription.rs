//! Which topics a member of a group wants.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;

use crate::error::{Error, ErrorKind, Result};
use crate::record::TopicId;

/// What the names of internal topics begin with. No pattern matches them, as in Kafka.
const INTERNAL_PREFIX: &str = "__";

/// Topics by their names, each with its id and how many partitions it has.
pub(crate) type TopicList = BTreeMap<String, (TopicId, i32)>;

/// What a consumer has subscribed to.
#[derive(Clone, Debug)]
pub(crate) enum Subscription {
    /// Topics by their names, those that are not there yet too.
    Names(BTreeSet<String>),
    /// All topics whose whole name matches.
    Pattern(Regex),
}

impl Subscription {
    /// # Errors
    /// `Invalid` if it is no regular expression.
    pub(crate) fn pattern(pattern: &str) -> Result<Self> {
        let anchored = format!("^(?:{pattern})$");
        let regex = Regex::new(&anchored).map_err(|error| {
            Error::caused(ErrorKind::Invalid, format!("{pattern:?} is no pattern for topics"), error)
        })?;
        Ok(Self::Pattern(regex))
    }

    /// Whether it holds the same topics as another, whatever there may be.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Names(names), Self::Names(others)) => names == others,
            (Self::Pattern(pattern), Self::Pattern(other)) => pattern.as_str() == other.as_str(),
            _ => false,
        }
    }

    /// Those of `topics` that it holds.
    pub(crate) fn wanted<'a>(&self, topics: &'a TopicList) -> BTreeSet<&'a str> {
        topics.keys().map(String::as_str).filter(|topic| self.holds(topic)).collect()
    }

    /// Whether it holds a topic of this name.
    pub(crate) fn holds(&self, topic: &str) -> bool {
        match self {
            Self::Names(names) => names.contains(topic),
            Self::Pattern(regex) => !topic.starts_with(INTERNAL_PREFIX) && regex.is_match(topic),
        }
    }
}
