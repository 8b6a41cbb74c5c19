//! Each example program starts, does what its first comment says, and ends.

#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod support;

use std::{process::Output, time::Duration};

use futures_util::{SinkExt, StreamExt};
use gobroke_examples::{read_frame, write_frame};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::Command,
    time::{sleep, timeout},
};
use tokio_tungstenite::{connect_async, tungstenite::Message as WsMessage};

use self::support::{Chat, DEADLINE, Program, RedisServer, TcpClient};

const CHAT: &str = env!("CARGO_BIN_EXE_chat");
const CHAT_TCP: &str = env!("CARGO_BIN_EXE_chat_tcp");
const CUSTOM_ENDPOINT: &str = env!("CARGO_BIN_EXE_custom_endpoint");
const LOGIC_KINDS: &str = env!("CARGO_BIN_EXE_logic_kinds");
const REDIS: &str = env!("CARGO_BIN_EXE_redis");
const BENCH_SERVER: &str = env!("CARGO_BIN_EXE_bench_server");

#[tokio::test]
async fn chat_serves_its_page() {
    let chat = Chat::start_anywhere().await;
    let mut stream = TcpStream::connect(chat.http).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut page = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut page))
        .await
        .unwrap()
        .unwrap();
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(
        page.contains("text/html; charset=utf-8") && page.contains("<title>GoBroke chat</title>"),
        "{page}"
    );
    chat.stop().await;
}

#[tokio::test]
async fn chat_tcp_talks_and_comes_back_when_the_server_does() {
    let chat = Chat::start_anywhere().await;
    let (http, tcp) = (chat.http.to_string(), chat.tcp.to_string());

    let mut ann = Program::start(CHAT_TCP, &["--name", "Ann", &tcp]);
    ann.prints("* in lobby: Ann").await;
    let mut bob = Program::start(CHAT_TCP, &["--name", "Bob", "--room", "lobby", &tcp]);
    bob.prints("* in lobby: Ann, Bob").await;
    ann.prints("* Bob joined lobby").await;

    ann.types("hello").await;
    ann.prints("[lobby] Ann: hello").await;
    bob.prints("[lobby] Ann: hello").await;
    bob.types("/name Robert").await;
    ann.prints("* Bob is now Robert").await;
    ann.types("/rooms").await;
    ann.prints("* rooms: lobby (2)").await;
    ann.types("/join den").await;
    ann.prints("* in den: Ann").await;
    ann.types("/leave").await;
    ann.prints("* left den; now in lobby").await;
    ann.types("/who").await;
    ann.prints("* in lobby: Ann, Robert").await;
    bob.types("/quit").await;
    assert_eq!(bob.ends().await, Some(0));
    ann.prints("* Robert left lobby").await;

    chat.stop().await;
    ann.prints("* the server went away").await;
    let chat = Chat::start(&http, &tcp).await;
    ann.prints("* connected again").await;
    ann.prints("* in lobby: Ann").await;
    ann.terminate();
    assert_eq!(ann.ends().await, Some(0));
    chat.stop().await;
}

#[tokio::test]
async fn custom_endpoint_passes_lines_to_all() {
    let mut server = Program::start(CUSTOM_ENDPOINT, &["--listen", "127.0.0.1:0"]);
    let address = server.prints("Connect with: nc ").await.replace(' ', ":");
    let mut ann = BufReader::new(TcpStream::connect(&address).await.unwrap());
    let mut bob = BufReader::new(TcpStream::connect(&address).await.unwrap());
    // Bob's own line comes back to him, so he is in; Ann's are behind it.
    bob.write_all(b"here\n").await.unwrap();
    assert_eq!(line(&mut bob).await, "here\n");
    ann.write_all(b"one\ntw").await.unwrap();
    assert_eq!(line(&mut bob).await, "one\n");
    ann.write_all(b"o\n").await.unwrap();
    assert_eq!(line(&mut bob).await, "two\n");
    server.terminate();
    assert_eq!(line(&mut bob).await, "bye: 1001 (going away)\n");
    assert_eq!(server.ends().await, Some(0));
}

