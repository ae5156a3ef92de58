//! Key material against the form of its integration: what Toolzz would refuse, or silently not use.

use thiserror::Error;

use super::Material;
use crate::api::{FormField, Integration};

/// What does not fit, field by field. Names and lengths only.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", .0.join("; "))]
pub struct Unfit(Vec<String>);

/// How many misfits are told: a spec can have hundreds, and each names the whole form.
const MOST_TOLD: usize = 16;

/// Checks material against the form, where the integration has one. A required field must stand in at least one item.
///
/// # Errors
/// Everything that does not fit, at once, as far as anybody can read that.
pub fn validate(integration: &Integration, material: &Material) -> Result<(), Unfit> {
    if integration.form.is_empty() {
        return Ok(());
    }
    let known = |name: &str| integration.form.iter().find(|field| field.name == name);
    let mut unfit = Vec::new();
    for (item, name, length) in material.fields() {
        if unfit.len() == MOST_TOLD {
            break;
        }
        let path = format!("spec.credentials[{item}].{name}");
        match known(name) {
            None => {
                let names: Vec<&str> = integration.form.iter().map(|field| field.name.as_str()).collect();
                unfit.push(format!("{path}: {} has no such field; it has: {}", integration.name, names.join(", ")));
            }
            Some(FormField { max_length: Some(most), .. }) if length > *most => {
                unfit.push(format!(
                    "{path}: the value has {length} characters; {} takes at most {most}",
                    integration.name
                ));
            }
            Some(_) => {}
        }
    }
    for field in integration.form.iter().filter(|field| field.required) {
        if !material.fields().any(|(_, name, _)| name == field.name) {
            unfit.push(format!("spec.credentials: {} needs the field {}", integration.name, field.name));
        }
    }
    if unfit.is_empty() { Ok(()) } else { Err(Unfit(unfit)) }
}

#[cfg(test)]
mod tests {
    use super::{super::material::tests::material, *};

    fn twilio(form: &[(&str, Option<usize>, bool)]) -> Integration {
        let field = |(name, max_length, required): &(&str, Option<usize>, bool)| FormField {
            name: (*name).into(),
            max_length: *max_length,
            required: *required,
        };
        Integration {
            id: "i".into(),
            name: "Twilio".into(),
            slug: "twilio".into(),
            kind: None,
            form: form.iter().map(field).collect(),
        }
    }

    #[test]
    fn says_everything_that_does_not_fit_without_a_value() {
        let form = twilio(&[("sid", Some(4), true), ("token", None, true), ("note", None, false)]);
        for (items, says) in [
            (vec![vec![("sid", "1234"), ("token", "t")]], vec![]),
            (vec![vec![("sid", "äöüß")], vec![("token", "t")]], vec![]),
            (vec![vec![("sid", "canary"), ("token", "t")]], vec!["credentials[0].sid: the value has 6 characters"]),
            (vec![vec![("sid", "1")]], vec!["needs the field token"]),
            (
                vec![vec![("sdi", "1"), ("token", "t")]],
                vec!["[0].sdi: Twilio has no such field; it has: sid, token, note", "needs the field sid"],
            ),
        ] {
            let items: Vec<&[(&str, &str)]> = items.iter().map(Vec::as_slice).collect();
            let text = validate(&form, &material(&items)).err().map(|unfit| unfit.to_string()).unwrap_or_default();
            assert_eq!(text.is_empty(), says.is_empty(), "{text}");
            assert!(says.iter().all(|part| text.contains(part)), "{text}");
            assert!(!text.contains("canary"));
        }
        let many: Vec<String> = (0..100).map(|number| format!("f{number}")).collect();
        let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "x")).collect();
        let text = validate(&form, &material(&[many.as_slice()])).unwrap_err().to_string();
        assert_eq!(text.matches("no such field").count(), MOST_TOLD);
        assert!(validate(&twilio(&[]), &material(&[&[("any", "x")]])).is_ok(), "no form, no rule");
    }
}
