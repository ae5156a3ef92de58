//! What there is in the cluster, as far as it may be looked at.

use std::{collections::BTreeSet, fmt::Debug};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{apps::v1::Deployment, coordination::v1::Lease},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client, CustomResourceExt as _, Resource, ResourceExt as _, api::ListParams, core::ObjectMeta};
use serde::de::DeserializeOwned;

use super::{Error, Found, Operator, join};
use crate::{
    api::{ClusterToolzzConnection, ConnectionKey, ToolzzConnection, ToolzzCredential},
    kubernetes::{NoAccess, answered, brief, timed},
};

/// How the chart marks what is an operator, unless `nameOverride` says otherwise.
const OPERATOR_LABEL: (&str, &str) = ("app.kubernetes.io/name", "toolzz-operator");
/// What the chart has among the arguments of an operator, and nobody else has.
const OPERATOR_FLAG: &str = "--settle-period=";
/// The Lease of an operator whose flags name no other.
const OPERATOR_LEASE: &str = "metadata.name=toolzz-operator";

pub(super) async fn look(namespaces: &BTreeSet<String>) -> Result<Found, Error> {
    let client = Client::try_from(kube::Config::infer().await.map_err(NoAccess::from)?).map_err(NoAccess::from)?;
    let (everywhere, all) = (BTreeSet::new(), ListParams::default());
    let credentials = list(&client, namespaces, &all).await.map_err(cannot("the ToolzzCredentials"))?;
    let own: Vec<ToolzzConnection> = list(&client, namespaces, &all).await.map_err(cannot("the ToolzzConnections"))?;

    let mut look = Look { client, unseen: BTreeSet::new() };
    let shared = look.shared().await?;
    let first = ListParams::default().limit(1);
    let others = list::<ToolzzCredential>(&look.client, &everywhere, &first).await;
    let others = look.allowed("the ToolzzCredentials of all namespaces", others)?;
    let others_own = list::<ToolzzConnection>(&look.client, &everywhere, &first).await;
    let others_own = look.allowed("the ToolzzConnections of all namespaces", others_own)?;
    let there = [
        Some(!credentials.is_empty() || !own.is_empty()),
        others.map(|found| !found.is_empty()),
        others_own.map(|found| !found.is_empty()),
        shared.as_ref().map(|found| !found.is_empty()),
    ];

    let own = own.iter().map(|object| ConnectionKey { namespace: object.namespace(), name: object.name_any() });
    let shared = shared.unwrap_or_default();
    let shared = shared.iter().map(|object| ConnectionKey { namespace: None, name: object.name_any() });
    Ok(Found {
        connections: own.chain(shared).collect(),
        credentials,
        definitions: look.definitions().await?,
        operators: look.operators(namespaces).await?,
        any: any(&there),
        unseen: look.unseen,
    })
}

/// Whether any is; `None`: not known.
fn any(there: &[Option<bool>]) -> Option<bool> {
    if there.contains(&Some(true)) {
        return Some(true);
    }
    (!there.contains(&None)).then_some(false)
}

fn cannot(what: &'static str) -> impl Fn(kube::Error) -> Error {
    move |error| Error::Read { what, why: brief(&error) }
}

