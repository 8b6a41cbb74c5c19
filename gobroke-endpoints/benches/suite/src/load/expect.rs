//! [`Expect`]: what should have arrived where.

use std::{
    collections::{HashSet, VecDeque},
    ops::Add,
};

use gobroke_bench::ACK;

use super::{Header, Load, Pace};

/// What went wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Never arrived.
    pub lost: u64,
    /// Arrived again.
    pub doubled: u64,
    /// Arrived, after a later one of the same sender.
    pub disordered: u64,
    /// Came to one whom it is not for, or was never sent.
    pub stray: u64,
}

impl Add for Account {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            lost: self.lost + other.lost,
            doubled: self.doubled + other.doubled,
            disordered: self.disordered + other.disordered,
            stray: self.stray + other.stray,
        }
    }
}

/// Each message is accounted for at each of its receivers, by its number; so are acknowledgements, which have an order of
/// their own.
pub struct Expect {
    load: Load,
    /// The number that follows the latest of each sender at each receiver, and behind them of each connection's own
    /// acknowledgements.
    next: Vec<u32>,
    /// What was overtaken or lost: by the place in `next`, and the number. As many as are under way or lost.
    missing: HashSet<(usize, u32)>,
    /// The last number that each connection sent.
    sent: Vec<u32>,
    /// The messages of each sender that have not reached all, by number, and how many deliveries each still makes. Where
    /// nobody waits for that, none.
    under_way: Vec<VecDeque<(u32, u32)>>,
    pub delivered: u64,
    expected: u64,
    account: Account,
}

impl Expect {
    pub fn new(load: &Load) -> Self {
        Self {
            next: vec![1; load.connections * (load.senders + 1)],
            missing: HashSet::new(),
            sent: vec![0; load.connections],
            under_way: match load.pace {
                Pace::Window(_) => vec![VecDeque::new(); load.connections],
                Pace::Rate(_) => Vec::new(),
            },
            load: *load,
            delivered: 0,
            expected: 0,
            account: Account::default(),
        }
    }

    pub fn sent(&self, sender: usize) -> u32 {
        self.sent[sender]
    }

    /// How many messages of a sender have not reached all.
    pub fn outstanding(&self, sender: usize) -> usize {
        self.under_way.get(sender).map_or(0, VecDeque::len)
    }

    /// Draws the next number of a sender.
    pub fn send(&mut self, sender: usize) -> u32 {
        self.sent[sender] += 1;
        let deliveries = self.load.deliveries_of(sender, self.sent[sender]);
        self.expected += deliveries as u64;
        if let Some(under_way) = self.under_way.get_mut(sender) {
            under_way.push_back((self.sent[sender], deliveries as u32));
        }
        self.sent[sender]
    }

    /// Takes note of what has arrived, a payload of so many bytes; says whether it was to arrive, and had not before.
    pub fn receive(&mut self, receiver: usize, header: Header, length: usize) -> bool {
        let Some(place) = self.place(receiver, header, length) else {
            self.account.stray += 1;
            return false;
        };
        let (load, sender) = (self.load, header.sender as usize);
        let next = &mut self.next[place];
        if header.number == *next {
            *next += 1;
        } else if header.number > *next {
            let is_acknowledged = place >= load.connections * load.senders;
            let overtaken = (*next..header.number)
                .filter(|&number| is_acknowledged || load.is_for(receiver, sender, number));
            self.missing.extend(overtaken.map(|number| (place, number)));
            *next = header.number + 1;
        } else if self.missing.remove(&(place, header.number)) {
            self.account.disordered += 1;
        } else {
            self.account.doubled += 1;
            return false;
        }
        self.delivered += 1;
        self.reached(header);
        true
    }

    /// Where in `next` it is accounted for, if it is for this receiver.
    fn place(&self, receiver: usize, header: Header, length: usize) -> Option<usize> {
        let Load {
            mode,
            connections,
            senders,
            room,
            ..
        } = self.load;
        let sender = header.sender as usize;
        let first = receiver - receiver % room;
        let within = sender.checked_sub(first)?;
        if within >= senders || header.number > self.sent[sender] {
            return None;
        }
        if length == self.load.payload_of(header.number) {
            let is_for = self.load.is_for(receiver, sender, header.number);
            return is_for.then_some(receiver * senders + within);
        }
        let is_answer = length == ACK && sender == receiver && mode.acknowledges();
        is_answer.then_some(connections * senders + receiver)
    }

