//! The blob store: Put Blob, Put Block and Put Block List, Append Block, Get Blob.

use super::{
    Fault, Request, Response, Shared,
    store::{self, Artifact},
};

pub fn answer(shared: &mut Shared, request: &Request, fault: Option<Fault>) -> Response {
    if request.headers.contains_key("authorization") {
        return Response::xml(400, "InvalidAuthenticationInfo");
    }
    let permission = match request.method.as_str() {
        "GET" | "HEAD" => 'r',
        _ => 'w',
    };
    if !is_signed(shared, request, permission) {
        return Response::xml(403, "AuthenticationFailed");
    }
    let id = request
        .path
        .rsplit('/')
        .next()
        .and_then(|id| id.parse().ok());
    let Some(artifact) = id.and_then(|id| shared.store.by_id(id)) else {
        return Response::xml(404, "BlobNotFound");
    };
    match request.method.as_str() {
        "GET" | "HEAD" => get(artifact, request, fault),
        "PUT" => put(artifact, request),
        _ => Response::xml(405, "UnsupportedHttpVerb"),
    }
}

fn is_signed(shared: &Shared, request: &Request, permission: char) -> bool {
    let get = |name: &str| request.query.get(name);
    let alive = get("se")
        .and_then(|se| store::seconds(se))
        .is_some_and(|end| end > shared.store.now());
    let allowed = get("sp").is_some_and(|sp| sp.contains(permission));
    alive && allowed && get("sig").is_some_and(|sig| sig == "c2VjcmV0LXNpZ25hdHVyZQ==")
}

fn put(artifact: &mut Artifact, request: &Request) -> Response {
    let get = |name: &str| request.query.get(name).map(String::as_str);
    let body = request.body.clone();
    artifact.version += 1;
    if let Some(content_type) = request.headers.get("x-ms-blob-content-type") {
        artifact.content_type.clone_from(content_type);
    }
    match (
        get("comp"),
        request.headers.get("x-ms-blob-type").map(String::as_str),
    ) {
        (Some("block"), _) => {
            let block = get("blockid").unwrap_or_default().to_owned();
            artifact.blocks.insert(block, body);
        }
        (Some("blocklist"), _) => {
            let Some(whole) = commit(artifact, &String::from_utf8_lossy(&body)) else {
                return Response::xml(400, "InvalidBlockList");
            };
            artifact.blob = whole;
        }
        (Some("appendblock"), _) if artifact.append => artifact.blob.extend(body),
        (None, Some("BlockBlob")) => artifact.blob = body,
        (None, Some("AppendBlob")) => artifact.append = true,
        _ => return Response::xml(400, "MissingRequiredHeader"),
    }
    Response::empty(201)
        .with("etag", artifact.etag())
        .with("x-ms-version", "2024-05-04")
}

fn commit(artifact: &Artifact, list: &str) -> Option<Vec<u8>> {
    let ids = list
        .split("<Latest>")
        .skip(1)
        .map(|rest| rest.split('<').next().unwrap_or_default());
    ids.map(|id| artifact.blocks.get(id))
        .collect::<Option<Vec<_>>>()
        .map(|blocks| blocks.into_iter().flatten().copied().collect())
}

fn get(artifact: &Artifact, request: &Request, fault: Option<Fault>) -> Response {
    let etag = artifact.etag();
    if request.headers.get("if-none-match") == Some(&etag) {
        return Response::empty(304).with("etag", etag);
    }
    let mut blob = artifact.blob.clone();
    match fault {
        Some(Fault::TruncatedZip) => blob.truncate(blob.len() * 2 / 3),
        Some(Fault::BombZip) => blob = bomb(),
        _ => {}
    }
    let range = request
        .headers
        .get("range")
        .or(request.headers.get("x-ms-range"));
    let (status, body) = match range.and_then(|range| bytes(range, blob.len())) {
        Some(Some((from, to))) => (206, blob[from..to].to_vec()),
        Some(None) => return Response::xml(416, "InvalidRange"),
        None => (200, blob),
    };
    let content_type = match artifact.content_type.as_str() {
        "" => "application/octet-stream",
        set => set,
    };
    Response {
        status,
        body,
        headers: vec![("etag", etag), ("content-type", content_type.to_owned())],
        ..Response::default()
    }
}

/// `bytes=FROM-[TO]`: the part, or `None` within when there is none.
fn bytes(range: &str, len: usize) -> Option<Option<(usize, usize)>> {
    let (from, to) = range.strip_prefix("bytes=")?.split_once('-')?;
    let from: usize = from.parse().ok()?;
    let to = to.parse().map_or(len, |to: usize| (to + 1).min(len));
    Some((from < to).then_some((from, to)))
}

/// A zip file of a few KiB whose one entry is 16 MiB of zeros, and says that it is small.
fn bomb() -> Vec<u8> {
    let packed = miniz_oxide::deflate::compress_to_vec(&vec![0; 16 << 20], 9);
    let sizes = [(packed.len() as u32).to_le_bytes(), 100_u32.to_le_bytes()].concat();
    let shared = [
        &[20, 0, 0, 0, 8, 0, 0, 0, 0x21, 0, 1, 2, 3, 4][..],
        &sizes,
        &[1, 0, 0, 0],
    ]
    .concat();
    let mut zip = [b"PK\x03\x04", &shared[..], b"d", &packed[..]].concat();
    let directory = (zip.len() as u32).to_le_bytes();
    zip.extend([b"PK\x01\x02\x14\x00", &shared[..], &[0; 14], b"d"].concat());
    zip.extend(
        [
            b"PK\x05\x06\0\0\0\0\x01\0\x01\0",
            &47_u32.to_le_bytes()[..],
            &directory,
            &[0, 0],
        ]
        .concat(),
    );
    zip
}
