//! The assignors against Kafka's own tests, and against what is promised of them.

use proptest::prelude::*;

use super::*;

/// A member as the tests write it: its id, its topics, and what it has, as in `a: t1 t2 | t1-0 t2-1`.
struct Member {
    id: String,
    topics: Vec<String>,
    owned: Vec<TopicPartition>,
    generation: i32,
}

impl Member {
    fn new(id: &str, topics: &str, owned: &str, generation: i32) -> Self {
        let topics = topics.split_whitespace().map(str::to_owned).collect();
        Self { id: id.to_owned(), topics, owned: partitions(owned), generation }
    }

    fn candidate(&self) -> Candidate<'_> {
        let topics = self.topics.iter().map(String::as_str).collect();
        Candidate { id: &self.id, topics, owned: &self.owned, generation: self.generation }
    }
}

fn partitions(text: &str) -> Vec<TopicPartition> {
    let one = |text: &str| {
        let (topic, partition) = text.rsplit_once('-').expect("topic-partition");
        TopicPartition::new(topic, PartitionId(partition.parse().expect("a number")))
    };
    text.split_whitespace().map(one).collect()
}

/// Topics with their numbers of partitions, as in `t1:3 t2:2`.
fn topics(text: &str) -> PartitionCounts<'_> {
    let one = |text| {
        let (topic, count) = str::split_once(text, ':').expect("topic:count");
        (topic, count.parse().expect("a number"))
    };
    text.split_whitespace().map(one).collect()
}

fn members(text: &[(&str, &str, &str)]) -> Vec<Member> {
    text.iter().map(|(id, topics, owned)| Member::new(id, topics, owned, 1)).collect()
}

fn assign(assignor: Assignor, members: &[Member], topics: &PartitionCounts<'_>) -> Assignment {
    let candidates: Vec<_> = members.iter().map(Member::candidate).collect();
    let mut assignment = assignor.assign(&candidates, topics);
    for member in members {
        assignment.entry(member.id.clone()).or_default().sort_unstable();
    }
    assignment
}

/// Who gets what, as in `a: t1-0 t1-2`.
#[track_caller]
fn check(assignor: Assignor, counts: &str, given: &[(&str, &str, &str)], expected: &[(&str, &str)]) {
    let assignment = assign(assignor, &members(given), &topics(counts));
    let expected: Assignment =
        expected.iter().map(|(id, owned)| ((*id).to_owned(), partitions(owned))).collect();
    assert_eq!(assignment, expected);
}

#[test]
fn a_member_gets_all_of_its_topics_and_nothing_else() {
    for assignor in Assignor::ALL {
        check(assignor, "", &[("a", "", "")], &[("a", "")]);
        check(assignor, "", &[("a", "missing", "")], &[("a", "")]);
        check(assignor, "other:3 t:3", &[("a", "t", "")], &[("a", "t-0 t-1 t-2")]);
        check(assignor, "t1:1 t2:2", &[("a", "t1 t2", "")], &[("a", "t1-0 t2-0 t2-1")]);
        check(assignor, "t:1", &[("a", "t", ""), ("b", "t", "")], &[("a", "t-0"), ("b", "")]);
        check(assignor, "t:2", &[("b", "t", ""), ("a", "t", "")], &[("a", "t-0"), ("b", "t-1")]);
    }
}

