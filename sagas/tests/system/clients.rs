//! What customers and staff do. Each step picks among what there is; where there is nothing, it does nothing.

use std::collections::BTreeMap;

use aggregates::cart::{CartCommand, CheckOut};
use aggregates::inventory::InventoryCommand;
use aggregates::order::{self, OrderCommand, OrderStatus, ReturnStatus};
use aggregates::payment::{Payment, PaymentCommand, PaymentStatus};
use event_schemas::{
    ActorKind, AggregateId, CancelReason, CartEvent, CartId, CartLine, Code, CommandId, CountryCode,
    Currency, CustomerId, Event, LineQuantity, Money, OrderEvent, OrderId, OrderLine, OrderPlaced, PaymentId,
    PaymentMethod, ProductId, Reference, ReturnCondition, ReturnId, ReturnedLine, ShipmentId, ShippingCharge,
    Sku, Timestamp,
};
use sagas::policies::{Command, Refused, merge_command, place_order_command};

use super::provider::BEHAVIOURS;
use super::world::{World, pick};

/// SKU, price, tracked. One is free, one is not kept in stock, one is both.
const CATALOGUE: [(&str, i64, bool); 5] = [
    ("MUG", 500, true),
    ("CUP", 333, true),
    ("GIFT", 0, true),
    ("POST", 199, false),
    ("CARD", 0, false),
];
const CUSTOMERS: u8 = 4;
const TO_DEADLINE: std::time::Duration = std::time::Duration::from_secs(1800);

/// Choices are indexes, taken modulo what there is to choose from.
#[derive(Debug, Clone)]
pub enum Deed {
    Receive {
        sku: usize,
        quantity: u32,
    },
    TakeAway {
        sku: usize,
        quantity: u32,
    },
    AddItem {
        customer: u8,
        sku: usize,
        quantity: u32,
    },
    /// `placed`: the handler lives long enough to place the order too.
    CheckOut {
        customer: u8,
        means: usize,
        placed: bool,
    },
    /// `merged`: as above.
    Merge {
        from: u8,
        into: u8,
        merged: bool,
    },
    /// Staff place an order of two lines of one SKU, at two prices, and one of another.
    PlaceForCustomer {
        customer: u8,
        sku: usize,
        means: usize,
    },
    Cancel {
        order: usize,
        staff: bool,
    },
    Retry {
        order: usize,
        means: usize,
    },
    Ship {
        order: usize,
        all: bool,
    },
    Deliver {
        order: usize,
    },
    /// From the request to the goods' arrival, one step at a time.
    Return {
        order: usize,
        damaged: bool,
    },
    /// A client that heard no answer sends a command again, under the same key.
    Repeat {
        command: usize,
    },
}

#[derive(Default)]
pub struct Clients {
    sent: Vec<(CommandId, Command)>,
}

fn sku(index: usize) -> Sku {
    Sku::new(CATALOGUE[index % CATALOGUE.len()].0).unwrap()
}

fn gbp(amount: i64) -> Money {
    Money::new(amount, Currency::GBP).unwrap()
}

fn code(text: &str) -> Code {
    Code::new(text).unwrap()
}

fn customer(number: u8) -> CustomerId {
    CustomerId::generate(Timestamp::UNIX_EPOCH, &[number % CUSTOMERS; 10])
}

fn method(means: usize) -> PaymentMethod {
    let behaviour = BEHAVIOURS[means % BEHAVIOURS.len()];
    PaymentMethod {
        method: code(behaviour),
        provider: code("model"),
        secret_ref: None,
    }
}

fn shipping() -> ShippingCharge {
    let tax = order::tax(gbp(0), code("none"), 0, true).unwrap();
    ShippingCharge {
        price: gbp(0),
        discount: gbp(0),
        tax,
    }
}

