use std::collections::BTreeMap;

use event_schemas::{
    ActorKind, CancelReason, LineQuantity, Money, MoneyError, OrderEvent, OrderPlaced, OrderStage, PaymentId,
    RefundId, ReturnId, ReturnedLine, Sku,
};

use super::{Order, OrderCommand, OrderError, OrderStatus, Return, ReturnStatus, check_agreement};

type Decision = Result<Vec<OrderEvent>, OrderError>;

pub(super) fn decide(order: &Order, command: &OrderCommand) -> Decision {
    use OrderCommand as C;
    if let C::Place(placed) = command {
        return place(order, placed);
    }
    let placed = order.placed().ok_or(OrderError::NotFound)?;
    match command {
        C::Place(placed) => place(order, placed),
        C::RecordLineReserved { sku } => record_line_reserved(order, placed, sku),
        C::RecordReserved => record_reserved(order, placed),
        C::MarkPaid {
            payment_id,
            attempt,
            amount,
        } => mark_paid(order, placed, *payment_id, *attempt, *amount),
        C::Cancel { reason, by } => cancel(order, reason, *by),
        C::Dispatch {
            shipment_id,
            lines,
            carrier,
            tracking_number,
        } => {
            require(order, &[OrderStatus::Paid, OrderStatus::PartiallyShipped])?;
            if order.shipments.contains_key(shipment_id) {
                return Err(OrderError::DuplicateShipment {
                    shipment_id: *shipment_id,
                });
            }
            check_units(lines, |line_no| order.unshipped_of(line_no))?;
            Ok(vec![OrderEvent::ShipmentDispatched {
                shipment_id: *shipment_id,
                lines: lines.clone(),
                carrier: carrier.clone(),
                tracking_number: tracking_number.clone(),
            }])
        }
        C::RecordDelivered {
            shipment_id,
            delivered_at,
        } => match order.shipments.get(shipment_id) {
            None => Err(OrderError::UnknownShipment {
                shipment_id: *shipment_id,
            }),
            Some(true) => Ok(Vec::new()),
            Some(false) => Ok(vec![OrderEvent::ShipmentDelivered {
                shipment_id: *shipment_id,
                delivered_at: *delivered_at,
            }]),
        },
        C::Complete => complete(order),
        C::RequestReturn {
            return_id,
            lines,
            reason,
            note,
        } => {
            can_request_return(order, *return_id, lines)?;
            let (reason, note) = (reason.clone(), note.clone());
            Ok(vec![OrderEvent::ReturnRequested {
                return_id: *return_id,
                lines: lines.clone(),
                reason,
                note,
            }])
        }
        C::ApproveReturn { return_id } => match return_of(order, *return_id)?.status {
            ReturnStatus::Requested => Ok(vec![OrderEvent::ReturnApproved {
                return_id: *return_id,
            }]),
            ReturnStatus::Approved => Ok(Vec::new()),
            ReturnStatus::Rejected | ReturnStatus::Received => Err(OrderError::ReturnState {
                return_id: *return_id,
            }),
        },
        // An approved return whose goods never come is rejected too.
        C::RejectReturn { return_id, reason } => match return_of(order, *return_id)?.status {
            ReturnStatus::Requested | ReturnStatus::Approved => Ok(vec![OrderEvent::ReturnRejected {
                return_id: *return_id,
                reason: reason.clone(),
            }]),
            ReturnStatus::Rejected => Ok(Vec::new()),
            ReturnStatus::Received => Err(OrderError::ReturnState {
                return_id: *return_id,
            }),
        },
        C::ReceiveReturn {
            return_id,
            lines,
            refund,
        } => receive_return(order, *return_id, lines, *refund),
        C::RecordRefund {
            payment_id,
            attempt,
            refund_id,
            amount,
        } => record_refund(order, *payment_id, *attempt, *refund_id, *amount),
    }
}

fn require(order: &Order, statuses: &[OrderStatus]) -> Result<(), OrderError> {
    if statuses.contains(&order.status) {
        Ok(())
    } else {
        Err(OrderError::WrongStatus { status: order.status })
    }
}

