//! Errors of the admin API: RFC 9457 problem details.

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::{
    config::ConfigErrors,
    daemon::{ReloadError, UpgradeError},
    kernel::KernelError,
};

pub struct Problem {
    status: StatusCode,
    kind: &'static str,
    detail: String,
    /// A config's problems, each with file, line, column and hint.
    problems: Option<Value>,
}

impl Problem {
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Problem { status, kind, detail: detail.into(), problems: None }
    }

    pub fn not_found(what: &str, name: &str) -> Self {
        Problem::new(StatusCode::NOT_FOUND, "not_found", format!("there is no {what} \"{name}\""))
    }

    pub fn bad_request(detail: impl Into<String>) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }
}

impl From<ConfigErrors> for Problem {
    fn from(errors: ConfigErrors) -> Self {
        let problems = serde_json::to_value(&errors.problems).ok();
        Problem {
            problems,
            ..Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_config", errors.to_string())
        }
    }
}

impl From<ReloadError> for Problem {
    fn from(error: ReloadError) -> Self {
        match error {
            ReloadError::Config(errors) => errors.into(),
            other => Problem::new(StatusCode::CONFLICT, "refused", other.to_string()),
        }
    }
}

impl From<UpgradeError> for Problem {
    fn from(error: UpgradeError) -> Self {
        Problem::new(StatusCode::CONFLICT, "refused", error.to_string())
    }
}

impl From<KernelError> for Problem {
    fn from(error: KernelError) -> Self {
        Problem::new(StatusCode::CONFLICT, "kernel", error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": self.kind,
            "title": self.status.canonical_reason().unwrap_or("error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(problems) = self.problems {
            // The first one's place, for whoever looks at one only.
            for key in ["file", "line", "column", "hint"] {
                body[key] = problems[0][key].clone();
            }
            body["problems"] = problems;
        }
        (self.status, [(header::CONTENT_TYPE, "application/problem+json")], Json(body)).into_response()
    }
}