// From Kafka's RangeAssignorTest: those without racks and without static members.
#[test]
fn range_shares_out_as_kafka_does() {
    let check = |counts, given: &[_], expected: &[_]| check(Assignor::Range, counts, given, expected);
    check(
        "t1:3 t2:2",
        &[("a", "t1", ""), ("b", "t1 t2", ""), ("c", "t1", "")],
        &[("a", "t1-0"), ("b", "t1-1 t2-0 t2-1"), ("c", "t1-2")],
    );
    check(
        "t1:3 t2:3",
        &[("a", "t1 t2", ""), ("b", "t1 t2", "")],
        &[("a", "t1-0 t1-1 t2-0 t2-1"), ("b", "t1-2 t2-2")],
    );
    let all = "t1 t2 t3";
    check(
        "t1:6 t2:7 t3:2",
        &[("a", all, ""), ("b", all, ""), ("c", all, "")],
        &[
            ("a", "t1-0 t1-1 t2-0 t2-1 t2-2 t3-0"),
            ("b", "t1-2 t1-3 t2-3 t2-4 t3-1"),
            ("c", "t1-4 t1-5 t2-5 t2-6"),
        ],
    );
    check(
        "t1:6 t2:7 t3:2",
        &[("a", all, ""), ("b", all, ""), ("c", "t1 t3", "")],
        &[
            ("a", "t1-0 t1-1 t2-0 t2-1 t2-2 t2-3 t3-0"),
            ("b", "t1-2 t1-3 t2-4 t2-5 t2-6 t3-1"),
            ("c", "t1-4 t1-5"),
        ],
    );
    check(
        "t1:5 t2:5 t3:5",
        &[("a", all, ""), ("b", all, ""), ("c", all, "")],
        &[
            ("a", "t1-0 t1-1 t2-0 t2-1 t3-0 t3-1"),
            ("b", "t1-2 t1-3 t2-2 t2-3 t3-2 t3-3"),
            ("c", "t1-4 t2-4 t3-4"),
        ],
    );
    let all = "t1 t2 t3 t4 t5 t6 t7 t8 t9";
    check(
        "t1:6 t2:6 t3:2 t4:2 t5:4 t6:4",
        &[("a", all, ""), ("b", all, ""), ("c", all, "")],
        &[
            ("a", "t1-0 t1-1 t2-0 t2-1 t3-0 t4-0 t5-0 t5-1 t6-0 t6-1"),
            ("b", "t1-2 t1-3 t2-2 t2-3 t3-1 t4-1 t5-2 t6-2"),
            ("c", "t1-4 t1-5 t2-4 t2-5 t5-3 t6-3"),
        ],
    );
}

// From Kafka's RoundRobinAssignorTest.
#[test]
fn round_robin_shares_out_as_kafka_does() {
    let check = |counts, given: &[_], expected: &[_]| check(Assignor::RoundRobin, counts, given, expected);
    check(
        "t1:3 t2:2",
        &[("a", "t1", ""), ("b", "t1 t2", ""), ("c", "t1", "")],
        &[("a", "t1-0"), ("b", "t1-1 t2-0 t2-1"), ("c", "t1-2")],
    );
    check(
        "t1:3 t2:3",
        &[("a", "t1 t2", ""), ("b", "t1 t2", "")],
        &[("a", "t1-0 t1-2 t2-1"), ("b", "t1-1 t2-0 t2-2")],
    );
    check(
        "t1:5 t2:5",
        &[("a", "t1 t2", ""), ("b", "t1 t2", ""), ("c", "t1 t2", "")],
        &[("a", "t1-0 t1-3 t2-1 t2-4"), ("b", "t1-1 t1-4 t2-2"), ("c", "t1-2 t2-0 t2-3")],
    );
}

