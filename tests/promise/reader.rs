//! A subscriber: comes through any door, reads, stalls, is cut or leaves, and comes back to where it was.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::{
    feed::{Feed, Item},
    filter::Filter,
    leave::Leave,
    leg::{Ask, Door, End, Leg, Named, Overflow, Seen, Start, Target},
    model::{Shown, now, wall},
    random::Random,
    round::{Phase, Round},
    websocket,
};

/// One subscriber with its connections.
pub struct Reader<'a> {
    pub round: &'a Round<'a>,
    pub index: usize,
    pub name: String,
    pub random: Random,
    pub ask: Ask,
    /// Where it goes on.
    position: Option<Start>,
    /// The connection whose consumer the next one takes over.
    pub old: Option<(Feed, usize)>,
}

/// How one connection is to go.
pub struct Visit {
    pub until: Option<Instant>,
    /// How often of a hundred it stops reading for a while.
    pub stalls: u64,
    pub answers_pings: bool,
    pub leave: Leave,
}

impl<'a> Reader<'a> {
    pub fn new(round: &'a Round<'a>, index: usize) -> Self {
        let mut random = round.random(500 + index as u64);
        let name = format!("reader{index}");
        let topic = random.pick(&round.topics).clone();
        let prefix = topic.split('.').next().unwrap_or_default().to_owned();
        let target = match random.below(10) {
            0 | 1 => Target { name: format!("{prefix}.>"), is_pattern: true },
            2 => Target { name: format!("{prefix}.*"), is_pattern: true },
            3 => Target { name: format!("{prefix}.*.x"), is_pattern: true },
            _ => Target { name: topic, is_pattern: false },
        };
        let overflow = match random.below(10) {
            0 => Overflow::Latest,
            1 => Overflow::LatestPerKey,
            2 => Overflow::Disconnect,
            _ => Overflow::History,
        };
        let explicit = random.chance(50);
        let consumer = random.chance(40).then(|| Named { name: format!("c-{index}"), explicit });
        let filter = random.chance(35).then(|| Filter::random(&mut random));
        let ask = Ask {
            target,
            start: Start::Live,
            filter,
            overflow,
            consumer,
            by_header: false,
            by_parameter: "after",
            mate: None,
        };
        let mut reader = Self { round, index, name, random, ask, position: None, old: None };
        reader.ask.start = reader.fresh_start();
        reader
    }

    fn fresh_start(&mut self) -> Start {
        let random = &mut self.random;
        match random.below(6) {
            0 | 1 => Start::Live,
            2 => Start::Last(*random.pick(&[0, 1, 3, 20, 1000])),
            3 => {
                let at = wall() - *random.pick(&[0_i64, 20, 200, 1000, 60_000]);
                let time = jiff::Timestamp::from_millisecond(at).map(|time| format!("{time:.3}"));
                Start::Since { text: time.unwrap_or_default(), wall: at }
            }
            _ => {
                let model = self.round.model.lock().unwrap();
                let known = model.cursors.get(&self.ask.target.name).filter(|known| !known.is_empty());
                match known {
                    Some(known) => {
                        let (cursor, place) = random.pick(known).clone();
                        Start::After { cursor, place }
                    }
                    None => Start::Last(5),
                }
            }
        }
    }

    pub async fn run(mut self) {
        loop {
            match self.round.phase() {
                Phase::Over => return,
                Phase::Busy | Phase::Quiet => self.visit(false).await,
                Phase::Settle => self.visit(true).await,
            }
            if self.round.is_busy() && self.old.is_none() && self.random.chance(6) {
                self.forget().await;
            }
            if self.round.is_busy() && self.random.chance(40) {
                sleep(Duration::from_millis(self.random.below(200))).await;
            }
        }
    }

