//! [`Expect`]: what should have arrived where.

use super::{Header, Load, Pace};
use gobroke_bench::Mode;

pub struct Expect {
    load: Load,
    /// The last number of each sender at each receiver.
    last: Vec<u32>,
    /// The last number that each connection sent.
    sent: Vec<u32>,
    /// How many receivers have a message of a sender, by its number.
    reached: Vec<Vec<u32>>,
    outstanding: Vec<usize>,
    pub delivered: u64,
    expected: u64,
    pub doubled: u64,
    pub disordered: u64,
}

impl Expect {
    pub fn new(load: &Load) -> Self {
        let senders = match load.mode {
            Mode::Echo => 1,
            _ => load.senders,
        };
        Self {
            last: vec![0; load.connections * senders],
            sent: vec![0; load.connections],
            reached: match load.pace {
                Pace::Window(window) => {
                    vec![vec![0; (2 * window).next_power_of_two()]; load.connections]
                }
                Pace::Rate(_) => Vec::new(),
            },
            outstanding: vec![0; load.connections],
            load: *load,
            delivered: 0,
            expected: 0,
            doubled: 0,
            disordered: 0,
        }
    }

    pub fn sent(&self, sender: usize) -> u32 {
        self.sent[sender]
    }

    pub fn outstanding(&self, sender: usize) -> usize {
        self.outstanding[sender]
    }

    /// Draws the next number of a sender.
    pub fn send(&mut self, sender: usize) -> u32 {
        self.expected += self.load.deliveries() as u64;
        self.outstanding[sender] += 1;
        self.sent[sender] += 1;
        self.sent[sender]
    }

    pub fn receive(&mut self, receiver: usize, header: Header) {
        let sender = header.sender as usize;
        let place = match self.load.mode {
            Mode::Echo => receiver,
            _ => receiver * self.load.senders + sender % self.load.room,
        };
        let last = &mut self.last[place];
        if header.number != *last + 1 {
            if header.number == *last {
                self.doubled += 1;
                return;
            }
            self.disordered += 1;
        }
        *last = header.number;
        self.delivered += 1;
        let receivers = self.load.deliveries() as u32;
        if let Some(reached) = self.reached.get_mut(sender) {
            let slot = header.number as usize % reached.len();
            reached[slot] += 1;
            if reached[slot] == receivers {
                reached[slot] = 0;
                self.outstanding[sender] -= 1;
            }
        }
    }

    pub fn is_complete(&self) -> bool {
        self.delivered >= self.expected
    }

    pub fn missing(&self) -> u64 {
        self.expected.saturating_sub(self.delivered)
    }
}
