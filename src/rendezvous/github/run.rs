//! Which run this is, and what it may do: from the variables that the runner sets. Pure.

use std::{fmt, str::FromStr};

use http::Uri;
use zeroize::Zeroizing;

use super::claims::{BackendIds, InvalidToken};
use crate::session::SessionName;

/// One attempt of one workflow run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// `OWNER/NAME`.
    pub repository: String,
    /// The run's number.
    pub id: u64,
    /// Which try of the run this is, from 1.
    pub attempt: u32,
    /// The server that people see: part of what names a run.
    pub server: String,
}

/// What this process may use of GitHub.
#[derive(Clone, Debug)]
pub struct Access {
    /// The results service: publishes, lists and fetches.
    pub results: Option<ResultsAccess>,
    /// The REST API: lists and fetches artifacts, knows the jobs.
    pub rest: Option<RestAccess>,
}

/// The way to the results service.
#[derive(Clone, Debug)]
pub struct ResultsAccess {
    /// Scheme and authority.
    pub origin: Uri,
    /// `ACTIONS_RUNTIME_TOKEN`.
    pub token: Token,
    /// Whose artifacts we make.
    pub ids: BackendIds,
}

/// The way to the REST API.
#[derive(Clone, Debug)]
pub struct RestAccess {
    /// The API's base, with `/api/v3` on an Enterprise Server.
    pub base: Uri,
    /// `GITHUB_TOKEN`.
    pub token: Token,
}

/// A credential: never shown, wiped from memory when dropped.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