    /// Decides where the next subscription begins.
    fn next_ask(&mut self) -> Ask {
        let mut ask = self.ask.clone();
        ask.by_header = self.random.chance(50);
        // An older server knows only one of them.
        let parameters = ["after", "lastEventId", "Last-Event-ID", "evs_last_event_id"];
        ask.by_parameter = if self.round.dialect.resumes { *self.random.pick(&parameters) } else { "after" };
        let mate = self.random.pick(&self.round.topics).clone();
        ask.mate = (mate != ask.target.name && self.random.chance(30)).then_some(mate);
        if ask.consumer.is_some() {
            return ask;
        }
        match self.position.take().filter(|_| self.random.chance(85)) {
            Some(position) => {
                ask.start = position;
                self.round.model.lock().unwrap().counts.resumes += 1;
            }
            None => ask.start = self.fresh_start(),
        }
        ask
    }

    async fn visit(&mut self, last: bool) {
        let door = *self.random.pick(&Door::ALL);
        let (instance, addr) = self.round.instance(&mut self.random);
        let mut ask = self.next_ask();
        ask.by_header &= !door.is_socket();
        if !door.is_socket() || ask.target.is_pattern {
            ask.mate = None;
        }
        let visit = self.plan(last, door);
        let mut leg = Leg::new(&self.name, door, ask.clone(), instance, now());
        leg.last = last;
        leg.reads_on = visit.stalls == 0;
        self.round.note(
            &self.name,
            format!("subscribes at {door:?} {:?}{}", ask.start, if last { " to the end" } else { "" }),
        );
        let leg_index = {
            let mut chain = self.round.chains[self.index].lock().unwrap();
            chain.push(leg);
            chain.len() - 1
        };
        self.round.model.lock().unwrap().counts.subscriptions += 1;
        let Some(mut feed) = Feed::open(addr, door, &self.round.dialect, &ask).await else {
            self.end(leg_index, End::Broken);
            sleep(Duration::from_millis(10)).await;
            return;
        };
        if !last && self.random.chance(25) {
            feed.line.budget = self.random.below(4000) as usize;
        }
        let end = self.read(&mut feed, leg_index, &visit).await;
        self.finish_old(!matches!(end, Some(End::Failed(_)))).await;
        match end {
            None => self.leave(feed, leg_index, visit.leave).await,
            Some(end) => {
                if end == End::Cut {
                    self.round.model.lock().unwrap().counts.cuts += 1;
                    feed.line.reset();
                }
                let failed = matches!(end, End::Failed(_) | End::Broken | End::Away);
                self.end(leg_index, end);
                if failed {
                    sleep(Duration::from_millis(10)).await;
                }
            }
        }
    }

    fn plan(&mut self, last: bool, door: Door) -> Visit {
        let random = &mut self.random;
        if last {
            return Visit { until: None, stalls: 0, answers_pings: true, leave: Leave::Orderly };
        }
        let stay = Duration::from_millis(random.below(900));
        let leaves = [Leave::Reset, Leave::Drop, Leave::HalfClose, Leave::Orderly, Leave::Unsubscribe, Leave::TakeOver];
        let mut leave = *random.pick(&leaves);
        if (leave == Leave::TakeOver && self.ask.consumer.is_none())
            || (leave == Leave::Unsubscribe && !door.is_socket())
        {
            leave = Leave::Orderly;
        }
        Visit {
            until: Some(Instant::now() + stay),
            stalls: if random.chance(35) { random.between(1, 40) } else { 0 },
            answers_pings: random.chance(75),
            leave,
        }
    }

    pub fn end(&self, leg: usize, end: End) {
        self.round.note(&self.name, format!("subscription {leg} ends: {end:?}"));
        let leg = &mut self.round.chains[self.index].lock().unwrap()[leg];
        (leg.end, leg.ended) = (end, now());
    }

    /// Reads until it is time to leave (`None`), or the connection ends.
    async fn read(&mut self, feed: &mut Feed, leg: usize, visit: &Visit) -> Option<End> {
        loop {
            if visit.until.is_none() && self.round.phase() == Phase::Over {
                return None;
            }
            let wait = visit.until.map_or(Duration::from_millis(50), |until| until - Instant::now());
            if visit.until.is_some_and(|until| until <= Instant::now()) {
                return None;
            }
            let Ok(item) = timeout(wait, feed.next()).await else { continue };
            if let Some(end) = self.take(feed, leg, item, visit).await {
                return Some(end);
            }
            if visit.stalls > 0 && self.random.chance(visit.stalls) {
                sleep(Duration::from_millis(self.random.below(120))).await;
            }
        }
    }

