//! An aggregate in memory.

use std::collections::VecDeque;

use aggregates::Decide;
use event_schemas::{CommandId, Version};

use super::op::Op;
use crate::Chain;

/// Events after which a copy of the state is kept, from which a reload can start. The copy's cost is spread over them.
const EVENTS_PER_BASE: u64 = 512;

/// Command ids remembered per aggregate. A client's quick repeat is then looked up instead of decided, so that it does
/// not break the chain for the commands behind it.
const RECENT_COMMANDS: usize = 32;

/// Commands looked up with one reload.
const MAX_LOOKED_UP: usize = 1_024;

/// Whether operations can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Ready,
    /// The chain is broken; what is under way is on its way back.
    Broken,
    Loading,
}

/// An aggregate with the state that all its appends will leave, durable or not.
pub(super) struct Resident<A> {
    pub(super) state: A,
    pub(super) version: Version,
    pub(super) chain: Chain,
    pub(super) phase: Phase,
    /// Tells an answer to the current load from one to a load that nobody waits for any more.
    pub(super) load: u64,
    /// Durable for sure.
    base: Option<Box<(A, Version)>>,
    /// Becomes the base once the chain is durable up to it.
    next_base: Option<Box<(A, Version)>>,
    recent: VecDeque<CommandId>,
}

/// A resident and what waits for it.
pub(super) struct Slot<A: Decide> {
    pub(super) resident: Resident<A>,
    /// By ticket.
    pub(super) queue: VecDeque<Op<A>>,
    /// A repeat broke the chain; where one is there are others (a client or a saga that goes over its commands again),
    /// and each that is decided costs a reload.
    pub(super) saw_repeat: bool,
}

impl<A: Decide> Slot<A> {
    pub(super) fn new(phase: Phase) -> Self {
        Self {
            resident: Resident {
                state: A::default(),
                version: Version(0),
                chain: Chain::new(),
                phase,
                load: 0,
                base: None,
                next_base: None,
                recent: VecDeque::new(),
            },
            queue: VecDeque::new(),
            saw_repeat: false,
        }
    }

    /// The commands that wait, if repeats are to be expected among them.
    pub(super) fn suspected_repeats(&mut self) -> Vec<CommandId> {
        if std::mem::take(&mut self.saw_repeat) {
            self.queue
                .iter()
                .filter_map(Op::command_id)
                .take(MAX_LOOKED_UP)
                .collect()
        } else {
            Vec::new()
        }
    }

    /// Puts `op` where its ticket belongs: at the end, unless it has come back.
    pub(super) fn wait(&mut self, op: Op<A>) {
        let place = match self.queue.back() {
            Some(last) if last.ticket > op.ticket => {
                self.queue.partition_point(|waiting| waiting.ticket < op.ticket)
            }
            _ => self.queue.len(),
        };
        self.queue.insert(place, op);
    }

    /// Nothing would be lost with it.
    pub(super) fn is_idle(&self) -> bool {
        self.resident.phase == Phase::Ready && self.queue.is_empty() && self.resident.chain.in_flight() == 0
    }
}

impl<A: Decide> Resident<A> {
    /// Whether the chain carries an append under this id.
    pub(super) fn has_recent(&self, id: CommandId) -> bool {
        self.recent.contains(&id)
    }

    pub(super) fn remember(&mut self, id: CommandId) {
        if self.recent.len() == RECENT_COMMANDS {
            self.recent.pop_front();
        }
        self.recent.push_back(id);
    }

    /// Keeps a copy of the state now and then.
    pub(super) fn keep_base(&mut self) {
        let kept = self
            .next_base
            .as_ref()
            .or(self.base.as_ref())
            .map_or(0, |base| base.1.0);
        if self.version.0 - kept < EVENTS_PER_BASE {
            return;
        }
        self.promote_base();
        if self.next_base.is_none() {
            self.next_base = Some(Box::new((self.state.clone(), self.version)));
        }
    }

    fn promote_base(&mut self) {
        let durable = self.chain.durable();
        if let Some(next) = self.next_base.take_if(|next| next.1 <= durable) {
            self.base = Some(next);
        }
    }

    /// Gives up the state for a reload to start from as much of it as is certainly true.
    pub(super) fn take_base(&mut self) -> Option<(A, Version)> {
        self.promote_base();
        self.next_base = None;
        if self.chain.durable() == self.version {
            // Another process wrote, but all that this one has applied is durable.
            self.base = None;
            return Some((std::mem::take(&mut self.state), self.version));
        }
        self.base.take().map(|base| *base)
    }

    /// Begins a new chain on what was loaded.
    pub(super) fn begin(&mut self, state: A, version: Version) {
        self.state = state;
        self.version = version;
        self.chain = Chain::at(version);
        self.phase = Phase::Ready;
        self.base = None;
        self.next_base = None;
        self.recent.clear();
        if version.0 >= EVENTS_PER_BASE {
            self.base = Some(Box::new((self.state.clone(), version)));
        }
    }
}
