//! What the runtime token says of itself. Pure.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;

/// How the results service calls the run's attempt and the job that a token was made for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BackendIds {
    /// The run's attempt.
    pub run: String,
    /// The job.
    pub job: String,
}

/// Text that is no runtime token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// Not three parts with JSON in the middle one.
    #[error("it is not a JSON Web Token")]
    Form,
    /// The token is for something else.
    #[error("its scope has no Actions.Results:RUN:JOB")]
    Scope,
}

#[derive(Deserialize)]
struct Claims {
    scp: String,
}

impl BackendIds {
    /// Reads the scope `Actions.Results:RUN:JOB` of a token (RFC 7519). The signature is the service's business.
    pub fn of_token(token: &str) -> Result<Self, InvalidToken> {
        let [_, payload, _] = token.trim().split('.').collect::<Vec<_>>()[..] else {
            return Err(InvalidToken::Form);
        };
        let json = BASE64_URL_SAFE_NO_PAD
            .decode(payload.trim_end_matches('='))
            .map_err(|_| InvalidToken::Form)?;
        let claims: Claims = serde_json::from_slice(&json).map_err(|_| InvalidToken::Form)?;
        let scope = |scope: &str| match scope.split(':').collect::<Vec<_>>()[..] {
            ["Actions.Results", run, job] if !run.is_empty() && !job.is_empty() => Some(Self {
                run: run.to_owned(),
                job: job.to_owned(),
            }),
            _ => None,
        };
        claims
            .scp
            .split(' ')
            .find_map(scope)
            .ok_or(InvalidToken::Scope)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A token with this scope.
    pub(in super::super) fn token(scope: &str) -> String {
        let part = |json: String| BASE64_URL_SAFE_NO_PAD.encode(json);
        let claims = part(format!(r#"{{"scp":"{scope}","exp":1}}"#));
        format!("{}.{claims}.c2ln", part(r#"{"alg":"none"}"#.to_owned()))
    }

    #[test]
    fn the_scope_of_three_parts_names_run_and_job() {
        let ids = BackendIds::of_token(&token(
            "Actions.GenericRead:0 Actions.Results:a-1:b-2 Actions.Results:c",
        ));
        assert_eq!(
            ids,
            Ok(BackendIds {
                run: "a-1".into(),
                job: "b-2".into()
            })
        );
    }

    #[test]
    fn other_tokens_are_refused() {
        assert_eq!(
            BackendIds::of_token(&token("Actions.Results:a:b:c Actions.Results::")),
            Err(InvalidToken::Scope)
        );
        for text in ["", "a.b", "a.b.c", "ghs_0123456789", "a.e30.c"] {
            assert_eq!(
                BackendIds::of_token(text),
                Err(InvalidToken::Form),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_safe_to_read(text in ".{0,60}", scope in ".{0,30}") {
            drop(BackendIds::of_token(&text));
            drop(BackendIds::of_token(&token(&scope)));
        }
    }
}
