//! The three kinds of logic, as types and as closures, without a network.
//!
//! Start it:
//!
//! ```text
//! cargo run --bin logic_kinds
//! ```
//!
//! What you see: a passive module ticks, and each tick goes to a dispatched module, which shouts it on to a worker, which
//! counts. Beside them, closures of the three kinds double numbers and add them up. It ends by itself with `done`.

use std::{process::ExitCode, time::Duration};

use gobroke_core::{
    Broke, Dispatched, Logic, LogicContext, LogicResult, Message, Passive, Worker, async_trait,
};
use gobroke_examples::{Failure, exit};
use lexopt::prelude::*;
use tokio::{
    sync::mpsc,
    time::{interval, timeout},
};

/// Passive: it runs by itself and receives no messages.
struct Ticker {
    ticks: u32,
}

#[async_trait]
impl Passive for Ticker {
    async fn run(&mut self, ctx: &LogicContext) -> LogicResult {
        let mut clock = interval(Duration::from_millis(100));
        for tick in 1..=self.ticks {
            clock.tick().await;
            println!("ticker: tick {tick}");
            ctx.send(Message::text(format!("tick {tick}")).to_logic("shout"))?;
        }
        // A passive module stays until it is cancelled: one that returns earlier is reported as ended.
        ctx.cancelled().await;
        Ok(())
    }
}

/// Dispatched: handles messages side by side, so it takes `&self`.
struct Shout;

#[async_trait]
impl Dispatched for Shout {
    async fn handle(&self, message: Message, ctx: &LogicContext) -> LogicResult {
        let louder = String::from_utf8_lossy(message.payload()).to_uppercase();
        println!("shout: {louder}");
        ctx.send(Message::text(louder).to_logic("count"))?;
        Ok(())
    }
}

/// A worker: handles one message after another, so it takes `&mut self`, and its state needs no lock.
struct Count {
    seen: u32,
    done: mpsc::UnboundedSender<u32>,
}

#[async_trait]
impl Worker for Count {
    async fn handle(&mut self, message: Message, _ctx: &LogicContext) -> LogicResult {
        self.seen += 1;
        println!(
            "count: {} is number {}",
            String::from_utf8_lossy(message.payload()),
            self.seen
        );
        self.done.send(self.seen)?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    exit("logic_kinds", run().await)
}

async fn run() -> Result<(), Failure> {
    if let Some(argument) = lexopt::Parser::from_env().next()? {
        if argument == Long("help") || argument == Short('h') {
            println!("Usage: logic_kinds");
            return Ok(());
        }
        return Err(argument.unexpected().into());
    }
    let (done, mut seen) = mpsc::unbounded_channel();
    let broke = Broke::builder()
        // What a handler returns as an error, or panics with, is told here.
        .on_error(|failure| eprintln!("{failure}"))
        // As types.
        .logic(Ticker { ticks: 3 }.into_passive("ticker"))
        .logic(Shout.into_dispatched("shout"))
        .logic(Count { seen: 0, done: done.clone() }.into_worker("count"))
        // As closures. Those that do not wait are plain ones, since sending never waits.
        .logic(Logic::dispatched("double", |message, ctx| {
            let number: u64 = message.parse()?;
            println!("double: {number} is {}", number * 2);
            ctx.send(Message::json(&(number * 2))?.to_logic("add up"))?;
            Ok(())
        }))
        .logic({
            let mut sum = 0;
            let done = done.clone();
            Logic::worker("add up", move |message, _ctx| {
                sum += message.parse::<u32>()?;
                println!("add up: {sum}");
                done.send(sum)?;
                Ok(())
            })
        })
        // A passive one waits, and so do `dispatched_async` and `worker_async`.
        .logic(Logic::passive("numbers", async |ctx: LogicContext| {
            for number in [1, 20, 300] {
                tokio::time::sleep(Duration::from_millis(150)).await;
                ctx.send(Message::json(&number)?.to_logic("double"))?;
            }
            ctx.cancelled().await;
            Ok(())
        }))
        .start()
        .await?;

    // Three ticks counted, and 2 + 40 + 600 added up.
    let (mut counted, mut added) = (false, false);
    while !(counted && added) {
        let number = timeout(Duration::from_secs(5), seen.recv()).await;
        match number.map_err(|_| "the modules fell silent".to_owned())? {
            Some(3) => counted = true,
            Some(642) => added = true,
            _ => {}
        }
    }
    broke.stop().await;
    println!("done");
    Ok(())
}
