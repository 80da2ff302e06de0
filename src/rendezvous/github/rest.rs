//! What is asked of the REST API, and what it answers. Own types: they read only what is used. Pure.

use std::time::UNIX_EPOCH;

use serde::Deserialize;

use super::run::Run;
use crate::session::NodeName;

/// The path of a page of the run's artifacts.
pub(super) fn artifacts(run: &Run, page: u32) -> String {
    let Run { repository, id, .. } = run;
    format!("/repos/{repository}/actions/runs/{id}/artifacts?per_page={PER_PAGE}&page={page}")
}

/// The path that leads to an artifact's zip file.
pub(super) fn zip(run: &Run, artifact: u64) -> String {
    format!("/repos/{}/actions/artifacts/{artifact}/zip", run.repository)
}

/// The path of a page of the attempt's jobs.
pub(super) fn jobs(run: &Run, page: u32) -> String {
    let Run {
        repository,
        id,
        attempt,
        ..
    } = run;
    format!(
        "/repos/{repository}/actions/runs/{id}/attempts/{attempt}/jobs?per_page={PER_PAGE}&page={page}"
    )
}

/// The path of the attempt itself.
pub(super) fn attempt(run: &Run) -> String {
    let Run {
        repository,
        id,
        attempt,
        ..
    } = run;
    format!("/repos/{repository}/actions/runs/{id}/attempts/{attempt}")
}

/// A page of artifacts.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Artifacts {
    pub(super) artifacts: Vec<Artifact>,
}

/// One artifact.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Artifact {
    pub(super) id: u64,
    pub(super) name: String,
    #[serde(default)]
    pub(super) expired: bool,
    /// RFC 3339 in UTC, so that times are ordered as texts are.
    #[serde(default)]
    pub(super) created_at: Option<String>,
}

/// An attempt.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Attempt {
    /// When this attempt began, by the same clock as [`Artifact::created_at`].
    #[serde(default)]
    pub(super) run_started_at: Option<String>,
}

/// A page of jobs.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Jobs {
    pub(super) jobs: Vec<Job>,
}

/// One job.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Job {
    #[serde(default)]
    pub(super) status: String,
    #[serde(default)]
    pub(super) conclusion: Option<String>,
    #[serde(default)]
    pub(super) started_at: Option<String>,
    /// Empty until the job has a runner.
    #[serde(default)]
    pub(super) runner_name: Option<String>,
}

impl Job {
    /// How the job ended, if it has.
    pub(super) fn ended(&self) -> Option<&str> {
        (self.status == "completed").then(|| self.conclusion.as_deref().unwrap_or("completed"))
    }

    fn started_ms(&self) -> Option<u64> {
        let started = humantime::parse_rfc3339(self.started_at.as_deref()?).ok()?;
        let since = started.duration_since(UNIX_EPOCH).ok()?;
        u64::try_from(since.as_millis()).ok()
    }

    /// True when the job runs on the runner that gave this node its name.
    pub(super) fn runs(&self, node: &NodeName) -> bool {
        let runner = self.runner_name.as_deref().map(runner_label);
        runner.is_some_and(|runner| {
            let process = node
                .as_str()
                .strip_prefix(runner.as_str())
                .and_then(|rest| rest.strip_prefix('-'));
            !runner.is_empty() && process.is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()))
        })
    }
}

/// How the job has ended, of all that one runner did, in which a node started then, in milliseconds of Unix time. A hosted runner has one
/// job. One of one's own has one after the other: it is the last that had begun; where nobody says when they began, all have to end.
pub(super) fn ended<'a>(jobs: &[&'a Job], start_ms: u64) -> Option<&'a str> {
    let begun: Option<Vec<_>> = jobs
        .iter()
        .map(|job| Some((job.started_ms()?, *job)))
        .collect();
    let before = begun.into_iter().flatten();
    let before = before.filter(|(began, _)| *began <= start_ms.saturating_add(SKEW_MS));
    match before.max_by_key(|(began, _)| *began) {
        Some((_, job)) => job.ended(),
        None => jobs
            .iter()
            .map(|job| job.ended())
            .collect::<Option<Vec<_>>>()?
            .pop(),
    }
}

/// GitHub's clock and the runner's differ by less; a job that follows begins later, for the node has lived.
const SKEW_MS: u64 = 2_000;

/// A runner's name as the beginning of a node's.
pub fn runner_label(runner: &str) -> String {
    let words = runner.split(|c: char| !c.is_ascii_alphanumeric());
    let label: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    label.join("-").chars().take(LABEL).collect()
}

/// True when a `Link` header (RFC 8288) says that another page follows.
pub(super) fn has_next(link: &str) -> bool {
    link.split(',').any(|part| part.contains("rel=\"next\""))
}

/// The most that a page can have.
const PER_PAGE: u32 = 100;

/// Leaves room for a process number within a node's label of 64 bytes.
const LABEL: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    fn job(json: &str) -> Job {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn of_a_runners_jobs_the_one_counts_in_which_the_node_started() {
        let at = |minute: u64, status: &str| {
            job(&format!(
                r#"{{"status":"{status}","conclusion":"{status}","started_at":"1970-01-01T00:{minute:02}:00Z"}}"#
            ))
        };
        let jobs = [at(1, "completed"), at(5, "in_progress"), at(3, "completed")];
        let all: Vec<_> = jobs.iter().collect();
        let ended = |minute: u64| ended(&all, minute * 60_000 + 20_000);
        assert_eq!(ended(3), Some("completed"), "a later job does not count");
        assert_eq!(ended(5), None);
        assert_eq!(ended(0), None, "before all of them: all have to end");
    }

    #[test]
    fn a_job_is_found_by_its_runners_name() {
        let ended = job(
            r#"{"status":"completed","conclusion":"cancelled","head_branch":null,"runner_name":"GitHub Actions 12"}"#,
        );
        assert_eq!(ended.ended(), Some("cancelled"));
        for (node, here) in [
            ("GitHub-Actions-12-4711", true),
            ("GitHub-Actions-1-4711", false),
            ("GitHub-Actions-12", false),
            ("attic-4711", false),
        ] {
            assert_eq!(ended.runs(&node.parse().unwrap()), here, "{node}");
        }
        let waiting = job(r#"{"status":"requested","conclusion":null,"runner_name":null}"#);
        assert_eq!(waiting.ended(), None);
        assert!(!waiting.runs(&"a-1".parse().unwrap()));
        assert!(!job(r#"{"runner_name":""}"#).runs(&"a-1".parse().unwrap()));
    }

    #[test]
    fn a_runners_name_makes_a_label() {
        assert_eq!(
            runner_label("GitHub Actions 1000000012"),
            "GitHub-Actions-1000000012"
        );
        assert_eq!(runner_label("  _über–box "), "ber-box");
        assert_eq!(runner_label("…"), "");
        assert_eq!(runner_label(&"x".repeat(90)).len(), LABEL);
    }

    #[test]
    fn the_last_page_is_known_by_its_link() {
        assert!(has_next(
            r#"<https://x?page=2>; rel="next", <https://x?page=4>; rel="last""#
        ));
        assert!(!has_next(r#"<https://x?page=1>; rel="prev""#));
    }
}
