//! The sessions that requests may speak for: [`Sessions`], and the [`Token`] that each is known by.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use subtle::ConstantTimeEq;
use tokio::sync::{mpsc, oneshot};

use crate::codec::FrameError;

/// What a session is known by: 64 bits to find it, and 128 that nobody can guess.
#[derive(Clone, Copy)]
pub(super) struct Token {
    place: [u8; 8],
    secret: [u8; 16],
}

impl Token {
    /// Fresh from the system's random numbers.
    fn fresh() -> Result<Self, getrandom::Error> {
        let (mut place, mut secret) = ([0; 8], [0; 16]);
        getrandom::fill(&mut place)?;
        getrandom::fill(&mut secret)?;
        Ok(Self { place, secret })
    }

    pub(super) fn text(&self) -> String {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.place);
        bytes[8..].copy_from_slice(&self.secret);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (place, secret) = bytes.split_first_chunk()?;
        Some(Self {
            place: *place,
            secret: secret.try_into().ok()?,
        })
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Whoever has the secret is the client.
        f.debug_struct("Token").finish_non_exhaustive()
    }
}

/// A stream that wants a session's events.
#[derive(Debug)]
pub(super) struct Attach {
    /// The number of the event that the client saw last.
    pub(super) last: Option<u64>,
    pub(super) stream: mpsc::Sender<Bytes>,
}

/// What a client sends up.
#[derive(Debug)]
pub(super) enum Up {
    Frame {
        body: Bytes,
        is_text: bool,
        taken: oneshot::Sender<Result<(), FrameError>>,
    },
    /// It is done.
    Close,
}

/// How requests reach a session.
#[derive(Clone, Debug)]
pub(super) struct Handle {
    secret: [u8; 16],
    pub(super) attach: mpsc::Sender<Attach>,
    pub(super) up: mpsc::Sender<Up>,
}

/// All sessions of an endpoint.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<[u8; 8], Handle>>);

impl Sessions {
    /// Enters a session; it is there until what comes back is dropped.
    pub(super) fn enter(
        self: &Arc<Self>,
        attach: mpsc::Sender<Attach>,
        up: mpsc::Sender<Up>,
    ) -> Result<Entered, getrandom::Error> {
        let token = Token::fresh()?;
        let handle = Handle {
            secret: token.secret,
            attach,
            up,
        };
        self.lock().insert(token.place, handle);
        Ok(Entered {
            token,
            sessions: Arc::clone(self),
        })
    }

    /// The session that this is the token of. The secret is compared in a time that does not depend on it.
    pub(super) fn find(&self, token: &str) -> Option<Handle> {
        let token = Token::parse(token)?;
        let handle = self.lock().get(&token.place).cloned()?;
        bool::from(handle.secret.ct_eq(&token.secret)).then_some(handle)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 8], Handle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's place among the others.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) token: Token,
    sessions: Arc<Sessions>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.sessions.lock().remove(&self.token.place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_found_by_its_whole_token_alone_and_while_it_is_there() {
        let sessions = Arc::new(Sessions::default());
        let enter = || {
            sessions
                .enter(mpsc::channel(1).0, mpsc::channel(1).0)
                .expect("numbers")
        };
        let (one, two) = (enter(), enter());
        let text = one.token.text();
        assert_eq!(text.len(), 32);
        assert!(sessions.find(&text).is_some());
        for wrong in [
            "",
            &text[..31],
            &format!("{text}A"),
            &format!(
                "{}{}",
                &text[..31],
                if text.ends_with('A') { 'B' } else { 'A' }
            ),
            &format!("{}{}", &text[..11], &two.token.text()[11..]),
        ] {
            assert!(sessions.find(wrong).is_none(), "{wrong}");
        }
        drop(one);
        assert!(sessions.find(&text).is_none());
        assert!(!format!("{two:?}").contains(&two.token.text()));
    }
}
