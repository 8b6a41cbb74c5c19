//! TLS over real sockets: with rustls as the client, and with `openssl s_client` and `curl`.

#![cfg(all(feature = "tls", feature = "tcp", feature = "ws", feature = "http"))]

mod authority;
#[path = "../common/mod.rs"]
mod common;

use std::{
    fs,
    process::Stdio,
    sync::{Arc, Mutex},
};

use authority::Authority;
use common::{TcpClient, address, bad_input, echo, soon, stop};
use futures_util::{SinkExt, StreamExt};
use gobroke_core::{Admission, Broke, CloseReason, ConnectRequest, Refusal, TlsInfo};
use gobroke_endpoints::{
    HttpEndpoint, JsonCodec, RawCodec, TcpEndpoint, Tls, TrustedProxies, WebSocketEndpoint,
};
use rustix::process::{Signal, getpid, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Command,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::pki_types::ServerName};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

fn tcp(tls: Tls) -> TcpEndpoint {
    TcpEndpoint::bind("127.0.0.1:0")
        .codec(RawCodec::to_logic("echo"))
        .tls(tls)
}

fn ws(tls: Tls) -> WebSocketEndpoint {
    WebSocketEndpoint::bind("127.0.0.1:0")
        .codec(RawCodec::to_logic("echo"))
        .tls(tls)
}

async fn start(endpoint: impl gobroke_core::Endpoint) -> Broke {
    echo(endpoint).start().await.expect("it starts")
}

async fn connect(broke: &Broke, client: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = soon(TcpStream::connect(address(broke))).await?;
    let name = ServerName::try_from("localhost").expect("a name");
    soon(client.connect(name, stream)).await
}

/// Whether a frame comes back.
async fn echoes(stream: &mut TlsStream<TcpStream>, payload: &[u8]) -> bool {
    let length = u32::try_from(payload.len())
        .expect("a length")
        .to_be_bytes();
    let frame = [&length, payload].concat();
    let mut answer = vec![0; frame.len()];
    let conversation = async {
        stream.write_all(&frame).await?;
        stream.flush().await?;
        stream.read_exact(&mut answer).await
    };
    soon(conversation).await.is_ok() && answer == frame
}

async fn open(broke: &Broke, client: &TlsConnector) -> WebSocketStream<TlsStream<TcpStream>> {
    let stream = connect(broke, client).await.expect("a TLS handshake");
    let (client, _) = soon(client_async("wss://localhost/ws", stream))
        .await
        .expect("a handshake");
    client
}

/// The certificate that a server shows.
fn shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    let chain = stream.get_ref().1.peer_certificates().expect("a chain");
    chain[0].to_vec()
}

#[tokio::test]
async fn websockets_over_tls_carry_messages_and_closes() {
    let authority = Authority::new();
    let broke = start(ws(authority.server())).await;
    let mut client = open(&broke, &authority.client(None)).await;
    for message in [
        Message::text("hello"),
        Message::binary(vec![7; 1 << 20]),
        Message::text(""),
    ] {
        soon(client.send(message.clone())).await.expect("it writes");
        let answer = soon(client.next()).await.expect("a message");
        assert!(answer.expect("a good one") == message);
    }
    broke.local_clients()[0].disconnect(CloseReason::Kicked("be nice".into()));
    match soon(client.next())
        .await
        .expect("a close")
        .expect("a good one")
    {
        Message::Close(Some(close)) => assert_eq!(u16::from(close.code), 4002),
        other => panic!("{other:?}"),
    }
    assert!(
        soon(client.next()).await.is_none(),
        "an end of TLS, not a cut"
    );
    stop(broke, client).await;
}