/// An environment in which no artifacts can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvironmentError {
    /// Not inside a run.
    #[error("{0} is not set as a runner of GitHub Actions sets it")]
    NotARun(&'static str),
    /// A variable that names a service is no address.
    #[error("{0} is not an address")]
    Address(&'static str),
    /// A variable that holds a credential holds something else.
    #[error("{0} has characters that no token has")]
    Credential(&'static str),
    /// The runtime token cannot be used.
    #[error("ACTIONS_RUNTIME_TOKEN cannot be used")]
    Token(#[from] InvalidToken),
}

impl Run {
    /// Reads `GITHUB_REPOSITORY`, `GITHUB_RUN_ID`, `GITHUB_RUN_ATTEMPT` and `GITHUB_SERVER_URL`.
    pub fn from_env(env: impl Fn(&str) -> Option<String>) -> Result<Self, EnvironmentError> {
        let repository = env("GITHUB_REPOSITORY").filter(|name| is_repository(name));
        Ok(Self {
            repository: repository.ok_or(EnvironmentError::NotARun("GITHUB_REPOSITORY"))?,
            id: number(&env, "GITHUB_RUN_ID", None)?,
            attempt: number(&env, "GITHUB_RUN_ATTEMPT", Some(1))?,
            server: env("GITHUB_SERVER_URL").unwrap_or_else(|| "https://github.com".to_owned()),
        })
    }

    /// The session of everybody in this attempt who names none.
    pub fn session(&self) -> SessionName {
        let name = format!("{}.{}", self.id, self.attempt);
        // Two numbers and a dot are at most 31 of the allowed characters.
        name.parse()
            .unwrap_or_else(|_| unreachable!("{name} is a label"))
    }

    /// What everybody in this attempt knows and no other attempt shares. It is public.
    pub fn facts(&self) -> String {
        let Self {
            repository,
            id,
            attempt,
            server,
        } = self;
        format!("{server} {repository} {id} {attempt}")
    }
}

impl Access {
    /// Reads `ACTIONS_RESULTS_URL` with `ACTIONS_RUNTIME_TOKEN`, and `GITHUB_API_URL` with `GITHUB_TOKEN`.
    ///
    /// Whether there is a results service is known by its variable, not by the host's name: some Enterprise Servers have one.
    pub fn from_env(env: impl Fn(&str) -> Option<String>) -> Result<Self, EnvironmentError> {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        let results = match (set("ACTIONS_RESULTS_URL"), set("ACTIONS_RUNTIME_TOKEN")) {
            (Some(url), Some(token)) => Some(ResultsAccess {
                origin: origin("ACTIONS_RESULTS_URL", &url)?,
                ids: BackendIds::of_token(&token)?,
                token: Token::new("ACTIONS_RUNTIME_TOKEN", token)?,
            }),
            _ => None,
        };
        let api = set("GITHUB_API_URL").unwrap_or_else(|| "https://api.github.com".to_owned());
        let rest = match set("GITHUB_TOKEN") {
            Some(token) => Some(RestAccess {
                base: address("GITHUB_API_URL", &api)?,
                token: Token::new("GITHUB_TOKEN", token)?,
            }),
            None => None,
        };
        Ok(Self { results, rest })
    }
}

impl Token {
    /// Takes a credential as a variable held it; it must be fit for a header.
    fn new(variable: &'static str, text: String) -> Result<Self, EnvironmentError> {
        let text = Zeroizing::new(text);
        let token = text.trim();
        if token.bytes().all(|b| b.is_ascii_graphic()) {
            return Ok(Self(Zeroizing::new(token.to_owned())));
        }
        Err(EnvironmentError::Credential(variable))
    }

    /// The credential itself, for a request's header.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

fn number<T: FromStr>(
    env: impl Fn(&str) -> Option<String>,
    name: &'static str,
    default: Option<T>,
) -> Result<T, EnvironmentError> {
    match env(name).filter(|value| !value.is_empty()) {
        Some(value) => value.parse().ok(),
        None => default,
    }
    .ok_or(EnvironmentError::NotARun(name))
}

/// It becomes part of a path: nothing that could leave it.
fn is_repository(name: &str) -> bool {
    let part = |part: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && part != "." && part != ".." && part.chars().all(allowed)
    };
    name.split_once('/')
        .is_some_and(|(owner, name)| part(owner) && part(name))
}

fn address(name: &'static str, text: &str) -> Result<Uri, EnvironmentError> {
    text.parse()
        .ok()
        .filter(|uri: &Uri| uri.scheme().is_some() && uri.authority().is_some())
        .ok_or(EnvironmentError::Address(name))
}

/// Drops the path: requests name theirs in full.
fn origin(name: &'static str, text: &str) -> Result<Uri, EnvironmentError> {
    let mut parts = address(name, text)?.into_parts();
    parts.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    Uri::from_parts(parts).map_err(|_| EnvironmentError::Address(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| {
            let found = pairs.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        }
    }

    #[test]
    fn a_run_is_known_by_repository_id_and_attempt() {
        let run = Run::from_env(env(&[
            ("GITHUB_REPOSITORY", "octo/mesh.rs"),
            ("GITHUB_RUN_ID", "987654321012"),
            ("GITHUB_RUN_ATTEMPT", "2"),
        ]))
        .unwrap();
        assert_eq!(run.session().as_str(), "987654321012.2");
        assert_eq!(
            run.facts(),
            "https://github.com octo/mesh.rs 987654321012 2"
        );
    }

    #[test]
    fn what_is_no_run_is_named() {
        for (pairs, wrong) in [
            (&[("GITHUB_RUN_ID", "1")][..], "GITHUB_REPOSITORY"),
            (&[("GITHUB_REPOSITORY", "a/b")][..], "GITHUB_RUN_ID"),
            (
                &[("GITHUB_REPOSITORY", "a/.."), ("GITHUB_RUN_ID", "1")][..],
                "GITHUB_REPOSITORY",
            ),
            (
                &[("GITHUB_REPOSITORY", "a/b?c"), ("GITHUB_RUN_ID", "1")][..],
                "GITHUB_REPOSITORY",
            ),
            (
                &[("GITHUB_REPOSITORY", "a/b"), ("GITHUB_RUN_ID", "x")][..],
                "GITHUB_RUN_ID",
            ),
        ] {
            assert_eq!(
                Run::from_env(env(pairs)),
                Err(EnvironmentError::NotARun(wrong))
            );
        }
    }

    #[test]
    fn the_results_service_is_known_by_its_variable_and_its_path_is_dropped() {
        let token = super::super::claims::tests::token("Actions.Results:run-1:job-2");
        let access = Access::from_env(env(&[
            (
                "ACTIONS_RESULTS_URL",
                "https://results.ghes.example/some/path",
            ),
            ("ACTIONS_RUNTIME_TOKEN", &token),
            ("GITHUB_API_URL", "https://ghes.example/api/v3"),
            ("GITHUB_TOKEN", "ghs_x"),
        ]))
        .unwrap();
        let results = access.results.unwrap();
        assert_eq!(
            results.origin.to_string(),
            "https://results.ghes.example/",
            "an Enterprise Server that has one"
        );
        assert_eq!(results.ids.job, "job-2");
        let rest = access.rest.unwrap();
        assert_eq!(rest.base.path(), "/api/v3");
        let shown = format!("{:?} {:?}", results.token, rest.token);
        assert_eq!(shown, "Token(…) Token(…)");
    }

    #[test]
    fn without_its_variable_or_token_there_is_no_service() {
        let only = |pairs: &[(&str, &str)]| Access::from_env(env(pairs)).unwrap();
        assert!(
            only(&[("ACTIONS_RESULTS_URL", "https://x")])
                .results
                .is_none()
        );
        assert!(only(&[("ACTIONS_RUNTIME_TOKEN", "x")]).results.is_none());
        assert!(only(&[("GITHUB_TOKEN", "")]).rest.is_none());
        assert_eq!(
            Access::from_env(env(&[("GITHUB_TOKEN", "two\nlines")])).unwrap_err(),
            EnvironmentError::Credential("GITHUB_TOKEN")
        );
        let wrong = Access::from_env(env(&[
            ("ACTIONS_RESULTS_URL", "results"),
            ("ACTIONS_RUNTIME_TOKEN", "x"),
        ]));
        assert_eq!(
            wrong.unwrap_err(),
            EnvironmentError::Address("ACTIONS_RESULTS_URL")
        );
    }
}
