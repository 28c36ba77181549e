//! The pages that change something, or say what a change would do.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{MethodRouter, delete, post},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    PlanRequest, ReloadRequest, SetRequest,
    server::{Answers, Refused, ServerChange, refuse},
};
use crate::pure::{
    config::TEXT_MAX,
    overlay::{Added, Change},
};

pub(super) fn router() -> Router<Arc<Answers>> {
    Router::new()
        .route("/v1/plan", post(plan).layer(DefaultBodyLimit::max(PLAN_MAX)))
        .route("/v1/reload", post(reload))
        .route("/v1/services/{service}/servers", post(add))
}

/// Of the page of one server.
pub(super) fn server() -> MethodRouter<Arc<Answers>> {
    delete(remove).patch(set)
}

type Body<T> = Result<Json<T>, JsonRejection>;

async fn plan(State(answers): State<Arc<Answers>>, body: Body<PlanRequest>) -> Response {
    match taken(body) {
        Ok(PlanRequest { files, keepalived }) if files.is_empty() && keepalived.is_empty() => refuse(
            StatusCode::BAD_REQUEST,
            "no files to plan with: send at least one, with its name and text",
        ),
        Ok(request) => reply((answers.plan)(request).await),
        Err(refusal) => refusal,
    }
}

async fn reload(State(answers): State<Arc<Answers>>, body: Body<ReloadRequest>) -> Response {
    match taken(body) {
        Ok(ReloadRequest { max_moved: Some(max), .. }) if !(0.0..=100.0).contains(&max) => {
            refuse(StatusCode::BAD_REQUEST, "max_moved is a share in percent: send 0 to 100, or leave it out")
        }
        Ok(request) => reply((answers.reload)(request).await),
        Err(refusal) => refusal,
    }
}

async fn add(
    State(answers): State<Arc<Answers>>,
    Path(service): Path<String>,
    body: Body<Added>,
) -> Response {
    match taken(body) {
        Ok(added) => {
            let server = added.name.clone();
            let change = Change::Add(added);
            reply((answers.change)(ServerChange { service, server, change }).await)
        }
        Err(refusal) => refusal,
    }
}

async fn remove(
    State(answers): State<Arc<Answers>>,
    Path((service, server)): Path<(String, String)>,
) -> Response {
    reply((answers.change)(ServerChange { service, server, change: Change::Remove }).await)
}

async fn set(
    State(answers): State<Arc<Answers>>,
    Path((service, server)): Path<(String, String)>,
    body: Body<SetRequest>,
) -> Response {
    let change = match taken(body) {
        Ok(SetRequest { admin: Some(admin), weight: None }) => Change::Admin(admin.into()),
        Ok(SetRequest { admin: None, weight: Some(weight) }) => Change::Weight(weight),
        Ok(_) => {
            return refuse(
                StatusCode::BAD_REQUEST,
                "expected either {\"admin\": \"ready|drain|maint\"} or {\"weight\": 1}",
            );
        }
        Err(refusal) => return refusal,
    };
    reply((answers.change)(ServerChange { service, server, change }).await)
}

#[expect(clippy::result_large_err, reason = "the error is the response that is sent")]
fn taken<T: DeserializeOwned>(body: Body<T>) -> Result<T, Response> {
    body.map(|Json(body)| body).map_err(|rejection| {
        let error = format!(
            "{}: send JSON as docs/api.md shows it, with content-type application/json",
            rejection.body_text()
        );
        refuse(rejection.status(), &error)
    })
}

fn reply<T: Serialize>(done: Result<T, Refused>) -> Response {
    match done {
        Ok(done) => Json(done).into_response(),
        Err(refused) => refusal(&refused),
    }
}

pub(super) fn refusal(refused: &Refused) -> Response {
    let status = match refused {
        Refused::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Refused::Unknown(_) => StatusCode::NOT_FOUND,
        Refused::Conflict(_) => StatusCode::CONFLICT,
        Refused::Fault(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    refuse(status, &refused.to_string())
}

/// JSON may need two bytes for one of the text.
const PLAN_MAX: usize = 2 * TEXT_MAX + 4_096;
