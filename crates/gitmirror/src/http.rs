use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::{MethodRouter, get, post};
use git::GitError;
use ids::RepoName;
use serde::Deserialize;
use tokio_util::io::ReaderStream;

use crate::archive::For;
use crate::service::chain;
use crate::{ArchiveError, Look, MirrorService};

/// Goes up when equal commits would come as other bytes.
const ENCODER: u32 = 1;

/// Addresses and what answers at them.
pub type Table = Vec<(&'static str, MethodRouter<Arc<MirrorService>>)>;

/// `GET /v1/repos/REPO/archive/REV.tar.gz` and `GET /archive/REPO.tar.gz?rev=REV`. The code itself: who
/// may have it is the caller's to ask.
pub fn archives() -> Table {
    vec![
        ("/v1/repos/{repo}/archive/{*rev}", get(by_path)),
        ("/archive/{file}", get(by_query)),
    ]
}

/// `POST /hook` and `POST /hook/REPO`: look at the upstream at once. Who may is the caller's to ask.
pub fn hooks() -> Table {
    vec![("/hook", post(hook_all)), ("/hook/{repo}", post(hook))]
}

/// `GET /mirror/`, as Go's coordinator reads it, and `GET /mirror/status.json`.
pub fn status() -> Table {
    vec![
        ("/mirror/", get(status_page)),
        ("/mirror/status.json", get(status_json)),
    ]
}

/// Where an archive asked for by golang/build's own path is: `/widget.tar.gz` at `/archive/widget.tar.gz`.
/// `None` for every other path.
///
/// Source: golang/build `internal/sourcecache/source.go`.
pub fn own_path(path: &str) -> Option<String> {
    let file = path.strip_prefix('/')?;
    (file.ends_with(".tar.gz") && !file.contains('/')).then(|| format!("/archive/{file}"))
}

#[derive(Deserialize)]
struct Rev {
    rev: Option<String>,
}

async fn by_path(
    State(service): State<Arc<MirrorService>>,
    Path((repo, rev)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    match rev.strip_suffix(".tar.gz") {
        Some(rev) => archive(&service, "application/gzip", &repo, rev, &method, &headers).await,
        None => refuse(StatusCode::BAD_REQUEST, "an archive's name ends in `.tar.gz`"),
    }
}

async fn by_query(
    State(service): State<Arc<MirrorService>>,
    Path(file): Path<String>,
    Query(query): Query<Rev>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    match (file.strip_suffix(".tar.gz"), query.rev) {
        (Some(repo), Some(rev)) => {
            archive(
                &service,
                "application/x-compressed",
                repo,
                &rev,
                &method,
                &headers,
            )
            .await
        }
        (None, _) => refuse(StatusCode::NOT_FOUND, "an archive's name ends in `.tar.gz`"),
        (_, None) => refuse(
            StatusCode::BAD_REQUEST,
            "`rev` is missing: a full hash, a branch or a tag",
        ),
    }
}

async fn archive(
    service: &MirrorService,
    content_type: &str,
    repo: &str,
    rev: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Response {
    let Ok(name) = repo.parse::<RepoName>() else {
        return refuse(StatusCode::NOT_FOUND, "there is no repository of that name");
    };
    let (archive, resolved) = match service.archive_of(&name, rev, For::Anybody).await {
        Ok(found) => found,
        Err(why) => {
            let status = match &why {
                ArchiveError::NoRepo(_) | ArchiveError::Git(GitError::NoRev { .. }) => StatusCode::NOT_FOUND,
                ArchiveError::Git(GitError::BadRev { .. }) => StatusCode::BAD_REQUEST,
                ArchiveError::Git(_) | ArchiveError::Io { .. } => StatusCode::SERVICE_UNAVAILABLE,
            };
            return refuse(status, &chain(&why));
        }
    };
    let tag = format!("\"{}.{ENCODER}\"", resolved.commit);
    let lasting = if resolved.commit.as_str() == rev {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let fields = [
        (header::CONTENT_TYPE, content_type.to_owned()),
        (header::CACHE_CONTROL, lasting.to_owned()),
        (header::ETAG, tag.clone()),
        (
            header::HeaderName::from_static("x-burrow-commit"),
            resolved.commit.to_string(),
        ),
        (
            header::HeaderName::from_static("x-burrow-tree"),
            resolved.tree.to_string(),
        ),
        (header::HeaderName::from_static("x-burrow-ref"), resolved.name),
    ];
    let have = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|have| have.to_str().ok());
    if have.is_some_and(|have| have.split(',').any(|one| one.trim() == tag || one.trim() == "*")) {
        return (StatusCode::NOT_MODIFIED, fields).into_response();
    }
    let length = [(header::CONTENT_LENGTH, archive.bytes.to_string())];
    if method == Method::HEAD {
        return (fields, length).into_response();
    }
    match tokio::fs::File::open(&archive.path).await {
        Ok(file) => (
            fields,
            length,
            Body::from_stream(ReaderStream::with_capacity(file, 256 * 1024)),
        )
            .into_response(),
        Err(why) => refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            &format!("the archive cannot be read: {why}"),
        ),
    }
}

fn refuse(status: StatusCode, why: &str) -> Response {
    let mut response = (status, format!("{why}\n")).into_response();
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, header::HeaderValue::from_static("10"));
    }
    response
}

async fn hook(State(service): State<Arc<MirrorService>>, Path(repo): Path<String>) -> Response {
    match repo.parse().ok().filter(|name| service.poke(name)) {
        Some(name) => (StatusCode::ACCEPTED, format!("looking at {name}\n")).into_response(),
        None => refuse(StatusCode::NOT_FOUND, "there is no repository of that name"),
    }
}

async fn hook_all(State(service): State<Arc<MirrorService>>) -> Response {
    service.poke_all();
    (StatusCode::ACCEPTED, "looking at every repository\n").into_response()
}

/// Line for line what Go's coordinator parses. Source: golang/build `cmd/coordinator/status.go` (2023).
async fn status_page(State(service): State<Arc<MirrorService>>) -> Html<String> {
    let up = service.up();
    let mut page = "<html><body><pre>".to_owned();
    for (name, look) in service.looks() {
        page += &format!(
            "<a href='/debug/watcher/{name}'>{name}</a> - {}\n",
            words(&look, up)
        );
    }
    Html(page + "</pre></body></html>\n")
}

fn words(look: &Look, up: Duration) -> String {
    let five = Duration::from_secs(300);
    match (look.last_good, &look.error) {
        (None, Some(_)) => format!("broken; permanently? always failing, for {}s", up.as_secs()),
        (None, None) if up < five => "ok; starting up, no report yet".to_owned(),
        (None, None) => format!(
            "hung; hang at start-up? no report since start {}s ago",
            up.as_secs()
        ),
        (Some(good), Some(_)) => format!("broken for {}s", good.elapsed().as_secs()),
        (Some(_), None) => "ok".to_owned(),
    }
}

async fn status_json(State(service): State<Arc<MirrorService>>) -> Json<serde_json::Value> {
    let up = service.up();
    let one = |(name, look): (RepoName, Look)| {
        serde_json::json!({
            "repo": name.as_str(),
            "fetched_secs_ago": look.last_good.map(|at| at.elapsed().as_secs()),
            "error": look.error,
            "words": words(&look, up),
        })
    };
    Json(serde_json::json!({ "repos": service.looks().into_iter().map(one).collect::<Vec<_>>() }))
}
