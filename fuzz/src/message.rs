//! Lines of the control stream, either way.

use distmesh::wire::{StreamKind, ToPrimary, ToWorker};
use serde::{Serialize, de::DeserializeOwned};

/// Checks one line.
pub fn check(bytes: &[u8]) {
    if let Some(kind) = bytes.first().and_then(|byte| StreamKind::from_byte(*byte)) {
        assert_eq!(Some(&(kind as u8)), bytes.first());
    }
    check_line::<ToPrimary>(bytes);
    check_line::<ToWorker>(bytes);
}

/// What was understood is said in one line, and understood again.
fn check_line<T: DeserializeOwned + Serialize + PartialEq>(bytes: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(bytes) else {
        return;
    };
    let line = serde_json::to_vec(&message).expect("it was read from such");
    assert!(!line.contains(&b'\n'));
    assert!(serde_json::from_slice::<T>(&line).is_ok_and(|again| again == message));
}
