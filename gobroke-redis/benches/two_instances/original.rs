//! The way of the Go original, to compare with: each message is a JSON object, and its PUBLISH is awaited.

use std::time::Instant;

use futures_util::StreamExt;

/// How many messages of so many bytes it carries in a second, of `count`.
pub(crate) async fn rate(url: &str, bytes: usize, count: u64) -> f64 {
    let client = redis::Client::open(url).unwrap();
    let mut subscriber = client.get_async_pubsub().await.unwrap();
    subscriber.subscribe("original").await.unwrap();
    let mut publisher = client.get_multiplexed_async_connection().await.unwrap();
    let begun = Instant::now();
    tokio::spawn(async move {
        let payload = "x".repeat(bytes);
        for number in 0..count {
            let message = serde_json::json!({
                "id": number.to_string(),
                "fromClient": "one",
                "toClient": ["two"],
                "message": payload,
                "metadata": {},
            });
            let mut publish = redis::cmd("PUBLISH");
            publish.arg("original").arg(message.to_string());
            let receivers: i64 = publish.query_async(&mut publisher).await.unwrap();
            assert_eq!(receivers, 1);
        }
    });
    let mut messages = subscriber.on_message();
    for _ in 0..count {
        let message = messages.next().await.unwrap();
        let message: serde_json::Value =
            serde_json::from_slice(message.get_payload_bytes()).unwrap();
        assert_eq!(message["message"].as_str().unwrap().len(), bytes);
    }
    count as f64 / begun.elapsed().as_secs_f64()
}
