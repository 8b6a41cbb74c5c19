//! Admission by tokens, over WebSocket and TCP.

#![cfg(all(feature = "jwt", feature = "ws", feature = "tcp"))]

mod common;

use std::{
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use common::{TcpClient, address, soon, stop};
use futures_util::{SinkExt, StreamExt};
use gobroke_core::{
    Admission, Broke, ConnectRequest, Grant, Logic, Message as Sent, Refusal, Revocation,
};
use gobroke_endpoints::{JsonCodec, Jwt, RawCodec, TcpEndpoint, WebSocketEndpoint, bearer};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

const SECRET: &[u8] = b"a secret of 32 bytes, or some more";

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}

fn hs256(claims: &Value) -> String {
    let key = EncodingKey::from_secret(SECRET);
    encode(&Header::new(Algorithm::HS256), claims, &key).expect("a token")
}

fn ws() -> WebSocketEndpoint {
    WebSocketEndpoint::bind("127.0.0.1:0").codec(RawCodec::to_logic("renew"))
}

/// A router that lets in by tokens, and takes fresh ones as messages; it answers with what came of it.
async fn start(tokens: Jwt) -> Broke {
    let renews = tokens.clone();
    let started = Broke::builder()
        .endpoint(ws())
        .on_connect(tokens.hook())
        .logic(Logic::dispatched("renew", move |message, ctx| {
            let client = message.client().and_then(|id| ctx.local_client(id));
            let token = String::from_utf8(message.payload().to_vec())?;
            let renewed = renews.renew(&client.ok_or("it is here")?, &token);
            let answer = renewed.map_or_else(|refusal| refusal.status(), |()| 200);
            ctx.reply(&message, Sent::text(answer.to_string()))?;
            Ok(())
        }))
        .start();
    started.await.expect("it starts")
}

