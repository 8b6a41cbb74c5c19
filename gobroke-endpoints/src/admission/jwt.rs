//! Admission by JSON Web Tokens: [`Jwt`].

use std::{
    fmt,
    future::{Ready, ready},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gobroke_core::{Admission, Client, ConnectRequest, Grant, Refusal};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, errors::ErrorKind};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::bearer_token;

/// Admits by signed tokens (JWT, RFC 7519): HS256, RS256 or EdDSA, one of them, whatever a token says of itself.
///
/// ```
/// use gobroke_core::Broke;
/// use gobroke_endpoints::Jwt;
/// # fn program() -> Result<(), gobroke_endpoints::JwtKeyError> {
/// let tokens = Jwt::hs256("a secret of 32 bytes or more, please")?.issuer("https://login.example").audience("chat");
/// let builder = Broke::builder().on_connect(tokens.hook());
/// # let _ = builder;
/// # Ok(())
/// # }
/// # program().unwrap();
/// ```
///
/// The token is looked for where [`bearer_token`] looks. It has to have an end (`exp`), may have a beginning (`nbf`), and
/// is refused with 401 where it is not good. Its client is then what [`admits`](Self::admits) says, by default one with a
/// fresh id, and `sub` in its metadata where there is one.
///
/// # How it ends
/// The client is closed as [`TokenExpired`](gobroke_core::CloseReason::TokenExpired) (4005) when its token ends, unless it
/// sent a fresh one, with which logic calls [`renew`](Self::renew). A token is revoked by its `jti`, or where it has none
/// by its signature ([`Claims::token`]), a subject by its `sub`, on all instances:
/// [`revoke`](gobroke_core::Reach::revoke).
///
/// ```
/// # use gobroke_core::{Broke, Logic};
/// # use gobroke_endpoints::Jwt;
/// # fn program(tokens: Jwt) {
/// let builder = Broke::builder().on_connect(tokens.clone().hook()).logic(Logic::dispatched("renew", move |message, ctx| {
///     let client = message.client().and_then(|id| ctx.local_client(id));
///     let token: String = message.parse()?;
///     if let Some(Err(refusal)) = client.map(|client| tokens.renew(&client, &token)) {
///         ctx.reply(&message, gobroke_core::Message::text(refusal.reason().to_owned()))?;
///     }
///     Ok(())
/// }));
/// # let _ = builder;
/// # }
/// ```
#[derive(Clone)]
pub struct Jwt {
    key: Arc<DecodingKey>,
    validation: Validation,
    admits: Arc<Admits>,
}

type Admits = dyn Fn(&Claims, &ConnectRequest) -> Result<Admission, Refusal> + Send + Sync;

/// What is wrong with a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwtKeyError {
    /// A secret for HS256 has 32 bytes at least (RFC 7518, section 3.2): a shorter one can be guessed from one token.
    #[error("the secret has {0} bytes; 32 are the least")]
    Short(usize),
    /// It cannot be read.
    #[error("the key cannot be read: {0}")]
    Unreadable(#[from] jsonwebtoken::errors::Error),
}

/// What a good token says.
#[derive(Clone, Debug, Default, Deserialize)]
#[non_exhaustive]
pub struct Claims {
    /// Whom it is about.
    #[serde(default)]
    pub sub: Option<String>,
    /// Its own name.
    #[serde(default)]
    pub jti: Option<String>,
    /// When it was issued, in seconds since 1970.
    #[serde(default)]
    pub iat: Option<f64>,
    /// When it ends, in seconds since 1970.
    pub exp: f64,
    /// All else.
    #[serde(flatten)]
    pub other: Map<String, Value>,
    /// What it is revoked by: its `jti`, or where it has none its signature.
    #[serde(skip)]
    pub token: String,
}

impl Jwt {
    /// Tokens signed with a secret that the issuer and this program share.
    ///
    /// # Errors
    /// It has less than 32 bytes.
    pub fn hs256(secret: impl AsRef<[u8]>) -> Result<Self, JwtKeyError> {
        let secret = secret.as_ref();
        if secret.len() < 32 {
            return Err(JwtKeyError::Short(secret.len()));
        }
        Ok(Self::new(
            Algorithm::HS256,
            DecodingKey::from_secret(secret),
        ))
    }

