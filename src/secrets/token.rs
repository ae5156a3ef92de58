//! The API token of a connection.

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use secrecy::SecretString;
use zeroize::Zeroize;

use super::{Error, Reach};
use crate::{api::SecretKeyRef, kubernetes::timed};

/// Where the reference stands.
const FIELD: &str = "spec.tokenSecretRef";

/// Reads a connection's token from a Secret of this namespace.
///
/// # Errors
/// The Secret or key is missing or no text, or the API server does not answer or does not allow it.
pub async fn read_token(
    client: &Client,
    reach: &Reach,
    namespace: &str,
    reference: &SecretKeyRef,
) -> Result<SecretString, Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let SecretKeyRef { name, key } = reference;
    if !reach.covers(namespace, name) {
        return Err(Error::out_of_reach("get", namespace, name));
    }
    let secret = timed(api.get_opt(name)).await.map_err(|error| Error::kubernetes(&error, "get", namespace, name))?;
    let (field, secret_name) = (FIELD.to_owned(), name.clone());
    let Some(mut secret) = secret else {
        return Err(Error::SecretNotFound { field, secret: secret_name });
    };
    let mut data = secret.data.take().unwrap_or_default();
    let token = match data.get(key).map(|value| str::from_utf8(&value.0)) {
        None => Err(Error::KeyMissing { field, secret: secret_name, key: key.clone() }),
        Some(Err(_)) => {
            Err(Error::BadValue { field, secret: secret_name, key: key.clone(), problem: "is not UTF-8 text" })
        }
        Some(Ok(text)) => Ok(SecretString::from(text)),
    };
    data.values_mut().for_each(|value| value.0.zeroize());
    token
}
