//! The servers of a run, with the engine they use, and how they are hurt.

use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    admin::DEFAULT_BOUND,
    nats::Nats,
    play::play,
    random::Random,
    report::Counts,
    round::{Engine, Round},
    schema::Dialect,
    server::Server,
};

/// Servers and what they keep things in.
pub struct Site {
    pub engine: Engine,
    pub servers: Vec<Server>,
    pub dialect: Dialect,
    nats: Option<Nats>,
    _directory: Option<TempDir>,
}

/// Plays rounds for so long.
///
/// # Errors
/// The first finding.
pub async fn run(engine: Engine, seed: u64, time: Duration) -> Result<Counts, String> {
    let begun = Instant::now();
    let mut site = Site::open(engine, time).await?;
    let mut counts = Counts::default();
    for number in 1.. {
        if begun.elapsed() >= time {
            break;
        }
        counts.add(&play(&site, seed, number).await?);
        if engine == Engine::Memory && number % 10 == 0 {
            // Its address changes, and nothing is left.
            site = Site::open(engine, time).await?;
        }
    }
    for server in &site.servers {
        server.stop().await?;
    }
    Ok(counts)
}

impl Site {
    async fn open(engine: Engine, time: Duration) -> Result<Self, String> {
        let mut environment = vec![
            ("ENGINE".to_owned(), format!("{engine:?}").to_lowercase()),
            ("MAX_MESSAGES_PER_TOPIC".to_owned(), DEFAULT_BOUND.to_string()),
        ];
        let mut directory = None;
        let mut nats = None;
        match engine {
            Engine::Memory => {}
            Engine::Disk => {
                let made = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|error| error.to_string())?;
                environment.push(("DATA_DIR".to_owned(), made.path().display().to_string()));
                directory = Some(made);
            }
            Engine::Nats => {
                // Elections take longer than a short run.
                let servers = if time > Duration::from_secs(90) { Nats::cluster().await } else { Nats::single().await };
                environment.push(("NATS_URL".to_owned(), servers.urls().join(",")));
                nats = Some(servers);
            }
        }
        let count = if engine == Engine::Nats { 2 } else { 1 };
        let servers: Vec<_> = (0..count).map(|_| Server::new(environment.clone())).collect();
        for server in &servers {
            server.start().await?;
        }
        let dialect = Dialect::learn(servers[0].addr()).await?;
        Ok(Self { engine, servers, dialect, nats, _directory: directory })
    }

    /// Kills or stops something, once or twice, and brings it back.
    pub async fn hurt(&self, round: &Round<'_>, random: &mut Random, busy: Duration) {
        for _ in 0..random.between(1, 2) {
            sleep(busy.mul_f64(random.below(45) as f64 / 100.0)).await;
            let server = random.pick(&self.servers);
            match &self.nats {
                Some(nats) if random.chance(60) => {
                    let node = random.pick(&nats.nodes);
                    round.note("server", format!("{} is killed", node.name));
                    node.kill();
                    sleep(Duration::from_millis(random.below(1500))).await;
                    node.start().await;
                    // NATS writes what it has acknowledged to its files a moment later, so a second node that is killed before
                    // this one has caught up can take acknowledged messages with it.
                    nats.healthy().await;
                    round.note("server", format!("{} is back", node.name));
                    round.model.lock().unwrap().counts.server_kills += 1;
                }
                _ => self.restart(round, random, server).await,
            }
        }
    }

    async fn restart(&self, round: &Round<'_>, random: &mut Random, server: &Server) {
        let stopped = if random.chance(60) {
            round.note("server", "kill -9");
            server.kill();
            Ok(())
        } else {
            round.note("server", "SIGTERM");
            server.stop().await
        };
        let started = server.start().await;
        let mut model = round.model.lock().unwrap();
        model.note("server", "started again");
        model.counts.restarts += 1;
        if let Some(why) = stopped.err().or(started.err()) {
            model.violation(&["server"], why);
        }
    }

    /// SIGTERM, and nothing after it.
    pub async fn stop(&self, round: &Round<'_>) {
        round.note("server", "SIGTERM");
        for server in &self.servers {
            let stopped = server.stop().await;
            let mut model = round.model.lock().unwrap();
            model.note("server", "has stopped");
            model.counts.restarts += 1;
            if let Err(why) = stopped {
                model.violation(&["server"], why);
            }
        }
    }

    /// Starts what was stopped.
    pub async fn start(&self) -> Result<(), String> {
        for server in &self.servers {
            server.start().await?;
        }
        Ok(())
    }
}
