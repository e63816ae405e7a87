//! JSON that is passed on as it is.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Reads a field that is there: null is a value, too.
///
/// # Errors
/// What the deserializer says.
pub fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}
