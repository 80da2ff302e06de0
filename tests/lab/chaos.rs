//! Many short builds in one session while anything may happen to its workers, by a schedule that a seed decides.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    builds::{Size, project},
    lab::{Host, Lab, Process, Site, now, story, until},
    nat::{ADDRESS_AND_PORT, Behaviour, INDEPENDENT, rng::Rng},
};

const STRICT: Behaviour = Behaviour::new(INDEPENDENT, ADDRESS_AND_PORT);
const WORKERS: usize = 3;
const FILES: usize = 24;
const SIZE: Size = Size {
    files: FILES,
    functions: 20,
};

/// What may happen to one worker.
#[derive(Clone, Copy, Debug)]
enum Fault {
    KillDistccd,
    StopDistccd,
    KillWorker,
    Freeze,
    Thaw,
    Cut,
    Loss,
    Heal,
    Rebind,
    Wipe,
}

/// Healing is as likely as all that breaks a path, or nothing would be left soon.
const FAULTS: [Fault; 12] = [
    Fault::KillDistccd,
    Fault::StopDistccd,
    Fault::KillWorker,
    Fault::Freeze,
    Fault::Thaw,
    Fault::Thaw,
    Fault::Cut,
    Fault::Loss,
    Fault::Heal,
    Fault::Heal,
    Fault::Rebind,
    Fault::Wipe,
];

struct Member {
    name: String,
    site: Site,
    host: Host,
    process: Option<Process>,
}

impl Member {
    fn start(&mut self, lab: &Lab) {
        self.process = Some(lab.worker(&self.host, &self.name, 2));
    }

    fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().process.id()
    }

    fn suffer(&mut self, lab: &Lab, fault: Fault, rng: &mut Rng) {
        match fault {
            Fault::KillDistccd => self.signal_distccd(Signal::KILL),
            Fault::StopDistccd => self.signal_distccd(Signal::STOP),
            Fault::KillWorker => {
                signal(self.pid(), Signal::KILL);
                self.start(lab);
            }
            Fault::Freeze => signal(self.pid(), Signal::STOP),
            Fault::Thaw => signal(self.pid(), Signal::CONT),
            Fault::Cut => lab.set_weather(self.site, |weather| weather.cut = true),
            Fault::Loss => {
                let loss = rng.below(600);
                lab.set_weather(self.site, |weather| weather.loss_per_mille = loss);
            }
            Fault::Heal => self.heal(lab),
            Fault::Rebind => lab.with_nat(self.site, |nat| nat.rebind(rng)),
            Fault::Wipe => lab.with_nat(self.site, |nat| nat.wipe()),
        }
    }

    fn heal(&self, lab: &Lab) {
        lab.set_weather(self.site, |weather| {
            weather.cut = false;
            weather.loss_per_mille = 0;
        });
    }

    /// distccd and all that it started: they are a session of processes.
    fn signal_distccd(&self, what: Signal) {
        let processes = Processes::now();
        let children = processes.0.iter().filter(|(_, of)| of.parent == self.pid());
        let masters: Vec<u32> = children
            .filter(|(_, of)| of.name == "distccd")
            .map(|(_, of)| of.session)
            .collect();
        let hit = |of: &&OneProcess| masters.contains(&of.session);
        for (pid, _) in processes.0.iter().filter(|(_, of)| hit(of)) {
            signal(*pid, what);
        }
    }
}

fn signal(pid: u32, what: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // One that has just ended is as good as reached.
    let _ = pid.map(|pid| kill_process(pid, what));
}

struct OneProcess {
    name: String,
    parent: u32,
    session: u32,
    is_zombie: bool,
}

/// All processes of the story's namespace.
struct Processes(BTreeMap<u32, OneProcess>);

impl Processes {
    fn now() -> Self {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        Self(pids.filter_map(|pid| Some((pid, stat(pid)?))).collect())
    }

    /// Those that run under these names.
    fn named(&self, names: &[&str]) -> usize {
        let alive = self.0.values().filter(|of| !of.is_zombie);
        alive.filter(|of| names.contains(&of.name.as_str())).count()
    }
}

/// proc_pid_stat(5): the name stands in parentheses, then come state, parent, group and session.
fn stat(pid: u32) -> Option<OneProcess> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (before, after) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = after.split(' ').collect();
    Some(OneProcess {
        name: before.split_once('(')?.1.to_owned(),
        is_zombie: fields.first()? == &"Z",
        parent: fields.get(1)?.parse().ok()?,
        session: fields.get(3)?.parse().ok()?,
    })
}

/// Open descriptors, and resident memory in KiB.
fn holds(pid: u32) -> (usize, u64) {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|text| text.split_whitespace().next()?.parse().ok());
    (descriptors, resident.unwrap())
}

/// The objects of a project; takes them away.
fn take_objects(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut objects = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "o") {
            objects.insert(path.clone(), fs::read(&path).unwrap());
            fs::remove_file(path).unwrap();
        }
    }
    objects
}

