//! Which patterns match a topic, and what a pattern's subscribers have still to read.
//!
//! A topic looks its patterns up once and again only when the set of patterns has changed, so publishing does no
//! matching at all: its cost does not grow with the number of patterns or topics. The look-up walks a tree by segments.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet, hash_map::Entry},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use slab::Slab;
use smallvec::SmallVec;

use super::{
    Channel, Error, LogPosition, Pattern, PatternCursor, ReadPosition, Reader, SubscriptionId, TopicName, Waiter,
    sequencer::MAX_LOGS,
};

/// The patterns that match one topic, as of a version of the set.
#[derive(Default)]
pub(crate) struct Matched {
    version: u64,
    groups: Box<[Arc<Group>]>,
}

/// All subscribers of one pattern.
pub(crate) struct Group {
    members: Mutex<Slab<Arc<Member>>>,
}

/// One subscriber of a pattern: which topics it has still to read, each from where.
///
/// Topics of one log are read in the order of the messages' numbers in it, so that one number says how far all of them
/// were read. What is gone counts: the reader of an evicted message is as early as that message, and tells the gap
/// there.
pub(crate) struct Member {
    pub waiter: Arc<Waiter>,
    /// Whether it is in several groups, and so perhaps several times among the subscribers of a topic.
    in_several: AtomicBool,
    unread: Mutex<Unread>,
}

#[derive(Default)]
struct Unread {
    readers: HashMap<u64, Reader>,
    logs: [LogUnread; MAX_LOGS],
    /// The log that was read last: they take turns, as their numbers cannot be compared.
    last_log: usize,
    /// Topics that were deleted with unread messages before the subscription began.
    deleted: Vec<TopicName>,
    /// How many topics are read whose state is not complete.
    in_state: usize,
}

/// What is unread of one log.
#[derive(Default)]
struct LogUnread {
    /// Readers by the number with which they go on. One that has moved meanwhile stands under its old number, too.
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    /// How far the log was read.
    position: Option<LogPosition>,
}

impl Unread {
    fn enqueue(&mut self, reader: Reader) {
        let serial = reader.topic.serial;
        self.logs[reader.topic.sequencer.index].queue.push(Reverse((reader.next_sequence, serial)));
        self.readers.insert(serial, reader);
    }

    /// The number with which the log's next reader goes on.
    fn next_of(&mut self, log: usize) -> Option<u64> {
        let Self { readers, logs, .. } = self;
        let queue = &mut logs[log].queue;
        while let Some(Reverse((sequence, serial))) = queue.peek() {
            if readers.get(serial).is_some_and(|reader| reader.next_sequence == *sequence) {
                return Some(*sequence);
            }
            queue.pop();
        }
        None
    }
}

impl Member {
    pub fn new(waiter: Arc<Waiter>) -> Arc<Self> {
        Arc::new(Self { waiter, in_several: AtomicBool::new(false), unread: Mutex::default() })
    }

    /// The topic has something behind `position`, which begins with the number `first`. Called under the locks of the
    /// topic and of its log's sequencer, so that the first call since the topic was last read to its end names the
    /// right position.
    fn touch(&self, topic: &Arc<Channel>, position: ReadPosition, first: u64) {
        let mut unread = self.unread.lock();
        if let Entry::Vacant(vacant) = unread.readers.entry(topic.serial) {
            vacant.insert(Reader::at(topic.clone(), position, first));
            unread.logs[topic.sequencer.index].queue.push(Reverse((first, topic.serial)));
        }
        drop(unread);
        self.waiter.wake();
    }

    /// Sets where a topic is read from, before anything of the subscription was read.
    pub fn seed(&self, reader: Reader) {
        let mut unread = self.unread.lock();
        unread.in_state += usize::from(reader.is_in_state());
        unread.enqueue(reader);
    }

    /// Whether all topics were at the end once that are read for their state.
    pub fn has_read_state(&self) -> bool {
        self.unread.lock().in_state == 0
    }

    /// A topic that was read for its state is at the end.
    pub fn state_was_read(&self) {
        let mut unread = self.unread.lock();
        unread.in_state = unread.in_state.saturating_sub(1);
    }

    /// Says that a topic of the pattern was deleted with unread messages.
    pub fn seed_deleted(&self, topic: TopicName) {
        self.unread.lock().deleted.push(topic);
    }

