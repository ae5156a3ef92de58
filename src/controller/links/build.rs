//! From a connection object and its token to a link.

use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::Arc,
    time::Duration,
};

use secrecy::{ExposeSecret as _, SecretString};

use super::{Counting, Link, Links, link::Health, object::Object};
use crate::{
    api::{Account, ConnectionKey, Reason},
    controller::context::lock,
    remote::{Addresses, Config, ConfigError, Connection, TokenSource},
    secrets,
};

/// How soon a Secret that could not be read is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The most that is read of a listing of a ToolzzConnection: some 12,000 rows.
const TENANTS_LISTING_LIMIT: usize = 16 << 20;

/// Why a connection cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub reason: Reason,
    pub message: String,
}

/// What a link is made from.
pub(super) struct Recipe {
    pub account: Account,
    pub token: SecretString,
    pub may_adopt: bool,
}

impl Recipe {
    fn is(&self, other: &Self) -> bool {
        self.account == other.account
            && self.may_adopt == other.may_adopt
            && self.token.expose_secret() == other.token.expose_secret()
    }
}

impl Links {
    /// Reads a connection's token, and makes a new link of it where anything changed.
    pub(super) async fn refresh(self: &Arc<Self>, key: &ConnectionKey) {
        let Some(object) = lock(&self.state).entries.get(key).map(|entry| entry.object.clone()) else { return };
        let account = object.account();
        // The token of a URL is in the namespace of whoever wrote the URL, and nowhere else.
        let namespace = key.namespace.as_deref().unwrap_or(&self.terms.operator_namespace);
        let made = match object.grant().transpose() {
            Err(message) => Err(Problem { reason: Reason::InvalidSpec, message }),
            Ok(grant) => {
                match secrets::read_token(&self.shared.client, &self.shared.reach, namespace, &account.token_secret_ref)
                    .await
                {
                    Ok(token) => Ok(Recipe {
                        account: account.clone(),
                        token,
                        may_adopt: grant.is_none_or(|grant| grant.may_adopt),
                    }),
                    Err(error) => {
                        let unknown = error.is_transient();
                        if unknown {
                            self.retry(key);
                        }
                        if unknown && self.is_usable(key, &object) {
                            // The API server is away: what was read of it before still holds.
                            return;
                        }
                        Err(Problem { reason: error.reason(), message: error.to_string() })
                    }
                }
            }
        };
        self.replace(key, &object, made);
    }

    /// A link for this very spec is there.
    fn is_usable(&self, key: &ConnectionKey, object: &Object) -> bool {
        let state = lock(&self.state);
        let recipe = state.entries.get(key).filter(|entry| entry.link.is_ok()).and_then(|entry| entry.recipe.as_ref());
        recipe.is_some_and(|recipe| recipe.account == *object.account())
    }

    pub(super) fn retry(self: &Arc<Self>, key: &ConnectionKey) {
        if !lock(&self.state).retrying.insert(key.clone()) {
            return;
        }
        let (links, key) = (Arc::downgrade(self), key.clone());
        tokio::spawn(async move {
            tokio::time::sleep(RETRY).await;
            let Some(links) = links.upgrade() else { return };
            lock(&links.state).retrying.remove(&key);
            links.later(&key);
        });
    }

    pub(super) fn replace(self: &Arc<Self>, key: &ConnectionKey, object: &Object, made: Result<Recipe, Problem>) {
        let changed = {
            let state = lock(&self.state);
            let Some(entry) = state.entries.get(key) else { return };
            let same = match (&made, &entry.recipe, &entry.link) {
                (Ok(recipe), Some(known), _) => recipe.is(known),
                (Err(problem), _, Err(known)) => problem == known,
                _ => false,
            };
            entry.changed.notify_one();
            if same {
                return;
            }
            Arc::clone(&entry.changed)
        };
        // Takes a moment: reads the certificates of the system.
        let health = Arc::new(Health::new(changed));
        let link = made.as_ref().map_err(Clone::clone).and_then(|recipe| self.build(key, recipe, health));
        match &link {
            Ok(link) => {
                tracing::info!(connection = %key, "the connection is made");
                self.watch_state(key, link);
            }
            Err(problem) => {
                tracing::warn!(connection = %key, reason = %problem.reason, message = problem.message, "the connection cannot be used");
            }
        }
        {
            let mut state = lock(&self.state);
            // Changed meanwhile: its turn comes again.
            let entry = state.entries.get_mut(key).filter(|entry| entry.object.version() == object.version());
            let Some(entry) = entry else { return };
            // Before anybody is admitted to it.
            if let Ok(link) = &link {
                self.shared.claims.leads(key, &link.service);
            }
            entry.set(link, made.ok());
        }
        self.uncount(key);
        self.wake(key);
        lock(&self.state).tell(key);
    }

    fn build(&self, key: &ConnectionKey, recipe: &Recipe, health: Arc<Health>) -> Result<Arc<Link>, Problem> {
        let invalid = |message| Problem { reason: Reason::InvalidSpec, message };
        let config = self.config(key, &recipe.account).map_err(|error| invalid(format!("spec.url: {error}")))?;
        let token = TokenSource::fixed(recipe.token.clone());
        let observer = Counting::new(Arc::clone(&self.shared.metrics), self.shared.share, key, Arc::clone(&health));
        let connection = Connection::new(config, token, self.shared.clock, Arc::new(observer)).map_err(|error| {
            let field = if matches!(error, ConfigError::BadCaBundle) { "spec.caBundle" } else { "spec.url" };
            invalid(format!("{field}: {error}"))
        })?;
        Ok(Link::new(key.clone(), connection, recipe.may_adopt, health, &self.shared))
    }

    /// What the flags say, for this account.
    pub(super) fn config(&self, key: &ConnectionKey, account: &Account) -> Result<Config, ConfigError> {
        let flags = &self.terms.config;
        let asked = account.rate_limit.and_then(|limit| NonZeroU32::new(u32::try_from(limit).ok()?));
        let rate_limit = match (asked, flags.rate_limit) {
            (Some(asked), Some(most)) if key.namespace.is_some() => Some(asked.min(most)),
            (asked, by_flags) => asked.or(by_flags),
        };
        let config = Config {
            base_url: account.url.clone(),
            rate_limit,
            addresses: if self.terms.allow_private_addresses { Addresses::PublicAndPrivate } else { Addresses::Public },
            // The platform's memory is not a tenant's to fill.
            listing_limit: if key.namespace.is_some() { TENANTS_LISTING_LIMIT } else { flags.listing_limit },
            ca_bundle: account.ca_bundle.clone().map(String::into_bytes),
            // All who use a connection of a namespace are in that one's shard.
            shares: if key.namespace.is_some() { NonZeroU16::MIN } else { flags.shares },
            ..flags.clone()
        };
        let at = config.host_and_port()?;
        // Without a list a tenant has the host that the operator itself was given, and no other.
        if key.namespace.is_some() && flags.allowed_hosts.is_empty() && flags.host_and_port()? != at {
            return Err(ConfigError::HostNotAllowed { host: at });
        }
        Ok(config)
    }
}
