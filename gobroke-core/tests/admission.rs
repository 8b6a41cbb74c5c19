//! Who comes in: the `on_connect` hook, and how many.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use gobroke_core::{
    Admission, Broke, BrokeBuilder, ClientId, CloseReason, ConnectRequest, Grant, Message, Refusal,
    Revocation, cluster::MemoryCluster, testing::TestEndpoint,
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

fn told(reason: &CloseReason) -> Option<(u16, String)> {
    Some((reason.code(), reason.text().to_owned()))
}

#[tokio::test(start_paused = true)]
async fn a_client_is_closed_when_its_token_ends_unless_that_is_renewed() {
    let endpoint = TestEndpoint::to_logic("none").options(|options| options.ping_interval = None);
    let until = |seconds| SystemTime::now() + Duration::from_secs(seconds);
    let broke = builder(&endpoint)
        .on_connect(move |request: ConnectRequest| async move {
            let seconds = request.remote.map_or(60, |_| 0);
            let grant = Grant::of_subject("ann").until(until(seconds));
            Ok(Admission::anonymous().with_grant(grant))
        })
        .start()
        .await
        .expect("it starts");
    let mut lets_it_end = endpoint.connect().await.expect("it is admitted");
    let mut renews = endpoint.connect().await.expect("it is admitted");
    let client = broke.local_client(renews.id()).expect("it is here");
    tokio::time::sleep(Duration::from_secs(50)).await;
    let refused = client.renew(Grant::of_subject("bob").until(until(3600)));
    assert_eq!(refused.expect_err("of somebody else").status(), 403);
    let refused = client.renew(Grant::of_subject("ann").until(SystemTime::UNIX_EPOCH));
    assert_eq!(refused.expect_err("it has ended").status(), 401);
    let longer = Grant::of_subject("ann").until(until(20));
    client.renew(longer).expect("a good one");
    assert_eq!(lets_it_end.closed().await, told(&CloseReason::TokenExpired));
    assert!(!client.is_closed());
    assert_eq!(renews.closed().await, told(&CloseReason::TokenExpired));
    let refused = endpoint.connect_from(from("192.0.2.1:5")).await;
    assert_eq!(refused.expect_err("it has ended").status(), 401);
}

/// An instance of a cluster whose clients are granted what stands in their port: token and subject.
async fn granting(cluster: &MemoryCluster, name: &str) -> (Broke, TestEndpoint) {
    let endpoint = TestEndpoint::to_logic("none");
    let broke = builder(&endpoint)
        .instance(name)
        .cluster(cluster.clone())
        .on_connect(async |request: ConnectRequest| {
            let port = request.remote.map_or(0, |remote| remote.port());
            let grant =
                Grant::of_subject(format!("subject {}", port / 10)).token(format!("token {port}"));
            Ok(Admission::anonymous().with_grant(grant))
        })
        .start()
        .await
        .expect("it starts");
    (broke, endpoint)
}

#[tokio::test]
async fn what_is_revoked_is_revoked_on_every_instance_and_on_those_to_come() {
    let cluster = MemoryCluster::new();
    let (one, here) = granting(&cluster, "one").await;
    let (two, there) = granting(&cluster, "two").await;
    while one.instances().is_empty() || two.instances().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let connect = async |endpoint: &TestEndpoint, port: u16| {
        endpoint
            .connect_from(from(&format!("192.0.2.1:{port}")))
            .await
    };
    let mut token = connect(&there, 11).await.expect("it is admitted");
    let mut same_subject = connect(&there, 12).await.expect("it is admitted");
    let mut at_home = connect(&here, 12).await.expect("it is admitted");
    let other = connect(&there, 21).await.expect("it is admitted");

    assert_eq!(one.revoke(Revocation::token("token 11")), 0, "none is here");
    let revoked = told(&CloseReason::Refused("revoked".into()));
    assert_eq!(token.closed().await, revoked);
    assert!(
        !two.local_client(same_subject.id())
            .expect("it is there")
            .is_closed()
    );
    assert_eq!(one.revoke(Revocation::subject("subject 1")), 1);
    assert_eq!(same_subject.closed().await, revoked);
    assert_eq!(at_home.closed().await, revoked);

    let (three, late) = granting(&cluster, "three").await;
    // It is told once it is seen, a moment after it joined.
    while connect(&late, 11).await.is_ok() || connect(&late, 13).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for endpoint in [&here, &there, &late] {
        for port in [11, 13] {
            let refused = connect(endpoint, port).await.expect_err("it is revoked");
            assert_eq!(
                (refused.status(), refused.reason()),
                (401, "this token was revoked")
            );
        }
        connect(endpoint, 22).await.expect("another subject");
    }
    assert!(
        !two.local_client(other.id())
            .expect("it is there")
            .is_closed()
    );
    drop(three);
}
