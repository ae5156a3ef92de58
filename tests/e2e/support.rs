//! A room for one test: a namespace, a simulator, and the operator as a process.

use std::{
    fs::File,
    io::{BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    ops::Deref,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::{core::v1::Secret, events::v1::Event};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::wait::await_condition,
};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde_json::{Value, json};
use test_controlplane::{ControlPlane, Options};
use test_kubeproxy::Proxy;
use tokio::sync::OnceCell;
use toolzz_operator::api::{ToolzzCredential, condition};
use toolzz_simulator::{DEFAULT_TOKEN, OPENAI, Simulator};

/// Far beyond what anything takes; a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);
pub use crate::leaks::{CANARY, key_material};

pub const USER: &str = "6f1c2d34-0000-4000-8000-000000000001";
pub const UNITY: &str = "0b8e2d34-0000-4000-8000-000000000002";

pub struct Lab {
    pub client: Client,
    /// Where the test is at work; where the operators are at home to begin with.
    pub namespace: String,
    pub simulator: Simulator,
    pub directory: PathBuf,
    pub operator: Option<Operator>,
    pub flags: Vec<String>,
    /// The namespaces of the operators, where that is not the room's own.
    pub scope: Option<Vec<String>>,
    /// More variables for the operators.
    pub environment: Vec<(&'static str, String)>,
    /// Whom the API server takes the operators behind a proxy for: the administrator, unless a test says otherwise.
    pub identity: PathBuf,
    /// What the operators of this room have before the API server, if anything; the room itself goes past it.
    proxy: Option<Proxy>,
    /// The first namespace: the operators' own.
    pub home: String,
    /// Everything was searched for leaks, and nothing comes after that.
    pub searched: std::cell::Cell<bool>,
    /// The last to go.
    pub plane: Plane,
}

/// The control plane of all tests, or one of a test's own. That ends with the test: one that has nothing to do takes the
/// time of those that have.
#[derive(Clone)]
pub enum Plane {
    Shared(&'static ControlPlane),
    Own(Arc<ControlPlane>),
}

impl Deref for Plane {
    type Target = ControlPlane;

    fn deref(&self) -> &ControlPlane {
        match self {
            Self::Shared(plane) => plane,
            Self::Own(plane) => plane,
        }
    }
}

/// The shared control plane with the definitions installed.
pub async fn plane() -> Plane {
    static INSTALLED: OnceCell<&'static ControlPlane> = OnceCell::const_new();
    let plane = INSTALLED
        .get_or_init(|| async {
            let plane = ControlPlane::shared().await.unwrap();
            install(plane);
            plane
        })
        .await;
    Plane::Shared(plane)
}

/// A control plane of a test's own: for an operator that sees all namespaces, and for a server that goes away.
pub async fn plane_of_ones_own() -> Plane {
    let plane = bare_plane().await;
    install(&plane);
    plane
}

/// The same without the definitions.
pub async fn bare_plane() -> Plane {
    Plane::Own(Arc::new(ControlPlane::start(Options::default()).await.unwrap()))
}

fn install(plane: &ControlPlane) {
    let crds = concat!(env!("CARGO_MANIFEST_DIR"), "/crds");
    let run = |args: &[&str]| {
        let output = plane.kubectl(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["apply", "--server-side", "-f", crds]);
    run(&["wait", "--for=condition=Established", "--timeout=60s", "-f", crds]);
}

impl Lab {
    /// A room without an operator yet.
    pub async fn empty(prefix: &str) -> Self {
        Self::on(plane().await, prefix).await
    }

    /// A room without an operator on this control plane.
    pub async fn on(plane: Plane, prefix: &str) -> Self {
        let namespace = plane.unique_namespace(prefix).await.unwrap();
        let directory = plane.directory().join("labs").join(&namespace);
        std::fs::create_dir_all(&directory).unwrap();
        Self {
            client: plane.client().await.unwrap(),
            home: namespace.clone(),
            searched: false.into(),
            namespace,
            simulator: Simulator::start(),
            directory,
            operator: None,
            flags: ["--settle-period=4s", "--request-timeout=3s", "--resync-interval=10m", "--allow-adoption"]
                .map(str::to_owned)
                .to_vec(),
            scope: None,
            environment: Vec::new(),
            identity: plane.kubeconfig().to_owned(),
            proxy: None,
            plane,
        }
    }

    /// Puts a proxy between the API server and the operators that are started from now on.
    pub async fn use_proxy(&mut self) -> Proxy {
        let identity = Kubeconfig::read_from(&self.identity).unwrap();
        let config = kube::Config::from_custom_kubeconfig(identity, &KubeConfigOptions::default()).await.unwrap();
        let proxy = Proxy::start(config).unwrap();
        std::fs::write(self.directory.join("kubeconfig"), proxy.kubeconfig(&self.namespace)).unwrap();
        self.proxy = Some(proxy.clone());
        proxy
    }

    /// The proxy before the operators.
    pub fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("a room with a proxy")
    }

    fn kubeconfig(&self) -> PathBuf {
        match &self.proxy {
            Some(_) => self.directory.join("kubeconfig"),
            None => self.plane.kubeconfig().to_owned(),
        }
    }

    /// A room with an operator at work.
    pub async fn start(prefix: &str) -> Self {
        let mut lab = Self::empty(prefix).await;
        lab.start_operator();
        lab
    }

    pub fn start_operator(&mut self) {
        self.operator = Some(self.another_operator());
    }

    /// Of what these flags say, the operator's own default holds.
    pub fn drop_flags(&mut self, names: &[&str]) {
        self.flags.retain(|flag| !names.iter().any(|name| flag.starts_with(name)));
    }

    pub fn another_operator(&self) -> Operator {
        self.operator_with(DEFAULT_TOKEN)
    }

    /// An operator with a token of its own, by which Toolzz can tell whose request one is.
    pub fn operator_with(&self, token: &str) -> Operator {
        let operator = Operator::start(self, &self.flags, token);
        // They share a log: the next line of the kind is this one's.
        operator.http();
        operator
    }

    /// SIGKILL: nothing of the process gets to say goodbye.
    pub fn kill_operator(&mut self) {
        drop(self.operator.take());
    }

    pub fn api(&self) -> Api<ToolzzCredential> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn secret(&self, name: &str, data: &[(&str, &str)]) {
        let data: serde_json::Map<String, Value> =
            data.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data});
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        api.patch(name, &PatchParams::apply("e2e").force(), &Patch::Apply(secret)).await.unwrap();
    }

    /// A credential of this name whose `api_key` is the key `key` of the Secret of the same name.
    pub fn manifest(&self, name: &str) -> Value {
        json!({
            "apiVersion": "toolzz.com.br/v1alpha1", "kind": "ToolzzCredential",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "userId": USER, "unityId": UNITY, "integrationId": OPENAI.to_string(),
                "credentials": [{"api_key": {"secretKeyRef": {"name": name, "key": "key"}}}],
            },
        })
    }

    pub async fn create(&self, manifest: Value) -> Result<ToolzzCredential, kube::Error> {
        let object: ToolzzCredential = serde_json::from_value(manifest).unwrap();
        self.api().create(&PostParams::default(), &object).await
    }

    /// A Secret and a credential of this name.
    pub async fn credential(&self, name: &str) {
        self.secret(name, &[("key", &key_material(name))]).await;
        self.create(self.manifest(name)).await.unwrap();
    }

    pub async fn edit(&self, name: &str, spec: Value) {
        self.api().patch(name, &PatchParams::default(), &Patch::Merge(json!({ "spec": spec }))).await.unwrap();
    }

    /// What a user says with `kubectl annotate`.
    pub async fn annotate(&self, name: &str, annotation: &str, value: &str) {
        let patch = json!({"metadata": {"annotations": {annotation: value}}});
        self.api().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Who is asked before the resource goes.
    pub async fn set_finalizers(&self, name: &str, finalizers: &[&str]) {
        let patch = json!({"metadata": {"finalizers": finalizers}});
        self.api().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// A credential of this name with these fields of the spec changed, and its Secret.
    pub async fn credential_with(&self, name: &str, spec: Value) {
        self.secret(name, &[("key", &key_material(name))]).await;
        let mut manifest = self.manifest(name);
        for (field, value) in spec.as_object().unwrap() {
            manifest["spec"][field] = value.clone();
        }
        self.create(serde_json::from_value(manifest).unwrap()).await.unwrap();
    }

    /// New key material for the credential of this name.
    pub async fn rotate(&self, name: &str, material: &str) {
        self.secret(name, &[("key", &key_material(material))]).await;
    }

    /// What an active credential of this name holds at Toolzz, one entry each.
    pub fn materials(&self, name: &str) -> Vec<String> {
        let material =
            |secret_id| self.simulator.material_of(secret_id).unwrap()[0]["api_key"].as_str().unwrap().to_owned();
        let active = self.simulator.active_named(name);
        active.iter().map(|one| crate::leaks::word_of(&material(one.row.secret_id)).to_owned()).collect()
    }

    /// This one was active, and never two of any name, nor one that was not recorded.
    pub fn assert_none_doubled(&self, name: &str) {
        assert_eq!(self.simulator.max_simultaneously_active(name), 1, "{name}");
        self.simulator.read(|state| {
            assert!(state.overlaps().is_empty(), "{:?}", state.overlaps());
            assert!(state.ever_active_while_marked().is_empty());
        });
    }

    /// Waits until the simulator's state is so.
    pub async fn until_remote(&self, so: impl FnMut(&toolzz_simulator::State) -> bool) {
        let so = tokio::time::timeout(PATIENCE, self.simulator.until(so)).await;
        so.unwrap_or_else(|_| panic!("Toolzz does not come to be so: {:#?}\n{}", self.simulator.journal(), self.log()));
    }

    pub async fn delete(&self, name: &str) {
        self.api().delete(name, &DeleteParams::default()).await.unwrap();
    }

    async fn awaited(&self, name: &str, so: impl Fn(Option<&ToolzzCredential>) -> bool) -> Option<ToolzzCredential> {
        loop {
            // A watch that failed begins anew: the API server may be the one that is put to the test.
            if let Ok(object) = await_condition(self.api(), name, &so).await {
                return object;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the resource is so.
    pub async fn until(&self, name: &str, what: &str, so: impl Fn(&ToolzzCredential) -> bool) -> ToolzzCredential {
        let condition = |object: Option<&ToolzzCredential>| object.is_some_and(&so);
        match tokio::time::timeout(PATIENCE, self.awaited(name, condition)).await {
            Ok(object) => object.unwrap(),
            Err(_) => {
                let object = self.api().get_opt(name).await.unwrap();
                panic!(
                    "{name} did not become {what}: {}\n{}",
                    serde_json::to_string_pretty(&object).unwrap(),
                    self.log()
                )
            }
        }
    }

    /// Waits until the Ready condition of the current generation has this reason.
    pub async fn until_reason(&self, name: &str, reason: &str) -> ToolzzCredential {
        self.until(name, reason, |object| {
            let status = object.status.as_ref();
            let current = status.and_then(|status| status.observed_generation) == object.metadata.generation;
            current && ready(object).is_some_and(|(_, why, _)| why == reason)
        })
        .await
    }

    pub async fn until_ready(&self, name: &str) -> ToolzzCredential {
        self.until(name, "Ready", |object| {
            let current =
                object.status.as_ref().and_then(|status| status.observed_generation) == object.metadata.generation;
            current && ready(object).is_some_and(|(status, _, _)| status == "True")
        })
        .await
    }

    pub async fn until_gone(&self, name: &str) {
        let gone = self.awaited(name, |object: Option<&ToolzzCredential>| object.is_none());
        if tokio::time::timeout(PATIENCE, gone).await.is_err() {
            panic!("{name} does not go\n{}", self.log());
        }
    }

    pub async fn events(&self) -> Vec<Event> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        api.list(&ListParams::default()).await.unwrap().items
    }

    /// Waits until an event of this reason is there.
    pub async fn until_event(&self, reason: &str) {
        let found = async {
            while !self.events().await.iter().any(|event| event.reason.as_deref() == Some(reason)) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no event {reason}\n{}", self.log()));
    }

    /// What kubectl says in the room's namespace; it must not fail.
    pub fn kubectl(&self, args: &[&str]) -> String {
        let output = self.plane.kubectl(args).args(["-n", &self.namespace]).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Everything every operator of this room has logged.
    pub fn log(&self) -> String {
        match std::fs::read(self.log_file()) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => panic!("the log cannot be read: {error}"),
        }
    }

    /// Whether an operator was started in this room, by whatever way.
    pub fn had_operators(&self) -> bool {
        self.log_file().exists()
    }

    fn log_file(&self) -> PathBuf {
        self.directory.join("operator.log")
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.search_at_the_end();
        }
    }
}

/// Keeps a figure for `make proof`, where that asks for it.
pub fn proof(name: &str, figure: &str) {
    if let Some(directory) = std::env::var_os("TOOLZZ_PROOF") {
        std::fs::write(Path::new(&directory).join(name), figure).unwrap();
    }
}

/// Waits until it is one's turn: a test that has many rooms keeps the machine busy, and in too many at once everything
/// takes longer than the time limits that the operators are given there.
pub async fn turn() -> tokio::sync::SemaphorePermit<'static> {
    static TURNS: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(2);
    TURNS.acquire().await.unwrap()
}

/// Waits until a request is held at this gate.
pub async fn held(gate: &toolzz_simulator::Gate) {
    tokio::time::timeout(PATIENCE, gate.until_held(1)).await.expect("nothing comes to the gate");
}

/// Status, reason and message of the Ready condition.
pub fn ready(object: &ToolzzCredential) -> Option<(&str, &str, &str)> {
    let ready = condition(&object.status.as_ref()?.conditions, "Ready")?;
    Some((&ready.status, &ready.reason, &ready.message))
}

pub fn has_condition(object: &ToolzzCredential, kind: &str) -> bool {
    object.status.as_ref().is_some_and(|status| condition(&status.conditions, kind).is_some())
}

/// The operator as a process; killed when dropped.
pub struct Operator {
    child: Child,
    http: std::cell::OnceCell<SocketAddr>,
    log: PathBuf,
    log_from: u64,
}

impl Operator {
    fn start(lab: &Lab, flags: &[String], token: &str) -> Self {
        let namespaces = lab.scope.as_ref().map_or_else(|| lab.namespace.clone(), |scope| scope.join(","));
        let args = [
            "--namespaces",
            &namespaces,
            "--http-addr",
            "127.0.0.1:0",
            "--log-level",
            "trace,toolzz_operator=trace",
            "--rate-limit",
            "0",
        ];
        let file = lab.directory.join(format!("token-of-{}", token.len()));
        std::fs::write(&file, token).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_toolzz-operator"));
        command
            .arg("run")
            .args(args)
            .args(flags)
            .env_clear()
            .env("KUBECONFIG", lab.kubeconfig())
            .env("POD_NAMESPACE", lab.scope.as_ref().map_or(&lab.namespace, |_| &lab.home))
            .env("TOOLZZ_API_URL", lab.simulator.url())
            .env("TOOLZZ_API_TOKEN_FILE", &file)
            .envs(lab.environment.clone());
        Self::spawn(command, &lab.log_file())
    }

    /// Any command that is an operator, logging to this file.
    pub fn spawn(mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).unwrap();
        let log_from = file.metadata().unwrap().len();
        let also = file.try_clone().unwrap();
        let child = command.stdin(Stdio::null()).stdout(also).stderr(file).spawn().unwrap();
        Self { child, http: std::cell::OnceCell::new(), log: log.to_owned(), log_from }
    }

    /// Where it serves health and metrics, as it logged.
    pub fn http(&self) -> SocketAddr {
        *self.http.get_or_init(|| {
            let begun = std::time::Instant::now();
            loop {
                let bytes = std::fs::read(&self.log).unwrap();
                let own = String::from_utf8_lossy(&bytes[usize::try_from(self.log_from).unwrap()..]);
                let line = own.lines().find(|line| line.contains("http server listening"));
                if let Some(addr) =
                    line.and_then(|line| serde_json::from_str::<Value>(line).ok()?["addr"].as_str()?.parse().ok())
                {
                    // It is itself by now: before, it may be what started it, or nothing yet.
                    self.told_nothing();
                    return addr;
                }
                assert!(begun.elapsed() < PATIENCE, "the operator does not listen: {own}");
                std::thread::sleep(Duration::from_millis(20));
            }
        })
    }

    /// A plain GET: status code and body, in which nothing may be that is secret.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.try_get(path).unwrap()
    }

    /// The same of one that may have ended.
    pub fn try_get(&self, path: &str) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.http())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        BufReader::new(stream).read_to_string(&mut answer)?;
        crate::leaks::search(path, &answer);
        let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let code = code.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        Ok((code, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()))
    }

    /// Waits until `/readyz` answers with this code; what it said.
    pub async fn until_readyz(&self, code: u16) -> String {
        let found = async {
            loop {
                let (now, text) = self.get("/readyz");
                if now == code {
                    return text;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("/readyz does not become {code}"))
    }

    /// Waits until `/metrics` has this line.
    pub async fn until_metric(&self, line: &str) {
        let found = async {
            while !self.get("/metrics").1.lines().any(|one| one == line) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found)
            .await
            .unwrap_or_else(|_| panic!("no {line} in\n{}", self.get("/metrics").1));
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.ended().is_some()
    }

    /// How it has ended by itself, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// What everybody on the machine may see of it: arguments, and for its user the environment. `None`: it has ended.
    pub fn told(&self) -> Option<String> {
        let read = |what: &str| std::fs::read(format!("/proc/{}/{what}", self.child.id())).ok();
        let (arguments, environment) = (read("cmdline")?, read("environ")?);
        (!arguments.is_empty()).then(|| String::from_utf8_lossy(&[arguments, environment].concat()).into_owned())
    }

    /// SIGTERM; the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        self.signal("TERM");
        let begun = std::time::Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            let told = std::fs::read_to_string(&self.log).unwrap_or_default();
            let last = told.len().saturating_sub(3000);
            assert!(begun.elapsed() < PATIENCE, "the operator does not end: {}", told.get(last..).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name]).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success());
    }

    /// SIGSTOP. A busy machine lets its threads go on for a while: it returns when the last of them stands still.
    pub fn stop(&self) {
        self.signal("STOP");
        let pid = Pid::from_child(&self.child);
        // An end is left for others to see.
        let what = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), what).unwrap();
    }

    /// Waits until it ends by itself; the exit code.
    pub async fn until_ended(&mut self) -> Option<i32> {
        let ended = async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status.code();
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.expect("the operator does not end")
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
