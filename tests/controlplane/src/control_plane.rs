//! The handle that tests hold.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::sync::OnceCell;

use crate::{kubeconfig, protocol, protocol::Endpoints, supervisor::Supervisor};

/// Why a control plane could not be started or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// etcd did not do as it was told.
    #[error("etcd, {key}: {problem}")]
    Store {
        /// The key.
        key: String,
        /// What went wrong.
        problem: String,
    },
    /// The supervisor's binary is not built.
    #[error(
        "no `controlplane` binary in or above {beside}: run `cargo build -p test-controlplane` with the same profile first, or set CONTROLPLANE_BIN"
    )]
    SupervisorNotFound {
        /// The directory of the program that runs.
        beside: PathBuf,
    },
    /// A tool is not there.
    #[error("{0}")]
    Tool(String),
    /// The supervisor could not be executed.
    #[error("cannot run {program}")]
    Spawn {
        /// The supervisor's binary.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The supervisor says why it could not do what it was asked.
    #[error("{0}")]
    Failed(String),
    /// The supervisor is gone; it has told why on standard error.
    #[error("the control plane has ended, see its message on standard error")]
    Ended,
    /// The supervisor is of another version than this library.
    #[error("the `controlplane` binary answered {0:?}: run `cargo build -p test-controlplane`")]
    Protocol(String),
    /// No token for a ServiceAccount.
    #[error("no token for ServiceAccount {account}")]
    Token {
        /// Namespace and name.
        account: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// A namespace could not be created.
    #[error("cannot create namespace {name}")]
    Namespace {
        /// Its name.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// The administrator's kubeconfig cannot be used.
    #[error("cannot use {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file could not be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The runtime is shutting down.
    #[error("interrupted: the runtime is shutting down")]
    Interrupted,
}

/// How to start a control plane.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where its files go: a directory that is absent or empty. A new one among the temporary files if `None`.
    pub directory: Option<PathBuf>,
    /// Leave the directory, with logs and data, when the control plane ends.
    pub keep_directory: bool,
    /// Run the kube-controller-manager: garbage collection, deletion of namespaces, default ServiceAccounts.
    pub controller_manager: bool,
    /// More arguments for the kube-apiserver, such as `--audit-log-path=…`. They come last, so they win.
    pub api_server_args: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self { directory: None, keep_directory: false, controller_manager: true, api_server_args: Vec::new() }
    }
}

/// A running control plane. It ends, and its directory goes, when this is dropped or when this process ends.
#[derive(Debug)]
pub struct ControlPlane {
    supervisor: Arc<Supervisor>,
    endpoints: Endpoints,
}

