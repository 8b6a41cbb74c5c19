//! Messages between instances.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Instance, Setup, eventually, expect, settled, stop_all, traffic::Traffic};
use crate::{ClientId, CloseReason, Message};

/// What clients of three instances send to each other, to groups and to all, arrives once, and in the order in which
/// each sent it, and what was sent is what was received. Also on a carrier that loses, doubles and disorders.
///
/// # Panics
/// Where the promise is not kept.
pub async fn messages_arrive_once_and_in_order(setup: &dyn Setup, seed: u64) {
    let instances = Instance::start_all(setup, ["one", "two", "three"]).await;
    let mut traffic = Traffic::new(&instances, seed).await;
    for _ in 0..100 {
        traffic.round().await;
    }
    traffic.assert_complete().await;
    assert_eq!(settled(&instances.each_ref()).await, 0, "nothing is lost");
    for instance in &instances {
        let stats = instance.stats();
        assert_eq!(
            (stats.dropped, stats.unknown, stats.unreadable),
            (0, 0, 0),
            "{stats:?}"
        );
        assert_eq!(stats.queue_bytes, 0);
    }
    stop_all(instances).await;
}

/// What a carrier loses for good is counted, exactly: what was sent is what came and what was lost, message by message
/// and instance by instance; and what came is in order. Nothing is done where the setup cannot lose that much.
///
/// # Panics
/// Where the promise is not kept.
pub async fn what_does_not_arrive_is_counted_exactly(setup: &dyn Setup, seed: u64) {
    let instances = Instance::start_all(setup, ["one", "two", "three"]).await;
    let mut traffic = Traffic::new(&instances, seed).await;
    if setup.disturb(true).await {
        for _ in 0..30 {
            traffic.round().await;
        }
        // What is lost often comes in the end; some of what is sent meanwhile does not.
        let end = Instant::now() + Duration::from_secs(60);
        while instances.iter().all(|instance| instance.stats().lost == 0) {
            assert!(
                Instant::now() < end,
                "the carrier lost too little for this check"
            );
            sleep(super::LOOK).await;
            traffic.round().await;
        }
        setup.disturb(false).await;
        let lost = settled(&instances.each_ref()).await;
        // A lost envelope was for one client of its instance or two.
        let missing = traffic.count_missing(&instances).await;
        assert!(
            (lost..=2 * lost).contains(&missing),
            "{missing} missing, {lost} lost"
        );
    }
    stop_all(instances).await;
}

/// A group's messages go to the instances that have members, and to no other.
///
/// # Panics
/// Where the promise is not kept.
pub async fn only_instances_with_members_get_a_groups_messages(setup: &dyn Setup) {
    let [one, two, three] = Instance::start_all(setup, ["one", "two", "three"]).await;
    let (mut member, mut other) = (two.connect().await, three.connect().await);
    assert!(two.broke.join(member.id(), "room"));
    one.sees_members("room", 1).await;
    for _ in 0..10 {
        one.send(Message::new("to the room").to_group("room"));
        expect(&mut member, "to the room").await;
    }
    settled(&[&one, &two, &three]).await;
    assert_eq!(three.stats().received, 0, "it has no members");
    assert_eq!(
        one.stats().look_ups,
        1,
        "what was found is not looked up again"
    );

    // A member elsewhere is heard of, though the sender remembers the group.
    assert!(three.broke.join(other.id(), "room"));
    one.sees_members("room", 2).await;
    settled(&[&one, &two, &three]).await;
    let reached = async || {
        one.broke
            .send(Message::new("to both").to_group("room"))
            .is_ok_and(|receipt| receipt.instances == 2)
    };
    eventually("the note of a first member arrives", reached).await;
    expect(&mut other, "to both").await;

    // An instance without members any more is left out after it was addressed in vain.
    assert!(two.broke.leave(member.id(), "room"));
    let left_out = async || {
        one.broke
            .send(Message::new("to the rest").to_group("room"))
            .is_ok_and(|receipt| receipt.instances == 1)
    };
    eventually("an instance says that it is addressed in vain", left_out).await;
    stop_all([one, two, three]).await;
}

