//! OpenStack Nova by its API: reading its records, and, behind a pass, the orders of its door.
//!
//! A request has a time limit, an answer a limit on its size, and a token goes only to servers whose certificate is verified
//! (`http://` has none). Orders are private: [`crate::Door`] gives them, and only with a pass.

mod cloud;
mod door;
mod records;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

pub use cloud::Cloud;
pub use records::{Compute, Server, ServerGroup, ZONE};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::Value;
use thiserror::Error;
use ureq::{
    Agent,
    http::{Request, StatusCode},
    tls::{Certificate, RootCerts, TlsConfig},
};
use vmgate_facts::text::plain;

/// Oldest microversion with all that is asked here: since it, a live migration is checked after the answer (34).
const OLDEST: u32 = 34;
/// Newest microversion whose answers are known here (88: hypervisors without their load; 96: the zone that was asked for).
const NEWEST: u32 = 96;
/// Newest microversion for lists of hypervisors: since 88, Nova asks each nova-compute for its uptime, and a single one that hangs
/// or has just died fails the whole list.
const NEWEST_OF_HYPERVISORS: u32 = 87;
/// Most bytes of an answer. A list of a thousand servers with all their details has 3 MB.
const MOST_BYTES: u64 = 64 << 20;

/// Error of a login or a request.
#[derive(Debug, Error)]
pub enum NovaError {
    /// The login is incomplete, or its files cannot be read or are not believed.
    #[error("{0}")]
    Login(String),
    /// No answer came.
    #[error("{method} {url}: {why}")]
    NoAnswer {
        /// Method of the request.
        method: &'static str,
        /// URL of the request.
        url: String,
        /// Error of the connection.
        why: String,
    },
    /// The API refused the request.
    #[error("{method} {url}: {status}{}{message}", if .message.is_empty() { "" } else { ": " })]
    Refused {
        /// Method of the request.
        method: &'static str,
        /// URL of the request.
        url: String,
        /// HTTP status.
        status: StatusCode,
        /// Message of the API.
        message: String,
    },
    /// The answer is not what Nova's API gives.
    #[error("{url} answered something else than OpenStack's API does: {why}")]
    Answer {
        /// URL of the request.
        url: String,
        /// Fault of the answer.
        why: String,
    },
    /// A name that several servers have.
    #[error("{0}")]
    NotOne(String),
}

impl NovaError {
    /// True if the request may have been carried out although no answer came.
    fn is_unanswered(&self) -> bool {
        matches!(self, Self::NoAnswer { .. })
            || matches!(self, Self::Refused { status, .. } if status.is_server_error())
    }
}

/// One cloud's Nova. It logs in at the first request, and again when its token has expired.
pub struct Nova {
    agent: Agent,
    cloud: Cloud,
    login: Mutex<Option<Login>>,
}

impl fmt::Debug for Nova {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nova").field("cloud", &self.cloud).finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Login {
    token: String,
    /// URL of Nova's endpoint, without a slash at its end.
    compute: String,
    /// Microversion 2.x: the newest that both sides know, once that is known.
    minor: Option<u32>,
}

