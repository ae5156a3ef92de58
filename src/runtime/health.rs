//! `/healthz`, `/readyz` and `/metrics`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::net::TcpListener;

use super::{Metrics, Shutdown};

/// What must be so before the operator is ready, by name.
pub struct Readiness {
    checks: Mutex<Checks>,
    /// Of what works on its own within the process, by name.
    parts: Mutex<BTreeMap<String, Arc<Readiness>>>,
}

struct Checks {
    checks: BTreeMap<&'static str, bool>,
    /// Instead of all others: whether a process that waits for the lease can read it.
    standby: Option<bool>,
}

impl Readiness {
    /// None of these is so yet.
    pub fn new(checks: &[&'static str]) -> Self {
        let checks = checks.iter().map(|check| (*check, false)).collect();
        Self { checks: Mutex::new(Checks { checks, standby: None }), parts: Mutex::default() }
    }

    /// One of them is so, or is so no longer.
    pub fn set(&self, check: &'static str, ok: bool) {
        self.lock().checks.insert(check, ok);
    }

    /// The process waits for the lease, and can read it or not; `None`: it waits no longer.
    ///
    /// One that can is ready: a rollout goes on when it could take over. What was so in an earlier term is no longer.
    pub fn stand_by(&self, ok: Option<bool>) {
        let mut state = self.lock();
        state.standby = ok;
        if ok.is_some() {
            state.checks.values_mut().for_each(|check| *check = false);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Checks> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Self>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A part is to be ready, too.
    pub fn part(&self, name: String, part: Arc<Self>) {
        self.parts().insert(name, part);
    }

    /// Whether all are so, and a line for each.
    pub fn report(&self) -> (bool, String) {
        let own = self.report_own();
        self.parts().iter().fold(own, |(all, text), (name, part)| {
            let (ok, lines) = part.report();
            (all && ok, text + &lines.replace(']', &format!("]{name} ")))
        })
    }

    fn report_own(&self) -> (bool, String) {
        let state = self.lock();
        let checks = state.standby.map_or_else(|| state.checks.clone(), |ok| [("standby", ok)].into());
        let text = checks.iter().fold(String::new(), |mut text, (check, ok)| {
            let _ = writeln!(text, "{}{check} {}", if *ok { "[+]" } else { "[-]" }, if *ok { "ok" } else { "not yet" });
            text
        });
        (checks.values().all(|ok| *ok), text)
    }
}

/// Serves until the shutdown.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(
    addr: SocketAddr,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    shutdown: Shutdown,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(addr).await?;
    tracing::info!(addr = %listener.local_addr()?, "http server listening");
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready).with_state(Arc::clone(&readiness)))
        .route("/metrics", get(scrape).with_state((readiness, metrics)));
    axum::serve(listener, router).with_graceful_shutdown(shutdown.requested()).await
}

async fn ready(State(readiness): State<Arc<Readiness>>) -> impl IntoResponse {
    let (ok, text) = readiness.report();
    (if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text)
}

async fn scrape(State((readiness, metrics)): State<(Arc<Readiness>, Arc<Metrics>)>) -> impl IntoResponse {
    metrics.ready(readiness.report().0);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], metrics.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_when_every_check_is_ok() {
        let readiness = Readiness::new(&["crd", "caches"]);
        readiness.set("crd", true);
        assert_eq!(readiness.report(), (false, "[-]caches not yet\n[+]crd ok\n".to_owned()));
        readiness.set("caches", true);
        assert!(readiness.report().0);
        readiness.stand_by(Some(true));
        assert_eq!(readiness.report(), (true, "[+]standby ok\n".to_owned()), "it has nothing else to be ready for");
        readiness.stand_by(None);
        let anew = "[-]caches not yet\n[-]crd not yet\n".to_owned();
        assert_eq!(readiness.report(), (false, anew), "what an earlier term had is gone");
        readiness.set("caches", true);
        readiness.set("crd", true);
        let part = Arc::new(Readiness::new(&["caches"]));
        readiness.part("shard-2".to_owned(), Arc::clone(&part));
        assert_eq!(readiness.report(), (false, "[+]caches ok\n[+]crd ok\n[-]shard-2 caches not yet\n".to_owned()));
        part.stand_by(Some(true));
        assert!(readiness.report().0);
    }
}
