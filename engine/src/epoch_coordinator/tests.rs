use proptest::prelude::*;

use super::*;
use crate::source::{Position, Rejected, SplitState};
use lotic_log::PartitionId;

fn split(worker: usize, epoch: Epoch) -> SourceSplit {
    let state = SplitState {
        split: format!("split-{worker}"),
        position: Position::External(serde_json::json!(epoch.0)),
        event_time_max: None,
        timeless_end: None,
        rejected: Rejected::default(),
    };
    SourceSplit { source: "orders".to_owned(), state }
}

fn ends(epoch: Epoch) -> Ends {
    vec![(PartitionKey { topic: 0, partition: PartitionId(0) }, Offset(epoch.0 as i64))]
}

/// Anything that might be reported, in any order.
#[derive(Clone, Debug)]
enum Fact {
    Trigger,
    Aligned { worker: usize, epoch_ahead: i64 },
    Acknowledged,
    Recorded,
    Decided(CommitPoll),
    Stop,
}

fn fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        6 => Just(Fact::Trigger),
        12 => (0..4usize, -1..=1i64).prop_map(|(worker, epoch_ahead)| Fact::Aligned { worker, epoch_ahead }),
        12 => (0..3usize).prop_map(|worker| Fact::Aligned { worker, epoch_ahead: 0 }),
        8 => Just(Fact::Acknowledged),
        8 => Just(Fact::Recorded),
        8 => Just(Fact::Decided(CommitPoll::Committed)),
        4 => Just(Fact::Decided(CommitPoll::Pending)),
        1 => prop_oneof![
            Just(Fact::Decided(CommitPoll::Aborted)),
            Just(Fact::Decided(CommitPoll::Fenced)),
            Just(Fact::Decided(CommitPoll::Unknown)),
            Just(Fact::Stop),
        ],
    ]
}

/// What an observer outside believes: written without the machine's phases, as a history of actions.
#[derive(Default)]
struct Observer {
    barriers: u64,
    aligned: Vec<usize>,
    records: u64,
    commits: u64,
    released: u64,
    stopped: bool,
}

const WORKERS: usize = 3;

impl Observer {
    /// Whether the design allows `fact` now.
    fn allows(&self, fact: &Fact) -> bool {
        let all = self.aligned.len() == WORKERS;
        !self.stopped
            && match fact {
                Fact::Trigger => self.barriers == self.released,
                Fact::Aligned { worker, epoch_ahead } => {
                    let open = self.barriers == self.released + 1 && !all;
                    open && *epoch_ahead == 0 && *worker < WORKERS && !self.aligned.contains(worker)
                }
                Fact::Acknowledged => all && self.records == self.released,
                Fact::Recorded => self.records == self.released + 1 && self.commits == self.released,
                Fact::Decided(_) => self.commits == self.released + 1,
                Fact::Stop => true,
            }
    }

    fn sees(&mut self, action: &Action) {
        match action {
            Action::Barrier(epoch) => {
                self.barriers += 1;
                assert_eq!(epoch.0, self.barriers, "barriers are numbered without a gap");
            }
            Action::Record { epoch, splits, ends: at } => {
                self.records += 1;
                assert_eq!(epoch.0, self.records);
                let expected: Vec<_> = (0..WORKERS).map(|worker| split(worker, *epoch)).collect();
                assert_eq!(*splits, expected, "every worker's splits, in order of worker");
                assert_eq!(*at, ends(*epoch));
            }
            Action::Commit(epoch) => {
                self.commits += 1;
                assert_eq!(epoch.0, self.commits);
            }
            Action::Release { committed } => {
                self.released += 1;
                self.aligned.clear();
                assert_eq!(committed.0, self.released);
            }
        }
        assert!(self.barriers >= self.records && self.records >= self.commits);
        assert!(self.commits >= self.released && self.barriers <= self.released + 1);
    }
}

