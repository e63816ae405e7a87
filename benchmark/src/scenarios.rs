//! What is measured. A scenario has contenders; each round measures all of them in turn, so that what the machine does besides
//! meets all alike.

mod connections;
mod delivery;
mod latency;
mod nats;
mod publish;
mod topics;

use std::{io, io::IsTerminal as _, thread, time::Duration};

use crate::{
    figures::{Row, Sample, Table},
    plan::Plan,
    process::Server,
};

/// Measures once.
type Measure = Box<dyn Fn(&Plan) -> io::Result<Sample>>;

/// One that is measured.
pub struct Contender {
    pub name: String,
    pub measure: Measure,
}

/// Something to measure.
pub struct Scenario {
    pub name: String,
    pub title: String,
    pub unit: &'static str,
    pub contenders: Vec<Contender>,
    /// Whether it runs only once, because it takes minutes.
    pub is_long: bool,
}

/// All scenarios, by the names that a user may give.
pub fn all(plan: &Plan) -> Vec<Scenario> {
    let mut all = delivery::scenarios(plan);
    all.extend(publish::scenarios(plan));
    all.extend(topics::scenarios(plan));
    all.extend(connections::scenarios(plan));
    all.extend(latency::scenarios());
    all.extend(nats::scenarios());
    all
}

/// A server's memory once it no longer changes.
fn settled_memory(server: &Server) -> io::Result<u64> {
    let mut last = server.memory()?;
    // Ten seconds at most: what still changes then changes all the time.
    for _ in 0..50 {
        thread::sleep(Duration::from_millis(200));
        let now = server.memory()?;
        if now == last {
            break;
        }
        last = now;
    }
    Ok(last)
}

impl Scenario {
    /// Measures all contenders `runs` times in turn. Also how many measurements of pub-sub failed.
    pub fn run(self, plan: &Plan) -> (Table, usize) {
        let is_wanted = |contender: &Contender| {
            plan.only.is_empty() || plan.only.iter().any(|part| contender.name.contains(part.as_str()))
        };
        let contenders: Vec<_> = self.contenders.into_iter().filter(is_wanted).collect();
        let mut rows: Vec<_> =
            contenders.iter().map(|contender| Row { contender: contender.name.clone(), samples: Vec::new() }).collect();
        let mut failures = 0;
        let runs = if self.is_long { 1 } else { plan.runs };
        for round in 0..runs {
            for at in 0..contenders.len() {
                // Every other round goes backwards.
                let at = if round % 2 == 0 { at } else { contenders.len() - 1 - at };
                progress(&format!("{} {}/{}: {}", self.name, round + 1, runs, contenders[at].name));
                match (contenders[at].measure)(plan) {
                    Ok(sample) => rows[at].samples.push(Sample { round, ..sample }),
                    Err(error) => {
                        // Whether others' servers run here does not matter.
                        failures += usize::from(contenders[at].name.starts_with("pub-sub"));
                        progress("");
                        eprintln!("{}: {}: {error}", self.name, contenders[at].name);
                    }
                }
            }
        }
        progress("");
        rows.retain(|row| !row.samples.is_empty());
        (Table { scenario: self.name, title: self.title, unit: self.unit.to_owned(), rows }, failures)
    }
}

/// Shows what is done at present, where somebody looks.
fn progress(text: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
}
