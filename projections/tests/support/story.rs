//! A story: streams of events, and their interleavings.

use std::collections::BTreeMap;
use std::sync::Arc;

use event_schemas::{
    ActorKind, AggregateType, CancelReason, CartCheckedOut, CartEvent, CartId, CartLine, Event,
    InventoryEvent, LineQuantity, Money, OrderEvent, OrderId, OrderPlaced, OrderStage, PaymentEvent,
    PaymentId, Position, ProductDetails, ProductEvent, ProviderRef, RecordedEvent, Reference, RefundId,
    ReleaseReason, ReturnCondition, ReturnId, ReturnedLine, ShipmentId, StreamId, Version,
};

use super::{
    Dice, code, customer_id, metadata, method, money, order_id, placed, product_id, sku, time, uuid,
};

/// The streams of a story, and one order of all its events.
#[derive(Debug, Clone, Default)]
pub struct Story {
    streams: BTreeMap<StreamId, Vec<Event>>,
}

impl Story {
    /// A story of a few products, carts and `orders` orders.
    pub fn tell(seed: u64, orders: u64) -> Self {
        let mut dice = Dice(seed);
        let mut story = Self::default();
        for number in 1..=3 {
            story.product(&mut dice, number);
        }
        for number in 1..=orders {
            story.order(&mut dice, number);
        }
        for number in 1..=3 {
            story.cart(&mut dice, number);
        }
        story
    }

    pub fn push(&mut self, stream: StreamId, event: impl Into<Event>) {
        self.streams.entry(stream).or_default().push(event.into());
    }

    pub fn streams(&self) -> &BTreeMap<StreamId, Vec<Event>> {
        &self.streams
    }

    /// The events in one interleaving, positions counting up from 1.
    pub fn log(&self, dice: &mut Dice) -> Vec<Arc<RecordedEvent>> {
        let mut waiting: Vec<_> = self
            .streams
            .iter()
            .map(|(stream, events)| (stream, events.iter(), 0_u64))
            .collect();
        let mut log = Vec::new();
        while !waiting.is_empty() {
            let next = usize::try_from(dice.roll(waiting.len() as u64)).unwrap();
            let (stream, events, version) = &mut waiting[next];
            let Some(event) = events.next() else {
                drop(waiting.swap_remove(next));
                continue;
            };
            *version += 1;
            let position = log.len() as u64 + 1;
            let kind = [ActorKind::Customer, ActorKind::Staff, ActorKind::System]
                [usize::try_from(position % 3).unwrap()];
            log.push(Arc::new(RecordedEvent {
                position: Position(position),
                stream: (*stream).clone(),
                version: Version(*version),
                event: event.clone(),
                metadata: metadata(kind, "somebody"),
                recorded_at: time(position),
            }));
        }
        log
    }

    fn product(&mut self, dice: &mut Dice, number: u64) {
        let stream = StreamId::new(AggregateType::Product, product_id(number));
        let details = |title: &str| ProductDetails {
            title: title.to_owned(),
            category: Some("mugs".to_owned()),
            ..ProductDetails::default()
        };
        self.push(
            stream.clone(),
            ProductEvent::ProductCreated {
                details: details(&format!("Blue Mug {number}")),
            },
        );
        let stock = StreamId::new(AggregateType::Inventory, &sku(number));
        self.push(
            stock.clone(),
            InventoryEvent::SkuAssigned {
                product_id: product_id(number),
            },
        );
        self.push(
            stock.clone(),
            InventoryEvent::StockReceived {
                quantity: 1_000,
                reference: Reference::new("delivery 1").unwrap(),
            },
        );
        self.push(
            stock.clone(),
            InventoryEvent::StockAdjusted {
                delta: -3,
                reason: code("broken"),
            },
        );
        self.push(stock, InventoryEvent::BackorderLimitSet { limit: 10 });
        let added = |number: u64| ProductEvent::VariantAdded {
            sku: sku(number),
            option_values: BTreeMap::new(),
            price: money(500),
            tracked: true,
        };
        self.push(stream.clone(), added(number));
        self.push(stream.clone(), ProductEvent::ProductPublished {});
        self.push(
            stream.clone(),
            ProductEvent::PriceChanged {
                sku: sku(number),
                price: money(450),
            },
        );
        if dice.chance(2) {
            self.push(stream.clone(), added(number + 100));
            self.push(
                stream.clone(),
                ProductEvent::VariantRemoved {
                    sku: sku(number + 100),
                },
            );
            self.push(
                stream.clone(),
                ProductEvent::ProductDetailsChanged {
                    details: details("Red Mug"),
                },
            );
        }
        if dice.chance(3) {
            self.push(stream.clone(), ProductEvent::ProductUnpublished {});
            self.push(
                stream,
                ProductEvent::ProductArchived {
                    reason: code("out-of-range"),
                },
            );
        }
    }