// From Kafka's AbstractStickyAssignorTest and CooperativeStickyAssignorTest, those without racks in which
// the answer does not hang on the order of a hash table.
#[test]
fn cooperative_sticky_shares_out_as_kafka_does() {
    let check =
        |counts, given: &[_], expected: &[_]| check(Assignor::CooperativeSticky, counts, given, expected);
    check(
        "t1:3 t2:2",
        &[("a", "t1", ""), ("b", "t1 t2", ""), ("c", "t1", "")],
        &[("a", "t1-0 t1-2"), ("b", "t2-0 t2-1"), ("c", "t1-1")],
    );
    let both = "t1 t2";
    check(
        "t1:3 t2:3",
        &[("a", both, ""), ("b", both, "")],
        &[("a", "t1-0 t1-2 t2-1"), ("b", "t1-1 t2-0 t2-2")],
    );
    check(
        "t1:3 t2:4",
        &[("a", both, ""), ("b", both, "")],
        &[("a", "t1-0 t1-2 t2-1 t2-3"), ("b", "t1-1 t2-0 t2-2")],
    );
    // Each has as many as it must have, and one is to have one more.
    check(
        "t1:2 t2:3",
        &[("a", both, "t1-0 t2-1"), ("b", both, "t1-1 t2-2")],
        &[("a", "t1-0 t2-0 t2-1"), ("b", "t1-1 t2-2")],
    );
    // All have too few.
    check(
        "t1:2 t2:3",
        &[("a", both, "t1-0"), ("b", both, "t1-1"), ("c", both, "")],
        &[("a", "t1-0 t2-1"), ("b", "t1-1 t2-2"), ("c", "t2-0")],
    );
    // What moves is given up first.
    check(
        "t1:2 t2:2",
        &[("a", both, "t1-0 t2-0"), ("b", both, "t1-1 t2-1"), ("c", both, "")],
        &[("a", "t1-0"), ("b", "t1-1 t2-1"), ("c", "")],
    );
    check("t:3", &[("a", "t", "t-0 t-1 t-2"), ("b", "t", "")], &[("a", "t-0 t-1"), ("b", "")]);
    // What two have in one generation is nobody's, and cannot be anybody's before both have given it up.
    check(
        "t:3",
        &[("a", "t", "t-0 t-1"), ("b", "t", "t-0 t-2"), ("c", "t", "")],
        &[("a", "t-1"), ("b", "t-2"), ("c", "")],
    );
    check(
        "t:4",
        &[("a", "t", "t-0 t-1"), ("b", "t", "t-0 t-2"), ("c", "t", "")],
        &[("a", "t-1 t-3"), ("b", "t-2"), ("c", "")],
    );
    let all = "t1 t2 t3";
    let expected = [
        ("a", "t1-0 t1-3 t2-0 t2-3 t2-6"),
        ("b", "t1-1 t1-4 t2-1 t2-4 t3-0"),
        ("c", "t1-2 t1-5 t2-2 t2-5 t3-1"),
    ];
    check("t1:6 t2:7 t3:2", &[("a", all, ""), ("b", all, ""), ("c", all, "")], &expected);
    let again = expected.map(|(id, owned)| (id, all, owned));
    check("t1:6 t2:7 t3:2", &again, &expected);
    check(
        "t1:6 t2:7 t3:2",
        &[("a", all, ""), ("b", all, ""), ("c", "t1 t3", "")],
        &[
            ("a", "t1-5 t2-0 t2-2 t2-4 t2-6"),
            ("b", "t1-3 t2-1 t2-3 t2-5 t3-0"),
            ("c", "t1-0 t1-1 t1-2 t1-4 t3-1"),
        ],
    );
}

// From AbstractStickyAssignorTest: members that claim the same partition in three generations.
#[test]
fn of_what_several_claim_the_newest_generation_has_it() {
    for generations in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]] {
        let [first, second, third] = generations;
        let given = [
            Member::new("a", "t", "t-0 t-2", first),
            Member::new("b", "t", "t-1 t-2 t-3", second),
            Member::new("c", "t", "t-2 t-4 t-5", third),
            Member::new("d", "t1", "t1-0", 2),
        ];
        let assignment = assign(Assignor::CooperativeSticky, &given, &topics("t:6 t1:1"));
        let mut all: Vec<_> = assignment.values().flatten().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "{assignment:?}");
        assert!(assignment.values().all(|owned| (1..=2).contains(&owned.len())), "{assignment:?}");
    }
}

// From AbstractStickyAssignorTest: each topic stays spread over all members as these come and go.
#[test]
fn each_topic_is_spread_over_all_members_as_they_come_and_go() {
    let counts = topics("t1:12 t2:12");
    let each = |members: &[Member], share: usize| {
        for member in members {
            let of = |topic| member.owned.iter().filter(|owned| owned.topic == topic).count();
            assert_eq!((of("t1"), of("t2")), (share, share), "{}", member.id);
        }
    };
    let newcomer = |id| Member::new(id, "t1 t2", "", -1);
    let mut members = vec![newcomer("a")];
    settle(&mut members, &counts);
    each(&members, 12);
    members.push(newcomer("b"));
    settle(&mut members, &counts);
    each(&members, 6);
    members.extend([newcomer("c"), newcomer("d")]);
    settle(&mut members, &counts);
    each(&members, 3);
    members.drain(..2);
    settle(&mut members, &counts);
    each(&members, 6);
}

