//! Lines as JSON.

use std::borrow::Cow;

use event_schemas::{AggregateId, CommandId, Position, Timestamp, Version};
use event_store::{Fingerprint, RawEvent, RawReceipt};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{End, Header, Line};

const JSON: &str = "application/json";
/// Of a payload that is no JSON: it travels all the same.
const TEXT: &str = "text/plain";

/// A line that is no event.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Other<'a> {
    Header(Header),
    Sagas {
        partition: String,
        position: Position,
    },
    Row {
        table: String,
        values: serde_json::Map<String, serde_json::Value>,
    },
    #[serde(borrow)]
    Receipt(ReceiptLine<'a>),
    End(End),
}

#[derive(Serialize, Deserialize)]
pub(super) struct ReceiptLine<'a> {
    #[serde(borrow)]
    stream: Cow<'a, str>,
    command_id: CommandId,
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint_key: Option<String>,
    /// Hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    first: Version,
    last: Version,
    position: Position,
    recorded_at: Timestamp,
}

/// `data` is the payload as the log has it. The names below it are extension attributes, whose values are text.
#[derive(Serialize, Deserialize)]
pub(super) struct EventLine<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    event_type: Cow<'a, str>,
    time: Timestamp,
    #[serde(borrow)]
    datacontenttype: Cow<'a, str>,
    #[serde(borrow)]
    data: Cow<'a, RawValue>,
    #[serde(borrow)]
    eventversion: Cow<'a, str>,
    #[serde(borrow)]
    position: Cow<'a, str>,
    /// JSON as the log has it.
    #[serde(borrow)]
    metadata: Cow<'a, str>,
    #[serde(flatten)]
    of_metadata: OfMetadata<'a>,
}

/// What others may want without taking `metadata` apart.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct OfMetadata<'a> {
    #[serde(
        borrow,
        default,
        alias = "correlation_id",
        skip_serializing_if = "Option::is_none"
    )]
    correlationid: Option<Cow<'a, str>>,
    #[serde(
        borrow,
        default,
        alias = "causation_id",
        skip_serializing_if = "Option::is_none"
    )]
    causationid: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<Cow<'a, str>>,
}

/// The event as it is written, from `source`.
pub(super) fn event_line<'a>(
    event: &'a RawEvent,
    source: &'a str,
) -> Result<EventLine<'a>, serde_json::Error> {
    let payload = event.payload.as_str();
    let json = serde_json::from_str::<&RawValue>(payload).ok();
    // As it is, or not as JSON at all: every byte of it has to come back.
    let json = json.filter(|json| json.get() == payload && !payload.contains('\n'));
    let (datacontenttype, data) = match json {
        Some(json) => (JSON, Cow::Borrowed(json)),
        None => (TEXT, Cow::Owned(serde_json::value::to_raw_value(payload)?)),
    };
    Ok(EventLine {
        specversion: "1.0".into(),
        id: format!(
            "{}/{}/{}",
            event.aggregate_type, event.aggregate_id, event.version
        )
        .into(),
        source: source.into(),
        event_type: event.event_type.as_str().into(),
        time: event.recorded_at,
        datacontenttype: datacontenttype.into(),
        data,
        eventversion: event.event_version.as_str().into(),
        position: event.position.to_string().into(),
        metadata: event.metadata.as_str().into(),
        of_metadata: serde_json::from_str(&event.metadata).unwrap_or_default(),
    })
}

/// The receipt as it is written.
pub(super) fn receipt_line(receipt: &RawReceipt) -> ReceiptLine<'_> {
    let fingerprint = receipt.fingerprint.as_ref();
    ReceiptLine {
        stream: format!("{}/{}", receipt.aggregate_type, receipt.aggregate_id).into(),
        command_id: receipt.command_id,
        fingerprint_key: fingerprint.map(|fingerprint| fingerprint.key_id.to_string()),
        fingerprint: fingerprint.map(|fingerprint| hex(&fingerprint.mac)),
        first: receipt.first,
        last: receipt.last,
        position: receipt.position,
        recorded_at: receipt.recorded_at,
    }
}

/// What the bytes say.
pub(super) fn parse(line: &[u8]) -> Result<Line, String> {
    let text = std::str::from_utf8(line).map_err(|error| error.to_string())?;
    if text.starts_with("{\"specversion\"") {
        return event(serde_json::from_str(text).map_err(|error| error.to_string())?);
    }
    Ok(
        match serde_json::from_str(text).map_err(|error| error.to_string())? {
            Other::Header(header) => Line::Header(header),
            Other::Sagas { partition, position } => Line::Sagas { partition, position },
            Other::Row { table, values } => Line::Row { table, values },
            Other::Receipt(receipt) => Line::Receipt(receipt_of(receipt)?),
            Other::End(end) => Line::End(end),
        },
    )
}

fn event(line: EventLine<'_>) -> Result<Line, String> {
    let names = || {
        let (aggregate_type, rest) = line.id.split_once('/')?;
        let (aggregate_id, version) = rest.rsplit_once('/')?;
        Some((aggregate_type, aggregate_id, Version(version.parse().ok()?)))
    };
    let (aggregate_type, aggregate_id, version) = names().ok_or("id is not <type>/<id>/<sequence>")?;
    let payload = if line.datacontenttype == JSON {
        line.data.get().to_owned()
    } else {
        serde_json::from_str(line.data.get()).map_err(|error| error.to_string())?
    };
    Ok(Line::Event(RawEvent {
        position: Position(line.position.parse().map_err(|_| "position is no number")?),
        aggregate_type: aggregate_type.to_owned(),
        aggregate_id: AggregateId::from(aggregate_id),
        version,
        event_type: line.event_type.into_owned(),
        event_version: line.eventversion.into_owned(),
        payload,
        metadata: line.metadata.into_owned(),
        recorded_at: line.time,
    }))
}

fn receipt_of(line: ReceiptLine<'_>) -> Result<RawReceipt, String> {
    let (aggregate_type, aggregate_id) = line.stream.split_once('/').ok_or("stream is not <type>/<id>")?;
    let mac = line
        .fingerprint
        .as_deref()
        .map(|text| unhex(text).ok_or("fingerprint is no MAC"));
    Ok(RawReceipt {
        aggregate_type: aggregate_type.to_owned(),
        aggregate_id: AggregateId::from(aggregate_id),
        command_id: line.command_id,
        fingerprint: line
            .fingerprint_key
            .zip(mac.transpose()?)
            .map(|(key_id, mac)| Fingerprint {
                key_id: key_id.into(),
                mac,
            }),
        first: line.first,
        last: line.last,
        position: line.position,
        recorded_at: line.recorded_at,
    })
}

/// Hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
