//! Every fault of the Kubernetes API at every effect the operator has there: the end is the same as without, with as
//! many creates.
//!
//! `make kubernetes-faults` goes through all workloads with such effects; `cargo test` through the create and the
//! deletion.

use std::{
    cell::RefCell,
    fmt,
    panic::AssertUnwindSafe,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures::{FutureExt as _, future};
use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::wait::await_condition;
use serde_json::json;
use test_kubeproxy::{Asked, Fault, Operation, Point, Times};
use tokio::sync::Notify;
use toolzz_operator::api::FINALIZER;

use super::{runs::*, support::*, workloads::*};

/// How long what comes and goes stays away. Longer than a first pause between two tries.
const AWAY: Duration = Duration::from_millis(1500);

/// What is in the way, beginning with one effect.
#[derive(Clone, Debug)]
enum Trouble {
    /// So many requests for the effect get this.
    Answer { fault: Fault, times: u64 },
    /// The API server goes away with the request, not yet or already done, and comes back.
    Restart { committed: bool },
    /// No request is allowed for a while, and no watch goes on.
    RightsWithdrawn,
    /// Watches end and cannot begin again for a while: what happens meanwhile is not told.
    WatchGap,
    /// Watches end, and those that follow are told that they are too old: everything is listed again.
    Relist,
    /// The operator sees what it watches as it was so many changes ago.
    Stale { events: usize },
    /// The definition of the resource changes a little: the API server closes all that goes over it and begins anew.
    DefinitionApplied,
}

fn troubles(effect: &Effect) -> Vec<Trouble> {
    let answer = |fault, times| Trouble::Answer { fault, times };
    let mut all = vec![
        answer(Fault::conflict(), 1),
        answer(Fault::conflict(), 4),
        answer(Fault::forbidden(), 2),
        answer(Fault::refused_by_webhook(), 2),
        answer(Fault::internal_error(), 2),
        answer(Fault::too_many_requests(1), 2),
        answer(Fault::reset_before_commit(), 1),
        answer(Fault::reset_after_commit(), 1),
        answer(Fault::timeout_after_commit(), 1),
        answer(Fault::lost_answer(), 1),
        Trouble::Restart { committed: false },
        Trouble::Restart { committed: true },
        Trouble::RightsWithdrawn,
        Trouble::WatchGap,
        Trouble::Relist,
        Trouble::Stale { events: 1 },
        Trouble::Stale { events: 10 },
        Trouble::Stale { events: usize::MAX },
    ];
    if matches!(effect, Effect::Kubernetes { operation: Operation::Create, .. }) {
        all.push(answer(Fault::namespace_terminating(), 1));
    }
    all
}

fn is_watch(asked: &Asked) -> bool {
    asked.operation == Operation::Watch
}

/// Stops the nth request for the effect.
fn hold(lab: &Lab, place: &Place, point: Point) -> test_kubeproxy::Gate {
    lab.proxy().hold_next(1, nth(place), point)
}

/// Meets the nth request for the effect and those after it.
fn nth(place: &Place) -> impl Fn(&Asked) -> bool + Send + Sync + 'static {
    let (effect, nth, seen) = (place.effect.clone(), place.nth, AtomicUsize::new(0));
    move |asked| {
        Effect::of_kubernetes(asked).as_ref() == Some(&effect) && seen.fetch_add(1, Ordering::Relaxed) + 1 >= nth
    }
}