async fn connect(broke: &Broke, token: &str) -> Result<Client, u16> {
    let mut request = format!("ws://{}/", address(broke))
        .into_client_request()
        .expect("a request");
    let value = format!("Bearer {token}").parse().expect("a value");
    request.headers_mut().insert("authorization", value);
    match soon(connect_async(request)).await {
        Ok((client, _)) => Ok(client),
        Err(Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn closed(client: &mut Client) -> (u16, String) {
    match soon(client.next())
        .await
        .expect("a close")
        .expect("a good one")
    {
        Message::Close(Some(close)) => (close.code.into(), close.reason.to_string()),
        other => panic!("{other:?}"),
    }
}

/// What openssl says, fed with this.
fn openssl(arguments: &[&str], input: &str) -> String {
    use std::{io::Write, process::Stdio};
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl starts");
    let mut stdin = child.stdin.take().expect("its input");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8(output.stdout).expect("PEM")
}

#[tokio::test]
async fn good_tokens_of_each_algorithm_let_in_and_no_others_do() {
    let rsa = openssl(
        &[
            "genpkey",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
        ],
        "",
    );
    let rsa_public = openssl(&["pkey", "-pubout"], &rsa);
    let ed = openssl(&["genpkey", "-algorithm", "ED25519"], "");
    let ed_public = openssl(&["pkey", "-pubout"], &ed);
    let claims = json!({"sub": "ann", "exp": now() + 600});
    let with = |algorithm, key: EncodingKey| {
        encode(&Header::new(algorithm), &claims, &key).expect("a token")
    };
    let rs256 = with(
        Algorithm::RS256,
        EncodingKey::from_rsa_pem(rsa.as_bytes()).expect("a key"),
    );
    let eddsa = with(
        Algorithm::EdDSA,
        EncodingKey::from_ed_pem(ed.as_bytes()).expect("a key"),
    );
    // The public key is no secret: it signs nothing.
    let confused = with(
        Algorithm::HS256,
        EncodingKey::from_secret(rsa_public.as_bytes()),
    );
    let unsigned = format!(
        "eyJhbGciOiJub25lIn0.{}.",
        rs256.split('.').nth(1).expect("claims")
    );
    let other = with(Algorithm::HS256, EncodingKey::from_secret(&[7; 32]));
    let tokens = [
        hs256(&claims),
        rs256,
        eddsa,
        confused,
        unsigned,
        other,
        String::new(),
    ];
    let takes = [
        Jwt::hs256(SECRET).expect("a key"),
        Jwt::rs256(rsa_public.as_bytes()).expect("a key"),
        Jwt::eddsa(ed_public.as_bytes()).expect("a key"),
    ];
    for (good, jwt) in takes.into_iter().enumerate() {
        let broke = start(jwt).await;
        for (number, token) in tokens.iter().enumerate() {
            let connected = connect(&broke, token).await.map(|_| ());
            let expected = if number == good { Ok(()) } else { Err(401) };
            assert_eq!(connected, expected, "token {number}");
        }
        assert_eq!(broke.stats().connected, 1);
        stop(broke, ()).await;
    }
    assert!(Jwt::hs256("too short").is_err());
}

#[test]
fn what_a_token_says_is_checked() {
    let jwt = Jwt::hs256(SECRET)
        .expect("a key")
        .issuer("https://login.example")
        .audience("chat");
    let good = json!({"iss": "https://login.example", "aud": "chat", "exp": now() + 600});
    let claims = jwt.verify(&hs256(&good)).expect("a good one");
    assert!(claims.sub.is_none() && !claims.token.is_empty());
    for (name, value, says) in [
        ("exp", json!(now() - 10), "this token has ended"),
        ("exp", Value::Null, "this token"),
        ("nbf", json!(now() + 100), "this token is not good yet"),
        (
            "iss",
            json!("https://evil.example"),
            "this token is of another issuer",
        ),
        ("iss", Value::Null, "this token"),
        ("aud", json!("mail"), "this token is for somebody else"),
        ("aud", Value::Null, "this token"),
    ] {
        let mut bad = good.clone();
        match value {
            Value::Null => drop(bad.as_object_mut().expect("an object").remove(name)),
            value => bad[name] = value,
        }
        let refusal = jwt.verify(&hs256(&bad)).expect_err("a bad one");
        assert!(refusal.reason().starts_with(says), "{name}: {refusal}");
        assert_eq!(refusal.status(), 401);
    }
}

#[tokio::test]
async fn a_connection_ends_with_its_token_unless_a_fresh_one_comes() {
    let broke = start(Jwt::hs256(SECRET).expect("a key")).await;
    let token = |subject: &str, end: u64| hs256(&json!({"sub": subject, "exp": now() + end}));
    let mut renews = connect(&broke, &token("ann", 8))
        .await
        .expect("it is let in");
    for (fresh, answer) in [
        (token("bob", 600), "403"),
        ("nonsense".to_owned(), "401"),
        (token("ann", 600), "200"),
    ] {
        soon(renews.send(Message::text(fresh)))
            .await
            .expect("it writes");
        let told = soon(renews.next())
            .await
            .expect("an answer")
            .expect("a good one");
        assert_eq!(told, Message::text(answer));
    }
    let mut ends = connect(&broke, &token("ann", 9))
        .await
        .expect("it is let in");
    assert_eq!(closed(&mut ends).await, (4005, "token expired".to_owned()));
    assert_eq!(broke.local_clients().len(), 1, "the renewed one stays");
    stop(broke, renews).await;
}

#[tokio::test]
async fn a_token_and_a_whole_subject_are_revoked() {
    let broke = start(Jwt::hs256(SECRET).expect("a key")).await;
    let token = |id: &str, issued: u64| {
        hs256(&json!({"sub": "ann", "jti": id, "iat": issued, "exp": now() + 600}))
    };
    let mut first = connect(&broke, &token("1", now()))
        .await
        .expect("it is let in");
    let mut second = connect(&broke, &token("2", now()))
        .await
        .expect("it is let in");
    assert_eq!(broke.revoke(Revocation::token("1")), 1);
    assert_eq!(closed(&mut first).await, (4004, "revoked".to_owned()));
    assert_eq!(connect(&broke, &token("1", now())).await.err(), Some(401));
    assert_eq!(broke.revoke(Revocation::subject("ann")), 1);
    assert_eq!(closed(&mut second).await, (4004, "revoked".to_owned()));
    assert_eq!(
        connect(&broke, &token("3", now() - 1)).await.err(),
        Some(401)
    );
    let again = connect(&broke, &token("4", now() + 1))
        .await
        .expect("issued since");
    stop(broke, again).await;
}

#[tokio::test]
async fn a_closure_looks_at_tokens_in_the_query_and_in_the_first_frame() {
    let codec = JsonCodec::to_logic("none");
    let ws = WebSocketEndpoint::bind("127.0.0.1:0").codec(codec.clone());
    let tcp = TcpEndpoint::bind("127.0.0.1:0")
        .codec(codec)
        .ask_first_frame();
    let broke = Broke::builder()
        .endpoint(ws)
        .endpoint(tcp)
        .on_connect(bearer(
            async |token: String, _: ConnectRequest| match token.as_str() {
                "sesame" => Ok(Admission::anonymous().with_grant(
                    Grant::of_subject("ali").until(SystemTime::now() + Duration::from_secs(60)),
                )),
                _ => Err(Refusal::unauthorized("this is not the word")),
            },
        ))
        .start()
        .await
        .expect("it starts");
    let to = broke.address("ws").expect("it listens");
    let open = async |query: &str| soon(connect_async(format!("ws://{to}/?{query}"))).await;
    let client = open("access_token=sesame").await.expect("it is let in");
    assert!(open("access_token=barley").await.is_err() && open("").await.is_err());
    let mut frames = TcpClient::connect(broke.address("tcp").expect("it listens")).await;
    frames.send(r#"{"token":"sesame"}"#).await;
    assert!(frames.next_json().await["welcome"].is_object());
    let ali = broke.local_clients()[0].grant().expect("a grant");
    assert_eq!(ali.subject().map(|name| &**name), Some("ali"));
    stop(broke, (client, frames)).await;
}
