use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use mutlog::Folder;
use reqwest::Url;
use tokio_util::sync::CancellationToken;
use tracing::info;
use web::{ConnectionInfo, Door, Limits, RawHandler, RawHead, RawStream, Server};

use crate::copy::Copy;
use crate::follow::follow;
use crate::keeper::Keeper;
use crate::known::Known;
use crate::pages::{Shown, hooks, pages};
use crate::rpc::rpc;
use crate::serve::{Served, routes};
use crate::sources::{Sources, sources};
use crate::wakes::listen;

/// The log that a service keeps and serves.
pub struct Config {
    pub folder: PathBuf,
    /// `None`: it is ours. Else the URL of the `/logs` that the folder is a copy of.
    pub follow: Option<Url>,
    /// What a log of ours is told of.
    pub maintner: config::Maintner,
}

/// Serves the log until `stop` is cancelled. Ends by itself only when the log cannot be kept.
pub async fn run(config: Config, door: Door, stop: CancellationToken) -> anyhow::Result<()> {
    let folder = Folder::new(&config.folder);
    match config.follow {
        None => {
            let (keeper, keep) = Keeper::open(folder, stop.clone())?;
            let known = Known::new(keeper.clone());
            let followed = Sources::new(config.folder.join("sources"), keeper.clone(), known);
            followed.set(sources(&config.maintner), config.maintner.github_rate);
            let listening = hear(&config.maintner, &followed, &stop);
            let served = Served {
                visible: keeper.visible(),
                reader: keeper.reader(),
                stop: stop.clone(),
            };
            let shown = Shown {
                visible: keeper.visible(),
                snapshot: keeper.snapshot(),
                own: Some((keeper, followed.clone())),
            };
            let wakes = hooks(followed.clone()).layer(from_fn(from_here));
            let serving = serve(door, served, shown, wakes, stop.clone());
            // Any one that ends takes the others along; the log last, for what was handed to it.
            let told = async {
                let ended = tokio::try_join!(serving, followed.clone().run(stop.clone()), listening);
                stop.cancel();
                ended
            };
            let kept = async {
                let ended = keep.await;
                stop.cancel();
                ended
            };
            let (kept, told) = tokio::join!(kept, told);
            kept.and(told.map(drop))
        }
        Some(url) => {
            info!("following {url}");
            let (following, run) = follow(Copy::open(url, folder)?, stop.clone());
            let served = Served {
                visible: following.visible.clone(),
                reader: following.reader,
                stop: stop.clone(),
            };
            let shown = Shown {
                visible: following.visible,
                snapshot: following.snapshot,
                own: None,
            };
            let serving = serve(door, served, shown, Router::new(), stop.clone());
            // Either one alone is worth nothing.
            let run = async {
                let ended = run.await;
                stop.cancel();
                ended
            };
            let (served, followed) = tokio::join!(serving, run);
            followed.and(served)
        }
    }
}

/// Listens to the pubsubhelper, if there is one.
pub async fn hear(
    maintner: &config::Maintner,
    sources: &Sources,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    match &maintner.pubsub {
        Some(base) => listen(base.clone(), sources.clone(), stop.clone()).await,
        None => {
            stop.cancelled().await;
            Ok(())
        }
    }
}

async fn serve(
    door: Door,
    served: Served,
    shown: Shown,
    more: Router,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let router = routes(served)
        .merge(rpc(shown.snapshot.clone()))
        .merge(pages(shown))
        .merge(more);
    let server = Server {
        router,
        raw_paths: Vec::new(),
        raw: Arc::new(NoRaw),
        raw_header: None,
        limits: Limits::default(),
    };
    web::serve(vec![door], server, stop)
        .await
        .context("serve the log")
}

/// Lets pass programs on this machine: a service of its own knows no tokens.
async fn from_here(request: Request, next: Next) -> Response {
    let peer = request
        .extensions()
        .get::<ConnectionInfo>()
        .map(|info| info.peer.ip());
    let here = peer.is_some_and(|peer: IpAddr| peer.to_canonical().is_loopback());
    let passed_on = ["forwarded", "x-forwarded-for", "x-real-ip", "via", "origin"];
    if here && !passed_on.iter().any(|name| request.headers().contains_key(*name)) {
        return next.run(request).await;
    }
    let why = "only programs on this machine may wake sources here\n";
    (StatusCode::FORBIDDEN, why).into_response()
}

/// No path of the log is for anything but HTTP.
struct NoRaw;

impl RawHandler for NoRaw {
    fn handle(&self, _: RawHead, _: RawStream) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }
}