fn line(line_no: u32, sku: &Sku, quantity: u32, discount: i64) -> OrderLine {
    let (_, price, tracked) = CATALOGUE
        .into_iter()
        .find(|(of, ..)| *of == sku.as_str())
        .unwrap();
    let net = gbp(price * i64::from(quantity) - discount.min(price));
    OrderLine {
        line_no,
        sku: sku.clone(),
        product_id: product(),
        title: sku.to_string(),
        unit_price: gbp(price),
        quantity,
        discount: gbp(discount.min(price)),
        tax: order::tax(net, code("standard"), 200_000, true).unwrap(),
        tracked,
    }
}

fn product() -> ProductId {
    ProductId::generate(Timestamp::UNIX_EPOCH, &[1; 10])
}

impl Clients {
    /// Every SKU belongs to a product, and some are in stock.
    pub fn open_shop(&mut self, world: &mut World) {
        for index in 0..CATALOGUE.len() {
            self.send(
                world,
                Command::Inventory(
                    sku(index),
                    InventoryCommand::AssignSku {
                        product_id: product(),
                    },
                ),
            );
            self.act(
                world,
                &Deed::Receive {
                    sku: index,
                    quantity: 5,
                },
            );
        }
        world.db.commit();
    }

    /// Sends a command under a fresh key. The answer comes when it is durable, which is later.
    fn send(&mut self, world: &mut World, command: Command) -> Option<Refused> {
        let id = world.fresh_id();
        self.send_as(world, id, command)
    }

    fn send_as(&mut self, world: &mut World, id: CommandId, command: Command) -> Option<Refused> {
        let refused = world.execute(id, &command).err();
        self.sent.push((id, command));
        refused
    }

    pub fn act(&mut self, world: &mut World, deed: &Deed) {
        match *deed {
            Deed::Receive { sku: index, quantity } => {
                let reference = Reference::new("delivery").unwrap();
                let receive = InventoryCommand::Receive { quantity, reference };
                self.send(world, Command::Inventory(sku(index), receive));
            }
            Deed::TakeAway { sku: index, quantity } => {
                let adjust = InventoryCommand::Adjust {
                    delta: -i64::from(quantity),
                    reason: code("count"),
                };
                self.send(world, Command::Inventory(sku(index), adjust));
            }
            Deed::AddItem {
                customer: number,
                sku: index,
                quantity,
            } => {
                let owner = customer(number);
                let add = CartCommand::AddItem {
                    owner,
                    sku: sku(index),
                    quantity,
                };
                self.send(world, Command::Cart(CartId::for_owner(owner), add));
            }
            Deed::CheckOut {
                customer: number,
                means,
                placed,
            } => self.check_out(world, number, means, placed),
            Deed::Merge { from, into, merged } => self.merge(world, from, into, merged),
            Deed::PlaceForCustomer {
                customer: number,
                sku: index,
                means,
            } => {
                self.place(world, number, index, means);
            }
            Deed::Cancel { order, staff } => {
                let Some(order_id) = any_order(world, order) else {
                    return;
                };
                let (reason, by) = if staff {
                    (
                        CancelReason::Staff {
                            code: code("mistake"),
                        },
                        ActorKind::Staff,
                    )
                } else {
                    (CancelReason::CustomerRequest, ActorKind::Customer)
                };
                self.send(
                    world,
                    Command::Order(order_id, OrderCommand::Cancel { reason, by }),
                );
            }
            Deed::Retry { order, means } => {
                let Some(payment_id) = declined_payment(world, order) else {
                    return;
                };
                let retry = PaymentCommand::Retry {
                    method: method(means),
                };
                self.send(world, Command::Payment(payment_id, retry));
            }
            Deed::Ship { order, all } => self.ship(world, order, all),
            Deed::Deliver { order } => self.deliver(world, order),
            Deed::Return { order, damaged } => self.take_back(world, order, damaged),
            Deed::Repeat { command } => {
                if let Some((id, command)) = pick(&self.sent, command) {
                    let _ = world.execute(id, &command);
                }
            }
        }
    }

