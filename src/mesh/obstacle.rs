//! Why a peer cannot be reached, for a person.

use std::{fmt, time::Duration};

use super::relay::is_dependent;
use crate::session::NatClass;

/// What is known about a path that does not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// How long there has been none.
    pub pathless: Duration,
    /// Short packets get through, and those that a link needs do not.
    pub narrow: bool,
    /// This node's NAT.
    pub ours: NatClass,
    /// The peer's.
    pub theirs: NatClass,
    /// Nodes that could be asked to forward.
    pub others: usize,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pathless,
            narrow,
            ours,
            theirs,
            others,
        } = self;
        write!(f, "no path for {} s: ", pathless.as_secs())?;
        if *narrow {
            f.write_str(NARROW)?;
            return say_others(f, *others);
        }
        f.write_str(match (is_dependent(*ours), is_dependent(*theirs)) {
            (true, true) => "both NATs use another port for every destination",
            (true, false) => DEPENDENT_HERE,
            (false, true) => DEPENDENT_THERE,
            (false, false) if *ours == NatClass::Unknown => UNKNOWN_HERE,
            (false, false) if *theirs == NatClass::Unknown => UNKNOWN_THERE,
            (false, false) => "what is sent does not arrive, as if a firewall dropped UDP",
        })?;
        say_others(f, *others)
    }
}

fn say_others(f: &mut fmt::Formatter<'_>, others: usize) -> fmt::Result {
    match others {
        0 => f.write_str("; there is no third node to relay"),
        1 => f.write_str("; the one other node does not reach both"),
        many => write!(f, "; none of {many} other nodes reaches both"),
    }
}

const NARROW: &str = "short packets get through, those of 1,340 bytes do not, as behind a VPN with a smaller MTU: raise it, or leave the VPN";

const DEPENDENT_HERE: &str = "the NAT here uses another port for every destination, and the one there lets in only whom it knows";
const DEPENDENT_THERE: &str = "the NAT there uses another port for every destination, and the one here lets in only whom it knows";
const UNKNOWN_HERE: &str =
    "no STUN server answers here, so nobody knows this node's address outside";
const UNKNOWN_THERE: &str =
    "no STUN server answers there, so nobody knows the peer's address outside";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_said_and_what_would_help() {
        let said = |ours, theirs, others| {
            let pathless = Duration::from_secs(12);
            Obstacle {
                pathless,
                narrow: false,
                ours,
                theirs,
                others,
            }
            .to_string()
        };
        use NatClass::{AddressAndPortDependent, EndpointIndependent, None, Unknown};
        assert_eq!(
            said(AddressAndPortDependent, AddressAndPortDependent, 0),
            "no path for 12 s: both NATs use another port for every destination; there is no third node to relay"
        );
        assert!(said(AddressAndPortDependent, EndpointIndependent, 1).contains("the NAT here"));
        assert!(
            said(Unknown, EndpointIndependent, 5).ends_with("none of 5 other nodes reaches both")
        );
        assert!(said(None, EndpointIndependent, 1).contains("firewall"));
        let narrow = Obstacle {
            pathless: Duration::from_secs(12),
            narrow: true,
            ours: None,
            theirs: None,
            others: 0,
        };
        assert!(narrow.to_string().contains("a smaller MTU"), "{narrow}");
    }
}
