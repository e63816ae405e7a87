//! Makes keys and tokens for tests, with ring and by hand, so that jsonwebtoken is not only tested against itself.

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use ring::{
    hmac,
    rand::SystemRandom,
    rsa::PublicKeyComponents,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use serde_json::{Value, json};

/// An RSA key, as PKCS #8 in base64: ring does not make them. It is used nowhere else.
const RSA_KEY: &str = "\
    MIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQDYQ4+IXE2jxMGkC9okRVQjxZcOkMy8r+sdIGglElMlZ7LmnXGY \
    l4fTIEE+xYxfSROKHJ00ZRoBJY3S5Fk48AYwheWHwc2MH96KlWl/bNqxdom/yqk1LJYbFOGIO2Fj6fAM3TgvEs1tGQVXEoVfnd7b \
    K5ztCx99FYiPh4apXfXPQNuc4qebKc+CSWTFmvcmn/1y3MRlR7t6Noz1lkSqk9Uuku0wOmpE0VQGHkqaRQ87gv312wM6oq9cyWT1 \
    DPVlKRvZGEvcNaqtVDI2gZ3G8zg+vXmvS/EFBJeLr43J/EwSQFIdyazodLQOfatEtpn06xn7nyVvfoT3ApCZeDwxQPuBAgMBAAEC \
    ggEACtvHjj/ziQRvzuy7wPmh1M2kEkU8dmvkePj/1FQEIeW/8pAssY3y3KurAvvDGs9YlbpukpXR9VqdRp2/Chq+diYURS76ra1g \
    TI0zIm9aLVy85Ajzr9m41rbDb9uVaKweE13x0dFBSG1KxUQG4isTKGYwnKlOj9v/2D8PM0amY90aM83suHTJKoE4FwZ3xshEgExt \
    1RD5b2ldMW5LqsESzBH4z0j4nrsSOgjwzLYZep4w9hNT+PQzdb0/HaF5IFFKohjREPI1H5fOJrFalX+cJUUmtKw8Deswt6iI/DuP \
    GlxLM3fy1nUbYgAvtrYrkmkCW1e445DJFfFRSX/OQmAG/QKBgQD85bwbMvXMWr/1RgagC24jhI4705g3dOjJSRrvDYRhCbGFKFoy \
    FtmH94dtUHjUPVHlpYt/3BtZ/b3ZlTC/5aI8f5pEVGHJIu6I79fvouat75FF1S6zvX47L8I68S3jcwhsL3T3bpthGOL+8heId6ch \
    bCh1IoiHXfRkulOaFGKkbQKBgQDa6sXAzn5nRUBm6kSh5vuGwotjFyMDSYqiCSPI7o3j95gfraXDBr/ezEk/glNgU08I0v0C6ots \
    sHa916LJhlCKgcAD4SuIw1F10B47btsbqGPcu3J0o9hjTs4R9lITIOOqEjW/W2vcsSMEN1lsewJxx+StOy1RqPj3cZi9QAe+5QKB \
    gQCIbAFqBrZzc2zjic/fG+tg+4uimEUffVBp7Ka71+XWVt1NQHRPWuYjo5KJlIRpsV5xbDjxUzHp/KgiLImsqto2mnsEaySI1PAq \
    LH+mxJB9uaL7McHMsebbVKsJErs3XAFqIruNEjx9R2iEMOIi+rDMpcS5U1Sk+Tjx8VVR47dGjQKBgQDZ7oIzMN4RPJWiXnE4o9Oe \
    Eink2XGXoiyKpoKjUyiZ2y/ryViNUDjOOZxpxvntmMHDTRdnQcrOxtVOpE6ARGAFoqles1g9bAO6Pxb5n6AsZnQTl9+XUkzmf9sR \
    cp++Py2lbz9mYkJ8jzMGzXsOTV7fmlmCQrkY5BgFbWbab9XGKQKBgEFyGxrxWD1ASrcaGnVHHt5e+JgYIkZVr5aCv1kyKZsbIcTw \
    yc8KU9BYocjiULJAyr1he6fZ0Wux8PTvffc6jP2ZPEFrW6f4YkVL2wp50FWOa54xyFKsG4Ru/06eqORVJoGr/arDXE+mDb7xhNBn \
    NJdmEbYLnlvVwcIlCfEugg+F";

/// The private part of a key.
pub enum Signer {
    Secret(Vec<u8>),
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

pub fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    pub fn rsa() -> Self {
        let key: String = RSA_KEY.split_whitespace().collect();
        Self::Rsa(RsaKeyPair::from_pkcs8(&BASE64_STANDARD.decode(key).unwrap()).unwrap())
    }

    pub fn ec() -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self::Ec(EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap())
    }

    pub fn ed() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Secret(_) => "HS256",
            Self::Rsa(_) => "RS256",
            Self::Ec(_) => "ES256",
            Self::Ed(_) => "EdDSA",
        }
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Secret(secret) => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_owned(),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
                signature
            }
            Self::Ec(key) => key.sign(&SystemRandom::new(), message).unwrap().as_ref().to_owned(),
            Self::Ed(key) => key.sign(message).as_ref().to_owned(),
        }
    }

    /// A token with this header and these claims.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    pub fn sign_text(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = encode(self.signature(message.as_bytes()));
        format!("{message}.{signature}")
    }

    /// A token with a usual header.
    pub fn token(&self, claims: &Value) -> String {
        self.sign(&json!({ "alg": self.algorithm(), "typ": "JWT" }), claims)
    }

    fn public(&self) -> &[u8] {
        match self {
            Self::Secret(_) => panic!("a secret has no public part"),
            Self::Rsa(key) => key.public().as_ref(),
            Self::Ec(key) => key.public_key().as_ref(),
            Self::Ed(key) => key.public_key().as_ref(),
        }
    }

    /// The public key as a `SubjectPublicKeyInfo` in PEM.
    pub fn pem(&self) -> String {
        let prefix: &[u8] = match self {
            Self::Secret(_) => panic!("a secret has no public part"),
            Self::Rsa(_) => b"\x30\x82\x01\x22\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00\x03\x82\x01\x0f\x00",
            Self::Ec(_) => b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00",
            Self::Ed(_) => b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00",
        };
        pem("PUBLIC KEY", &[prefix, self.public()].concat())
    }

    /// The public key as a JSON Web Key.
    pub fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Secret(secret) => json!({ "kty": "oct", "kid": kid, "k": encode(secret) }),
            Self::Rsa(key) => {
                let PublicKeyComponents::<Vec<u8>> { n, e } = key.public().into();
                json!({ "kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": encode(n), "e": encode(e) })
            }
            Self::Ec(_) => {
                let (x, y) = self.public()[1..].split_at(32);
                json!({ "kty": "EC", "kid": kid, "crv": "P-256", "x": encode(x), "y": encode(y) })
            }
            Self::Ed(_) => json!({ "kty": "OKP", "kid": kid, "crv": "Ed25519", "x": encode(self.public()) }),
        }
    }
}

/// A block of PEM.
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A set of keys as text.
pub fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}
