//! The integrations of an account, as far as the API tells them.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use tokio::sync::Mutex;

use super::{
    Clock,
    outcome::{Failure, NotDone},
};
use crate::api::{Integration, Tick};

/// The integrations of an account.
#[derive(Debug, Default)]
pub struct Catalogue(HashMap<String, Arc<Integration>>);

impl Catalogue {
    /// The integration of this id, compared without case.
    pub fn get(&self, id: &str) -> Option<Arc<Integration>> {
        self.0.get(&id.to_ascii_lowercase()).cloned()
    }

    /// The integration of this slug; of several, the one of the smallest id.
    pub fn by_slug(&self, slug: &str) -> Option<Arc<Integration>> {
        self.0.values().filter(|integration| integration.slug == slug).min_by(|a, b| a.id.cmp(&b.id)).cloned()
    }
}

/// A catalogue that is kept for a while. After a failure the last one goes on serving, or none, for a tenth of that.
#[derive(Default)]
pub(super) struct Kept(Mutex<Last>);

#[derive(Default)]
struct Last {
    catalogue: Option<Arc<Catalogue>>,
    good_until: Option<Tick>,
}

impl Kept {
    /// The catalogue; read anew by one caller at a time when it is too old.
    pub(super) async fn get<F>(&self, ttl: Duration, clock: Clock, read: impl FnOnce() -> F) -> Option<Arc<Catalogue>>
    where
        F: Future<Output = Result<Vec<Integration>, Failure>>,
    {
        let mut last = self.0.lock().await;
        if last.good_until.is_some_and(|until| clock.now() < until) {
            return last.catalogue.clone();
        }
        let good_for = match read().await {
            Ok(integrations) => {
                let by_id = |integration: Integration| (integration.id.to_ascii_lowercase(), Arc::new(integration));
                last.catalogue = Some(Arc::new(Catalogue(integrations.into_iter().map(by_id).collect())));
                Some(ttl)
            }
            // Nothing was sent and it took no time: there is nothing to spare anybody.
            Err(Failure::NotDone(NotDone::Paused { .. } | NotDone::Refused { .. })) => None,
            Err(_) => Some(ttl / 10),
        };
        last.good_until = good_for.map(|span| clock.now() + span);
        last.catalogue.clone()
    }
}
