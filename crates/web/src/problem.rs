use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use maud::{Markup, html};
use serde_json::{Value, json};
use store::StoreError;

use crate::say::ticked;

/// An answer that says what is wrong and what would be right, as a page or as
/// `{"error":{"code","message","hint"}}`; [`crate::Site::wrap`] gives it the form that was asked for.
#[derive(Debug, Clone)]
pub struct Problem {
    pub status: StatusCode,
    /// Stable, for programs: `no_such_build`.
    pub code: &'static str,
    /// One sentence that names the thing, without full stop.
    pub message: String,
    /// What would be right, or where to look; may be empty.
    pub hint: String,
    /// For our log, never for the outside.
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Problem {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Problem {
        Problem {
            status,
            code,
            message: message.into(),
            hint: String::new(),
            cause: None,
        }
    }

    pub fn not_found(code: &'static str, message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, code, message)
    }

    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub fn forbidden(code: &'static str, message: impl Into<String>) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, code, message)
    }

    /// The program's fault, or the machine's; the cause goes to the log only.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Problem {
        let mut problem = Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "something went wrong on our side",
        )
        .hint("The farm's log has the details, under the request number below.");
        problem.cause = Some(Arc::from(cause.into()));
        problem
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = hint.into();
        self
    }

    pub(crate) fn cause(&self) -> Option<&(dyn std::error::Error + Send + Sync + 'static)> {
        self.cause.as_deref()
    }

    pub(crate) fn json(&self) -> Value {
        json!({"error": {"code": self.code, "message": self.message, "hint": self.hint}})
    }

    pub(crate) fn page(&self, request: &str) -> Markup {
        html! {
            section.problem {
                p.status { (self.status.as_u16()) " " (self.status.canonical_reason().unwrap_or_default()) }
                h1 { (ticked(&self.message)) }
                @if !self.hint.is_empty() { p.hint { (ticked(&self.hint)) } }
                p { a href="/" { "Front page" } " · " a href="/builds" { "All builds" } " · " a href="/status" { "Status" } }
                @if self.status.is_server_error() { p.dim { "Request " code { (request) } } }
            }
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        match error {
            StoreError::Unavailable(_) => {
                let mut problem = Problem::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "store_unavailable",
                    "the farm's store does not answer at present",
                )
                .hint("Builds go on; try again in a moment.");
                problem.cause = Some(Arc::new(error));
                problem
            }
            StoreError::Conflict(_) | StoreError::Damaged(_) => Problem::internal(error),
        }
    }
}

impl IntoResponse for Problem {
    /// Plain text, with the problem in the extensions for [`crate::Site::wrap`] to find.
    fn into_response(self) -> Response {
        let mut response = (self.status, format!("{}\n", self.message)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let way = HeaderValue::from_static("Bearer realm=\"burrow\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, way);
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response.extensions_mut().insert(self);
        response
    }
}