    fn reached(&mut self, header: Header) {
        let Some(under_way) = self.under_way.get_mut(header.sender as usize) else {
            return;
        };
        let first = under_way.front().map_or(0, |(number, _)| *number);
        // Mostly no message behind the first has reached all.
        let guess = header.number.wrapping_sub(first) as usize;
        let index = match under_way.get(guess) {
            Some((number, _)) if *number == header.number => guess,
            _ => match under_way.binary_search_by_key(&header.number, |(number, _)| *number) {
                Ok(index) => index,
                Err(_) => return,
            },
        };
        under_way[index].1 -= 1;
        if under_way[index].1 == 0 {
            under_way.remove(index);
        }
    }

    pub fn is_complete(&self) -> bool {
        self.delivered == self.expected
    }

    /// What has gone wrong, if nothing more is to come.
    pub fn account(&self) -> Account {
        Account {
            lost: self.expected - self.delivered,
            ..self.account
        }
    }
}

#[cfg(test)]
mod tests {
    use gobroke_bench::{GROUPS, MIXED, Mode, Whom};

    use super::*;

    const PAYLOAD: usize = 128;

    /// Three connections, of which the first sends.
    fn expect(mode: Mode) -> Expect {
        Expect::new(&Load {
            mode,
            connections: 3,
            senders: 1,
            room: 3,
            pace: Pace::Window(8),
            payload: PAYLOAD,
            big: None,
            slow: 0,
        })
    }

    impl Expect {
        /// The first has sent so many.
        fn after(mut self, messages: usize) -> Self {
            for _ in 0..messages {
                self.send(0);
            }
            self
        }

        fn gets(&mut self, receiver: usize, numbers: &[u32]) {
            self.gets_bytes(receiver, PAYLOAD, numbers);
        }

        fn gets_bytes(&mut self, receiver: usize, length: usize, numbers: &[u32]) {
            for &number in numbers {
                let header = Header {
                    sender: 0,
                    number,
                    nanos: 0,
                };
                self.receive(receiver, header, length);
            }
        }
    }

    #[test]
    fn what_each_gets_once_and_in_order_is_complete() {
        let mut expect = expect(Mode::All).after(3);
        for receiver in 0..3 {
            assert!(!expect.is_complete());
            expect.gets(receiver, &[1, 2, 3]);
        }
        assert!(expect.is_complete());
        assert_eq!(expect.account(), Account::default());
        assert_eq!(expect.outstanding(0), 0);
    }

    #[test]
    fn a_lost_message_is_lost_and_nothing_else() {
        let mut expect = expect(Mode::All).after(4);
        expect.gets(0, &[1, 2, 3, 4]);
        expect.gets(1, &[1, 3, 4]);
        expect.gets(2, &[1, 2, 3]);
        let lost = Account {
            lost: 2,
            ..Account::default()
        };
        assert_eq!(expect.account(), lost);
        assert_eq!(expect.outstanding(0), 2);
    }

    #[test]
    fn a_double_hides_no_loss_be_it_the_next_or_a_later_one() {
        let wrong = Account {
            lost: 1,
            doubled: 1,
            ..Account::default()
        };
        for numbers in [[1, 1, 3, 4], [1, 3, 3, 4], [1, 3, 4, 1], [1, 3, 4, 3]] {
            let mut expect = expect(Mode::All).after(4);
            expect.gets(0, &[1, 2, 3, 4]);
            expect.gets(1, &numbers);
            expect.gets(2, &[1, 2, 3, 4]);
            assert_eq!(expect.account(), wrong, "{numbers:?}");
            assert!(!expect.is_complete());
            assert_eq!(expect.outstanding(0), 1);
        }
    }

    #[test]
    fn of_two_swapped_messages_one_is_disordered() {
        let mut expect = expect(Mode::All).after(4);
        expect.gets(0, &[1, 3, 2, 4]);
        expect.gets(1, &[2, 3, 4, 1]);
        expect.gets(2, &[1, 2, 3, 4]);
        let disordered = Account {
            disordered: 2,
            ..Account::default()
        };
        assert_eq!(expect.account(), disordered);
        assert!(expect.is_complete());
    }

    #[test]
    fn a_disordered_message_that_comes_again_is_a_double() {
        let mut expect = expect(Mode::All).after(2);
        expect.gets(1, &[2, 1, 1, 2]);
        let Account {
            doubled,
            disordered,
            ..
        } = expect.account();
        assert_eq!((doubled, disordered), (2, 1));
    }