// From AbstractStickyAssignorTest: a case that sharing out in turn does badly.
#[test]
fn members_with_fewer_topics_are_made_up_for() {
    let (all, odd) = ("t1 t2 t3 t4 t5", "t1 t3 t5");
    let mut members = members(&[("a", all, ""), ("b", odd, ""), ("c", odd, ""), ("d", all, "")]);
    settle(&mut members, &topics("t1:2 t2:1 t3:2 t4:1 t5:2"));
    assert!(members.iter().all(|member| member.owned.len() == 2), "two for each of four");
}

/// Rebalances until nothing moves any more; a generation that takes something away is followed by
/// another. Returns how many there were.
fn settle(members: &mut [Member], counts: &PartitionCounts<'_>) -> i32 {
    let mut generation = members.iter().map(|member| member.generation).max().unwrap_or(0);
    for round in 1..=4 {
        generation += 1;
        let assignment = assign(Assignor::CooperativeSticky, members, counts);
        check_handover(members, &assignment);
        let mut is_settled = true;
        for member in &mut *members {
            let assigned = assignment[&member.id].clone();
            is_settled &= member.owned.iter().all(|owned| assigned.contains(owned));
            member.owned = assigned;
            member.generation = generation;
        }
        if is_settled {
            return round;
        }
    }
    panic!("four generations were not enough");
}

/// Nobody gets what another one has not given up yet.
fn check_handover(members: &[Member], assignment: &Assignment) {
    for member in members {
        for partition in &assignment[&member.id] {
            let is_anothers = |other: &&Member| other.id != member.id && other.owned.contains(partition);
            let other = members.iter().find(is_anothers).map(|other| &other.id);
            assert_eq!(other, None, "{partition} is given to {} and is still had by", member.id);
        }
    }
}

/// Kafka's own measure: every partition that anyone wants has one owner, who wants it, and nobody has
/// one that could go to another with two fewer.
fn check_valid_and_balanced(members: &[Member], counts: &PartitionCounts<'_>) {
    for (topic, count) in counts {
        let wanted = members.iter().any(|member| member.topics.iter().any(|wanted| wanted == topic));
        for partition in partitions_of(topic, *count) {
            let owners = members.iter().filter(|member| member.owned.contains(&partition)).count();
            assert_eq!(owners, usize::from(wanted), "owners of {partition}");
        }
    }
    for member in members {
        for partition in &member.owned {
            assert!(member.topics.contains(&partition.topic), "{} does not want {partition}", member.id);
            for other in members.iter().filter(|other| other.topics.contains(&partition.topic)) {
                let (load, others) = (member.owned.len(), other.owned.len());
                assert!(load <= others + 1, "{partition}: {} has {load}, {} {others}", member.id, other.id);
            }
        }
    }
}

fn counts_strategy() -> impl Strategy<Value = Vec<(String, i32)>> {
    prop::collection::vec(0..9i32, 1..7).prop_map(|counts| {
        counts.into_iter().enumerate().map(|(index, count)| (format!("t{index}"), count)).collect()
    })
}

fn counts(topics: &[(String, i32)]) -> PartitionCounts<'_> {
    topics.iter().map(|(topic, count)| (topic.as_str(), *count)).collect()
}

