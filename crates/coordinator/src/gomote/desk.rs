//! Where those who ask for machines and those who give them meet: answers to tickets, and what cuts off a loan's owner.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use farm::{Input, Loan, Ticket};
use ids::{BuilderName, LoanId};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Cheap to clone; clones are one desk.
#[derive(Clone, Default)]
pub struct Desk(Arc<Mutex<Open>>);

#[derive(Default)]
struct Open {
    last: u64,
    asks: BTreeMap<Ticket, oneshot::Sender<Answer>>,
    cuts: BTreeMap<LoanId, CancellationToken>,
}

/// The loan, or why there is none.
pub type Answer = Result<Loan, String>;

/// An ask under way. Dropped before its answer, it is taken back.
pub struct Ask {
    pub ticket: Ticket,
    answer: oneshot::Receiver<Answer>,
    desk: Desk,
    inputs: mpsc::Sender<Input>,
    answered: bool,
}

impl Desk {
    /// `None`: the coordinator stops.
    pub async fn ask(
        &self,
        inputs: &mpsc::Sender<Input>,
        owner: String,
        builder: BuilderName,
    ) -> Option<Ask> {
        let (to, answer) = oneshot::channel();
        let ticket = {
            let mut open = self.open();
            open.last += 1;
            let ticket = Ticket(open.last);
            open.asks.insert(ticket, to);
            ticket
        };
        let ask = Ask {
            ticket,
            answer,
            desk: self.clone(),
            inputs: inputs.clone(),
            answered: false,
        };
        let input = Input::Borrow {
            ticket,
            owner,
            builder,
        };
        inputs.send(input).await.ok().map(|()| ask)
    }

    /// `false`: nobody waits for it any more.
    pub fn answer(&self, ticket: Ticket, answer: Answer) -> bool {
        let ask = self.open().asks.remove(&ticket);
        ask.is_some_and(|ask| ask.send(answer).is_ok())
    }

    /// Cancelled when the loan ends. Ask for it before looking whether the loan is there: what ends after that look
    /// cuts it.
    pub fn cut_of(&self, loan: LoanId) -> CancellationToken {
        self.open().cuts.entry(loan).or_default().clone()
    }

    pub fn cut(&self, loan: LoanId) {
        if let Some(cut) = self.open().cuts.remove(&loan) {
            cut.cancel();
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().expect("no holder panics")
    }
}

impl Ask {
    /// Cancel safe: the answer stays where it is.
    pub async fn answer(&mut self) -> Answer {
        let answer = (&mut self.answer).await;
        self.answered = true;
        answer.unwrap_or_else(|_| Err("the coordinator stops".to_owned()))
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        if !self.answered {
            self.desk.open().asks.remove(&self.ticket);
            // Should this not get through, the one who brings the answer finds nobody and takes it back.
            let _ = self.inputs.try_send(Input::Unask { ticket: self.ticket });
        }
    }
}
