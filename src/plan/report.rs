//! The status that tells of a verdict.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Desired, Happening, Ledger, Material, Publication, Recorded, Rejection, View};
use crate::api::{
    Class, Conditions, IntegrationStatus, MaterialStatus, Reason, Rejected, RetiringStatus, Tick,
    ToolzzCredentialStatus, condition,
};

/// What there is to say when there is nothing to do.
#[derive(Default)]
pub(super) struct Verdict {
    /// What is wrong; `None`: the remote is as wished.
    pub problem: Option<(Reason, String)>,
    /// The refused request behind the problem.
    pub rejection: Option<Rejection>,
    /// The remote row is as recorded and wished.
    pub committed: bool,
    /// It does not rest on a look: a user's request stays unanswered.
    pub unanswered: bool,
    /// When to look again.
    pub wake: Option<Tick>,
}

/// The status to write; `None` when it already says so.
pub(super) fn report(desired: &Desired, view: &View, verdict: &Verdict) -> Option<Publication> {
    let before = &view.status;
    let mut status = before.clone();
    status.observed_generation = desired.generation;
    status.kind = desired.kind.or(before.kind);
    // Kept until it is overcome or another takes its place: trouble in between must not make the request be sent again.
    if let Some(rejection) = &verdict.rejection {
        status.rejected = Some(Rejected {
            request: rejection.request.clone(),
            reason: rejection.reason.to_string(),
            message: cut(&rejection.message),
        });
    } else if verdict.committed {
        status.rejected = None;
    }
    if !desired.suspended && !verdict.unanswered {
        status.last_handled_reconcile_at = desired.requested.as_deref().map(cut);
    }
    status.create_unknown_since = create_unknown_since(view);
    if let Recorded::Own(ledger) = &view.recorded {
        record(&mut status, desired, view, ledger, verdict.committed);
    }

    let (reason, message) = match &verdict.problem {
        Some((reason, message)) => (*reason, cut(message)),
        None => good(view, &status),
    };
    status.conditions = conditions(view, reason, &message).merge(&before.conditions, desired.generation, view.wall);
    let happened = verdict.committed && !view.memory.corrected.is_empty();
    if happened {
        status.last_sync_time = Some(Time(view.wall));
    }

    let was = condition(&before.conditions, "Ready");
    let news = was.is_none_or(|was| was.reason != reason.as_str() || was.message != message);
    (status != *before)
        .then(|| Publication { status, event: (news || happened).then_some(Happening { reason, note: message }) })
}

/// Since when it is not known what came of a create.
fn create_unknown_since(view: &View) -> Option<Time> {
    let since = view.status.create_unknown_since.clone();
    let told = |unknown: bool| unknown.then(|| since.clone().unwrap_or(Time(view.wall)));
    match (&view.recorded, &view.material) {
        (Recorded::Own(ledger), Material::Read { digest, .. }) if ledger.digest != *digest => {
            told(view.create_unknown())
        }
        // There is nothing to create, whoever has seen to that.
        (Recorded::Own(_), Material::Read { .. } | Material::Unchanged) => None,
        (Recorded::Own(_), Material::Unread | Material::Unusable { .. }) => {
            told(since.is_some() || view.memory.given_up.is_some())
        }
        _ => told(view.create_unknown()),
    }
}

/// What follows from a record and from the row as it is seen.
fn record(status: &mut ToolzzCredentialStatus, desired: &Desired, view: &View, ledger: &Ledger, committed: bool) {
    let replaced = status.id.as_ref() != Some(&ledger.id);
    status.ledger.clone_from(&view.ledger_text);
    status.id = Some(ledger.id.clone());
    if replaced {
        status.virtual_key = None;
    }
    if let Some(seen) = &view.sight.recorded {
        status.secret_id = Some(seen.row.fields.secret_id.clone());
        status.active = Some(seen.row.fields.active);
        // A changed one is published when it is accepted.
        if committed || status.material.is_none() || status.virtual_key.is_none() {
            status.virtual_key = seen.row.virtual_key.clone().or(status.virtual_key.take());
        }
        if let Some(integration) = &seen.row.integration {
            status.kind = status.kind.or(integration.kind);
            status.integration = Some(IntegrationStatus {
                id: Some(desired.integration_id.clone()),
                name: cut(&integration.name),
                slug: cut(&integration.slug),
            });
        }
    }
    if committed
        && let (Material::Read { digest, sources }, Some(observed_generation)) = (&view.material, desired.generation)
        && *digest == ledger.digest
    {
        status.material =
            Some(MaterialStatus { digest: digest.clone(), observed_generation, sources: sources.clone() });
    }
    status.retiring = ledger
        .retiring
        .iter()
        .map(|old| {
            let known = view.status.retiring.iter().find(|one| one.id == old.id).and_then(|one| one.after.clone());
            let starts = || {
                committed.then(|| Time(view.wall + jiff::SignedDuration::try_from(desired.grace).unwrap_or_default()))
            };
            RetiringStatus { id: old.id.clone(), after: known.or_else(starts) }
        })
        .collect();
    if committed {
        // Current, or not asked for: the planner has seen to that before.
        status.target = desired.target.as_ref().and(view.target.clone());
    }
}

