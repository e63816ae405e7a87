//! Who is who: finds the principal of a credential, keeps up with changed rules and keys, and withdraws what has expired.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::{Mutex, RwLock};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use axum::http::request::Parts;

use super::{
    ANONYMOUS, API_KEY, AccessRules, KeyHash, KeyRule, Refusal, Reload, Settings, Tokens, WatchedFile, found,
    refusals::{Reason, Refusals},
    sessions::Sessions,
};
use crate::{
    broker::{ClientInfo, Error, Grant, Identity, Kind, MetricSample, Principal, RequestId, Timestamp},
    problem::{Code, Problem},
    socket::Upgrade,
};

/// How often what has expired is looked for. Subscriptions end within a second.
const EXPIRY_INTERVAL: std::time::Duration = std::time::Duration::from_millis(250);

/// Who may come in, and what they may do; clones share it.
#[derive(Clone)]
pub struct Access(Arc<Shared>);

struct Shared {
    settings: Settings,
    is_restricted: bool,
    administrator: Option<(KeyHash, Principal)>,
    rules: RwLock<Rules>,
    tokens: Option<Tokens>,
    sessions: Sessions,
    /// By name: all credentials of one name are one principal.
    identities: Mutex<HashMap<String, Weak<Identity>>>,
    /// Messages a second of a principal for which the rules say nothing; 0 means no limit.
    default_rate: u32,
    refusals: Refusals,
    reload: Reload,
}

/// What the access file says, with its principals.
struct Rules {
    anonymous: Principal,
    keys: Vec<(KeyRule, Principal)>,
    by_hash: HashMap<KeyHash, usize>,
    by_subject: HashMap<String, usize>,
}

impl Access {
    /// Reads the keys and rules that the settings name. `default_rate` is `MAX_PUBLISH_RATE_PER_CLIENT`.
    ///
    /// # Errors
    /// What cannot be used, in one line that names the setting.
    pub fn open(settings: &Settings, default_rate: u32) -> Result<Self, String> {
        settings.check()?;
        let (rules, tokens) = (settings.access_rules()?, Tokens::open(settings)?);
        let api_key = settings.api_key.reveal();
        let administrator = (!api_key.is_empty()).then(|| {
            let identity = Identity::new(API_KEY, Kind::Administrator, default_rate, 0);
            (KeyHash::of(api_key), Principal::new(identity, Grant::Everything))
        });
        let nobody = Identity::new(ANONYMOUS, Kind::Anonymous, 0, 0);
        let access = Self(Arc::new(Shared {
            settings: settings.clone(),
            is_restricted: settings.is_restricted(),
            administrator,
            rules: RwLock::new(Rules {
                anonymous: Principal::new(nobody, Grant::Rights(super::Rights::default())),
                keys: Vec::new(),
                by_hash: HashMap::new(),
                by_subject: HashMap::new(),
            }),
            tokens,
            sessions: Sessions::default(),
            identities: Mutex::default(),
            default_rate,
            refusals: Refusals::default(),
            reload: Reload::default(),
        }));
        access.install(rules.unwrap_or_default());
        Ok(access)
    }

    /// Whether anybody has to say who it is.
    #[must_use]
    pub fn is_restricted(&self) -> bool {
        self.0.is_restricted
    }

    /// Asks for files and keys to be read again.
    #[must_use]
    pub fn reload(&self) -> &Reload {
        &self.0.reload
    }

    /// The principal of whoever has not said who it is.
    #[must_use]
    pub fn anonymous(&self) -> Principal {
        if self.0.is_restricted { self.0.rules.read().anonymous.clone() } else { Principal::anyone() }
    }

    /// The principal of a client certificate.
    #[must_use]
    pub fn of_certificate(&self, subject: &str) -> Option<Principal> {
        if !self.0.is_restricted {
            return Some(Principal::new(self.identity(subject, 0, 0), Grant::Everything));
        }
        let rules = self.0.rules.read();
        rules.by_subject.get(subject).and_then(|index| rules.keys.get(*index)).map(|(_, principal)| principal.clone())
    }

    /// Finds out whose credential this is. A token that names an unknown key may wait for up to 2 s until keys were fetched.
    ///
    /// # Errors
    /// `UNAUTHENTICATED`; the problem does not contain the credential.
    pub async fn authenticate(&self, credential: &str, from: ClientInfo) -> Result<Principal, Problem> {
        if !self.0.is_restricted {
            return Ok(Principal::anyone());
        }
        let found = self.find(credential).await;
        found.map_err(|(reason, message)| self.refuse(reason, message.to_owned(), from))
    }

