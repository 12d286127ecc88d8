//! The RPC service of a maintnerd: plain gRPC, one question and one answer.
//!
//! What is answered is decided in `answers`, of a snapshot, without IO but reading texts in the log.
//!
//! Source: golang/build `maintner/maintnerd/maintapi/api.go`.

mod answers;
mod generated; // by the test `the_messages_of_the_service_are_those_of_the_schema`
mod releases;
mod try_work;

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::post;
use prost::Message;
use tokio::sync::watch;
use tonic::server::{Grpc, UnaryService};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tracing::warn;

use crate::follow::Snapshot;
pub use generated::*;

/// The server whose projects are asked for by name alone, and the project that the others are built with.
const SERVER: &str = "go.googlesource.com";
const MAIN: &str = "go";

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0}")]
    Other(String),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Invalid(String),
}

impl From<std::io::Error> for Refusal {
    fn from(why: std::io::Error) -> Refusal {
        Refusal::Other(format!("cannot read the log: {why}"))
    }
}

impl From<Refusal> for Status {
    fn from(why: Refusal) -> Status {
        let code = match why {
            Refusal::Other(_) => Code::Unknown,
            Refusal::NotFound(_) => Code::NotFound,
            Refusal::Invalid(_) => Code::InvalidArgument,
        };
        Status::new(code, why.to_string())
    }
}

/// The last answer of what waits to be tried, and of how many bytes of the log it is.
type Cached = Option<(u64, GoFindTryWorkResponse)>;

#[derive(Clone)]
pub(crate) struct Service {
    snapshot: watch::Receiver<Option<Snapshot>>,
    try_work: Arc<Mutex<Cached>>,
}

/// `POST /apipb.MaintnerService/METHOD`, with HTTP/2.
pub fn rpc(snapshot: watch::Receiver<Option<Snapshot>>) -> Router {
    let service = Service {
        snapshot,
        try_work: Arc::default(),
    };
    web::router(table()).with_state(service)
}

pub(crate) fn table() -> web::Table<Service> {
    vec![
        ("/apipb.MaintnerService/HasAncestor", post(has_ancestor)),
        ("/apipb.MaintnerService/GetRef", post(get_ref)),
        ("/apipb.MaintnerService/GoFindTryWork", post(go_find_try_work)),
        ("/apipb.MaintnerService/ListGoReleases", post(list_go_releases)),
        ("/apipb.MaintnerService/GetDashboard", post(get_dashboard)),
    ]
}

async fn has_ancestor(State(service): State<Service>, request: Request) -> Response {
    serve(service, request, |snapshot, asked| {
        answers::has_ancestor(&snapshot.corpus, &asked)
    })
    .await
}

async fn get_ref(State(service): State<Service>, request: Request) -> Response {
    serve(service, request, |snapshot, asked| {
        answers::get_ref(&snapshot.corpus, &asked)
    })
    .await
}

async fn list_go_releases(State(service): State<Service>, request: Request) -> Response {
    serve(service, request, |snapshot, _: ListGoReleasesRequest| {
        let project = answers::project(&snapshot.corpus, MAIN)
            .ok_or_else(|| Refusal::Other("go gerrit project not found".to_owned()))?;
        let releases = releases::supported(project)?;
        Ok(ListGoReleasesResponse { releases })
    })
    .await
}

async fn get_dashboard(State(service): State<Service>, request: Request) -> Response {
    serve(service, request, |snapshot, asked| {
        answers::dashboard(&snapshot.corpus, &snapshot.texts, asked)
    })
    .await
}

async fn go_find_try_work(State(service): State<Service>, request: Request) -> Response {
    let cache = service.try_work.clone();
    serve(service, request, move |snapshot, _: GoFindTryWorkRequest| {
        // One at a time: who comes meanwhile has the same question.
        let mut cached = cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((size, answer)) = &*cached
            && *size == snapshot.size
        {
            return Ok(answer.clone());
        }
        let answer = try_work::find(&snapshot.corpus, &snapshot.texts)?;
        *cached = Some((snapshot.size, answer.clone()));
        Ok(answer)
    })
    .await
}

/// Answers of the newest snapshot. The work may read the disk, and long histories.
async fn serve<Q, A>(
    service: Service,
    request: Request,
    answer: impl FnOnce(&Snapshot, Q) -> Result<A, Refusal> + Send + 'static,
) -> Response
where
    Q: Message + Default + Send + 'static,
    A: Message + Send + 'static,
{
    let snapshot = service.snapshot.borrow().clone();
    let answering = Answering {
        snapshot,
        answer: Some(answer),
    };
    let codec = ProstCodec::<A, Q>::default();
    Grpc::new(codec).unary(answering, request).await.map(Body::new)
}

struct Answering<F> {
    snapshot: Option<Snapshot>,
    /// For the one request there is.
    answer: Option<F>,
}

impl<Q, A, F> UnaryService<Q> for Answering<F>
where
    Q: Send + 'static,
    A: Send + 'static,
    F: FnOnce(&Snapshot, Q) -> Result<A, Refusal> + Send + 'static,
{
    type Response = A;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<tonic::Response<A>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let (snapshot, answer) = (self.snapshot.take(), self.answer.take());
        Box::pin(async move {
            let Some((snapshot, answer)) = snapshot.zip(answer) else {
                return Err(Status::unavailable("starting"));
            };
            let asked = request.into_inner();
            let work = tokio::task::spawn_blocking(move || answer(&snapshot, asked));
            match work.await {
                Ok(answered) => Ok(tonic::Response::new(answered?)),
                Err(why) => {
                    warn!("a question could not be answered: {why}");
                    Err(Status::internal("the question could not be answered"))
                }
            }
        })
    }
}