    fn cart(&mut self, dice: &mut Dice, number: u64) {
        let owner = customer_id(number);
        let stream = StreamId::new(AggregateType::Cart, CartId::for_owner(owner));
        self.push(stream.clone(), CartEvent::CartOpened { owner });
        for attempt in 1..=2 {
            self.push(
                stream.clone(),
                CartEvent::ItemAdded {
                    sku: sku(1),
                    quantity: 2,
                },
            );
            self.push(
                stream.clone(),
                CartEvent::ItemAdded {
                    sku: sku(2),
                    quantity: 1,
                },
            );
            self.push(
                stream.clone(),
                CartEvent::ItemQuantityChanged {
                    sku: sku(2),
                    quantity: 4,
                },
            );
            if dice.chance(2) {
                self.push(stream.clone(), CartEvent::ItemRemoved { sku: sku(2) });
            }
            let order_id = OrderId::for_checkout(CartId::for_owner(owner), attempt);
            let agreed = placed(order_id, owner, &[(sku(1), 2, 450)], time(1));
            self.push(
                stream.clone(),
                CartEvent::CartCheckedOut(Box::new(CartCheckedOut {
                    order_id,
                    attempt,
                    customer: owner,
                    lines: agreed.lines,
                    shipping: agreed.shipping,
                    totals: agreed.totals,
                    country: agreed.country,
                    payment: agreed.payment,
                    occurred_at: agreed.occurred_at,
                    payment_deadline: agreed.payment_deadline,
                })),
            );
            if dice.chance(2) {
                let lines = vec![CartLine {
                    sku: sku(3),
                    quantity: 1,
                }];
                self.push(
                    stream.clone(),
                    CartEvent::CartMerged {
                        from: CartId::for_owner(customer_id(99)),
                        lines,
                    },
                );
            }
            if dice.chance(2) {
                self.push(
                    stream.clone(),
                    CartEvent::CartReopened {
                        order_id,
                        reason: code("out-of-stock"),
                    },
                );
            } else {
                self.push(stream.clone(), CartEvent::CartRenewed { order_id });
            }
        }
        if dice.chance(2) {
            self.push(stream, CartEvent::CartCleared {});
        }
    }

    fn order(&mut self, dice: &mut Dice, number: u64) {
        let order = order_id(number);
        let stream = StreamId::new(AggregateType::Order, order);
        let payment_id = PaymentId::for_order(order);
        let payment = StreamId::new(AggregateType::Payment, payment_id);
        let stock = |number: u64| StreamId::new(AggregateType::Inventory, &sku(number));
        let lines = [(sku(1), 2, 450), (sku(2), 1, 700)];
        let agreed = placed(order, customer_id(number % 3), &lines, time(number * 86_400));
        let total = agreed.totals.total;
        self.push(stream.clone(), OrderEvent::OrderPlaced(Box::new(agreed)));
        let reserved = |quantity| InventoryEvent::StockReserved {
            order_id: order,
            quantity,
        };
        let released = |quantity| InventoryEvent::ReservationReleased {
            order_id: order,
            quantity,
            reason: ReleaseReason::OrderCancelled,
        };
        self.push(stock(1), reserved(2));
        self.push(stream.clone(), OrderEvent::LineReserved { sku: sku(1) });
        if dice.chance(4) {
            self.push(
                stock(2),
                InventoryEvent::ReservationRejected {
                    order_id: order,
                    quantity: 1,
                    available: 0,
                },
            );
            self.push(
                stream,
                OrderEvent::OrderCancelled {
                    reason: CancelReason::OutOfStock {
                        sku: sku(2),
                        available: 0,
                    },
                    by: ActorKind::System,
                    stage: OrderStage::Placed,
                },
            );
            self.push(stock(1), released(2));
            return;
        }
        self.push(stock(2), reserved(1));
        self.push(stream.clone(), OrderEvent::LineReserved { sku: sku(2) });
        self.push(stream.clone(), OrderEvent::OrderReserved {});
        self.push(
            stream.clone(),
            OrderEvent::PaymentRequired {
                payment_id,
                amount: total,
                method: method(),
            },
        );
        let attempt = self.payment(dice, &payment, order, total);
        if dice.chance(5) {
            self.push(
                stream,
                OrderEvent::OrderCancelled {
                    reason: CancelReason::PaymentTimeout,
                    by: ActorKind::System,
                    stage: OrderStage::AwaitingPayment,
                },
            );
            self.push(stock(1), released(2));
            self.push(stock(2), released(1));
            self.push(
                payment,
                PaymentEvent::PaymentCloseRequested {
                    order_id: order,
                    attempt,
                    reason: code("cancelled"),
                },
            );
            return;
        }
        self.push(
            stream.clone(),
            OrderEvent::OrderPaid {
                payment_id,
                attempt,
                amount: total,
            },
        );
        if dice.chance(2) {
            self.delivery(dice, number, &stream, &payment, attempt);
        }
    }

