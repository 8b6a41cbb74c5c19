//! What the rooms promise to those in them.

#![cfg(feature = "rooms")]
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod support;

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use gobroke_core::{Admission, Broke, ClientId, cluster::MemoryCluster};
use gobroke_logic_contrib::Rooms;
use serde_json::{Value, json};

use self::support::{Person, Server};

async fn rooms() -> Server {
    rooms_with(|rooms| rooms).await
}

async fn rooms_with(set: impl FnOnce(Rooms) -> Rooms) -> Server {
    Server::start(Broke::builder().logic(set(Rooms::worker("chat"))), "chat").await
}

/// Joins, and passes over the list of members that follows.
async fn join(person: &mut Person, room: &str, name: &str) {
    person
        .asks(json!({"do": "join", "room": room, "name": name}))
        .await;
    let members = person.hears().await;
    assert_eq!(
        (&members["event"], &members["room"]),
        (&json!("members"), &json!(room)),
        "{members}"
    );
}

fn member(person: &Person, name: &str) -> Value {
    json!({"client": person.id(), "name": name})
}

#[tokio::test]
async fn who_joins_learns_who_is_there_and_the_others_learn_of_it() {
    let server = rooms().await;
    let (mut ann, mut bob) = (server.connect().await, server.connect().await);
    ann.asks(json!({"do": "join", "room": "lobby", "name": "Ann"}))
        .await;
    let members = [member(&ann, "Ann"), member(&bob, "Bob")];
    assert_eq!(
        ann.hears().await,
        json!({"event": "members", "room": "lobby", "members": members[..1]})
    );
    bob.asks(json!({"do": "join", "room": "lobby", "name": "Bob"}))
        .await;
    assert_eq!(
        bob.hears().await,
        json!({"event": "members", "room": "lobby", "members": members})
    );
    assert_eq!(
        ann.hears().await,
        json!({"event": "joined", "room": "lobby", "member": members[1]})
    );
    server.stop().await;
}

#[tokio::test]
async fn what_is_said_is_heard_by_all_in_the_room_and_nobody_else() {
    let server = rooms().await;
    let (mut ann, mut bob, mut cid) = (
        server.connect().await,
        server.connect().await,
        server.connect().await,
    );
    join(&mut ann, "lobby", "Ann").await;
    join(&mut bob, "lobby", "Bob").await;
    join(&mut cid, "den", "Cid").await;
    assert_eq!(ann.hears().await["event"], "joined");
    ann.asks(json!({"do": "say", "room": "lobby", "text": "hi\nthere"}))
        .await;
    for person in [&mut ann, &mut bob] {
        let mut said = person.hears().await;
        assert!(said["at"].take().as_u64().unwrap() > 1_700_000_000_000);
        let from = json!({"client": said["from"]["client"], "name": "Ann"});
        let expected = json!({"event": "said", "room": "lobby", "from": from, "text": "hi\nthere", "at": null});
        assert_eq!(said, expected);
    }
    // Had Cid heard it, it would have been before this answer.
    cid.asks(json!({"do": "members", "room": "den"})).await;
    assert_eq!(cid.hears().await["event"], "members");
    server.stop().await;
}

#[tokio::test]
async fn who_leaves_or_disconnects_is_out_of_the_lists_and_the_others_learn_of_it() {
    let server = rooms().await;
    let (mut ann, mut bob, mut cid) = (
        server.connect().await,
        server.connect().await,
        server.connect().await,
    );
    join(&mut ann, "lobby", "Ann").await;
    join(&mut bob, "lobby", "Bob").await;
    join(&mut cid, "lobby", "Cid").await;
    join(&mut cid, "den", "Cid").await;
    for _ in 0..2 {
        assert_eq!(ann.hears().await["event"], "joined");
    }
    bob.asks(json!({"do": "leave", "room": "lobby"})).await;
    assert_eq!(
        ann.hears().await,
        json!({"event": "left", "room": "lobby", "member": member(&bob, "Bob")})
    );
    let left = member(&cid, "Cid");
    cid.goes().await;
    assert_eq!(
        ann.hears().await,
        json!({"event": "left", "room": "lobby", "member": left})
    );
    ann.asks(json!({"do": "rooms"})).await;
    assert_eq!(
        ann.hears().await,
        json!({"event": "rooms", "rooms": [{"room": "lobby", "members": 1}]})
    );
    ann.asks(json!({"do": "members", "room": "den"})).await;
    assert_eq!(
        ann.hears().await,
        json!({"event": "members", "room": "den", "members": []})
    );
    server.stop().await;
}

