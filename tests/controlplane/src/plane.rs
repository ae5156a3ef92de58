//! The processes of a control plane: etcd, kube-apiserver, kube-controller-manager.

use std::{
    fs, io,
    net::{Ipv4Addr, TcpListener},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::ExitStatus,
    thread,
    time::{Duration, Instant},
};

use test_controlplane::protocol::{ETCD_SOCKET, Endpoints};

use crate::{
    cache,
    certificates::{self, Certificates},
    directory::Directory,
    inbox::Inbox,
    process::Server,
    readiness::{self, Probe},
    run::Arguments,
};

/// What a control plane consists of, and what its users are given.
pub(crate) const TOOLS: [&str; 5] = ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl", "helm"];

/// For each server to become ready: some seconds on an idle machine, far longer where others build meanwhile.
const PATIENCE: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(50);
/// How often another port, or the same one at a restart, is tried when somebody else has taken it.
const PORT_ATTEMPTS: u32 = 10;
/// Below the range of which Linux takes the ports of outgoing connections: while the API server is stopped, none of
/// those can take its port.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const ETCD_PEER_SOCKET: &str = "etcd-peer.sock";

/// Why a control plane does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Tool(#[from] cache::Error),
    #[error(transparent)]
    Certificates(#[from] certificates::Error),
    #[error("cannot use the directory {path}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot run {name}")]
    Run { name: &'static str, source: io::Error },
    #[error("{name} ended ({status}); the end of its log:\n{log}")]
    Ended { name: &'static str, status: ExitStatus, log: String },
    #[error("{name} is not ready after {} s ({reason}); the end of its log:\n{log}", PATIENCE.as_secs())]
    NotReady { name: &'static str, reason: String, log: String },
    #[error("cannot look whether the control plane is ready")]
    Probe(#[from] readiness::Error),
    #[error("no free port on 127.0.0.1")]
    NoPort,
    #[error("stopped before it was ready")]
    Stopped,
}

/// A running control plane. The fields are dropped in this order.
#[derive(Debug)]
pub(crate) struct Plane {
    controller_manager: Option<Server>,
    /// `None` while it is stopped by request.
    api_server: Option<Server>,
    etcd: Server,
    directory: Directory,
    certificates: Certificates,
    port: u16,
    extra_arguments: Vec<String>,
    endpoints: Endpoints,
}

impl Plane {
    /// Starts everything and waits until it is ready.
    pub(crate) fn start(arguments: &Arguments, inbox: &Inbox) -> Result<Self, Error> {
        // Missing tools are told before anything is made.
        for tool in TOOLS {
            cache::locate(tool)?;
        }
        let [etcd, kubectl, helm] = [cache::locate("etcd")?, cache::locate("kubectl")?, cache::locate("helm")?];
        let directory = Directory::create(arguments.directory.as_deref(), arguments.keep).map_err(|source| {
            Error::Directory { path: arguments.directory.clone().unwrap_or_else(std::env::temp_dir), source }
        })?;
        let certificates = Certificates::make(&directory.path().join("pki"))?;
        let etcd = spawn("etcd", &etcd, &etcd_arguments(), &directory)?;
        let endpoints = Endpoints {
            directory: directory.path().to_owned(),
            kubeconfig: directory.path().join("kubeconfig"),
            certificate_authority: certificates.authority.clone(),
            server: String::new(),
            kubectl,
            helm,
        };
        let mut plane = Self {
            controller_manager: None,
            api_server: None,
            etcd,
            directory,
            certificates,
            port: 0,
            extra_arguments: arguments.api_server_args.clone(),
            endpoints,
        };
        let socket = plane.directory.path().join(ETCD_SOCKET);
        wait(&mut plane.etcd, inbox, || match UnixStream::connect(&socket) {
            Ok(_) => Ok(None),
            Err(error) => Ok(Some(error.to_string())),
        })?;
        plane.start_api_server_on_free_port(inbox)?;
        if !arguments.no_controller_manager {
            plane.start_controller_manager(inbox)?;
        }
        Ok(plane)
    }

    pub(crate) fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Fails if a process has ended that should run.
    pub(crate) fn check(&mut self) -> Result<(), Error> {
        let others = self.api_server.iter_mut().chain(self.controller_manager.iter_mut());
        for server in std::iter::once(&mut self.etcd).chain(others) {
            check(server)?;
        }
        Ok(())
    }

    /// Kills the API server.
    pub(crate) fn stop_api_server(&mut self) {
        self.api_server = None;
    }

    /// Starts the API server on the port it had, unless it runs.
    pub(crate) fn start_api_server(&mut self, inbox: &Inbox) -> Result<(), Error> {
        if self.api_server.is_some() {
            return Ok(());
        }
        for _ in 0..PORT_ATTEMPTS {
            if self.try_start_api_server(inbox)? {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(500));
        }
        Err(Error::NoPort)
    }

    fn start_api_server_on_free_port(&mut self, inbox: &Inbox) -> Result<(), Error> {
        for _ in 0..PORT_ATTEMPTS {
            self.port = free_port()?;
            self.endpoints.server = format!("https://127.0.0.1:{}", self.port);
            self.write_kubeconfig()?;
            if self.try_start_api_server(inbox)? {
                return Ok(());
            }
        }
        Err(Error::NoPort)
    }

    /// False if somebody else has the port.
    fn try_start_api_server(&mut self, inbox: &Inbox) -> Result<bool, Error> {
        let program = cache::locate("kube-apiserver")?;
        let mut server = spawn("kube-apiserver", &program, &self.api_server_arguments(), &self.directory)?;
        let mut probe = Probe::open(&self.endpoints.kubeconfig)?;
        match wait(&mut server, inbox, || probe.api_server()) {
            Ok(()) => {
                self.api_server = Some(server);
                Ok(true)
            }
            Err(Error::Ended { .. }) if server.output().contains("address already in use") => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn start_controller_manager(&mut self, inbox: &Inbox) -> Result<(), Error> {
        let program = cache::locate("kube-controller-manager")?;
        let arguments = self.controller_manager_arguments();
        let mut server = spawn("kube-controller-manager", &program, &arguments, &self.directory)?;
        let mut probe = Probe::open(&self.endpoints.kubeconfig)?;
        wait(&mut server, inbox, || probe.controller_manager())?;
        self.controller_manager = Some(server);
        Ok(())
    }

    /// JSON, which every reader of kubeconfigs takes, being YAML.
    fn write_kubeconfig(&self) -> Result<(), Error> {
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {
                "server": self.endpoints.server,
                "certificate-authority": self.certificates.authority,
            }}],
            "users": [{"name": "admin", "user": {
                "client-certificate": self.certificates.admin,
                "client-key": self.certificates.admin_key,
            }}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        });
        let path = &self.endpoints.kubeconfig;
        fs::write(path, format!("{config:#}\n")).map_err(|source| Error::Directory { path: path.clone(), source })
    }

    fn api_server_arguments(&self) -> Vec<String> {
        let pki = &self.certificates;
        let mut arguments = vec![
            format!("--etcd-servers=unix://{ETCD_SOCKET}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", self.port),
            "--authorization-mode=RBAC".to_owned(),
            file("--client-ca-file", &pki.authority),
            file("--tls-cert-file", &pki.server),
            file("--tls-private-key-file", &pki.server_key),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            file("--service-account-key-file", &pki.account_public_key),
            file("--service-account-signing-key-file", &pki.account_key),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            // As kubeadm sets it: what a pod may do is for Pod Security to say.
            "--allow-privileged=true".to_owned(),
            // The address above is no use to a pod, and there are no pods.
            "--endpoint-reconciler-type=none".to_owned(),
        ];
        arguments.extend_from_slice(&self.extra_arguments);
        arguments
    }

    fn controller_manager_arguments(&self) -> Vec<String> {
        vec![
            "--controllers=clusterrole-aggregation,garbagecollector,namespace,serviceaccount,serviceaccount-token"
                .to_owned(),
            // With the rights of an administrator it needs no ServiceAccount per controller.
            file("--kubeconfig", &self.endpoints.kubeconfig),
            file("--root-ca-file", &self.certificates.authority),
            file("--service-account-private-key-file", &self.certificates.account_key),
            "--leader-elect=false".to_owned(),
            // Nobody asks for its metrics, and a port could be taken.
            "--secure-port=0".to_owned(),
        ]
    }
}

fn etcd_arguments() -> Vec<String> {
    // The advertised addresses are only told to other members, which there are none of.
    [
        "--data-dir=etcd",
        &format!("--listen-client-urls=unix://{ETCD_SOCKET}"),
        "--advertise-client-urls=http://localhost:2379",
        &format!("--listen-peer-urls=unix://{ETCD_PEER_SOCKET}"),
        "--initial-advertise-peer-urls=http://localhost:2380",
        "--initial-cluster=default=http://localhost:2380",
        // The data goes with the directory: no need to survive a power failure.
        "--unsafe-no-fsync",
        // A benchmark of 100,000 resources does not fit into the 2 GB that are the default.
        "--quota-backend-bytes=8000000000",
        "--log-level=warn",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn file(flag: &str, path: &Path) -> String {
    format!("{flag}={}", path.display())
}

fn spawn(name: &'static str, program: &Path, arguments: &[String], directory: &Directory) -> Result<Server, Error> {
    Server::start(name, program, arguments, directory.path()).map_err(|source| Error::Run { name, source })
}

fn check(server: &mut Server) -> Result<(), Error> {
    let name = server.name;
    match server.ended() {
        Ok(None) => Ok(()),
        Ok(Some(status)) => Err(Error::Ended { name, status, log: server.tail() }),
        Err(source) => Err(Error::Run { name, source }),
    }
}

/// Waits until the probe has no more reason why the server is not ready.
fn wait(
    server: &mut Server,
    inbox: &Inbox,
    mut probe: impl FnMut() -> Result<Option<String>, readiness::Error>,
) -> Result<(), Error> {
    let started = Instant::now();
    loop {
        if inbox.stopped() {
            return Err(Error::Stopped);
        }
        let answer = probe()?;
        // After the probe: only a server that is alive can have answered it.
        check(server)?;
        let Some(reason) = answer else { return Ok(()) };
        if started.elapsed() > PATIENCE {
            return Err(Error::NotReady { name: server.name, reason, log: server.tail() });
        }
        thread::sleep(POLL);
    }
}

/// A port that is free now. It may be taken before it is used: the caller tries again.
fn free_port() -> Result<u16, Error> {
    let span = u128::from(PORTS.end - PORTS.start);
    for _ in 0..PORT_ATTEMPTS {
        // Chosen at random, so that two that start at once do not choose the same.
        let offset = uuid::Uuid::new_v4().as_u128() % span;
        let port = PORTS.start + u16::try_from(offset).unwrap_or_default();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Error::NoPort)
}