/// Members that want all topics, or those that the bits say.
fn some_members(topics: &[(String, i32)], wants: &[u8], is_uniform: bool) -> Vec<Member> {
    let wanted = |bits: u8| {
        let is_wanted = |index: usize| is_uniform || bits >> index & 1 == 1;
        let names = topics.iter().enumerate().filter(move |(index, _)| is_wanted(*index));
        names.map(|(_, (topic, _))| topic.clone()).collect()
    };
    let member = |(index, bits): (usize, &u8)| Member {
        id: format!("m{index:02}"),
        topics: wanted(*bits),
        owned: Vec::new(),
        generation: -1,
    };
    wants.iter().enumerate().map(member).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_partition_that_is_wanted_has_one_owner_who_wants_it(
        topics in counts_strategy(), wants in prop::collection::vec(any::<u8>(), 1..8),
    ) {
        let counts = counts(&topics);
        for assignor in Assignor::ALL {
            let members = some_members(&topics, &wants, false);
            let assignment = assign(assignor, &members, &counts);
            for (topic, count) in &counts {
                let wanting = members.iter().filter(|member| member.topics.iter().any(|wanted| wanted == topic));
                let wanting: Vec<_> = wanting.map(|member| &member.id).collect();
                for partition in partitions_of(topic, *count) {
                    let owners: Vec<_> =
                        assignment.iter().filter(|(_, owned)| owned.contains(&partition)).map(|(id, _)| id).collect();
                    prop_assert_eq!(owners.len(), usize::from(!wanting.is_empty()));
                    prop_assert!(owners.iter().all(|owner| wanting.contains(owner)));
                }
            }
        }
    }

    #[test]
    fn range_differs_by_one_in_each_topic_and_round_robin_by_one_in_all(
        topics in counts_strategy(), count in 1..8usize,
    ) {
        let (counts, members) = (counts(&topics), some_members(&topics, &vec![0; count], true));
        let spread = |lengths: Vec<usize>| lengths.iter().max().unwrap() - lengths.iter().min().unwrap();
        let all = assign(Assignor::RoundRobin, &members, &counts);
        prop_assert!(spread(all.values().map(Vec::len).collect()) <= 1);
        let ranges = assign(Assignor::Range, &members, &counts);
        for (topic, _) in &topics {
            let of = |owned: &Vec<TopicPartition>| owned.iter().filter(|owned| owned.topic == *topic).count();
            prop_assert!(spread(ranges.values().map(of).collect()) <= 1);
        }
        // Topics that are alike go together.
        for (one, _) in &topics {
            for (other, _) in topics.iter().filter(|(other, _)| counts[&**other] == counts[&**one]) {
                for owned in ranges.values() {
                    let of = |topic: &str| -> Vec<_> {
                        owned.iter().filter(|owned| owned.topic == topic).map(|owned| owned.partition).collect()
                    };
                    prop_assert_eq!(of(one), of(other));
                }
            }
        }
    }

    #[test]
    fn whoever_comes_goes_or_changes_their_mind_sticky_ends_up_balanced(
        topics in counts_strategy(),
        wants in prop::collection::vec(any::<u8>(), 1..8),
        later in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..6),
    ) {
        let counts = counts(&topics);
        let mut members = some_members(&topics, &wants, false);
        settle(&mut members, &counts);
        check_valid_and_balanced(&members, &counts);
        for (number, (place, bits, change)) in later.into_iter().enumerate() {
            let mut other = some_members(&topics, &[bits], false).remove(0);
            let place = place.index(members.len());
            match change {
                0 => members[place].topics = other.topics,
                1 if members.len() > 1 => drop(members.remove(place)),
                _ => {
                    other.id = format!("n{number}");
                    members.push(other);
                }
            }
            settle(&mut members, &counts);
            check_valid_and_balanced(&members, &counts);
        }
    }

    #[test]
    fn when_a_member_leaves_the_others_keep_all_they_had(
        topics in counts_strategy(), count in 2..8usize, leaver in any::<prop::sample::Index>(),
    ) {
        let counts = counts(&topics);
        let mut members = some_members(&topics, &vec![0; count], true);
        settle(&mut members, &counts);
        members.remove(leaver.index(count));
        let before: Vec<_> = members.iter().map(|member| member.owned.clone()).collect();
        prop_assert_eq!(settle(&mut members, &counts), 1, "nothing is taken away");
        for (member, before) in members.iter().zip(before) {
            prop_assert!(before.iter().all(|owned| member.owned.contains(owned)));
        }
        check_valid_and_balanced(&members, &counts);
    }

    #[test]
    fn when_a_member_joins_only_its_share_moves(topics in counts_strategy(), count in 1..8usize) {
        let counts = counts(&topics);
        let mut members = some_members(&topics, &vec![0; count], true);
        settle(&mut members, &counts);
        let before: Vec<_> = members.iter().map(|member| member.owned.clone()).collect();
        members.push(Member { id: "new".to_owned(), owned: Vec::new(), generation: -1, topics: members[0].topics.clone() });
        settle(&mut members, &counts);
        let kept = |(member, before): (&Member, &Vec<TopicPartition>)| {
            before.iter().filter(|owned| member.owned.contains(owned)).count()
        };
        let total = counts.values().sum::<i32>() as usize;
        let moved = total - members.iter().zip(&before).map(kept).sum::<usize>();
        prop_assert_eq!(moved, total / (count + 1), "no more than the least that the new one must have");
        check_valid_and_balanced(&members, &counts);
    }
}
