//! A fake GitHub for tests in other languages: `cargo run --example fake-github [SECONDS]`.
//!
//! Prints one line of JSON: the addresses of its three origins, and the variables that a runner gives to each of five jobs. Then
//! serves until its standard input closes. `GET API/_fake/counts` tells what was asked, `POST API/_fake/fault?name=NAME&times=N`
//! makes something go wrong, and `POST API/_fake/jobs` takes what the jobs API shows.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a tool for tests")]

#[path = "../tests/github/fake/mod.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the tests use the rest"
)]
mod fake;

use std::io::Read;

use serde_json::{Value, json};

fn main() {
    let fake = fake::Fake::start();
    let jobs: Vec<Value> = ["0", "1", "2", "3", "4"]
        .iter()
        .map(|job| {
            let env = fake.env(1, job).into_iter();
            env.map(|(name, value)| (name.to_owned(), Value::from(value)))
                .collect()
        })
        .collect();
    let said = json!({
        "api": fake.api,
        "results": fake.results,
        "blobs": fake.blobs,
        "runtime_token": fake.token(1, "0"),
        "github_token": fake::GITHUB_TOKEN,
        "repository": fake::REPOSITORY,
        "run_id": fake::RUN.to_string(),
        "jobs": jobs,
    });
    println!("{said}");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
