//! The integrations of an account, as far as the API tells them.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use tokio::sync::Mutex;

use super::{Clock, outcome::Failure};
use crate::api::{Integration, Tick};

/// The integrations of an account.
#[derive(Debug, Default)]
pub struct Catalogue(HashMap<String, Arc<Integration>>);

impl Catalogue {
    /// The integration of this id, compared without case.
    pub fn get(&self, id: &str) -> Option<Arc<Integration>> {
        self.0.get(&id.to_ascii_lowercase()).cloned()
    }
}

/// A catalogue that is kept for a while; its absence too, for a tenth of it.
#[derive(Default)]
pub(super) struct Kept(Mutex<Option<(Tick, Option<Arc<Catalogue>>)>>);

impl Kept {
    /// The catalogue; read anew by one caller at a time when it is too old.
    pub(super) async fn get<F>(&self, ttl: Duration, clock: Clock, read: impl FnOnce() -> F) -> Option<Arc<Catalogue>>
    where
        F: Future<Output = Result<Vec<Integration>, Failure>>,
    {
        let mut kept = self.0.lock().await;
        if let Some((at, catalogue)) = &*kept {
            let ttl = if catalogue.is_some() { ttl } else { ttl / 10 };
            if clock.now() - *at < ttl {
                return catalogue.clone();
            }
        }
        let catalogue = match read().await {
            Ok(integrations) => {
                let by_id = |integration: Integration| (integration.id.to_ascii_lowercase(), Arc::new(integration));
                Some(Arc::new(Catalogue(integrations.into_iter().map(by_id).collect())))
            }
            Err(_) => None,
        };
        *kept = Some((clock.now(), catalogue.clone()));
        catalogue
    }
}