    /// Returns the attempt that paid.
    fn payment(&mut self, dice: &mut Dice, stream: &StreamId, order_id: OrderId, amount: Money) -> u32 {
        let provider_ref = ProviderRef::new("ch_1").unwrap();
        let mut attempt = 1;
        self.push(
            stream.clone(),
            PaymentEvent::PaymentRequested {
                order_id,
                attempt,
                amount,
                method: method(),
            },
        );
        if dice.chance(3) {
            self.push(
                stream.clone(),
                PaymentEvent::PaymentDeclined {
                    order_id,
                    attempt,
                    code: code("declined"),
                },
            );
            attempt = 2;
            self.push(
                stream.clone(),
                PaymentEvent::PaymentRetried {
                    order_id,
                    attempt,
                    amount,
                    method: method(),
                },
            );
        }
        self.push(
            stream.clone(),
            PaymentEvent::SessionRequested { order_id, attempt },
        );
        self.push(
            stream.clone(),
            PaymentEvent::PaymentSessionCreated {
                order_id,
                attempt,
                provider_ref: provider_ref.clone(),
                checkout_ref: None,
            },
        );
        self.push(
            stream.clone(),
            PaymentEvent::PaymentAuthorized {
                order_id,
                attempt,
                provider_ref: provider_ref.clone(),
                amount,
            },
        );
        self.push(
            stream.clone(),
            PaymentEvent::CaptureRequested {
                order_id,
                attempt,
                amount,
            },
        );
        self.push(
            stream.clone(),
            PaymentEvent::PaymentCaptured {
                order_id,
                attempt,
                provider_ref,
                amount,
            },
        );
        attempt
    }

    fn delivery(
        &mut self,
        dice: &mut Dice,
        number: u64,
        stream: &StreamId,
        payment: &StreamId,
        attempt: u32,
    ) {
        let order = order_id(number);
        let shipment_id = ShipmentId::from_uuid(uuid(5, number));
        let lines = vec![
            LineQuantity {
                line_no: 1,
                quantity: 2,
            },
            LineQuantity {
                line_no: 2,
                quantity: 1,
            },
        ];
        self.push(
            stream.clone(),
            OrderEvent::ShipmentDispatched {
                shipment_id,
                lines,
                carrier: code("post"),
                tracking_number: None,
            },
        );
        for (number, quantity) in [(1, 2), (2, 1)] {
            let stock = StreamId::new(AggregateType::Inventory, &sku(number));
            self.push(
                stock,
                InventoryEvent::ReservationCommitted {
                    order_id: order,
                    quantity,
                },
            );
        }
        self.push(
            stream.clone(),
            OrderEvent::ShipmentDelivered {
                shipment_id,
                delivered_at: time(5),
            },
        );
        if dice.chance(2) {
            self.push(stream.clone(), OrderEvent::OrderCompleted {});
            return;
        }
        self.goods_returned(number, stream, payment, attempt);
    }

    fn goods_returned(&mut self, number: u64, stream: &StreamId, payment: &StreamId, attempt: u32) {
        let order = order_id(number);
        let return_id = ReturnId::from_uuid(uuid(6, number));
        let lines = vec![LineQuantity {
            line_no: 1,
            quantity: 1,
        }];
        self.push(
            stream.clone(),
            OrderEvent::ReturnRequested {
                return_id,
                lines,
                reason: code("too-big"),
                note: None,
            },
        );
        self.push(stream.clone(), OrderEvent::ReturnApproved { return_id });
        let lines = vec![ReturnedLine {
            line_no: 1,
            quantity: 1,
            condition: ReturnCondition::Resaleable,
        }];
        self.push(
            stream.clone(),
            OrderEvent::ReturnReceived {
                return_id,
                lines,
                refund: money(450),
            },
        );
        self.push(
            StreamId::new(AggregateType::Inventory, &sku(1)),
            InventoryEvent::StockReturned {
                order_id: order,
                quantity: 1,
                condition: ReturnCondition::Resaleable,
            },
        );
        let refund_id = RefundId::from_uuid(uuid(7, number));
        let (order_id, amount) = (order, money(450));
        self.push(
            payment.clone(),
            PaymentEvent::RefundRequested {
                order_id,
                attempt,
                refund_id,
                amount,
                reason: code("return"),
            },
        );
        let provider_ref = ProviderRef::new("re_1").unwrap();
        self.push(
            payment.clone(),
            PaymentEvent::RefundSucceeded {
                order_id,
                attempt,
                refund_id,
                provider_ref,
                amount,
            },
        );
        let payment_id = PaymentId::for_order(order);
        self.push(
            stream.clone(),
            OrderEvent::RefundRecorded {
                payment_id,
                attempt,
                refund_id,
                amount,
            },
        );
    }
}
