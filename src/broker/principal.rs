//! On whose behalf something is done, and what they may do at the moment.
//!
//! A principal's rights can change and end while it has subscriptions. Each subscription is registered here, is woken by a
//! change, and looks again at what it may read. Between two changes that costs a comparison of two numbers for each batch.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use parking_lot::{Mutex, RwLock};
use slab::Slab;

use super::{Error, Pattern, Right, Rights, Source, TopicName};
use crate::channel::{Bucket, ConsumerName, Shown, Waiter};

/// What a client without credentials is told.
const NO_CREDENTIALS: &str = "this needs credentials: a key or a token";
/// What a client is told whose credentials were good once.
const NO_LONGER_VALID: &str = "the credentials have expired or were withdrawn";

/// On whose behalf something is done, by virtue of one credential; clones are the same principal.
#[derive(Clone, Default)]
pub struct Principal(Option<Arc<Credential>>);

/// A principal that does not keep itself alive.
#[derive(Clone)]
pub struct WeakPrincipal(Weak<Credential>);

impl WeakPrincipal {
    /// The principal, if anything still acts for it.
    #[must_use]
    pub fn upgrade(&self) -> Option<Principal> {
        self.0.upgrade().map(|credential| Principal(Some(credential)))
    }
}

/// Who a principal is, whichever of its credentials it uses.
pub struct Identity {
    name: Arc<str>,
    kind: Kind,
    rate: Mutex<Bucket>,
    max_connections: AtomicUsize,
    connections: AtomicUsize,
}

/// How a principal is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It has not said who it is.
    Anonymous,
    /// By the one key that may do everything. Its consumers are those of a server without access rules.
    Administrator,
    /// By a name of its own.
    Named,
}

/// What a principal may do by virtue of a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Everything.
    Everything,
    /// What these rights say.
    Rights(Rights),
}

struct Credential {
    identity: Arc<Identity>,
    /// `None` once it has expired or was withdrawn.
    grant: RwLock<Option<Arc<Grant>>>,
    /// Grows with every change of the grant.
    version: AtomicU64,
    watchers: Mutex<Slab<Arc<Waiter>>>,
}

impl Identity {
    /// Somebody of this name. `max_publish_rate` is in messages a second, over all topics; 0 means no limit, here and for
    /// the connections.
    #[must_use]
    pub fn new(name: &str, kind: Kind, max_publish_rate: u32, max_connections: usize) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            kind,
            rate: Mutex::new(Bucket::new(max_publish_rate)),
            max_connections: max_connections.into(),
            connections: AtomicUsize::new(0),
        })
    }

    /// Its name, as logs, metrics and subscriptions show it.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Sets other limits; 0 means none.
    pub fn set_limits(&self, max_publish_rate: u32, max_connections: usize) {
        let mut rate = self.rate.lock();
        if rate.per_second() != max_publish_rate {
            *rate = Bucket::new(max_publish_rate);
        }
        self.max_connections.store(max_connections, Ordering::Relaxed);
    }

    /// Takes one token of its publish rate.
    fn take_token(&self) -> Result<(), Error> {
        self.rate.lock().take().map_err(of_client)
    }
}

/// The same refusal, as that of a client's rate.
pub(super) fn of_client(error: Error) -> Error {
    match error {
        Error::RateLimited { per_second, wait } => Error::ClientRateLimited { per_second, wait },
        other => other,
    }
}

impl Principal {
    /// A client of a server without access rules: it may do everything.
    #[must_use]
    pub fn anyone() -> Self {
        Self(None)
    }

    /// Somebody who may do nothing, for what everybody may ask.
    #[must_use]
    pub fn nobody() -> Self {
        Self::new(Identity::new("anonymous", Kind::Anonymous, 0, 0), Grant::Rights(Rights::default()))
    }

    /// A principal by virtue of a new credential.
    #[must_use]
    pub fn new(identity: Arc<Identity>, grant: Grant) -> Self {
        Self(Some(Arc::new(Credential {
            identity,
            grant: RwLock::new(Some(Arc::new(grant))),
            version: AtomicU64::new(0),
            watchers: Mutex::default(),
        })))
    }

    /// The same without keeping it alive; `None` on a server without access rules.
    #[must_use]
    pub fn downgrade(&self) -> Option<WeakPrincipal> {
        self.0.as_ref().map(|credential| WeakPrincipal(Arc::downgrade(credential)))
    }

    /// Its name; `None` on a server without access rules.
    #[must_use]
    pub fn name(&self) -> Option<&Arc<str>> {
        self.0.as_ref().map(|credential| &credential.identity.name)
    }

    fn kind(&self) -> Kind {
        self.0.as_ref().map_or(Kind::Administrator, |credential| credential.identity.kind)
    }

