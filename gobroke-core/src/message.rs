//! What travels: [`Message`], where it comes from ([`Source`]) and where it goes ([`Targets`]).

mod parts;
mod targets;

use std::{any::Any, sync::Arc};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

pub(crate) use self::parts::More;
pub use self::{
    parts::{Metadata, Tags},
    targets::{Target, Targets},
};
use crate::{ClientId, CloseReason, MessageId, Name, delivery::Overflow};

/// A message on its way: an id, a source, targets, a payload, and what middleware and logic noted on it.
///
/// `Clone` is cheap: the payload and all that is shared is counted, not copied, and nothing that is empty is
/// allocated. Constructors read as a sentence:
///
/// ```
/// use gobroke_core::Message;
/// let message = Message::new("hello").to_group("lobby").with_tag("priority", "high");
/// assert_eq!(message.payload().as_ref(), b"hello");
/// assert_eq!(message.tag("priority").and_then(|tag| tag.as_str()), Some("high"));
/// ```
#[derive(Clone, Debug)]
pub struct Message {
    id: MessageId,
    source: Source,
    targets: Targets,
    payload: Bytes,
    more: Option<Arc<More>>,
    state: State,
    format: Format,
    overflow: Option<Overflow>,
    hops: u8,
    /// It found no room and came back: it has been through the middleware.
    came_back: bool,
}

/// Who sent a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Source {
    /// The program itself, through [`Broke::send`](crate::Broke::send).
    #[default]
    Server,
    /// A client, by its endpoint.
    Client(ClientId),
    /// A logic module.
    Logic(Name),
}

/// Whether a message goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// It goes on. What every message starts with.
    #[default]
    Accepted,
    /// Middleware stopped it; [`Message::reject_reason`] says why.
    Rejected,
}

/// What the payload's bytes are, for transports that tell text from binary (WebSocket's two kinds of data frames).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Any bytes.
    #[default]
    Binary,
    /// UTF-8 text.
    Text,
}

