//! What was done and held against the model, in numbers.

use std::fmt;

/// Numbers of a round, or of all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub rounds: u64,
    pub publishes: u64,
    pub repeated: u64,
    pub deliveries: u64,
    pub gaps: u64,
    pub subscriptions: u64,
    pub resumes: u64,
    pub takeovers: u64,
    pub acknowledged: u64,
    pub cuts: u64,
    pub restarts: u64,
    pub server_kills: u64,
    pub deletions: u64,
    pub pages: u64,
}

impl Counts {
    pub fn add(&mut self, other: &Counts) {
        let Counts { rounds, publishes, repeated, deliveries, gaps, subscriptions, resumes, .. } = other;
        let Counts { takeovers, acknowledged, cuts, restarts, server_kills, deletions, pages, .. } = other;
        self.rounds += rounds;
        self.publishes += publishes;
        self.repeated += repeated;
        self.deliveries += deliveries;
        self.gaps += gaps;
        self.subscriptions += subscriptions;
        self.resumes += resumes;
        self.takeovers += takeovers;
        self.acknowledged += acknowledged;
        self.cuts += cuts;
        self.restarts += restarts;
        self.server_kills += server_kills;
        self.deletions += deletions;
        self.pages += pages;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rounds: {} deliveries held against the model, {} gaps, {} publishes, {} ids repeated, {} subscriptions, \
             {} resumed, {} take-overs, {} acknowledgements, {} cuts, {} restarts, {} kills of NATS servers, {} deletions, \
             {} pages",
            self.rounds,
            self.deliveries,
            self.gaps,
            self.publishes,
            self.repeated,
            self.subscriptions,
            self.resumes,
            self.takeovers,
            self.acknowledged,
            self.cuts,
            self.restarts,
            self.server_kills,
            self.deletions,
            self.pages
        )
    }
}
