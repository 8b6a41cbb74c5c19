//! By what a client was let in, and for how long: [`Grant`]; and how that is taken back: [`Revocation`].

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::Name;

/// By what a client was let in: a token, say. It ends at its time, and can be revoked.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use gobroke_core::{Admission, Grant};
/// let grant = Grant::of_subject("ann").token("7f3a").until(SystemTime::now() + Duration::from_secs(900));
/// let admission = Admission::anonymous().with_grant(grant);
/// # let _ = admission;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    pub(crate) subject: Option<Name>,
    pub(crate) token: Option<Name>,
    /// Milliseconds since 1970, as the next one.
    pub(crate) issued: u64,
    pub(crate) until: Option<u64>,
}

impl Grant {
    /// One of nobody in particular.
    pub fn new() -> Self {
        Self::default()
    }

    /// One of somebody: a user, an account, a device. Several clients may have it in common.
    pub fn of_subject(subject: impl Into<Name>) -> Self {
        Self {
            subject: Some(subject.into()),
            ..Self::default()
        }
    }

    /// Names the token, so that it can be revoked by itself.
    #[must_use]
    pub fn token(mut self, token: impl Into<Name>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// When it was issued: what was issued later than its subject was revoked is good again. Default: long ago.
    #[must_use]
    pub fn issued(mut self, at: SystemTime) -> Self {
        self.issued = millis(at);
        self
    }

    /// When it ends: the client is closed then, as [`TokenExpired`](crate::CloseReason::TokenExpired), within a quarter
    /// of a second, unless it was [renewed](crate::Client::renew) before. Default: never.
    #[must_use]
    pub fn until(mut self, end: SystemTime) -> Self {
        self.until = Some(millis(end));
        self
    }

    /// Whose it is.
    pub fn subject(&self) -> Option<&Name> {
        self.subject.as_ref()
    }

    /// When it ends.
    pub fn end(&self) -> Option<SystemTime> {
        self.until
            .map(|until| UNIX_EPOCH + Duration::from_millis(until))
    }
}

/// Takes back a token, or all that somebody has so far. See [`Reach::revoke`](crate::Reach::revoke).
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use gobroke_core::Revocation;
/// let stolen = Revocation::token("7f3a").until(SystemTime::now() + Duration::from_secs(900));
/// let dismissed = Revocation::subject("ann");
/// # let _ = (stolen, dismissed);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    pub(crate) of: Revoked,
    /// What was issued later is good. Milliseconds since 1970, as the next one.
    pub(crate) issued_until: u64,
    pub(crate) until: u64,
}

/// What is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Revoked {
    Token(Name),
    Subject(Name),
}

/// How long a revocation is remembered, unless it says so.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

impl Revocation {
    /// Of one token.
    pub fn token(token: impl Into<Name>) -> Self {
        Self::new(Revoked::Token(token.into()), u64::MAX)
    }

    /// Of all that this subject was granted until now. What is issued from the next second on is good.
    pub fn subject(subject: impl Into<Name>) -> Self {
        Self::new(Revoked::Subject(subject.into()), millis(SystemTime::now()))
    }

    fn new(of: Revoked, issued_until: u64) -> Self {
        Self {
            of,
            issued_until,
            until: millis(SystemTime::now() + REMEMBERED),
        }
    }

    /// How long it has to be remembered: until the last of these tokens ends by itself. Default: a day from now.
    #[must_use]
    pub fn until(mut self, end: SystemTime) -> Self {
        self.until = millis(end);
        self
    }
}

pub(crate) fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis().min(u64::MAX.into()) as u64)
}
