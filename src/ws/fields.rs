//! The fields of frames that clients send.

use crate::wire::UnknownFields;

/// What a client may send in any frame: the frames of the original service have all of these, whatever their type. Those that
/// a frame does not read are ignored in it.
const ORIGINAL_FIELDS: [&str; 6] = ["type", "topic", "message", "client_id", "last_n", "request_id"];
/// What a frame to publish reads.
pub(super) const PUBLISH_FIELDS: [&str; 11] = [
    "topic",
    "data",
    "message",
    "id",
    "key",
    "expected_offset",
    "headers",
    "ttl",
    "expected_key_offset",
    "remove",
    "request_id",
];
/// What a frame to subscribe reads.
pub(super) const SUBSCRIBE_FIELDS: [&str; 12] = [
    "topic",
    "last",
    "last_n",
    "after",
    "since",
    "state",
    "filter",
    "consumer",
    "ack",
    "consumer_ttl",
    "overflow",
    "request_id",
];
/// What an acknowledgement reads.
pub(super) const ACK_FIELDS: [&str; 5] = ["topic", "consumer", "owner", "cursor", "request_id"];
/// What a frame to sign in reads.
pub(super) const AUTH_FIELDS: [&str; 2] = ["token", "request_id"];

/// Other fields are ignored, but for misspelt ones.
pub(super) const UNKNOWN_FIELDS: UnknownFields = UnknownFields::Ignored(&ORIGINAL_FIELDS);
