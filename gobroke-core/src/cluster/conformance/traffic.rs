//! [`Traffic`]: clients that send by a seed to clients, groups and everyone, and what each of them has to get.

use std::collections::HashMap;

use super::Instance;
use crate::{ClientId, Message, cluster::seed::Seed, testing::TestClient};

/// The group of every other client.
const ROOM: &str = "room";

pub(super) struct Traffic {
    seed: Seed,
    clients: Vec<TestClient>,
    sent: u64,
    /// What each client has to get of each other, in order.
    owed: Vec<HashMap<usize, Vec<u64>>>,
}

impl Traffic {
    /// Two clients on each instance, one of them in the group, all known everywhere.
    pub(super) async fn new(instances: &[Instance], seed: u64) -> Self {
        let (mut clients, mut at) = (Vec::new(), Vec::new());
        for (index, instance) in instances.iter().enumerate() {
            for _ in 0..2 {
                clients.push(instance.connect().await);
                at.push(index);
            }
        }
        for (client, at) in clients.iter().zip(&at).step_by(2) {
            assert!(
                instances[*at].broke.join(client.id(), ROOM),
                "it is not in the group yet"
            );
        }
        for instance in instances {
            for (client, at) in clients.iter().zip(&at) {
                instance.knows(client.id(), &instances[*at]).await;
            }
            instance.sees_members(ROOM, instances.len()).await;
        }
        let owed = clients.iter().map(|_| HashMap::new()).collect();
        Self {
            seed: Seed::new(seed),
            clients,
            sent: 0,
            owed,
        }
    }

    /// Every client sends one message, to a mix of targets.
    pub(super) async fn round(&mut self) {
        for from in 0..self.clients.len() {
            let (message, to) = self.draw(from);
            self.sent += 1;
            for to in to {
                self.owed[to].entry(from).or_default().push(self.sent);
            }
            let message = message.with_payload(format!("{from} {}", self.sent));
            self.clients[from].send_message(message).await;
        }
    }

    /// A message without its payload, and who has to get it.
    fn draw(&mut self, from: usize) -> (Message, Vec<usize>) {
        let count = self.clients.len();
        let message = Message::new("");
        let other = self.seed.below(count as u64) as usize;
        let room = (0..count).step_by(2);
        match self.seed.below(5) {
            0 => (message.to_all(), (0..count).collect()),
            1 => {
                let message = message
                    .to_all()
                    .to_group(ROOM)
                    .except(self.clients[from].id());
                (message, (0..count).filter(|to| *to != from).collect())
            }
            2 => (message.to_group(ROOM), room.collect()),
            3 => {
                // One and the group: who is both gets it once.
                let message = message.to_group(ROOM).to_client(self.clients[other].id());
                let mut to: Vec<_> = room.chain([other]).collect();
                to.sort_unstable();
                to.dedup();
                (message, to)
            }
            _ => (message.to_client(self.clients[other].id()), vec![other]),
        }
    }

    /// Every client gets all that it is owed, of each sender in the order of sending, and nothing else.
    pub(super) async fn assert_complete(&mut self) {
        for (index, client) in self.clients.iter_mut().enumerate() {
            let owed = &mut self.owed[index];
            let mut got: HashMap<usize, Vec<u64>> = HashMap::new();
            for _ in 0..owed.values().map(Vec::len).sum() {
                let Some(text) = client.next_text().await else {
                    panic!("client {index} misses messages: {owed:?} are owed, {got:?} came");
                };
                let (from, number) = parse(&text);
                got.entry(from).or_default().push(number);
            }
            assert_eq!(got, *owed, "client {index}");
            owed.clear();
        }
    }

    /// What came to every client by now came once, in the order of sending, and was owed. Says how many messages
    /// did not come. To be asked when all is settled; what is then sent to all ends each client's reading.
    pub(super) async fn count_missing(&mut self, by: &[Instance]) -> u64 {
        // By each instance: what is taken from others may not have been delivered yet, and is not overtaken by what
        // they send behind it.
        for instance in by {
            for client in &self.clients {
                instance.send(Message::new("end").to_client(client.id()));
            }
        }
        let mut missing = 0;
        for (index, client) in self.clients.iter_mut().enumerate() {
            let mut got: HashMap<usize, Vec<u64>> = HashMap::new();
            let mut ended = 0;
            while ended < by.len() {
                match client.next_text().await.as_deref() {
                    Some("end") => ended += 1,
                    Some(text) => {
                        let (from, number) = parse(text);
                        got.entry(from).or_default().push(number);
                    }
                    None => panic!("client {index} was cut"),
                }
            }
            for (from, owed) in std::mem::take(&mut self.owed[index]) {
                let got = got.remove(&from).unwrap_or_default();
                let mut rest = owed.iter();
                let ordered = got.iter().all(|number| rest.any(|owed| owed == number));
                assert!(ordered, "{from} to {index}: {got:?} of {owed:?}");
                missing += (owed.len() - got.len()) as u64;
            }
            assert!(
                got.is_empty(),
                "client {index} got what it is not owed: {got:?}"
            );
        }
        missing
    }

    pub(super) fn ids(&self) -> Vec<ClientId> {
        self.clients.iter().map(TestClient::id).collect()
    }
}

fn parse(text: &str) -> (usize, u64) {
    let parts = text
        .split_once(' ')
        .and_then(|(from, number)| Some((from.parse().ok()?, number.parse().ok()?)));
    parts.unwrap_or_else(|| panic!("nobody sent {text:?}"))
}