    async fn find(&self, credential: &str) -> Result<Principal, (Reason, &'static str)> {
        // What is looked up is a hash: how long that takes says nothing about the keys.
        let hash = KeyHash::of(credential);
        let found = match self.of_key(hash) {
            Some(principal) => principal,
            None => self.of_token(hash, credential).await?,
        };
        match found.check_valid() {
            Ok(()) => Ok(found),
            Err(_) => Err((Reason::Expired, "the credential has expired or was withdrawn")),
        }
    }

    fn of_key(&self, hash: KeyHash) -> Option<Principal> {
        if let Some((_, principal)) = self.0.administrator.as_ref().filter(|(known, _)| *known == hash) {
            return Some(principal.clone());
        }
        let rules = self.0.rules.read();
        rules.by_hash.get(&hash).and_then(|index| rules.keys.get(*index)).map(|(_, principal)| principal.clone())
    }

    async fn of_token(&self, hash: KeyHash, token: &str) -> Result<Principal, (Reason, &'static str)> {
        if let Some(principal) = self.0.sessions.get(hash) {
            return Ok(principal);
        }
        let Some(tokens) = self.0.tokens.as_ref().filter(|_| token.split('.').count() == 3) else {
            return Err((Reason::Unknown, "the credential is not known here"));
        };
        let verified = tokens.verify(token).await;
        let verified = verified.map_err(|refusal: Refusal| (Reason::Token(refusal), refusal.message()))?;
        let identity = self.identity(&verified.name, self.0.default_rate, 0);
        let principal = Principal::new(identity, Grant::Rights(verified.rights));
        self.0.sessions.insert(hash, &principal, verified.expires, verified.key_id);
        Ok(principal)
    }

    /// The one identity of a name.
    fn identity(&self, name: &str, max_publish_rate: u32, max_connections: usize) -> Arc<Identity> {
        let mut identities = self.0.identities.lock();
        if let Some(identity) = identities.get(name).and_then(Weak::upgrade) {
            return identity;
        }
        if identities.len() >= 2 * identities.values().filter(|known| known.strong_count() > 0).count().max(512) {
            identities.retain(|_, known| known.strong_count() > 0);
        }
        let identity = Identity::new(name, Kind::Named, max_publish_rate, max_connections);
        identities.insert(name.to_owned(), Arc::downgrade(&identity));
        identity
    }

    /// Counts and logs a refused credential, and returns what the client is told.
    fn refuse(&self, reason: Reason, message: String, ClientInfo { door, address }: ClientInfo) -> Problem {
        self.0.refusals.count(reason);
        let (outcome, address) = (reason.label(), address.map(tracing::field::display));
        self.0.refusals.log(|left_out| {
            let request = RequestId::current().map(tracing::field::display);
            tracing::warn!(
                target: "pub_sub::audit", operation = "authenticate", door, address, outcome, left_out, request, "audit"
            );
        });
        Problem::new(Code::Unauthenticated, message)
    }

    /// The same for a header or a message that is not what it should be.
    #[must_use]
    pub fn refuse_malformed(&self, error: &Error, from: ClientInfo) -> Problem {
        self.refuse(Reason::Malformed, error.to_string(), from)
    }

    /// Finds out on whose behalf a request is sent that came over a connection with this certificate.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` for bad credentials.
    pub async fn identify(
        &self,
        parts: &Parts,
        certificate: Option<&str>,
        from: ClientInfo,
    ) -> Result<Principal, Problem> {
        let without_credential =
            || certificate.and_then(|subject| self.of_certificate(subject)).unwrap_or_else(|| self.anonymous());
        if !self.0.is_restricted {
            return Ok(without_credential());
        }
        let in_headers = found::in_headers(&parts.headers).map_err(|error| self.refuse_malformed(&error, from))?;
        let in_address = || self.0.settings.auth_query_token.then(|| found::in_address(&parts.uri)).flatten();
        if let Some(credential) = in_headers.or_else(in_address) {
            return self.authenticate(&credential, from).await;
        }
        let Some(cookie) = found::in_cookie(parts) else { return Ok(without_credential()) };
        match self.authenticate(&cookie, from).await {
            // The browser adds it, whether the page wants that or not. A message over the socket may have a better one.
            Err(_) if Upgrade::is_asked_for(parts) => Ok(without_credential()),
            found => found,
        }
    }

    // ---- changes

