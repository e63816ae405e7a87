//! Who is let in: users, keys, tokens and certificates, for servers and their clients.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nkeys::KeyPair;
use serde_json::{Value, json};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    Open,
    User,
    Token,
    Nkey,
    /// An operator, an account and a user with a signed token (JWT), as `nsc` makes them.
    Credentials,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    Off,
    /// The server shows a certificate of a private authority.
    Server,
    /// As `Server`, before the server says anything in plain text.
    First,
    /// As `Server`, and the client must show one, too.
    Mutual,
}

/// What a client has to know to be let in.
pub enum Login {
    Open,
    User { user: String, password: String },
    Token(String),
    Nkey { seed: String },
    Credentials(PathBuf),
}

/// Files of the authority and of a client.
pub struct Certificates {
    pub authority: PathBuf,
    pub client: PathBuf,
    pub client_key: PathBuf,
}

pub fn quoted(path: &Path) -> String {
    Value::from(path.to_str().unwrap()).to_string()
}

/// The configuration of who is let in, and what a client needs for it.
pub fn accounts(auth: Auth, directory: &Path) -> (Login, String) {
    match auth {
        Auth::Open => (Login::Open, String::new()),
        Auth::User => {
            let login = Login::User { user: "tester".into(), password: "a pass: word".into() };
            (login, "authorization { user: tester, password: \"a pass: word\" }".into())
        }
        Auth::Token => (Login::Token("a-token".into()), "authorization { token: a-token }".into()),
        Auth::Nkey => {
            let user = KeyPair::new_user();
            let seed = user.seed().unwrap();
            (Login::Nkey { seed }, format!("authorization {{ users: [{{ nkey: {} }}] }}", user.public_key()))
        }
        Auth::Credentials => {
            let (operator, system, account, user) =
                (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account(), KeyPair::new_user());
            let unlimited = json!({
                "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
                "leaf": -1,
            });
            let mut jetstream = unlimited.clone();
            for key in ["mem_storage", "disk_storage", "streams", "consumer"] {
                jetstream[key] = (-1).into();
            }
            let kind = |kind: &str| json!({"type": kind, "version": 2});
            let account_claims = |limits: &Value| json!({"type": "account", "version": 2, "limits": limits});
            let config = format!(
                "operator: \"{}\"\nsystem_account: {system_id}\nresolver: MEMORY\n\
                 resolver_preload {{ {system_id}: \"{}\", {account_id}: \"{}\" }}\n",
                sign(&operator, &operator, "operator", &kind("operator")),
                sign(&operator, &system, "system", &account_claims(&unlimited)),
                sign(&operator, &account, "account", &account_claims(&jetstream)),
                system_id = system.public_key(),
                account_id = account.public_key(),
            );
            let claims = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1});
            let file = directory.join("tester.creds");
            let credentials = format!(
                "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
                 -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
                sign(&account, &user, "tester", &claims),
                user.seed().unwrap(),
            );
            fs::write(&file, credentials).unwrap();
            (Login::Credentials(file), config)
        }
    }
}

/// A signed token that says something of `subject`.
fn sign(issuer: &KeyPair, subject: &KeyPair, name: &str, claims: &Value) -> String {
    let encode = |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes);
    let head = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let body = json!({
        "jti": name, "iat": 1, "iss": issuer.public_key(), "name": name, "sub": subject.public_key(), "nats": claims,
    });
    let said = format!("{}.{}", encode(head.to_string().as_bytes()), encode(body.to_string().as_bytes()));
    let signature = issuer.sign(said.as_bytes()).unwrap();
    format!("{said}.{}", encode(&signature))
}

/// Makes an authority and certificates of a server and a client.
pub fn certify(directory: &Path) -> Certificates {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer};
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = directory.join("authority.pem");
    fs::write(&authority, params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    let issue = |name: &str, usage| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages.push(usage);
        let files = [directory.join(format!("{name}.pem")), directory.join(format!("{name}.key"))];
        fs::write(&files[0], params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        fs::write(&files[1], key.serialize_pem()).unwrap();
        files
    };
    issue("server", ExtendedKeyUsagePurpose::ServerAuth);
    let [client, client_key] = issue("client", ExtendedKeyUsagePurpose::ClientAuth);
    Certificates { authority, client, client_key }
}

pub fn tls_block(tls: Tls, directory: &Path) -> String {
    let file = |name: &str| quoted(&directory.join(name));
    let more = match tls {
        Tls::Off => return String::new(),
        Tls::Server => "",
        Tls::First => "handshake_first: true",
        Tls::Mutual => "verify: true",
    };
    format!(
        "tls {{ cert_file: {}, key_file: {}, ca_file: {}\n{more} }}\n",
        file("server.pem"),
        file("server.key"),
        file("authority.pem")
    )
}
