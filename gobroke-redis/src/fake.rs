//! A server for tests that answers by the command's text.

use redis::{Client, IntoConnectionInfo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// Takes one connection, and answers each command like this; not at all where that is nothing.
pub(crate) async fn server(answer: fn(&str) -> &'static str) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut buffer = vec![0; 4096];
        while let Ok(count @ 1..) = connection.read(&mut buffer).await {
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            for command in text.split('*').skip(1) {
                let answer = answer(command).as_bytes();
                connection.write_all(answer).await.unwrap();
            }
        }
    });
    let info = url.into_connection_info().unwrap();
    let settings = info.redis_settings().clone().set_skip_set_lib_name();
    Client::open(info.set_redis_settings(settings)).unwrap()
}
