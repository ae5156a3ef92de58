//! `toolzz-operator run`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    num::NonZeroU16,
    num::NonZeroU32,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use thiserror::Error;

use super::shards::{self, Seat};
use crate::{
    controller,
    kubernetes::NoAccess,
    plan::Settings,
    remote::{Clock, Config, Connection, ProxyError, Tenure, TokenSource},
    runtime::{self, Election, LogFormat, Metrics, Readiness, Share, Shutdown, Standing},
    secrets::Reach,
};

/// Where the token is, when it is not in a file: for local use. Never an argument: those are seen by everybody.
const TOKEN_VARIABLE: &str = "TOOLZZ_API_TOKEN";

/// What must be so before the work on resources is ready.
const CHECKS: [&str; 3] = ["api-server", "crd", "caches"];

/// Run the operator.
#[derive(Debug, clap::Args)]
#[command(
    long_about = "Runs the operator: in a cluster with its service account, or against the cluster that KUBECONFIG names.\n\n\
        Give it the Toolzz token in a file (--api-token-file) or, for local use, in the environment variable \
        TOOLZZ_API_TOKEN. The CustomResourceDefinitions must be installed: see `toolzz-operator crds`.",
    after_help = "Durations: 500ms, 45s, 10m, 1h30m.\n\n\
        Traces go to an OpenTelemetry collector where OTEL_EXPORTER_OTLP_ENDPOINT (http/protobuf) names one.\n\n\
        Ends on SIGTERM or SIGINT after the step in hand; a second signal ends it at once."
)]
pub(super) struct RunArgs {
    /// Base URL of the Toolzz API.
    #[arg(long, env = "TOOLZZ_API_URL", value_name = "URL", default_value = "https://chat.api.toolzz.com.br/api/v1")]
    api_url: String,
    /// HTTP proxy (http:// or https://, without user name and password) to reach --api-url through, which must be https:// then. For the connection of these flags only: that of an object is made without. HTTPS_PROXY and its like are not used.
    #[arg(long, env = "TOOLZZ_API_PROXY", value_name = "URL")]
    api_proxy: Option<String>,
    /// File with the API token; read again when it changes.
    #[arg(long, env = "TOOLZZ_API_TOKEN_FILE", value_name = "FILE")]
    api_token_file: Option<PathBuf>,
    /// Namespaces to watch, separated by commas. Empty: all.
    #[arg(long, env = "TOOLZZ_NAMESPACES", value_name = "NAMES", value_delimiter = ',')]
    namespaces: Vec<String>,
    /// Read and watch Secrets of these namespaces only, separated by commas. Empty: of every namespace it watches.
    #[arg(long, env = "TOOLZZ_SECRET_NAMESPACES", value_name = "NAMES", value_delimiter = ',')]
    secret_namespaces: Vec<String>,
    /// Read and watch these Secrets only, separated by commas. Each is a watch of its own: for dozens, not for thousands.
    #[arg(long, env = "TOOLZZ_SECRET_NAMES", value_name = "NAMESPACE/NAME", value_delimiter = ',')]
    secret_names: Vec<String>,
    /// Let resources take over credentials that exist already (externalId, onConflict: Adopt) through the connection of these flags, which everybody has.
    #[arg(long, env = "TOOLZZ_ALLOW_ADOPTION", value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    allow_adoption: bool,
    /// Hosts (name or name:port) that API URLs may have, separated by commas. Empty: any, but for a ToolzzConnection only that of --api-url.
    #[arg(long, env = "TOOLZZ_ALLOWED_HOSTS", value_name = "HOSTS", value_delimiter = ',')]
    allowed_hosts: Vec<String>,
    /// Allow a connection's host name to lead to loopback and private addresses, as of a Toolzz in one's own network. Link-local ones stay refused.
    #[arg(long, env = "TOOLZZ_ALLOW_PRIVATE_ADDRESSES", value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    allow_private_addresses: bool,
    /// Allow an http:// URL also where it is not loopback. The token and all key material can be read on the way then.
    #[arg(long, env = "TOOLZZ_ALLOW_INSECURE_HTTP", value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    allow_insecure_http: bool,
    /// How often credentials are compared with Toolzz's listings.
    #[arg(long, env = "TOOLZZ_RESYNC_INTERVAL", value_name = "DURATION", default_value = "10m", value_parser = super::duration)]
    resync_interval: Duration,
    /// How long a lost request may still take effect: the pause before a create is tried anew. Longer than --request-timeout.
    #[arg(long, env = "TOOLZZ_SETTLE_PERIOD", value_name = "DURATION", default_value = "45s", value_parser = super::duration)]
    settle_period: Duration,
    /// Time limit for a request to Toolzz.
    #[arg(long, env = "TOOLZZ_REQUEST_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = super::duration)]
    request_timeout: Duration,
    /// How many resources are worked on at a time.
    #[arg(long, env = "TOOLZZ_CONCURRENCY", value_name = "N", default_value = "64")]
    concurrency: NonZeroU16,
    /// Requests per second to Toolzz. 0: no limit. With several shards each has its part of it.
    #[arg(long, env = "TOOLZZ_RATE_LIMIT", value_name = "N", default_value_t = 50)]
    rate_limit: u32,
    /// How long a deletion waits for Toolzz before the resource is let go and what stays active is named.
    #[arg(long, env = "TOOLZZ_DELETION_DEADLINE", value_name = "DURATION", default_value = "15m", value_parser = super::duration)]
    deletion_deadline: Duration,
    /// What credentials may write their virtual keys to (`spec.target`): configmaps, secrets. The operator needs the
    /// right to create, patch and delete them.
    #[arg(long, env = "TOOLZZ_TARGETS", value_name = "KINDS", value_delimiter = ',', default_value = "configmaps", value_parser = ["", "configmaps", "secrets"])]
    targets: Vec<String>,
    /// Work only while holding a Lease, so that a second process can stand by. Without it run one process only.
    #[arg(long, env = "TOOLZZ_LEADER_ELECT", value_name = "BOOL", num_args = 0..=1, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    leader_elect: bool,
    /// Among how many shards the namespaces are divided, by their names. Each shard has a Lease and one process at work on
    /// it; a process may hold several. The same for all processes; needs --leader-elect.
    #[arg(long, env = "TOOLZZ_SHARDS", value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=32))]
    shards: u16,
    /// Name of the Lease, in the operator's namespace. With several shards, those of the shards are named after it.
    #[arg(long, env = "TOOLZZ_LEASE_NAME", value_name = "NAME", default_value = "toolzz-operator")]
    lease_name: String,
    /// How long the others wait for a leader that is not heard of. A write to Toolzz takes less than this, whatever --request-timeout says.
    #[arg(long, env = "TOOLZZ_LEASE_DURATION", value_name = "DURATION", default_value = "15s", value_parser = super::duration)]
    lease_duration: Duration,
    /// After how long a leader ends that cannot renew the Lease. Absent: two thirds of --lease-duration.
    #[arg(long, env = "TOOLZZ_LEASE_RENEW_DEADLINE", value_name = "DURATION", value_parser = super::duration)]
    lease_renew_deadline: Option<Duration>,
    /// Between two tries to take or renew the Lease. Absent: a fifth of --lease-renew-deadline.
    #[arg(long, env = "TOOLZZ_LEASE_RETRY_PERIOD", value_name = "DURATION", value_parser = super::duration)]
    lease_retry_period: Option<Duration>,
    /// Address for /metrics, /healthz and /readyz.
    #[arg(long, env = "TOOLZZ_HTTP_ADDR", value_name = "ADDR", default_value = "0.0.0.0:8080")]
    http_addr: SocketAddr,
    /// How log lines look.
    #[arg(long, env = "TOOLZZ_LOG_FORMAT", value_name = "FORMAT", default_value = "json")]
    log_format: LogFormat,
    /// Level (error, warn, info, debug, trace), or a filter such as `info,toolzz_operator=debug`.
    #[arg(long, env = "TOOLZZ_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    log_level: String,
    /// Namespace that holds the installation key. Absent: the one the operator runs in, or the kubeconfig's.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME")]
    operator_namespace: Option<String>,
}