    fn check_out(&mut self, world: &mut World, number: u8, means: usize, placed: bool) {
        let cart_id = CartId::for_owner(customer(number));
        let id = AggregateId::from(cart_id);
        let lines = world
            .db
            .tables
            .carts
            .get(&id)
            .map(|cart| cart.lines().to_vec())
            .unwrap_or_default();
        let priced = |(line_no, item): (u32, &CartLine)| line(line_no, &item.sku, item.quantity, 0);
        let lines: Vec<OrderLine> = (1..).zip(&lines).map(priced).collect();
        let check_out = CheckOut {
            totals: order::totals(&lines, &shipping()).unwrap(),
            lines,
            shipping: shipping(),
            country: CountryCode::new("GB").unwrap(),
            payment: method(means),
            occurred_at: world.now,
            payment_deadline: world.now + TO_DEADLINE,
        };
        let before = world.db.tables.log.len();
        let refused = self.send(
            world,
            Command::Cart(cart_id, CartCommand::CheckOut(Box::new(check_out))),
        );
        if refused.is_some() || !placed {
            return;
        }
        // The order is placed once the check-out is durable.
        world.db.commit();
        let Some(recorded) = world.db.tables.log[before..].last().cloned() else {
            return;
        };
        if let Event::Cart(CartEvent::CartCheckedOut(event)) = &recorded.event {
            let (id, order_id, command) = place_order_command(&recorded.id(), event);
            self.send_as(world, id, Command::Order(order_id, command));
        }
    }

    fn merge(&mut self, world: &mut World, from: u8, into: u8, merged: bool) {
        let (from, target_owner) = (CartId::for_owner(customer(from)), customer(into));
        let before = world.db.tables.log.len();
        let refused = self.send(
            world,
            Command::Cart(from, CartCommand::MergeInto { target_owner }),
        );
        if refused.is_some() || !merged {
            return;
        }
        world.db.commit();
        let Some(recorded) = world.db.tables.log[before..].last().cloned() else {
            return;
        };
        if let Event::Cart(CartEvent::CartMergedInto { target, lines, .. }) = &recorded.event {
            let (id, command) = merge_command(&recorded.id(), from, *target, target_owner, lines.clone());
            self.send_as(world, id, Command::Cart(*target, command));
        }
    }

    fn place(&mut self, world: &mut World, number: u8, index: usize, means: usize) {
        let id = world.fresh_id();
        let order_id = OrderId::for_command(id);
        let (one, other) = (sku(index), sku(index + 1));
        let lines = vec![line(1, &one, 1, 0), line(2, &other, 1, 0), line(3, &one, 1, 50)];
        let placed = OrderPlaced {
            order_id,
            customer: customer(number),
            totals: order::totals(&lines, &shipping()).unwrap(),
            lines,
            shipping: shipping(),
            country: CountryCode::new("GB").unwrap(),
            cart_id: None,
            payment: method(means),
            occurred_at: world.now,
            payment_deadline: world.now + TO_DEADLINE,
        };
        self.send_as(
            world,
            id,
            Command::Order(order_id, OrderCommand::Place(Box::new(placed))),
        );
    }

    fn ship(&mut self, world: &mut World, choice: usize, all: bool) {
        let Some(order_id) = order_in(world, choice, &[OrderStatus::Paid, OrderStatus::PartiallyShipped])
        else {
            return;
        };
        let order = world.order(&order_id.into());
        let line_count = order.placed().unwrap().lines.len() as u32;
        let unshipped = |line_no| order.unshipped_of(line_no).filter(|left| *left > 0);
        let left = (1..=line_count).filter_map(|line_no| {
            Some(LineQuantity {
                line_no,
                quantity: unshipped(line_no)?,
            })
        });
        let lines: Vec<_> = if all {
            left.collect()
        } else {
            left.take(1)
                .map(|line| LineQuantity { quantity: 1, ..line })
                .collect()
        };
        let id = world.fresh_id();
        let dispatch = OrderCommand::Dispatch {
            shipment_id: ShipmentId::for_command(id),
            lines,
            carrier: code("post"),
            tracking_number: None,
        };
        self.send_as(world, id, Command::Order(order_id, dispatch));
    }

