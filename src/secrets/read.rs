//! Reading the Secrets a spec refers to.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use secrecy::SecretString;

use zeroize::Zeroize;

use super::{Error, Material, Reach};
use crate::{
    api::{CredentialSource, SecretVersion},
    kubernetes::timed,
};

/// The longest value that is sent, in bytes. No provider's key is near it; a Secret of 1 MiB is a mistake.
const LONGEST: usize = 64 * 1024;

/// A Secret whose values are wiped when it goes, also when another one cannot be read.
struct Wiped(Secret);

impl Drop for Wiped {
    fn drop(&mut self) {
        for value in self.0.data.iter_mut().flat_map(|data| data.values_mut()) {
            value.0.zeroize();
        }
    }
}

/// Reads the values a spec refers to, each Secret once, from the resource's own namespace and no other.
///
/// # Errors
/// The first Secret, key or value that cannot be used.
pub async fn read(
    client: &Client,
    reach: &Reach,
    namespace: &str,
    credentials: &[BTreeMap<String, CredentialSource>],
) -> Result<(Material, Vec<SecretVersion>), Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    // Where each Secret is referred to first, for the error's sake.
    let mut referred: BTreeMap<&str, String> = BTreeMap::new();
    for (field, source) in paths(credentials) {
        let name = &source.secret_key_ref.name;
        if !reach.covers(namespace, name) {
            return Err(Error::out_of_reach("get", namespace, name));
        }
        referred.entry(name).or_insert(field);
    }
    let secrets: BTreeMap<&str, Wiped> = try_join_all(referred.iter().map(|(name, field)| {
        let api = &api;
        async move {
            let secret =
                timed(api.get_opt(name)).await.map_err(|error| Error::kubernetes(&error, "get", namespace, name))?;
            let missing = || Error::SecretNotFound { field: field.clone(), secret: (*name).to_owned() };
            secret.map(|secret| (*name, Wiped(secret))).ok_or_else(missing)
        }
    }))
    .await?
    .into_iter()
    .collect();

    let versions = secrets
        .iter()
        .map(|(name, secret)| SecretVersion {
            name: (*name).to_owned(),
            uid: secret.0.metadata.uid.clone().unwrap_or_default(),
            resource_version: secret.0.metadata.resource_version.clone().unwrap_or_default(),
        })
        .collect();
    Ok((pick(credentials, &secrets)?, versions))
}

/// Every reference with its path in the spec.
fn paths(credentials: &[BTreeMap<String, CredentialSource>]) -> impl Iterator<Item = (String, &CredentialSource)> {
    credentials.iter().enumerate().flat_map(|(item, fields)| {
        fields.iter().map(move |(field, source)| (format!("spec.credentials[{item}].{field}"), source))
    })
}

fn pick(
    credentials: &[BTreeMap<String, CredentialSource>],
    secrets: &BTreeMap<&str, Wiped>,
) -> Result<Material, Error> {
    let mut items: Vec<BTreeMap<String, SecretString>> = Vec::with_capacity(credentials.len());
    for (item, fields) in credentials.iter().enumerate() {
        let mut values = BTreeMap::new();
        for (field, source) in fields {
            let (secret, key) = (source.secret_key_ref.name.clone(), source.secret_key_ref.key.clone());
            let path = format!("spec.credentials[{item}].{field}");
            let value = secrets.get(secret.as_str()).and_then(|secret| secret.0.data.as_ref()?.get(&key));
            let Some(value) = value else { return Err(Error::KeyMissing { field: path, secret, key }) };
            let bad =
                |problem| Error::BadValue { field: path.clone(), secret: secret.clone(), key: key.clone(), problem };
            if value.0.is_empty() {
                return Err(bad("is empty"));
            }
            if value.0.len() > LONGEST {
                return Err(bad("is longer than 64 KiB"));
            }
            let text = std::str::from_utf8(&value.0).map_err(|_| bad("is not UTF-8 text"))?;
            values.insert(field.clone(), SecretString::from(text));
        }
        items.push(values);
    }
    Ok(Material(items))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;
    use crate::api::{Reason, SecretKeyRef};

    fn picked(value: &[u8], key: &str) -> Result<Material, Error> {
        let reference = SecretKeyRef { name: "openai".into(), key: key.into() };
        let credentials = [[("api_key".to_owned(), CredentialSource { secret_key_ref: reference })].into()];
        let secret = Secret { data: Some([("k".to_owned(), ByteString(value.to_vec()))].into()), ..Secret::default() };
        pick(&credentials, &[("openai", Wiped(secret))].into())
    }

    #[test]
    fn what_cannot_be_sent_is_refused_by_name() {
        assert!(picked("schlüssel".as_bytes(), "k").is_ok());
        for (value, key, reason, says) in [
            (&b"x"[..], "other", Reason::SecretKeyMissing, "no key \"other\""),
            (b"", "k", Reason::InvalidSpec, "is empty"),
            (b"canary\xff", "k", Reason::InvalidSpec, "UTF-8"),
            (&[b'x'; LONGEST + 1], "k", Reason::InvalidSpec, "64 KiB"),
        ] {
            let error = picked(value, key).err().unwrap();
            assert_eq!(error.reason(), reason);
            let text = error.to_string();
            assert!(
                text.contains(says) && text.contains("spec.credentials[0].api_key") && text.contains("openai"),
                "{text}"
            );
            assert!(!format!("{error:?}{text}").contains("canary"));
        }
    }
}
