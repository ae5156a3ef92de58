//! What one measurement happens in: a control plane, a simulated Toolzz, the chart's rights, and resources in it.

use std::{
    collections::HashMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use test_controlplane::{ControlPlane, Options};
use toolzz_simulator::{ELEVENLABS, OPENAI, Operation, Simulator};
use uuid::Uuid;

use crate::{
    error::{Error, Result},
    kubernetes::{Kubernetes, all_credentials, credentials, secrets},
    load::{IN_FLIGHT, each},
    operator::{Operator, Programs},
    requests::Requests,
};

/// The operator's own namespace.
pub const HOME: &str = "toolzz";
const NAMESPACES: usize = 10;
const UNITIES: usize = 10;
const INTEGRATIONS: [Uuid; 2] = [OPENAI, ELEVENLABS];
/// How many listings show all credentials.
pub const LISTINGS: usize = UNITIES * INTEGRATIONS.len();
/// The most operators at once.
pub const SEVERAL: usize = 3;
pub const USER: &str = "6f1c2d34-0000-4000-8000-000000000001";
/// The flags that differ from what the chart sets.
pub type Flags<'a> = &'a [(&'a str, &'a str)];
/// No limit of requests per second to Toolzz.
pub const UNLIMITED: (&str, &str) = ("--rate-limit", "0");

/// How many calls Toolzz got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    pub posts: u64,
    pub puts: u64,
    pub lists: u64,
    pub all: u64,
}

/// What was asked of both sides up to a moment.
pub struct Counts {
    pub requests: Requests,
    pub calls: Calls,
}

/// Everything goes when it is dropped.
pub struct World<'a> {
    /// Held for as long as it is needed.
    _plane: ControlPlane,
    pub admin: Kubernetes,
    /// With the rights that the chart gives the operator.
    pub account: Kubernetes,
    pub simulator: Simulator,
    pub http: reqwest::Client,
    programs: &'a Programs,
    arguments: Vec<String>,
    kubeconfig: PathBuf,
    token: PathBuf,
    /// How many resources there are.
    pub count: usize,
    /// How many operators were started.
    started: AtomicUsize,
}

/// Names of what belongs to the resource of this number.
pub struct Names {
    pub namespace: String,
    /// Of the resource and of its Secret.
    pub name: String,
    pub unity: Uuid,
    pub integration: Uuid,
}

impl Names {
    pub fn of(number: usize) -> Self {
        Self {
            namespace: format!("tenant-{}", number % NAMESPACES),
            name: format!("c-{number:06}"),
            unity: Uuid::from_u128(0x0b8e_2d34_0000_4000_8000_0000_0000_0000 + (number % UNITIES) as u128),
            integration: INTEGRATIONS[number / UNITIES % INTEGRATIONS.len()],
        }
    }

    pub fn secret_path(&self) -> String {
        format!("{}/{}", secrets(&self.namespace), self.name)
    }

    pub fn path(&self) -> String {
        format!("{}/{}", credentials(&self.namespace), self.name)
    }

    /// The resource as a user writes it.
    pub fn manifest(&self) -> Value {
        json!({
            "apiVersion": "toolzz.com.br/v1alpha1",
            "kind": "ToolzzCredential",
            "metadata": {"name": self.name},
            "spec": {
                "userId": USER,
                "unityId": self.unity,
                "integrationId": self.integration,
                "credentials": [{"api_key": {"secretKeyRef": {"name": self.name, "key": "key"}}}],
            },
        })
    }

    pub fn secret(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": self.name},
            "stringData": {"key": material(&self.name, 0)},
        })
    }

    /// Makes the Secret and the resource.
    pub async fn create(&self, admin: &Kubernetes) -> Result<()> {
        admin.create(&secrets(&self.namespace), &self.secret()).await?;
        admin.create(&credentials(&self.namespace), &self.manifest()).await
    }

    /// Gives the Secret new key material.
    pub async fn rotate(&self, admin: &Kubernetes, round: usize) -> Result<()> {
        let patch = json!({"stringData": {"key": material(&self.name, round)}});
        admin.patch(&self.secret_path(), &patch).await.map(drop)
    }
}