/// Why the operator does not start.
#[derive(Debug, Error)]
pub(super) enum Error {
    #[error("--shards: more than one needs --leader-elect")]
    ShardsWithoutElection,
    #[error(
        "--settle-period ({settle:?}) must be longer than --request-timeout ({request:?}): a request may take effect until its time limit"
    )]
    SettlesTooSoon { settle: Duration, request: Duration },
    #[error("--secret-names: {0:?} is not NAMESPACE/NAME")]
    SecretName(String),
    #[error("--secret-namespaces and --secret-names: give one of them")]
    TwoReaches,
    #[error("{0}")]
    Timing(#[from] runtime::TimingError),
    #[error("{0}")]
    Lost(#[from] runtime::Lost),
    #[error("--log-level: {0}")]
    LogLevel(#[from] tracing_subscriber::filter::ParseError),
    #[error("--api-url: {0}")]
    ApiUrl(#[from] crate::remote::ConfigError),
    #[error("--api-proxy: {0}")]
    ApiProxy(#[from] ProxyError),
    #[error("{0}")]
    Kubernetes(#[from] NoAccess),
    #[error("--http-addr {addr}: {source}")]
    Http { addr: SocketAddr, source: std::io::Error },
    #[error("{0}")]
    System(#[from] std::io::Error),
    #[error("{0}")]
    Controller(#[from] controller::Error),
}

pub(super) fn run(arguments: RunArgs) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let traces = runtime.block_on(async { runtime::Traces::by_environment() })?;
    let result = runtime.block_on(operate(arguments, traces.as_ref()));
    if let Some(traces) = traces {
        traces.end();
    }
    // What cannot be called off, as a look-up of a host name, does not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(result?)
}

async fn operate(arguments: RunArgs, traces: Option<&runtime::Traces>) -> Result<(), Error> {
    let (settle, request) = (arguments.settle_period, arguments.request_timeout);
    if settle <= request {
        return Err(Error::SettlesTooSoon { settle, request });
    }
    let count = NonZeroU16::new(arguments.shards).unwrap_or(NonZeroU16::MIN);
    let sharded = count > NonZeroU16::MIN;
    if sharded && !arguments.leader_elect {
        return Err(Error::ShardsWithoutElection);
    }
    let reach = reach(&named(&arguments.secret_namespaces), &named(&arguments.secret_names))?;
    let timing = arguments
        .leader_elect
        .then(|| {
            let (deadline, retry) = (arguments.lease_renew_deadline, arguments.lease_retry_period);
            runtime::Timing::new(arguments.lease_duration, deadline, retry)
        })
        .transpose()?;
    runtime::start_telemetry(arguments.log_format, &arguments.log_level, traces)?;
    let shutdown = Shutdown::on_signals()?;
    let metrics = Arc::new(Metrics::default());
    // With several, each shard has its own.
    let checks: &[&'static str] = if sharded { &[] } else { &CHECKS };
    let readiness = Arc::new(Readiness::new(checks));

    let variable = std::env::var(TOKEN_VARIABLE).ok();
    let token = || match (&arguments.api_token_file, &variable) {
        (Some(file), _) => Some(TokenSource::file(file)),
        (None, Some(token)) => Some(TokenSource::fixed(token.clone().into())),
        (None, None) => None,
    };
    if token().is_none() {
        tracing::warn!(
            "no API token is given (--api-token-file, or {TOKEN_VARIABLE} for local use): there is no default connection \
             but a ClusterToolzzConnection of that name"
        );
    }
    let clock = Clock::start();
    // Not by the parser of the arguments: that would repeat it.
    let proxy = arguments.api_proxy.filter(|url| !url.is_empty()).map(|url| url.parse()).transpose()?;
    let config = Config {
        proxy,
        shares: count,
        request_timeout: request,
        rate_limit: NonZeroU32::new(arguments.rate_limit),
        allow_insecure_http: arguments.allow_insecure_http,
        allowed_hosts: named(&arguments.allowed_hosts),
        catalogue_ttl: arguments.resync_interval,
        ..Config::new(arguments.api_url)
    };
    config.checked_url()?;
    let kubernetes = kube::Config::infer().await.map_err(NoAccess::from)?;
    let operator_namespace = arguments
        .operator_namespace
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| kubernetes.default_namespace.clone());
    let namespaces = named(&arguments.namespaces);
    // Of the lease that is held together.
    let outer = Tenure::none();
    let seat = |share: Share| {
        let tenure = match timing {
            None => Tenure::unlimited(),
            Some(_) if sharded => outer.within(),
            Some(_) => Tenure::none(),
        };
        let config = Config { tenure: tenure.clone(), ..config.clone() };
        let connection = token().map(|token| {
            let observer = controller::Counting::of_default(Arc::clone(&metrics), share);
            Connection::new(config, token, clock, Arc::new(observer))
        });
        Ok::<_, Error>(Seat {
            share,
            client: crate::kubernetes::client(kubernetes.clone(), tenure.clone(), clock).map_err(NoAccess::from)?,
            connection: connection.transpose()?,
            readiness: if sharded { Arc::new(Readiness::new(&CHECKS)) } else { Arc::clone(&readiness) },
            tenure,
        })
    };
    let mut seats = Share::all(count).map(seat).collect::<Result<Vec<_>, _>>()?;

    let identity = identity();
    let terms = |name: String, identity: &str, timing: runtime::Timing| {
        // A client of its own: who does not lead must be able to write the Lease.
        let client = kube::Client::try_from(kubernetes.clone()).map_err(NoAccess::from)?;
        let (namespace, identity) = (operator_namespace.clone(), identity.to_owned());
        Ok::<_, Error>(runtime::Terms { client, namespace, name, identity, timing })
    };
    let seated =
        |seat: &Seat, terms| Election::new(terms, seat.tenure.clone(), clock, seat.teller(Arc::clone(&metrics)));

    let addr = arguments.http_addr;
    let http = runtime::serve(addr, Arc::clone(&readiness), Arc::clone(&metrics), shutdown.clone());
    let targets = controller::Targets { config_maps: arguments.targets.iter().any(|kind| kind == "configmaps") };
    let settings = Settings {
        resync_interval: arguments.resync_interval,
        settle_period: settle,
        deletion_deadline: arguments.deletion_deadline,
    };
    let work = {
        let (metrics, operator_namespace) = (Arc::clone(&metrics), operator_namespace.clone());
        move |seat: &Seat, shutdown: Shutdown| {
            controller::run(controller::Start {
                client: seat.client.clone(),
                connection: seat.connection.clone(),
                terms: controller::Terms {
                    config: Config { tenure: seat.tenure.clone(), ..config.clone() },
                    allow_adoption: arguments.allow_adoption,
                    allow_private_addresses: arguments.allow_private_addresses,
                    scoped: !namespaces.is_empty(),
                    operator_namespace: operator_namespace.clone(),
                },
                clock,
                namespaces: namespaces.clone(),
                reach: reach.clone(),
                share: seat.share,
                concurrency: arguments.concurrency.get(),
                targets,
                settings,
                metrics: Arc::clone(&metrics),
                readiness: Arc::clone(&seat.readiness),
                tenure: seat.tenure.clone(),
                shutdown,
            })
        }
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "started");
    let lease = arguments.lease_name;
    let work = async {
        let Some(timing) = timing else {
            metrics.leading(true);
            let seat = seats.swap_remove(0);
            return work(&seat, shutdown).await.map_err(Error::from);
        };
        if !sharded {
            let seat = seats.swap_remove(0);
            let election = seated(&seat, terms(lease, &identity, timing)?);
            // Nobody asks for what there is one of.
            let (_, asked) = tokio::sync::watch::channel(None);
            return seat.serve(election, asked, work, shutdown).await;
        }
        let with_all = Arc::new(Readiness::new(&[]));
        readiness.part("shards".to_owned(), Arc::clone(&with_all));
        let waits = move |standing| {
            with_all.stand_by(match standing {
                Standing::Waiting { reads } => Some(reads),
                Standing::Leading | Standing::Ended => None,
            });
        };
        let together = terms(lease.clone(), &shards::together(count), timing)?;
        let asking = terms(shards::lease_of_who_asks(&lease), &identity, timing)?;
        let with_election = |seat: Seat| {
            let terms = terms(shards::lease_of(&lease, seat.share.shard()), &identity, timing)?;
            let election = seated(&seat, terms);
            Ok::<_, Error>((seat, election))
        };
        let elections = shards::Elections {
            together: Election::new(together, outer.clone(), clock, waits),
            asking: Election::new(asking, Tenure::none(), clock, |_| ()),
            seats: seats.into_iter().map(with_election).collect::<Result<_, _>>()?,
            identity,
            timing,
            readiness: Arc::clone(&readiness),
        };
        shards::take_part(elections, work, shutdown).await
    };
    tokio::try_join!(async { http.await.map_err(|source| Error::Http { addr, source }) }, work)?;
    tracing::info!("ended");
    Ok(())
}

fn reach(namespaces: &[String], secrets: &[String]) -> Result<Reach, Error> {
    if !namespaces.is_empty() && !secrets.is_empty() {
        return Err(Error::TwoReaches);
    }
    if !namespaces.is_empty() {
        return Ok(Reach::Namespaces(namespaces.iter().cloned().collect()));
    }
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for secret in secrets {
        let (namespace, name) = secret
            .split_once('/')
            .filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty() && !name.contains('/'))
            .ok_or_else(|| Error::SecretName(secret.clone()))?;
        names.entry(namespace.to_owned()).or_default().insert(name.to_owned());
    }
    Ok(if names.is_empty() { Reach::Scope } else { Reach::Names(names) })
}

/// A name for this process, unlike that of any other and of any before it.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "toolzz-operator".to_owned());
    format!("{host}_{:016x}", rand::random::<u64>())
}

/// What a comma list names, each once: an empty list is one empty name to the parser, and two watches on one
/// namespace would work on the same resources side by side.
fn named(list: &[String]) -> Vec<String> {
    let names: BTreeSet<&str> = list.iter().map(|name| name.trim()).collect();
    names.into_iter().filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_given_in_one_way_and_by_whole_names() {
        let given = |namespaces: &[&str], secrets: &[&str]| {
            let [namespaces, secrets] =
                [namespaces, secrets].map(|list| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
            reach(&namespaces, &secrets)
        };
        assert_eq!(given(&[], &[]).unwrap(), Reach::Scope);
        assert_eq!(given(&["ai"], &[]).unwrap(), Reach::Namespaces(["ai".to_owned()].into()));
        let names = Reach::Names([("ai".to_owned(), ["a".to_owned(), "b".to_owned()].into())].into());
        assert_eq!(given(&[], &["ai/a", "ai/b"]).unwrap(), names);
        assert!(matches!(given(&["ai"], &["ai/a"]), Err(Error::TwoReaches)));
        for wrong in ["ai", "/a", "ai/", "ai/a/b"] {
            assert!(matches!(given(&[], &[wrong]), Err(Error::SecretName(name)) if name == wrong), "{wrong}");
        }
    }
}
