//! Every fault of the Kubernetes API at every effect of the operator: the end is the same as without, with as many
//! creates.
//!
//! `make kubernetes-faults` goes through all workloads; `cargo test` through the create and the deletion.

use std::{
    cell::RefCell,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use k8s_openapi::{
    api::{authorization::v1::SubjectAccessReview, core::v1::Namespace, rbac::v1::RoleBinding},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
    runtime::wait::await_condition,
};
use serde_json::json;
use test_kubeproxy::{Asked, Fault, Operation, Point, Proxy, Times};
use toolzz_operator::api::FINALIZER;

use super::{chart::as_chart, runs::*, support::*, workloads::*};

/// How long what comes and goes stays away. Longer than a first pause between two tries.
const AWAY: Duration = Duration::from_millis(1500);
/// By so many changes a cache may be behind, beside by one and by all.
const SOME: usize = 10;

/// What is in the way, beginning with one effect.
#[derive(Clone, Debug)]
enum Trouble {
    /// So many requests for the effect get this.
    Answer { fault: Fault, times: u64 },
    /// The API server goes away with the request, not yet or already done, and comes back.
    Restart { committed: bool },
    /// No request is allowed for a while, beginning with this one, and no watch goes on.
    RightsWithdrawn,
    /// The API server itself withdraws the rights: the binding of the role is deleted, and put back.
    BindingDeleted,
    /// Watches end and cannot begin again for a while: what happens meanwhile is not told.
    WatchGap,
    /// Watches end, and those that follow are told that they are too old, by their first event or by a 410: everything is
    /// listed again.
    Relist { gone: bool },
    /// The operator sees what it watches as it was so many changes ago, until it has come to rest with it.
    Stale { events: usize },
    /// The definition of the resource changes a little: the API server closes all that goes over it and begins anew.
    DefinitionApplied,
}

impl Trouble {
    /// Whether the operator's process may end of it, to be started again.
    fn may_end_process(&self) -> bool {
        matches!(self, Self::Restart { .. } | Self::RightsWithdrawn | Self::BindingDeleted | Self::Answer { .. })
    }
}

fn troubles(effect: &Effect) -> Vec<Trouble> {
    let answer = |fault, times| Trouble::Answer { fault, times };
    let mut all = vec![
        Trouble::Restart { committed: false },
        Trouble::Restart { committed: true },
        Trouble::RightsWithdrawn,
        Trouble::WatchGap,
        Trouble::Relist { gone: false },
        Trouble::Relist { gone: true },
        Trouble::Stale { events: 1 },
        Trouble::Stale { events: SOME },
        Trouble::Stale { events: usize::MAX },
    ];
    // The operator's own Secret is made before it watches anything.
    if effect.writes_to("secrets") {
        all.retain(|trouble| !matches!(trouble, Trouble::WatchGap | Trouble::Relist { .. }));
    }
    let Effect::Kubernetes { operation, .. } = effect else { return all };
    all.extend([
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
    ]);
    if *operation == Operation::Create {
        all.push(answer(Fault::namespace_terminating(), 1));
    }
    all
}

/// The first watch begins after the first list, and so may the first pass.
async fn until_watched(proxy: &Proxy) {
    proxy.until(|state| state.watches(is_watch) > 0).await;
}

fn is_watch(asked: &Asked) -> bool {
    asked.operation == Operation::Watch
}

/// Meets the nth request for the effect and those after it.
fn nth(place: &Place) -> impl Fn(&Asked) -> bool + Send + Sync + 'static {
    let (effect, nth, seen) = (place.effect.clone(), place.nth, AtomicUsize::new(0));
    move |asked| {
        Effect::of_kubernetes(asked).as_ref() == Some(&effect) && seen.fetch_add(1, Ordering::Relaxed) + 1 >= nth
    }
}

/// Rights are given, and policies change, without a word to the operator: of a target it tries again in a minute, or when
/// it is told.
async fn tell_of_rights(lab: &Lab, place: &Place) {
    if place.effect.writes_to("configmaps") {
        lab.annotate(NAME, "toolzz.com.br/reconcile-requested-at", "now").await;
    }
}

