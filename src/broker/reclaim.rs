//! Taking messages out of memory that are too old. Nobody reads them any more, so nothing but memory waits for it.

use std::time::Duration;

use tokio::{task::yield_now, time::sleep};

use super::Broker;

/// How often it is looked for messages that have become too old.
const INTERVAL: Duration = Duration::from_millis(500);

/// Messages that are taken out under one lock of their topic, some tens of microseconds.
const STEP: usize = 256;

/// Topics that are looked at before other tasks have their turn.
const TOPICS: usize = 64;

impl Broker {
    /// Takes messages that are too old out of memory, for ever; to be run as a task. Without it they stay in memory, and are
    /// read by nobody all the same.
    pub fn reclaimer(&self) -> impl Future<Output = ()> + Send + 'static {
        let broker = self.clone();
        async move {
            loop {
                sleep(INTERVAL).await;
                broker.reclaim().await;
            }
        }
    }

    /// Takes what is too old by now out of memory, and tells the engine. Returns how many steps that took.
    pub async fn reclaim(&self) -> usize {
        let mut steps = 0;
        for (index, channel) in self.0.registry.aging().into_iter().enumerate() {
            if index % TOPICS == TOPICS - 1 {
                yield_now().await;
            }
            loop {
                let reclaimed = channel.reclaim(STEP);
                steps += 1;
                self.0.engine.reclaimed(&channel, &reclaimed);
                if !reclaimed.more {
                    break;
                }
                yield_now().await;
            }
        }
        steps
    }
}