    /// Whether it has not said who it is, on a server with access rules.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.kind() == Kind::Anonymous
    }

    /// Tells it from all others that there are at the same time; 0 for a client of a server without access rules.
    #[must_use]
    pub fn number(&self) -> usize {
        self.0.as_ref().map_or(0, |credential| Arc::as_ptr(credential).addr())
    }

    /// Whether both are the same principal, perhaps by different credentials.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.name() == other.name()
    }

    /// The owner of the consumers that it makes.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        let credential = self.0.as_ref()?;
        (credential.identity.kind != Kind::Administrator).then_some(&*credential.identity.name)
    }

    /// The same consumer name, as this principal's own.
    pub(super) fn own(&self, consumer: &ConsumerName) -> Result<ConsumerName, Error> {
        consumer.owned_by(self.owner())
    }

    // ---- what it may do

    /// What it may do at the moment.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] once the credential has expired or was withdrawn.
    pub(super) fn grant(&self) -> Result<Option<Arc<Grant>>, Error> {
        let Some(credential) = &self.0 else { return Ok(None) };
        credential.grant.read().clone().map(Some).ok_or(Error::Unauthenticated(NO_LONGER_VALID))
    }

    /// Whether the credential is valid.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] once it has expired or was withdrawn.
    pub fn check_valid(&self) -> Result<(), Error> {
        self.grant().map(drop)
    }

    /// Whether there is nothing at all that it may do.
    #[must_use]
    pub fn may_nothing(&self) -> bool {
        match self.grant() {
            Ok(None) => false,
            Ok(Some(grant)) => matches!(&*grant, Grant::Rights(rights) if rights.is_nothing()),
            Err(_) => true,
        }
    }

    /// Whether it may do everything, or has rights of which `allowed` says that they allow this `action`.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::Unauthenticated`].
    fn check(&self, allowed: impl FnOnce(&Rights) -> bool, action: impl FnOnce() -> String) -> Result<(), Error> {
        match self.grant()?.as_deref() {
            None | Some(Grant::Everything) => Ok(()),
            Some(Grant::Rights(rights)) if allowed(rights) => Ok(()),
            Some(Grant::Rights(_)) => Err(self.refused(action())),
        }
    }

    /// The error for a client that has to say who it is.
    #[must_use]
    pub fn has_to_sign_in(&self) -> Error {
        self.check_valid().err().unwrap_or(Error::Unauthenticated(NO_CREDENTIALS))
    }

    /// The error for credentials of another principal on a connection of this one.
    #[must_use]
    pub fn not_this_connection(&self) -> Error {
        self.refused("pass its connection on to another principal".to_owned())
    }

    /// The error for what it may not do. One that has not said who it is may be somebody who may.
    pub(super) fn refused(&self, action: String) -> Error {
        match self.name() {
            Some(name) if !self.is_anonymous() => Error::Forbidden { principal: name.to_string(), action },
            _ => Error::Unauthenticated(NO_CREDENTIALS),
        }
    }

    /// Whether this may be done to a topic.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::Unauthenticated`].
    pub(super) fn check_topic(&self, right: Right, topic: &TopicName) -> Result<(), Error> {
        self.check(|rights| rights.allow(right, topic), || action(right, &format!("topic {topic:?}")))
    }

    /// Whether this may be done to all that a topic or pattern stands for.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::Unauthenticated`].
    pub(super) fn check_all_of(&self, right: Right, source: &Source) -> Result<(), Error> {
        self.check(|rights| rights.cover(right, source), || action(right, &format!("{:?}", source.as_str())))
    }

    /// Whether some of what a topic or pattern stands for may be read.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::Unauthenticated`].
    pub(super) fn check_readable(&self, source: &Source) -> Result<(), Error> {
        match source {
            Source::Topic(topic) => self.check_topic(Right::Subscribe, topic),
            Source::Pattern(pattern) => self.readable(pattern).map(drop),
        }
    }

    /// The parts of a pattern that may be read.
    ///
    /// # Errors
    /// [`Error::Forbidden`] or [`Error::Unauthenticated`] if there are none.
    pub(super) fn readable(&self, pattern: &Pattern) -> Result<Vec<Pattern>, Error> {
        let parts = match self.grant()?.as_deref() {
            None | Some(Grant::Everything) => vec![pattern.clone()],
            Some(Grant::Rights(rights)) => rights.readable(pattern),
        };
        if parts.is_empty() {
            return Err(self.refused(action(Right::Subscribe, &format!("pattern {:?}", pattern.as_str()))));
        }
        Ok(parts)
    }

    /// Which topics' events may be seen; all for `None`.
    ///
    /// # Errors
    /// [`Error::Forbidden`] or [`Error::Unauthenticated`] if there can be none.
    pub(super) fn shown_events(&self, about: Option<&Pattern>) -> Result<Option<Shown>, Error> {
        let may_see = |rights: &Rights| match about {
            Some(pattern) => rights.show_some(pattern),
            None => rights.show_any(),
        };
        self.check(may_see, || "see events of these topics".to_owned())?;
        self.shown()
    }

    /// Which topics a list shows; all for `None`.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], also for whoever has not said who it is and may see nothing.
    pub(super) fn shown_list(&self) -> Result<Option<Shown>, Error> {
        if self.is_anonymous() {
            self.check(Rights::show_any, || "list topics".to_owned())?;
        }
        self.shown()
    }

    /// Which topics may be seen; all for `None`.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`].
    fn shown(&self) -> Result<Option<Shown>, Error> {
        Ok(match self.grant()? {
            Some(grant) if *grant != Grant::Everything => Some(Arc::new(move |topic: &str| match &*grant {
                Grant::Everything => true,
                Grant::Rights(rights) => rights.show(topic),
            })),
            _ => None,
        })
    }

    /// Whether a topic may be seen, by whoever may do anything to it.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::Unauthenticated`].
    pub(super) fn check_visible(&self, topic: &TopicName) -> Result<(), Error> {
        self.check(|rights| rights.show(topic.as_str()), || format!("see topic {topic:?}"))
    }

    /// Whether statistics may be read.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::Unauthenticated`].
    pub(super) fn check_stats(&self) -> Result<(), Error> {
        self.check(|rights| rights.stats, || "read statistics".to_owned())
    }

    /// Takes one token of its own publish rate. `Ok(false)` where it has none, so that that of all clients holds.
    pub(super) fn take_token(&self) -> Result<bool, Error> {
        let Some(Credential { identity, .. }) = self.0.as_deref() else { return Ok(false) };
        if identity.rate.lock().per_second() == 0 {
            return Ok(false);
        }
        identity.take_token().map(|()| true)
    }

    // ---- connections

    /// Counts a socket or a stream of this principal, until the guard is dropped.
    ///
    /// # Errors
    /// [`Error::LimitReached`] for one too many.
    pub fn connect(&self) -> Result<Option<PrincipalConnection>, Error> {
        let Some(Credential { identity, .. }) = self.0.as_deref() else { return Ok(None) };
        let limit = identity.max_connections.load(Ordering::Relaxed);
        let guard = PrincipalConnection(identity.clone());
        if identity.connections.fetch_add(1, Ordering::Relaxed) >= limit && limit > 0 {
            return Err(Error::LimitReached { what: "connections of this key (max_connections)", limit, own: true });
        }
        Ok(Some(guard))
    }

    // ---- changes

    /// Sets what the credential allows from now on. Subscriptions to what was lost end.
    pub fn set_grant(&self, grant: Grant) {
        self.change(Some(grant));
    }

    /// The credential has expired, or was withdrawn: subscriptions end, and nothing is allowed any more.
    pub fn withdraw(&self) {
        self.change(None);
    }

    fn change(&self, grant: Option<Grant>) {
        let Some(credential) = &self.0 else { return };
        {
            let mut current = credential.grant.write();
            if current.as_deref() == grant.as_ref() {
                return;
            }
            *current = grant.map(Arc::new);
            credential.version.fetch_add(1, Ordering::Release);
        }
        let watchers: Vec<_> = credential.watchers.lock().iter().map(|(_, waiter)| waiter.clone()).collect();
        for waiter in watchers {
            waiter.wake();
        }
    }

    /// Has `waiter` woken by every change from now on, until the watch is dropped.
    pub(super) fn watch(&self, waiter: &Arc<Waiter>) -> Watch {
        let slot = self.0.as_ref().map(|credential| credential.watchers.lock().insert(waiter.clone()));
        Watch { principal: self.clone(), waiter: waiter.clone(), slot, seen: self.version() }
    }

    /// Grows with every change of what it may do.
    pub(super) fn version(&self) -> u64 {
        self.0.as_ref().map_or(0, |credential| credential.version.load(Ordering::Acquire))
    }
}

