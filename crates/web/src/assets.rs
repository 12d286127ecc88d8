//! The files that pages link to. Their address holds a hash of their content, so that they may be
//! kept for ever.

use std::sync::OnceLock;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header;
use sha2::{Digest, Sha256};

use crate::table::{Table, router};
use crate::visit::hex;

pub(crate) static STYLE: Asset = Asset {
    stem: "style",
    extension: "css",
    content_type: "text/css; charset=utf-8",
    content: include_str!("../assets/style.css"),
    url: OnceLock::new(),
};
pub(crate) static SCRIPT: Asset = Asset {
    stem: "burrow",
    extension: "js",
    content_type: "text/javascript; charset=utf-8",
    content: include_str!("../assets/burrow.js"),
    url: OnceLock::new(),
};
pub(crate) static ICON: Asset = Asset {
    stem: "icon",
    extension: "svg",
    content_type: "image/svg+xml",
    content: include_str!("../assets/icon.svg"),
    url: OnceLock::new(),
};

const FOR_EVER: &str = "public, max-age=31536000, immutable";
const FOR_A_DAY: &str = "public, max-age=86400";

pub(crate) struct Asset {
    stem: &'static str,
    extension: &'static str,
    content_type: &'static str,
    content: &'static str,
    url: OnceLock<String>,
}

impl Asset {
    /// `/-/style-0123456789ab.css`
    pub fn url(&self) -> &str {
        self.url.get_or_init(|| {
            let hash = hex(&Sha256::digest(self.content.as_bytes())[..6]);
            format!("/-/{}-{hash}.{}", self.stem, self.extension)
        })
    }

    fn answer(&self, keep: &'static str) -> Response {
        let headers = [
            (header::CONTENT_TYPE, self.content_type),
            (header::CACHE_CONTROL, keep),
        ];
        (headers, self.content).into_response()
    }
}

pub(crate) fn routes() -> Router {
    router(table())
}

pub(crate) fn paths() -> Vec<String> {
    table().into_iter().map(|(path, _)| path.to_owned()).collect()
}

fn table() -> Table<()> {
    let own = |asset: &'static Asset, keep: &'static str| get(move || async move { asset.answer(keep) });
    vec![
        (STYLE.url(), own(&STYLE, FOR_EVER)),
        (SCRIPT.url(), own(&SCRIPT, FOR_EVER)),
        (ICON.url(), own(&ICON, FOR_EVER)),
        ("/favicon.ico", own(&ICON, FOR_A_DAY)),
    ]
}
