//! Which patterns match a topic, and what a pattern's subscribers have still to read.
//!
//! A topic looks its patterns up once and again only when the set of patterns has changed, so publishing does no matching
//! at all: its cost does not grow with the number of patterns or topics. The look-up walks a tree by segments.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use slab::Slab;

use super::{Channel, Error, Pattern, Place, Reader, Waiter};

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
pub(crate) struct Member {
    pub waiter: Arc<Waiter>,
    unread: Mutex<Unread>,
}

#[derive(Default)]
struct Unread {
    readers: HashMap<u64, Reader>,
    turns: VecDeque<u64>,
}

impl Member {
    pub fn new(waiter: Arc<Waiter>) -> Arc<Self> {
        Arc::new(Self { waiter, unread: Mutex::default() })
    }

    /// The topic has something behind `place`. Called under the topic's lock, so that the first call since the topic was
    /// last read to its end names the right place.
    fn touch(&self, topic: &Arc<Channel>, place: Place) {
        let mut unread = self.unread.lock();
        if let Entry::Vacant(vacant) = unread.readers.entry(topic.serial) {
            vacant.insert(Reader::at(topic.clone(), place));
            unread.turns.push_back(topic.serial);
        }
        drop(unread);
        self.waiter.wake();
    }

    /// Sets where a topic is read from, before anything of the subscription was read.
    pub fn seed(&self, reader: Reader) {
        let mut unread = self.unread.lock();
        let serial = reader.topic.serial;
        if unread.readers.insert(serial, reader).is_none() {
            unread.turns.push_back(serial);
        }
    }

    /// Takes the reader whose turn it is. It stays known as unread (messages go on to find it there) until
    /// [`Member::finish`] or [`Member::requeue`].
    pub fn take_turn(&self) -> Option<Reader> {
        let mut unread = self.unread.lock();
        let serial = unread.turns.pop_front()?;
        unread
            .readers
            .get_mut(&serial)
            .map(|reader| std::mem::replace(reader, Reader::at(reader.topic.clone(), reader.place)))
    }

    /// Puts a reader that has more to read at the end of the line.
    pub fn requeue(&self, reader: Reader) {
        let mut unread = self.unread.lock();
        let serial = reader.topic.serial;
        unread.readers.insert(serial, reader);
        unread.turns.push_back(serial);
    }

    /// Forgets a topic that was read to its end. To be called under that topic's lock: the next message then names its
    /// own place.
    pub fn finish(&self, serial: u64) {
        self.unread.lock().readers.remove(&serial);
    }

    pub fn has_unread(&self) -> bool {
        !self.unread.lock().turns.is_empty()
    }
}

/// A subscriber's place in a group; leaving is dropping.
pub(crate) struct Membership {
    group: Arc<Group>,
    slot: usize,
    pattern: Pattern,
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

    /// The place of the pattern's group, with the nodes that lead to it.
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

    /// Clears the pattern's place when its group has no member, and prunes the nodes that led only there.
    fn prune(&mut self, segments: &[&str]) -> bool {
        let vacate = |place: &mut Option<Arc<Group>>| {
            let empty = place.as_ref().is_some_and(|group| group.members.lock().is_empty());
            if empty {
                *place = None;
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

    /// Tells the subscribers of all matching patterns that `topic` has something behind `place`. To be called under the
    /// topic's lock.
    pub fn touch(&self, topic: &Arc<Channel>, matched: &mut Matched, place: Place) {
        self.refresh(topic.name.as_str(), matched);
        for group in &matched.groups {
            for (_, member) in group.members.lock().iter() {
                member.touch(topic, place);
            }
        }
    }

    /// How many subscribers a topic has through patterns.
    pub fn subscribers(&self, name: &str, matched: &mut Matched) -> usize {
        self.refresh(name, matched);
        matched.groups.iter().map(|group| group.members.lock().len()).sum()
    }

    /// How many different patterns are subscribed.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}
