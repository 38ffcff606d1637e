//! A payment provider that keeps its promises and nothing more: at most once per key, and late, twice or not at all with
//! its words. It survives every crash, as the real one would.

use std::collections::BTreeMap;

use event_schemas::{Code, Money, OrderId, PaymentId, ProviderRef, RefundId};

/// What the customer's means of payment will do; the payment method's code says which.
pub const BEHAVIOURS: [&str; 6] = [
    "ok",
    "declined",
    "approves-later",
    "declines-later",
    "never",
    "captured-late",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Session,
    Capture,
    Void,
    Refund(RefundId),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    SessionOpen(ProviderRef),
    Authorized(ProviderRef, Money),
    Captured(ProviderRef, Money),
    Voided(ProviderRef),
    Refunded(ProviderRef, Money),
    Declined(Code),
}

/// One attempt to pay, as the provider knows it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not a lifecycle")]
pub struct Deal {
    pub order: OrderId,
    pub amount: Money,
    behaviour: String,
    answers: BTreeMap<Operation, Outcome>,
    authorized: bool,
    voided: bool,
    pub captured: bool,
    pub refunded: i64,
    /// Something the provider will say on its own, once the customer or the bank has acted.
    owes_report: bool,
    /// What it has said: it may say it again.
    said: Vec<Outcome>,
}

pub type DealId = (PaymentId, u32);

#[derive(Debug, Default)]
pub struct Provider {
    pub deals: BTreeMap<DealId, Deal>,
}

fn name(id: DealId, what: &str) -> ProviderRef {
    ProviderRef::new(format!("{}/{}/{what}", id.0, id.1)).unwrap()
}

impl Provider {
    pub fn call(
        &mut self,
        id: DealId,
        order: OrderId,
        amount: Money,
        method: &Code,
        op: Operation,
    ) -> Outcome {
        let deal = self.deals.entry(id).or_insert_with(|| Deal {
            order,
            amount,
            behaviour: method.as_str().to_owned(),
            answers: BTreeMap::new(),
            authorized: false,
            voided: false,
            captured: false,
            refunded: 0,
            owes_report: false,
            said: Vec::new(),
        });
        if let Some(answer) = deal.answers.get(&op) {
            return answer.clone();
        }
        let answer = deal.perform(id, amount, op);
        deal.answers.insert(op, answer.clone());
        answer
    }

    /// What happened under a key, if anything.
    pub fn lookup(&self, id: DealId, op: Operation) -> Option<Outcome> {
        self.deals.get(&id)?.answers.get(&op).cloned()
    }

    /// Deals that will say something, or could say it again.
    pub fn talkative(&self, again: bool) -> Vec<DealId> {
        let talks = |deal: &Deal| deal.owes_report || (again && !deal.said.is_empty());
        self.deals
            .iter()
            .filter(|(_, deal)| talks(deal))
            .map(|(id, _)| *id)
            .collect()
    }

    /// What the provider says about the deal on its own: something new, or what it said before.
    pub fn report(&mut self, id: DealId) -> Option<Outcome> {
        let deal = self.deals.get_mut(&id)?;
        if !deal.owes_report {
            return deal.said.last().cloned();
        }
        let said = match deal.behaviour.as_str() {
            "approves-later" => {
                deal.authorized = true;
                Outcome::Authorized(name(id, "authorization"), deal.amount)
            }
            "captured-late" => {
                deal.captured = true;
                Outcome::Captured(name(id, "capture"), deal.amount)
            }
            _ => Outcome::Declined(Code::new("refused-by-customer").unwrap()),
        };
        deal.said.push(said.clone());
        Some(said)
    }

    /// The new report was taken and will not come on its own again.
    pub fn acknowledge(&mut self, id: DealId) {
        if let Some(deal) = self.deals.get_mut(&id) {
            deal.owes_report = false;
        }
    }
}

impl Deal {
    fn perform(&mut self, id: DealId, amount: Money, op: Operation) -> Outcome {
        let declined = |code: &str| Outcome::Declined(Code::new(code).unwrap());
        match op {
            Operation::Session => match self.behaviour.as_str() {
                "ok" | "captured-late" => {
                    self.authorized = true;
                    let authorized = Outcome::Authorized(name(id, "authorization"), self.amount);
                    self.said.push(authorized.clone());
                    authorized
                }
                "declined" => declined("insufficient-funds"),
                "never" => Outcome::SessionOpen(name(id, "session")),
                _ => {
                    self.owes_report = true;
                    Outcome::SessionOpen(name(id, "session"))
                }
            },
            Operation::Capture | Operation::Void if self.captured => {
                Outcome::Captured(name(id, "capture"), self.amount)
            }
            Operation::Capture if !self.authorized || self.voided => declined("not-authorized"),
            // It looks declined; the money moves later.
            Operation::Capture if self.behaviour == "captured-late" => {
                self.owes_report = true;
                declined("bank-timeout")
            }
            Operation::Capture => {
                self.captured = true;
                let captured = Outcome::Captured(name(id, "capture"), self.amount);
                self.said.push(captured.clone());
                captured
            }
            Operation::Void => {
                self.voided = true;
                self.owes_report = false;
                Outcome::Voided(name(id, "void"))
            }
            Operation::Refund(refund_id) => {
                if !self.captured || self.refunded + amount.amount() > self.amount.amount() {
                    return declined("nothing-to-refund");
                }
                self.refunded += amount.amount();
                Outcome::Refunded(name(id, &format!("refund/{refund_id}")), amount)
            }
        }
    }

    /// What the provider keeps of the customer's money.
    pub fn kept(&self) -> i64 {
        if self.captured {
            self.amount.amount() - self.refunded
        } else {
            0
        }
    }
}