/// Joins and leaves of a client elsewhere are in order with the messages around them.
///
/// # Panics
/// Where the promise is not kept.
pub async fn joins_are_ordered_with_the_messages_around(setup: &dyn Setup) {
    let [one, two] = Instance::start_all(setup, ["one", "two"]).await;
    let mut client = two.connect().await;
    one.knows(client.id(), &two).await;
    for round in 0..20 {
        let text = |part: &str| format!("{part} {round}");
        one.send(Message::new(text("before")).to_group("room"));
        assert!(one.broke.join(client.id(), "room"));
        one.send(Message::new(text("within")).to_group("room"));
        assert!(one.broke.leave(client.id(), "room"));
        one.send(Message::new(text("after")).to_group("room"));
        one.send(Message::new(text("end")).to_client(client.id()));
        expect(&mut client, &text("within")).await;
        expect(&mut client, &text("end")).await;
    }
    one.send(Message::new("last").to_client(client.id()));
    assert!(
        one.broke
            .disconnect(client.id(), CloseReason::Kicked("enough".into()))
    );
    one.send(Message::new("too late").to_client(client.id()));
    expect(&mut client, "last").await;
    assert_eq!(client.closed().await, Some((4002, "enough".to_owned())));
    stop_all([one, two]).await;
}

/// A message for a client that moved is handed back and sent once more, by its origin; the next ones go there at once.
///
/// # Panics
/// Where the promise is not kept.
pub async fn a_client_that_moved_gets_its_messages_once(setup: &dyn Setup) {
    let [one, two, three] = Instance::start_all(setup, ["one", "two", "three"]).await;
    let id = ClientId::new();
    let mut client = two.connect_as(id).await;
    one.knows(id, &two).await;
    one.send(Message::new("first").to_client(id));
    expect(&mut client, "first").await;
    drop(client);
    let gone = async || two.broke.local_client(id).is_none();
    eventually("the older session ends", gone).await;
    let mut client = three.connect_as(id).await;
    two.knows(id, &three).await;
    for number in 0..10 {
        one.send(Message::new(format!("moved {number}")).to_client(id));
    }
    one.send(Message::new("and all").to_all());
    let mut got = Vec::new();
    for _ in 0..11 {
        got.push(client.next_text().await);
    }
    got.sort_unstable();
    got.dedup();
    assert_eq!(got.len(), 11, "each arrives once: {got:?}");
    settled(&[&one, &two, &three]).await;
    let stats = one.stats();
    assert_eq!((stats.unknown, stats.dropped), (0, 0), "{stats:?}");
    assert!((1..=10).contains(&stats.redirected), "{stats:?}");
    assert_eq!(
        two.stats().handed_back,
        stats.redirected,
        "only the origin sends it again"
    );
    one.send(Message::new("known").to_client(id));
    expect(&mut client, "known").await;
    assert_eq!(one.stats().redirected, stats.redirected);
    stop_all([one, two, three]).await;
}

/// What is for a client that is nowhere ends, and is counted: nothing goes in circles.
///
/// # Panics
/// Where the promise is not kept.
pub async fn what_is_for_nobody_goes_nowhere_and_ends(setup: &dyn Setup) {
    let [one, two] = Instance::start_all(setup, ["one", "two"]).await;
    one.send(Message::new("to nobody").to_client(ClientId::new()));
    eventually("it is counted", async || one.stats().unknown == 1).await;

    // One that was known, and is gone from everywhere.
    let mut client = two.connect().await;
    let id = client.id();
    one.knows(id, &two).await;
    one.send(Message::new("here").to_client(id));
    expect(&mut client, "here").await;
    drop(client);
    eventually("it is gone", async || {
        matches!(one.broke.client(id).await, Ok(None))
    })
    .await;
    one.send(Message::new("gone").to_client(id).to_group("nobody"));
    eventually("it is counted", async || one.stats().unknown == 2).await;
    settled(&[&one, &two]).await;
    let (one_has, two_has) = (one.stats(), two.stats());
    assert_eq!((one_has.redirected, two_has.handed_back), (1, 1));
    assert_eq!((one_has.sent, two_has.sent), (2, 1), "there, and back");
    stop_all([one, two]).await;
}
