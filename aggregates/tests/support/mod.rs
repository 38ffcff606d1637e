//! What every aggregate's property test does with a sequence of commands.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::fmt::Debug;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use aggregates::Decide;
use cqrs_es::event_sink::EventSink;
use event_schemas::{Event, Upcasters, decode};

/// Named predicates over the state.
pub type Invariants<A> = &'static [(&'static str, fn(&A) -> bool)];

/// A live aggregate and all that happened to it.
pub struct Run<A: Decide> {
    pub state: A,
    pub events: Vec<A::Event>,
    invariants: Invariants<A>,
    /// The same aggregate, as another process knows it: folded from what the log would give back.
    replayed: A,
}

impl<A: Decide<Event: PartialEq + Debug>> Run<A> {
    pub fn new(invariants: Invariants<A>) -> Self {
        assert!(!invariants.is_empty());
        Self {
            state: A::default(),
            events: Vec::new(),
            invariants,
            replayed: A::default(),
        }
    }

    /// Gives the command and checks all that holds of every command: an invariant after each accepted one, nothing
    /// emitted by a refused one, cqrs-es the same as `decide`, stored events the same as the live ones.
    pub fn execute(&mut self, command: &A::Command) -> Result<Vec<A::Event>, A::Error> {
        let mut handled = self.state.clone();
        let sink = EventSink::default();
        let answer = ready(handled.handle(command.clone(), &(), &sink));
        let written = ready(sink.collect());

        let decided = self.state.decide(command);
        match &decided {
            Err(error) => {
                assert_eq!(answer.as_ref(), Err(error));
                assert_eq!(written, vec![], "{command:?} was refused and wrote");
                assert_eq!(
                    handled, self.state,
                    "{command:?} was refused and changed the state"
                );
            }
            Ok(events) => {
                assert_eq!(answer, Ok(()));
                assert_eq!(&written, events);
                for event in events {
                    self.state.evolve(event);
                    for (name, holds) in self.invariants {
                        assert!(
                            holds(&self.state),
                            "{name}: broken by {event:?} of {command:?}: {:#?}",
                            self.state
                        );
                    }
                    self.replayed.evolve(&stored(event));
                }
                assert_eq!(handled, self.state, "cqrs-es folds as evolve does");
                assert_eq!(
                    self.replayed, self.state,
                    "the stored events of {command:?} fold to another state"
                );
                self.events.extend(events.iter().cloned());
            }
        }
        decided
    }

    /// Checks that a snapshot of the state comes back as it was.
    pub fn check_snapshot(&self) {
        let snapshot = serde_json::to_string(&self.state).unwrap();
        assert_eq!(serde_json::from_str::<A>(&snapshot).unwrap(), self.state);
    }
}

/// The event as it comes back from the log.
fn stored<E: Clone + Into<Event> + TryFrom<Event, Error = Event>>(event: &E) -> E {
    let event: Event = event.clone().into();
    let text = event.to_json().unwrap();
    let (kind, name, version) = (event.aggregate_type(), event.name(), event.schema_version());
    let decoded = decode(kind, name, version, &text, &Upcasters::shipped()).unwrap();
    assert_eq!(decoded, event);
    E::try_from(decoded).expect("an event of the same aggregate")
}

/// `handle` awaits nothing but the sink's own lock.
fn ready<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("an aggregate waits for something"),
    }
}
