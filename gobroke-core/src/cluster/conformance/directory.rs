//! Who is where.

use std::{collections::BTreeSet, time::Duration};

use super::{Instance, Setup, eventually, expect, stop_all, within};
use crate::{
    ClientId, ClientInfo, Message, Revocation,
    cluster::{Count, Cursor},
};

/// `clients` lists every client of every instance once, in pages.
///
/// # Panics
/// Where the promise is not kept.
pub async fn listings_cover_all_instances_in_pages(setup: &dyn Setup) {
    let instances = Instance::start_all(setup, ["one", "two", "three"]).await;
    let mut clients = Vec::new();
    for instance in &instances {
        for _ in 0..40 {
            let client = instance.connect().await;
            if clients.len() % 4 == 0 {
                assert!(instance.broke.join(client.id(), "room"));
            }
            clients.push(client);
        }
    }
    let all: BTreeSet<ClientId> = clients.iter().map(|client| client.id()).collect();
    let room: BTreeSet<ClientId> = clients
        .iter()
        .step_by(4)
        .map(|client| client.id())
        .collect();
    for instance in &instances {
        let whole = Count {
            clients: all.len(),
            partial: false,
        };
        let complete = async || instance.broke.client_count().await == whole;
        eventually("all clients are counted", complete).await;
        let mut listed = Vec::new();
        let mut cursor = Some(Cursor::default());
        let mut pages = 0;
        while let Some(from) = cursor {
            let page = instance.broke.clients_page(&from, 7).await;
            assert!(!page.partial);
            listed.extend(page.clients);
            cursor = page.next;
            pages += 1;
        }
        assert!(
            pages >= 3,
            "80 clients elsewhere do not fit pages of about 7: {pages}"
        );
        assert_eq!(listed.len(), all.len(), "each once");
        assert_eq!(
            listed.iter().map(|info| info.id).collect::<BTreeSet<_>>(),
            all
        );
        let complete = async || instance.broke.members("room").await.len() == room.len();
        eventually("all members are listed", complete).await;
        let members = instance.broke.members("room").await;
        assert!(!members.partial && !instance.broke.clients().await.partial);
        assert_eq!(
            members.iter().map(|info| info.id).collect::<BTreeSet<_>>(),
            room
        );
    }
    drop(clients);
    for instance in &instances {
        let none = async || instance.broke.clients().await.is_empty();
        eventually("clients that went are not listed", none).await;
    }
    stop_all(instances).await;
}

/// Metadata, groups and the time of the last message are the same whichever instance is asked, within a second or so.
///
/// # Panics
/// Where the promise is not kept.
pub async fn every_instance_knows_the_same_of_a_client(setup: &dyn Setup) {
    let [one, two] = Instance::start_all(setup, ["one", "two"]).await;
    let client = two.connect().await;
    let id = client.id();
    one.knows(id, &two).await;
    let same = async || {
        let (here, there) = (two.broke.client(id).await, one.broke.client(id).await);
        matches!((here, there), (Ok(Some(here)), Ok(Some(there))) if here == there)
    };
    // A second, and what the check itself takes.
    let second = Duration::from_millis(1_500);
    two.broke.set_metadata(id, "name", "Ann");
    assert!(
        two.broke.join(id, "room") && two.broke.join(id, "left") && two.broke.leave(id, "left")
    );
    within(second, "metadata and groups are the same everywhere", same).await;
    let info = one.broke.client(id).await;
    let Ok(Some(info)) = info else {
        panic!("{info:?}")
    };
    assert_eq!(
        info.metadata.get("name").and_then(|name| name.as_str()),
        Some("Ann")
    );
    assert_eq!(info.groups, ["room"]);

    // Set from elsewhere.
    assert!(one.broke.set_metadata(id, "name", "Bea"));
    let renamed = async || {
        let info = two.broke.client(id).await;
        let name = |info: ClientInfo| info.metadata.get("name").cloned();
        info.is_ok_and(|info| info.and_then(name).is_some_and(|name| name == "Bea"))
    };
    within(second, "metadata is set from elsewhere", renamed).await;
    within(second, "metadata is the same everywhere", same).await;

    let connected = info.last_message;
    while two
        .broke
        .client(id)
        .await
        .is_ok_and(|info| info.is_some_and(|info| info.last_message <= connected))
    {
        client.send_message(Message::new("x").to_client(id)).await;
        tokio::time::sleep(super::LOOK).await;
    }
    within(second, "the last message is the same everywhere", same).await;
    stop_all([one, two]).await;
}

