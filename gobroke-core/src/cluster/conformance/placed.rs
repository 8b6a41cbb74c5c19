//! Logic that runs on a named instance, or once.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use super::{Instance, Setup, eventually, expect, stop_all, within};
use crate::{Logic, Message, testing::TestEndpoint};

/// What a module noted: the instance, its token, and what it was told.
type Noted = Arc<Mutex<Vec<(String, u64, String)>>>;

/// Notes what it is told, and answers.
fn notes(instance: &str, noted: &Noted) -> Logic {
    let (instance, noted) = (instance.to_owned(), noted.clone());
    Logic::worker("notes", move |message, ctx| {
        let text = String::from_utf8_lossy(message.payload()).into_owned();
        let token = ctx.fencing_token().unwrap_or_default();
        noted.lock().push((instance.clone(), token, text.clone()));
        ctx.reply(&message, Message::text(format!("{instance} noted {text}")))?;
        Ok(())
    })
}

/// Notes that it runs, until it is cancelled.
fn feed(instance: &str, noted: &Noted) -> Logic {
    let (instance, noted) = (instance.to_owned(), noted.clone());
    Logic::passive("feed", move |ctx| {
        let (instance, noted) = (instance.clone(), noted.clone());
        async move {
            let token = ctx.fencing_token().unwrap_or_default();
            noted.lock().push((instance, token, "began".to_owned()));
            ctx.cancelled().await;
            Ok(())
        }
    })
}

async fn start(setup: &dyn Setup, name: &str, logic: Vec<Logic>) -> Instance {
    let endpoint = TestEndpoint::to_logic("notes").options(|options| options.ping_interval = None);
    Instance::start_with(setup, name, endpoint, logic).await
}

async fn runs_on(instances: &[&Instance], holder: &str) {
    eventually("all know where it runs", async || {
        instances.iter().all(|instance| {
            instance
                .broke
                .runs_on("notes")
                .is_some_and(|name| *name == *holder)
        })
    })
    .await;
}

/// What is for a module on a named instance gets there from everywhere, in the order of each sender; before the instance
/// is there, it waits.
///
/// # Panics
/// Where the promise is not kept.
pub async fn a_module_on_a_named_instance_gets_what_is_for_it_in_order(setup: &dyn Setup) {
    const EACH: usize = 200;
    let noted = Noted::default();
    let module = |name: &str| notes(name, &noted).on_instance("three");
    let one = start(setup, "one", vec![module("one")]).await;
    let two = start(setup, "two", vec![module("two")]).await;
    let (mut ann, mut bob) = (one.connect().await, two.connect().await);
    for number in 0..EACH / 2 {
        ann.send(format!("ann {number}")).await;
    }
    assert_eq!(one.broke.runs_on("notes"), None, "it is not there yet");
    let three = start(setup, "three", vec![module("three")]).await;
    runs_on(&[&one, &two, &three], "three").await;
    let mut cid = three.connect().await;
    for number in 0..EACH {
        if number >= EACH / 2 {
            ann.send(format!("ann {number}")).await;
        }
        bob.send(format!("bob {number}")).await;
        cid.send(format!("cid {number}")).await;
    }
    for number in 0..EACH {
        expect(&mut ann, &format!("three noted ann {number}")).await;
        expect(&mut bob, &format!("three noted bob {number}")).await;
        expect(&mut cid, &format!("three noted cid {number}")).await;
    }
    let mut next: HashMap<String, usize> = HashMap::new();
    for (instance, token, text) in &*noted.lock() {
        assert_eq!(
            (instance.as_str(), *token),
            ("three", 0),
            "no lease, no token"
        );
        let (who, number) = text.split_once(' ').unwrap_or_default();
        let next = next.entry(who.to_owned()).or_default();
        assert_eq!(number.parse(), Ok(*next), "in the order of {who}");
        *next += 1;
    }
    drop((ann, bob, cid));
    stop_all([one, two, three]).await;
}

