//! Where this process' numbers and ports count.

/// Names its network and its process numbers: in another process that differs, our ports are not there, and its processes have other
/// numbers. `None` where the system does not tell.
#[must_use]
pub fn namespaces() -> Option<String> {
    let name = |of: &str| std::fs::read_link(format!("/proc/self/ns/{of}")).ok();
    let [net, pid] = ["net", "pid"].map(name);
    Some(format!("{} {}", net?.display(), pid?.display()))
}