/// What is set beside the probes, that nothing waits for more to send, cannot be seen from outside.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_silent_connection_over_tls_is_probed() {
    let authority = Authority::new();
    let broke = start(ws(authority.server())).await;
    let client = open(&broke, &authority.client(None)).await;
    let port = client.get_ref().get_ref().0.local_addr().expect("one");
    let (far, near) = (
        format!(":{:04X}", port.port()),
        format!(":{:04X}", address(&broke).port()),
    );
    let is_probed = || {
        let sockets = fs::read_to_string("/proc/net/tcp").expect("the kernel's list");
        sockets.lines().any(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            // sl, local, remote, state, queues, timer: 02 is the one for probes.
            fields[1].ends_with(&near) && fields[2].ends_with(&far) && fields[5].starts_with("02:")
        })
    };
    // While something is not acknowledged, another timer stands there.
    soon(async {
        while !is_probed() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    stop(broke, client).await;
}

#[tokio::test]
async fn many_messages_over_tls_come_whole_and_in_order() {
    let authority = Authority::new();
    let broke = start(tcp(authority.server())).await;
    let (mut read, mut write) = tokio::io::split(
        connect(&broke, &authority.client(None))
            .await
            .expect("a TLS handshake"),
    );
    let frame = |number: u32| {
        let payload = number.to_be_bytes().repeat(1 + number as usize % 500);
        [&(payload.len() as u32).to_be_bytes(), &payload[..]].concat()
    };
    let writing = async {
        for number in 0..2000 {
            write.write_all(&frame(number)).await.expect("it writes");
        }
        write.flush().await.expect("it writes");
    };
    let reading = async {
        for number in 0..2000 {
            let expected = frame(number);
            let mut came = vec![0; expected.len()];
            read.read_exact(&mut came).await.expect("a frame");
            assert!(came == expected, "number {number}");
        }
    };
    soon(async { tokio::join!(writing, reading) }).await;
    stop(broke, (read, write)).await;
}

#[tokio::test]
async fn openssl_talks_over_tls_1_2_and_1_3() {
    let authority = Authority::new();
    let broke = start(tcp(authority.server())).await;
    for version in ["-tls1_2", "-tls1_3"] {
        let mut client = Command::new("openssl")
            .args([
                "s_client",
                "-quiet",
                "-verify_return_error",
                version,
                "-connect",
            ])
            .arg(address(&broke).to_string())
            .args([
                "-servername",
                "localhost",
                "-verify_hostname",
                "localhost",
                "-CAfile",
            ])
            .arg(authority.path("ca.pem"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("openssl starts");
        let mut stdin = client.stdin.take().expect("its input");
        let mut stdout = client.stdout.take().expect("its output");
        stdin.write_all(b"\0\0\0\x05hello").await.expect("it reads");
        let mut answer = [0; 9];
        soon(stdout.read_exact(&mut answer))
            .await
            .expect("an answer");
        assert_eq!(&answer, b"\0\0\0\x05hello", "{version}");
        client.kill().await.expect("it ends");
    }
    let mut old = Command::new("openssl");
    old.args([
        "s_client",
        "-tls1_1",
        "-cipher",
        "ALL:@SECLEVEL=0",
        "-connect",
    ])
    .arg(address(&broke).to_string())
    .stdin(Stdio::null())
    .stdout(Stdio::null())
    .stderr(Stdio::null());
    let status = soon(old.status()).await.expect("openssl runs");
    assert!(!status.success(), "TLS 1.1 is refused");
    stop(broke, ()).await;
}

/// What the hook was told last.
type Told = Arc<Mutex<Option<Arc<TlsInfo>>>>;

async fn start_and_listen(tls: Tls) -> (Broke, Told) {
    let told = Told::default();
    let seen = told.clone();
    let broke = echo(tcp(tls))
        .on_connect(move |request: ConnectRequest| {
            *seen.lock().expect("no panic") = request.tls;
            async { Ok(Admission::anonymous()) }
        })
        .start()
        .await
        .expect("it starts");
    (broke, told)
}

#[tokio::test]
async fn a_clients_certificate_is_asked_for_verified_and_told() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.sign("sensor-7");
    stranger.sign("sensor-7");
    let (good, bad) = (
        Some((&authority, "sensor-7")),
        Some((&stranger, "sensor-7")),
    );
    for required in [true, false] {
        let tls = authority.server();
        let tls = match required {
            true => tls.require_clients(authority.path("ca.pem")),
            false => tls.ask_clients(authority.path("ca.pem")),
        };
        let (broke, told) = start_and_listen(tls).await;
        let mut client = connect(&broke, &authority.client(good))
            .await
            .expect("a handshake");
        assert!(echoes(&mut client, b"hi").await);
        let info = told.lock().expect("no panic").take().expect("it was told");
        let shown = info.client.as_ref().expect("a certificate");
        assert_eq!(
            (shown.subject.as_str(), &shown.names[..]),
            ("CN=sensor-7", &["localhost".to_owned()][..])
        );
        assert_eq!(
            (info.version.as_str(), info.server_name.as_deref()),
            ("TLSv1.3", Some("localhost"))
        );

        // A client of TLS 1.3 learns of its refusal with its first read.
        let refused = async |client: &TlsConnector| match connect(&broke, client).await {
            Ok(mut stream) => !echoes(&mut stream, b"hi").await,
            Err(_) => true,
        };
        assert!(refused(&authority.client(bad)).await, "one of a stranger");
        assert_eq!(refused(&authority.client(None)).await, required, "none");
        if !required {
            let info = told.lock().expect("no panic").take().expect("it was told");
            assert_eq!(info.client, None);
        }
        assert_eq!(bad_input(&broke, "tls_handshake"), 1 + u64::from(required));
        stop(broke, client).await;
    }
}

#[tokio::test]
async fn over_http_and_websocket_who_shows_a_certificate_is_known_by_its_subject() {
    let authority = Authority::new();
    authority.sign("sensor-7");
    let tls = || authority.server().ask_clients(authority.path("ca.pem"));
    let http = HttpEndpoint::bind("127.0.0.1:0")
        .codec(JsonCodec::to_logic("echo"))
        .tls(tls());
    let broke = echo(ws(tls()))
        .endpoint(http)
        .on_connect(async |request: ConnectRequest| {
            let client = request.tls.as_ref().and_then(|tls| tls.client.as_ref());
            let client = client.ok_or_else(|| Refusal::unauthorized("show a certificate"))?;
            Ok(Admission::anonymous().with_metadata("subject", client.subject.as_str()))
        })
        .start()
        .await
        .expect("it starts");
    let port = broke.address("http").expect("it listens").port();
    let url = format!("https://localhost:{port}/");
    let curl = || {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--no-buffer", "--cacert"])
            .arg(authority.path("ca.pem"))
            .arg(&url)
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        curl
    };
    let refused = soon(curl().output()).await.expect("curl runs");
    assert_eq!(refused.stdout, b"show a certificate");
    let mut curl = curl()
        .arg("--cert")
        .arg(authority.path("sensor-7.pem"))
        .arg("--key")
        .arg(authority.path("sensor-7.key"))
        .spawn()
        .expect("curl starts");
    let output = BufReader::new(curl.stdout.take().expect("its output"));
    let mut lines = output.lines();
    while !soon(lines.next_line())
        .await
        .expect("text")
        .expect("more")
        .contains("welcome")
    {}

    let client = open(&broke, &authority.client(Some((&authority, "sensor-7")))).await;
    soon(async {
        while broke.local_client_count() < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for client in broke.local_clients() {
        assert_eq!(client.metadata()["subject"], "CN=sensor-7");
    }
    stop(broke, (client, curl)).await;
}

#[tokio::test]
async fn new_certificates_are_taken_on_sighup_and_connections_live_on() {
    let authority = Authority::new();
    let broke = start(tcp(authority.server())).await;
    let connector = authority.client(None);
    let mut before = connect(&broke, &connector).await.expect("a handshake");
    assert!(echoes(&mut before, b"before").await);
    let old = shown(&before);

    fs::write(authority.path("server.pem"), "nonsense").expect("it is written");
    kill_process(getpid(), Signal::HUP).expect("a signal");
    let still = connect(&broke, &connector)
        .await
        .expect("the old one is used on");
    assert!(shown(&still) == old);

    authority.sign("server");
    kill_process(getpid(), Signal::HUP).expect("a signal");
    soon(async {
        while shown(&connect(&broke, &connector).await.expect("a handshake")) == old {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(echoes(&mut before, b"after").await);
    stop(broke, (before, still)).await;
}

#[tokio::test]
async fn what_does_not_begin_with_a_handshake_is_dropped() {
    let authority = Authority::new();
    let broke = start(ws(authority.server())).await;
    let mut client = TcpClient::connect(address(&broke)).await;
    client.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut rest = Vec::new();
    // An alert, and an end or a reset.
    let _ = soon(client.0.read_to_end(&mut rest)).await;
    assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    assert_eq!(bad_input(&broke, "tls_handshake"), 1);
    stop(broke, client).await;
}

#[tokio::test]
async fn a_proxys_header_stands_before_the_handshake() {
    let authority = Authority::new();
    let proxies = TrustedProxies::proxy_protocol(["127.0.0.1"]).expect("an address");
    let broke = start(tcp(authority.server()).behind(proxies)).await;
    let mut stream = TcpStream::connect(address(&broke))
        .await
        .expect("a connection");
    let header = b"PROXY TCP4 203.0.113.9 192.0.2.1 77 80\r\n";
    stream.write_all(header).await.expect("it writes");
    let name = ServerName::try_from("localhost").expect("a name");
    let client = authority.client(None).connect(name, stream);
    let mut client = soon(client).await.expect("a handshake");
    assert!(echoes(&mut client, b"hi").await);
    let remote = broke.local_clients()[0].remote().expect("an address");
    assert_eq!(remote.to_string(), "203.0.113.9:77");
    stop(broke, client).await;
}

#[tokio::test]
async fn it_does_not_start_without_a_good_certificate() {
    let authority = Authority::new();
    authority.sign("server");
    authority.sign("other");
    let mixed = Tls::files(authority.path("server.pem"), authority.path("other.key"));
    let missing = Tls::files(authority.path("server.pem"), authority.path("nowhere.key"));
    for (tls, says) in [(mixed, "cannot be used"), (missing, "nowhere.key")] {
        let error = echo(tcp(tls)).start().await.expect_err("it is no good");
        let why = std::error::Error::source(&error).expect("a source");
        assert!(why.to_string().contains(says), "{why}");
    }
}