/// A module that runs once does: on one instance, which others learn; a clean stop hands it over within moments, and what
/// is sent meanwhile is handled by one of the two, once.
///
/// # Panics
/// Where the promise is not kept.
pub async fn a_module_runs_once_and_is_handed_over(setup: &dyn Setup) {
    const MESSAGES: usize = 300;
    let noted = Noted::default();
    let fed = Noted::default();
    let modules = |name: &str| {
        vec![
            notes(name, &noted).singleton(),
            feed(name, &fed).singleton(),
        ]
    };
    let one = start(setup, "one", modules("one")).await;
    runs_on(&[&one], "one").await;
    eventually("the passive one runs", async || fed.lock().len() == 1).await;
    let two = start(setup, "two", modules("two")).await;
    let three = start(setup, "three", modules("three")).await;
    runs_on(&[&two, &three], "one").await;
    let mut ann = two.connect().await;
    for number in 0..MESSAGES / 3 {
        ann.send(number.to_string()).await;
        expect(&mut ann, &format!("one noted {number}")).await;
    }
    let stopping = one.broke.clone();
    let stopped = tokio::spawn(async move { stopping.stop().await });
    for number in MESSAGES / 3..MESSAGES {
        ann.send(number.to_string()).await;
        tokio::task::yield_now().await;
    }
    let _ = stopped.await;
    eventually("another one runs it", async || {
        let holder = two.broke.runs_on("notes");
        holder.as_ref().is_some_and(|holder| *holder != *"one")
            && holder == three.broke.runs_on("notes")
    })
    .await;
    eventually("all is handled", async || noted.lock().len() == MESSAGES).await;
    eventually("the passive one runs elsewhere", async || {
        fed.lock().len() == 2
    })
    .await;
    let mut told: Vec<usize> = Vec::new();
    let mut tokens: HashMap<u64, String> = HashMap::new();
    for (instance, token, text) in &*noted.lock() {
        told.push(text.parse().unwrap_or(usize::MAX));
        let holder = tokens.entry(*token).or_insert_with(|| instance.clone());
        assert_eq!(holder, instance, "a token is one holder's");
    }
    told.sort_unstable();
    assert!(told.into_iter().eq(0..MESSAGES), "each once");
    let first = tokens.iter().find(|(_, holder)| *holder == "one");
    let newest = tokens.keys().max();
    assert!(tokens.len() == 2 && newest > first.map(|(token, _)| token));
    let fed = fed.lock().clone();
    assert!(fed[0].1 > 0 && fed[1].1 > fed[0].1, "{fed:?}");
    drop(ann);
    stop_all([two, three]).await;
}

/// When a holder dies, another instance runs its modules when the lease has ended, with a larger token; what is sent
/// meanwhile waits.
///
/// # Panics
/// Where the promise is not kept.
pub async fn a_dead_holder_is_followed_by_one_with_a_larger_token(setup: &dyn Setup) {
    let noted = Noted::default();
    let modules = |name: &str| vec![notes(name, &noted).singleton()];
    let one = start(setup, "one", modules("one")).await;
    runs_on(&[&one], "one").await;
    let two = start(setup, "two", modules("two")).await;
    runs_on(&[&two], "one").await;
    let mut ann = two.connect().await;
    ann.send("before").await;
    expect(&mut ann, "one noted before").await;
    setup.kill("one").await;
    let patience = 4 * setup.lease() + super::PATIENCE;
    within(
        patience,
        "the one that was killed stops by its own clock",
        async || one.broke.runs_on("notes").is_none(),
    )
    .await;
    within(patience, "the other one runs it", async || {
        two.broke
            .runs_on("notes")
            .is_some_and(|name| *name == *"two")
    })
    .await;
    ann.send("after").await;
    expect(&mut ann, "two noted after").await;
    let noted = noted.lock().clone();
    let last = noted.last();
    assert!(
        last.is_some_and(|(_, token, _)| *token > noted[0].1),
        "{noted:?}"
    );
    drop(ann);
    stop_all([one, two]).await;
}
