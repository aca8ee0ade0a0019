//! What each design says when something goes wrong: the consumer stops, the path is cut, the peer dies or is paused.
//!
//! A *trial* is one event in a world of its own: two nodes, load in one direction, heartbeats from the same side. Each
//! design is judged by what its application can learn of the peer through the interface and by nothing else: with
//! heartbeats on the data connection that is `Connection::health`, otherwise whether they are answered within a grace.

mod detection;
mod event;
mod judge;
mod result;
mod scissors;
mod sieve;
mod trial;
mod victim;

use std::time::Duration;

use serde_json::{Map, Value};

use crate::error::BenchError;
use crate::runs::{Repeated, Session};
use crate::under_load::{Point, Variant};

pub(crate) use detection::{Detections, detection_table};
pub(crate) use event::Event;
pub(crate) use result::{EVENTS, TruthResult, check, tables};
use trial::Trial;

/// The events at one point, for each variant by turns.
#[derive(Debug)]
pub(crate) struct Experiment<'a> {
    /// The setting.
    pub(crate) point: Point,
    /// Its name among the results.
    pub(crate) name: Map<String, Value>,
    /// Whose verdicts are compared.
    pub(crate) variants: Vec<Variant>,
    /// What happens, one after the other.
    pub(crate) events: &'a [Event],
    /// How long each event lasts, and how long nothing happens before it.
    pub(crate) length: Duration,
    /// See [`Trial::grace`].
    pub(crate) grace: Duration,
    /// Seed of the first turn; each further one takes the next.
    pub(crate) seed: u64,
}

impl Experiment<'_> {
    fn trial(&self, event: Event, variant: Variant, seed: u64) -> Trial {
        Trial {
            point: self.point,
            variant,
            event,
            seed,
            calm: self.length,
            length: self.length,
            grace: self.grace,
            loaded: true,
        }
    }

    /// Wall time that one run of all takes, for the progress bar.
    pub(crate) fn duration(&self) -> Duration {
        let variants = self.variants.iter();
        let events = |variant: &Variant| -> Duration {
            self.events.iter().map(|event| self.trial(*event, *variant, self.seed).duration()).sum()
        };
        variants.map(events).sum()
    }

    /// Runs it; results come event by event, in the order of `variants`.
    pub(crate) fn run(&self, session: &mut Session) -> Result<Vec<Repeated<TruthResult>>, BenchError> {
        let mut results = Vec::new();
        for event in self.events {
            results.extend(session.medians(&self.variants, |variant, turn, progress| {
                let link = self.point.link.name();
                progress.set(format!("{}: {} over {link}, run {turn}", event.name(), variant.name()));
                let trial = self.trial(*event, *variant, turn.seed(self.seed));
                let outcome = trial.run(&mut |time| progress.advance(time))?;
                Ok(TruthResult::new(&trial, self.name.clone(), &outcome))
            })?);
        }
        Ok(results)
    }
}