/// Makes the trouble when the effect comes.
async fn trouble(lab: &Lab, place: &Place, trouble: &Trouble, done: &Notify) {
    let proxy = lab.proxy();
    if let Trouble::Answer { fault, times } = trouble {
        let rule = proxy.fault(nth(place), Times::Next(*times), fault.clone());
        proxy.until(move |state| state.hits(rule) >= 1).await;
        if matches!(fault.code(), Some(403 | 422)) && place.effect.writes_to("configmaps") {
            // Rights are given, and policies change, without a word to the operator: it tries again in a minute, or when
            // it is told.
            lab.until_reason(NAME, "TargetConflict").await;
            proxy.remove_fault(rule);
            lab.annotate(NAME, "toolzz.com.br/reconcile-requested-at", "now").await;
        }
        return;
    }
    let point = match trouble {
        Trouble::Restart { committed: true } => Point::Committed,
        _ => Point::BeforeSent,
    };
    let gate = hold(lab, place, point);
    gate.until_held(1).await;
    match trouble {
        Trouble::Answer { .. } => {}
        Trouble::Restart { .. } => {
            proxy.go_down();
            gate.discard();
            tokio::time::sleep(AWAY).await;
            proxy.come_up().unwrap();
        }
        Trouble::RightsWithdrawn => {
            let rule = proxy.fault(|asked| asked.operation != Operation::Other, Times::Always, Fault::forbidden());
            proxy.cut_watches(is_watch);
            gate.discard();
            tokio::time::sleep(AWAY).await;
            proxy.remove_fault(rule);
        }
        Trouble::WatchGap => {
            let away = proxy.hold(is_watch, Point::BeforeSent);
            proxy.cut_watches(is_watch);
            gate.release();
            tokio::time::sleep(AWAY).await;
            away.discard();
        }
        Trouble::Relist => {
            let watches = proxy.read(|state| state.watches(is_watch)) as u64;
            proxy.fault(is_watch, Times::Next(watches), Fault::expired());
            proxy.cut_watches(is_watch);
            gate.release();
        }
        Trouble::DefinitionApplied => {
            let description = format!("the reason, told of {}", lab.namespace);
            let patch = json!([{
                "op": "add", "path": "/spec/versions/0/additionalPrinterColumns/1/description", "value": description,
            }]);
            let definition = "toolzzcredentials.toolzz.com.br";
            let patch = ["patch", "crd", definition, "--type=json", "-p", &patch.to_string()];
            assert!(lab.plane.kubectl(patch).stdout(std::process::Stdio::null()).status().unwrap().success());
            gate.release();
        }
        Trouble::Stale { events } => {
            let lag = proxy.lag(is_watch, *events);
            gate.release();
            tokio::select! {
                () = done.notified() => {}
                () = tokio::time::sleep(2 * AWAY) => {}
            }
            drop(lag);
        }
    }
}

struct Run {
    workload: Workload,
    place: Place,
    trouble: Trouble,
}

impl fmt::Display for Run {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}, {}, {:?}", self.workload, self.place, self.trouble)
    }
}