fn place(order: &Order, placed: &OrderPlaced) -> Decision {
    if let Some(present) = order.placed() {
        return if present == placed {
            Ok(Vec::new())
        } else {
            Err(OrderError::AlreadyPlaced)
        };
    }
    check_agreement(&placed.lines, &placed.shipping, &placed.totals)?;
    Ok(vec![OrderEvent::OrderPlaced(Box::new(placed.clone()))])
}

fn record_line_reserved(order: &Order, placed: &OrderPlaced, sku: &Sku) -> Decision {
    if order.status == OrderStatus::Cancelled {
        return Err(OrderError::Cancelled);
    }
    if !order.pending.contains(sku) {
        // Rare, so the lines are searched only here.
        let known = placed.lines.iter().any(|line| line.tracked && line.sku == *sku);
        return if known {
            Ok(Vec::new())
        } else {
            Err(OrderError::UnknownSku { sku: sku.clone() })
        };
    }
    let reserved = OrderEvent::LineReserved { sku: sku.clone() };
    if order.pending.len() > 1 {
        return Ok(vec![reserved]);
    }
    let [all_reserved, payment_required] = payment_follows(placed);
    Ok(vec![reserved, all_reserved, payment_required])
}

fn record_reserved(order: &Order, placed: &OrderPlaced) -> Decision {
    if order.status != OrderStatus::Placed {
        return Ok(Vec::new());
    }
    match order.pending.len() {
        0 => Ok(payment_follows(placed).into()),
        pending => Err(OrderError::NotReserved { pending }),
    }
}

fn payment_follows(placed: &OrderPlaced) -> [OrderEvent; 2] {
    let payment_required = OrderEvent::PaymentRequired {
        payment_id: PaymentId::for_order(placed.order_id),
        amount: placed.totals.total,
        method: placed.payment.clone(),
    };
    [OrderEvent::OrderReserved {}, payment_required]
}

fn mark_paid(
    order: &Order,
    placed: &OrderPlaced,
    payment_id: PaymentId,
    attempt: u32,
    amount: Money,
) -> Decision {
    let total = placed.totals.total;
    // Attempt 0 is nobody's payment: only nothing is paid by it.
    if payment_id != PaymentId::for_order(placed.order_id) || (attempt == 0) != total.is_zero() {
        return Err(OrderError::WrongPayment);
    }
    match &order.paid {
        Some(paid) if paid.attempt == attempt => return Ok(Vec::new()),
        Some(paid) => {
            return Err(OrderError::PaidByAnotherAttempt {
                attempt: paid.attempt,
            });
        }
        None if order.status == OrderStatus::Cancelled => return Err(OrderError::Cancelled),
        None => require(order, &[OrderStatus::AwaitingPayment])?,
    }
    if amount != total {
        return Err(OrderError::WrongAmount { expected: total });
    }
    Ok(vec![OrderEvent::OrderPaid {
        payment_id,
        attempt,
        amount,
    }])
}

fn cancel(order: &Order, reason: &CancelReason, by: ActorKind) -> Decision {
    let stage = match order.status {
        OrderStatus::Placed => OrderStage::Placed,
        OrderStatus::AwaitingPayment => OrderStage::AwaitingPayment,
        OrderStatus::Paid => OrderStage::Paid,
        OrderStatus::Cancelled => return Ok(Vec::new()),
        OrderStatus::Absent
        | OrderStatus::PartiallyShipped
        | OrderStatus::Shipped
        | OrderStatus::Delivered
        | OrderStatus::Completed
        | OrderStatus::ReturnRequested
        | OrderStatus::Returned => {
            return if is_moot(reason, None) {
                Ok(Vec::new())
            } else {
                Err(OrderError::AlreadyShipped)
            };
        }
    };
    if is_moot(reason, Some(stage)) {
        return Ok(Vec::new());
    }
    Ok(vec![OrderEvent::OrderCancelled {
        reason: reason.clone(),
        by,
        stage,
    }])
}

/// A timer or a rejection that comes after what it would have prevented. `stage` is none once shipped.
fn is_moot(reason: &CancelReason, stage: Option<OrderStage>) -> bool {
    match reason {
        CancelReason::PaymentTimeout => {
            !matches!(stage, Some(OrderStage::Placed | OrderStage::AwaitingPayment))
        }
        CancelReason::OutOfStock { .. } => stage != Some(OrderStage::Placed),
        CancelReason::CustomerRequest | CancelReason::Staff { .. } => false,
    }
}

