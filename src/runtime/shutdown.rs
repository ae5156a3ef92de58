//! An orderly end: SIGTERM or SIGINT asks for it, a second one does not wait.

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// Whether the process shall end. Cheap to clone.
#[derive(Clone)]
pub struct Shutdown(watch::Receiver<bool>);

impl Shutdown {
    /// Listens to SIGTERM and SIGINT.
    ///
    /// # Errors
    /// When the signals cannot be caught.
    pub fn on_signals() -> std::io::Result<Self> {
        let (tell, told) = watch::channel(false);
        let mut signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::spawn(async move {
            let name = one_of(&mut signals).await.0;
            tracing::info!(signal = name, "finishing the steps in hand; a second signal ends at once");
            let _ = tell.send(true);
            let (name, code) = one_of(&mut signals).await;
            tracing::warn!(signal = name, "ending at once");
            std::process::exit(code);
        });
        Ok(Self(told))
    }

    #[cfg(test)]
    pub(crate) fn never() -> Self {
        Self(watch::channel(false).1)
    }

    /// Whether the end was asked for.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// One that is asked for with this one, or before it by what is returned beside.
    pub fn before(&self) -> (watch::Sender<bool>, Self) {
        let (tell, told) = watch::channel(self.is_requested());
        let (all, with_all) = (self.clone(), tell.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = all.requested() => { with_all.send_replace(true); }
                () = with_all.closed() => {}
            }
        });
        (tell, Self(told))
    }

    /// Waits until the end is asked for.
    pub async fn requested(mut self) {
        // An error means that nobody can ask any more.
        if self.0.wait_for(|requested| *requested).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The next signal, and the exit code a shell expects of it.
async fn one_of(signals: &mut (Signal, Signal)) -> (&'static str, i32) {
    tokio::select! {
        _ = signals.0.recv() => ("SIGTERM", 143),
        _ = signals.1.recv() => ("SIGINT", 130),
    }
}
