//! Who comes in: the `on_connect` hook, and how many.

use std::{net::SocketAddr, time::Duration};

use gobroke_core::{
    Admission, Broke, BrokeBuilder, ClientId, ConnectRequest, Message, Refusal,
    testing::TestEndpoint,
};

fn builder(endpoint: &TestEndpoint) -> BrokeBuilder {
    Broke::builder()
        .drain(Duration::ZERO)
        .endpoint(endpoint.clone())
}

fn from(address: &str) -> SocketAddr {
    address.parse().expect("an address")
}

#[tokio::test]
async fn the_hook_gives_an_identity_metadata_and_groups_from_the_first_message_on() {
    let endpoint = TestEndpoint::to_logic("none");
    let id = ClientId::new();
    let broke = builder(&endpoint)
        .on_connect(move |request| async move {
            assert_eq!(request.endpoint.as_deref(), Some("test"));
            Ok(Admission::identified(id)
                .with_metadata("name", "Ann")
                .in_group("lobby"))
        })
        .start()
        .await
        .expect("it starts");
    let mut client = endpoint.connect().await.expect("it is admitted");
    assert_eq!(client.id(), id);
    broke
        .send(Message::new("hello").to_group("lobby"))
        .expect("it is sent");
    assert_eq!(client.next_text().await.as_deref(), Some("hello"));
    let known = broke.local_client(id).expect("it is here");
    assert_eq!(known.metadata()["name"], "Ann");
    assert_eq!(known.groups(), ["lobby"]);
}

#[tokio::test]
async fn the_nil_id_names_nobody() {
    let endpoint = TestEndpoint::to_logic("none");
    let broke = builder(&endpoint)
        .on_connect(async |_| {
            let nil = "00000000-0000-0000-0000-000000000000".parse();
            Ok(Admission::identified(nil.expect("an id")))
        })
        .start()
        .await
        .expect("it starts");
    let refused = endpoint.connect().await.expect_err("it is refused");
    assert_eq!(refused.status(), 500);
    assert_eq!(broke.stats().refused, 1);
}

#[tokio::test]
async fn a_refusal_says_its_status_and_reason_and_leaves_nothing_behind() {
    let endpoint = TestEndpoint::to_logic("none");
    let broke = builder(&endpoint)
        .on_connect(async |request: ConnectRequest| match request.remote {
            Some(_) => Err(Refusal::unauthorized("send a token")),
            None => panic!("the hook fails"),
        })
        .start()
        .await
        .expect("it starts");
    let refused = endpoint
        .connect_from(from("192.0.2.1:5"))
        .await
        .expect_err("it is refused");
    assert_eq!((refused.status(), refused.reason()), (401, "send a token"));
    let failed = endpoint.connect().await.expect_err("the hook panics");
    assert_eq!((failed.status(), failed.reason()), (500, "internal error"));
    let stats = broke.stats();
    assert_eq!(
        (stats.refused, stats.panics, stats.clients, stats.connected),
        (2, 1, 0, 0)
    );
}

#[tokio::test]
async fn connections_are_bounded_and_places_are_given_back() {
    let endpoint = TestEndpoint::to_logic("none").options(|options| {
        options.max_connections = 3;
        options.max_connections_per_address = Some(2);
    });
    let broke = builder(&endpoint).start().await.expect("it starts");
    let status = async |address: &str| {
        endpoint
            .connect_from(from(address))
            .await
            .map_err(|refusal| refusal.status())
    };
    let first = status("[2001:db8::1]:1")
        .await
        .expect("the first of its network");
    let _second = status("[2001:db8::ffff:2]:1").await.expect("the second");
    assert_eq!(
        status("[2001:db8::3]:1")
            .await
            .expect_err("one /64 is one address"),
        429
    );
    let _third = status("192.0.2.1:1").await.expect("another address");
    assert_eq!(
        status("192.0.2.2:1")
            .await
            .expect_err("the endpoint is full"),
        503
    );
    drop(first);
    while broke.stats().clients == 3 {
        tokio::task::yield_now().await;
    }
    let _again = status("[2001:db8::3]:1")
        .await
        .expect("there is a place again");
    assert_eq!(broke.stats().refused, 2);
}