fn complete(order: &Order) -> Decision {
    match order.status {
        OrderStatus::Delivered => Ok(vec![OrderEvent::OrderCompleted {}]),
        OrderStatus::Completed | OrderStatus::Returned => Ok(Vec::new()),
        OrderStatus::ReturnRequested => Err(OrderError::ReturnOpen),
        status => Err(OrderError::WrongStatus { status }),
    }
}

/// At least one line, each once, each with 1 to `left` units; `left` knows no line that is not the order's.
fn check_units(lines: &[LineQuantity], left: impl Fn(u32) -> Option<u32>) -> Result<(), OrderError> {
    let mut units: BTreeMap<u32, u32> = BTreeMap::new();
    for line in lines {
        if units.insert(line.line_no, line.quantity).is_some() {
            return Err(OrderError::InvalidLine {
                line_no: line.line_no,
            });
        }
    }
    check_sums(&units, left)
}

fn check_sums(units: &BTreeMap<u32, u32>, left: impl Fn(u32) -> Option<u32>) -> Result<(), OrderError> {
    if units.is_empty() {
        return Err(OrderError::InvalidLine { line_no: 0 });
    }
    for (line_no, quantity) in units {
        let line_no = *line_no;
        let left = left(line_no)
            .filter(|_| *quantity > 0)
            .ok_or(OrderError::InvalidLine { line_no })?;
        if *quantity > left {
            return Err(OrderError::TooManyUnits { line_no, left });
        }
    }
    Ok(())
}

fn can_request_return(order: &Order, return_id: ReturnId, lines: &[LineQuantity]) -> Result<(), OrderError> {
    if order.status == OrderStatus::ReturnRequested {
        return Err(OrderError::ReturnOpen);
    }
    require(order, &[OrderStatus::Delivered])?;
    if order.returns.contains_key(&return_id) {
        return Err(OrderError::DuplicateReturn { return_id });
    }
    check_units(lines, |line_no| order.returnable_of(line_no))
}

fn return_of(order: &Order, return_id: ReturnId) -> Result<&Return, OrderError> {
    order
        .returns
        .get(&return_id)
        .ok_or(OrderError::UnknownReturn { return_id })
}

fn receive_return(order: &Order, return_id: ReturnId, lines: &[ReturnedLine], refund: Money) -> Decision {
    let requested = return_of(order, return_id)?;
    match requested.status {
        ReturnStatus::Approved => {}
        ReturnStatus::Received => return Ok(Vec::new()),
        ReturnStatus::Requested | ReturnStatus::Rejected => {
            return Err(OrderError::ReturnState { return_id });
        }
    }
    let mut units: BTreeMap<u32, u32> = BTreeMap::new();
    for line in lines {
        let sum = units.entry(line.line_no).or_default();
        // A part without units must not hide behind another part of its line.
        *sum = sum
            .checked_add(line.quantity)
            .filter(|_| line.quantity > 0)
            .ok_or(OrderError::InvalidLine {
                line_no: line.line_no,
            })?;
    }
    check_sums(&units, |line_no| {
        requested
            .lines
            .iter()
            .find(|line| line.line_no == line_no)
            .map(|line| line.quantity)
    })?;
    let left = order.refundable()?;
    if left.checked_sub(refund)?.is_negative() || refund.is_negative() {
        return Err(OrderError::RefundExceedsPaid { left });
    }
    Ok(vec![OrderEvent::ReturnReceived {
        return_id,
        lines: lines.to_vec(),
        refund,
    }])
}

fn record_refund(
    order: &Order,
    payment_id: PaymentId,
    attempt: u32,
    refund_id: RefundId,
    amount: Money,
) -> Decision {
    let paid_it = order
        .paid
        .is_some_and(|paid| paid.payment_id == payment_id && paid.attempt == attempt);
    if !paid_it || order.refunds.contains_key(&refund_id) {
        return Ok(Vec::new());
    }
    let left = order.refundable()?;
    if left.checked_sub(amount)?.is_negative() {
        return Err(OrderError::RefundExceedsPaid { left });
    }
    if amount.amount() <= 0 {
        return Err(MoneyError::OutOfRange.into());
    }
    Ok(vec![OrderEvent::RefundRecorded {
        payment_id,
        attempt,
        refund_id,
        amount,
    }])
}
