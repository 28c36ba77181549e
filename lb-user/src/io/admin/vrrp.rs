//! The pages of the virtual routers.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};

use super::{
    Done, changes,
    server::{Answers, found, refuse, reply, unknown},
};
use crate::pure::status::{RouterStatus, VrrpStatus};

pub(super) fn router() -> Router<Arc<Answers>> {
    Router::new()
        .route("/v1/vrrp", get(all))
        .route("/v1/vrrp/{router}", get(one))
        .route("/v1/vrrp/{router}/failover", post(fail_over))
}

async fn all(State(answers): State<Arc<Answers>>) -> Response {
    reply((answers.vrrp)(()))
}

async fn one(State(answers): State<Arc<Answers>>, Path(name): Path<String>) -> Response {
    match (answers.vrrp)(()) {
        Ok(status) => found(find(status, &name)),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

async fn fail_over(State(answers): State<Arc<Answers>>, Path(name): Path<String>) -> Response {
    match (answers.vrrp)(()).map(|status| find(status, &name)) {
        Ok(Ok(_)) => match (answers.fail_over)(name).await {
            Ok(done) => Json(Done { done }).into_response(),
            Err(refused) => changes::refusal(&refused),
        },
        Ok(Err(unknown)) => refuse(StatusCode::NOT_FOUND, &unknown),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error),
    }
}

fn find(status: VrrpStatus, name: &str) -> Result<RouterStatus, String> {
    if status.routers.is_empty() {
        return Err("there are no virtual routers: add a [[vrrp]] to the configuration".to_owned());
    }
    let unknown = unknown("virtual router", name, status.routers.iter().map(|router| router.name.as_str()));
    status.routers.into_iter().find(|router| router.name == name).ok_or(unknown)
}