/// About as long as a provider's key.
fn material(name: &str, round: usize) -> String {
    format!("bench-{name}-{round:08}-0123456789abcdef0123456789")
}

impl<'a> World<'a> {
    /// An empty cluster with the chart's objects in it.
    pub async fn start(programs: &'a Programs, http: &reqwest::Client, values: &[String]) -> Result<World<'a>> {
        // Nobody needs its controllers here, and what they read and write would be counted with the operator's.
        let options = Options { controller_manager: false, ..Options::default() };
        let plane = ControlPlane::start(options).await?;
        // Counts are of all requests, however few the journal keeps.
        let simulator = Simulator::builder().journal_limit(1000).start()?;
        let admin = Kubernetes::connect(plane.kubeconfig()).await?;
        admin.create_namespace(HOME).await?;
        for number in 0..NAMESPACES {
            admin.create_namespace(&Names::of(number).namespace).await?;
        }
        let arguments = install(&plane, &simulator.url(), values)?;
        let kubeconfig = plane.service_account_kubeconfig(HOME, "op-toolzz-operator").await?;
        let account = Kubernetes::connect(&kubeconfig).await?;
        let token = plane.directory().join("token");
        fs::write(&token, toolzz_simulator::DEFAULT_TOKEN).map_err(Error::file(&token))?;
        Ok(World {
            _plane: plane,
            admin,
            account,
            simulator,
            http: http.clone(),
            programs,
            arguments,
            kubeconfig,
            token,
            count: 0,
            started: AtomicUsize::new(0),
        })
    }

    /// Makes so many more resources, with a Secret each; how long that took.
    pub async fn fill(&mut self, more: usize) -> Result<Duration> {
        let begun = Instant::now();
        self.make(self.count..self.count + more).await?;
        self.count += more;
        Ok(begun.elapsed())
    }

    /// Makes those of these numbers.
    pub fn make(&self, numbers: Range<usize>) -> impl Future<Output = Result<()>> + use<> {
        let admin = self.admin.clone();
        let create = move |number| {
            let admin = admin.clone();
            async move { Names::of(number).create(&admin).await }
        };
        each(numbers, IN_FLIGHT, create)
    }

    /// Starts the operator as the chart's pod would, but for these flags.
    pub fn operator(&self, flags: Flags<'_>) -> Result<Operator> {
        let token = self.token.display().to_string();
        let own = [("--http-addr", "127.0.0.1:0"), ("--api-token-file", token.as_str())];
        let arguments = with(&self.arguments, own.iter().chain(flags));
        // Of several at once each has its own.
        let log = self.programs.log(self.started.fetch_add(1, Ordering::Relaxed) % SEVERAL);
        Operator::start(self.programs, log, &arguments, &self.kubeconfig, &self.http)
    }

    pub fn calls(&self) -> Calls {
        self.simulator.read(|state| {
            let of = |operation| state.counts(operation).received;
            let (posts, puts, lists) = (of(Operation::Create), of(Operation::Update), of(Operation::List));
            let all = posts + puts + lists + of(Operation::Catalogue) + of(Operation::Other);
            Calls { posts, puts, lists, all }
        })
    }

    pub async fn counts(&self) -> Result<Counts> {
        Ok(Counts { requests: Requests::count(&self.admin).await?, calls: self.calls() })
    }

    /// What was asked since.
    pub async fn since(&self, before: &Counts) -> Result<Counts> {
        let now = self.counts().await?;
        let (calls, earlier) = (now.calls, before.calls);
        let calls = Calls {
            posts: calls.posts - earlier.posts,
            puts: calls.puts - earlier.puts,
            lists: calls.lists - earlier.lists,
            all: calls.all - earlier.all,
        };
        Ok(Counts { requests: &now.requests - &before.requests, calls })
    }

    /// Sees for itself that every resource is Ready and has a credential of its own, and that no two of a name were
    /// active at once; the credentials by the resources' names.
    pub async fn verify(&self) -> Result<HashMap<String, Uuid>> {
        let all = self.admin.list(&all_credentials()).await?;
        let wrong = all.iter().filter(|object| !object.is_ready()).count();
        if all.len() != self.count || wrong > 0 {
            let message = format!("{} resources, of which {wrong} are not Ready, instead of {}", all.len(), self.count);
            return Err(Error::Wrong(message));
        }
        let ids: HashMap<String, Uuid> = all
            .into_iter()
            .filter_map(|object| Some((object.metadata.name, object.status.id?.parse().ok()?)))
            .collect();
        let (active, overlaps) = self.simulator.read(|state| {
            let active = |id: &&Uuid| state.credential(**id).is_some_and(|credential| credential.is_active());
            (ids.values().filter(active).count(), state.overlaps().len())
        });
        if active != self.count || overlaps > 0 {
            let message = format!("{active} of {} credentials are active, {overlaps} names were twice", self.count);
            return Err(Error::Wrong(message));
        }
        Ok(ids)
    }
}

/// Installs the definitions and the chart's objects, with these values; the arguments its pod would have.
fn install(plane: &ControlPlane, url: &str, values: &[String]) -> Result<Vec<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let kubectl = |arguments: &[&str]| output(plane.kubectl([&["--request-timeout=60s"], arguments].concat()));
    let crds = root.join("crds").display().to_string();
    kubectl(&["apply", "--server-side", "-f", &crds])?;
    kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", &crds])?;
    let chart = root.join("charts/toolzz-operator").display().to_string();
    let mut set = format!("apiUrl={url},token.value=none,image.repository=toolzz-operator,crds.enabled=false");
    values.iter().for_each(|value| set += &format!(",{value}"));
    let rendered = output(plane.helm(["template", "op", &chart, "-n", HOME, "--skip-tests", "--set", &set]))?;
    let file = plane.directory().join("chart.yaml");
    fs::write(&file, rendered).map_err(Error::file(&file))?;
    kubectl(&["apply", "--server-side", "-f", &file.display().to_string()])?;
    let deployment = kubectl(&["get", "deployment", "op-toolzz-operator", "-n", HOME, "-o", "json"])?;
    let deployment: Value = serde_json::from_str(&deployment)?;
    let arguments = deployment.pointer("/spec/template/spec/containers/0/args").cloned().unwrap_or_default();
    Ok(serde_json::from_value(arguments)?)
}