    /// The topics that were deleted with unread messages, once.
    pub fn take_deleted(&self) -> Vec<TopicName> {
        std::mem::take(&mut self.unread.lock().deleted)
    }

    /// Sets how far the logs were read when the subscription begins.
    pub fn begin(&self, positions: impl Iterator<Item = (usize, LogPosition)>) {
        let mut unread = self.unread.lock();
        for (log, position) in positions {
            unread.logs[log].position = Some(position);
        }
    }

    /// The number up to which a log was read.
    pub fn read_up_to(&self, log: usize) -> u64 {
        self.unread.lock().logs[log].position.map_or(0, |position| position.sequence)
    }

    /// Before its unread messages, if there are any of a log, no position in it may lie.
    pub fn begin_before_unread(&self) {
        let mut unread = self.unread.lock();
        for log in 0..MAX_LOGS {
            if let Some(first) = unread.next_of(log)
                && let Some(position) = &mut unread.logs[log].position
            {
                position.sequence = position.sequence.min(first.saturating_sub(1));
            }
        }
    }

    /// Takes the reader that goes on first. It stays known as unread (messages go on to find it there) until
    /// [`Member::finish`] or [`Member::requeue`].
    pub fn take_next(&self) -> Option<Reader> {
        let mut unread = self.unread.lock();
        let last = unread.last_log;
        let log = (1..=MAX_LOGS).map(|step| (last + step) % MAX_LOGS).find(|log| unread.next_of(*log).is_some())?;
        unread.last_log = log;
        let Reverse((_, serial)) = unread.logs[log].queue.pop()?;
        let reader = unread.readers.get_mut(&serial)?;
        let (topic, position, next) = (reader.topic.clone(), reader.position, reader.next_sequence);
        Some(std::mem::replace(reader, Reader::at(topic, position, next)))
    }

    /// The newest number of a log that may be read now: that of the next topic in it.
    pub fn newest_of(&self, log: usize) -> u64 {
        self.unread.lock().next_of(log).unwrap_or(u64::MAX)
    }

    /// A message of this log was read. Returns the position over all logs behind it.
    pub fn passed(&self, log: usize, position: LogPosition) -> PatternCursor {
        self.unread.lock().logs[log].position = Some(position);
        self.cursor()
    }

    /// The position over all logs.
    pub fn cursor(&self) -> PatternCursor {
        PatternCursor { logs: self.unread.lock().logs.iter().filter_map(|log| log.position).collect() }
    }

    /// All messages of this log up to a number were looked at.
    pub fn looked_at(&self, log: usize, position: LogPosition) {
        let known = &mut self.unread.lock().logs[log].position;
        if known.is_none_or(|known| known.epoch != position.epoch || known.sequence < position.sequence) {
            *known = Some(position);
        }
    }

    /// Puts a reader that has more to read back into its log's queue.
    pub fn requeue(&self, reader: Reader) {
        self.unread.lock().enqueue(reader);
    }

    /// Forgets a topic that was read to its end. To be called under that topic's lock: the next message then names its
    /// own position.
    pub fn finish(&self, serial: u64) {
        self.unread.lock().readers.remove(&serial);
    }

    /// Whether everything up to these positions was read.
    pub fn has_passed(&self, positions: &[(usize, u64)]) -> bool {
        let mut unread = self.unread.lock();
        unread.deleted.is_empty()
            && positions.iter().all(|(log, sequence)| unread.next_of(*log).is_none_or(|next| next > *sequence))
    }

    /// Where it stands in a topic of which it has something to read.
    pub fn standing(&self, serial: u64) -> Option<ReadPosition> {
        self.unread.lock().readers.get(&serial).map(|reader| reader.position)
    }

    /// The topics of which it has something to read, and where it stands in each.
    pub fn unread(&self) -> Vec<(Arc<Channel>, ReadPosition)> {
        self.unread.lock().readers.values().map(|reader| (reader.topic.clone(), reader.position)).collect()
    }

    /// Drops what is unread of other topics than these.
    pub fn keep(&self, is_kept: impl Fn(&str) -> bool) {
        let mut unread = self.unread.lock();
        // Queues skip what has no reader.
        unread.readers.retain(|_, reader| is_kept(reader.topic.name.as_str()));
        unread.deleted.retain(|name| is_kept(name.as_str()));
        unread.in_state = unread.readers.values().filter(|reader| reader.is_in_state()).count();
    }

