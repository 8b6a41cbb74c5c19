//! Messages with several targets: room is taken everywhere before anything is queued anywhere.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use smallvec::SmallVec;

use super::{By, Receipt, Router, no_room};
use crate::{
    ClientId, Message, Name, SendError, Target,
    client::ClientShared,
    cluster::{Full, link::Remote},
    delivery::{
        entry::{Entry, Many, Recipients},
        lane::Lane,
        turn,
    },
    logic::{module::Module, queue::Reserved},
};

impl Router {
    /// Any mix of targets: room is taken everywhere before anything is queued anywhere.
    pub(super) fn to_many(
        self: &Arc<Self>,
        message: Message,
        by: By<'_>,
    ) -> Result<Receipt, SendError> {
        let mut plan = self.plan(&message)?;
        let mut reserved: SmallVec<[Reserved<'_>; 2]> = SmallVec::new();
        let mut in_place: SmallVec<[_; 2]> = SmallVec::new();
        for module in &plan.modules {
            let room = match by == By::Door && module.runs_at_door() {
                true => module
                    .take_off()
                    .map(|flying| in_place.push((module, flying))),
                false => module.reserve(&message).map(|room| reserved.push(room)),
            };
            if let Err(why) = room {
                return Err(no_room(why, &module.name, Box::new(message)));
            }
        }
        let permit = match self.reserve_remote(&message, &plan.remote) {
            Ok(permit) => permit,
            Err(Full) => return Err(no_room_to_carry(message)),
        };
        if let Err(lane) = self.append_to_lanes(&message, &plan, true) {
            turn::pressed(
                &lane.room,
                size_of::<Entry>() + message.payload().len(),
                false,
            );
            return Err(SendError::Full {
                queue: "lane".into(),
                message: Box::new(message),
            });
        }
        for room in reserved {
            room.commit(message.clone());
        }
        for (module, flying) in in_place {
            module.dispatch(&mut Some(message.clone()), flying);
        }
        if let Some(permit) = permit {
            let logic = by.logic();
            plan.receipt
                .handed(permit.send(message, plan.remote, logic));
        }
        Ok(plan.receipt)
    }

    /// A message for one client that is not here.
    pub(super) fn to_absent(
        &self,
        message: Message,
        client: ClientId,
        logic: Option<&Name>,
    ) -> Result<Receipt, SendError> {
        let mut receipt = Receipt::default();
        let mut remote = Remote::default();
        remote.clients.push(client);
        match self.reserve_remote(&message, &remote) {
            Ok(Some(permit)) => receipt.handed(permit.send(message, remote, logic)),
            Ok(None) => receipt.unknown = 1,
            Err(Full) => return Err(no_room_to_carry(message)),
        }
        Ok(receipt)
    }

    fn plan(self: &Arc<Self>, message: &Message) -> Result<Plan, SendError> {
        let mut plan = Plan::default();
        let clustered = self.link.get().is_some();
        for target in message.targets().iter() {
            match target {
                Target::All => {
                    plan.remote.all = clustered;
                    plan.many.everyone = true;
                    plan.receipt.clients += self.registry.len() as u32;
                }
                Target::Client(id) => match self
                    .registry
                    .client(*id)
                    .filter(|client| !client.is_closed())
                {
                    Some(client) => {
                        plan.receipt.clients += 1;
                        plan.many.clients.push(client);
                    }
                    None if clustered => plan.remote.clients.push(*id),
                    None => plan.receipt.unknown += 1,
                },
                Target::Group(name) => {
                    if clustered {
                        plan.remote.groups.push(name.clone());
                    }
                    if let Some(group) = self.registry.group(name) {
                        plan.receipt.clients += group.total();
                        plan.many.groups.push(group);
                    }
                }
                Target::Logic(name) => {
                    let module = self.module(name)?;
                    plan.modules.push(Arc::clone(&module));
                }
            }
        }
        plan.receipt.logic = plan.modules.len() as u32;
        let except = message
            .targets()
            .excluded()
            .filter_map(|id| self.registry.client(id));
        plan.many.except.extend(except);
        Ok(plan)
    }

    /// Appends a message to all lanes that it concerns, under all their locks, taken in the lanes' order: broadcasts
    /// have one order everywhere, and a cause comes before its effect. Where it is `bounded`, one without room refuses it.
    pub(in crate::broke) fn append_to_lanes(
        &self,
        message: &Message,
        plan: &Plan,
        bounded: bool,
    ) -> Result<(), &Arc<Lane>> {
        let mut shares: SmallVec<[(&Arc<Lane>, Recipients); 4]> = SmallVec::new();
        for lane in &self.lanes {
            if let Some(to) = plan.share(lane.context.index) {
                shares.push((lane, to));
            }
        }
        let weight = size_of::<Entry>() + message.payload().len();
        let mut queues: SmallVec<[_; 4]> = SmallVec::new();
        for (lane, _) in &shares {
            queues.push(lane.lock());
            if bounded && !lane.room.fits(weight) {
                return Err(lane);
            }
        }
        let mut fed: SmallVec<[&Arc<Lane>; 4]> = SmallVec::new();
        for ((lane, to), queue) in shares.into_iter().zip(&mut queues) {
            lane.push(
                queue,
                Entry::Message {
                    message: message.clone(),
                    to,
                },
            );
            fed.push(lane);
        }
        drop(queues);
        fed.into_iter().for_each(turn::fed);
        Ok(())
    }
}

fn no_room_to_carry(message: Message) -> SendError {
    SendError::Full {
        queue: "cluster".into(),
        message: Box::new(message),
    }
}

/// Where a message with several targets goes.
#[derive(Default)]
pub(in crate::broke) struct Plan {
    modules: SmallVec<[Arc<Module>; 2]>,
    pub(in crate::broke) many: Many,
    remote: Remote,
    receipt: Receipt,
}

impl Plan {
    /// What of it concerns a lane.
    fn share(&self, lane: usize) -> Option<Recipients> {
        let many = &self.many;
        let here = |client: &&Arc<ClientShared>| client.lane.context.index == lane;
        let share = Many {
            everyone: many.everyone,
            groups: many
                .groups
                .iter()
                .filter(|group| group.counts[lane].load(Relaxed) > 0)
                .cloned()
                .collect(),
            clients: many.clients.iter().filter(here).cloned().collect(),
            except: many.except.iter().filter(here).cloned().collect(),
        };
        match (
            share.everyone,
            &*share.groups,
            &*share.clients,
            &*share.except,
        ) {
            (false, [], [], _) => None,
            (true, [], [], []) => Some(Recipients::Everyone),
            (false, [group], [], []) => Some(Recipients::Group(group.clone())),
            (false, [], [client], []) => Some(Recipients::Client(client.clone())),
            _ => Some(Recipients::Many(Box::new(share))),
        }
    }
}