/// The objects of these namespaces, or of all of them. None where their kind is not known.
async fn list<K>(client: &Client, namespaces: &BTreeSet<String>, params: &ListParams) -> kube::Result<Vec<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let mut apis: Vec<Api<K>> = namespaces.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect();
    if apis.is_empty() {
        apis.push(Api::all(client.clone()));
    }
    let mut all = Vec::new();
    for api in apis {
        match timed(api.list(params)).await {
            Ok(list) => all.extend(list.items),
            Err(error) if answered(&error, 404) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Looks, and notes what it may not look at.
struct Look {
    client: Client,
    unseen: BTreeSet<&'static str>,
}

impl Look {
    /// What was answered, unless it may not be looked at.
    fn allowed<T>(&mut self, what: &'static str, answer: kube::Result<T>) -> Result<Option<T>, Error> {
        match answer {
            Ok(found) => Ok(Some(found)),
            Err(error) if answered(&error, 403) => {
                self.unseen.insert(what);
                Ok(None)
            }
            Err(error) => Err(cannot(what)(error)),
        }
    }

    async fn shared(&mut self) -> Result<Option<Vec<ClusterToolzzConnection>>, Error> {
        let api: Api<ClusterToolzzConnection> = Api::all(self.client.clone());
        let answer = match timed(api.list(&ListParams::default())).await {
            Err(error) if answered(&error, 404) => Ok(Vec::new()),
            answer => answer.map(|list| list.items),
        };
        self.allowed("the ClusterToolzzConnections", answer)
    }

    /// Of all namespaces where that is allowed, otherwise of these, otherwise of none: an operator may be anywhere.
    async fn seen<K>(
        &mut self,
        what: &'static str,
        namespaces: &BTreeSet<String>,
        params: &ListParams,
    ) -> Result<Vec<K>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        for places in [&BTreeSet::new(), namespaces] {
            let answer = list(&self.client, places, params).await;
            if let Some(found) = self.allowed(what, answer)? {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    async fn definitions(&mut self) -> Result<Vec<ObjectMeta>, Error> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let mut found = Vec::new();
        for name in [ToolzzCredential::crd_name(), ToolzzConnection::crd_name(), ClusterToolzzConnection::crd_name()] {
            let answer = timed(api.get_metadata_opt(name)).await;
            let object = self.allowed("the CustomResourceDefinitions", answer)?.flatten();
            found.extend(object.map(|object| object.metadata));
        }
        Ok(found)
    }

    async fn operators(&mut self, namespaces: &BTreeSet<String>) -> Result<Vec<Operator>, Error> {
        let all = ListParams::default();
        let deployments: Vec<Deployment> = self.seen("the Deployments of all namespaces", namespaces, &all).await?;
        let mut found: Vec<_> = deployments.iter().filter_map(deployed).collect();
        // One that runs outside of the cluster; the Lease of one that runs inside says nothing new.
        let named = ListParams::default().fields(OPERATOR_LEASE);
        let leases: Vec<Lease> = self.seen("the Leases of all namespaces", namespaces, &named).await?;
        let leading = leases.iter().filter_map(|lease| leading(lease, Timestamp::now()));
        let homes: BTreeSet<String> = found.iter().map(|operator| operator.home.clone()).collect();
        found.extend(leading.filter(|operator| !homes.contains(&operator.home)));
        Ok(found)
    }
}

fn deployed(deployment: &Deployment) -> Option<Operator> {
    let ready = deployment.status.as_ref()?.ready_replicas.filter(|ready| *ready > 0)?;
    let containers = &deployment.spec.as_ref()?.template.spec.as_ref()?.containers;
    let words = containers.iter().flat_map(|one| one.command.iter().flatten().chain(one.args.iter().flatten()));
    let words: Vec<&str> = words.map(String::as_str).collect();
    let labelled = deployment.labels().get(OPERATOR_LABEL.0).is_some_and(|name| name == OPERATOR_LABEL.1);
    if !labelled && !words.iter().any(|word| word.starts_with(OPERATOR_FLAG)) {
        return None;
    }
    let variables = containers.iter().flat_map(|one| one.env.iter().flatten());
    let variable =
        variables.filter(|variable| variable.name == "TOOLZZ_NAMESPACES").find_map(|one| one.value.as_deref());
    let namespaces = named(&words, variable);
    let place = if namespaces.is_empty() { "all namespaces".to_owned() } else { join(&namespaces) };
    let home = deployment.namespace().unwrap_or_default();
    Some(Operator {
        what: format!("Deployment/{home}/{}", deployment.name_any()),
        state: format!("an operator, {ready} ready, works in {place}"),
        home,
        namespaces,
    })
}

/// The namespaces that the arguments of `run` name, or else its environment.
fn named(words: &[&str], variable: Option<&str>) -> BTreeSet<String> {
    let by_flag = words.iter().enumerate().filter_map(|(at, word)| match word.strip_prefix("--namespaces")? {
        "" => words.get(at + 1).copied(),
        list => list.strip_prefix('='),
    });
    let mut lists: Vec<&str> = by_flag.collect();
    if lists.is_empty() {
        lists.extend(variable);
    }
    let names = lists.iter().flat_map(|list| list.split(',')).map(str::trim);
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn leading(lease: &Lease, now: Timestamp) -> Option<Operator> {
    let spec = lease.spec.as_ref()?;
    let holder = spec.holder_identity.as_ref().filter(|holder| !holder.is_empty())?;
    let lasts = SignedDuration::from_secs(spec.lease_duration_seconds?.into());
    let until = spec.renew_time.as_ref()?.0.checked_add(lasts).ok()?;
    let home = lease.namespace().unwrap_or_default();
    (until > now).then(|| Operator {
        what: format!("Lease/{home}/{}", lease.name_any()),
        state: format!("an operator, held by {holder}; where it works is not seen"),
        home,
        namespaces: BTreeSet::new(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_not_known_may_be_there() {
        assert_eq!(any(&[Some(false), Some(true), None]), Some(true));
        assert_eq!(any(&[Some(false), None]), None);
        assert_eq!(any(&[Some(false), Some(false)]), Some(false));
    }

    #[test]
    fn an_operator_is_one_that_is_ready_or_holds_its_lease() {
        let lease = |spec: Value| -> Lease {
            serde_json::from_value(json!({"metadata": {"namespace": "dev", "name": "toolzz-operator"}, "spec": spec}))
                .unwrap()
        };
        let spec = |holder: &str| json!({"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"});
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (then, later) = (at("2026-01-01T00:00:10Z"), at("2026-01-01T00:00:16Z"));
        assert!(leading(&lease(spec("me")), then).is_some_and(|one| one.what == "Lease/dev/toolzz-operator"));
        assert_eq!(leading(&lease(spec("me")), later), None);
        assert_eq!(leading(&lease(spec("")), then), None);
        assert_eq!(leading(&lease(json!({})), then), None);

        let ready = |status: Value| deployed(&deployment("toolzz-operator", json!({}), status));
        assert!(ready(json!({"readyReplicas": 1})).is_some());
        assert_eq!(ready(json!({"readyReplicas": 0})), None);
        assert_eq!(ready(json!({})), None);
    }

    /// A Deployment with this `app.kubernetes.io/name`, and this of its container.
    fn deployment(name: &str, container: Value, status: Value) -> Deployment {
        let mut object = json!({
            "metadata": {"namespace": "toolzz", "name": "op", "labels": {"app.kubernetes.io/name": name}},
            "spec": {"selector": {}, "template": {"spec": {"containers": [{"name": "operator"}]}}},
            "status": status,
        });
        let containers = &mut object["spec"]["template"]["spec"]["containers"];
        containers[0].as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn an_operator_is_known_by_its_arguments_and_works_where_they_say() {
        let seen = |name: &str, container: Value| {
            deployed(&deployment(name, container, json!({"readyReplicas": 1}))).map(|one| join(&one.namespaces))
        };
        let own = "toolzz-operator";
        let by_environment = json!([{"name": "TOOLZZ_NAMESPACES", "value": "ai"}]);
        for (name, container, expected) in [
            (own, json!({}), Some("")),
            (own, json!({"args": ["run", "--namespaces=data,ai"]}), Some("ai, data")),
            (own, json!({"args": ["run", "--namespaces", "ai", "--namespaces=data"]}), Some("ai, data")),
            (own, json!({"command": ["/toolzz-operator", "run", "--namespaces=ai"]}), Some("ai")),
            (own, json!({"args": ["run", "--namespaces="]}), Some("")),
            (own, json!({"args": ["run"], "env": by_environment}), Some("ai")),
            (own, json!({"args": ["run", "--namespaces=data"], "env": by_environment}), Some("data")),
            // By nameOverride.
            ("credentials", json!({"args": ["run", "--namespaces=ai", "--settle-period=45s"]}), Some("ai")),
            ("credentials", json!({"args": ["run", "--namespaces=ai"]}), None),
            ("credentials", json!({}), None),
        ] {
            assert_eq!(seen(name, container.clone()).as_deref(), expected, "{name} {container}");
        }
    }
}
