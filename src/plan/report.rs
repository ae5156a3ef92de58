//! The status that tells of a verdict.

use super::{Desired, Happening, Material, Publication, Recorded, Rejection, View};
use crate::api::{
    Class, Conditions, IntegrationStatus, MaterialStatus, Reason, Rejected, Tick, ToolzzCredentialStatus, condition,
};

/// What there is to say when there is nothing to do.
pub(super) struct Verdict {
    /// What is wrong; `None`: the remote is as wished.
    pub problem: Option<(Reason, String)>,
    /// The refused request behind the problem.
    pub rejection: Option<Rejection>,
    /// When to look again.
    pub wake: Option<Tick>,
}

/// The status to write; `None` when it already says so.
pub(super) fn report(desired: &Desired, view: &View, verdict: &Verdict) -> Option<Publication> {
    let before = &view.status;
    let mut status = before.clone();
    status.observed_generation = desired.generation;
    status.kind = desired.kind.or(before.kind);
    status.rejected = verdict.rejection.as_ref().map(|rejection| Rejected {
        request: rejection.request.clone(),
        reason: rejection.reason.to_string(),
        message: rejection.message.clone(),
    });
    if let Recorded::Own(ledger) = &view.recorded {
        status.ledger.clone_from(&view.ledger_text);
        status.id = Some(ledger.id.clone());
        if let Some(seen) = &view.sight.recorded {
            status.secret_id = Some(seen.row.fields.secret_id.clone());
            status.active = Some(seen.row.fields.active);
            if seen.row.virtual_key.is_some() {
                status.virtual_key.clone_from(&seen.row.virtual_key);
            }
            if let Some(integration) = &seen.row.integration {
                status.integration =
                    Some(IntegrationStatus { name: integration.name.clone(), slug: integration.slug.clone() });
            }
        }
        if let (Material::Read { digest, sources }, Some(observed_generation)) = (&view.material, desired.generation)
            && *digest == ledger.digest
        {
            status.material =
                Some(MaterialStatus { digest: digest.clone(), observed_generation, sources: sources.clone() });
        }
    }

    let (reason, message) = match &verdict.problem {
        Some((reason, message)) => (*reason, message.clone()),
        None => good(view, &status),
    };
    let class = reason.class();
    status.conditions = conditions(view, reason, &message).merge(&before.conditions, desired.generation, view.wall);
    if !view.memory.corrected.is_empty() {
        status.last_sync_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(view.wall));
    }

    let was = condition(&before.conditions, "Ready");
    let news = was.is_none_or(|was| was.reason != reason.as_str() || was.message != message);
    let happened = class == Class::Good && !view.memory.corrected.is_empty();
    (status != *before)
        .then(|| Publication { status, event: (news || happened).then_some(Happening { reason, note: message }) })
}

/// Which good reason it is: told from what the status said before, so that a crash in between loses nothing.
fn good(view: &View, status: &ToolzzCredentialStatus) -> (Reason, String) {
    let before = &view.status;
    let id = status.id.as_ref().map_or("", |id| id.as_str());
    let standing = condition(&before.conditions, "Ready")
        .filter(|ready| ready.status == "True")
        .and_then(|ready| Some((Reason::from_name(&ready.reason)?, ready.message.clone())));
    if before.id != status.id || before.virtual_key.is_none() && before.secret_id.is_none() {
        (Reason::Created, format!("credential {id} is at Toolzz as the spec says"))
    } else if before.secret_id != status.secret_id {
        (Reason::Rotated, format!("credential {id} uses the new key material; its virtual key is unchanged"))
    } else if !view.memory.corrected.is_empty() {
        (Reason::Updated, format!("credential {id} was put right: {}", view.memory.corrected.join(", ")))
    } else {
        standing.unwrap_or_else(|| (Reason::InSync, format!("credential {id} is at Toolzz as the spec says")))
    }
}

/// The conditions by kstatus rules: `Reconciling` and `Stalled` are there only while they are True.
fn conditions(view: &View, reason: Reason, message: &str) -> Conditions {
    let class = reason.class();
    let good = class == Class::Good;
    let secrets = match &view.material {
        Material::Unusable { reason, message } => (Some(false), reason.to_string(), message.clone()),
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
        .with("Ready", Some(good), reason, message)
        .with("Synced", Some(good), reason, message)
        .with("SecretsResolved", secrets.0, secrets.1, secrets.2);
    match class {
        Class::Good => conditions,
        Class::Waiting => conditions.with("Reconciling", Some(true), reason, message),
        Class::Stalled => conditions.with("Stalled", Some(true), reason, message),
    }
}