fn chaos(lab: &mut Lab, builds: u32) {
    let seed =
        env::var("DISTMESH_SEED").map_or_else(|_| fresh_seed(), |seed| seed.parse().unwrap());
    println!("DISTMESH_SEED={seed} tells this story again");
    let mut rng = Rng::new(seed);
    let near = lab.site(STRICT);
    let primary = lab.host(near);
    let mut members: Vec<Member> = (1..=WORKERS)
        .map(|n| {
            let site = lab.site(STRICT);
            let host = lab.host(site);
            let name = format!("w{n}");
            Member {
                name,
                site,
                host,
                process: None,
            }
        })
        .collect();
    let dir = lab.path("project");
    project(&dir, SIZE);
    let plain = Command::new("make")
        .args(["-s", "-j2"])
        .current_dir(&dir)
        .status();
    assert!(plain.unwrap().success());
    let right = take_objects(&dir);

    let up = lab.up(&primary);
    members.iter_mut().for_each(|member| member.start(lab));
    until("all workers are there", Duration::from_secs(60), || {
        all_up(lab, &primary)
    });
    let mut first = None;
    let mut remote = 0;
    for n in 1..=builds {
        remote += build(lab, &primary, &mut members, &mut rng);
        assert!(
            take_objects(&dir) == right,
            "build {n} of seed {seed} made other objects"
        );
        if n == builds / WARM_UP {
            recover(lab, &primary, &members);
            first = Some(holds(up.process.id()));
        }
    }
    recover(lab, &primary, &members);
    let (descriptors, resident) = holds(up.process.id());
    let (descriptors_first, resident_first) = first.unwrap();
    println!(
        "{builds} builds, {remote} of {} compiles remote; the session holds {descriptors} descriptors and {resident} KiB, after \
         {} builds it held {descriptors_first} and {resident_first}",
        builds as usize * FILES,
        builds / WARM_UP
    );
    assert!(descriptors <= descriptors_first + 8, "descriptors leak");
    assert!(resident <= resident_first + (24 << 10), "memory leaks");
    assert!(remote > 0, "nothing was distributed");
    assert_nothing_left(lab, &primary);
}

/// One build, disturbed until its end; returns how many compiles were remote.
fn build(lab: &Lab, primary: &Host, members: &mut [Member], rng: &mut Rng) -> u64 {
    let report = lab.path("report");
    let running = lab
        .distmesh(primary, &["build", "--report"])
        .arg(&report)
        .args(["--", "make", "-j"])
        .current_dir(lab.path("project"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let over = AtomicBool::new(false);
    let mut schedule = Vec::new();
    let output = std::thread::scope(|scope| {
        let ending = scope.spawn(|| {
            let output = running.wait_with_output().unwrap();
            over.store(true, Ordering::Release);
            output
        });
        let began = now();
        while !over.load(Ordering::Acquire) {
            assert!(
                began.elapsed() < HANGS,
                "the build hangs after {schedule:?}"
            );
            std::thread::sleep(Duration::from_millis(50 + rng.below(500)));
            let who = rng.below(WORKERS as u64) as usize;
            let fault = FAULTS[rng.below(FAULTS.len() as u64) as usize];
            schedule.push((members[who].name.clone(), fault));
            members[who].suffer(lab, fault, rng);
        }
        ending.join().unwrap()
    });
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{:?} after {schedule:?}: {said}",
        output.status
    );
    let report = fs::read(report.join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    report["jobs"]["remote"].as_u64().unwrap()
}

/// Everything is mended, and every worker comes back.
fn recover(lab: &Lab, primary: &Host, members: &[Member]) {
    for member in members {
        member.heal(lab);
        signal(member.pid(), Signal::CONT);
        member.signal_distccd(Signal::CONT);
    }
    until("all workers are back", Duration::from_secs(90), || {
        all_up(lab, primary)
    });
}

/// A worker that was started again is another one of the same name; its ghosts are listed, too.
fn all_up(lab: &Lab, primary: &Host) -> bool {
    let seen = lab.all_seen(primary);
    let up = |name: &str| {
        let mut same = seen.iter().filter(|worker| worker["name"] == name);
        same.any(|worker| worker["state"] == "up" && worker["slots"] == 2)
    };
    (1..=WORKERS).all(|n| up(&format!("w{n}")))
}

/// No compiler, no client, no private directory of a build, no temporary file.
fn assert_nothing_left(lab: &Lab, primary: &Host) {
    until(
        "compilers and clients have ended",
        Duration::from_secs(30),
        || Processes::now().named(&["distcc", "make", "cc1", "as", "gcc"]) == 0,
    );
    let daemons = Processes::now().named(&["distccd"]);
    // A master and its children on each worker: --jobs is slots and one.
    assert!(daemons <= WORKERS * 5, "{daemons} distccd run");
    let run = lab.path(&format!("run-{}", primary.netns));
    let own = fs::read_dir(run.join("sessions/lab")).unwrap().flatten();
    let own: Vec<_> = own
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| name.starts_with("own-"))
        .collect();
    assert_eq!(own.len(), 1, "the session's alone: {own:?}");
    let left = fs::read_dir(lab.path("tmp")).unwrap().flatten();
    let left: Vec<_> = left
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    // Those of the workers that live; the ones that were killed are gone.
    let is_daemon = |name: &&String| name.starts_with("distmesh-distccd-");
    let daemons = left.iter().filter(is_daemon).count();
    assert!(daemons <= WORKERS && left.len() == daemons, "{left:?}");
}

fn fresh_seed() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes) >> 16
}

/// After this part of the builds nothing should grow any more.
const WARM_UP: u32 = 3;
/// Far more than any of them takes, with every worker lost.
const HANGS: Duration = Duration::from_secs(120);

#[test]
fn short_builds_outlive_a_random_schedule_of_faults() {
    story(
        "chaos::short_builds_outlive_a_random_schedule_of_faults",
        |lab| chaos(lab, 6),
    );
}

#[test]
#[ignore = "half an hour: nightly"]
fn two_hundred_short_builds_outlive_a_random_schedule_of_faults() {
    story(
        "chaos::two_hundred_short_builds_outlive_a_random_schedule_of_faults",
        |lab| chaos(lab, 200),
    );
}
