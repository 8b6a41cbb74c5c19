//! Looks up what is not remembered: all that is wanted in one question, and the next when it is answered.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::{Shared, pending::Key};
use crate::{
    ClientId, Name,
    cluster::{ClusterError, Whereabouts},
};

/// How many keys one question has.
const BATCH: usize = 1024;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it waits after a question that was not answered.
const AGAIN: Duration = Duration::from_millis(50);

pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        shared.wanted.notified().await;
        while let Some(question) = question(&shared) {
            if !ask(&shared, question).await {
                sleep(AGAIN).await;
            }
        }
    }
}

/// What is asked at once.
struct Question {
    carrier: Arc<dyn crate::cluster::Membership>,
    clients: Vec<ClientId>,
    groups: Vec<Name>,
    era: u64,
}

fn question(shared: &Shared) -> Option<Question> {
    let mut outgoing = shared.lock();
    if outgoing.wanted.is_empty() {
        return None;
    }
    let mut question = Question {
        carrier: outgoing.carrier.clone(),
        clients: Vec::new(),
        groups: Vec::new(),
        era: outgoing.groups.era,
    };
    let count = outgoing.wanted.len().min(BATCH);
    outgoing.counts.look_ups += count as u64;
    for key in outgoing.wanted.drain(..count) {
        match key {
            Key::Client(client) => question.clients.push(client),
            Key::Group(group) => question.groups.push(group),
        }
    }
    Some(question)
}

/// Asks, and hands out the answers. Says whether there were any.
async fn ask(shared: &Shared, question: Question) -> bool {
    let Question {
        carrier,
        clients,
        groups,
        era,
    } = question;
    let answers = async {
        let located = match clients.is_empty() {
            true => Vec::new(),
            false => carrier.locate(&clients).await?,
        };
        let instances = match groups.is_empty() {
            true => Vec::new(),
            false => carrier.group_instances(&groups).await?,
        };
        if (located.len(), instances.len()) != (clients.len(), groups.len()) {
            let text = "a look-up was not answered for each that was asked for";
            return Err(ClusterError::Refused(text.to_owned()));
        }
        Ok((located, instances))
    };
    let answers = timeout(PATIENCE, answers).await;
    let mut outgoing = shared.lock();
    let now = Instant::now();
    let answered = match answers {
        Ok(Ok((located, instances))) => {
            let mut unknown = Vec::new();
            for (client, at) in clients.into_iter().zip(located) {
                match at {
                    Whereabouts::At(instance) => outgoing.located(client, Some(&instance), now),
                    Whereabouts::Nowhere => outgoing.located(client, None, now),
                    Whereabouts::Unknown => unknown.push(Key::Client(client)),
                }
            }
            for (group, instances) in groups.into_iter().zip(instances) {
                outgoing.group_located(&group, instances, era, now);
            }
            let answered = unknown.is_empty();
            outgoing.unanswered(unknown);
            answered
        }
        failed => {
            tracing::debug!(?failed, "the directory does not answer");
            let keys = clients
                .into_iter()
                .map(Key::Client)
                .chain(groups.into_iter().map(Key::Group));
            outgoing.unanswered(keys.collect());
            false
        }
    };
    outgoing.flush(now);
    shared.wake(&outgoing);
    answered
}