fn tell(machine: &mut EpochCoordinator, fact: &Fact) -> Result<Result<Option<Action>, Failure>, OutOfOrder> {
    let epoch = machine.epoch();
    match fact {
        Fact::Trigger => machine.trigger(WORKERS).map(|action| Ok(Some(action))),
        Fact::Aligned { worker, epoch_ahead } => {
            let said = Epoch(epoch.0.wrapping_add_signed(*epoch_ahead));
            machine.aligned(*worker, said, vec![split(*worker, said)]).map(|()| Ok(None))
        }
        Fact::Acknowledged => machine.acknowledged(ends(epoch)).map(|action| Ok(Some(action))),
        Fact::Recorded => machine.recorded().map(|action| Ok(Some(action))),
        Fact::Decided(poll) => machine.decided(*poll),
        Fact::Stop => {
            machine.stop();
            Ok(Ok(None))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_order_of_facts_keeps_the_order_of_an_epoch(facts in prop::collection::vec(fact(), 0..200)) {
        let mut machine = EpochCoordinator::new(Epoch(0));
        let mut observer = Observer::default();
        for fact in facts {
            let allowed = observer.allows(&fact);
            match tell(&mut machine, &fact) {
                Err(_) => prop_assert!(!allowed, "{:?} was refused", fact),
                Ok(answer) => {
                    prop_assert!(allowed || matches!(fact, Fact::Stop), "{:?} was taken", fact);
                    match (&fact, answer) {
                        (Fact::Aligned { worker, .. }, _) => observer.aligned.push(*worker),
                        (Fact::Stop, _) | (_, Err(_)) => observer.stopped = true,
                        (_, Ok(Some(action))) => observer.sees(&action),
                        (Fact::Decided(CommitPoll::Pending), Ok(None)) => {}
                        (fact, Ok(None)) => prop_assert!(false, "{:?} led to nothing", fact),
                    }
                }
            }
            prop_assert_eq!(machine.awaiting() == Awaiting::Nothing, observer.stopped);
        }
    }

    #[test]
    fn what_the_machine_waits_for_always_moves_it_on(order in Just([0usize, 1, 2]).prop_shuffle()) {
        let mut machine = EpochCoordinator::new(Epoch(41));
        let mut aligning = order.into_iter();
        let mut taken = Vec::new();
        for _ in 0..7 {
            let awaited = machine.awaiting();
            taken.push(awaited);
            let fact = match awaited {
                Awaiting::Trigger => Fact::Trigger,
                Awaiting::Alignment => Fact::Aligned { worker: aligning.next().unwrap(), epoch_ahead: 0 },
                Awaiting::Acknowledgement => Fact::Acknowledged,
                Awaiting::RecordAcknowledgement => Fact::Recorded,
                Awaiting::Decision => Fact::Decided(CommitPoll::Committed),
                Awaiting::Nothing => unreachable!("nothing failed"),
            };
            prop_assert!(tell(&mut machine, &fact).is_ok());
        }
        prop_assert_eq!(machine.epoch(), Epoch(43));
        prop_assert_eq!(machine.awaiting(), Awaiting::Trigger);
    }
}

#[test]
fn an_epoch_that_fails_says_what_to_do() {
    let check = |poll, expected| {
        let mut machine = EpochCoordinator::new(Epoch(0));
        machine.trigger(1).unwrap();
        machine.aligned(0, Epoch(1), Vec::new()).unwrap();
        machine.acknowledged(Vec::new()).unwrap();
        machine.recorded().unwrap();
        let failure = machine.decided(poll).unwrap().unwrap_err();
        assert_eq!(failure.into_error(Epoch(1)).kind(), expected);
        assert!(machine.trigger(1).is_err(), "what follows a failed epoch is discarded with it");
    };
    check(CommitPoll::Aborted, ErrorKind::Restart);
    check(CommitPoll::Fenced, ErrorKind::Fenced);
    check(CommitPoll::Unknown, ErrorKind::Unknown);
}

#[test]
fn an_epoch_ends_for_a_reason_and_never_without_anything_in_it() {
    let idle = TriggerFacts {
        running: Duration::from_millis(99),
        interval: Duration::from_millis(100),
        dirty: true,
        over_budget: false,
        quiescent: false,
        stopping: false,
    };
    let check = |facts, expected| {
        assert_eq!(trigger_due(facts), expected);
        assert_eq!(trigger_due(TriggerFacts { dirty: false, ..facts }), None);
    };
    check(idle, None);
    check(TriggerFacts { running: Duration::from_millis(100), ..idle }, Some(TriggerReason::Interval));
    check(TriggerFacts { over_budget: true, ..idle }, Some(TriggerReason::Budget));
    check(TriggerFacts { quiescent: true, ..idle }, Some(TriggerReason::Quiescent));
    check(TriggerFacts { stopping: true, ..idle }, Some(TriggerReason::Stop));
}
