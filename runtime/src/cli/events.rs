// SPDX-License-Identifier: Apache-2.0
//! `events` (compatibility S15, J3, J4).

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use corten::cgroup::oom::AGAIN;
use corten::error::Kind;
use corten::verbs::Watch;
use corten::{Error, state, verbs};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::command::{Arity, Outcome, Session, Verb};
use super::failure::Failure;
use super::stats::Event;
use super::{amounts, output, values};

/// display container events such as OOM notifications, cpu, memory, and IO usage statistics
///
/// Each event is one line of JSON: the statistics once every interval, and {"type":"oom"} for each process that is
/// killed because the container is out of memory. It ends with the container.
#[derive(Debug, clap::Parser)]
#[command(verbatim_doc_comment)]
pub struct EventsCommand {
    /// set the stats collection interval (default: 5s)
    #[arg(long)]
    interval: Option<String>,
    /// display the container's stats then exit
    #[arg(long)]
    stats: bool,
    id: String,
}

impl Verb for EventsCommand {
    const NAME: &'static str = "events";
    const USAGE: &'static str = "[command options] <container-id>";
    const ARITY: Arity = Arity::exactly(1);

    fn run(self, session: &Session<'_>) -> Outcome {
        state::check_id(&self.id)?;
        let interval = match values::text(self.interval) {
            None => Duration::from_secs(5),
            Some(text) => amounts::duration(&text).ok_or_else(|| {
                Failure::new(format!("invalid value {text:?} for flag -interval: parse error"))
            })?,
        };
        if interval.is_zero() {
            return Err(Failure::new("duration interval must be greater than 0"));
        }
        if self.stats {
            let stats = verbs::stats(&session.home, &self.id)?;
            output::print_json(&Event::stats(&self.id, &stats))?;
        } else {
            follow(&self.id, verbs::watch(&session.home, &self.id)?, interval)?;
        }
        Ok(0)
    }
}

/// Prints until init has ended. What its end brought (it may have been the one that was killed) is still told.
fn follow(id: &str, mut watch: Watch, interval: Duration) -> Result<(), Failure> {
    crate::ALLOCATOR.stay();
    let mut next = Instant::now() + interval;
    let mut again = false;
    loop {
        let due = next.saturating_duration_since(Instant::now());
        let ended = wait(&watch, if again { due.min(AGAIN) } else { due })?;
        again = tell_kills(id, &mut watch)?;
        if ended {
            // v1 tells of a want of memory before it kills for it.
            for _ in 0..100 {
                if !again {
                    break;
                }
                std::thread::sleep(AGAIN);
                again = tell_kills(id, &mut watch)?;
            }
            return Ok(());
        }
        if Instant::now() >= next {
            match watch.stats() {
                Ok(stats) => output::print_json(&Event::stats(id, &stats))?,
                // Deleted between two looks.
                Err(error) if error.kind() == Kind::Status => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            // Late once is not late for ever.
            next = (next + interval).max(Instant::now());
        }
    }
}

/// Prints a line for each kill since the last call; whether to ask again soon.
fn tell_kills(id: &str, watch: &mut Watch) -> Result<bool, Failure> {
    let Some(oom) = &mut watch.oom else { return Ok(false) };
    let news = oom.news()?;
    for _ in 0..news.kills {
        output::print_json(&Event::oom(id))?;
    }
    if news.gone {
        watch.oom = None;
    }
    Ok(news.again)
}

/// Waits for something to tell; whether init has ended.
fn wait(watch: &Watch, at_most: Duration) -> Result<bool, Failure> {
    let timeout = Timespec {
        tv_sec: at_most.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: at_most.subsec_nanos().into(),
    };
    let mut fds = vec![PollFd::new(&watch.pidfd, PollFlags::IN)];
    fds.extend(watch.oom.as_ref().map(|oom| PollFd::from_borrowed_fd(oom.as_fd(), PollFlags::IN)));
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) => Ok(!fds[0].revents().is_empty()),
        Err(Errno::INTR) => Ok(false),
        Err(errno) => Err(Error::os("poll", errno).into()),
    }
}