    /// Takes one item; `Some` when it ends the subscription.
    pub async fn take(&mut self, feed: &mut Feed, index: usize, item: Item, visit: &Visit) -> Option<End> {
        let at = now();
        let chains = &self.round.chains[self.index];
        let door = chains.lock().unwrap()[index].door;
        match item {
            Item::Stands => _ = chains.lock().unwrap()[index].stood.get_or_insert(at),
            Item::Told(told) => chains.lock().unwrap()[index].told = Some(told),
            Item::Message { shown, cursor, pattern_cursor } => {
                {
                    let mut model = self.round.model.lock().unwrap();
                    model.counts.deliveries += 1;
                    // With a filter nothing is said of the message before.
                    let previous = shown.previous.clone().filter(|_| self.ask.filter.is_none());
                    let filtered = shown.previous.clone().flatten().filter(|_| self.ask.filter.is_some());
                    model.seen(&Shown { previous, ..shown.clone() }, &self.name);
                    if let Some(previous) = filtered {
                        let text = format!("{} has a filter and is told of {previous:?} before", self.name);
                        model.violation(&[&self.name], text);
                    }
                }
                self.message(index, at, shown, cursor, pattern_cursor);
                self.acknowledge(feed, index).await;
            }
            Item::Gap(gap) => {
                self.round.model.lock().unwrap().counts.gaps += 1;
                chains.lock().unwrap()[index].events.push((at, Seen::Gap(gap)));
            }
            Item::Deleted(topic) => return self.deleted(index, topic),
            Item::Ping(payload) => {
                if visit.answers_pings {
                    {
                        let leg = &mut chains.lock().unwrap()[index];
                        leg.confirmed = leg.events.len();
                    }
                    let _ = feed.line.write(&websocket::pong(&payload)).await;
                }
            }
            Item::Acknowledged(number, code) => self.acknowledged(index, number.parse().unwrap_or(0), code.as_deref()),
            Item::Failed(code) if code == "TOPIC_DELETED" => {
                let topic = self.ask.target.name.clone();
                return self.deleted(index, topic);
            }
            Item::Failed(code) => return Some(End::Failed(code)),
            Item::Complete => return Some(End::Failed("a complete of its own".to_owned())),
            Item::Closed(code) => match code {
                Some(1001) => return Some(End::Away),
                None if !door.is_socket() => return Some(End::Away),
                code => return Some(End::Failed(format!("close {code:?}"))),
            },
            Item::Ended | Item::Broken => return Some(End::Broken),
            Item::Spent => return Some(End::Cut),
            Item::Invalid(what) => {
                let topic = self.ask.target.name.clone();
                let summary = chains.lock().unwrap()[index].summary();
                let mut model = self.round.model.lock().unwrap();
                model.violation(&[&self.name, &topic], format!("{}: {what}\n  {summary}", self.name));
                return Some(End::Broken);
            }
        }
        None
    }

    fn deleted(&self, index: usize, topic: String) -> Option<End> {
        let leg = &mut self.round.chains[self.index].lock().unwrap()[index];
        leg.events.push((now(), Seen::Deleted(topic)));
        (!self.ask.target.is_pattern).then_some(End::Deleted)
    }

    fn message(&mut self, index: usize, at: u64, shown: Shown, cursor: String, pattern_cursor: Option<String>) {
        let leg = &mut self.round.chains[self.index].lock().unwrap()[index];
        let events = leg.events.len() + 1;
        self.position = match (&pattern_cursor, self.ask.target.is_pattern) {
            (Some(cursor), true) => Some(Start::Resume { cursor: cursor.clone(), leg: index, events }),
            (None, true) => None,
            (_, false) => Some(Start::After { cursor: cursor.clone(), place: shown.place.clone() }),
        };
        let (topic, place, time) = (shown.topic, shown.place, shown.time);
        leg.events.push((at, Seen::Message { topic, place, cursor, pattern_cursor, time }));
    }
}
