//! The integrations the simulator offers, with the oddities the real catalogue shows.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use uuid::Uuid;

/// OpenAI: type `llm`, one required field `api_key`, at most 200 characters (`maxLenght` is a string).
pub const OPENAI: Uuid = Uuid::from_u128(0x9a77_0001_0000_4000_8000_0000_0000_0001);
/// Gemini: type `llm`, one required field `api_key`, at most 64 characters (`maxLenght` is a number).
pub const GEMINI: Uuid = Uuid::from_u128(0x9a77_0001_0000_4000_8000_0000_0000_0002);
/// ElevenLabs: type `voice`, required `api_key` (`maxLenght` is an empty string), optional `region` (none at all).
pub const ELEVENLABS: Uuid = Uuid::from_u128(0x9a77_0001_0000_4000_8000_0000_0000_0003);
/// Twilio: type `phone`, required `account_sid` (`maxLenght` a string, 64) and `auth_token` (`maxLength`, a number, 64).
pub const TWILIO: Uuid = Uuid::from_u128(0x9a77_0001_0000_4000_8000_0000_0000_0004);

/// The category of an integration, as listings are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Language models.
    Llm,
    /// Speech.
    Voice,
    /// Payments.
    Monetization,
    /// Data sets.
    Dataset,
    /// Analytics.
    Analytics,
    /// Telephony.
    Phone,
}

impl Kind {
    /// The kind a path segment names; `None` for anything that is not one of the six.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "llm" => Self::Llm,
            "voice" => Self::Voice,
            "monetization" => Self::Monetization,
            "dataset" => Self::Dataset,
            "analytics" => Self::Analytics,
            "phone" => Self::Phone,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Llm => "llm",
            Self::Voice => "voice",
            Self::Monetization => "monetization",
            Self::Dataset => "dataset",
            Self::Analytics => "analytics",
            Self::Phone => "phone",
        }
    }
}

/// One integration, rendered once: a listing repeats it in every row.
#[derive(Clone, Debug)]
pub(crate) struct Integration {
    pub(crate) id: Uuid,
    pub(crate) kind: Kind,
    /// As it stands beside a credential: with its icon inside.
    pub(crate) with_icon: Arc<RawValue>,
    bare: Arc<RawValue>,
    icon: Arc<RawValue>,
}

/// One entry of `GET /integration/status`.
#[derive(Serialize)]
pub(crate) struct CatalogueEntry<'a> {
    integrations: &'a RawValue,
    icon: &'a RawValue,
}

impl Integration {
    /// Takes the documented JSON object (with or without `icon`); it needs at least `id` and `type`.
    pub(crate) fn from_json(mut object: Value) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Key {
            id: Uuid,
            r#type: Kind,
        }
        let key = Key::deserialize(&object)?;
        let with_icon = serde_json::value::to_raw_value(&object)?;
        let icon = object.as_object_mut().and_then(|fields| fields.remove("icon")).unwrap_or(Value::Null);
        Ok(Self {
            id: key.id,
            kind: key.r#type,
            with_icon: with_icon.into(),
            bare: serde_json::value::to_raw_value(&object)?.into(),
            icon: serde_json::value::to_raw_value(&icon)?.into(),
        })
    }

    pub(crate) fn catalogue_entry(&self) -> CatalogueEntry<'_> {
        CatalogueEntry { integrations: &self.bare, icon: &self.icon }
    }
}

/// The built-in catalogue.
pub(crate) fn built_in() -> Vec<Integration> {
    let api_key = |max: Value| json!({"name": "api_key", "type": "password", "label": "API Key", "maxLenght": max, "required": true});
    [
        integration(OPENAI, "OpenAI", "openai", Kind::Llm, json!([api_key(json!("200"))])),
        integration(GEMINI, "Gemini", "gemini", Kind::Llm, json!([api_key(json!(64))])),
        integration(
            ELEVENLABS,
            "ElevenLabs",
            "eleven-labs",
            Kind::Voice,
            json!([api_key(json!("")), {"name": "region", "type": "text", "label": "Region", "required": false}]),
        ),
        integration(
            TWILIO,
            "Twilio",
            "twilio",
            Kind::Phone,
            json!([
                {"name": "account_sid", "type": "text", "label": "Account SID", "maxLenght": "64", "required": true},
                {"name": "auth_token", "type": "password", "label": "Auth Token", "maxLength": 64, "required": true, "hint": null},
            ]),
        ),
    ]
    .into_iter()
    // Every object above has an id and a type; the test below sees that none is lost.
    .filter_map(|object| Integration::from_json(object).ok())
    .collect()
}

fn integration(id: Uuid, name: &str, slug: &str, kind: Kind, form: Value) -> Value {
    let icon = Uuid::from_u128(id.as_u128() + 0x1000);
    json!({
        "id": id,
        "name": name,
        "iconId": icon,
        "type": kind.name(),
        "status": true,
        "validationEndpoint": format!("https://validation.invalid/{slug}"),
        "slug": slug,
        "form": form,
        "createdAt": "2024-09-03T18:52:29.443Z",
        "updatedAt": "2024-09-03T18:52:29Z",
        "deletedAt": null,
        "icon": {
            "id": icon,
            "institutionId": Uuid::nil(),
            "type": "image",
            "fileName": format!("{slug}.png"),
            "internalStorageUrl": format!("https://storage.invalid/{slug}.png"),
            "url": format!("https://cdn.invalid/{slug}.png"),
            "maskName": slug,
            "createdAt": "2024-09-03T18:52:29Z",
            "updatedAt": "2024-09-03T18:52:29.443Z",
            "extension": "png",
            "size": 123,
            "numberWords": null,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_integration_is_there() {
        let ids: Vec<Uuid> = built_in().iter().map(|integration| integration.id).collect();
        assert_eq!(ids, [OPENAI, GEMINI, ELEVENLABS, TWILIO]);
        for integration in built_in() {
            assert_eq!(Kind::parse(integration.kind.name()), Some(integration.kind));
        }
    }
}
