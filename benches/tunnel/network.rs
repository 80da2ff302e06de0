//! Two machines and the way between them.
//!
//! Without delay the way is a veth that is told to cut packets as a network card would; with delay it is a [`Wire`], because
//! not every kernel has netem. Loss is one rule of nft where packets come in, the same on both.

use std::{
    net::Ipv4Addr,
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    namespaces::run,
    wire::{self, Wire},
};

/// What a way does to packets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Way {
    /// Of a round trip; half of it each way.
    pub(crate) rtt: Duration,
    /// Of a hundred packets, each way.
    pub(crate) loss: f64,
}

/// A network namespace with a name: `ip netns exec` gives its processes their own `/sys`, which a node reads.
pub(crate) struct Machine {
    pub(crate) number: usize,
    pub(crate) ip: Ipv4Addr,
    name: String,
}

/// Both machines; dropping it ends them.
pub(crate) struct Network {
    // Before the machines, which its devices go with.
    _wire: Option<Wire>,
    pub(crate) machines: [Machine; 2],
}

/// What is switched off: with these a veth passes on 64 KiB at once, which no wire can.
const OFFLOADS: &str = "tso off gso off gro off tx-udp-segmentation off";

/// The interface of either machine.
const DEVICE: &str = "wan";

impl Network {
    pub(crate) fn new(way: Way, congestion: Option<&str>) -> Self {
        let machines = [Machine::new(0), Machine::new(1)];
        let wire = (!way.rtt.is_zero()).then(|| Wire::start(way.rtt / 2));
        if wire.is_none() {
            run("ip link add end0 type veth peer name end1");
        }
        for machine in &machines {
            machine.plug_in(wire.is_some());
            machine.lose(way.loss);
            if let Some(congestion) = congestion {
                machine.inside(&format!(
                    "sysctl -qw net.ipv4.tcp_congestion_control={congestion}"
                ));
            }
        }
        Self {
            _wire: wire,
            machines,
        }
    }
}

impl Machine {
    fn new(number: usize) -> Self {
        let name = format!("machine{number}");
        run(&format!("ip netns add {name}"));
        let ip = Ipv4Addr::new(10, 7, 0, number as u8 + 1);
        Self { number, ip, name }
    }

    fn plug_in(&self, wired: bool) {
        let (number, ip) = (self.number, self.ip);
        run(&format!("ip link set end{number} netns {}", self.name));
        self.inside(&format!("ip link set end{number} name {DEVICE}"));
        self.inside("ip link set lo up");
        if wired {
            // The default of 500 packets would be a bottleneck of the wire's own.
            self.inside(&format!("ip link set {DEVICE} txqueuelen {}", wire::QUEUE));
        } else {
            self.inside(&format!("ethtool -K {DEVICE} {OFFLOADS}"));
        }
        self.inside(&format!("ip address add {ip}/24 dev {DEVICE}"));
        self.inside(&format!("ip link set {DEVICE} up"));
    }

    /// Loses packets that come in.
    fn lose(&self, percent: f64) {
        let per_mille = (percent * 10.0).round() as u32;
        if per_mille == 0 {
            return;
        }
        let rules = format!(
            "table inet weather {{ chain in {{ type filter hook prerouting priority raw; \
             iifname {DEVICE} numgen random mod 1000 < {per_mille} drop; }}; }}"
        );
        let done = self.command("nft").arg(rules).status();
        assert!(
            done.as_ref().is_ok_and(std::process::ExitStatus::success),
            "nft: {done:?}"
        );
    }

    /// A program on this machine.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.name, program])
            .stdin(Stdio::null());
        command
    }

    /// A command that has to succeed on this machine.
    pub(crate) fn inside(&self, command: &str) {
        run(&format!("ip netns exec {} {command}", self.name));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        run(&format!("ip netns del {}", self.name));
    }
}

/// What the header says of the way.
pub(crate) fn describe() -> String {
    format!(
        "0 ms: veth, MTU 1500, ethtool -K {OFFLOADS}. With delay: two TUN devices without offloads, MTU 1500, and one thread \
         between them. Loss: nft numgen at each end's prerouting."
    )
}