async fn line(from: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    timeout(DEADLINE, from.read_line(&mut line))
        .await
        .unwrap()
        .unwrap();
    line
}

#[tokio::test]
async fn logic_kinds_shows_all_three_and_ends() {
    let mut program = Program::start(LOGIC_KINDS, &[]);
    program.prints("done").await;
    assert_eq!(program.ends().await, Some(0));
}

#[tokio::test]
async fn bench_server_echoes() {
    let (mut server, _, tcp) = bench_server("echo").await;
    let mut ann = TcpStream::connect(&tcp).await.unwrap();
    write_frame(&mut ann, b"hello").await.unwrap();
    write_frame(&mut ann, &vec![7; 2 << 20]).await.unwrap();
    assert_eq!(frame(&mut ann).await, b"hello");
    assert_eq!(frame(&mut ann).await, vec![7; 2 << 20]);
    server.terminate();
    assert_eq!(server.ends().await, Some(0));
}

#[tokio::test]
async fn bench_server_broadcasts_to_the_sender_too() {
    let (mut server, ws, tcp) = bench_server("broadcast").await;
    let mut ann = TcpStream::connect(&tcp).await.unwrap();
    write_frame(&mut ann, b"first").await.unwrap();
    assert_eq!(frame(&mut ann).await, b"first");
    // Any path, and no subprotocol.
    let (mut bob, _) = connect_async(format!("ws://{ws}/any/path?q=1"))
        .await
        .unwrap();
    for message in [WsMessage::text("second"), WsMessage::binary(vec![3])] {
        bob.send(message.clone()).await.unwrap();
        assert_eq!(frame(&mut ann).await, message.clone().into_data());
        assert_eq!(
            timeout(DEADLINE, bob.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap(),
            message
        );
    }
    server.terminate();
    assert_eq!(server.ends().await, Some(0));
}

async fn bench_server(mode: &str) -> (Program, String, String) {
    let free = "127.0.0.1:0";
    let mut server = Program::start(BENCH_SERVER, &["--mode", mode, "--ws", free, "--tcp", free]);
    let ready = server.prints("ready ws=").await;
    let (ws, tcp) = ready.split_once(" tcp=").unwrap();
    (server, ws.to_owned(), tcp.to_owned())
}

async fn frame(from: &mut TcpStream) -> Vec<u8> {
    timeout(DEADLINE, read_frame(from)).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_port_in_use_is_one_clear_line_and_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let free = "127.0.0.1:0";
    for (program, arguments) in [
        (CHAT, ["--http", &address, "--tcp", free]),
        (CHAT, ["--http", free, "--tcp", &address]),
        (CUSTOM_ENDPOINT, ["--listen", free, "--listen", &address]),
        (BENCH_SERVER, ["--ws", &address, "--tcp", free]),
        (BENCH_SERVER, ["--ws", free, "--tcp", &address]),
    ] {
        let output = run(program, &arguments).await;
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            output.status.code(),
            Some(1),
            "{program} {arguments:?}: {told}"
        );
        assert!(
            told.contains(&format!("cannot listen on {address}: ")),
            "{program} {arguments:?}: {told}"
        );
        assert_eq!(told.lines().count(), 1, "{program} {arguments:?}: {told}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_one_clear_line_and_code_1() {
    let gone = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let output = run(CHAT_TCP, &[&gone]).await;
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.starts_with(&format!("chat_tcp: cannot reach {gone}: ")) && told.lines().count() == 1,
        "{told}"
    );
}

#[tokio::test]
async fn a_wrong_argument_is_one_clear_line_and_code_2() {
    for (program, arguments, says) in [
        (
            CHAT,
            &["--htpp"][..],
            "chat: invalid option '--htpp'; --help shows what there is",
        ),
        (
            CHAT,
            &["--http", "8080"],
            "chat: --http takes an address with a port, such as 127.0.0.1:8080, not \"8080\"",
        ),
        (
            CHAT,
            &["--tcp"],
            "chat: missing argument for option '--tcp'",
        ),
        (
            CHAT_TCP,
            &["--nick", "Ann"],
            "chat_tcp: invalid option '--nick'",
        ),
        (
            CUSTOM_ENDPOINT,
            &["9100"],
            "custom_endpoint: unexpected argument \"9100\"",
        ),
        (
            BENCH_SERVER,
            &["--mode", "fast"],
            "bench_server: cannot parse argument \"fast\": echo or broadcast",
        ),
        (
            LOGIC_KINDS,
            &["--loud"],
            "logic_kinds: invalid option '--loud'",
        ),
    ] {
        let output = run(program, arguments).await;
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(
            output.status.code(),
            Some(2),
            "{program} {arguments:?}: {told}"
        );
        assert!(
            told.starts_with(says) && told.lines().count() == 1,
            "{program} {arguments:?}: {told}"
        );
    }
}

#[tokio::test]
async fn each_program_helps() {
    for program in [CHAT, CHAT_TCP, CUSTOM_ENDPOINT, LOGIC_KINDS, BENCH_SERVER] {
        let output = run(program, &["--help"]).await;
        assert_eq!(output.status.code(), Some(0));
        assert!(
            String::from_utf8(output.stdout)
                .unwrap()
                .starts_with("Usage: ")
        );
    }
}

async fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program)
        .args(arguments)
        .kill_on_drop(true)
        .output();
    timeout(DEADLINE, output).await.unwrap().unwrap()
}