/// Makes the trouble when the effect comes.
async fn trouble(lab: &Lab, run: &Run<Trouble>, course: &Course) -> Result<(), Failure> {
    let (proxy, Run { place, what: trouble, .. }) = (lab.proxy(), run);
    if let Trouble::Answer { fault, times } = trouble {
        let rule = proxy.fault(nth(place), Times::Next(*times), fault.clone());
        // What is refused for a target is not tried again before it is told.
        let told = matches!(fault.code(), Some(403 | 422)) && place.effect.writes_to("configmaps");
        let times = if told { 1 } else { *times };
        course.until_met(lab, proxy.until(move |state| state.hits(rule) >= times)).await?;
        if told {
            lab.until_reason(NAME, "TargetConflict").await;
            proxy.remove_fault(rule);
            tell_of_rights(lab, place).await;
        }
        return Ok(());
    }
    let refused = matches!(trouble, Trouble::RightsWithdrawn)
        .then(|| proxy.fault(nth(place), Times::Next(1), Fault::forbidden()));
    let gate = Gate::new(lab, place, !matches!(trouble, Trouble::Restart { committed: true }));
    course.until_nth(lab, &gate, place.nth).await?;
    let missed = |what: &str| Err(Failure::missed(what, lab));
    match trouble {
        Trouble::Answer { .. } => {}
        Trouble::Restart { .. } => {
            proxy.go_down();
            match gate {
                // Toolzz is not away.
                Gate::Remote(gate) => drop(gate),
                gate => gate.discard(),
            }
            tokio::time::sleep(AWAY).await;
            proxy.come_up();
        }
        Trouble::RightsWithdrawn => {
            let rule = proxy.fault(|asked| asked.operation != Operation::Other, Times::Always, Fault::forbidden());
            pass_and_be_forbidden(lab, place, gate).await?;
            // A process that had to end is started anew first.
            proxy.until(move |state| state.hits(rule) > 0).await;
            refused.into_iter().chain([rule]).for_each(|rule| proxy.remove_fault(rule));
            tell_of_rights(lab, place).await;
        }
        Trouble::BindingDeleted => {
            let api: Api<RoleBinding> = Api::namespaced(lab.client.clone(), &lab.namespace);
            let bindings = api.list(&ListParams::default()).await.unwrap().items;
            api.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
            until_may(lab, false).await;
            pass_and_be_forbidden(lab, place, gate).await?;
            for mut binding in bindings {
                let ObjectMeta { name, labels, .. } = std::mem::take(&mut binding.metadata);
                binding.metadata = ObjectMeta { name, labels, ..ObjectMeta::default() };
                api.create(&PostParams::default(), &binding).await.unwrap();
            }
            until_may(lab, true).await;
            tell_of_rights(lab, place).await;
        }
        Trouble::WatchGap => {
            until_watched(proxy).await;
            let away = proxy.hold(is_watch, Point::BeforeSent);
            if proxy.cut_watches(is_watch) == 0 {
                return missed("there was no watch");
            }
            drop(gate);
            away.until_held(1).await;
            tokio::time::sleep(AWAY).await;
            away.discard();
        }
        Trouble::Relist { gone } => {
            until_watched(proxy).await;
            let watches = proxy.read(|state| state.watches(is_watch)) as u64;
            let fault = if *gone { Fault::gone() } else { Fault::expired() };
            let rule = proxy.fault(is_watch, Times::Next(watches), fault);
            let cut = proxy.cut_watches(is_watch) as u64;
            drop(gate);
            if cut == 0 || watches < cut {
                return missed("there was no watch");
            }
            proxy.until(move |state| state.hits(rule) >= cut).await;
        }
        Trouble::DefinitionApplied => {
            let of_definition = |asked: &Asked| asked.is_watch_on("toolzzcredentials");
            let asked = |state: &test_kubeproxy::State| {
                state.journal().iter().filter(|entry| of_definition(&entry.asked)).count()
            };
            let before = proxy.read(asked);
            let description = format!("the reason, told of {}", lab.namespace);
            let patch = json!([{
                "op": "add", "path": "/spec/versions/0/additionalPrinterColumns/1/description", "value": description,
            }]);
            let api: Api<CustomResourceDefinition> = Api::all(lab.client.clone());
            let patch = Patch::<()>::Json(serde_json::from_value(patch).unwrap());
            let params = PatchParams::default();
            let applied = api.patch("toolzzcredentials.toolzz.com.br", &params, &patch);
            // However long the API server takes: what Toolzz gets is there within the settle period.
            let passed = async {
                tokio::time::sleep(AWAY).await;
                drop(gate);
            };
            tokio::join!(applied, passed).0.unwrap();
            // Its watch was cut, so it began another.
            proxy.until(move |state| asked(state) > before).await;
        }
        Trouble::Stale { events } => {
            let lag = proxy.lag(is_watch, *events);
            // What the operator does comes behind these, and moves the cache on, but not to where it is.
            let mut touched = Box::pin(async {
                if *events == SOME
                    && touch(lab, SOME + 2).await
                    && proxy.read(|state| state.watches(of_credentials)) > 0
                {
                    proxy.until(|state| state.held_back() >= SOME).await;
                }
            });
            // However long the API server takes: what Toolzz gets is there before its time limit.
            let in_time = tokio::time::timeout(AWAY, &mut touched).await.is_ok();
            drop(gate);
            if !in_time {
                touched.await;
            }
            // It goes on by what it knows until that leads nowhere.
            proxy.until(|state| state.held_back() > 0).await;
            until_at_rest(lab).await;
            drop(lag);
        }
    }
    Ok(())
}