/// What a command that has to end well printed.
fn output(mut command: Command) -> Result<String> {
    let output = command.output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::Command { command: format!("{command:?}"), output: said });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The arguments with these flags in the place of those of the same names.
fn with<'a>(arguments: &[String], flags: impl Iterator<Item = &'a (&'a str, &'a str)>) -> Vec<String> {
    let mut arguments = arguments.to_vec();
    for (name, value) in flags {
        arguments.retain(|argument| argument.split('=').next() != Some(*name));
        arguments.push(format!("{name}={value}"));
    }
    arguments
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn resources_are_spread_over_every_listing_and_namespace() {
        let all: Vec<Names> = (0..100).map(Names::of).collect();
        let listings: BTreeSet<_> = all.iter().map(|names| (names.unity, names.integration)).collect();
        let namespaces: BTreeSet<_> = all.iter().map(|names| names.namespace.clone()).collect();
        assert_eq!((listings.len(), namespaces.len()), (LISTINGS, NAMESPACES));
        let names: BTreeSet<_> = all.iter().map(|names| names.name.clone()).collect();
        assert_eq!(names.len(), all.len());
    }

    #[test]
    fn a_flag_takes_the_place_of_the_charts() {
        let chart = ["run", "--leader-elect", "--rate-limit=50", "--http-addr=0.0.0.0:8080"].map(str::to_owned);
        let flags = [("--rate-limit", "0"), ("--http-addr", "127.0.0.1:0"), ("--allowed-hosts", "127.0.0.1")];
        let expected =
            ["run", "--leader-elect", "--rate-limit=0", "--http-addr=127.0.0.1:0", "--allowed-hosts=127.0.0.1"];
        assert_eq!(with(&chart, flags.iter()), expected);
    }
}
