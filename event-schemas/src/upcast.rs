//! How an event of an older schema version becomes one of the current version. Upcasters run on every read path.

use serde_json::Value;

/// Rewrites a payload `{"<event type>": {…}}` from one schema version to the next.
pub type UpcastFn = fn(Value) -> Value;

/// `major.minor`; a part that is missing or not a number counts as 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SchemaVersion(u32, u32);

impl SchemaVersion {
    pub(crate) fn parse(text: &str) -> Self {
        let mut parts = text.split('.').map(|part| part.parse().unwrap_or(0));
        Self(parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }
}

struct Step {
    event_type: &'static str,
    from: &'static str,
    to_type: &'static str,
    to: &'static str,
    upcast: UpcastFn,
}

/// The registry of upcasters. A step leads from one (event type, version) to the next, so a renamed event is a step too.
/// There is none without the shipped ones: no way of reading can go without them.
pub struct Upcasters {
    steps: Vec<Step>,
}

pub(crate) struct Upcast {
    pub(crate) event_type: String,
    pub(crate) event_version: String,
    pub(crate) payload: Value,
}

impl Upcasters {
    /// The steps that this release ships. None yet: every event is at its first version.
    pub fn shipped() -> Self {
        Self { steps: Vec::new() }
    }

    /// Adds the step from (`event_type`, `from`) to (`to_type`, `to`).
    #[must_use]
    pub fn with(
        mut self,
        event_type: &'static str,
        from: &'static str,
        to_type: &'static str,
        to: &'static str,
        upcast: UpcastFn,
    ) -> Self {
        self.steps.push(Step {
            event_type,
            from,
            to_type,
            to,
            upcast,
        });
        self
    }

    /// Follows the steps from the stored version as far as they lead.
    pub(crate) fn upcast(&self, event_type: &str, event_version: &str, payload: Value) -> Upcast {
        let mut now = Upcast {
            event_type: event_type.to_owned(),
            event_version: event_version.to_owned(),
            payload,
        };
        // Bounded by the number of steps: a registry with a cycle must not hang a reader.
        for _ in 0..self.steps.len() {
            let step = self
                .steps
                .iter()
                .find(|step| step.event_type == now.event_type && step.from == now.event_version);
            let Some(step) = step else { break };
            now = Upcast {
                event_type: step.to_type.to_owned(),
                event_version: step.to.to_owned(),
                payload: (step.upcast)(now.payload),
            };
        }
        now
    }
}
