//! What is measured. A scenario has contenders; each round measures all of them in turn, so that what the machine does besides
//! meets all alike.

mod connections;
mod delivery;
mod latency;
mod publish;
mod topics;

use std::{io, io::IsTerminal as _, thread, time::Duration};

use crate::{
    figures::{Row, Sample, Table},
    plan::Plan,
    process::Server,
};

/// One that is measured.
pub struct Contender {
    pub name: String,
    pub measure: Box<dyn Fn(&Plan) -> io::Result<Sample>>,
}

/// Something to measure.
pub struct Scenario {
    pub name: String,
    pub title: String,
    pub unit: &'static str,
    pub contenders: Vec<Contender>,
}

/// All scenarios, by the names that a user may give.
pub fn all(plan: &Plan) -> Vec<Scenario> {
    let mut all = delivery::scenarios(plan);
    all.extend(publish::scenarios(plan));
    all.extend(topics::scenarios(plan));
    all.extend(connections::scenarios(plan));
    all.extend(latency::scenarios());
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
    /// Measures all contenders `runs` times in turn.
    pub fn run(self, plan: &Plan) -> Table {
        let is_wanted = |contender: &Contender| {
            plan.only.is_empty() || plan.only.iter().any(|part| contender.name.contains(part.as_str()))
        };
        let contenders: Vec<_> = self.contenders.into_iter().filter(is_wanted).collect();
        let mut rows: Vec<_> =
            contenders.iter().map(|contender| Row { contender: contender.name.clone(), samples: Vec::new() }).collect();
        for round in 0..plan.runs {
            for at in 0..contenders.len() {
                // Every other round goes backwards.
                let at = if round % 2 == 0 { at } else { contenders.len() - 1 - at };
                progress(&format!("{} {}/{}: {}", self.name, round + 1, plan.runs, contenders[at].name));
                match (contenders[at].measure)(plan) {
                    Ok(sample) => rows[at].samples.push(sample),
                    Err(error) => {
                        progress("");
                        eprintln!("{}: {}: {error}", self.name, contenders[at].name);
                    }
                }
            }
        }
        progress("");
        rows.retain(|row| !row.samples.is_empty());
        Table { scenario: self.name, title: self.title, unit: self.unit.to_owned(), rows }
    }
}

/// Shows what is done at present, where somebody looks.
fn progress(text: &str) {
    if io::stderr().is_terminal() {
        eprint!("\r\x1b[K{text}");
    }
}