#[tokio::test]
async fn a_new_name_is_told_in_every_room() {
    let server = rooms().await;
    let (mut ann, mut bob, mut cid) = (
        server.connect().await,
        server.connect().await,
        server.connect().await,
    );
    join(&mut ann, "lobby", "Ann").await;
    join(&mut ann, "den", "Ann").await;
    join(&mut bob, "lobby", "Bob").await;
    join(&mut cid, "den", "Cid").await;
    for _ in 0..2 {
        assert_eq!(ann.hears().await["event"], "joined");
    }
    join(&mut ann, "lobby", "Anna").await;
    let renamed = member(&ann, "Anna");
    assert_eq!(
        bob.hears().await,
        json!({"event": "joined", "room": "lobby", "member": renamed})
    );
    assert_eq!(
        cid.hears().await,
        json!({"event": "joined", "room": "den", "member": renamed})
    );
    // Joining again under the same name is no news.
    join(&mut ann, "lobby", "Anna").await;
    bob.asks(json!({"do": "members", "room": "lobby"})).await;
    assert_eq!(bob.hears().await["event"], "members");
    let name = server
        .broke
        .local_client(ann.id())
        .unwrap()
        .metadata()
        .get("name")
        .cloned();
    assert_eq!(name, Some(json!("Anna")));
    server.stop().await;
}

#[tokio::test]
async fn rooms_are_listed_with_the_fullest_first() {
    let server = rooms_with(|rooms| rooms.max_listed(2)).await;
    let (mut ann, mut bob) = (server.connect().await, server.connect().await);
    join(&mut ann, "a", "Ann").await;
    join(&mut ann, "b", "Ann").await;
    join(&mut ann, "c", "Ann").await;
    join(&mut bob, "c", "Bob").await;
    bob.asks(json!({"do": "rooms"})).await;
    let listed = json!([{"room": "c", "members": 2}, {"room": "a", "members": 1}]);
    assert_eq!(
        bob.hears().await,
        json!({"event": "rooms", "rooms": listed, "more": 1})
    );
    server.stop().await;
}

