//! Clients wherever they are: what the program and logic do with those of all instances.

use std::sync::atomic::Ordering::Relaxed;

use serde_json::Value;

use super::Reach;
use crate::{
    Client, ClientId, ClientInfo, CloseReason, Name, Source,
    cluster::{
        ClusterError, Count, Cursor, Full, Listing, Page,
        envelope::Command,
        link::{Link, Readiness},
    },
    delivery::turn,
};

/// What a cursor begins with once the clients of this instance have been listed.
const ELSEWHERE: &str = "+";

impl Reach {
    /// The names of the other instances, in order.
    pub fn instances(&self) -> Vec<Name> {
        let link = self.0.link.get();
        let instances = link.map(Link::instances).unwrap_or_default();
        instances
            .into_iter()
            .map(|instance| instance.name)
            .collect()
    }

    /// Whether this instance takes its full part: with a cluster, that it can be reached, and this instance hears and
    /// is part of it. What answers a readiness probe. Local traffic goes on whatever it says.
    pub fn is_ready(&self) -> bool {
        let link = self.0.link.get();
        !self.0.refuses.load(Relaxed)
            && !self.0.closing.is_cancelled()
            && link.is_none_or(|link| link.readiness() == Readiness::Ready)
    }

    /// On which instance a logic module runs that this one has: on this one, unless it is one that runs
    /// [elsewhere](crate::Logic::on_instance) or [once](crate::Logic::singleton). `None` while nobody runs it, as far
    /// as is known here, and for a module that is not here.
    pub fn runs_on(&self, logic: &str) -> Option<Name> {
        self.0.modules.get(logic)?.holder()
    }

    /// A client of any instance; `None` where it is on none.
    ///
    /// # Errors
    /// Why the directory of the cluster does not say it: the client is not here, and may be elsewhere.
    pub async fn client(&self, id: ClientId) -> Result<Option<ClientInfo>, ClusterError> {
        if let Some(client) = self.local_client(id) {
            return Ok(Some(client.info()));
        }
        match self.0.link.get() {
            Some(link) => link.client(id).await,
            None => Ok(None),
        }
    }

    /// The clients of all instances. Where the directory of the cluster does not answer: those of this one, and the
    /// listing says that it is [partial](Listing::partial). For many, [`Reach::clients_page`] is kinder to memory.
    pub async fn clients(&self) -> Listing {
        self.all_pages(None).await
    }

    /// The members that a group has on all instances; as with [`Reach::clients`], the listing says where some are missing.
    pub async fn members(&self, group: impl Into<Name>) -> Listing {
        self.all_pages(Some(&group.into())).await
    }

    /// The clients of all instances, page by page. The first page (of the default cursor) has all clients of this
    /// instance, the others about `limit` each. Asks no other instance.
    ///
    /// ```
    /// # use gobroke_core::{Broke, cluster::Cursor};
    /// # async fn list(broke: Broke) {
    /// let mut cursor = Some(Cursor::default());
    /// while let Some(from) = cursor {
    ///     let page = broke.clients_page(&from, 100).await;
    ///     for client in page.clients {
    ///         println!("{} on {}", client.id, client.instance);
    ///     }
    ///     cursor = page.next;
    /// }
    /// # }
    /// ```
    pub async fn clients_page(&self, cursor: &Cursor, limit: usize) -> Page {
        self.page(None, cursor, limit).await
    }

    /// The members of a group on all instances, page by page; see [`Reach::clients_page`].
    pub async fn members_page(&self, group: &str, cursor: &Cursor, limit: usize) -> Page {
        self.page(Some(&group.into()), cursor, limit).await
    }

    /// How many clients all instances have. Where the directory of the cluster does not answer: how many this one has,
    /// and the count says that it is [partial](Count::partial).
    pub async fn client_count(&self) -> Count {
        let mut count = match self.0.link.get() {
            Some(link) => link.count().await.unwrap_or_else(|error| {
                unanswered(&error);
                Count {
                    clients: 0,
                    partial: true,
                }
            }),
            None => Count::default(),
        };
        count.clients += self.local_client_count();
        count
    }

    async fn all_pages(&self, group: Option<&Name>) -> Listing {
        let mut listing = Listing::default();
        let mut cursor = Some(Cursor::default());
        while let Some(from) = cursor {
            // All in one page, since the directory reads ahead within one.
            let mut page = self.page(group, &from, usize::MAX).await;
            match listing.is_empty() {
                true => listing.clients = page.clients,
                false => listing.clients.append(&mut page.clients),
            }
            listing.partial |= page.partial;
            cursor = page.next;
        }
        listing
    }

    async fn page(&self, group: Option<&Name>, cursor: &Cursor, limit: usize) -> Page {
        let link = self.0.link.get();
        if *cursor == Cursor::default() {
            let clients = match group {
                Some(group) => self.0.local_members(group),
                None => self.local_clients(),
            };
            return Page {
                clients: clients.iter().map(Client::info).collect(),
                next: link.map(|_| Cursor::new(ELSEWHERE)),
                partial: false,
            };
        }
        let Some(link) = link else {
            return Page::default();
        };
        // Behind the mark stands what the directory gave.
        let from = Cursor::new(cursor.as_str().strip_prefix(ELSEWHERE).unwrap_or_default());
        match link.clients(group, &from, limit).await {
            Ok(mut page) => {
                let next = page.next.take();
                page.next = next.map(|next| Cursor::new(format!("{ELSEWHERE}{}", next.as_str())));
                page
            }
            Err(error) => {
                unanswered(&error);
                Page {
                    partial: true,
                    ..Page::default()
                }
            }
        }
    }

    pub(crate) fn disconnect_by(&self, by: &Source, client: ClientId, reason: CloseReason) -> bool {
        match self.local_client(client) {
            Some(client) => {
                client.disconnect(reason);
                true
            }
            None => self.command(by, client, Command::Disconnect(reason)),
        }
    }

    pub(crate) fn join_by(&self, by: &Source, client: ClientId, group: Name) -> bool {
        match self.local_client(client) {
            Some(client) => client.join(group),
            None => self.command(by, client, Command::Join(group)),
        }
    }

    pub(crate) fn leave_by(&self, by: &Source, client: ClientId, group: Name) -> bool {
        match self.local_client(client) {
            Some(client) => client.leave(group),
            None => self.command(by, client, Command::Leave(group)),
        }
    }

    pub(crate) fn set_metadata_by(
        &self,
        by: &Source,
        client: ClientId,
        key: String,
        value: Value,
    ) -> bool {
        match self.local_client(client) {
            Some(client) => {
                client.set_metadata(key, value);
                true
            }
            None => {
                let value = Some(value);
                self.command(by, client, Command::SetMetadata { key, value })
            }
        }
    }

    /// Has something done with a client of another instance. Says whether that is under way.
    fn command(&self, by: &Source, client: ClientId, command: Command) -> bool {
        let Some(link) = self.0.link.get() else {
            return false;
        };
        match link.command(by, client, command) {
            Ok(handed) => handed.instances + handed.looked_up > 0,
            Err(Full) => {
                turn::pressed(link.room(), 0, false);
                self.0.stats.full.add(1);
                false
            }
        }
    }
}

/// That the cluster is away is said once by who looks after it; anything else is somebody's to mend.
fn unanswered(error: &ClusterError) {
    match error {
        ClusterError::Unreachable(_) => tracing::debug!(%error, "the directory does not answer"),
        error => tracing::warn!(%error, "the directory does not answer"),
    }
}