impl Nova {
    /// Nova of a cloud; asks nothing yet.
    pub fn new(cloud: Cloud, time_limit: Duration) -> Result<Self, NovaError> {
        let authorities = match cloud.authorities()? {
            Some(pem) => CertificateDer::pem_slice_iter(&pem)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|why| NovaError::Login(format!("cacert: {why}")))?,
            None => rustls_native_certs::load_native_certs().certs,
        };
        let authorities: Vec<_> =
            authorities.iter().map(|one| Certificate::from_der(one).to_owned()).collect();
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(authorities)))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = Agent::config_builder()
            .timeout_global(Some(time_limit))
            .http_status_as_error(false)
            .max_redirects(0)
            .tls_config(tls)
            .build();
        Ok(Self { agent: config.into(), cloud, login: Mutex::default() })
    }

    fn get(&self, path: &str) -> Result<Value, NovaError> {
        self.request("GET", path, None)
    }

    /// Request to Nova. A token that has expired is replaced, once.
    fn request(&self, method: &'static str, path: &str, body: Option<&Value>) -> Result<Value, NovaError> {
        let held = self.login.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_new = held.is_none();
        let login = held.map_or_else(|| self.log_in(), Ok)?;
        match self.send(method, &format!("{}{path}", login.compute), Some(&login), body) {
            Err(NovaError::Refused { status: StatusCode::UNAUTHORIZED, .. }) if !is_new => {
                let login = self.log_in()?;
                self.send(method, &format!("{}{path}", login.compute), Some(&login), body)
            }
            answered => answered,
        }
        .map(|answer| answer.body)
    }

    /// Gets a token, finds Nova in the catalogue, and chooses the microversion.
    fn log_in(&self) -> Result<Login, NovaError> {
        let url = format!("{}/auth/tokens", self.cloud.keystone()?);
        let answer = self.send("POST", &url, None, Some(&self.cloud.token_request()?))?;
        let strange = |why: &str| NovaError::Answer { url: url.clone(), why: why.to_owned() };
        let token = answer.token.ok_or_else(|| strange("there is no X-Subject-Token"))?;
        let catalogue = answer.body.pointer("/token/catalog").and_then(Value::as_array);
        let catalogue = catalogue.ok_or_else(|| {
            NovaError::Login(format!(
                "{url} gave a token without a catalogue of services: name a project of this user"
            ))
        })?;
        let compute = endpoint(catalogue, self.cloud.region(), self.cloud.interface())?;
        let mut login = Login { token, compute, minor: None };
        let root = format!("{}/", login.compute);
        let document = self.send("GET", &root, Some(&login), None)?.body;
        let text =
            |key| document.pointer(&format!("/version/{key}")).and_then(Value::as_str).unwrap_or_default();
        login.minor = Some(microversion(&root, text("min_version"), text("version"))?);
        *self.login.lock().unwrap_or_else(PoisonError::into_inner) = Some(login.clone());
        Ok(login)
    }

    fn send(
        &self,
        method: &'static str,
        url: &str,
        login: Option<&Login>,
        body: Option<&Value>,
    ) -> Result<Answer, NovaError> {
        let no_answer = |why: ureq::Error| NovaError::NoAnswer {
            method,
            url: url.to_owned(),
            why: plain(&why.to_string()),
        };
        let mut request = Request::builder().method(method).uri(url).header("Accept", "application/json");
        if let Some(login) = login {
            request = request.header("X-Auth-Token", &login.token);
            if let Some(minor) = login.minor {
                let newest = if url.contains("/os-hypervisors/") { NEWEST_OF_HYPERVISORS } else { NEWEST };
                request = request.header("OpenStack-API-Version", format!("compute 2.{}", minor.min(newest)));
            }
        }
        let sent = match body {
            Some(body) => {
                let request = request.header("Content-Type", "application/json").body(body.to_string());
                self.agent.run(request.map_err(|why| no_answer(why.into()))?)
            }
            None => self.agent.run(request.body(()).map_err(|why| no_answer(why.into()))?),
        };
        let mut answer = sent.map_err(no_answer)?;
        let status = answer.status();
        let token =
            answer.headers().get("X-Subject-Token").and_then(|token| token.to_str().ok()).map(str::to_owned);
        let bytes = answer.body_mut().with_config().limit(MOST_BYTES).read_to_vec().map_err(no_answer)?;
        if !status.is_success() {
            return Err(NovaError::Refused { method, url: url.to_owned(), status, message: message(&bytes) });
        }
        let body = if bytes.is_empty() { Ok(Value::Null) } else { serde_json::from_slice(&bytes) };
        let body = body.map_err(|why| NovaError::Answer { url: url.to_owned(), why: why.to_string() })?;
        Ok(Answer { token, body })
    }
}

/// Successful answer.
struct Answer {
    /// Token that keystone gave.
    token: Option<String>,
    body: Value,
}