    /// Puts other rules into force. Who keeps a key keeps its connections; what it has lost ends.
    fn install(&self, new: AccessRules) {
        let mut rules = self.0.rules.write();
        rules.anonymous.set_grant(Grant::Rights(new.anonymous.unwrap_or_default()));
        let mut known: HashMap<String, (KeyRule, Principal)> =
            rules.keys.drain(..).map(|(rule, principal)| (rule.name.clone(), (rule, principal))).collect();
        for rule in new.keys {
            let (rate, connections) =
                (rule.max_publish_rate.unwrap_or(self.0.default_rate), rule.max_connections.unwrap_or(0));
            let grant = Grant::Rights(rule.rights.clone());
            let same = |(old, _): &(KeyRule, Principal)| (old.hash, &old.subject) == (rule.hash, &rule.subject);
            let identity = self.identity(&rule.name, rate, connections);
            identity.set_limits(rate, connections);
            let principal = match known.remove(&rule.name) {
                Some(kept) if same(&kept) => kept.1,
                replaced => {
                    // The name has another key now: the earlier one has to end as if it had been removed.
                    if let Some((_, earlier)) = replaced {
                        earlier.withdraw();
                    }
                    Principal::new(identity, grant.clone())
                }
            };
            if is_over(&rule, Timestamp::now()) {
                principal.withdraw();
            } else {
                principal.set_grant(grant);
            }
            rules.keys.push((rule, principal));
        }
        for (_, principal) in known.into_values() {
            principal.withdraw();
        }
        let by_hash = rules.keys.iter().enumerate().filter_map(|(index, (rule, _))| Some((rule.hash?, index)));
        let by_hash = by_hash.collect();
        let by_subject =
            rules.keys.iter().enumerate().filter_map(|(index, (rule, _))| Some((rule.subject.clone()?, index)));
        let by_subject = by_subject.collect();
        (rules.by_hash, rules.by_subject) = (by_hash, by_subject);
    }

    /// Follows changes of files and keys, and withdraws what expires, until `stop`.
    pub async fn keep_up_to_date(self, stop: CancellationToken) {
        let tokens = async {
            if let Some(tokens) = &self.0.tokens {
                tokio::join!(tokens.keep_up_to_date(&self.0.reload, stop.clone()), self.follow_token_keys(tokens));
            }
        };
        let following = async {
            tokio::join!(tokens, self.follow_rules(), self.withdraw_expired(), self.follow_signals());
        };
        tokio::select! {
            () = following => {}
            () = stop.cancelled() => {}
        }
    }

    /// SIGHUP asks for everything to be read again.
    async fn follow_signals(&self) {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
        while hangup.recv().await.is_some() {
            self.0.reload.now();
        }
    }

    async fn follow_rules(&self) {
        let path = &self.0.settings.access_file;
        if path.is_empty() {
            return;
        }
        let (mut file, mut asked) = (WatchedFile::new(path), self.0.reload.listen());
        // What was read at the start is compared with what there is now.
        let _ = file.read();
        loop {
            let text = file
                .changed(&mut asked)
                .await
                .and_then(|content| String::from_utf8(content).map_err(|_| format!("{path}: is not UTF-8 text")));
            match text.and_then(|text| AccessRules::parse(&text).map_err(|wrong| format!("{path}: {wrong}"))) {
                Ok(rules) => {
                    let keys = rules.keys.len();
                    self.install(rules);
                    tracing::info!(keys, "the access rules were read again");
                }
                Err(error) => {
                    self.0.reload.failed();
                    tracing::warn!(%error, "the access rules stay as they were");
                }
            }
        }
    }

    async fn follow_token_keys(&self, tokens: &Tokens) {
        let mut keys = tokens.keys();
        while keys.changed().await.is_ok() {
            let current = keys.borrow_and_update().clone();
            self.0.sessions.withdraw_unless(|key| current.contains(key));
        }
    }

    async fn withdraw_expired(&self) {
        let mut ticks = tokio::time::interval(EXPIRY_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = Timestamp::now();
            self.0.sessions.withdraw_expired(now);
            for (rule, principal) in &self.0.rules.read().keys {
                if is_over(rule, now) {
                    principal.withdraw();
                }
            }
        }
    }

    /// Its metric samples.
    #[must_use]
    pub fn metric_samples(&self) -> Vec<MetricSample> {
        let mut samples = self.0.refusals.metric_samples();
        samples.push(MetricSample {
            name: "access_reload_failures_total",
            label: None,
            counter: true,
            help: "Times that an access file or a set of keys could not be used, so that the old one stayed.",
            value: self.0.reload.failures(),
        });
        samples
    }
}

fn is_over(rule: &KeyRule, now: Timestamp) -> bool {
    rule.expires.is_some_and(|expires| expires <= now)
}