/// Changes that ask for nothing: a workload has too few of its own to tell some from all. Whether there was anything to
/// change.
async fn touch(lab: &Lab, times: usize) -> bool {
    let api = lab.api();
    let names: Vec<String> =
        api.list(&ListParams::default()).await.unwrap().into_iter().filter_map(|object| object.metadata.name).collect();
    for name in &names {
        for time in 0..times {
            let label = Patch::Merge(json!({"metadata": {"labels": {"touched": time.to_string()}}}));
            api.patch_metadata(name, &PatchParams::default(), &label).await.unwrap();
        }
    }
    !names.is_empty()
}

fn of_credentials(asked: &Asked) -> bool {
    is_watch(asked) && asked.resource == "toolzzcredentials"
}

/// Lets the request at the gate go on where nothing is allowed any more, and keeps it so for a while.
async fn pass_and_be_forbidden(lab: &Lab, place: &Place, gate: Gate) -> Result<(), Failure> {
    lab.proxy().cut_watches(is_watch);
    let request = Request::in_hand(lab, &place.effect);
    drop(gate);
    let status = request.until_over().await.status;
    if matches!(place.effect, Effect::Kubernetes { .. }) && status != Some(403) {
        return Err(Failure::missed(&format!("the request was answered {status:?}"), lab));
    }
    tokio::time::sleep(AWAY).await;
    Ok(())
}