/// URL of Nova in the catalogue of services.
fn endpoint(catalogue: &[Value], region: Option<&str>, interface: &str) -> Result<String, NovaError> {
    let of = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let computes = catalogue.iter().filter(|service| service["type"] == "compute");
    let all: Vec<&Value> = computes.filter_map(|service| service["endpoints"].as_array()).flatten().collect();
    let fitting = all.iter().filter(|endpoint| of(endpoint, "interface") == interface);
    let found =
        fitting.clone().find(|endpoint| region.is_none_or(|region| of(endpoint, "region_id") == region));
    found.map(|endpoint| of(endpoint, "url").trim_end_matches('/').to_owned()).ok_or_else(|| {
        let regions: Vec<String> = fitting.map(|endpoint| of(endpoint, "region_id")).collect();
        NovaError::Login(match region {
            Some(region) if !regions.is_empty() => {
                format!(
                    "the catalogue has no Nova in the region {region}; it has one in {}",
                    regions.join(", ")
                )
            }
            _ => format!("the catalogue of services has no {interface} endpoint of Nova (type compute)"),
        })
    })
}

/// The newest microversion 2.x that both sides know.
fn microversion(url: &str, oldest: &str, newest: &str) -> Result<u32, NovaError> {
    let minor = |version: &str| version.strip_prefix("2.").and_then(|minor| minor.parse::<u32>().ok());
    match (minor(oldest), minor(newest)) {
        (Some(oldest), Some(newest)) if newest >= OLDEST && oldest <= NEWEST => Ok(newest.min(NEWEST)),
        (Some(oldest), Some(newest)) => Err(NovaError::Answer {
            url: url.to_owned(),
            why: format!(
                "it has microversions 2.{oldest} to 2.{newest}, and 2.{OLDEST} to 2.{NEWEST} are known here"
            ),
        }),
        _ => Err(NovaError::Answer { url: url.to_owned(), why: "it names no microversion".to_owned() }),
    }
}

/// Message in the body of a refusal: `{"KIND": {"message": …}}` in all of OpenStack's services.
fn message(bytes: &[u8]) -> String {
    let parsed: Option<Value> = serde_json::from_slice(bytes).ok();
    let said = parsed
        .as_ref()
        .and_then(Value::as_object)
        .and_then(|object| object.values().find_map(|value| value["message"].as_str()));
    plain(&said.unwrap_or_default().chars().take(400).collect::<String>())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_endpoint_is_that_of_the_region_and_another_region_is_named() {
        let one = |region: &str, interface: &str| json!({"region_id": region, "interface": interface, "url": format!("http://{region}-{interface}/v2.1/")});
        let catalogue = [
            json!({"type": "image", "endpoints": [one("x", "public")]}),
            json!({"type": "compute", "endpoints": [one("north", "internal"), one("north", "public"), one("south", "public")]}),
        ];
        assert_eq!(endpoint(&catalogue, Some("south"), "public").unwrap(), "http://south-public/v2.1");
        assert_eq!(endpoint(&catalogue, None, "internal").unwrap(), "http://north-internal/v2.1");
        let error = endpoint(&catalogue, Some("east"), "public").unwrap_err().to_string();
        assert!(error.contains("north, south"), "{error}");
        assert!(endpoint(&catalogue, None, "admin").unwrap_err().to_string().contains("admin endpoint"));
    }

    #[test]
    fn the_microversion_is_the_newest_that_both_know() {
        assert_eq!(microversion("u", "2.1", "2.100").unwrap(), 96);
        assert_eq!(microversion("u", "2.1", "2.72").unwrap(), 72);
        for (oldest, newest) in [("2.1", "2.33"), ("2.97", "2.120"), ("", "")] {
            assert!(microversion("u", oldest, newest).is_err());
        }
    }

    #[test]
    fn a_refusal_is_told_in_the_words_of_the_api() {
        let body = br#"{"badRequest": {"code": 400, "message": "Compute host lab-x could not be found."}}"#;
        assert_eq!(message(body), "Compute host lab-x could not be found.");
        assert_eq!(message(b"<html>"), "");
    }
}
