//! [`Sieve`]: loses most of what is published, on the way to who subscribed.

/// How many of 1,000 messages are lost.
const LOST: u64 = 700;

/// What comes over a connection that subscribed, answer by answer.
#[derive(Default)]
pub(crate) struct Sieve {
    /// The beginning of an answer.
    rest: Vec<u8>,
    drawn: u64,
}

impl Sieve {
    /// The whole answers in what has come by now; most messages are not among them where it `loses`.
    pub(crate) fn pass(&mut self, came: &[u8], loses: bool) -> Vec<u8> {
        self.rest.extend_from_slice(came);
        let came = std::mem::take(&mut self.rest);
        let (mut passed, mut answers) = (Vec::new(), &*came);
        while let Some(length) = length(answers) {
            let (answer, others) = answers.split_at(length);
            if !loses || !is_message(answer) || !self.draw_lost() {
                passed.extend_from_slice(answer);
            }
            answers = others;
        }
        self.rest = answers.to_vec();
        passed
    }

    fn draw_lost(&mut self) -> bool {
        self.drawn = self
            .drawn
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.drawn >> 33) % 1000 < LOST
    }
}

/// How long the first answer is; `None` while not all of it is there.
fn length(answers: &[u8]) -> Option<usize> {
    let line = answers.windows(2).position(|end| end == b"\r\n")? + 2;
    let number = || {
        str::from_utf8(&answers[1..line - 2])
            .ok()?
            .parse::<usize>()
            .ok()
    };
    let end = match answers[0] {
        // What is not there has no length: -1.
        b'$' => number().map_or(line, |bytes| line + bytes + 2),
        b'*' | b'>' => {
            let mut end = line;
            for _ in 0..number().unwrap_or(0) {
                end += length(answers.get(end..)?)?;
            }
            end
        }
        _ => line,
    };
    (end <= answers.len()).then_some(end)
}

/// Whether it tells of a message, to a channel or to one of a shard.
fn is_message(answer: &[u8]) -> bool {
    let said = answer.get(4..).unwrap_or_default();
    said.starts_with(b"$7\r\nmessage\r\n") || said.starts_with(b"$8\r\nsmessage\r\n")
}