    /// Tokens signed with an RSA key, of which this is the public half, in PEM.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn rs256(public_key: impl AsRef<[u8]>) -> Result<Self, JwtKeyError> {
        let key = DecodingKey::from_rsa_pem(public_key.as_ref())?;
        Ok(Self::new(Algorithm::RS256, key))
    }

    /// Tokens signed with an Ed25519 key, of which this is the public half, in PEM.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn eddsa(public_key: impl AsRef<[u8]>) -> Result<Self, JwtKeyError> {
        let key = DecodingKey::from_ed_pem(public_key.as_ref())?;
        Ok(Self::new(Algorithm::EdDSA, key))
    }

    fn new(algorithm: Algorithm, key: DecodingKey) -> Self {
        let mut validation = Validation::new(algorithm);
        validation.leeway = 0;
        validation.validate_nbf = true;
        Self {
            key: Arc::new(key),
            validation,
            admits: Arc::new(|claims, _| {
                let admission = Admission::anonymous();
                Ok(match &claims.sub {
                    Some(subject) => admission.with_metadata("sub", subject.as_str()),
                    None => admission,
                })
            }),
        }
    }

    /// Takes tokens of this issuer (`iss`) alone. Default: of any that has the key.
    #[must_use]
    pub fn issuer(mut self, issuer: &str) -> Self {
        self.validation.set_issuer(&[issuer]);
        self.validation
            .required_spec_claims
            .insert("iss".to_owned());
        self
    }

    /// Takes tokens for this audience (`aud`) alone. Default: those that name none.
    #[must_use]
    pub fn audience(mut self, audience: &str) -> Self {
        self.validation.set_audience(&[audience]);
        self.validation
            .required_spec_claims
            .insert("aud".to_owned());
        self
    }

    /// How far the issuer's clock may be off; a connection lives on for so long past its token's end. Default: not at
    /// all.
    #[must_use]
    pub fn leeway(mut self, leeway: Duration) -> Self {
        self.validation.leeway = leeway.as_secs();
        self
    }

    /// Decides who a client is by what a good token says. The grant is added to what it answers.
    #[must_use]
    pub fn admits(
        mut self,
        admits: impl Fn(&Claims, &ConnectRequest) -> Result<Admission, Refusal> + Send + Sync + 'static,
    ) -> Self {
        self.admits = Arc::new(admits);
        self
    }

    /// The hook, for [`on_connect`](gobroke_core::BrokeBuilder::on_connect).
    pub fn hook(
        self,
    ) -> impl Fn(ConnectRequest) -> Ready<Result<Admission, Refusal>> + Send + Sync + 'static {
        move |request| ready(self.admission(&request))
    }

    /// What the hook answers: for one of your own that asks more.
    ///
    /// # Errors
    /// 401 where there is no good token, or what [`admits`](Self::admits) says.
    pub fn admission(&self, request: &ConnectRequest) -> Result<Admission, Refusal> {
        let token =
            bearer_token(request).ok_or_else(|| Refusal::unauthorized("send a bearer token"))?;
        let claims = self.verify(&token)?;
        let admission = (self.admits)(&claims, request)?;
        Ok(admission.with_grant(self.grant(&claims)))
    }

    /// Goes on with a fresh token, in the place of the one that let the client in.
    ///
    /// # Errors
    /// 401 where it is not good, 403 where it is of another subject. The client stays as it was.
    pub fn renew(&self, client: &Client, token: &str) -> Result<(), Refusal> {
        client.renew(self.grant(&self.verify(token)?))
    }

    /// What a token says, if it is good now. Whether it was revoked is not asked here.
    ///
    /// # Errors
    /// 401, and in a word why.
    pub fn verify(&self, token: &str) -> Result<Claims, Refusal> {
        let decoded = decode::<Claims>(token, &self.key, &self.validation);
        let mut claims = decoded.map_err(|error| refusal(error.kind()))?.claims;
        let signature = token.rsplit('.').next().unwrap_or_default();
        claims.token = claims.jti.clone().unwrap_or_else(|| signature.to_owned());
        Ok(claims)
    }

    fn grant(&self, claims: &Claims) -> Grant {
        let at = |seconds: f64| {
            let since = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
            // A time beyond the clock's range is as good as never.
            UNIX_EPOCH
                .checked_add(since)
                .unwrap_or_else(|| SystemTime::now() + Duration::from_secs(1 << 32))
        };
        let grant = match &claims.sub {
            Some(subject) => Grant::of_subject(subject.as_str()),
            None => Grant::new(),
        };
        grant
            .token(claims.token.as_str())
            .issued(at(claims.iat.unwrap_or_default()))
            .until(at(claims.exp + self.validation.leeway as f64))
    }
}

/// What is told of why a token is no good: enough to mend it, nothing of how it was checked.
fn refusal(kind: &ErrorKind) -> Refusal {
    Refusal::unauthorized(match kind {
        ErrorKind::ExpiredSignature => "this token has ended",
        ErrorKind::ImmatureSignature => "this token is not good yet",
        ErrorKind::InvalidIssuer => "this token is of another issuer",
        ErrorKind::InvalidAudience => "this token is for somebody else",
        ErrorKind::MissingRequiredClaim(_) => "this token lacks something that it has to say",
        _ => "this token is not good",
    })
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwt")
            .field("algorithms", &self.validation.algorithms)
            .finish_non_exhaustive()
    }
}