/// A client that connects to another instance is there, not here: the older session is closed as replaced, and its
/// end does not take away the newer one.
///
/// # Panics
/// Where the promise is not kept.
pub async fn a_reconnect_elsewhere_replaces_the_older_session(setup: &dyn Setup) {
    let [one, two, three] = Instance::start_all(setup, ["one", "two", "three"]).await;
    let id = ClientId::new();
    let mut clients = vec![one.connect_as(id).await];
    three.knows(id, &one).await;
    for newer in [&two, &one, &two, &two] {
        clients.push(newer.connect_as(id).await);
        let mut older = clients.remove(0);
        assert_eq!(
            older.closed().await.map(|(code, _)| code),
            Some(4003),
            "replaced"
        );
        three.knows(id, newer).await;
    }
    let ended = async || one.broke.local_client_count() == 0;
    eventually("the older session is gone", ended).await;
    three.send(Message::new("to the newest").to_client(id));
    expect(&mut clients[0], "to the newest").await;
    assert_eq!(three.broke.clients().await.len(), 1, "there is one session");
    stop_all([one, two, three]).await;
}

/// An instance that stops is gone at once, its clients with it, and others are told.
///
/// # Panics
/// Where the promise is not kept.
pub async fn an_instance_that_stops_is_gone_at_once(setup: &dyn Setup) {
    let [one, two] = Instance::start_all(setup, ["one", "two"]).await;
    let mut client = two.connect().await;
    one.knows(client.id(), &two).await;
    one.send(Message::new("before").to_client(client.id()));
    expect(&mut client, "before").await;
    two.broke.stop().await;
    assert_eq!(client.closed().await.map(|(code, _)| code), Some(1001));
    let second = Duration::from_secs(1);
    let told = async || one.broke.instances().is_empty();
    within(second, "others are told", told).await;
    let gone = async || {
        matches!(one.broke.client(client.id()).await, Ok(None))
            && one.broke.clients().await.is_empty()
    };
    within(second, "its clients are gone", gone).await;
    one.send(Message::new("after").to_client(client.id()).to_all());
    eventually("it is counted", async || one.stats().queue_bytes == 0).await;

    // The same name again is another life of it.
    let two = Instance::start(setup, "two").await;
    let known = async || one.broke.instances() == ["two"];
    eventually("others know it again", known).await;
    let mut client = two.connect().await;
    one.knows(client.id(), &two).await;
    one.send(Message::new("again").to_client(client.id()));
    expect(&mut client, "again").await;
    stop_all([one, two]).await;
}

/// A dead instance's clients are gone within its lease, and others are told; nothing waits for it meanwhile.
///
/// # Panics
/// Where the promise is not kept.
pub async fn a_dead_instance_takes_its_clients_with_it(setup: &dyn Setup) {
    let [one, two, three] = Instance::start_all(setup, ["one", "two", "three"]).await;
    let (dead, mut alive) = (two.connect().await, three.connect().await);
    one.knows(dead.id(), &two).await;
    one.knows(alive.id(), &three).await;
    one.send(
        Message::new("both live")
            .to_client(dead.id())
            .to_client(alive.id()),
    );
    expect(&mut alive, "both live").await;

    setup.kill("two").await;
    let second = Duration::from_secs(1);
    for number in 0..5 {
        let text = format!("without two {number}");
        one.send(Message::new(text.clone()).to_all());
        expect(&mut alive, &text).await;
        within(second, "a listing waits for no instance", async || {
            one.broke.clients().await.len() <= 2
        })
        .await;
    }
    let told = async || one.broke.instances() == ["three"] && three.broke.instances() == ["one"];
    within(setup.lease() + second, "others are told", told).await;
    let gone = async || {
        matches!(one.broke.client(dead.id()).await, Ok(None))
            && one.broke.clients().await.len() == 1
    };
    within(second, "its clients are gone", gone).await;
    assert!(
        one.stats().in_doubt >= 5,
        "what it did not acknowledge is in doubt: {:?}",
        one.stats()
    );
    let unknown = one.stats().unknown;
    one.send(Message::new("nobody").to_client(dead.id()));
    eventually("it is counted", async || one.stats().unknown == unknown + 1).await;
    stop_all([one, three]).await;
    drop(two);
}

/// Whom one instance revokes is closed and refused by all, and by those that join later.
///
/// # Panics
/// Where the promise is not kept.
pub async fn what_is_revoked_is_revoked_everywhere(setup: &dyn Setup) {
    let [one, two] = Instance::start_all(setup, ["one", "two"]).await;
    let (mut dismissed, stays) = (two.connect().await, two.connect().await);
    let id = dismissed.id();
    let here = one.broke.revoke(Revocation::subject(id.to_string()));
    assert_eq!(here, 0, "it is elsewhere");
    assert_eq!(dismissed.closed().await.map(|(code, _)| code), Some(4004));
    let three = Instance::start(setup, "three").await;
    for instance in [&one, &two, &three] {
        // An instance that joins is told once it is seen.
        let refused = async || {
            let refused = instance.try_connect_as(id).await.err();
            refused.is_some_and(|refusal| refusal.status() == 401)
        };
        eventually("it is refused", refused).await;
        instance.connect().await;
    }
    let stays = two.broke.local_client(stays.id());
    assert!(stays.is_some_and(|client| !client.is_closed()));
    stop_all([one, two, three]).await;
}