/// Waits until the API server allows the operator's account its writes, or no longer does. It learns of one binding after
/// the other.
async fn until_may(lab: &Lab, may: bool) {
    let api: Api<SubjectAccessReview> = Api::all(lab.client.clone());
    for (verb, group, resource) in [("patch", "toolzz.com.br", "toolzzcredentials"), ("create", "", "secrets")] {
        let spec = json!({
            "user": format!("system:serviceaccount:{}:op-toolzz-operator", lab.namespace),
            "resourceAttributes": {
                "namespace": lab.namespace, "verb": verb, "group": group, "resource": resource,
            },
        });
        let review: SubjectAccessReview = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        while api.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed != may {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn run(run: &Run<Trouble>, mut lab: Lab, expected: &EndState) -> Result<usize, Failure> {
    let course = Course::default();
    let operator = RefCell::new(lab.operator.take());
    // The rule or the gate is there before the operator begins.
    let mut trouble = Box::pin(trouble(&lab, run, &course));
    assert!(futures::poll!(&mut trouble).is_pending());
    operator.borrow_mut().get_or_insert_with(|| lab.another_operator());
    // As the kubelet does.
    let keep = async {
        loop {
            let ended = operator.borrow_mut().as_mut().and_then(Operator::ended);
            if let Some(status) = ended {
                // 1 is the operator's word that it cannot go on; a panic has another.
                if status.code() != Some(1) || !run.what.may_end_process() {
                    return Failure::stuck(&format!("the operator ended: {status}\n{}", tail(&lab.log())));
                }
                *operator.borrow_mut() = Some(lab.another_operator());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        outcome = course.run(&lab, run.workload, trouble) => outcome?,
        failure = keep => return Err(failure),
    }
    lab.operator = operator.into_inner();
    let strays = until_fits(&lab, run.workload, expected, &[]).await?;
    let updates = lab.simulator.puts();
    if matches!(run.what, Trouble::Stale { .. }) && updates > expected.updates {
        let text = format!("{updates} updates, not {}: it went by what it knew before", expected.updates);
        return Err(Failure { kind: Kind::Duplicate, text: format!("{text}\n{}", tail(&lab.log())) });
    }
    Ok(strays)
}

#[tokio::test]
async fn no_fault_of_the_kubernetes_api_changes_the_end() {
    let _turn = turn().await;
    use Workload::{CreateTarget, Delete};
    let workloads = chosen("TOOLZZ_KUBERNETES_FAULTS", &[CreateTarget, Delete]);
    let references = references(&workloads).await;
    let runs = everywhere(&references, troubles);
    let work =
        async |one: &Run<Trouble>| run(one, one.workload.prepare().await, end_of(&references, one.workload)).await;
    run_all("faults of the Kubernetes API", runs, work).await;
}

#[tokio::test]
async fn a_definition_that_is_applied_anew_at_any_effect_changes_nothing() {
    let _turn = turn().await;
    use Workload::{AdoptByName, CreateTarget, Delete, DropTarget, Replace, Repoint};
    let references = references(&[CreateTarget, Repoint, Replace, AdoptByName, DropTarget, Delete]).await;
    // A control plane of its own: the watches of every other test would end too.
    let plane = plane_of_ones_own().await;
    let work = async |one: &Run<Trouble>| {
        let lab = one.workload.prepare_in(Lab::on(plane.clone(), "defined").await, &[]).await;
        run(one, lab, end_of(&references, one.workload)).await
    };
    let mut runs = everywhere(&references, |_| vec![Trouble::DefinitionApplied]);
    // Made before anything is watched.
    runs.retain(|run| !run.place.effect.writes_to("secrets"));
    run_all("definitions applied anew", runs, work).await;
}

#[tokio::test]
async fn rights_that_the_api_server_withdraws_at_any_effect_and_gives_back_change_nothing() {
    let _turn = turn().await;
    let references = references(&[Workload::Create]).await;
    let work = async |one: &Run<Trouble>| {
        let mut lab = Lab::empty("rights").await;
        // The account, its role and the binding are the chart's; the process is like that of every other run.
        drop(as_chart(&lab, &format!("scope=namespaces,namespaces={{{}}}", lab.namespace)).await);
        lab.identity = lab.plane.service_account_kubeconfig(&lab.namespace, "op-toolzz-operator").await.unwrap();
        let lab = one.workload.prepare_in(lab, &[]).await;
        run(one, lab, end_of(&references, one.workload)).await
    };
    run_all("rights withdrawn", everywhere(&references, |_| vec![Trouble::BindingDeleted]), work).await;
}

#[tokio::test]
async fn a_namespace_that_goes_at_any_effect_leaves_nothing_active() {
    let _turn = turn().await;
    use Workload::{Create, CreateTarget, Replace};
    let references = references(&[Create, CreateTarget, Replace]).await;
    // The operator's own Secret is in another namespace.
    let works_in_it =
        |run: &Run<()>| matches!(run.place.effect, Effect::Kubernetes { .. }) && !run.place.effect.writes_to("secrets");
    let goes = async |run: &Run<()>| {
        let Run { workload, place, .. } = run;
        let mut lab = Create.prepare().await;
        let tenant = lab.plane.unique_namespace("tenant").await.unwrap();
        lab.flags.push(format!("--namespaces={tenant}"));
        let created = async |lab: &Lab| lab.credential_with(NAME, workload.spec()).await;
        let mut gate = (*workload != Replace).then(|| Gate::new(&lab, place, true));
        lab.start_operator();
        let home = std::mem::replace(&mut lab.namespace, tenant.clone());
        created(&lab).await;
        if *workload == Replace {
            lab.until_ready(NAME).await;
            until_at_rest(&lab).await;
            gate = Some(Gate::new(&lab, place, true));
            lab.rotate(NAME, "new").await;
        }
        let gate = gate.unwrap();
        let held = tokio::time::timeout(PATIENCE, gate.until_nth(place.nth)).await;
        held.map_err(|_| Failure::missed("it never came", &lab))?;
        let namespaces: Api<Namespace> = Api::all(lab.client.clone());
        namespaces.delete(&tenant, &Default::default()).await.unwrap();
        let terminates = |namespace: Option<&Namespace>| {
            namespace.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
        };
        await_condition(namespaces.clone(), &tenant, terminates).await.unwrap();
        drop(gate);
        let gone = await_condition(namespaces, &tenant, |namespace: Option<&Namespace>| namespace.is_none());
        let gone = tokio::time::timeout(PATIENCE, gone).await;
        gone.map_err(|_| Failure::stuck(&lab.log()))?.unwrap();
        // What went before its finalizer came is deactivated after it.
        let none = lab.simulator.until(|state| state.credentials().iter().all(|one| !one.is_active()));
        tokio::time::timeout(PATIENCE, none).await.map_err(|_| Failure::stuck(&lab.log()))?;
        until_at_rest(&lab).await;
        let (all, creates) = (lab.simulator.credentials(), lab.simulator.counts(toolzz_simulator::Operation::Create));
        let expected = end_of(&references, *workload).creates;
        if all.iter().any(toolzz_simulator::Credential::is_active) || creates.committed > expected {
            let text = format!("{all:#?}\n{}", tail(&lab.log()));
            return Err(Failure { kind: Kind::Duplicate, text });
        }
        // Of the namespace that is gone nothing is left to search.
        lab.namespace = home;
        lab.assert_no_leak().await;
        Ok(0)
    };
    let mut runs = everywhere(&references, |_| vec![()]);
    runs.retain(works_in_it);
    run_all("namespaces that go", runs, goes).await;
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