async fn run(run: &Run, mut lab: Lab, expected: &EndState) -> Result<(), Failure> {
    let done = Notify::new();
    // The rule or the gate is there before the operator begins.
    let mut trouble = Box::pin(trouble(&lab, &run.place, &run.trouble, &done));
    let _ = futures::poll!(&mut trouble);
    let first = match lab.operator.as_ref() {
        Some(_) => None,
        None => Some(lab.another_operator()),
    };
    let operator = RefCell::new(first);
    let user = AssertUnwindSafe(async {
        run.workload.act(&lab).await;
        done.notify_one();
    })
    .catch_unwind();
    // As the kubelet does.
    let keep = async {
        loop {
            if operator.borrow_mut().as_mut().is_some_and(Operator::has_ended) {
                *operator.borrow_mut() = Some(lab.another_operator());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(PATIENCE, future::join(user, trouble)) => outcome,
        () = keep => unreachable!("the operator is kept for ever"),
    };
    match outcome {
        Err(_) => return Err(Failure::stuck(&lab.log())),
        Ok((Err(panic), ())) => return Err(Failure::of_panic(&*panic)),
        Ok((Ok(()), ())) => {}
    }
    if let Some(operator) = operator.into_inner() {
        lab.operator = Some(operator);
    }
    until_fits(&lab, expected).await?;
    let updates = lab.simulator.puts();
    if matches!(run.trouble, Trouble::Stale { .. }) && updates > expected.updates {
        let text = format!("{updates} updates, not {}: it went by what it knew before", expected.updates);
        return Err(Failure { kind: Kind::Duplicate, text: format!("{text}\n{}", tail(&lab.log())) });
    }
    Ok(())
}

#[tokio::test]
async fn no_fault_of_the_kubernetes_api_changes_the_end() {
    use Workload::{CreateTarget, Delete};
    let workloads = chosen("TOOLZZ_KUBERNETES_FAULTS", &[CreateTarget, Delete]);
    let references = references(&workloads).await;
    let runs = runs(&references, troubles);
    let work = async |one: &Run| run(one, one.workload.prepare().await, end_of(&references, one.workload)).await;
    run_all("faults of the Kubernetes API", workloads.len(), runs, work).await;
}

/// Each of these troubles at each effect on Kubernetes.
fn runs(references: &[(Workload, Vec<Place>, EndState)], troubles: impl Fn(&Effect) -> Vec<Trouble>) -> Vec<Run> {
    let mut runs = Vec::new();
    for (workload, places, _) in references {
        for place in places.iter().filter(|place| !matches!(place.effect, Effect::Remote(_))) {
            let of = |trouble| Run { workload: *workload, place: place.clone(), trouble };
            runs.extend(troubles(&place.effect).into_iter().map(of));
        }
    }
    runs
}

#[tokio::test]
async fn a_definition_that_is_applied_anew_at_any_effect_changes_nothing() {
    use Workload::{CreateTarget, Delete, Repoint};
    let workloads = [CreateTarget, Repoint, Delete];
    let references = references(&workloads).await;
    // A control plane of its own: the watches of every other test would end too.
    let plane = plane_of_ones_own().await;
    let work = async |one: &Run| {
        let lab = one.workload.prepare_in(Lab::on(plane, "defined").await, &[]).await;
        run(one, lab, end_of(&references, one.workload)).await
    };
    let runs = runs(&references, |_| vec![Trouble::DefinitionApplied]);
    run_all("definitions applied anew", workloads.len(), runs, work).await;
}

#[tokio::test]
async fn a_namespace_that_goes_at_any_effect_leaves_nothing_active() {
    let references = references(&[Workload::CreateTarget]).await;
    let works_in_it =
        |place: &&Place| matches!(place.effect, Effect::Kubernetes { .. }) && !place.effect.writes_to("secrets");
    let goes = async |place: &Place| {
        let mut lab = Workload::CreateTarget.prepare().await;
        let tenant = lab.plane.unique_namespace("tenant").await.unwrap();
        lab.flags.push(format!("--namespaces={tenant}"));
        let gate = hold(&lab, place, Point::BeforeSent);
        lab.start_operator();
        lab.namespace = tenant.clone();
        lab.credential_with(NAME, json!({"target": {"kind": "ConfigMap", "name": "out"}})).await;
        gate.until_held(1).await;
        let namespaces: kube::Api<Namespace> = kube::Api::all(lab.client.clone());
        namespaces.delete(&tenant, &Default::default()).await.unwrap();
        let terminates = |namespace: Option<&Namespace>| {
            namespace.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
        };
        await_condition(namespaces.clone(), &tenant, terminates).await.unwrap();
        gate.release();
        let gone = await_condition(namespaces, &tenant, |namespace: Option<&Namespace>| namespace.is_none());
        tokio::time::timeout(PATIENCE, gone).await.unwrap_or_else(|_| panic!("{place}: {}", tail(&lab.log()))).unwrap();
        // What went before its finalizer came is deactivated after it.
        let none = lab.simulator.until(|state| state.credentials().iter().all(|one| !one.is_active()));
        tokio::time::timeout(PATIENCE, none).await.unwrap_or_else(|_| panic!("{place}: {}", tail(&lab.log())));
        assert_eq!(lab.simulator.counts(toolzz_simulator::Operation::Create).committed, 1, "{place}");
    };
    future::join_all(references[0].1.iter().filter(works_in_it).map(goes)).await;
}

/// Stops the operator's next PATCH of the resource itself.
fn hold_patch(lab: &Lab) -> test_kubeproxy::Gate {
    let patch = |asked: &Asked| {
        asked.operation == Operation::Patch && asked.resource == "toolzzcredentials" && asked.subresource.is_none()
    };
    lab.proxy().hold_next(1, patch, Point::BeforeSent)
}

#[tokio::test]
async fn what_another_writes_in_between_stays() {
    const OTHER: &str = "example.com/other";
    let mut lab = Lab::empty("between").await;
    lab.use_proxy().await;
    let record = hold_patch(&lab);
    lab.start_operator();
    lab.credential(NAME).await;
    held_at(&record).await;
    lab.set_finalizers(NAME, &[OTHER]).await;
    record.release();
    lab.until_ready(NAME).await;
    let object = lab.api().get(NAME).await.unwrap();
    assert_eq!(object.metadata.finalizers.unwrap(), [OTHER, FINALIZER], "added while the record was on its way");

    let release = hold_patch(&lab);
    lab.delete(NAME).await;
    held_at(&release).await;
    lab.set_finalizers(NAME, &[FINALIZER]).await;
    release.release();
    lab.until_gone(NAME).await;
    assert_eq!(lab.simulator.counts(toolzz_simulator::Operation::Create).committed, 1);
    lab.assert_no_leak().await;
}

async fn held_at(gate: &test_kubeproxy::Gate) {
    tokio::time::timeout(PATIENCE, gate.until_held(1)).await.expect("nothing comes to the gate");
}
