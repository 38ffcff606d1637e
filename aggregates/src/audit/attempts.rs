use event_schemas::{RefundId, StreamId, Timestamp};

use super::{Findings, OpenIntent, REFUND_LIMIT};

/// One attempt to pay. Amounts are minor units.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) number: u32,
    pub(super) authorized_since: Option<Timestamp>,
    pub(super) captured: i128,
    pub(super) captures: u32,
    pub(super) voided: bool,
    /// Of refunds that did not fail.
    pub(super) spoken_for: i128,
    pub(super) intent: Option<OpenIntent>,
    pub(super) refunds: Vec<(RefundId, i128, OpenIntent)>,
    /// Reported as failed; the provider may yet report otherwise.
    pub(super) failed: Vec<(RefundId, i128)>,
}

impl Attempt {
    pub(super) const fn new(number: u32) -> Self {
        Self {
            number,
            authorized_since: None,
            captured: 0,
            captures: 0,
            voided: false,
            spoken_for: 0,
            intent: None,
            refunds: Vec::new(),
            failed: Vec::new(),
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.authorized_since.is_none()
            && self.intent.is_none()
            && self.refunds.is_empty()
            && self.failed.is_empty()
    }

    fn awaits(&self, event_type: &str) -> bool {
        self.intent
            .as_ref()
            .is_some_and(|intent| intent.event_type == event_type)
    }

    pub(super) fn session_answered(&mut self) {
        if self.awaits("SessionRequested") {
            self.intent = None;
        }
    }

    /// A void that is under way ends in a void or in a capture, whatever else is reported.
    pub(super) fn declined(&mut self) {
        if !self.awaits("VoidRequested") {
            self.answered();
        }
    }

    pub(super) fn answered(&mut self) {
        self.intent = None;
        self.authorized_since = None;
    }

    pub(super) fn check_refunds(&self, stream: &StreamId, found: &mut Findings) {
        if self.spoken_for > self.captured {
            found.add(REFUND_LIMIT, stream, || {
                let Self {
                    number,
                    spoken_for,
                    captured,
                    ..
                } = self;
                format!("attempt {number}: {spoken_for} to refund, {captured} captured")
            });
        }
    }

    /// The refund's amount, if it was open or had failed.
    pub(super) fn succeed(&mut self, refund_id: RefundId) -> Option<i128> {
        if let Some(amount) = self.close(refund_id) {
            return Some(amount);
        }
        let index = self.failed.iter().position(|(failed, _)| *failed == refund_id)?;
        let (_, amount) = self.failed.swap_remove(index);
        self.spoken_for += amount;
        Some(amount)
    }

    /// False if the refund was not open.
    pub(super) fn fail(&mut self, refund_id: RefundId) -> bool {
        let Some(amount) = self.close(refund_id) else {
            return false;
        };
        self.spoken_for -= amount;
        self.failed.push((refund_id, amount));
        true
    }

    fn close(&mut self, refund_id: RefundId) -> Option<i128> {
        let index = self.refunds.iter().position(|(open, _, _)| *open == refund_id)?;
        Some(self.refunds.swap_remove(index).1)
    }
}
