//! Asks a control plane whether it is ready.

use std::{io, path::Path, time::Duration};

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::{
    Api, Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::runtime::Runtime;

/// For one answer; the client would try again for long by itself.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why nobody can be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("no runtime")]
    Runtime(#[from] io::Error),
    #[error("unusable kubeconfig")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    #[error("unusable certificates")]
    Client(#[source] Box<kube::Error>),
    #[error("impossible request")]
    Request(#[from] http::Error),
}

/// An administrator's connection.
pub(crate) struct Probe {
    runtime: Runtime,
    client: Client,
}

impl Probe {
    pub(crate) fn open(kubeconfig: &Path) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(async {
            let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            Client::try_from(config).map_err(|error| Error::Client(Box::new(error)))
        })?;
        Ok(Self { runtime, client })
    }

    /// `None` when the API server is ready and has its first namespace, or else what it lacks.
    pub(crate) fn api_server(&mut self) -> Result<Option<String>, Error> {
        let request = http::Request::get("/readyz").body(Vec::new())?;
        let client = self.client.clone();
        Ok(self.ask(async move {
            client.request_text(request).await?;
            Api::<Namespace>::all(client).get("default").await?;
            Ok(())
        }))
    }

    /// `None` when the controllers work: the default namespace has its ServiceAccount.
    pub(crate) fn controller_manager(&mut self) -> Result<Option<String>, Error> {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), "default");
        Ok(self.ask(async move {
            accounts.get("default").await?;
            Ok(())
        }))
    }

    fn ask(&self, question: impl Future<Output = Result<(), kube::Error>>) -> Option<String> {
        let answer = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, question).await });
        match answer {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(crate::describe(&error)),
            Err(_) => Some("no answer".to_owned()),
        }
    }
}
