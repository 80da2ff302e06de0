//! Two networks that share only a router, and what is seen on the wire between them.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output},
};

use distmesh::mesh::{Kind, classify_datagram};
use serde_json::Value;

use crate::cluster::{project, run_program};

const FILES: u32 = 24;

#[test]
fn a_build_crosses_a_router_and_only_encrypted_datagrams_are_on_the_wire() {
    let (work, project) = (
        tempfile::Builder::new().prefix("dm").tempdir().unwrap(),
        project(FILES),
    );
    fs::write(
        work.path().join("key"),
        "two networks, one secret of some length",
    )
    .unwrap();
    let output = in_namespaces(work.path(), project.path());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let worker = fs::read_to_string(work.path().join("worker.log")).unwrap_or_default();
    assert!(output.status.success(), "{said}\n--- worker\n{worker}");
    assert_eq!(
        run_program(&project.path().join("program")),
        FILES * (FILES - 1) / 2
    );
    let report: Value =
        serde_json::from_slice(&fs::read(work.path().join("report/report.json")).unwrap()).unwrap();
    assert_eq!(
        report["jobs"]["remote"],
        u64::from(FILES) + 1,
        "{report}\n{said}"
    );

    let seen = kinds(&fs::read(work.path().join("wire.pcap")).unwrap());
    println!("on the wire: {seen:?}");
    let sealed = ["wireguard", "probe", "stun", "neighbour discovery"];
    assert!(seen.keys().all(|kind| sealed.contains(kind)), "{seen:?}");
    assert!(
        seen["wireguard"] > u64::from(FILES) && seen["probe"] > 0,
        "{seen:?}"
    );
}

fn in_namespaces(work: &Path, project: &Path) -> Output {
    let mut command = Command::new("unshare");
    let root = rustix::process::geteuid().is_root();
    if !root {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child"]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/session/two_networks.sh"));
    command
        .arg(env!("CARGO_BIN_EXE_distmesh"))
        .arg(work)
        .arg(project);
    if !root {
        // Within the first user namespace this user is root, and distccd refuses to be: in a second one it is nobody special.
        command.args(["unshare", "--user", "--map-user=1000", "--map-group=1000"]);
    }
    command.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    command.output().unwrap()
}

/// Counts the packets of a capture by what they are.
fn kinds(pcap: &[u8]) -> BTreeMap<&'static str, u64> {
    let mut kinds = BTreeMap::new();
    // pcap: a header of 24 bytes, then per packet 16 bytes, the third word of which is the captured length.
    let mut rest = &pcap[24..];
    while let Some((head, after)) = rest.split_first_chunk::<16>() {
        let length = u32::from_le_bytes(head[8..12].try_into().unwrap()) as usize;
        *kinds.entry(kind(&after[..length])).or_default() += 1;
        rest = &after[length..];
    }
    kinds
}

/// What an Ethernet frame carries.
fn kind(frame: &[u8]) -> &'static str {
    const UDP: u8 = 17;
    const ICMP6: u8 = 58;
    match u16::from_be_bytes([frame[12], frame[13]]) {
        0x0806 => "neighbour discovery",
        // IPv6: the next header, or a hop-by-hop header before ICMPv6's multicast listener reports.
        0x86dd if [ICMP6, 0].contains(&frame[20]) => "neighbour discovery",
        0x0800 if frame[23] == UDP => payload(&frame[14 + usize::from(frame[14] & 15) * 4 + 8..]),
        _ => "something else",
    }
}

/// What a UDP datagram carries.
fn payload(bytes: &[u8]) -> &'static str {
    match classify_datagram(bytes) {
        Kind::Stun => "stun",
        Kind::Probe => "probe",
        Kind::Relayed => "relayed",
        Kind::WireGuard => "wireguard",
        Kind::Unknown => "something else",
    }
}
