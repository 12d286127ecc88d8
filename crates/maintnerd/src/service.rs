use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context;
use mutlog::{Folder, LogReader};
use reqwest::Url;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use web::{Door, Limits, RawHandler, RawHead, RawStream, Server};

use crate::copy::Copy;
use crate::follow::follow;
use crate::leader::Leader;
use crate::serve::{Served, Visible, routes};

/// The log that a service serves.
pub struct Config {
    pub folder: PathBuf,
    /// `None`: it is ours. Else the URL of the `/logs` that the folder is a copy of.
    pub follow: Option<Url>,
}

/// Serves the log until `stop` is cancelled. Ends by itself only when the log cannot be kept.
pub async fn run(config: Config, door: Door, stop: CancellationToken) -> anyhow::Result<()> {
    let folder = Folder::new(&config.folder);
    match config.follow {
        None => {
            let leader = Leader::open(folder)?;
            if let Some(torn) = &leader.torn {
                warn!("{torn}");
            }
            serve(door, leader.visible.clone(), leader.reader.clone(), stop).await?;
            leader.close().context("end the log")
        }
        Some(url) => {
            info!("following {url}");
            let (following, run) = follow(Copy::open(url, folder)?, stop.clone());
            let serving = serve(door, following.visible, following.reader, stop.clone());
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

async fn serve(
    door: Door,
    visible: Visible,
    reader: LogReader,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let router = routes(Served {
        visible,
        reader,
        stop: stop.clone(),
    });
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

/// No path of the log is for anything but HTTP.
struct NoRaw;

impl RawHandler for NoRaw {
    fn handle(&self, _: RawHead, _: RawStream) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {})
    }
}
