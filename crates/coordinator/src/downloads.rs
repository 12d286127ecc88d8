//! Serves what `burrow buildlets publish` has put into the state folder: the signed manifest, and the binaries it names.
//!
//! Nothing here is secret, and nothing is believed for coming from here: stage0 checks the signature.

use std::path::PathBuf;

use axum::body::Body;
use axum::extract::{Path as Name, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio_util::io::ReaderStream;
use web::Table;

/// In the state folder.
pub const FOLDER: &str = "buildlets";
const MANIFEST: &str = "manifest";
const PIECE: usize = 64 * 1024;

/// Its state is [`FOLDER`].
pub fn table() -> Table<PathBuf> {
    vec![("/buildlet/{name}", get(file))]
}

async fn file(State(folder): State<PathBuf>, Name(name): Name<String>) -> Response {
    let refuse = |status: StatusCode, why: String| (status, format!("{why}\n")).into_response();
    if !is_served(&name) {
        return refuse(StatusCode::NOT_FOUND, "there is no such buildlet".to_owned());
    }
    let opened = async {
        let file = tokio::fs::File::open(folder.join(&name)).await?;
        let length = file.metadata().await?.len();
        Ok::<_, std::io::Error>((file, length))
    };
    match opened.await {
        Ok((file, length)) => {
            let head = [
                (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
                (header::CONTENT_LENGTH, length.to_string()),
                // What it says may change with the next publication.
                (header::CACHE_CONTROL, "no-cache".to_owned()),
            ];
            (head, Body::from_stream(ReaderStream::with_capacity(file, PIECE))).into_response()
        }
        Err(why) if why.kind() == std::io::ErrorKind::NotFound && name == MANIFEST => refuse(
            StatusCode::NOT_FOUND,
            "no buildlets are published here; `burrow buildlets publish DIR` does it".to_owned(),
        ),
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => {
            refuse(StatusCode::NOT_FOUND, "there is no such buildlet".to_owned())
        }
        Err(why) => {
            tracing::warn!("cannot serve `{}`: {why}", folder.join(&name).display());
            refuse(StatusCode::SERVICE_UNAVAILABLE, "it cannot be read".to_owned())
        }
    }
}

/// Names that stay in the folder, of files that are whole.
fn is_served(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    name == MANIFEST || (name.starts_with("buildlet.") && name.chars().all(plain) && !name.ends_with(".new"))
}

#[cfg(test)]
mod tests {
    use super::is_served;

    #[test]
    fn only_the_manifest_and_buildlets_are_served() {
        for good in ["manifest", "buildlet.linux-amd64", "buildlet.windows-amd64.exe"] {
            assert!(is_served(good), "{good}");
        }
        for bad in [
            "",
            "manifest.new",
            "buildlet.x.new",
            "../master-key",
            "buildlet./../x",
            "buildlet.\0",
        ] {
            assert!(!is_served(bad), "{bad}");
        }
    }
}