#[tokio::test]
async fn redis_prints_in_every_terminal_what_is_typed_in_one() {
    let server = RedisServer::start().await;
    let mut one = Program::start(REDIS, &["--redis", &server.url(), "--instance", "one"]);
    one.prints("This is instance one").await;
    let mut two = Program::start(REDIS, &["--redis", &server.url(), "--instance", "two"]);
    two.prints("This is instance two").await;
    two.types("hello").await;
    one.prints("two: hello").await;
    one.types("hello, two").await;
    two.prints("one: hello, two").await;
    one.prints("one: hello, two").await;
    one.types("/who").await;
    one.prints(" on one").await;
    one.prints(" on two").await;
    two.types("/quit").await;
    assert_eq!(two.ends().await, Some(0));
    one.terminate();
    assert_eq!(one.ends().await, Some(0));
}

#[tokio::test]
async fn chats_behind_one_redis_share_rooms_and_who_is_in_them() {
    let server = RedisServer::start().await;
    let one = Chat::start_over(&server, "one").await;
    let two = Chat::start_over(&server, "two").await;
    let (mut ann, mut bob) = (
        TcpClient::connect(one.tcp).await,
        TcpClient::connect(two.tcp).await,
    );
    ann.joins("lobby", "Ann").await;
    ann.hears("members").await;
    // Who joins within a few milliseconds on another instance may be missing in the list.
    let members = loop {
        bob.joins("lobby", "Bob").await;
        let members = bob.hears("members").await;
        if members["members"].as_array().unwrap().len() == 2 {
            break members;
        }
    };
    assert!(members.to_string().contains("Ann"), "{members}");
    bob.joins("den", "Bob").await;
    let rooms = json!([{"room": "lobby", "members": 2}, {"room": "den", "members": 1}]);
    for person in [&mut ann, &mut bob] {
        // Those of other instances are counted once a second.
        let listed = timeout(DEADLINE, async {
            loop {
                person.asks(json!({"do": "rooms"})).await;
                if person.hears("rooms").await["rooms"] == rooms {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
        });
        listed.await.expect("both rooms are listed");
    }
    bob.says("lobby", "from two").await;
    assert_eq!(ann.hears("said").await["text"], "from two");
    ann.says("lobby", "from one").await;
    assert_eq!(bob.hears("said").await["text"], "from two");
    assert_eq!(bob.hears("said").await["text"], "from one");
    one.stop().await;
    assert_eq!(bob.hears("left").await["member"]["name"], "Ann");
    two.stop().await;
}