impl Message {
    /// A message with this payload, with no target yet.
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self::with_id(MessageId::new(), payload.into())
    }

    pub(crate) fn with_id(id: MessageId, payload: Bytes) -> Self {
        Self {
            id,
            source: Source::Server,
            targets: Targets::default(),
            payload,
            more: None,
            state: State::Accepted,
            format: Format::Binary,
            overflow: None,
            hops: 0,
            came_back: false,
        }
    }

    /// A text message.
    pub fn text(payload: impl Into<String>) -> Self {
        Self::new(payload.into()).with_format(Format::Text)
    }

    /// A message whose payload is `value` as JSON.
    ///
    /// # Errors
    /// What `serde_json` says when `value` has no JSON form (a map with keys that are not strings, for example).
    ///
    /// ```
    /// use gobroke_core::Message;
    /// let message = Message::json(&serde_json::json!({"x": 1}))?;
    /// let value: serde_json::Value = message.parse()?;
    /// assert_eq!(value["x"], 1);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        Ok(Self::new(serde_json::to_vec(value)?).with_format(Format::Text))
    }

    /// The payload read as JSON.
    ///
    /// # Errors
    /// What `serde_json` says of a payload that is not JSON or not a `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.payload)
    }

    /// Adds a client to the targets.
    #[must_use]
    pub fn to_client(mut self, client: ClientId) -> Self {
        self.targets.add(Target::Client(client));
        self
    }

    /// Adds a group to the targets: every client that joined it.
    #[must_use]
    pub fn to_group(mut self, group: impl Into<Name>) -> Self {
        self.targets.add(Target::Group(group.into()));
        self
    }

    /// Adds every client to the targets.
    #[must_use]
    pub fn to_all(mut self) -> Self {
        self.targets.add(Target::All);
        self
    }

    /// Adds a logic module to the targets.
    #[must_use]
    pub fn to_logic(mut self, logic: impl Into<Name>) -> Self {
        self.targets.add(Target::Logic(logic.into()));
        self
    }

    /// Leaves a client out, however many targets include it: a room without the sender.
    #[must_use]
    pub fn except(mut self, client: ClientId) -> Self {
        self.targets.exclude(client);
        self
    }

    /// Adds a metadata entry; see [`Message::metadata`].
    #[must_use]
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata_mut().insert(key.into(), value.into());
        self
    }

    /// Adds a tag; see [`Message::tags`].
    #[must_use]
    pub fn with_tag(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.add_tag(key, value);
        self
    }

    /// Says whether the payload is text or binary. Default: binary.
    #[must_use]
    pub fn with_format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Overrides, for this message, what happens at a receiver whose outbox is full. Default: the endpoint's policy.
    #[must_use]
    pub fn with_overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = Some(overflow);
        self
    }

    /// Gives it an id that is known already: the one that a client's frame carried.
    #[must_use]
    pub fn with_message_id(mut self, id: MessageId) -> Self {
        self.id = id;
        self
    }

    /// Replaces the payload.
    #[must_use]
    pub fn with_payload(mut self, payload: impl Into<Bytes>) -> Self {
        self.payload = payload.into();
        self
    }

    /// The id.
    pub fn id(&self) -> MessageId {
        self.id
    }

    /// Who sent it.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The client that sent it, where one did.
    pub fn client(&self) -> Option<ClientId> {
        match self.source {
            Source::Client(id) => Some(id),
            _ => None,
        }
    }

    /// The instance that it came from, where that is another one.
    pub fn instance(&self) -> Option<&Name> {
        self.more.as_ref()?.instance.as_ref()
    }

    /// Where it goes.
    pub fn targets(&self) -> &Targets {
        &self.targets
    }

    /// Where it goes, to change it.
    pub fn targets_mut(&mut self) -> &mut Targets {
        &mut self.targets
    }

    /// The payload.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Replaces the payload: for middleware that unpacks, decrypts or rewrites.
    pub fn set_payload(&mut self, payload: impl Into<Bytes>) {
        self.payload = payload.into();
    }

    /// Whether the payload is text or binary.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The overflow policy of this message alone, where it has one.
    pub fn overflow(&self) -> Option<Overflow> {
        self.overflow
    }

    /// Context that travels with the message, to clients (where the codec shows it) and to other instances.
    pub fn metadata(&self) -> &Metadata {
        self.more
            .as_ref()
            .map_or(parts::empty(), |more| &more.metadata)
    }

    /// The metadata, to change it.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.more_mut().metadata
    }

    /// Notes of middleware and logic on the message. They travel to other instances, never to clients.
    pub fn tags(&self) -> &Tags {
        self.more.as_ref().map_or(parts::empty(), |more| &more.tags)
    }

    /// One tag.
    pub fn tag(&self, key: &str) -> Option<&Value> {
        self.more.as_ref()?.tags.get(key)
    }

    /// Adds a tag, or replaces the one of that key.
    pub fn add_tag(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        self.more_mut().tags.insert(key.into(), value.into());
    }

    /// Takes a tag off the message.
    pub fn remove_tag(&mut self, key: &str) -> Option<Value> {
        self.tag(key)?;
        self.more_mut().tags.remove(key)
    }

    /// A value that middleware left on the message, by its type. Extensions stay on this instance.
    ///
    /// ```
    /// use gobroke_core::Message;
    /// #[derive(PartialEq, Debug)]
    /// struct Verified(bool);
    /// let mut message = Message::new("x");
    /// message.set_extension(Verified(true));
    /// assert_eq!(message.extension::<Verified>(), Some(&Verified(true)));
    /// ```
    pub fn extension<T: Any + Send + Sync>(&self) -> Option<&T> {
        self.more.as_ref()?.extensions.get()
    }

    /// Leaves a value on the message, by its type, in place of one of the same type.
    pub fn set_extension<T: Any + Send + Sync>(&mut self, value: T) {
        self.more_mut().extensions.set(value);
    }

    /// Whether it goes on.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether middleware stopped it.
    pub fn is_rejected(&self) -> bool {
        self.state == State::Rejected
    }

    /// Why it was rejected.
    pub fn reject_reason(&self) -> Option<&str> {
        self.more.as_ref()?.rejection.as_deref()
    }

    /// Lets it go on, after all.
    pub fn accept(&mut self) {
        self.state = State::Accepted;
        if self.reject_reason().is_some() {
            self.more_mut().rejection = None;
        }
    }

    /// Stops it: no middleware behind, no logic and no client sees it. The reason is told to the sender.
    pub fn reject(&mut self, reason: impl Into<String>) {
        self.state = State::Rejected;
        self.more_mut().rejection = Some(reason.into());
    }

    /// Makes a sender its only target: another one's, or its own. Says whether it is one that can be answered.
    pub(crate) fn answer(&mut self, sender: Option<&Source>) -> bool {
        match sender.unwrap_or(&self.source) {
            Source::Client(client) => self.targets = Target::Client(*client).into(),
            Source::Logic(logic) => self.targets = Target::Logic(logic.clone()).into(),
            Source::Server => return false,
        }
        true
    }

    pub(crate) fn set_source(&mut self, source: Source) {
        self.source = source;
    }

    /// Notes that it came from another instance; `origin` is what messages from there share, if they carry nothing else.
    pub(crate) fn come_from(&mut self, origin: &Arc<More>) {
        if self.more.is_some() {
            self.more_mut().instance.clone_from(&origin.instance);
        } else {
            self.more = Some(origin.clone());
        }
    }

    /// Rejects it and closes the client that sent it, once it has been told why: for middleware that meets abuse.
    pub fn reject_and_close(&mut self, reason: CloseReason) {
        self.reject(reason.text().to_owned());
        self.more_mut().close = Some(reason);
    }

    /// The close that middleware asked for.
    pub(crate) fn close_asked(&self) -> Option<&CloseReason> {
        self.more.as_ref()?.close.as_ref()
    }

    pub(crate) fn hops(&self) -> u8 {
        self.hops
    }

    pub(crate) fn set_hops(&mut self, hops: u8) {
        self.hops = hops;
    }

    /// Notes that it comes back, for want of room.
    pub(crate) fn come_back(&mut self) {
        self.came_back = true;
    }

    /// Whether it came back and is sent again.
    pub(crate) fn take_came_back(&mut self) -> bool {
        // Written only where it changes: the message is copied next, and that would wait for the write.
        self.came_back && std::mem::take(&mut self.came_back)
    }

    /// What it holds of memory, about: what queues count.
    pub(crate) fn weight(&self) -> usize {
        size_of::<Self>() + self.payload.len()
    }

    fn more_mut(&mut self) -> &mut More {
        Arc::make_mut(self.more.get_or_insert_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is larger than 128 bytes is moved by a call of `memcpy`, which took a fifth of a worker's time.
    #[test]
    fn a_message_stays_small() {
        assert!(size_of::<Message>() <= 128, "{}", size_of::<Message>());
        assert!(size_of::<Targets>() <= 40, "{}", size_of::<Targets>());
    }

    #[test]
    fn a_clone_shares_until_it_is_changed() {
        let first = Message::new("x").with_tag("a", 1);
        let second = first.clone().with_tag("a", 2);
        assert_eq!(first.tag("a"), Some(&Value::from(1)));
        assert_eq!(second.tag("a"), Some(&Value::from(2)));
        assert_eq!(first.payload().as_ptr(), second.payload().as_ptr());
    }

    #[test]
    fn reject_and_accept_are_each_others_reverse() {
        let mut message = Message::new("x");
        message.reject("too large");
        assert!(message.is_rejected());
        assert_eq!(message.reject_reason(), Some("too large"));
        message.accept();
        assert_eq!(
            (message.state(), message.reject_reason()),
            (State::Accepted, None)
        );
    }

    #[test]
    fn what_is_empty_is_not_allocated() {
        let mut message = Message::new("x").to_client(ClientId::new());
        assert!(message.tags().is_empty() && message.metadata().is_empty());
        assert_eq!(message.remove_tag("none"), None);
        assert!(message.more.is_none());
    }
}
