//! What can go wrong, by name.

use super::wire::{Delivery, Response};
use serde_json::json;

/// One way to answer wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    TooMany,
    TooManyWithTime,
    Secondary,
    Intermediary,
    Quota,
    Status(u16),
    NotJson,
    Reset,
    Truncated,
    Drip,
    BurnedName,
    DuplicateName,
    StaleList,
    PartialList,
    SignedGone,
    Deleted,
    Replaced,
    SignedExpired,
    TruncatedZip,
    BombZip,
    WrongDigest,
    Unauthorised,
}

const JSON: &[&str] = &[
    "CreateArtifact",
    "FinalizeArtifact",
    "ListArtifacts",
    "GetSignedArtifactURL",
    "rest",
];
const ANY: &[&str] = &[
    "CreateArtifact",
    "FinalizeArtifact",
    "ListArtifacts",
    "GetSignedArtifactURL",
    "DeleteArtifact",
    "put",
    "get",
    "rest",
];
const LIMITED: &[&str] = &[
    "CreateArtifact",
    "FinalizeArtifact",
    "ListArtifacts",
    "GetSignedArtifactURL",
    "rest",
];

impl Fault {
    /// Every fault and where it can happen.
    pub const ALL: &[(&str, Self, &[&str])] = &[
        ("429", Self::TooMany, LIMITED),
        ("429-retry-after", Self::TooManyWithTime, LIMITED),
        ("403-secondary", Self::Secondary, LIMITED),
        ("403-intermediary", Self::Intermediary, LIMITED),
        ("quota", Self::Quota, &["CreateArtifact"]),
        ("500", Self::Status(500), ANY),
        ("502", Self::Status(502), ANY),
        ("503", Self::Status(503), ANY),
        ("not-json", Self::NotJson, JSON),
        (
            "reset",
            Self::Reset,
            &[
                "ListArtifacts",
                "GetSignedArtifactURL",
                "put",
                "get",
                "rest",
            ],
        ),
        (
            "reset-after-commit",
            Self::Reset,
            &["CreateArtifact", "FinalizeArtifact"],
        ),
        ("truncated-body", Self::Truncated, ANY),
        ("slow-drip", Self::Drip, ANY),
        ("burned-name", Self::BurnedName, &["FinalizeArtifact"]),
        ("duplicate-name", Self::DuplicateName, &["FinalizeArtifact"]),
        ("stale-list", Self::StaleList, &["ListArtifacts", "rest"]),
        (
            "partial-list",
            Self::PartialList,
            &["ListArtifacts", "rest"],
        ),
        ("signed-404", Self::SignedGone, &["GetSignedArtifactURL"]),
        ("deleted", Self::Deleted, &["FinalizeArtifact"]),
        ("replaced", Self::Replaced, &["FinalizeArtifact"]),
        (
            "sas-expired",
            Self::SignedExpired,
            &["CreateArtifact", "GetSignedArtifactURL"],
        ),
        ("truncated-zip", Self::TruncatedZip, &["get"]),
        ("bomb-zip", Self::BombZip, &["get"]),
        ("wrong-digest", Self::WrongDigest, &["FinalizeArtifact"]),
        ("401", Self::Unauthorised, LIMITED),
    ];

    /// Their names.
    pub const NAMES: [&str; 25] = {
        let mut names = [""; 25];
        let mut at = 0;
        while at < names.len() {
            names[at] = Self::ALL[at].0;
            at += 1;
        }
        names
    };

    pub fn by_name(name: &str) -> Option<&'static str> {
        Self::NAMES.into_iter().find(|known| *known == name)
    }

    /// The answer instead of any other.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest is done elsewhere")]
    pub fn refusal(self) -> Option<Response> {
        let twirp = |status, code: &str, msg: &str| {
            Response::json(status, &json!({"code": code, "msg": msg, "message": msg}))
        };
        let limited = || twirp(429, "resource_exhausted", "too many requests");
        Some(match self {
            Self::TooMany => limited(),
            Self::TooManyWithTime => limited().with("retry-after", "2"),
            Self::Secondary => twirp(
                403,
                "permission_denied",
                "You have exceeded a secondary rate limit",
            ),
            Self::Intermediary => twirp(
                403,
                "permission_denied",
                "Error from intermediary with HTTP status code 403 \"Forbidden\"",
            ),
            Self::Quota => twirp(
                403,
                "permission_denied",
                "insufficient usage to create artifact",
            ),
            Self::Unauthorised => twirp(401, "unauthenticated", "token is expired"),
            Self::Status(status) => twirp(status, "internal", "something broke"),
            Self::NotJson => Response {
                status: 200,
                headers: vec![("content-type", "text/html".into())],
                body: b"<html>Unicorn!</html>".to_vec(),
                ..Response::default()
            },
            _ => return None,
        })
    }

    /// How the answer travels.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest travels well")]
    pub fn deliver(self, mut response: Response) -> Response {
        response.delivery = match self {
            Self::Reset => Delivery::Reset,
            Self::Truncated => Delivery::Truncated,
            Self::Drip => Delivery::Drip,
            _ => Delivery::Whole,
        };
        response
    }
}

/// Which faults are due.
#[derive(Default)]
pub struct Faults {
    due: Vec<(&'static str, u32)>,
    random: Option<Random>,
    /// What happened: endpoint and fault.
    pub happened: Vec<(String, &'static str)>,
}

struct Random {
    state: u64,
    per_mille: u64,
    left: u32,
}

impl Faults {
    /// The next `times` requests that it can befall.
    pub fn add(&mut self, name: &'static str, times: u32) {
        self.due.push((name, times));
    }

    /// Any fault at any request, with this probability, so many times in all.
    pub fn at_random(&mut self, seed: u64, per_mille: u64, left: u32) {
        let state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        self.random = Some(Random {
            state,
            per_mille,
            left,
        });
    }

    pub(super) fn draw(&mut self, endpoint: &str) -> Option<Fault> {
        let (name, fault) = self.due_at(endpoint).or_else(|| self.random_at(endpoint))?;
        self.happened.push((endpoint.to_owned(), name));
        Some(fault)
    }

    fn due_at(&mut self, endpoint: &str) -> Option<(&'static str, Fault)> {
        let befalls = |name: &str| {
            let entry = Fault::ALL.iter().find(|(known, ..)| *known == name);
            entry.filter(|(_, _, where_)| where_.contains(&endpoint))
        };
        let due = self
            .due
            .iter_mut()
            .find(|(name, times)| *times > 0 && befalls(name).is_some())?;
        due.1 -= 1;
        befalls(due.0).map(|(name, fault, _)| (*name, *fault))
    }

    fn random_at(&mut self, endpoint: &str) -> Option<(&'static str, Fault)> {
        let random = self.random.as_mut().filter(|random| random.left > 0)?;
        if random.next() % 1000 >= random.per_mille {
            return None;
        }
        random.left -= 1;
        let possible: Vec<_> = Fault::ALL
            .iter()
            .filter(|(_, _, at)| at.contains(&endpoint))
            .collect();
        let chosen = random.next() as usize % possible.len().max(1);
        possible.get(chosen).map(|(name, fault, _)| (*name, *fault))
    }
}

impl Random {
    /// xorshift64*: the order of faults is all that it decides.
    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }
}
