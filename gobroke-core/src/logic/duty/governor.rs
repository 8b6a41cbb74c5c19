//! [`Governor`]: gets the lease of a module that runs once, keeps it, and hands it over.

use std::{pin::pin, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use super::{Duty, LOOK, reign::Reign};
use crate::{
    broke::router::Router,
    cluster::{Claim, link::Link},
    logic::module::Module,
};

/// How often a holder that stops looks whether its module has done what it has.
const IDLE: Duration = Duration::from_millis(5);

/// What keeps, or tries to get, the lease of a module that runs once.
pub(super) struct Governor<'a> {
    module: &'a Module,
    router: &'a Router,
    duty: &'a watch::Sender<Duty>,
    reign: Option<Reign>,
    /// This instance stops: it does not take the lease any more.
    resigned: bool,
}

impl<'a> Governor<'a> {
    pub(super) fn new(
        module: &'a Module,
        router: &'a Router,
        duty: &'a watch::Sender<Duty>,
    ) -> Self {
        Self {
            module,
            router,
            duty,
            reign: None,
            resigned: false,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let mut moved = pin!(self.router.moved.notified());
            moved.as_mut().enable();
            let asked = Instant::now();
            let next = match self.router.link.get() {
                None => asked + LOOK,
                Some(link) => {
                    let next = asked + link.lease() / 5;
                    if !self.claim(link, asked).await {
                        break;
                    }
                    next
                }
            };
            let over = async {
                match &self.reign {
                    Some(reign) => reign.over().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep_until(next) => {}
                () = moved => {}
                () = self.duty.closed() => break,
                () = over => self.end("its lease could not be renewed in time"),
                () = self.router.closing.cancelled(), if !self.resigned => {
                    if !self.resign().await {
                        break;
                    }
                }
            }
        }
        self.release().await;
    }

    /// Asks for the lease. Says whether anybody still follows.
    async fn claim(&mut self, link: &Link, asked: Instant) -> bool {
        let held = self.reign.as_ref().map(Reign::token);
        let claim = link.claim(&self.module.name, held, !self.resigned);
        let reign = self.reign.clone();
        let over = async {
            match reign {
                Some(reign) => reign.over().await,
                None => std::future::pending().await,
            }
        };
        let claimed = tokio::select! {
            claimed = claim => claimed,
            () = over => {
                self.end("its lease could not be renewed in time");
                return true;
            }
            () = self.duty.closed() => return false,
        };
        match claimed {
            Err(error) => {
                tracing::debug!(logic = %self.module.name, %error, "the lease of a logic module was not asked for");
            }
            Ok(Claim { token, holder }) => match holder {
                Some(holder) if holder == link.me() => {
                    let until = asked + link.lease();
                    match &self.reign {
                        Some(reign) if reign.token() == token => reign.extend(until),
                        _ => {
                            self.end("another one has begun");
                            let reign = Reign::new(token, Some(until), self.module);
                            self.reign = Some(reign.clone());
                            self.module.assign(self.duty, Duty::Run(reign));
                            link.tell_moved(&self.module.name);
                        }
                    }
                }
                Some(holder) => {
                    self.end("another instance has its lease");
                    self.module.assign(self.duty, Duty::Carry(holder));
                }
                None => {
                    self.end("nobody has its lease");
                    self.module.assign(self.duty, Duty::Wait);
                }
            },
        }
        true
    }

    /// Ends a reign at once.
    fn end(&mut self, why: &str) {
        if let Some(reign) = self.reign.take() {
            tracing::warn!(logic = %self.module.name, token = reign.token(), why, "this instance runs a logic module no more");
            reign.lose();
            self.module.assign(self.duty, Duty::Wait);
        }
    }

    /// Lets the module handle what it has, then hands the lease over. Says whether anybody still follows.
    async fn resign(&mut self) -> bool {
        self.resigned = true;
        while self.reign.is_some() && !self.module.is_passive() && !self.module.is_idle() {
            tokio::select! {
                () = sleep(IDLE) => {}
                () = self.duty.closed() => return false,
            }
            if self.reign.as_ref().is_some_and(Reign::is_over) {
                self.end("its lease could not be renewed in time");
            }
        }
        if !self.module.is_passive() {
            self.release().await;
            self.module.assign(self.duty, Duty::Wait);
        }
        true
    }

    /// Gives the lease back, so that another one need not wait for its end.
    async fn release(&mut self) {
        let Some(reign) = self.reign.take() else {
            return;
        };
        reign.lose();
        if let Some(link) = self.router.link.get() {
            if let Err(error) = link.release(&self.module.name, reign.token()).await {
                tracing::debug!(logic = %self.module.name, %error, "a lease was not given back; it ends by itself");
            }
            link.tell_moved(&self.module.name);
        }
    }
}
