use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use maud::{DOCTYPE, Markup, html};

use crate::assets;
use crate::visit::Who;

/// One page: what differs from page to page.
pub struct Page {
    pub title: String,
    pub here: Section,
    pub body: Markup,
    /// Whether it follows what happens: with the script by server-sent events, without it by loading
    /// itself again now and then.
    pub live: bool,
}

/// Where in the navigation a page stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Farm,
    Builds,
    Queue,
    Builders,
    Machines,
    Status,
    /// Search, sign-in, errors.
    Elsewhere,
}

const NAVIGATION: [(Section, &str, &str); 6] = [
    (Section::Farm, "/", "Farm"),
    (Section::Builds, "/builds", "Builds"),
    (Section::Queue, "/queue", "Queue"),
    (Section::Builders, "/builders", "Builders"),
    (Section::Machines, "/machines", "Machines"),
    (Section::Status, "/status", "Status"),
];

/// What all pages of one moment and visitor share.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub farm: String,
    /// Shown under the header of every page.
    pub alarm: Option<String>,
    pub who: Who,
    /// Where sign-in leads back to.
    pub target: String,
    /// What was searched for, if this is the search.
    pub query: String,
}

impl Surroundings {
    /// Pages with the same fingerprint and the same content look the same.
    pub fn fingerprint(&self) -> String {
        format!("{:?}{}", self, assets::STYLE.url())
    }
}

/// What the content security policy allows: our own files and nothing else, nothing inline.
pub(crate) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub(crate) fn render(around: &Surroundings, page: &Page) -> Response {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (page.title) " · " (around.farm) }
                link rel="stylesheet" href=(assets::STYLE.url());
                link rel="icon" href=(assets::ICON.url()) type="image/svg+xml";
                // Not deferred: it sets the theme before anything is drawn.
                script src=(assets::SCRIPT.url()) {}
                @if page.live { noscript { meta http-equiv="refresh" content="20"; } }
            }
            body data-live[page.live] {
                a.skip href="#main" { "Skip to the content" }
                (drawings())
                (header(around, page.here))
                @if let Some(alarm) = &around.alarm {
                    div.alarm role="status" { a href="/status" { (alarm) } }
                }
                main id="main" { (page.body) }
                footer {
                    span { "burrow" }
                    span { "Every page is JSON too: add " code { ".json" } " to its address" }
                    span.keys { kbd { "/" } " search · " kbd { "n" } " " kbd { "p" } " next, previous failure · arrows move in the grid" }
                }
            }
        }
    };
    let mut response = markup.into_response();
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, html);
    response
}

fn header(around: &Surroundings, here: Section) -> Markup {
    html! {
        header.top {
            a.farm href="/" { (mark()) span { (around.farm) } }
            nav aria-label="Main" {
                @for (section, href, name) in NAVIGATION {
                    a href=(href) aria-current=[(section == here).then_some("page")] { (name) }
                }
            }
            form.search action="/search" role="search" {
                input #q type="search" name="q" value=(around.query) placeholder="Commit, build, builder, author"
                    aria-label="Search" autocomplete="off" maxlength="200";
            }
            button #theme type="button" hidden title="Light or dark" aria-label="Switch between light and dark" {
                (icon("theme"))
            }
            @match &around.who {
                Who::Nobody => {
                    a.who href={ "/signin?next=" (query_escape(&around.target)) } { "Sign in" }
                }
                Who::Token { name, form_proof, .. } => {
                    form.who method="post" action="/signout" {
                        input type="hidden" name="proof" value=(form_proof.as_deref().unwrap_or_default());
                        span title="Signed in with this token" { (name) }
                        button type="submit" { "Sign out" }
                    }
                }
            }
        }
    }
}

/// A small drawing in the colour of the text around it. The text beside it says the same.
///
/// Known: the states of builds (`passed`, `failed`, `running`, `waiting`, `infra`, `cancelled`) and
/// `theme`. Each is drawn once in a page and used by name: a grid has thousands.
pub fn icon(name: &str) -> Markup {
    html! {
        svg.icon aria-hidden="true" { use href={"#i-" (name)} {} }
    }
}

/// What [`icon`] uses.
fn drawings() -> Markup {
    let symbol = |name: &str, drawing: Markup| {
        html! { symbol id={"i-" (name)} viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-linecap="round" stroke-linejoin="round" { (drawing) } }
    };
    html! {
        svg.drawings width="0" height="0" aria-hidden="true" {
            (symbol("passed", html! { path d="M3 8.6 6.4 12 13 4.6" stroke-width="2.2" {} }))
            (symbol("failed", html! { path d="M4 4l8 8M12 4l-8 8" stroke-width="2.4" {} }))
            (symbol("running", html! {
                circle cx="8" cy="8" r="5.4" stroke-width="2" stroke-opacity=".3" {}
                path d="M8 2.6a5.4 5.4 0 0 1 5.4 5.4" stroke-width="2" {}
            }))
            (symbol("waiting", html! {
                circle cx="8" cy="8" r="5.4" stroke-width="1.6" {}
                path d="M8 5v3.2l2 1.4" stroke-width="1.6" {}
            }))
            (symbol("infra", html! { path d="M8 2.4 14.2 13H1.8zM8 6.4v3M8 11.2v.2" stroke-width="1.6" {} }))
            (symbol("cancelled", html! {
                circle cx="8" cy="8" r="5.4" stroke-width="1.6" {}
                path d="M4.6 11.4l6.8-6.8" stroke-width="1.6" {}
            }))
            (symbol("theme", html! {
                circle cx="8" cy="8" r="5.6" stroke-width="1.6" {}
                path d="M8 2.4a5.6 5.6 0 0 1 0 11.2z" fill="currentColor" stroke="none" {}
            }))
        }
    }
}

fn mark() -> Markup {
    html! {
        svg.mark viewBox="0 0 32 32" width="22" height="22" aria-hidden="true" focusable="false" {
            path d="M3 27a13 13 0 0 1 26 0z" fill="currentColor" {}
            path.hole d="M11 27a5 5 0 0 1 10 0z" {}
        }
    }
}

/// For a value in a query.
pub(crate) fn query_escape(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