    pub fn has_unread(&self) -> bool {
        let unread = self.unread.lock();
        !unread.readers.is_empty() || !unread.deleted.is_empty()
    }
}

/// A subscriber's memberships: one for each part of its pattern that it may read.
pub(crate) type Memberships = SmallVec<[Membership; 1]>;

/// A subscriber's membership of a group; dropping it leaves the group.
pub(crate) struct Membership {
    group: Arc<Group>,
    slot: usize,
    pub(super) pattern: Pattern,
    patterns: Weak<Patterns>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.group.members.lock().try_remove(self.slot);
        if let Some(patterns) = self.patterns.upgrade() {
            patterns.remove_if_empty(&self.pattern);
        }
    }
}

/// The set of patterns that are subscribed.
pub(crate) struct Patterns {
    root: RwLock<Node>,
    /// Grows with every change of the set; starts at 1, so that a new topic's empty look-up (0) is out of date.
    version: AtomicU64,
    count: AtomicUsize,
    limit: usize,
    /// Tree nodes visited, for the test that publishing visits none.
    pub steps: AtomicU64,
}

#[derive(Default)]
struct Node {
    literal: HashMap<Box<str>, Node>,
    any: Option<Box<Node>>,
    /// The pattern that ends here.
    here: Option<Arc<Group>>,
    /// The pattern that ends in `>` after this segment.
    rest: Option<Arc<Group>>,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.literal.is_empty() && self.any.is_none() && self.here.is_none() && self.rest.is_none()
    }

    fn collect(&self, segments: &[&str], found: &mut Vec<Arc<Group>>, steps: &mut u64) {
        *steps += 1;
        let Some((first, others)) = segments.split_first() else {
            found.extend(self.here.clone());
            return;
        };
        found.extend(self.rest.clone());
        if let Some(child) = self.literal.get(*first) {
            child.collect(others, found, steps);
        }
        if let Some(child) = &self.any {
            child.collect(others, found, steps);
        }
    }

    /// The subscription of the first member that is meant.
    fn find(&self, is_meant: &impl Fn(&Arc<Member>) -> bool) -> Option<Arc<Waiter>> {
        let groups = self.here.iter().chain(&self.rest);
        let in_group = |group: &Arc<Group>| {
            let members = group.members.lock();
            members.iter().map(|(_, member)| member).find(|member| is_meant(member)).map(|it| it.waiter.clone())
        };
        let children = self.literal.values().chain(self.any.as_deref());
        groups.into_iter().find_map(in_group).or_else(|| children.into_iter().find_map(|child| child.find(is_meant)))
    }

    /// The slot of the pattern's group, with the nodes that lead to it.
    fn slot(&mut self, pattern: &Pattern) -> &mut Option<Arc<Group>> {
        let mut node = self;
        for segment in pattern.as_str().split('.') {
            node = match segment {
                ">" => return &mut node.rest,
                "*" => node.any.get_or_insert_default(),
                literal => node.literal.entry(literal.into()).or_default(),
            };
        }
        &mut node.here
    }

    /// Clears the pattern's slot when its group has no member, and prunes the nodes that led only there.
    fn prune(&mut self, segments: &[&str]) -> bool {
        let vacate = |slot: &mut Option<Arc<Group>>| {
            let empty = slot.as_ref().is_some_and(|group| group.members.lock().is_empty());
            if empty {
                *slot = None;
            }
            empty
        };
        match segments.split_first() {
            None => vacate(&mut self.here),
            Some((&">", [])) => vacate(&mut self.rest),
            Some((&"*", others)) => {
                let Some(child) = &mut self.any else { return false };
                let removed = child.prune(others);
                if child.is_empty() {
                    self.any = None;
                }
                removed
            }
            Some((literal, others)) => {
                let Some(child) = self.literal.get_mut(*literal) else { return false };
                let removed = child.prune(others);
                if child.is_empty() {
                    self.literal.remove(*literal);
                }
                removed
            }
        }
    }
}