    fn deliver(&mut self, world: &mut World, choice: usize) {
        let shipments: Vec<(OrderId, ShipmentId)> = world
            .db
            .tables
            .log
            .iter()
            .filter_map(|recorded| match &recorded.event {
                Event::Order(OrderEvent::ShipmentDispatched { shipment_id, .. }) => Some((
                    recorded.stream.aggregate_id.as_str().parse().unwrap(),
                    *shipment_id,
                )),
                _ => None,
            })
            .collect();
        let Some((order_id, shipment_id)) = pick(&shipments, choice) else {
            return;
        };
        let delivered_at = world.now;
        let deliver = OrderCommand::RecordDelivered {
            shipment_id,
            delivered_at,
        };
        self.send(world, Command::Order(order_id, deliver));
    }

    fn take_back(&mut self, world: &mut World, choice: usize, damaged: bool) {
        let statuses = [OrderStatus::Delivered, OrderStatus::ReturnRequested];
        let Some(order_id) = order_in(world, choice, &statuses) else {
            return;
        };
        let fresh = world.fresh_id();
        let order = world.order(&order_id.into());
        let open = order
            .returns()
            .iter()
            .find(|(_, of)| matches!(of.status, ReturnStatus::Requested | ReturnStatus::Approved));
        let command = match open.map(|(return_id, of)| (*return_id, of)) {
            None => {
                let return_id = ReturnId::for_command(fresh);
                // One unit of each line: of an order of staff that is two lines of one SKU.
                let line_count = order.placed().unwrap().lines.len() as u32;
                let left = (1..=line_count).filter(|line_no| order.returnable_of(*line_no) > Some(0));
                let lines = left
                    .map(|line_no| LineQuantity { line_no, quantity: 1 })
                    .collect();
                OrderCommand::RequestReturn {
                    return_id,
                    lines,
                    reason: code("unwanted"),
                    note: None,
                }
            }
            Some((return_id, of)) if of.status == ReturnStatus::Requested => {
                OrderCommand::ApproveReturn { return_id }
            }
            Some((return_id, of)) => {
                let condition = if damaged {
                    ReturnCondition::Damaged
                } else {
                    ReturnCondition::Resaleable
                };
                let left = order.paid().unwrap().amount.amount() - order.refunded();
                let returned = |line: &LineQuantity| ReturnedLine {
                    line_no: line.line_no,
                    quantity: line.quantity,
                    condition,
                };
                let price = |line: &LineQuantity| order.line(line.line_no).unwrap().unit_price.amount();
                OrderCommand::ReceiveReturn {
                    return_id,
                    lines: of.lines.iter().map(returned).collect(),
                    refund: gbp(of.lines.iter().map(price).sum::<i64>().min(left)),
                }
            }
        };
        self.send(world, Command::Order(order_id, command));
    }
}

fn any_order(world: &World, choice: usize) -> Option<OrderId> {
    let ids: Vec<&AggregateId> = world.db.tables.orders.keys().collect();
    pick(&ids, choice).map(|id| id.as_str().parse().unwrap())
}

fn declined_payment(world: &World, choice: usize) -> Option<PaymentId> {
    let declined = |payment: &Payment| payment.status() == PaymentStatus::Declined && !payment.is_closed();
    let payments = world
        .db
        .tables
        .payments
        .iter()
        .filter(|(_, payment)| declined(payment));
    let ids: Vec<&AggregateId> = payments.map(|(id, _)| id).collect();
    pick(&ids, choice).map(|id| id.as_str().parse().unwrap())
}

fn order_in(world: &World, choice: usize, statuses: &[OrderStatus]) -> Option<OrderId> {
    let orders: BTreeMap<_, _> = world.db.tables.orders.iter().collect();
    let fitting: Vec<_> = orders
        .into_iter()
        .filter(|(_, order)| statuses.contains(&order.status()))
        .collect();
    pick(&fitting, choice).map(|(id, _)| id.as_str().parse().unwrap())
}
