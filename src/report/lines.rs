//! One event as one line for a person.

use crate::event::{Event, LinkState};

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// For who looks for a fault.
    Detail,
    /// News.
    News,
    /// Something is not as it should be.
    Warning,
}

/// Words for an event; `None` for those that are only counted.
pub fn line(event: &Event) -> Option<(Weight, String)> {
    match event {
        Event::Link(link) => {
            let weight = match link.state {
                LinkState::Up | LinkState::Suspect | LinkState::Down => Weight::News,
                LinkState::Punching | LinkState::Handshaking => Weight::Detail,
            };
            Some((
                weight,
                format!("link to {} is {}: {}", link.peer, link.state, link.reason),
            ))
        }
        Event::Admission(admission) => Some(match &admission.refused {
            Some(reason) => (
                Weight::Detail,
                format!(
                    "worker {} gets no jobs for {}: {reason}",
                    admission.worker, admission.compiler
                ),
            ),
            None => (
                Weight::Detail,
                format!(
                    "worker {} is admitted for {}",
                    admission.worker, admission.compiler
                ),
            ),
        }),
        Event::Incident { text } => Some((Weight::Warning, text.clone())),
        Event::CompileSeen(_) | Event::Job(_) => None,
    }
}