    #[test]
    fn a_message_to_the_sender_that_is_left_out_is_stray() {
        for mode in [Mode::Others, Mode::OthersAck] {
            let mut expect = expect(mode).after(1);
            expect.gets(0, &[1]);
            expect.gets(1, &[1]);
            let wrong = Account {
                lost: expect.load.deliveries() as u64 - 1,
                stray: 1,
                ..Account::default()
            };
            assert_eq!(expect.account(), wrong, "{mode:?}");
        }
    }

    #[test]
    fn an_acknowledgement_is_expected_beside_the_message() {
        for mode in [Mode::AllAck, Mode::OthersAck] {
            let mut expect = expect(mode).after(2);
            expect.gets_bytes(0, ACK, &[1]);
            for receiver in 0..3 {
                if mode.includes_sender() || receiver != 0 {
                    expect.gets(receiver, &[1, 2]);
                }
            }
            let missing = Account {
                lost: 1,
                ..Account::default()
            };
            assert_eq!(expect.account(), missing, "{mode:?}");
            expect.gets_bytes(0, ACK, &[1, 2]);
            assert!(expect.is_complete());
            assert_eq!(expect.account().doubled, 1);
        }
    }

    #[test]
    fn every_sixteenth_message_has_the_big_length_where_there_is_one() {
        let mut expect = Expect::new(&Load {
            big: Some(4 * PAYLOAD),
            ..expect(Mode::All).load
        })
        .after(17);
        let numbers: Vec<u32> = (1..=17).collect();
        expect.gets(0, &numbers);
        assert_eq!((expect.delivered, expect.account().stray), (16, 1));
        expect.gets_bytes(0, 4 * PAYLOAD, &[16]);
        assert_eq!((expect.delivered, expect.account().stray), (17, 1));
    }

    #[test]
    fn nobody_waits_for_a_slow_receiver() {
        let mut expect = Expect::new(&Load {
            slow: 1,
            ..expect(Mode::All).load
        })
        .after(1);
        expect.gets(0, &[1]);
        assert_eq!(expect.outstanding(0), 1);
        expect.gets(1, &[1]);
        assert_eq!(expect.outstanding(0), 0);
        assert!(expect.is_complete());
    }

    #[test]
    fn what_is_for_somebody_else_or_was_never_sent_is_stray() {
        let mut expect = Expect::new(&Load {
            room: 1,
            ..expect(Mode::Rooms).load
        })
        .after(1);
        expect.gets(1, &[1]);
        expect.gets(0, &[2]);
        expect.gets_bytes(0, ACK, &[1]);
        assert_eq!(expect.account().stray, 3);
        assert_eq!(expect.delivered, 0);
    }

    #[test]
    fn of_a_mix_each_gets_once_and_in_order_what_is_for_it() {
        let mix = Load {
            mode: Mode::Mix,
            connections: MIXED,
            room: MIXED,
            ..expect(Mode::All).load
        };
        let owed = |receiver| (1..=9).filter(move |&number| Whom::of(0, number).has(receiver));
        let get = |turned: bool| {
            let mut expect = Expect::new(&mix).after(9);
            for receiver in 0..MIXED {
                let mut numbers: Vec<u32> = owed(receiver).collect();
                if turned && receiver == GROUPS {
                    numbers.reverse();
                }
                expect.gets(receiver, &numbers);
            }
            expect
        };
        let expect = get(false);
        assert!(expect.is_complete());
        assert_eq!(expect.delivered, 3 * (MIXED + MIXED / GROUPS + 1) as u64);
        assert_eq!(expect.account(), Account::default());
        // It got six, of all and of its group.
        let expect = get(true);
        assert!(expect.is_complete());
        assert_eq!(expect.account().disordered, 5);
    }

    #[test]
    fn of_a_mix_what_is_for_others_is_stray() {
        let mut expect = Expect::new(&Load {
            mode: Mode::Mix,
            connections: MIXED,
            room: MIXED,
            ..expect(Mode::All).load
        })
        .after(2);
        assert_eq!(
            [1, 2].map(|number| Whom::of(0, number)),
            [Whom::Group(0), Whom::One(0)]
        );
        expect.gets(1, &[1, 2]);
        expect.gets(0, &[2]);
        assert_eq!(expect.account().stray, 2);
        expect.gets(0, &[1]);
        assert_eq!(expect.account().disordered, 1);
    }
}
