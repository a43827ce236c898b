//! A family of routes: what callers can do with the objects of one kind. Everything that the gateway does for each family follows
//! from here: the routes, `/openapi.json`, the permissions of the chart's invoker role, eviction and the state of the replica.

use std::{fmt, sync::Arc};

use axum::Router;
use prometheus_client::encoding::DescriptorEncoder;
use serde_json::{Value, json};

use super::CallDeps;
use crate::{
    api::{Kind, for_each_kind},
    cluster::{object_cache::Caches, review::Permission},
    store::ReplicaState,
};

/// A route, as callers, RBAC and OpenAPI see it.
pub(super) struct Route {
    /// As axum and OpenAPI write it, with `{names}`.
    pub(super) path: &'static str,
    /// What its callers need.
    pub(super) permission: Permission,
    /// Its operations, by method, as a path item of OpenAPI.
    pub(super) operations: fn() -> Value,
}

/// What it takes to be a family of routes.
pub(super) trait RouteFamily: Send + Sync + 'static {
    /// Its routes.
    fn routes() -> &'static [Route]
    where
        Self: Sized;

    /// The schemas that its operations refer to, by name.
    fn schemas() -> Value
    where
        Self: Sized,
    {
        json!({})
    }

    /// The handlers of its routes.
    fn router(self: Arc<Self>) -> Router;

    /// Lets go of what is kept for objects that do not exist any more: clients, and series of metrics.
    fn evict(&self);

    /// Adds what is not as it should be with its objects in this replica.
    fn replica_state(&self, state: &mut ReplicaState) {
        let _ = state;
    }

    /// Writes metrics that are read at each scrape.
    ///
    /// # Errors
    /// The page cannot be written.
    fn encode_metrics(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let _ = encoder;
        Ok(())
    }
}

macro_rules! families {
    ($($Kind:ident => $module:ident,)+) => {
        /// The family of each kind.
        pub(super) struct Families {
            $(pub(super) $module: Arc<super::$module::Family>,)+
        }

        impl Families {
            pub(super) fn new(deps: &Arc<CallDeps>, caches: &Caches) -> Self {
                Self { $($module: Arc::new(super::$module::Family::new(deps, &caches.$module)),)+ }
            }

            /// Each of them.
            pub(super) fn all(&self) -> impl Iterator<Item = Arc<dyn RouteFamily>> {
                let all: [Arc<dyn RouteFamily>; Kind::ALL.len()] = [$(Arc::clone(&self.$module) as _),+];
                all.into_iter()
            }

            /// The routes of every family.
            pub(super) fn routes() -> impl Iterator<Item = &'static Route> {
                [$(super::$module::Family::routes()),+].into_iter().flatten()
            }

            /// The schemas of every family.
            pub(super) fn schemas() -> impl Iterator<Item = Value> {
                [$(super::$module::Family::schemas()),+].into_iter()
            }
        }
    };
}

for_each_kind!(families);

/// What the gateway asks of its callers: each permission once, by kind.
#[must_use]
pub fn permissions() -> Vec<Permission> {
    let mut permissions: Vec<_> = Families::routes().map(|route| route.permission).collect();
    permissions.sort_unstable();
    permissions.dedup();
    permissions
}