impl Patterns {
    /// At most `limit` different patterns.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            root: RwLock::default(),
            version: AtomicU64::new(1),
            count: AtomicUsize::new(0),
            limit,
            steps: AtomicU64::new(0),
        })
    }

    /// Makes `member` a subscriber of each of these patterns. A topic that several of them match reaches it once.
    ///
    /// # Errors
    /// As [`Patterns::join`]; the member has then joined none.
    pub fn join_all(self: &Arc<Self>, patterns: &[Pattern], member: &Arc<Member>) -> Result<Memberships, Error> {
        member.in_several.fetch_or(patterns.len() > 1, Ordering::Relaxed);
        patterns.iter().map(|pattern| self.join(pattern, member.clone())).collect()
    }

    /// Makes `member` a subscriber of `pattern`: every message published from now on in a matching topic reaches it.
    ///
    /// # Errors
    /// [`Error::LimitReached`] when the pattern would be one too many.
    pub fn join(self: &Arc<Self>, pattern: &Pattern, member: Arc<Member>) -> Result<Membership, Error> {
        let mut root = self.root.write();
        let full = self.count.load(Ordering::Relaxed) >= self.limit;
        let slot = root.slot(pattern);
        let group = match slot {
            Some(group) => group.clone(),
            None if full => {
                root.prune(&pattern.as_str().split('.').collect::<Vec<_>>());
                return Err(Error::LimitReached { what: "patterns on this server", limit: self.limit, own: false });
            }
            None => {
                self.count.fetch_add(1, Ordering::Relaxed);
                self.version.fetch_add(1, Ordering::Release);
                slot.insert(Arc::new(Group { members: Mutex::default() })).clone()
            }
        };
        let slot = group.members.lock().insert(member);
        Ok(Membership { group, slot, pattern: pattern.clone(), patterns: Arc::downgrade(self) })
    }

    fn remove_if_empty(&self, pattern: &Pattern) {
        if self.root.write().prune(&pattern.as_str().split('.').collect::<Vec<_>>()) {
            self.count.fetch_sub(1, Ordering::Relaxed);
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Brings a topic's look-up up to date.
    fn refresh(&self, name: &str, matched: &mut Matched) {
        if matched.version == self.version.load(Ordering::Acquire) {
            return;
        }
        let root = self.root.read();
        matched.version = self.version.load(Ordering::Acquire);
        let mut found = Vec::new();
        let mut steps = 0;
        root.collect(&name.split('.').collect::<Vec<_>>(), &mut found, &mut steps);
        self.steps.fetch_add(steps, Ordering::Relaxed);
        matched.groups = found.into();
    }

    /// Tells the subscribers of all matching patterns that `topic` has something behind `position`, which begins with
    /// the number `first` in the shared log. To be called under the locks of the topic and of the log's sequencer.
    pub fn touch(&self, topic: &Arc<Channel>, matched: &mut Matched, position: ReadPosition, first: u64) {
        self.refresh(topic.name.as_str(), matched);
        for group in &matched.groups {
            for (_, member) in group.members.lock().iter() {
                member.touch(topic, position, first);
            }
        }
    }

    /// How many subscribers a topic has through patterns.
    pub fn subscribers(&self, name: &str, matched: &mut Matched) -> usize {
        self.refresh(name, matched);
        let mut counted_before = HashSet::new();
        let mut count_in = |group: &Arc<Group>| {
            let members = group.members.lock();
            let repeated = members.iter().filter(|(_, member)| {
                member.in_several.load(Ordering::Relaxed) && !counted_before.insert(Arc::as_ptr(member))
            });
            members.len() - repeated.count()
        };
        match &*matched.groups {
            [only] => only.members.lock().len(),
            groups => groups.iter().map(&mut count_in).sum(),
        }
    }

    /// The subscribers that a topic has through patterns, each once.
    pub fn members(&self, name: &str, matched: &mut Matched) -> Vec<Arc<Member>> {
        self.refresh(name, matched);
        let mut found = Vec::new();
        let mut in_several = HashSet::new();
        for group in &matched.groups {
            let members = group.members.lock();
            let once = members
                .iter()
                .map(|(_, member)| member)
                .filter(|member| !member.in_several.load(Ordering::Relaxed) || in_several.insert(Arc::as_ptr(member)));
            found.extend(once.cloned());
        }
        found
    }

    /// The subscription to a pattern that has this id.
    pub fn find_subscription(&self, id: SubscriptionId) -> Option<Arc<Waiter>> {
        self.root.read().find(&|member: &Arc<Member>| member.waiter.subscriber.id == id)
    }

    /// How many different patterns are subscribed.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}