/// As much of a text as the schema lets a status hold.
fn cut(text: &str) -> String {
    text.chars().take(1024).collect()
}

/// Which good reason it is: told from what the status said before, so that a crash in between loses nothing.
fn good(view: &View, status: &ToolzzCredentialStatus) -> (Reason, String) {
    let before = &view.status;
    let id = status.id.as_ref().map_or("", |id| id.as_str());
    let standing = condition(&before.conditions, "Ready")
        .filter(|ready| ready.status == "True")
        .and_then(|ready| Some((Reason::from_name(&ready.reason)?, ready.message.clone())))
        .filter(|(reason, _)| reason.class() == Class::Good);
    let as_wished = || format!("credential {id} is at Toolzz as the spec says");
    let digest = |status: &ToolzzCredentialStatus| status.material.as_ref().map(|material| material.digest.clone());
    let adopted = view.recorded.own().is_some_and(|ledger| ledger.adopted.is_some());
    match (digest(before), &before.id) {
        (None, _) if adopted => (Reason::Adopted, format!("credential {id} was taken over and is as the spec says")),
        (None, _) => (Reason::Created, as_wished()),
        (Some(_), Some(old)) if old.as_str() != id => {
            (Reason::Rotated, format!("credential {id} has taken the place of {old}; its virtual key is a new one"))
        }
        (before, _) if before != digest(status) => {
            (Reason::Rotated, format!("credential {id} uses the new key material; its virtual key is unchanged"))
        }
        _ if !view.memory.corrected.is_empty() => {
            (Reason::Updated, format!("credential {id} was put right: {}", view.memory.corrected.join(", ")))
        }
        _ => standing.unwrap_or_else(|| (Reason::InSync, as_wished())),
    }
}

/// The conditions by kstatus rules: `Reconciling` and `Stalled` are there only while they are True.
fn conditions(view: &View, reason: Reason, message: &str) -> Conditions {
    let class = reason.class();
    let stood = condition(&view.status.conditions, "Ready").is_some_and(|ready| ready.status == "True");
    let ready = Some(class == Class::Good || class == Class::Paused && stood);
    let secrets = match &view.material {
        Material::Unusable { reason, message } => (Some(false), reason.to_string(), cut(message)),
        Material::Read { .. } | Material::Unchanged => {
            (Some(true), "Resolved".to_owned(), "every Secret and key is there".to_owned())
        }
        Material::Unread => (None, Reason::Pending.to_string(), "not read yet".to_owned()),
    };
    // What was known of the Secrets stays known while something else is in the way.
    let secrets = match (&secrets.0, condition(&view.status.conditions, "SecretsResolved")) {
        (None, Some(known)) => {
            let status = match known.status.as_str() {
                "True" => Some(true),
                "False" => Some(false),
                _ => None,
            };
            (status, known.reason.clone(), known.message.clone())
        }
        _ => secrets,
    };
    let conditions = Conditions::new()
        .with("Ready", ready, reason, message)
        .with("Synced", ready, reason, message)
        .with("SecretsResolved", secrets.0, secrets.1, secrets.2);
    match class {
        Class::Good | Class::Paused => conditions,
        Class::Waiting => conditions.with("Reconciling", Some(true), reason, message),
        Class::Stalled => conditions.with("Stalled", Some(true), reason, message),
    }
}
