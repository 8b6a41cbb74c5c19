//! What was sent is what came, once and in order, and what is counted.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    arena::{Arena, PATIENCE},
    support::process::Report,
};

/// Messages times the instances that they were for, between those who lived through it all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Account {
    pub(crate) owed: u64,
    pub(crate) missing: u64,
}

impl Arena {
    /// Has all rest until what was sent has come or is counted, and gives what they say then.
    async fn settled(&mut self, victim: Option<&str>) -> Vec<Report> {
        for instance in &mut self.instances {
            instance.tell("rest");
        }
        let end = Instant::now() + PATIENCE;
        let mut before = (0, 0);
        loop {
            let reports = self.reports();
            let sum = |name| self.since(&reports, name);
            let (sent, taken) = (sum("sent"), sum("received") + sum("lost"));
            let got = reports.iter().flat_map(|report| report.got.values());
            let got = got.map(|got| got.direct + got.group + got.all).sum::<u64>();
            let waits = reports.iter().any(|report| report.stat("queue") > 0);
            // What went to one that died is nobody's. And clients may be behind their instances.
            let accounted = victim.is_some() || sent == taken;
            if !waits && accounted && before == (taken, got) {
                return reports;
            }
            assert!(
                Instant::now() < end,
                "it does not settle, {sent} sent and {taken} taken: {reports:#?}"
            );
            before = (taken, got);
            // Where the sums do not say it, nothing may move for longer than until a quiet line says how far it came,
            // 0.8 s, or a gap is given up, 1 s.
            sleep(Duration::from_millis(if victim.is_none() {
                300
            } else {
                1500
            }))
            .await;
        }
    }

    /// How much more has been counted than when it was quiet before.
    fn since(&self, reports: &[Report], name: &str) -> u64 {
        let before = |client| self.quiet.get(client).map_or(0, |report| report.stat(name));
        let clients = self.instances.iter().map(|one| &one.client);
        let more = clients
            .zip(reports)
            .map(|(client, report)| report.stat(name) - before(client));
        more.sum()
    }

    /// Accounts for what those have sent each other, since it was quiet before, who lived through it all. Gives what was
    /// owed, and what did not come.
    pub(crate) async fn account(&mut self, victim: Option<&str>) -> Account {
        let reports = self.settled(victim).await;
        let clients = self.clients();
        let mut living = Account::default();
        // What was sent to a client, and not to whoever is there: who was taken for gone is owed nothing of that.
        let mut direct_of_dead = 0;
        for (from, sender) in clients.iter().zip(&reports) {
            for (to, receiver) in clients.iter().zip(&reports).filter(|(to, _)| *to != from) {
                let got = receiver.got.get(from).cloned().unwrap_or_default();
                assert_eq!(got.wrong, 0, "{from} to {to}: twice, or out of order");
                let (Some(sent), Some(received)) = (self.quiet.get(from), self.quiet.get(to))
                else {
                    continue;
                };
                let had = received.got.get(from).cloned().unwrap_or_default();
                let direct = |report: &Report| report.direct.get(to).copied().unwrap_or_default();
                let lives = victim.is_none_or(|victim| victim != from && victim != to);
                if !lives {
                    direct_of_dead += direct(sender) - direct(sent) + had.direct - got.direct;
                }
                for (owes, has) in [
                    (direct(sender) - direct(sent), got.direct - had.direct),
                    (sender.group - sent.group, got.group - had.group),
                    (sender.all - sent.all, got.all - had.all),
                ] {
                    assert!(has <= owes, "{from} to {to}: {has} of {owes}");
                    if lives {
                        living.owed += owes;
                        living.missing += owes - has;
                    }
                }
            }
        }
        let names = ["lost", "dropped", "unknown", "in_doubt"];
        let counted = names.map(|name| self.since(&reports, name));
        let all: u64 = counted.iter().sum();
        let missing = living.missing;
        println!(
            "  missing {missing}, {direct_of_dead} of those that died; {names:?}: {counted:?}"
        );
        if victim.is_some() {
            // What is in doubt may have come.
            assert!(direct_of_dead <= all, "{direct_of_dead}: {reports:#?}");
        } else {
            assert_eq!(
                counted[3], 0,
                "an instance that lives was taken for dead: {reports:#?}"
            );
            assert_eq!(missing, all, "of {}: {reports:#?}", living.owed);
        }
        self.quiet = clients.into_iter().zip(reports).collect();
        living
    }
}
