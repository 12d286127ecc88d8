//! Work done in threads, whose results come in the order in which it was handed in.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// More threads than this help no disk.
const THREADS_MAX: usize = 4;

/// Takes jobs while [`ordered`] runs.
pub struct Ordered<'w, J, R> {
    /// `None` where no thread could be started.
    jobs: Option<SyncSender<(J, SyncSender<R>)>>,
    work: &'w (dyn Fn(J) -> R + Sync),
    waiting: VecDeque<Waiting<R>>,
    ahead: usize,
}

enum Waiting<R> {
    Done(R),
    Comes(Receiver<R>),
}

/// Runs `hand_in`, which gives jobs to as many threads as there are processors, each of which does `work` on one
/// after another; at most `ahead` results are not taken yet. Without a thread to be had, `work` is done at once.
pub fn ordered<J: Send, R: Send, T>(
    ahead: usize,
    work: impl Fn(J) -> R + Sync,
    hand_in: impl FnOnce(&mut Ordered<'_, J, R>) -> T,
) -> T {
    let (jobs, taken) = sync_channel::<(J, SyncSender<R>)>(ahead);
    let taken = Mutex::new(taken);
    let next = || taken.lock().expect("no holder panics").recv();
    let work_on = || {
        while let Ok((job, done)) = next() {
            // Whoever handed it in may not want to know any more.
            let _ = done.send(work(job));
        }
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism()
            .map_or(1, usize::from)
            .min(THREADS_MAX);
        let start = |_| thread::Builder::new().spawn_scoped(scope, work_on).ok();
        let started = (0..threads).filter_map(start).count();
        hand_in(&mut Ordered {
            jobs: (started > 0).then_some(jobs),
            work: &work,
            waiting: VecDeque::new(),
            ahead,
        })
    })
}

impl<J, R> Ordered<'_, J, R> {
    /// Hands a job in. Returns the oldest result if there are too many now.
    pub fn push(&mut self, job: J) -> Option<R> {
        let waiting = match &self.jobs {
            None => Waiting::Done((self.work)(job)),
            Some(jobs) => {
                let (done, comes) = sync_channel(1);
                jobs.send((job, done))
                    .expect("the threads take jobs as long as there are any");
                Waiting::Comes(comes)
            }
        };
        self.waiting.push_back(waiting);
        if self.waiting.len() > self.ahead {
            self.oldest()
        } else {
            None
        }
    }

    /// Waits for the oldest result; `None` if all have been taken.
    pub fn oldest(&mut self) -> Option<R> {
        match self.waiting.pop_front()? {
            Waiting::Done(result) => Some(result),
            Waiting::Comes(comes) => Some(comes.recv().expect("no job panics")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_no_more_wait_than_may() {
        let seen = ordered(
            3,
            |n: u64| {
                // Later jobs are done sooner.
                thread::sleep(std::time::Duration::from_millis(5 - n % 5));
                n
            },
            |ordered| {
                let mut seen = Vec::new();
                for n in 0..50 {
                    seen.extend(ordered.push(n));
                    assert!(ordered.waiting.len() <= 3);
                }
                seen.extend(std::iter::from_fn(|| ordered.oldest()));
                seen
            },
        );
        assert!(seen.into_iter().eq(0..50));
    }

    #[test]
    fn jobs_nobody_waits_for_do_not_hold_up_the_end() {
        assert!(ordered(2, |n| n, |ordered| ordered.push(1).is_none()));
    }
}