/// Asks until it is told this.
async fn is_told_at_last(person: &mut Person, asks: Value, told: Value) {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        person.asks(asks.clone()).await;
        let heard = person.hears().await;
        if heard == told {
            return;
        }
        assert!(Instant::now() < end, "{heard}, and not {told}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn rooms_and_their_members_are_those_of_all_instances() {
    let cluster = MemoryCluster::new();
    let start = async |name: &str| {
        let builder = Broke::builder().instance(name).cluster(cluster.clone());
        Server::start(builder.logic(Rooms::worker("chat")), "chat").await
    };
    let (one, two) = (start("one").await, start("two").await);
    let (mut ann, mut bob, mut cid) = (
        one.connect().await,
        two.connect().await,
        two.connect().await,
    );
    join(&mut ann, "lobby", "Ann").await;
    join(&mut cid, "den", "Cid").await;
    let members = json!([member(&bob, "Bob"), member(&ann, "Ann")]);
    join(&mut bob, "lobby", "Bob").await;
    assert_eq!(ann.hears().await["event"], "joined");
    let all =
        |room: &str, members: Value| json!({"event": "members", "room": room, "members": members});
    let asks = json!({"do": "members", "room": "lobby"});
    is_told_at_last(&mut bob, asks.clone(), all("lobby", members.clone())).await;
    let members = json!([members[1], members[0]]);
    is_told_at_last(&mut ann, asks, all("lobby", members)).await;
    let listed = json!([{"room": "lobby", "members": 2}, {"room": "den", "members": 1}]);
    let rooms = |listed: Value| json!({"event": "rooms", "rooms": listed});
    for person in [&mut ann, &mut bob, &mut cid] {
        is_told_at_last(person, json!({"do": "rooms"}), rooms(listed.clone())).await;
    }
    bob.asks(json!({"do": "leave", "room": "lobby"})).await;
    assert_eq!(ann.hears().await["event"], "left");
    cid.goes().await;
    for person in [&mut ann, &mut bob] {
        let listed = json!([{"room": "lobby", "members": 1}]);
        is_told_at_last(person, json!({"do": "rooms"}), rooms(listed)).await;
    }
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn what_breaks_a_bound_is_answered_with_an_error_and_changes_nothing() {
    let server = rooms_with(|rooms| {
        rooms
            .max_name(3)
            .max_room_name(5)
            .max_text(4)
            .max_rooms_per_client(2)
    })
    .await;
    let mut ann = server.connect().await;
    join(&mut ann, "lobby", "Änn").await;
    join(&mut ann, "den", "Änn").await;
    for (request, error) in [
        (
            json!({"do": "join", "room": "lobby", "name": "Anna"}),
            "the name has more than 3 characters",
        ),
        (
            json!({"do": "join", "room": "lobby", "name": " "}),
            "the name is empty",
        ),
        (
            json!({"do": "join", "room": "lobby2", "name": "Ann"}),
            "the room has more than 5 characters",
        ),
        (
            json!({"do": "join", "room": "", "name": "Ann"}),
            "the room is empty",
        ),
        (
            json!({"do": "join", "room": "a\nb", "name": "Ann"}),
            "the room has control characters",
        ),
        (
            json!({"do": "join", "room": "third", "name": "Ann"}),
            "you are in 2 rooms, which is as many as one may be in; leave one first",
        ),
        (
            json!({"do": "say", "room": "lobby", "text": "hello"}),
            "the text has more than 4 characters",
        ),
        (
            json!({"do": "say", "room": "lobby", "text": " \n"}),
            "the text is empty",
        ),
        (
            json!({"do": "say", "room": "third", "text": "hi"}),
            "join the room first",
        ),
        (
            json!({"do": "leave", "room": "third"}),
            "join the room first",
        ),
    ] {
        ann.asks(request.clone()).await;
        assert_eq!(
            ann.hears().await,
            json!({"event": "error", "message": error}),
            "{request}"
        );
    }
    for request in [
        json!({"do": "dance"}),
        json!({"do": "join", "room": "lobby"}),
        json!([]),
        json!("hi"),
    ] {
        ann.asks(request.clone()).await;
        let error = ann.hears().await;
        assert_eq!(error["event"], "error", "{request}");
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .starts_with("not a request to the rooms: "),
            "{error}"
        );
    }
    ann.asks(json!({"do": "members", "room": "lobby"})).await;
    assert_eq!(ann.hears().await["members"], json!([member(&ann, "Änn")]));
    server.stop().await;
}

#[tokio::test]
async fn a_newer_connection_of_a_client_takes_nothing_over_but_what_it_joins() {
    let ann = ClientId::new();
    let connections = AtomicUsize::new(0);
    let builder = Broke::builder()
        .logic(Rooms::worker("chat"))
        .on_connect(move |_| {
            // Bob comes first; then Ann, and Ann again.
            let known = connections.fetch_add(1, Relaxed) > 0;
            let admission = if known {
                Admission::identified(ann)
            } else {
                Admission::anonymous()
            };
            async move { Ok(admission) }
        });
    let server = Server::start(builder, "chat").await;
    let mut bob = server.connect().await;
    let mut old = server.connect().await;
    join(&mut old, "lobby", "Ann").await;
    join(&mut old, "den", "Ann").await;
    let mut new = server.connect().await;
    join(&mut new, "lobby", "Ann").await;
    assert_eq!(old.is_closed_with().await.0, 4003);
    // The end of the older connection may be told after that.
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        bob.asks(json!({"do": "rooms"})).await;
        if bob.hears().await["rooms"] == json!([{"room": "lobby", "members": 1}]) {
            break;
        }
        assert!(Instant::now() < deadline, "the den is never left");
    }
    new.asks(json!({"do": "say", "room": "lobby", "text": "hi"}))
        .await;
    assert_eq!(new.hears().await["event"], "said");
    server.stop().await;
}