impl ControlPlane {
    /// Starts a control plane and waits until it is ready, which takes some seconds.
    ///
    /// # Errors
    ///
    /// Among others when `cargo build -p test-controlplane` or `controlplane build` has not been run.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let (supervisor, endpoints) = blocking(move || Supervisor::start(&options)).await?;
        Ok(Self { supervisor: Arc::new(supervisor), endpoints })
    }

    /// The one control plane that all tests of this process share, started with the default options at first use.
    ///
    /// # Errors
    ///
    /// As for [`ControlPlane::start`].
    pub async fn shared() -> Result<&'static Self, Error> {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        SHARED.get_or_try_init(|| Self::start(Options::default())).await
    }

    /// The directory that holds all files of this control plane: `logs/`, `pki/`, `kubeconfig`.
    pub fn directory(&self) -> &Path {
        &self.endpoints.directory
    }

    /// The kubeconfig of an administrator (`system:masters`).
    pub fn kubeconfig(&self) -> &Path {
        &self.endpoints.kubeconfig
    }

    /// The URL of the API server. It stays the same when the API server is restarted.
    pub fn server(&self) -> &str {
        &self.endpoints.server
    }

    /// The certificate of the authority that signed the API server's own: the `ca.crt` of a pod.
    pub fn certificate_authority(&self) -> &Path {
        &self.endpoints.certificate_authority
    }

    /// Writes a kubeconfig with a token of the ServiceAccount (TokenRequest, a day long) and returns its path.
    ///
    /// # Errors
    ///
    /// When there is no such ServiceAccount.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> Result<PathBuf, Error> {
        let token = self.service_account_token(namespace, name).await?;
        let file = format!("{namespace}.{name}");
        let path = self.directory().join("service-accounts").join(file);
        match kubeconfig::write(&path, &self.endpoints, namespace, &token) {
            Ok(()) => Ok(path),
            Err(source) => Err(Error::Write { path, source }),
        }
    }

    /// A token of the ServiceAccount (TokenRequest, a day long).
    ///
    /// # Errors
    ///
    /// When there is no such ServiceAccount.
    pub async fn service_account_token(&self, namespace: &str, name: &str) -> Result<String, Error> {
        kubeconfig::request_token(self.client().await?, namespace, name).await
    }

    /// A client of the administrator. It belongs to the runtime of the caller: do not share it between tests.
    ///
    /// # Errors
    ///
    /// When the kubeconfig is unreadable.
    pub async fn client(&self) -> Result<kube::Client, Error> {
        connect(self.kubeconfig()).await
    }

    /// Creates a namespace that no other test has and returns its name: the prefix, a dash and some digits.
    ///
    /// # Errors
    ///
    /// When the API server refuses it, for instance for its prefix.
    pub async fn unique_namespace(&self, prefix: &str) -> Result<String, Error> {
        let suffix = uuid::Uuid::new_v4().simple().to_string();
        let name = format!("{prefix}-{}", &suffix[..8]);
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.clone());
        let namespaces: Api<Namespace> = Api::all(self.client().await?);
        match namespaces.create(&PostParams::default(), &namespace).await {
            Ok(_) => Ok(name),
            Err(source) => Err(Error::Namespace { name, source: Box::new(source) }),
        }
    }

    /// Kills the API server and starts it again, with the same port and data.
    ///
    /// # Errors
    ///
    /// When it does not become ready again.
    pub async fn restart_api_server(&self) -> Result<(), Error> {
        self.request(&[protocol::Command::StopApiServer, protocol::Command::StartApiServer]).await
    }

    /// Kills the API server (SIGKILL: clients see their connections break). Nothing happens if it is stopped already.
    ///
    /// # Errors
    ///
    /// When the control plane is gone.
    pub async fn stop_api_server(&self) -> Result<(), Error> {
        self.request(&[protocol::Command::StopApiServer]).await
    }

    /// Starts the API server after [`ControlPlane::stop_api_server`] and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it does not become ready again.
    pub async fn start_api_server(&self) -> Result<(), Error> {
        self.request(&[protocol::Command::StartApiServer]).await
    }

    /// Deletes an object in etcd, whatever finalizers it has. So ends a deletion whose API server looked for
    /// finalizers before the first one was added: it does not look again.
    ///
    /// `resource` is the group and plural, as in `toolzz.com.br/toolzzcredentials`.
    ///
    /// # Errors
    ///
    /// When etcd does not answer, or there was no such object.
    pub async fn delete_in_store(&self, resource: &str, namespace: &str, name: &str) -> Result<(), Error> {
        let socket = self.directory().join(protocol::ETCD_SOCKET);
        let key = format!("/registry/{resource}/{namespace}/{name}");
        blocking(move || crate::store::delete(&socket, &key)).await
    }

    /// A kubectl of the same version, as the administrator. It leaves nothing in the user's home.
    pub fn kubectl<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        self.command(&self.endpoints.kubectl, args)
    }

    /// The pinned helm, as the administrator. It leaves nothing in the user's home.
    pub fn helm<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        self.command(&self.endpoints.helm, args)
    }

    fn command<S: AsRef<OsStr>>(&self, program: &Path, args: impl IntoIterator<Item = S>) -> Command {
        let home = self.directory().join("home");
        let mut command = Command::new(program);
        command
            .args(args)
            .env("KUBECONFIG", self.kubeconfig())
            .env("XDG_CACHE_HOME", home.join(".cache"))
            .env("XDG_CONFIG_HOME", home.join(".config"))
            .env("XDG_DATA_HOME", home.join(".local/share"))
            .env("HOME", home);
        command
    }

    async fn request(&self, commands: &'static [protocol::Command]) -> Result<(), Error> {
        let supervisor = Arc::clone(&self.supervisor);
        blocking(move || supervisor.request(commands)).await
    }
}

/// Runs to its end even when the caller is cancelled, so that no answer is left in the pipe for the next request.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(Error::Interrupted),
    }
}

/// A client by a kubeconfig. It belongs to the runtime of the caller.
///
/// # Errors
///
/// When the kubeconfig, or a file that it names, is unreadable.
pub async fn connect(path: &Path) -> Result<kube::Client, Error> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Kubeconfig { path: path.to_owned(), source };
    let kubeconfig = Kubeconfig::read_from(path).map_err(|error| failed(error.into()))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| failed(error.into()))?;
    kube::Client::try_from(config).map_err(|error| failed(error.into()))
}
