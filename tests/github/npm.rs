//! GitHub's own client against the fake, and against us.

use std::{fs, process::Command};

use distmesh::rendezvous::{Entry, EntryName, Rendezvous};

use crate::{
    fake::Fake,
    nodes::{descriptor, github},
};

/// Uploads `file` as `name`, lists, and downloads every artifact into a directory of its own.
const SCRIPT: &str = r"
import { DefaultArtifactClient } from '@actions/artifact'
import { resolve } from 'node:path'
const [name, file] = process.argv.slice(2)
const client = new DefaultArtifactClient()
await client.uploadArtifact(name, [resolve(file)], resolve('.'))
const { artifacts } = await client.listArtifacts()
for (const { id, name } of artifacts) {
    await client.downloadArtifact(id, { path: resolve('got', name) })
}
console.log(JSON.stringify(artifacts.map(({ name }) => name)))
";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "installs @actions/artifact with npm: cargo nextest run --test github --run-ignored only npm"]
async fn githubs_npm_client_and_distmesh_read_what_the_other_published() {
    let dir = tempfile::tempdir().unwrap();
    let npm = |program: &str, args: &[&str], env: &[(&str, String)]| {
        let mut command = Command::new(program);
        command.args(args).current_dir(dir.path());
        command.envs(env.iter().map(|(name, value)| (*name, value.as_str())));
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        said
    };
    fs::write(dir.path().join("package.json"), r#"{"type":"module"}"#).unwrap();
    npm(
        "npm",
        &[
            "install",
            "--no-audit",
            "--no-fund",
            "@actions/artifact@6.2.1",
        ],
        &[],
    );
    fs::write(dir.path().join("client.mjs"), SCRIPT).unwrap();

    let fake = Fake::start();
    let (run, ours) = github(&fake, 1, "0", &[]);
    let name = |job| EntryName::of(&descriptor(job, 1), &run.session());
    let sealed: Vec<u8> = (0..3000_u32).map(|n| (n * 7 % 251) as u8).collect();
    ours.publish(&name(0), &sealed).await.unwrap();

    // The client uploads what is named like a worker's descriptor.
    let theirs = "distmesh-1-worker-GitHub-Actions-1-4711-1764000000000.1";
    let text = b"something that compresses, compresses, compresses";
    fs::write(dir.path().join("entry"), text).unwrap();
    let said = npm("node", &["client.mjs", theirs, "entry"], &fake.env(1, "1"));
    println!("{said}{:?}", fake.counts());

    let published = dir
        .path()
        .join("got/distmesh-1-primary-GitHub-Actions-0-4711-1764000000000.1");
    assert_eq!(
        fs::read(published.join("descriptor")).unwrap(),
        sealed,
        "it read ours"
    );
    let listed = ours.list().await.unwrap();
    let entry: &Entry = listed.iter().find(|entry| entry.name == name(1)).unwrap();
    assert_eq!(
        ours.fetch(entry).await.unwrap().as_deref(),
        Some(&text[..]),
        "we read its"
    );
    let (_, rest) = github(&fake, 1, "7", &["ACTIONS_RUNTIME_TOKEN"]);
    rest.list().await.unwrap();
    assert_eq!(
        rest.fetch(entry).await.unwrap().as_deref(),
        Some(&text[..]),
        "by REST too"
    );
}