impl std::fmt::Debug for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Principal").field(&self.name()).finish()
    }
}

fn action(right: Right, what: &str) -> String {
    match right {
        Right::Publish => format!("publish to {what}"),
        Right::Subscribe => format!("subscribe to {what}"),
        Right::Manage => format!("manage {what}"),
    }
}

/// A socket or a stream of a principal, for the bound on them.
pub struct PrincipalConnection(Arc<Identity>);

impl Drop for PrincipalConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Wakes a subscription or a connection when what its principal may do has changed, until it is dropped.
pub struct Watch {
    principal: Principal,
    waiter: Arc<Waiter>,
    slot: Option<usize>,
    /// The change that the subscription has taken into account.
    seen: u64,
}

impl Watch {
    /// The subscription has taken into account what the principal might do at this version, and nothing later.
    pub(super) fn has_seen(&mut self, version: u64) {
        self.seen = version;
    }

    /// To be called when it has woken: the next change wakes again.
    pub fn rearm(&self) {
        self.waiter.rearm();
    }

    /// The principal, if it has changed since this returned it last.
    pub(super) fn changed(&mut self) -> Option<&Principal> {
        let version = self.principal.version();
        if version == self.seen {
            return None;
        }
        self.seen = version;
        Some(&self.principal)
    }

    /// The principal.
    pub(super) fn principal(&self) -> &Principal {
        &self.principal
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let (Some(credential), Some(slot)) = (&self.principal.0, self.slot) {
            credential.watchers.lock().try_remove(slot);
        }
    }
}
