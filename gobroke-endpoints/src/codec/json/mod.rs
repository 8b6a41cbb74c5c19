//! [`JsonCodec`]: frames are JSON objects.

mod read;
mod write;

use gobroke_core::{Client, CloseReason, ErrorFrame, Format, Message, Name};

use super::{Codec, Frame, FrameError, Inbound};

/// Frames are JSON objects that say whom they are for, as WebSocket subprotocol `gobroke.json.v1`.
///
/// From a client:
/// ```json
/// {"id": "0190d4f5-8e0b-7c3a-9d2e-1f2a3b4c5d6e",
///  "to": {"logic": ["rooms"], "clients": ["0190d4f5-..."], "groups": ["lobby"]},
///  "payload": {"any": "JSON"},
///  "metadata": {"trace": 7}}
/// ```
/// Only `payload` has to be there (or `payload_base64`, for bytes that are not JSON). Without `id` the message gets
/// one, without `to` it goes to the codec's default logic module. Other names are passed over.
///
/// To a client:
/// - `{"welcome": {"client": uuid, "instance": name}}` comes first.
/// - `{"id": uuid, "from": {"client": uuid}, "payload": any, "metadata": {..}}` is a message; `from` is
///   `{"logic": name}` where a logic module sent it, and missing where the program itself did; `metadata` is missing
///   where there is none. A payload that is not JSON comes as `"payload_base64"` (RFC 4648, section 4, with padding).
/// - `{"error": {"code": "bad_frame", "message": "..", "id": uuid}}` says that something the client sent went nowhere;
///   `id` is there where that had one. Codes of this codec: `bad_frame` (not an object of the form above) and
///   `not_allowed` (it names somebody whom the client may not address); the router has more (`unknown_logic`, `busy`).
///
/// Whether the other side is still there can be asked with `{"ping": {}}`, which is answered with `{"pong": {}}`:
/// browsers cannot send WebSocket's own pings. Over TCP, which has no ping and no close of its own, the server asks
/// so too, and `{"close": {"code": 1009, "reason": ".."}}` is the last frame before the end
/// (codes: [`CloseReason`]).
///
/// A client may address only what is allowed here: the default logic module and those of
/// [`allow_logic`](Self::allow_logic); other clients and groups where they are switched on.
///
/// Payloads share memory as those of [`RawCodec`](super::RawCodec) do.
///
/// ```
/// use gobroke_endpoints::codec::JsonCodec;
/// let codec = JsonCodec::to_logic("chat").allow_logic(["rooms", "history"]).allow_groups(true);
/// ```
#[derive(Clone, Debug)]
pub struct JsonCodec {
    /// Where a message without `to` goes.
    default_logic: Option<Name>,
    /// What may be named in `to.logic`, the default included.
    logic: Vec<Name>,
    clients: bool,
    groups: bool,
    max_targets: usize,
}

impl JsonCodec {
    /// Frames without `to` go to this logic module.
    pub fn to_logic(logic: impl Into<Name>) -> Self {
        let logic = logic.into();
        Self {
            default_logic: Some(logic.clone()),
            logic: vec![logic],
            ..Self::new()
        }
    }

    /// Frames without `to` have no target: receive middleware gives them one.
    pub fn new() -> Self {
        Self {
            default_logic: None,
            logic: Vec::new(),
            clients: false,
            groups: false,
            max_targets: 256,
        }
    }

    /// Lets clients address these logic modules too.
    #[must_use]
    pub fn allow_logic<I>(mut self, logic: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Name>,
    {
        self.logic.extend(logic.into_iter().map(Into::into));
        self
    }

    /// Whether clients may address other clients. Default: no.
    #[must_use]
    pub fn allow_clients(mut self, allow: bool) -> Self {
        self.clients = allow;
        self
    }

    /// Whether clients may address groups, joined or not. Default: no.
    #[must_use]
    pub fn allow_groups(mut self, allow: bool) -> Self {
        self.groups = allow;
        self
    }

    /// How many targets one frame may name. Default: 256.
    #[must_use]
    pub fn max_targets(mut self, max: usize) -> Self {
        self.max_targets = max;
        self
    }
}

impl Default for JsonCodec {
    fn default() -> Self {
        Self::new()
    }
}

impl Codec for JsonCodec {
    fn decode(&self, frame: Frame<'_>) -> Result<Inbound, FrameError> {
        self.read(frame)
    }

    fn encode(&self, message: &Message, out: &mut Vec<u8>) {
        write::message(message, out);
    }

    fn size_hint(&self, message: &Message) -> usize {
        // `{"id":"<36>","from":{"client":"<36>"},"payload":}` is 118 bytes.
        message.payload().len() + 118
    }

    fn format(&self) -> Option<Format> {
        Some(Format::Text)
    }

    fn subprotocol(&self) -> Option<&str> {
        Some("gobroke.json.v1")
    }

    fn welcome(&self, client: &Client, instance: &Name, out: &mut Vec<u8>) {
        write::welcome(client.id(), instance, out);
    }

    fn error(&self, error: &ErrorFrame<'_>, out: &mut Vec<u8>) {
        write::error(error, out);
    }

    fn ping(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"ping":{}}"#);
    }

    fn pong(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"pong":{}}"#);
    }

    fn close(&self, reason: &CloseReason, out: &mut Vec<u8>) {
        write::close(reason, out);
    }
}
